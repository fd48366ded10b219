package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

const (
	statusDir = "/rkt/status"
	// firstFailure marks that an app has failed: later failures, mostly of apps
	// stopped because of the first, do not change the pod's exit status.
	firstFailure = "/rkt/first-failure"
)

// exited runs as ExecStopPost= of an app: it records how the app ended
// (systemd.exec(5), $SERVICE_RESULT, $EXIT_CODE, $EXIT_STATUS). The status of
// an app that a signal ended is the signal's number; systemd itself would end
// the pod with 255 then, so the number is handed to it here.
func exited(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 exited NAME")
	}
	app := args[0]
	if err := lastWords(app); err != nil {
		fmt.Fprintln(os.Stderr, err) // the status matters more
	}
	status := exitStatus(os.Getenv("SERVICE_RESULT"), os.Getenv("EXIT_CODE"), os.Getenv("EXIT_STATUS"))
	if err := writeStatus(app, status); err != nil {
		return err
	}
	if status == 0 {
		return nil
	}
	if s, err := launch.ReadSpec(app); err == nil && (s.Restarts || s.Mutable) {
		return nil // see gaveUp; nothing that apps do ends a mutable pod
	}
	return failed(app, status)
}

// gaveUp ends the pod after an app that systemd will not restart any more. From
// 254 on, systemd passes through "failed" before every restart, too.
func gaveUp(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 gave-up NAME")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/usr/bin/systemctl", "show", "--property=ActiveState,Job", args[0]+".service").Output()
	if err != nil {
		return fmt.Errorf("looking at the state of app %q: %w", args[0], err)
	}
	// With a job it is being started again: see Health.Action.
	if failed, job := failedUnit(string(out)); !failed || job {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(statusDir, args[0]))
	status := 1
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > 0 && n < 256 {
			status = n
		}
	}
	return failed(args[0], status)
}

// failedUnit reads what systemctl shows of a unit: whether it has failed, and
// whether it has a job, which systemctl leaves out or empty without one.
func failedUnit(show string) (failed, job bool) {
	for line := range strings.Lines(show) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "ActiveState":
			failed = value == "failed"
		case "Job":
			job = value != "" && value != "0"
		}
	}
	return failed, job
}

// failed ends the pod with the status of the first app that failed.
func failed(app string, status int) error {
	f, err := os.OpenFile(firstFailure, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("marking the pod's first failure: %w", err)
	}
	_, err = fmt.Fprintln(f, app)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("marking the pod's first failure: %w", err)
	}
	if os.Getenv("EXIT_CODE") == "exited" && os.Getenv("EXIT_STATUS") == strconv.Itoa(status) {
		return nil // FailureAction=exit passes this on by itself
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	// A pod that is being stopped ends with 0, however its apps take the signal.
	out, _ := exec.CommandContext(ctx, "/usr/bin/systemctl", "is-system-running").Output()
	if strings.TrimSpace(string(out)) == "stopping" {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/usr/bin/systemctl", "--no-block", "exit", strconv.Itoa(status))
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// exitStatus maps systemd's account of an end to one number.
func exitStatus(result, code, status string) int {
	if result == "success" {
		return 0
	}
	switch code {
	case "exited":
		if n, err := strconv.Atoi(status); err == nil && n > 0 {
			return n
		}
	case "killed", "dumped":
		if n := unix.SignalNum("SIG" + status); n > 0 {
			return int(n)
		}
		if n, err := strconv.Atoi(status); err == nil && n > 0 {
			return n
		}
	}
	return 1 // failed without a status: a handler, a timeout, a broken protocol
}

// writeStatus writes the file whole: readers may look at any time.
func writeStatus(app string, status int) error {
	tmp := statusDir + "/." + app + ".new"
	if err := os.WriteFile(tmp, fmt.Appendf(nil, "%d\n", status), 0o644); err != nil {
		return fmt.Errorf("recording the status of app %q: %w", app, err)
	}
	if err := os.Rename(tmp, statusDir+"/"+app); err != nil {
		return fmt.Errorf("recording the status of app %q: %w", app, err)
	}
	return nil
}

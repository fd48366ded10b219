package entrypoint

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// Ended is how a command that was entered ended: with a status, or by a signal.
type Ended struct {
	Status int
	Signal syscall.Signal
}

func (e *Ended) Error() string {
	if e.Signal != 0 {
		return "ended by " + unix.SignalName(e.Signal)
	}
	return "ended with status " + strconv.Itoa(e.Status)
}

// enterGroup is the control group, in that of the pod, of what runs in an app
// that is not running itself.
const enterGroup = "rkt-enter"

// Enter runs a command in an app and returns *Ended when it has ended. The
// goroutine must be locked to its thread. The command is this process's child:
// cloned into the app's control group and the pod's process IDs, it joins the
// pod's other namespaces by nsenter, a program with one thread, and becomes
// the launcher there, which confines it like the app. No program of the image
// runs outside of that.
func Enter(env Env, args []string) error {
	e, err := abi.ParseEnter(args)
	if err != nil {
		return err
	}
	nsenter, err := find("nsenter", "util-linux")
	if err != nil {
		return err
	}
	proc := "/proc/" + strconv.Itoa(e.PID)
	group, err := groupFor(e)
	if err != nil {
		return err
	}
	defer group.Close()
	argv := []string{"--target=" + strconv.Itoa(e.PID), "--mount", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd=/"}
	mine, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		return err
	}
	if theirs, err := os.Readlink(proc + "/ns/user"); err != nil {
		return fmt.Errorf("looking at process %d: %w", e.PID, err)
	} else if theirs != mine {
		argv = append(argv, "--user")
	}
	tty := term.IsTerminal(0) && term.IsTerminal(1)
	if e.App != "" {
		argv = append(argv, "--", "/rkt-stage2", "enter")
		if e.User != "" {
			argv = append(argv, "--user="+e.User)
		}
		if e.Cwd {
			argv = append(argv, "--cwd")
		}
		if e.Shell {
			argv = append(argv, "--shell")
		}
		if tty {
			argv = append(argv, "--tty")
		}
		argv = append(argv, e.App)
	} else {
		argv = append(argv, "--")
	}
	cmd := exec.Command(nsenter, append(argv, e.Cmd...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if t := env.get("TERM"); t != "" {
		cmd.Env = append(cmd.Env, "TERM="+t)
	}
	// A session of its own: the terminal of who enters is none of the command's business.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	var t *terminal
	if tty {
		if t, err = openTerminal(proc); err != nil {
			return err
		}
		defer t.close()
		cmd.Stdin, cmd.Stdout = t.peer, t.peer
		if term.IsTerminal(2) {
			cmd.Stderr = t.peer
		}
		cmd.SysProcAttr.Setctty = true
	}
	pidNS, err := os.Open(proc + "/ns/pid")
	if err != nil {
		return fmt.Errorf("looking at process %d: %w", e.PID, err)
	}
	defer pidNS.Close()
	if err := unix.Setns(int(pidNS.Fd()), unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("joining the pod's processes: %w", err)
	}
	return supervise(cmd, t, env)
}

// groupFor opens the control group for the command: that of the app, so that
// the app's limits hold for both together.
func groupFor(e abi.Enter) (*os.File, error) {
	sub, err := os.ReadFile(podfs.Subcgroup)
	if err != nil {
		return nil, fmt.Errorf("reading the pod's control group: %w", err)
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(e.PID) + "/cgroup")
	if err != nil {
		return nil, fmt.Errorf("looking at process %d: %w", e.PID, err)
	}
	_, cg, _ := strings.Cut(string(b), "0::/")
	cg = strings.TrimSpace(cg)
	if payload := strings.TrimSpace(string(sub)); cg != payload && !strings.HasPrefix(cg, payload+"/") {
		return nil, fmt.Errorf("process %d is not one of the pod: it is in the control group %q, not below %q", e.PID, cg, payload)
	}
	top := filepath.Join("/sys/fs/cgroup", cg)
	if path.Base(cg) == "init.scope" {
		top = filepath.Dir(top)
	}
	if e.App != "" {
		f, err := os.Open(filepath.Join(top, "system.slice", e.App+".service"))
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
	}
	own := filepath.Join(top, enterGroup)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making the control group %q: %w", own, err)
	}
	return os.Open(own)
}

// supervise runs the command to its end: it passes on signals and, with a
// terminal, what is typed and printed and the size of the window.
func supervise(cmd *exec.Cmd, t *terminal, env Env) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	if err := env.Signals.Release(); err != nil {
		return err
	}
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %q: %w", cmd.Path, err)
	}
	if t != nil {
		if err := t.start(); err != nil {
			return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if s == unix.SIGWINCH && t != nil {
					t.resize()
				}
				_ = cmd.Process.Signal(s) // gone already, if it fails
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	if t != nil {
		t.finish()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("waiting for the command: %w", err)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return &Ended{Signal: ws.Signal()}
	}
	return &Ended{Status: ws.ExitStatus()}
}

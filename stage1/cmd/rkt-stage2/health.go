package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// exitUnhealthy is the exit status of a pod that an unhealthy app has ended.
const exitUnhealthy = 250

// Lines of the journal by which programs find changes of health.
const (
	messageHealthy   = "4f6a2b0e9d0f4c2f8a51c7e3b9d86a10"
	messageUnhealthy = "a3c86f0d1b7e4c0b9c2e5d4f7a1896b2"
	messageWaiting   = "2c7d0e6b5f1a4b3e8d49a7f3c6e1b508"
	messageNotReady  = "d1e95b7c3a2f4e6d8f90b4a6c8e20d5f"
)

// prober looks at one app for as long as it runs.
type prober struct {
	spec   *launch.Spec
	state  healthMachine
	main   int // the app's main process
	output string
	told   bool // systemd knows that the app is healthy, or need not wait for it
	again  *time.Timer
}

// tellAgain is how long after a change the status line is sent once more.
const tellAgain = time.Second

// health looks after the health of an app: argument NAME. It is quiet while
// nothing changes.
func health(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 health NAME")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	if s.Health == nil {
		return fmt.Errorf("app %q has no health check", s.Name)
	}
	// What a check leaves behind comes here, and is killed.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the parent of what checks leave: %w", err)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	p := &prober{spec: s, again: time.NewTimer(tellAgain)}
	p.begin()
	if !s.Health.Ready {
		p.ready()
	} else {
		p.log(messageWaiting, "6", fmt.Sprintf("The pod is ready when app %s is healthy", s.Name))
	}
	return p.run(term)
}

// begin begins anew: the app has been started.
func (p *prober) begin() {
	p.main = launch.MainProcess(p.spec.Name)
	p.state = newHealthMachine(p.spec.Health, time.Now())
	p.record("")
}

func (p *prober) run(term <-chan os.Signal) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-term:
			p.notReady()
			return nil
		case <-p.again.C:
			p.status()
			continue
		case <-timer.C:
		}
		main := launch.MainProcess(p.spec.Name)
		switch {
		case main == 0:
			// between two runs of the app, or it ends: that is no news of its health
			timer.Reset(200 * time.Millisecond)
			continue
		case main != p.main:
			p.begin()
		}
		ok, output, ended := look(p.spec, term)
		if ended {
			p.notReady()
			return nil
		}
		if launch.MainProcess(p.spec.Name) != main {
			timer.Reset(0) // what ended meanwhile was another run
			continue
		}
		p.output = output
		if p.state.result(time.Now(), ok) {
			if err := p.changed(); err != nil {
				fmt.Fprintln(os.Stderr, err) // the next change may do better
			}
		} else {
			p.status()
		}
		timer.Reset(p.state.wait(time.Now()))
	}
}

// changed tells everybody, and acts.
func (p *prober) changed() error {
	h, app := p.spec.Health, p.spec.Name
	if p.state.state == launch.Healthy {
		p.record("")
		p.log(messageHealthy, "6", fmt.Sprintf("App %s is healthy", app))
		p.ready()
		return nil
	}
	p.record(p.output)
	does := ""
	switch h.Action {
	case launch.RestartApp:
		does = "; restarting it"
	case launch.RestartPod:
		does = "; ending the pod"
	}
	p.log(messageUnhealthy, "3", fmt.Sprintf("App %s is unhealthy%s: %s", app, does, p.output))
	switch h.Action {
	case launch.RestartApp:
		// systemd stops this process with the app and starts it again
		return systemctl("--no-block", "try-restart", app+".service")
	case launch.RestartPod:
		return failed(app, exitUnhealthy)
	}
	return nil
}

func systemctl(args ...string) error {
	out, err := exec.Command("/usr/bin/systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, lastLine(out))
	}
	return nil
}

// ready tells systemd that this unit has started, which the pod may wait for.
func (p *prober) ready() {
	if p.told {
		return
	}
	p.told = true
	if err := notify(os.Getenv("NOTIFY_SOCKET"), "READY=1", nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// notReady tells why a start took too long.
func (p *prober) notReady() {
	if p.told || p.state.state == launch.Healthy {
		return
	}
	last := p.output
	if last == "" {
		last = "no check has ended"
	}
	p.log(messageNotReady, "3", fmt.Sprintf("App %s did not become healthy in %s, and the pod is not ready without that; the last check: %s",
		p.spec.Name, time.Since(p.state.begun).Round(100*time.Millisecond), last))
}

// record writes the state for rkt status, whole, and the line for systemctl status.
func (p *prober) record(output string) {
	b, err := json.Marshal(launch.HealthState{State: p.state.state, Since: time.Now().UnixNano(), Output: output})
	if err == nil {
		tmp := launch.HealthDir + "/." + p.spec.Name + ".new"
		if err = os.WriteFile(tmp, append(b, '\n'), 0o644); err == nil {
			err = os.Rename(tmp, filepath.Join(launch.HealthDir, p.spec.Name))
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "recording the health of app %q: %v\n", p.spec.Name, err)
	}
	p.status()
	p.again.Reset(tellAgain)
}

// status sends the line for systemctl status. There is one such line for the
// whole pod: the pod's systemd writes it too, when its last job is done, and so
// do the probers of other apps. Hence it is sent again with every check, and
// soon after a change.
func (p *prober) status() {
	if text := podStatus(launch.HealthDir); text != "" {
		// systemd-nspawn passes on what PID 1 says of itself, and nothing else than
		// that it is ready; root of the pod may speak for PID 1.
		_ = notify("/run/host/notify", "STATUS="+text, &unix.Ucred{Pid: 1}) // only a convenience
	}
}

// podStatus is the health of all apps in a line.
func podStatus(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	by := map[string][]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		var s launch.HealthState
		if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && json.Unmarshal(b, &s) == nil {
			by[s.State] = append(by[s.State], e.Name())
		}
	}
	var parts []string
	for _, state := range []string{launch.Unhealthy, launch.Starting, launch.Healthy} {
		if apps := by[state]; len(apps) > 0 {
			parts = append(parts, state+": "+strings.Join(apps, ", "))
		}
	}
	text := strings.Join(parts, "; ")
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	return text
}

// log writes a line to the journal, with fields for programs.
func (p *prober) log(id, priority, message string) {
	fields := [][2]string{{"MESSAGE", message}, {"MESSAGE_ID", id}, {"PRIORITY", priority}, {"SYSLOG_IDENTIFIER", p.spec.Name},
		{"RKT_APP", p.spec.Name}, {"RKT_HEALTH", p.state.state}}
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f[0] + "=" + f[1] + "\n") // no value has more than a line
	}
	if err := notify("/run/systemd/journal/socket", b.String(), nil); err != nil {
		fmt.Fprintln(os.Stderr, message)
	}
}

// notify sends a datagram to a socket, as the process that creds says, if any.
func notify(to, text string, creds *unix.Ucred) error {
	if to == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var oob []byte
	if creds != nil {
		oob = unix.UnixCredentials(creds)
	}
	tv := unix.Timeval{Sec: 5}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	if err := unix.Sendmsg(fd, []byte(text), oob, &unix.SockaddrUnix{Name: to}, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("sending to %q: %w", to, err)
	}
	// The receiver looks at the process that a message is of, which may be about to
	// end: wait until it has taken the message.
	for range 200 {
		if n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ); err != nil || n == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// maxSaid bounds what is kept of what a check says.
const maxSaid = 300

// look looks at the app once. output says what was found, in a line; ended says
// that this process is to end.
func look(s *launch.Spec, term <-chan os.Signal) (ok bool, output string, ended bool) {
	h := s.Health
	switch {
	case len(h.Exec) > 0:
		return lookExec(s, term)
	case h.Port != 0:
		found := make(chan error, 1)
		go func() {
			var err error
			output, err = lookNet(h)
			found <- err
		}()
		select {
		case err := <-found:
			if err != nil {
				return false, clipLine(err.Error()), false
			}
			return true, output, false
		case <-term:
			return false, "", true
		}
	}
	// systemd has told it started, and kills it when its keep-alives stay away
	return true, "the app says so", false
}

// check becomes the command of an app's health check, in the app: argument NAME.
func check(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 check NAME")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	if s.Health == nil || len(s.Health.Exec) == 0 {
		return fmt.Errorf("app %q has no command that checks its health", s.Name)
	}
	return launch.Exec(s, launch.Command{Kind: launch.Entrant, Argv: s.Health.Exec})
}

// lookExec runs the check's command. It is killed after its time, and so is all
// that it leaves behind.
func lookExec(s *launch.Spec, term <-chan os.Signal) (ok bool, output string, ended bool) {
	out, in, err := os.Pipe()
	if err != nil {
		return false, err.Error(), false
	}
	cmd := exec.Command("/rkt-stage2", "check", s.Name)
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.Env = []string{}
	err = cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return false, clipLine(err.Error()), false
	}
	said := make(chan string, 1)
	go func() { said <- tail(out) }()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	timer := time.NewTimer(s.Health.Timeout)
	defer timer.Stop()
	why := ""
	select {
	case err = <-done:
	case <-timer.C:
		why = "killed, it took longer than " + s.Health.Timeout.String()
	case <-term:
		ended = true
	}
	if why != "" || ended {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		err = <-done
	}
	killOrphans()
	line := rest(out, said)
	if ended {
		return false, "", true
	}
	if why == "" && err == nil {
		return true, line, false
	}
	if why == "" {
		why = err.Error() // "exit status 1", "signal: killed"
	}
	if line != "" {
		why += ": " + line
	}
	return false, clipLine(why), false
}

// rest is what a reader of a check's output says in the end. Who is no child of
// the check may hold the other side, too, and is not waited for.
func rest(out *os.File, said <-chan string) string {
	defer out.Close()
	if err := out.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return ""
	}
	return <-said
}

// killOrphans kills what a check has left: its orphans have become children of
// this process, which has no others then.
func killOrphans() {
	self := os.Getpid()
	for range 400 {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return
			}
			if err == nil && pid == 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		for _, pid := range children(self) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// children are the processes whose parent is pid.
func children(pid int) []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var out []int
	for _, n := range names {
		p, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue
		}
		// after the name, which may hold anything: state, parent
		i := bytes.LastIndexByte(b, ')')
		f := strings.Fields(string(b[i+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			out = append(out, p)
		}
	}
	return out
}

// tail reads all that there is to read and keeps its last line.
func tail(f *os.File) string {
	var keep []byte
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		keep = append(keep, buf[:n]...)
		if len(keep) > 2*len(buf) {
			keep = append(keep[:0], keep[len(keep)-len(buf):]...)
		}
		if err != nil {
			return lastLine(keep)
		}
	}
}

// lastLine is the last line that says something, fit for a message.
func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return clipLine(string(b))
}

// clipLine makes a bounded line of plain text.
func clipLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > maxSaid {
		s = strings.ToValidUTF8(s[:maxSaid], "") + "…"
	}
	return s
}

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// becomeApp connects the streams of an app's main process and becomes it.
// Should that fail, the reason is written where the launcher's own standard
// error was: the app's may be a terminal nobody looks at, or nothing.
func becomeApp(s *launch.Spec, c launch.Command) error {
	errs, err := launch.OpenStdio(s)
	if err == nil {
		c.Env = append(c.Env, launch.TermEnv(s)...)
		err = launch.Exec(s, c)
	}
	if errs != 2 {
		_ = unix.Dup3(errs, 2, 0)
	}
	return err
}

// initPipe is initPod for a pod whose one app is to have the very pipes or
// files that rkt itself has as standard streams. systemd would close them, so
// a child keeps them until the app's launcher comes to take them.
func initPipe(args []string) error {
	f, err := listen(launch.ConsoleSocket)
	if err != nil {
		return fmt.Errorf("keeping the caller's standard streams: %w", err)
	}
	if _, err := os.StartProcess("/proc/self/exe", []string{"/rkt-stage2", "console"}, &os.ProcAttr{
		Env: []string{}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, f}}); err != nil {
		return fmt.Errorf("keeping the caller's standard streams: %w", err)
	}
	f.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return initPod(args)
}

// console hands its standard streams over once; descriptor 3 listens.
func console(args []string) error {
	if len(args) != 0 {
		return errors.New("usage: rkt-stage2 console")
	}
	if err := unix.SetNonblock(3, false); err != nil {
		return err
	}
	fd, _, err := unix.Accept4(3, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("waiting for the app's launcher: %w", err)
	}
	err = unix.Sendmsg(fd, []byte{0}, unix.UnixRights(0, 1, 2), nil, 0)
	return errors.Join(err, os.Remove(launch.ConsoleSocket))
}

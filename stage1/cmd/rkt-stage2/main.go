// Command rkt-stage2 is what runs inside a pod before the apps: PID 1 until it
// execs the pod's systemd (init), the launcher of apps, handlers and shells
// (app, handler, enter, shell), the writer of exit statuses (exited) and the
// reader of what apps write to /dev/stdout by path (out).
//
// It starts once or more for every app of every pod, so it stays small: the
// standard library and x/sys.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// Credentials, namespaces and filters belong to threads: main stays on its own.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 2 {
		fail(2, errors.New("usage: rkt-stage2 init|app|handler|exited|enter|shell|out …"))
	}
	var err error
	args := os.Args[2:]
	switch os.Args[1] {
	case "init":
		err = initPod(args)
	case "app":
		err = runApp(args)
	case "handler":
		err = runHandler(args)
	case "exited":
		err = exited(args)
	case "enter":
		err = enter(args)
	case "shell":
		err = shell(args)
	case "out":
		err = out(args)
	default:
		err = fmt.Errorf("unknown verb %q", os.Args[1])
	}
	if err != nil {
		status := 1
		var e *launch.Error
		if errors.As(err, &e) {
			status = e.Status
		}
		fail(status, err)
	}
}

func fail(status int, err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(status)
}

// initPod is PID 1: it installs the pod's system call filter and becomes the
// supervisor named on its command line. Arguments: FILTER|- PROGRAM ARGS….
func initPod(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: rkt-stage2 init FILTER|- PROGRAM [ARG…]")
	}
	if args[0] != "-" {
		p, err := filter.Read(args[0])
		if err != nil {
			return err
		}
		if err := p.Install(); err != nil {
			return err
		}
	}
	return fmt.Errorf("starting %q: %w", args[1], unix.Exec(args[1], args[1:], os.Environ()))
}

func runApp(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 app NAME")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	if err := openJournal(s); err != nil {
		return err
	}
	return launch.Exec(s, launch.Command{Argv: s.Exec, Ready: true, Out: true})
}

func runHandler(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: rkt-stage2 handler NAME pre-start|post-stop")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	argv := s.PreStart
	if args[1] == "post-stop" {
		argv = s.PostStop
	}
	if err := openJournal(s); err != nil {
		return err
	}
	return launch.Exec(s, launch.Command{Argv: argv, Root: true, Unfiltered: true, Out: true})
}

func openJournal(s *launch.Spec) error {
	if s.LogUnit == "" {
		return nil // as systemd connected it
	}
	return launch.OpenJournal(s.Name, s.LogUnit)
}

// enter runs a command in an app, for rkt enter: arguments APP CMD [ARG…].
func enter(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: rkt-stage2 enter APP CMD [ARG…]")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	term := os.Getenv("TERM")
	if term == "" {
		term = "vt100"
	}
	return launch.Exec(s, launch.Command{Argv: args[1:], Root: true, Dir: "/", Env: []string{"TERM=" + term}})
}

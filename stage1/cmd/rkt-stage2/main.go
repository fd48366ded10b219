// Command rkt-stage2 is what runs inside a pod before the apps: PID 1 until it
// execs the pod's systemd (init), the launcher of apps, handlers and shells
// (app, handler, enter, shell), the holder of an app's mounts (hold), the writer of exit statuses (exited) and the
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
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// Credentials, namespaces and filters belong to threads: main stays on its own.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) < 2 {
		fail(2, errors.New("usage: rkt-stage2 init|initpipe|console|network|app|handler|reload|hold|exited|gave-up|enter|shell|out|iomux|ttymux|health|check …"))
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
	case "reload":
		err = reload(args)
	case "network":
		err = awaitNetwork()
	case "hold":
		err = hold(args)
	case "gave-up":
		err = gaveUp(args)
	case "exited":
		err = exited(args)
	case "enter":
		err = enter(args)
	case "shell":
		err = shell(args)
	case "out":
		err = out(args)
	case "iomux":
		err = iomux(args)
	case "ttymux":
		err = ttymux(args)
	case "health":
		err = health(args)
	case "check":
		err = check(args)
	case "initpipe":
		err = initPipe(args)
	case "console":
		err = console(args)
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
	if err := preparePod(); err != nil {
		return err
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
	if err := launch.LimitIO(s); err != nil {
		return err
	}
	return becomeApp(s, launch.Command{Kind: launch.Main, Argv: s.Exec})
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
	return launch.Exec(s, launch.Command{Kind: launch.Handler, Argv: argv})
}

// reload runs a reload command of an app: arguments NAME NUMBER.
func reload(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: rkt-stage2 reload NAME NUMBER")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 0 || n >= len(s.Reload) {
		return fmt.Errorf("app %q has no reload command %q", args[0], args[1])
	}
	argv := append([]string{}, s.Reload[n]...)
	for i := range argv {
		if argv[i] == "$MAINPID" || argv[i] == "${MAINPID}" {
			argv[i] = os.Getenv("MAINPID")
		}
	}
	if err := openJournal(s); err != nil {
		return err
	}
	return launch.Exec(s, launch.Command{Kind: launch.Entrant, Argv: argv})
}

func hold(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 hold NAME")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	return launch.Hold(s)
}

func openJournal(s *launch.Spec) error {
	if s.LogUnit == "" {
		return nil // as systemd connected it
	}
	return launch.OpenJournal(s.Name, s.LogUnit, s.LogPassed, "")
}

// exitFailure is what rkt ends with when it fails itself.
const exitFailure = 254

// enter runs a command in an app, for the enter entrypoint, which brings the
// process from the host: arguments [--user=USER[:GROUP]] [--cwd] [--shell] [--tty] APP CMD [ARG…].
func enter(args []string) error {
	c := launch.Command{Kind: launch.Entrant, FromHost: true, Dir: "/"}
	user, tty, sh := "", false, false
	for len(args) > 0 && strings.HasPrefix(args[0], "--") {
		v, isUser := strings.CutPrefix(args[0], "--user=")
		switch {
		case isUser:
			user = v
		case args[0] == "--cwd":
			c.Dir = ""
		case args[0] == "--tty":
			tty = true
		case args[0] == "--shell":
			sh = true
		default:
			return fmt.Errorf("unknown argument %q", args[0])
		}
		args = args[1:]
	}
	if len(args) < 2 {
		return errors.New("usage: rkt-stage2 enter [--user=USER[:GROUP]] [--cwd] [--shell] [--tty] APP CMD [ARG…]")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	c.Argv = args[1:]
	if user != "" {
		if c.User, err = launch.FindUser(s.Root, user); err != nil {
			return &launch.Error{Status: exitFailure, Err: err}
		}
	}
	term := os.Getenv("TERM")
	if term == "" {
		term = "vt100"
	}
	c.Env = []string{"TERM=" + term}
	if tty {
		ownTerminal(s, c.User)
	}
	if sh {
		uid := s.UID
		if c.User != nil {
			uid = c.User.UID
		}
		c.Argv = []string{shellFor(s, uid)}
	}
	// An image without a shell is lent a static one, see shell.
	if sh || isShell(c.Argv[0]) {
		c.Fallback = lentShell()
	}
	err = launch.Exec(s, c)
	var e *launch.Error
	if errors.As(err, &e) && e.Status != launch.ExitExec {
		e.Status = exitFailure
	}
	return err
}

// ownTerminal gives the terminal on standard input to the user who is to work
// at it: programs open it again by name.
func ownTerminal(s *launch.Spec, u *launch.User) {
	uid := s.UID
	if u != nil {
		uid = u.UID
	}
	_ = unix.Fchown(0, int(uid), -1) // a terminal of another kind is only less convenient
}

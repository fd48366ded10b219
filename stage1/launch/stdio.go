package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/stdio"
)

// Files beside the sockets in stdio.Dir, for the app's side.
const (
	// PtyFile is a link to the app's terminal.
	PtyFile = "stage2-pts"
	// ConsoleSocket hands the pod's own standard streams to its one app, where they
	// are no terminal; see Spec.Console.
	ConsoleSocket = "/rkt/console"
)

// LogFileDir shows the host's directory of log files in the pod's root.
const LogFileDir = "/rkt/kubernetes/log"

// How an app with stdio.Interactive gets at the caller's streams.
const (
	ConsoleTTY  = "tty"  // systemd has connected them to /dev/console
	ConsolePipe = "pipe" // ConsoleSocket has them
)

// Fifo is the app's end of a stream in mode stdio.Stream.
func Fifo(app, stream string) string { return stdio.Dir(app) + "/stage2-" + stream }

// Modes are those of the app's streams; a record without them has the default.
func (s *Spec) Modes() stdio.Modes {
	m := stdio.Default()
	for _, f := range []struct {
		to   *string
		from string
	}{{&m.In, s.Stdin}, {&m.Out, s.Stdout}, {&m.Err, s.Stderr}} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	return m
}

// outByPath says how /dev/stdout and /dev/stderr are made: by binding Out
// where the stream is a socket to the journal, which cannot be opened by path,
// else by a link to the process's own descriptor.
func (s *Spec) outByPath() (binds []string, links [][2]string) {
	m := s.Modes()
	for _, o := range []struct{ name, mode, link string }{{"stdout", m.Out, "/proc/self/fd/1"}, {"stderr", m.Err, "/proc/self/fd/2"}} {
		if s.Out != "" && o.mode == stdio.Log {
			binds = append(binds, o.name)
		} else {
			links = append(links, [2]string{o.link, o.name})
		}
	}
	return binds, links
}

// OpenStdio connects the standard streams of the app's main process as its
// modes say; those in mode log stay as they are. What the launcher itself has
// to say belongs to the returned descriptor, which exec closes: where standard
// error was, unless the caller's terminal has taken its place.
func OpenStdio(s *Spec) (int, error) {
	if m := s.Modes(); m.Has(stdio.Interactive) {
		if s.Console == ConsolePipe {
			return 2, fromConsole()
		}
		// systemd opened it for both directions; the app may open it again by path
		return 2, errors.Join(unix.Dup3(0, 1, 0), unix.Dup3(0, 2, 0), unix.Fchown(0, int(s.UID), -1))
	}
	errs, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return 2, fmt.Errorf("keeping standard error: %w", err)
	}
	m := s.Modes()
	pty := -1
	if m.Has(stdio.TTY) {
		if pty, err = openPty(s); err != nil {
			return errs, err
		}
		defer unix.Close(pty)
	}
	for fd, stream := range stdio.Streams() {
		mode := m.Of(stream)
		from := -1
		switch {
		case mode == stdio.Log, fd == 0 && mode == stdio.Null:
			continue // as it is
		case mode == stdio.TTY:
			from = pty
		default:
			if from, err = openStream(s.Name, stream, mode); err != nil {
				return errs, err
			}
		}
		err := unix.Dup3(from, fd, 0)
		if mode != stdio.TTY {
			unix.Close(from)
		}
		if err != nil {
			return errs, fmt.Errorf("connecting %s: %w", stream, err)
		}
	}
	return errs, nil
}

func openStream(app, stream, mode string) (int, error) {
	name, flags := "/dev/null", unix.O_WRONLY
	if stream == "stdin" {
		flags = unix.O_RDONLY
	}
	if mode == stdio.Stream || mode == stdio.File {
		// Both ends: should the helper die the app sees no end of its input, and no
		// broken pipe, until there is another.
		name, flags = Fifo(app, stream), unix.O_RDWR
		there, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENXIO) {
			err = errors.New("iomux is not there")
		}
		if err != nil {
			return -1, fmt.Errorf("connecting %s to %q: %w", stream, name, err)
		}
		defer unix.Close(there) // not before the app's own is open: iomux would see an end
	}
	fd, err := unix.Open(name, flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("connecting %s to %q: %w", stream, name, err)
	}
	return fd, nil
}

// openPty opens the app's terminal, makes it the controlling terminal of this
// session and gives it to the app's user.
func openPty(s *Spec) (int, error) {
	name, err := os.Readlink(stdio.Dir(s.Name) + "/" + PtyFile)
	if err != nil || !strings.HasPrefix(name, "/dev/pts/") {
		return -1, fmt.Errorf("finding the terminal of app %q: %w", s.Name, errors.Join(err, errors.New("ttymux has made none")))
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening the terminal of app %q: %w", s.Name, err)
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: it is a session's leader already
		return fd, fmt.Errorf("making a session: %w", err)
	}
	for _, step := range []error{unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0), unix.Fchown(fd, int(s.UID), -1), unix.Fchmod(fd, 0o620)} {
		if step != nil {
			return fd, fmt.Errorf("taking the terminal of app %q: %w", s.Name, step)
		}
	}
	return fd, nil
}

// fromConsole takes the pod's own standard streams.
func fromConsole() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: ConsoleSocket}); err != nil {
		return fmt.Errorf("asking for the caller's standard streams: %w", err)
	}
	oob := make([]byte, unix.CmsgSpace(3*4))
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	var fds []int
	if err == nil {
		var msgs []unix.SocketControlMessage
		if msgs, err = unix.ParseSocketControlMessage(oob[:n]); err == nil && len(msgs) == 1 {
			fds, err = unix.ParseUnixRights(&msgs[0])
		}
	}
	if err == nil && len(fds) != 3 {
		err = fmt.Errorf("%d descriptors arrived, not 3", len(fds))
	}
	for to, from := range fds {
		if err == nil {
			err = unix.Dup3(from, to, 0)
		}
		unix.Close(from)
	}
	if err != nil {
		return fmt.Errorf("receiving the caller's standard streams: %w", err)
	}
	return nil
}

// TermEnv is what the environment of an app with a terminal needs beyond the
// record's: TERM, unless the image or the user has set it.
func TermEnv(s *Spec) []string {
	m := s.Modes()
	has := slices.ContainsFunc(s.Env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") })
	switch {
	case has:
	case m.Has(stdio.Interactive) && s.Console == ConsoleTTY:
		if t := os.Getenv("TERM"); t != "" {
			return []string{"TERM=" + t}
		}
	case m.Has(stdio.TTY):
		return []string{"TERM=xterm"} // whoever attaches comes later
	}
	return nil
}

// Ready tells systemd that this service has started.
func Ready() error {
	fd, err := notifySocket(os.Getenv("NOTIFY_SOCKET"))
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("READY=1")); err != nil {
		return fmt.Errorf("telling systemd that the service is ready: %w", err)
	}
	return nil
}

package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// Exit statuses of a launcher that could not start its program, as systemd
// itself uses them (systemd.exec(5), "Process Exit Codes").
const (
	ExitChdir    = 200
	ExitLimits   = 205
	ExitExec     = 203
	ExitCaps     = 218
	ExitCgroup   = 219
	ExitGroup    = 216
	ExitUser     = 217
	ExitRoot     = 226
	ExitSyscalls = 228
	ExitLabel    = 229
)

// Error is a start that failed; Status is the exit status to end with.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Kind says what a process is to its app.
type Kind int

const (
	// Main is the app itself.
	Main Kind = iota
	// Handler is an event handler: it runs as 0:0, else confined as the app.
	Handler
	// Entrant is what an administrator runs in an app: enter, exec, a shell. It
	// joins the running app: its mounts, control group, limits.
	Entrant
)

// Command is what to run in an app.
type Command struct {
	Kind Kind
	Argv []string
	// User takes the place of the app's own; nil for the app's, or root's for handlers.
	User *User
	// FromHost is set for a process that comes from outside the pod: it has not
	// inherited the pod's system call filter.
	FromHost bool
	// Keep is a descriptor that stays open in the program; 0 means none.
	Keep int
	// Leader is the process whose app an entrant of the fly flavour joins.
	Leader int
	// Dir overrides the app's working directory.
	Dir string
	// Env is added to the app's environment.
	Env []string
	// Fallback is an open program (a static shell) to run when Argv[0] is not in
	// the image; 0 means none.
	Fallback int
}

// Exec becomes the command. It returns only on failure. The calling goroutine
// must be locked to its thread.
func Exec(s *Spec, c Command) error {
	notify := -1
	if c.Kind == Main {
		var err error
		if notify, err = notifySocket(os.Getenv("NOTIFY_SOCKET")); err != nil {
			return &Error{1, err}
		}
		if s.Notify && notify < 0 {
			return &Error{1, errors.New("NOTIFY_SOCKET is not set")}
		}
	}
	prog, podProg, err := s.filters(c.FromHost)
	if err != nil {
		return &Error{ExitSyscalls, err}
	}
	env := append([]string{}, s.Env...)
	for _, v := range c.Env {
		env = SetEnv(env, v)
	}
	user := User{UID: s.UID, GID: s.GID, Groups: s.Groups}
	if c.Kind == Handler {
		user = User{}
	}
	if c.User != nil {
		user = *c.User
	}
	passed := 0
	if c.Kind == Main {
		env, passed = s.fromSystemd(env)
	}
	closeDirectories(c.Keep)
	if err := s.hideMemory(); err != nil {
		return err
	}
	if err := s.place(c.Kind, c.Leader); err != nil {
		return err
	}
	_ = unix.CloseRange(uint(3+passed), 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	if c.Keep > 0 {
		if _, err := unix.FcntlInt(uintptr(c.Keep), unix.F_SETFD, 0); err != nil {
			return &Error{1, fmt.Errorf("keeping the pod's lock: %w", err)}
		}
	}
	if podProg != nil {
		if err := podProg.Install(); err != nil {
			return &Error{ExitSyscalls, err}
		}
	}
	if !s.Fly {
		if err := bound(s.Caps); err != nil {
			return &Error{ExitCaps, err}
		}
	}
	if err := credentials(user.UID, user.GID, user.Groups); err != nil {
		return err
	}
	dir := s.Dir
	if c.Dir != "" {
		dir = c.Dir
	}
	if err := chdir(dir); err != nil {
		return err
	}
	file, err := lookup(c.Argv[0], env, dir)
	if err != nil {
		if c.Fallback <= 0 {
			return &Error{ExitExec, err}
		}
		// A program that is closed on exec may be executed by its descriptor.
		file = fdPath(c.Fallback)
	}
	if s.NoNewPrivileges || (prog != nil && user.UID != 0) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return &Error{ExitSyscalls, fmt.Errorf("setting no_new_privs: %w", err)}
		}
	}
	if err := label(s); err != nil {
		return &Error{ExitLabel, err}
	}
	if prog != nil {
		if err := loadable(file); err != nil {
			return &Error{ExitExec, err}
		}
	}
	if notify >= 0 && !s.Notify {
		if _, err := unix.Write(notify, []byte("READY=1")); err != nil {
			return &Error{1, fmt.Errorf("telling systemd that the app starts: %w", err)}
		}
	}
	closeIf(notify)
	err = become(prog, file, c.Argv, env)
	return &Error{ExitExec, explain(file, err)}
}

// fromSystemd adds what systemd tells the app itself: where to notify, how
// often to send keep-alives, and how many sockets it passes, from descriptor 3 on.
func (s *Spec) fromSystemd(env []string) ([]string, int) {
	var names []string
	if s.Notify || s.Watchdog {
		env = SetEnv(env, "NOTIFY_SOCKET=/run/systemd/notify")
		names = append(names, "WATCHDOG_USEC", "WATCHDOG_PID")
	}
	for _, n := range names {
		if v, ok := os.LookupEnv(n); ok {
			env = SetEnv(env, n+"="+v)
		}
	}
	if !s.Sockets || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return env, 0
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	keep, fdNames := ownSockets(min(max(n, 0), 1024), os.Getenv("LISTEN_FDNAMES"))
	for i, fd := range keep {
		if fd != 3+i {
			if err := unix.Dup3(fd, 3+i, 0); err != nil {
				return env, 0
			}
		}
	}
	if len(keep) > 0 {
		env = SetEnv(env, "LISTEN_FDS="+strconv.Itoa(len(keep)))
		env = SetEnv(env, "LISTEN_PID="+os.Getenv("LISTEN_PID"))
		env = SetEnv(env, "LISTEN_FDNAMES="+fdNames)
	}
	return env, len(keep)
}

// ownSockets are those of n passed descriptors that are the app's, and their
// names: not the one that brought its journal stream.
func ownSockets(n int, names string) (keep []int, kept string) {
	var list []string
	for i, name := range strings.Split(names, ":") {
		if i < n && name != LogSocketName {
			keep = append(keep, 3+i)
			list = append(list, name)
		}
	}
	return keep, strings.Join(list, ":")
}

// filters reads the app's filter, and the pod's if the process lacks it.
func (s *Spec) filters(fromHost bool) (app, pod filter.Program, err error) {
	if s.Filter != "" {
		if app, err = filter.Read(s.Filter); err != nil {
			return nil, nil, err
		}
	}
	if fromHost && s.PodFilter != "" {
		pod, err = filter.Read(s.PodFilter)
	}
	return app, pod, err
}

func closeIf(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// notifySocket opens systemd's notification socket while its path can still be reached.
func notifySocket(addr string) (int, error) {
	if addr == "" {
		return -1, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: addr}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connecting to the notification socket %q: %w", addr, err)
	}
	return fd, nil
}

// SetEnv sets a variable, NAME=VALUE, in a list of them.
func SetEnv(env []string, kv string) []string {
	name, _, _ := strings.Cut(kv, "=")
	for i, have := range env {
		if n, _, _ := strings.Cut(have, "="); n == name {
			env[i] = kv
			return env
		}
	}
	return append(env, kv)
}

// closeDirectories closes every directory this process was left with: a
// working directory below /proc/self/fd would lead out of the root through
// them. All else, among it what the Go runtime polls with, is closed by exec.
func closeDirectories(keep int) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // no /proc, no way through it
	}
	for _, e := range fds {
		var fd int
		if _, err := fmt.Sscanf(e.Name(), "%d", &fd); err != nil || fd < 3 || fd == keep {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			unix.Close(fd)
		}
	}
}

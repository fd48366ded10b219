package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// Exit statuses of a launcher that could not start its program, as systemd
// itself uses them (systemd.exec(5), "Process Exit Codes").
const (
	ExitChdir    = 200
	ExitExec     = 203
	ExitCaps     = 218
	ExitGroup    = 216
	ExitUser     = 217
	ExitRoot     = 226
	ExitSyscalls = 228
)

// Error is a start that failed; Status is the exit status to end with.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Command is what to run in an app.
type Command struct {
	Argv []string
	// Privileged runs as 0:0 without the app's limits on users and groups: event
	// handlers, and what an administrator runs by enter or in a shell.
	Root bool
	// Unfiltered leaves out the app's capability bounding set, system call filter
	// and no-new-privileges: event handlers.
	Unfiltered bool
	// Out has writes to /dev/stdout by path carried to the journal, see Spec.Out.
	Out bool
	// Dir overrides the app's working directory.
	Dir string
	// Env is added to the app's environment.
	Env []string
	// Ready is sent to systemd's notification socket just before exec; -1 none.
	Ready bool
	// Fallback is an open program (a static shell) to run when Argv[0] is not in
	// the image; 0 means none.
	Fallback int
}

// Exec becomes the command. It returns only on failure. The calling goroutine
// must be locked to its thread.
func Exec(s *Spec, c Command) error {
	notify := -1
	if c.Ready {
		var err error
		if notify, err = notifySocket(os.Getenv("NOTIFY_SOCKET")); err != nil {
			return &Error{1, err}
		}
	}
	var prog filter.Program
	if s.Filter != "" && !c.Unfiltered {
		var err error
		if prog, err = filter.Read(s.Filter); err != nil {
			return &Error{ExitSyscalls, err}
		}
	}
	env := append([]string{}, s.Env...)
	for _, v := range c.Env {
		env = setEnv(env, v)
	}
	if s.Notify && notify < 0 && c.Ready {
		return &Error{1, errors.New("NOTIFY_SOCKET is not set")}
	}
	if s.Notify && !c.Root {
		env = setEnv(env, "NOTIFY_SOCKET=/run/systemd/notify")
	}
	if !c.Out {
		view := *s
		view.Out = ""
		s = &view
	}
	if err := enterRoot(s); err != nil {
		return &Error{ExitRoot, err}
	}
	closeInherited()
	dir := s.Dir
	if c.Dir != "" {
		dir = c.Dir
	}
	if !c.Unfiltered {
		if err := bound(s.Caps); err != nil {
			return &Error{ExitCaps, err}
		}
	}
	uid, gid, groups := s.UID, s.GID, s.Groups
	if c.Root {
		uid, gid, groups = 0, 0, nil
	}
	if err := credentials(uid, gid, groups); err != nil {
		return err
	}
	if err := chdir(dir); err != nil {
		return err
	}
	file, err := lookup(c.Argv[0], env, dir)
	useFallback := false
	if err != nil {
		if c.Fallback <= 0 {
			return &Error{ExitExec, err}
		}
		useFallback = true
	}
	if !c.Unfiltered && (s.NoNewPrivileges || (prog != nil && uid != 0)) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return &Error{ExitSyscalls, fmt.Errorf("setting no_new_privs: %w", err)}
		}
	}
	if notify >= 0 && !s.Notify {
		if _, err := unix.Write(notify, []byte("READY=1")); err != nil {
			return &Error{1, fmt.Errorf("telling systemd that the app starts: %w", err)}
		}
	}
	closeIf(notify)
	if prog != nil {
		if err := prog.Install(); err != nil {
			return &Error{ExitSyscalls, err}
		}
	}
	if useFallback {
		return &Error{ExitExec, execveat(c.Fallback, c.Argv, env)}
	}
	err = unix.Exec(file, c.Argv, env)
	return &Error{ExitExec, explain(file, err)}
}

func closeIf(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

func execveat(fd int, argv, env []string) error {
	a, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	e, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&e[0])), unix.AT_EMPTY_PATH, 0)
	return fmt.Errorf("starting the lent shell: %w", errno)
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

func setEnv(env []string, kv string) []string {
	name, _, _ := strings.Cut(kv, "=")
	for i, have := range env {
		if n, _, _ := strings.Cut(have, "="); n == name {
			env[i] = kv
			return env
		}
	}
	return append(env, kv)
}

// closeInherited sees to it that nothing of the pod stays open in the app:
// directories are closed at once, since a working directory below
// /proc/self/fd would lead out of the root through them; the rest, among it
// what the Go runtime polls with, is closed by exec.
func closeInherited() {
	for fd := 3; fd < 1024; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			unix.Close(fd)
		}
	}
	_ = unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
}

// bound drops every capability outside set from the bounding set and clears
// the inheritable and ambient ones: the program gets what exec computes.
func bound(set uint64) error {
	for c := range 64 {
		if set&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			if errors.Is(err, unix.EINVAL) {
				break // past the kernel's last capability
			}
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("clearing inheritable capabilities: %w", err)
	}
	return nil
}

// credentials sets groups, gid and uid of the calling thread; exec makes them
// the process's.
func credentials(uid, gid uint32, groups []uint32) error {
	list := append([]uint32{gid}, groups...)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(&list[0])), 0); e != 0 {
		return &Error{ExitGroup, fmt.Errorf("setting groups: %w", e)}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return &Error{ExitGroup, fmt.Errorf("setting group %d: %w", gid, e)}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return &Error{ExitUser, fmt.Errorf("setting user %d: %w", uid, e)}
	}
	return nil
}

func chdir(dir string) error {
	if dir == "" {
		dir = "/"
	}
	if err := unix.Chdir(dir); err != nil {
		return &Error{ExitChdir, fmt.Errorf("entering the working directory %q: %w", dir, err)}
	}
	return nil
}

// lookup finds the program as appc says: absolute, relative to the working
// directory, or by the app's PATH.
func lookup(name string, env []string, dir string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, executable(name)
	}
	if strings.Contains(name, "/") {
		p := path.Join("/", dir, name)
		return p, executable(p)
	}
	search := dir + ":/bin:/usr/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	for d := range strings.SplitSeq(search, ":") {
		if !strings.HasPrefix(d, "/") {
			d = path.Join("/", dir, d)
		}
		p := path.Join(d, name)
		if executable(p) == nil {
			return p, nil
		}
	}
	return "", diagnose("Unable to open %q: not found in PATH %q", name, search)
}

func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return explain(p, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return diagnose("%q is not a regular file", p)
	case st.Mode&0o111 == 0:
		return diagnose("%q is not executable", p)
	}
	return nil
}

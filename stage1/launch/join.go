package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the launcher leaves in the pod's root for those that come later: the
// process IDs of an app's main process and, for an app with event handlers, of
// the process that holds its mount namespace.
const (
	mainDir = "/run/rkt/main"
	holdDir = "/run/rkt/hold"
)

// place gives the calling thread the app's root. All processes of a running app
// share its mount namespace: a handler sees what the app mounted, and an
// administrator what the app sees.
func (s *Spec) place(kind Kind, leader int) error {
	if s.Fly {
		return s.placeFly(kind, leader)
	}
	if kind == Entrant {
		if joined, err := s.join(); joined || err != nil {
			return err
		}
		view := *s
		view.Out = "" // the terminal or the pipes of who entered
		s = &view
	}
	if kind == Main {
		a, err := prepareAnnouncement(mainDir, s.Name)
		if err != nil {
			return &Error{1, err}
		}
		defer a.close()
		if err := s.enter(kind); err != nil {
			return err
		}
		return wrap(1, a.tell(), "recording the process of app %q", s.Name)
	}
	return s.enter(kind)
}

// enter gives the calling thread the app's root: the held one, or a new one.
func (s *Spec) enter(kind Kind) error {
	if s.PreStart != nil || s.PostStop != nil {
		pid := announced(holdDir, s.Name)
		ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(ns)
			err = setMountNS(ns)
		}
		if err == nil || kind != Entrant {
			return wrap(ExitRoot, err, "joining the mounts of app %q", s.Name)
		}
	}
	if err := enterRoot(s); err != nil {
		return &Error{ExitRoot, err}
	}
	return nil
}

func wrap(status int, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{status, fmt.Errorf(format+": %w", append(args, err)...)}
}

// Hold makes the app's root and keeps it until the process is killed.
func Hold(s *Spec) error {
	notify, err := notifySocket(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	a, err := prepareAnnouncement(holdDir, s.Name)
	if err != nil {
		return err
	}
	if err := enterRoot(s); err != nil {
		return &Error{ExitRoot, err}
	}
	if err := a.tell(); err != nil {
		return fmt.Errorf("recording the process of app %q: %w", s.Name, err)
	}
	a.close()
	if _, err := unix.Write(notify, []byte("READY=1")); err != nil {
		return fmt.Errorf("telling systemd that the app's root is there: %w", err)
	}
	for {
		_ = unix.Pause()
	}
}

// announcement is a record of this process that is put in place when the app's
// root is there and the record's directory out of reach: who joins the process
// shall not find itself in the pod's root.
type announcement struct {
	dir int
	app string
}

func prepareAnnouncement(dir, app string) (*announcement, error) {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "."+app), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("recording the process of app %q: %w", app, err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("recording the process of app %q: %w", app, err)
	}
	return &announcement{fd, app}, nil
}

func (a *announcement) tell() error { return unix.Renameat(a.dir, "."+a.app, a.dir, a.app) }

// close leaves no way out of the app's root.
func (a *announcement) close() { unix.Close(a.dir) }

// announced is the process recorded below dir, 0 if there is none.
func announced(dir, app string) int {
	b, err := os.ReadFile(filepath.Join(dir, app))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0
	}
	return pid
}

// mainProcess is the process ID of the app's main process and its control
// group; 0 if the app is not running. Nothing but the app's unit is ever in
// that group, so that a number used again is not mistaken.
func mainProcess(app string) (pid int, cgroup string) {
	if pid = announced(mainDir, app); pid == 0 {
		return 0, ""
	}
	cgroup = cgroupOf(strconv.Itoa(pid))
	if filepath.Base(cgroup) != app+".service" {
		return 0, ""
	}
	return pid, cgroup
}

func cgroupOf(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if cg, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return cg
		}
	}
	return ""
}

// join makes the calling process one of the running app's: control group,
// limits, mount namespace. It says false if the app has no process.
func (s *Spec) join() (bool, error) {
	pid, _ := mainProcess(s.Name)
	if pid == 0 {
		return false, nil
	}
	return s.joinProcess(pid)
}

// joinProcess is join for a process whose number is known.
func (s *Spec) joinProcess(pid int) (bool, error) {
	cgroup := cgroupOf(strconv.Itoa(pid))
	proc := "/proc/" + strconv.Itoa(pid)
	ns, err := unix.Open(proc+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil // it ends at this moment
	}
	defer unix.Close(ns)
	l, err := limitsOf(strconv.Itoa(pid))
	if cgroup == "" || cgroupOf(strconv.Itoa(pid)) != cgroup {
		return false, nil
	}
	if err != nil {
		return false, &Error{1, fmt.Errorf("reading the limits of app %q: %w", s.Name, err)}
	}
	if cgroupOf("self") != cgroup {
		if err := os.WriteFile(filepath.Join("/sys/fs/cgroup", cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return false, &Error{ExitCgroup, fmt.Errorf("joining the control group of app %q: %w", s.Name, err)}
		}
	}
	if err := l.apply(); err != nil {
		return false, &Error{ExitLimits, fmt.Errorf("taking over the limits of app %q: %w", s.Name, err)}
	}
	if err := setMountNS(ns); err != nil {
		return false, &Error{ExitRoot, fmt.Errorf("joining the mounts of app %q: %w", s.Name, err)}
	}
	return true, nil
}

func setMountNS(fd int) error {
	// A thread that shares its root and working directory with others may not change namespaces.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWNS)
}

// limits are what a process inherits beside its credentials.
type limits struct {
	resources map[string]unix.Rlimit
	oom       []byte
	umask     int
}

// resourceNames are the names of /proc/PID/limits by number.
func resourceNames() []string {
	return []string{"Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set", "Max processes",
		"Max open files", "Max locked memory", "Max address space", "Max file locks", "Max pending signals", "Max msgqueue size", "Max nice priority",
		"Max realtime priority", "Max realtime timeout"}
}

// parseLimits reads /proc/PID/limits, which needs less than prlimit(2) does.
func parseLimits(text string) (map[string]unix.Rlimit, error) {
	out := map[string]unix.Rlimit{}
	number := func(v string) (uint64, error) {
		if v == "unlimited" {
			return unix.RLIM_INFINITY, nil
		}
		return strconv.ParseUint(v, 10, 64)
	}
	for _, name := range resourceNames() {
		_, rest, ok := strings.Cut(text, name+" ")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			return nil, fmt.Errorf("the kernel tells no %q", name)
		}
		soft, err := number(f[0])
		hard, err2 := number(f[1])
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("reading %q: %w", name, err)
		}
		out[name] = unix.Rlimit{Cur: soft, Max: hard}
	}
	return out, nil
}

func limitsOf(pid string) (*limits, error) {
	l := &limits{}
	proc := "/proc/" + pid
	text, err := os.ReadFile(proc + "/limits")
	if err != nil {
		return nil, err
	}
	if l.resources, err = parseLimits(string(text)); err != nil {
		return nil, err
	}
	if l.oom, err = os.ReadFile(proc + "/oom_score_adj"); err != nil {
		return nil, err
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			u, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32)
			if err != nil {
				return nil, fmt.Errorf("reading the umask %q: %w", v, err)
			}
			l.umask = int(u)
			return l, nil
		}
	}
	return nil, errors.New("the kernel tells no umask")
}

func (l *limits) apply() error {
	have, err := limitsOf("self")
	if err != nil {
		return err
	}
	for r, name := range resourceNames() {
		lim := l.resources[name]
		if r == unix.RLIMIT_NOFILE {
			// In any case, and by way of the library: it raised this limit when the
			// program started and would restore what it found then.
			if err := syscall.Setrlimit(r, &syscall.Rlimit{Cur: lim.Cur, Max: lim.Max}); err != nil {
				return fmt.Errorf("setting %q: %w", name, err)
			}
		} else if lim != have.resources[name] {
			if err := unix.Prlimit(0, r, &lim, nil); err != nil {
				return fmt.Errorf("setting %q: %w", name, err)
			}
		}
	}
	if !bytes.Equal(have.oom, l.oom) {
		if err := os.WriteFile("/proc/self/oom_score_adj", l.oom, 0); err != nil {
			return fmt.Errorf("setting the OOM score: %w", err)
		}
	}
	unix.Umask(l.umask)
	return nil
}

package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the launcher leaves in the pod's root for those that come later: the
// process ID of an app's main process, and the mount namespace of an app with
// event handlers, which outlives each single process of it.
const (
	mainDir = "/run/rkt/main"
	nsDir   = "/run/rkt/ns"
)

// rlimits is the number of resource limits (RLIM_NLIMITS).
const rlimits = 16

// place gives the calling thread the app's root. All processes of a running app
// share its mount namespace: a handler sees what the app mounted, and an
// administrator what the app sees.
func (s *Spec) place(kind Kind) error {
	handlers := s.PreStart != nil || s.PostStop != nil
	if kind == Entrant {
		joined, err := s.join()
		if joined || err != nil {
			return err
		}
		view := *s
		view.Out = "" // the terminal or the pipes of who entered
		s = &view
	}
	if handlers {
		if fd, err := unix.Open(filepath.Join(nsDir, s.Name), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			defer unix.Close(fd)
			// An empty file is one that a killed launcher never came to mount on.
			if err := setMountNS(fd); err == nil {
				return s.announce(kind)
			}
		}
	}
	if err := s.announce(kind); err != nil {
		return err
	}
	if !handlers || kind == Entrant {
		if err := enterRoot(s); err != nil {
			return &Error{ExitRoot, err}
		}
		return nil
	}
	keep := keeper(s.Name)
	if err := enterRoot(s); err != nil {
		return &Error{ExitRoot, err}
	}
	if err := keep(unix.Gettid()); err != nil {
		return &Error{ExitRoot, fmt.Errorf("keeping the mount namespace of app %q: %w", s.Name, err)}
	}
	return nil
}

// announce records the main process of the app.
func (s *Spec) announce(kind Kind) error {
	if kind != Main {
		return nil
	}
	if err := os.MkdirAll(mainDir, 0o700); err != nil {
		return &Error{1, err}
	}
	tmp := filepath.Join(mainDir, "."+s.Name)
	err := os.WriteFile(tmp, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(mainDir, s.Name))
	}
	if err != nil {
		return &Error{1, fmt.Errorf("recording the process of app %q: %w", s.Name, err)}
	}
	return nil
}

// keeper starts a thread that stays in the pod's mount namespace. The function
// it returns has that thread bind the namespace of another one.
func keeper(app string) func(tid int) error {
	tids, done := make(chan int), make(chan error)
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread() // for good: it ends with the process
		close(ready)
		target := filepath.Join(nsDir, app)
		tid := <-tids
		err := os.MkdirAll(nsDir, 0o700)
		if err == nil {
			err = os.WriteFile(target, nil, 0o600)
		}
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/mnt", tid), target, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	<-ready
	return func(tid int) error {
		tids <- tid
		return <-done
	}
}

// Release forgets an app whose last process has ended.
func Release(app string) error {
	_ = os.Remove(filepath.Join(mainDir, app))
	ns := filepath.Join(nsDir, app)
	err := unix.Unmount(ns, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("releasing the mount namespace of app %q: %w", app, err)
	}
	return os.Remove(ns)
}

// mainProcess is the process ID of the app's main process and its control
// group; 0 if the app is not running. Nothing but the app's unit is ever in
// that group, so that a number used again is not mistaken.
func mainProcess(app string) (pid int, cgroup string) {
	b, err := os.ReadFile(filepath.Join(mainDir, app))
	if err != nil {
		return 0, ""
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil || pid <= 1 {
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
	pid, cgroup := mainProcess(s.Name)
	if pid == 0 {
		return false, nil
	}
	proc := "/proc/" + strconv.Itoa(pid)
	ns, err := unix.Open(proc+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil // it ends at this moment
	}
	defer unix.Close(ns)
	l, err := limitsOf(pid)
	if again, _ := mainProcess(s.Name); again != pid {
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
	resources [rlimits]unix.Rlimit
	oom       []byte
	umask     int
}

func limitsOf(pid int) (*limits, error) {
	l := &limits{}
	for r := range l.resources {
		if err := unix.Prlimit(pid, r, nil, &l.resources[r]); err != nil {
			return nil, err
		}
	}
	proc := "/proc/" + strconv.Itoa(pid)
	var err error
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
	for r := range l.resources {
		lim := l.resources[r]
		if r == unix.RLIMIT_NOFILE {
			// by way of the library, which would restore what it found at exec
			if err := syscall.Setrlimit(r, &syscall.Rlimit{Cur: lim.Cur, Max: lim.Max}); err != nil {
				return fmt.Errorf("setting limit %d: %w", r, err)
			}
			continue
		}
		if err := unix.Prlimit(0, r, &lim, nil); err != nil {
			return fmt.Errorf("setting limit %d: %w", r, err)
		}
	}
	have, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	if !bytes.Equal(have, l.oom) {
		if err := os.WriteFile("/proc/self/oom_score_adj", l.oom, 0); err != nil {
			return fmt.Errorf("setting the OOM score: %w", err)
		}
	}
	unix.Umask(l.umask)
	return nil
}

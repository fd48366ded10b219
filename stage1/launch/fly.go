package launch

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// FlyRoot makes the root of an app of the fly flavour in the calling process's
// mount namespace: the host's /dev, /proc and /sys, as they are and with what
// is mounted there later, and a /tmp of its own. Volumes come on top of it.
func FlyRoot(dir string) error {
	r, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer unix.Close(r.fd)
	for _, name := range []string{"dev", "proc", "sys"} {
		t, err := r.dir(name, 0o755)
		if err != nil {
			return err
		}
		m, err := HostTree("/"+name, true)
		if err == nil {
			err = attach(m, t)
			unix.Close(m)
		}
		unix.Close(t)
		if err != nil {
			return fmt.Errorf("mounting /%s in the app: %w", name, err)
		}
	}
	t, err := r.dir("tmp", 0o1777)
	if err != nil {
		return err
	}
	defer unix.Close(t)
	if err := unix.Mount("tmpfs", fdPath(t), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mounting /tmp in the app: %w", err)
	}
	return nil
}

// HostTree clones the mount at a path of the host's own mount namespace: the
// clone is a peer of it, so that what is mounted below either shows in both.
func HostTree(source string, recursive bool) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		ns, err := unix.Open("/proc/1/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = setMountNS(ns)
			unix.Close(ns)
		}
		fd := -1
		if err == nil {
			// systemd makes / shared; a host that did not would show nothing
			err = unix.Mount("", source, "", unix.MS_SHARED|unix.MS_REC, "")
			if errors.Is(err, unix.EINVAL) {
				err = nil // not a mount point: it is as shared as what it lies on
			}
		}
		if err == nil {
			fd, err = clone(source, recursive)
		}
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		return -1, fmt.Errorf("opening %q of the host: %w", source, r.err)
	}
	return r.fd, nil
}

// placeFly gives the thread the root of an app of the fly flavour: the one made
// by FlyRoot, or that of the running process leader.
func (s *Spec) placeFly(kind Kind, leader int) error {
	if kind == Entrant {
		ok, err := s.joinProcess(leader)
		if err == nil && !ok {
			err = &Error{1, fmt.Errorf("app %q has ended", s.Name)}
		}
		return err
	}
	r := &root{}
	var err error
	if r.fd, err = unix.Open(s.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err != nil {
		return &Error{ExitRoot, fmt.Errorf("opening %q: %w", s.Root, err)}
	}
	defer unix.Close(r.fd)
	err = r.files(s.Binds)
	if err == nil {
		err = r.credentials(s)
	}
	if err == nil && (s.Notify || s.Watchdog) {
		err = r.bindFile(Bind{Source: "/run/systemd/notify", Target: "/run/systemd/notify"})
	}
	if err == nil && s.Journal {
		err = r.bindTree(s.JournalFrom, "run/systemd/journal")
	}
	if err == nil {
		err = r.pivot(s.Root)
	}
	return wrap(ExitRoot, err, "making the root of app %q", s.Name)
}

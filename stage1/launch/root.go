package launch

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel interfaces an app may read but not write, and those it may not see.
// Missing ones are skipped.
func readOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom",
		"/proc/sysrq-trigger", "/sys/block", "/sys/bus", "/sys/class", "/sys/dev", "/sys/devices", "/sys/kernel"}
}

func hiddenPaths() []string {
	return []string{"/sys/firmware", "/sys/fs", "/sys/hypervisor", "/sys/module", "/sys/power",
		"/proc/config.gz", "/proc/kallsyms", "/proc/sched_debug", "/proc/kcore", "/proc/kmem", "/proc/mem"}
}

// enterRoot gives the calling thread a mount namespace in which the app's root
// is /, with its API file systems. The thread must be locked to its goroutine,
// and nothing but exec may follow. Every step goes by file descriptors
// resolved beneath the root: the image is hostile, and the pod's root is not
// to be reached through its links.
func enterRoot(s *Spec) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	// Mounts made later in the pod (a volume added, machinectl bind) arrive here; nothing goes back.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	var notify string
	if s.Notify || s.Watchdog {
		notify = "/run/systemd/notify"
	}
	r, err := openRoot(s.Root)
	if err != nil {
		return err
	}
	defer unix.Close(r.fd)
	for _, step := range []func() error{
		func() error { return r.dev(s) },
		func() error { return r.bindTree("/proc", "proc") },
		func() error {
			if s.OwnSys {
				return nil
			}
			return r.bindTree("/sys", "sys")
		},
		func() error { return r.run(notify) },
		func() error { return r.files(s.Binds) },
		func() error { return r.credentials(s) },
		func() error {
			if !s.MaskPaths {
				return nil
			}
			return r.mask(s.OwnSys)
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if s.ReadOnlyRoot {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(r.fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("making the root of app %q read-only: %w", s.Name, err)
		}
	}
	return r.pivot(s.Root)
}

// pivot makes the root the thread's /.
func (r *root) pivot(name string) error {
	if err := unix.Fchdir(r.fd); err != nil {
		return fmt.Errorf("entering %q: %w", name, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("making %q the root: %w", name, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the pod's root: %w", err)
	}
	return unix.Chdir("/")
}

type root struct {
	fd int
}

// openRoot binds the root onto itself, so that it is a mount of its own also
// where the pod uses plain copies, and returns it as a descriptor.
func openRoot(dir string) (*root, error) {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("binding %q: %w", dir, err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", dir, err)
	}
	return &root{fd}, nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// plain opens name, a path without links: /proc, /sys, /dev must be what they
// are called.
func (r *root) plain(name string, flags int) (int, error) {
	fd, err := unix.Openat2(r.fd, name, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.ELOOP) {
		return -1, fmt.Errorf("the image's /%s is, or lies behind, a symbolic link; it must be a directory", name)
	}
	return fd, err
}

// dir opens the directory name, making it if the image has none.
func (r *root) dir(name string, mode uint32) (int, error) {
	fd, err := r.plain(name, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		at := r.fd
		if parent := path.Dir(name); parent != "." {
			if at, err = r.dir(parent, 0o755); err != nil {
				return -1, err
			}
			defer unix.Close(at)
		}
		if err = unix.Mkdirat(at, path.Base(name), mode); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, fmt.Errorf("making /%s in the app: %w", name, err)
		}
		if fd, err = r.plain(name, unix.O_PATH|unix.O_DIRECTORY); err == nil {
			// not subject to the umask
			if err = unix.Chmod(fdPath(fd), mode); err != nil {
				unix.Close(fd)
				return -1, fmt.Errorf("setting the mode of /%s in the app: %w", name, err)
			}
		}
	}
	if errors.Is(err, unix.ENOTDIR) {
		return -1, fmt.Errorf("the image's /%s is not a directory", name)
	}
	return fd, err
}

func attach(tree int, target int) error {
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func clone(source string, recursive bool) (int, error) {
	flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, source, uint(flags))
}

// bindTree shows the pod's source, with what is mounted below, at name.
func (r *root) bindTree(source, name string) error { return r.bind(source, name, 0) }

// bindReadOnly is bindTree for what the app shall not change: sockets it could
// else remove.
func (r *root) bindReadOnly(source, name string) error {
	return r.bind(source, name, unix.MOUNT_ATTR_RDONLY)
}

func (r *root) bind(source, name string, attributes uint64) error {
	t, err := r.dir(name, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(t)
	m, err := clone(source, true)
	if err != nil {
		return fmt.Errorf("opening %s of the pod: %w", source, err)
	}
	defer unix.Close(m)
	if attributes != 0 {
		attr := unix.MountAttr{Attr_set: attributes}
		if err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("making %s read-only in the app: %w", source, err)
		}
	}
	if err := attach(m, t); err != nil {
		return fmt.Errorf("mounting %s in the app: %w", source, err)
	}
	return nil
}

// dev makes /dev: a tmpfs with the pod's nodes one by one, its pts and shm.
// Volumes that lie below /dev are carried over.
func (r *root) dev(s *Spec) error {
	t, err := r.dir("dev", 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(t)
	type kept struct {
		name string
		fd   int
		dir  bool
	}
	var keep []kept
	for _, v := range s.DevVolumes {
		name := strings.TrimPrefix(path.Clean(v), "/")
		fd, err := r.plain(name, unix.O_PATH)
		if err != nil {
			return fmt.Errorf("finding the volume at %q: %w", v, err)
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		m := -1
		if err == nil {
			m, err = unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		}
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("carrying the volume at %q over: %w", v, err)
		}
		keep = append(keep, kept{name, m, st.Mode&unix.S_IFMT == unix.S_IFDIR})
	}
	if err := unix.Mount("tmpfs", fdPath(t), "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=0755,size=64k,nr_inodes=1k"); err != nil {
		return fmt.Errorf("mounting /dev in the app: %w", err)
	}
	d, err := r.plain("dev", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty", "console", "net/tun"} {
		if err := bindNode(d, n); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("making /dev/%s in the app: %w", n, err)
		}
	}
	for _, n := range []string{"pts", "shm", "mqueue"} {
		m, err := clone("/dev/"+n, true)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			if err = unix.Mkdirat(d, n, 0o755); err == nil {
				var sub int
				if sub, err = unix.Openat(d, n, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
					err = attach(m, sub)
					unix.Close(sub)
				}
			}
			unix.Close(m)
		}
		if err != nil {
			return fmt.Errorf("making /dev/%s in the app: %w", n, err)
		}
	}
	binds, links := s.outByPath()
	for _, n := range binds {
		if err := bindAt(d, n, s.Out); err != nil {
			return fmt.Errorf("making /dev/%s in the app: %w", n, err)
		}
	}
	for _, l := range append(links, [][2]string{{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"pts/ptmx", "ptmx"}, {"/run/systemd/journal/dev-log", "log"}, {"/proc/kcore", "core"}}...) {
		if err := unix.Symlinkat(l[0], d, l[1]); err != nil {
			return fmt.Errorf("making /dev/%s in the app: %w", l[1], err)
		}
	}
	for _, k := range keep {
		sub, err := r.mountPoint(k.name, k.dir)
		if err == nil {
			err = attach(k.fd, sub)
			unix.Close(sub)
		}
		unix.Close(k.fd)
		if err != nil {
			return fmt.Errorf("carrying the volume at /%s over: %w", k.name, err)
		}
	}
	return nil
}

func bindNode(dev int, name string) error { return bindAt(dev, name, "/dev/"+name) }

// bindAt shows source, no directory, at name in the new /dev.
func bindAt(dev int, name, source string) error {
	m, err := clone(source, false)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	if dir := path.Dir(name); dir != "." {
		if err := unix.Mkdirat(dev, dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mknodat(dev, name, unix.S_IFREG|0o444, 0); err != nil {
		return err
	}
	t, err := unix.Openat(dev, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(t)
	return attach(m, t)
}

// run shows the host's journal sockets and, for an app that speaks sd_notify,
// the pod's notification socket below the app's own /run.
func (r *root) run(notify string) error {
	// /run of an image may be a link (rarely); the journal is then out of reach by its usual path
	if err := r.bindReadOnly("/run/systemd/journal", "run/systemd/journal"); err != nil {
		return err
	}
	if notify == "" {
		return nil
	}
	return r.bindFile(Bind{Source: notify, Target: notify})
}

func (r *root) files(binds []Bind) error {
	// as every program that reads the mount table expects
	if etc, err := r.plain("etc", unix.O_PATH|unix.O_DIRECTORY); err == nil {
		if err := unix.Symlinkat("../proc/self/mounts", etc, "mtab"); err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EROFS) {
			unix.Close(etc)
			return fmt.Errorf("making /etc/mtab in the app: %w", err)
		}
		unix.Close(etc)
	}
	for _, b := range binds {
		if err := r.bindFile(b); err != nil {
			return err
		}
	}
	return nil
}

// mountPoint opens target beneath the root, links of the image followed inside
// it, and makes it when it is missing.
func (r *root) mountPoint(target string, dir bool) (int, error) {
	name := strings.TrimPrefix(path.Clean("/"+target), "/")
	how := func(flags int) *unix.OpenHow {
		return &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	}
	fd, err := unix.Openat2(r.fd, name, how(unix.O_PATH))
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent := r.fd
	if p := path.Dir(name); p != "." {
		if parent, err = r.mountPoint(p, true); err != nil {
			return -1, err
		}
		defer unix.Close(parent)
	}
	if dir {
		err = unix.Mkdirat(parent, path.Base(name), 0o755)
	} else {
		err = unix.Mknodat(parent, path.Base(name), unix.S_IFREG|0o644, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return unix.Openat(parent, path.Base(name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (r *root) bindFile(b Bind) error {
	name := strings.TrimPrefix(path.Clean("/"+b.Target), "/")
	if b.IfAbsent {
		fd, err := unix.Openat2(r.fd, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err == nil {
			var st unix.Stat_t
			err = unix.Fstat(fd, &st)
			unix.Close(fd)
			// an empty file is what was made to mount this on when the app was started before
			if err != nil || st.Size > 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
				return nil
			}
		}
	}
	if b.IfContent {
		var st unix.Stat_t
		if err := unix.Stat(b.Source, &st); err == nil && st.Size == 0 {
			return nil
		}
	}
	t, err := r.mountPoint(b.Target, false)
	if errors.Is(err, unix.EROFS) {
		return nil // an image without the file on a read-only root: nothing to show it on
	}
	if err != nil {
		return fmt.Errorf("making %q in the app: %w", b.Target, err)
	}
	defer unix.Close(t)
	m, err := clone(b.Source, false)
	if err != nil {
		return fmt.Errorf("opening %q of the pod: %w", b.Source, err)
	}
	defer unix.Close(m)
	if b.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("making %q read-only: %w", b.Target, err)
		}
	}
	if err := attach(m, t); err != nil {
		return fmt.Errorf("showing %q in the app: %w", b.Target, err)
	}
	return nil
}

// mask write-protects and hides kernel interfaces.
func (r *root) mask(ownSys bool) error {
	for _, p := range readOnlyPaths() {
		if ownSys && strings.HasPrefix(p, "/sys") {
			continue
		}
		if err := r.cover(p, "", true); err != nil {
			return err
		}
	}
	for _, p := range hiddenPaths() {
		if ownSys && strings.HasPrefix(p, "/sys") {
			continue
		}
		// files and directories nobody may read; nspawn keeps one of each kind
		if err := r.cover(p, "/run/systemd/inaccessible", true); err != nil {
			return err
		}
	}
	return nil
}

func (r *root) cover(target, with string, readOnly bool) error {
	t, err := r.plain(target[1:], unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("protecting %s: %w", target, err)
	}
	defer unix.Close(t)
	var m int
	if with == "" {
		m, err = unix.OpenTree(t, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	} else {
		var st unix.Stat_t
		if err = unix.Fstat(t, &st); err != nil {
			return fmt.Errorf("protecting %s: %w", target, err)
		}
		kind := "/reg"
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			kind = "/dir"
		}
		m, err = clone(with+kind, false)
	}
	if err != nil {
		return fmt.Errorf("protecting %s: %w", target, err)
	}
	defer unix.Close(m)
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("write-protecting %s: %w", target, err)
		}
	}
	if err := attach(m, t); err != nil {
		return fmt.Errorf("protecting %s: %w", target, err)
	}
	return nil
}

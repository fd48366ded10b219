package sys

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// nsfsMagic is the file system type of namespaces (linux/magic.h).
const nsfsMagic = 0x6e736673

// Namespace is the inode number of the namespace that is bound to path, or 0 if
// there is none.
func Namespace(path string) uint64 {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != nsfsMagic || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// OnHost runs f in the mount namespace of the host's PID 1, on a thread that
// ends with it.
func OnHost(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not to be used again
		done <- func() error {
			ns, err := os.Open("/proc/1/ns/mnt")
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("entering the host's mount namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

// BindNamespace binds the namespace file self to path, for all mount namespaces
// of the host. The directory is made as ip-netns(8) makes it: what is unmounted
// there is unmounted everywhere. An empty file may be at path already.
func BindNamespace(self, p string) error {
	return OnHost(func() error {
		dir := path.Dir(p)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := shareMount(dir); err != nil {
			return fmt.Errorf("sharing the mounts below %q: %w", dir, err)
		}
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return pathErr("open", p, err)
		}
		unix.Close(fd)
		return pathErr("mount", p, unix.Mount(self, p, "", unix.MS_BIND, ""))
	})
}

// UnbindNamespace undoes BindNamespace; what is gone is no error.
func UnbindNamespace(p string) error {
	return OnHost(func() error {
		err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return pathErr("unmount", p, err)
		}
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}

// shareMount sees to it that mounts below dir propagate. systemd shares all of
// the host's mounts: there is nothing to do then.
func shareMount(dir string) error {
	err := unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err != unix.EINVAL {
		return err
	}
	shared, err := isShared(dir)
	if err != nil || shared {
		return err
	}
	if err := unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// isShared tells of the mount that holds dir, which is no mount point.
func isShared(dir string) (bool, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	best, shared := -1, false
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		// ID PARENT DEV ROOT POINT OPTIONS [shared:N …] - …
		fields := strings.Fields(sc.Text())
		if len(fields) < 7 {
			continue
		}
		point := fields[4]
		if point != "/" && dir != point && !strings.HasPrefix(dir, point+"/") || len(point) < best {
			continue
		}
		best = len(point)
		shared = false
		for _, opt := range fields[6:] {
			if opt == "-" {
				break
			}
			shared = shared || strings.HasPrefix(opt, "shared:")
		}
	}
	return shared, sc.Err()
}

// RemoveLink removes an interface of the host; one that is not there is no error.
func RemoveLink(name string) error {
	if len(name) == 0 || len(name) >= unix.IFNAMSIZ {
		return fmt.Errorf("%q is no interface", name)
	}
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	// struct nlmsghdr, struct ifinfomsg, one attribute
	attr := (unix.SizeofRtAttr + len(name) + 1 + 3) &^ 3
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg+attr)
	e := binary.NativeEndian
	e.PutUint32(b, uint32(len(b)))
	e.PutUint16(b[4:], unix.RTM_DELLINK)
	e.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	e.PutUint32(b[8:], 1)
	a := b[unix.SizeofNlMsghdr+unix.SizeofIfInfomsg:]
	e.PutUint16(a, uint16(unix.SizeofRtAttr+len(name)+1))
	e.PutUint16(a[2:], unix.IFLA_IFNAME)
	copy(a[unix.SizeofRtAttr:], name)
	if err := unix.Sendto(s, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, reply, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || e.Uint16(reply[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is not understood")
	}
	if code := -int32(e.Uint32(reply[unix.SizeofNlMsghdr:])); code != 0 && unix.Errno(code) != unix.ENODEV {
		return unix.Errno(code)
	}
	return nil
}

package sys

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountNS is the mount namespace and the root of a process. Files are reached
// through the root from any thread; only what changes mounts has to be done by
// a thread in the namespace.
type MountNS struct {
	ns, root, info *os.File
}

// OpenMountNS opens those of a process. A process ID is only as good as what
// the caller knows of the process: look again after this.
func OpenMountNS(pid int) (*MountNS, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fd, err := unix.Open(filepath.Join(proc, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathErr("open", filepath.Join(proc, "root"), err)
	}
	m := &MountNS{root: os.NewFile(uintptr(fd), filepath.Join(proc, "root"))}
	if m.ns, err = os.Open(filepath.Join(proc, "ns/mnt")); err != nil {
		return nil, errors.Join(err, m.root.Close())
	}
	if m.info, err = os.Open(filepath.Join(proc, "mountinfo")); err != nil {
		return nil, errors.Join(err, m.root.Close(), m.ns.Close())
	}
	return m, nil
}

// Close closes them.
func (m *MountNS) Close() error { return errors.Join(m.ns.Close(), m.root.Close(), m.info.Close()) }

// Root is a path of the root for this process.
func (m *MountNS) Root() string { return ProcPath(int(m.root.Fd())) }

// Attach puts a detached mount on target, a file or directory that was opened
// below Root.
func (m *MountNS) Attach(tree int, target *os.File) error {
	return m.do(func() error {
		return pathErr("move_mount", target.Name(), unix.MoveMount(tree, "", int(target.Fd()), "",
			unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
	})
}

// DetachBelow unmounts all that is mounted at path of the namespace and below.
// It is no error if nothing is.
func (m *MountNS) DetachBelow(path string) error {
	if _, err := m.info.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var points []string
	sc := bufio.NewScanner(m.info)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 5 {
			continue
		}
		if p := unescapeMount(f[4]); p == path || strings.HasPrefix(p, path+"/") {
			points = append(points, p)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	slices.Reverse(points)
	return m.do(func() error {
		for _, p := range points {
			err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if err != nil && err != unix.EINVAL && err != unix.ENOENT {
				return pathErr("unmount", p, err)
			}
		}
		return nil
	})
}

// unescapeMount undoes the octal escapes of mountinfo (proc(5)).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// do calls f on a thread in the namespace, which ends after it.
func (m *MountNS) do(f func() error) error {
	return OwnThread(func() error {
		// a thread that shares its root and working directory may not change namespaces
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return pathErr("unshare", "root directory", err)
		}
		if err := unix.Setns(int(m.ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return pathErr("setns", m.ns.Name(), err)
		}
		return f()
	})
}

// OwnThread calls f on a thread that ends with it, with whatever f changed of
// the thread.
func OwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		done <- f()
	}()
	return <-done
}

package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IDMap maps Count ids from Inside, as a user namespace or a file system has
// them, to those from Outside, as the host has them.
type IDMap struct {
	Inside, Outside, Count uint32
}

func (m IDMap) line() string { return fmt.Sprintf("%d %d %d\n", m.Inside, m.Outside, m.Count) }

// UserNamespace makes a user namespace with these maps of user and group ids,
// in which nothing ever runs: for idmapped mounts. A process is cloned into it
// that waits to be killed, executing nothing, until the namespace is open. The
// descriptor keeps it; the mounts it is used for do so themselves.
func UserNamespace(users, groups []IDMap) (*os.File, error) {
	pid, err := cloneIdle(unix.CLONE_NEWUSER)
	if err != nil {
		why := ""
		if b, e := os.ReadFile("/proc/sys/user/max_user_namespaces"); e != nil {
			why = " (the kernel has none)"
		} else if errors.Is(err, unix.ENOSPC) {
			why = " (sysctl user.max_user_namespaces is " + strings.TrimSpace(string(b)) + ")"
		}
		return nil, fmt.Errorf("making a user namespace%s: %w", why, err)
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
				break
			}
		}
	}()
	dir := fmt.Sprintf("/proc/%d", pid)
	for name, maps := range map[string][]IDMap{"uid_map": users, "gid_map": groups} {
		text := ""
		for _, m := range maps {
			text += m.line()
		}
		// one write: the kernel takes the map whole or not at all
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("mapping ids of a user namespace: %w", err)
		}
	}
	return os.Open(filepath.Join(dir, "ns/user"))
}

// cloneIdle starts a process that does nothing until it is killed. It is this
// one's copy, with a single thread, and touches nothing of the runtime: all
// signals are blocked in it and it makes system calls only.
func cloneIdle(flags uintptr) (int, error) {
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	args := idleArgs(flags | uintptr(unix.SIGCHLD))
	syscall.ForkLock.Lock()
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), sigsetSize, 0, 0)
	if errno != 0 {
		syscall.ForkLock.Unlock()
		return -1, errno
	}
	pid, errno := idle(args)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, sigsetSize, 0, 0)
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return -1, errno
	}
	return int(pid), nil
}

// sigsetSize is the kernel's, not the C library's.
const sigsetSize = 8

// cloneArgs are the members of struct clone_args (clone(2)) that are needed.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

func idleArgs(flags uintptr) *cloneArgs {
	return &cloneArgs{flags: uint64(flags &^ 0xff), exitSignal: uint64(flags & 0xff)}
}

// idle is the clone itself. The child stays in here.
//
//go:norace
//go:nosplit
//go:noinline
func idle(args *cloneArgs) (uintptr, syscall.Errno) {
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	for {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// CloneTree is a detached copy of the mount at path, and of those below it if
// recursive.
func CloneTree(path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, pathErr("open_tree", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ErrNoIDMap means that a file system, or the kernel, has no idmapped mounts.
var ErrNoIDMap = errors.New("the file system has no idmapped mounts")

// IDMapMount makes the detached mount show the ids that the user namespace
// maps those of the file system to; ErrNoIDMap if it cannot.
func IDMapMount(tree int, userns *os.File, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(tree, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())})
	if err == unix.EINVAL || err == unix.ENOSYS || err == unix.EPERM {
		err = fmt.Errorf("%w (%w)", ErrNoIDMap, err)
	}
	return os.NewSyscallError("mount_setattr", err)
}

// AttachTree puts a detached mount at path.
func AttachTree(tree *os.File, path string) error {
	return pathErr("move_mount", path, unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// AsOwner calls f with files belonging to this user and group: what f makes
// is theirs, also on mounts that know no others, and all capabilities stay.
// The goroutine must be locked to its thread; others are not affected.
func AsOwner(uid, gid uint32, f func() error) error {
	oldUID, oldGID := setfs(unix.SYS_SETFSUID, uid), setfs(unix.SYS_SETFSGID, gid)
	err := keepCaps()
	if setfs(unix.SYS_SETFSUID, uid) != uid || setfs(unix.SYS_SETFSGID, gid) != gid {
		err = fmt.Errorf("becoming %d:%d for files: %w", uid, gid, unix.EPERM)
	}
	if err == nil {
		err = f()
	}
	setfs(unix.SYS_SETFSUID, oldUID)
	setfs(unix.SYS_SETFSGID, oldGID)
	return errors.Join(err, keepCaps())
}

// setfs sets an id and returns the one before; the calls report no error.
func setfs(call uintptr, id uint32) uint32 {
	old, _, _ := unix.RawSyscall(call, uintptr(id), 0, 0)
	return uint32(old)
}

// keepCaps makes all permitted capabilities effective: the kernel takes some
// away when the owner of files is no longer root.
func keepCaps() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Effective, data[1].Effective = data[0].Permitted, data[1].Permitted
	return os.NewSyscallError("capset", unix.Capset(&hdr, &data[0]))
}

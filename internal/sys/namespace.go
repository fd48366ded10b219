package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// UnmountLazy detaches a mount point without following a link; a mount point
// that is none any more is no error. The mount is made private first, so that
// nothing else of its peer group goes with it.
func UnmountLazy(path string) error {
	_ = unix.Mount("", path, "", unix.MS_PRIVATE, "") // gone, or already private: the unmount tells
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == unix.EINVAL || err == unix.ENOENT {
		return nil
	}
	return pathErr("unmount", path, err)
}

// PrivateMounts gives the calling thread, which must be locked to its
// goroutine, a mount namespace of its own into which the host's mounts still
// propagate but out of which nothing does.
func PrivateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return pathErr("unshare", "mount namespace", err)
	}
	return pathErr("mount", "/", unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""))
}

// KeepOnExec clears a file's close-on-exec flag.
func KeepOnExec(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0)
	return pathErr("fcntl", f.Name(), err)
}

// CloseOnExec sets a file's close-on-exec flag.
func CloseOnExec(f *os.File) { unix.CloseOnExec(int(f.Fd())) }

// Chdir changes the working directory of the calling thread and, unless it has
// left them (PrivateMounts), of all others.
func Chdir(path string) error { return pathErr("chdir", path, unix.Chdir(path)) }

// Exec replaces the process; it returns only on failure.
func Exec(path string, argv, env []string) error {
	return pathErr("exec", path, unix.Exec(path, argv, env))
}

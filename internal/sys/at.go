package sys

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mkdirat makes a directory.
func Mkdirat(dir int, name string, mode uint32) error {
	return pathErr("mkdir", name, unix.Mkdirat(dir, name, mode))
}

// Symlinkat makes a symbolic link.
func Symlinkat(target string, dir int, name string) error {
	return pathErr("symlink", name, unix.Symlinkat(target, dir, name))
}

// Linkat makes a hard link; a symbolic link is linked, not followed.
func Linkat(oldDir int, oldName string, newDir int, newName string) error {
	return pathErr("link", newName, unix.Linkat(oldDir, oldName, newDir, newName, 0))
}

// Mknodat makes a special file; mode includes its type.
func Mknodat(dir int, name string, mode uint32, major, minor uint32) error {
	return pathErr("mknod", name, unix.Mknodat(dir, name, mode, int(unix.Mkdev(major, minor))))
}

// Major and Minor split a device number.
func Major(dev uint64) uint32 { return unix.Major(dev) }

// Minor is the other half of a device number.
func Minor(dev uint64) uint32 { return unix.Minor(dev) }

// Unlinkat removes a name; directories need dir set and must be empty.
func Unlinkat(at int, name string, dir bool) error {
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	return pathErr("unlink", name, unix.Unlinkat(at, name, flags))
}

// Readlinkat reads a symbolic link.
func Readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", pathErr("readlink", name, err)
	}
	return string(buf[:n]), nil
}

// Lchownat changes the owner of name itself.
func Lchownat(dir int, name string, uid, gid uint32) error {
	return pathErr("lchown", name, unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW))
}

// Fchown changes the owner of an open file.
func Fchown(fd int, uid, gid uint32) error {
	return os.NewSyscallError("fchown", unix.Fchown(fd, int(uid), int(gid)))
}

// Fchmod changes the permission bits of an open file, set-id bits included.
func Fchmod(fd int, mode uint32) error {
	return os.NewSyscallError("fchmod", unix.Fchmod(fd, mode&0o7777))
}

// Chmodat changes the permission bits of name, which must not be a symbolic link.
func Chmodat(dir int, name string, mode uint32) error {
	fd, err := Openat(dir, name, O_PATH|O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer Close(fd)
	// fchmod refuses O_PATH descriptors; the magic link leads to this very inode.
	return pathErr("chmod", name, unix.Chmod(ProcPath(fd), mode&0o7777))
}

// Utimensat sets the times of name itself.
func Utimensat(dir int, name string, atime, mtime time.Time) error {
	ts, err := timespecs(atime, mtime)
	if err != nil {
		return pathErr("utimensat", name, err)
	}
	return pathErr("utimensat", name, unix.UtimesNanoAt(dir, name, ts, unix.AT_SYMLINK_NOFOLLOW))
}

// Futimens sets the times of an open file.
func Futimens(fd int, atime, mtime time.Time) error {
	ts, err := timespecs(atime, mtime)
	if err != nil {
		return os.NewSyscallError("futimens", err)
	}
	// An empty path with a descriptor is futimens(3); x/sys has no name for it.
	return os.NewSyscallError("futimens", unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH))
}

func timespecs(atime, mtime time.Time) ([]unix.Timespec, error) {
	a, err := unix.TimeToTimespec(atime)
	if err != nil {
		return nil, err
	}
	m, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return nil, err
	}
	return []unix.Timespec{a, m}, nil
}

// Fsetxattr sets an extended attribute of an open file.
func Fsetxattr(fd int, name string, value []byte) error {
	return pathErr("setxattr", name, unix.Fsetxattr(fd, name, value, 0))
}

// Fgetxattr reads an extended attribute of an open file.
func Fgetxattr(fd int, name string) ([]byte, error) {
	for size := 256; ; {
		buf := make([]byte, size)
		n, err := unix.Fgetxattr(fd, name, buf)
		if err == unix.ERANGE && size < 1<<16 {
			size = 1 << 16
			continue
		}
		if err != nil {
			return nil, pathErr("getxattr", name, err)
		}
		return buf[:n], nil
	}
}

// Flistxattr lists the extended attributes of an open file; none where the
// file system has none.
func Flistxattr(fd int) ([]string, error) {
	n, err := unix.Flistxattr(fd, nil)
	if err == unix.ENOTSUP || (err == nil && n == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("flistxattr", err)
	}
	buf := make([]byte, n+1024)
	n, err = unix.Flistxattr(fd, buf)
	if err != nil {
		return nil, os.NewSyscallError("flistxattr", err)
	}
	return splitNames(buf[:n]), nil
}

func splitNames(buf []byte) []string {
	var names []string
	start := 0
	for i, b := range buf {
		if b == 0 {
			if i > start {
				names = append(names, string(buf[start:i]))
			}
			start = i + 1
		}
	}
	return names
}

// CopyData copies size bytes of src to dst, sharing the blocks where the file
// system can and keeping holes.
func CopyData(dst, src *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	var buf []byte
	for off := int64(0); off < size; {
		data, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // nothing but a hole follows
			return nil
		case err != nil:
			data = off
		}
		hole := size
		if h, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE); err == nil {
			hole = min(h, size)
		}
		for off = data; off < hole; {
			in, out := off, off
			n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(min(hole-off, 1<<30)), 0)
			if err == unix.EINTR {
				continue
			}
			if err != nil { // across file systems on old kernels
				if buf == nil {
					buf = make([]byte, 256<<10)
				}
				n, err = src.ReadAt(buf[:min(hole-off, int64(len(buf)))], off)
				if n > 0 {
					_, err = dst.WriteAt(buf[:n], off)
				}
				if err != nil {
					return err
				}
			}
			if n == 0 { // the file became shorter while it was copied
				return nil
			}
			off += int64(n)
		}
	}
	return nil
}

// Mount mounts a file system; see mount(2).
func Mount(source, target, fstype string, flags uintptr, data string) error {
	return pathErr("mount", target, unix.Mount(source, target, fstype, flags, data))
}

// HasFilesystem says whether the kernel knows a file system, loading its
// module if it has to.
func HasFilesystem(name string) bool {
	if fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC); err == nil {
		Close(fd)
		return true
	}
	list, err := os.ReadFile("/proc/filesystems")
	return err == nil && strings.Contains(string(list), "\t"+name+"\n")
}

// Unmount flags.
const (
	UmountDetach   = unix.MNT_DETACH
	UmountNoFollow = unix.UMOUNT_NOFOLLOW
)

// Unmount unmounts target.
func Unmount(target string, flags int) error {
	return pathErr("umount", target, unix.Unmount(target, flags))
}

// DirEntryTypes says whether the file system of the open directory reports the
// types of directory entries, as overlayfs needs. The directory must hold at
// least one file.
func DirEntryTypes(dir *os.File) (bool, error) {
	buf := make([]byte, 4096)
	n, err := unix.ReadDirent(int(dir.Fd()), buf)
	if err != nil {
		return false, pathErr("getdents", dir.Name(), err)
	}
	// struct linux_dirent64: ino 8, off 8, reclen 2, type 1, name.
	const typeOffset, nameOffset = 18, 19
	for buf = buf[:n]; len(buf) > nameOffset; {
		reclen := int(buf[16]) | int(buf[17])<<8
		if nativeBig() {
			reclen = int(buf[16])<<8 | int(buf[17])
		}
		if reclen < nameOffset || reclen > len(buf) {
			break
		}
		if buf[nameOffset] != '.' {
			return buf[typeOffset] != unix.DT_UNKNOWN, nil
		}
		buf = buf[reclen:]
	}
	return true, nil
}

// SetPipeSize asks for a larger pipe; it is no loss if the kernel refuses.
func SetPipeSize(f *os.File, n int) {
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, n) // an ordinary user may be over a limit
}

// StartWriteback tells the kernel to begin writing a part of a file to the
// disk, so that a later fsync has little left to do.
func StartWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE) // a hint
}

// Package sys wraps the system calls that the standard library lacks: names
// resolved beneath a directory, metadata by file descriptor, whole-file-system
// sync, mounts. Apart from stage1's own packages it is the only one that
// imports x/sys/unix. Every descriptor it returns is close-on-exec, and calls
// interrupted by a signal are repeated.
//
// Every package may import it.
package sys

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Resolve restricts how a path is walked; see openat2(2).
type Resolve uint64

const (
	InRoot       Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS // links stay inside the directory
	Beneath      Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS // leaving the directory is an error
	NoSymlinks   Resolve = unix.RESOLVE_NO_SYMLINKS
	NoMagicLinks Resolve = unix.RESOLVE_NO_MAGICLINKS
	NoMounts     Resolve = unix.RESOLVE_NO_XDEV
)

// Open flags that package os does not name.
const (
	O_PATH      = unix.O_PATH
	O_NOFOLLOW  = unix.O_NOFOLLOW
	O_DIRECTORY = unix.O_DIRECTORY
	O_TMPFILE   = unix.O_TMPFILE
)

// Openat2 opens path relative to dir under the given restrictions.
func Openat2(dir int, path string, flags int, mode uint32, r Resolve) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: uint64(r)}
	// EAGAIN: the kernel saw a rename while it walked and cannot tell whether
	// the path escaped (openat2(2)); it asks to be called again.
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(dir, path, &how)
		if err == unix.EINTR || (err == unix.EAGAIN && tries < 128) {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
		return fd, nil
	}
}

// Openat opens path relative to dir, without restrictions but those in flags.
func Openat(dir int, path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, mode)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "openat", Path: path, Err: err}
		}
		return fd, nil
	}
}

// Close closes a descriptor opened for nothing but looking.
func Close(fd int) { _ = unix.Close(fd) } // nothing was written through it

// ProcPath names an open descriptor, for calls that want a path.
func ProcPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Syncfs writes out the file system that holds f.
func Syncfs(f *os.File) error { return pathErr("syncfs", f.Name(), unix.Syncfs(int(f.Fd()))) }

// SyncDir writes out a directory's entries.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Rename flags.
const (
	RenameNoReplace = unix.RENAME_NOREPLACE
	RenameExchange  = unix.RENAME_EXCHANGE
)

// Renameat2 renames with flags.
func Renameat2(oldDir int, oldPath string, newDir int, newPath string, flags uint) error {
	return pathErr("renameat2", newPath, unix.Renameat2(oldDir, oldPath, newDir, newPath, flags))
}

// CWD stands for the working directory where a directory descriptor is wanted.
const CWD = unix.AT_FDCWD

func pathErr(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// Stat is what callers need of a file's metadata.
type Stat struct {
	Mode       uint32 // type and permission bits as in st_mode
	UID, GID   uint32
	Size       int64
	Blocks     int64 // of 512 bytes
	Dev, Inode uint64
	Nlink      uint64
	Rdev       uint64
	Mtime      time.Time
	Atime      time.Time
	Ctime      time.Time
}

// File types in Stat.Mode and arguments of Mknodat.
const (
	S_IFMT  = unix.S_IFMT
	S_IFREG = unix.S_IFREG
	S_IFDIR = unix.S_IFDIR
	S_IFLNK = unix.S_IFLNK
	S_IFCHR = unix.S_IFCHR
	S_IFBLK = unix.S_IFBLK
	S_IFIFO = unix.S_IFIFO
	S_IFSOC = unix.S_IFSOCK
)

// Type is the file type bits.
func (s Stat) Type() uint32 { return s.Mode & S_IFMT }

// IsDir says whether it is a directory.
func (s Stat) IsDir() bool { return s.Type() == S_IFDIR }

func convert(st *unix.Stat_t) Stat {
	return Stat{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Blocks: st.Blocks,
		Dev: uint64(st.Dev), Inode: st.Ino, Nlink: uint64(st.Nlink), Rdev: uint64(st.Rdev), //nolint:unconvert // differs by architecture
		Mtime: time.Unix(st.Mtim.Unix()), Atime: time.Unix(st.Atim.Unix()), Ctime: time.Unix(st.Ctim.Unix()),
	}
}

// Fstat looks at an open file.
func Fstat(fd int) (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Stat{}, os.NewSyscallError("fstat", err)
	}
	return convert(&st), nil
}

// Lstatat looks at name in dir without following it.
func Lstatat(dir int, name string) (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stat{}, pathErr("lstat", name, err)
	}
	return convert(&st), nil
}

// FileTypes that matter to overlays.
const (
	OverlayMagic = unix.OVERLAYFS_SUPER_MAGIC
	ZFSMagic     = 0x2fc12fc1
	AUFSMagic    = 0x61756673
	TmpfsMagic   = unix.TMPFS_MAGIC
	NFSMagic     = unix.NFS_SUPER_MAGIC
	Cgroup2Magic = unix.CGROUP2_SUPER_MAGIC
)

// FSInfo describes a mounted file system.
type FSInfo struct {
	Type int64
	Free uint64 // bytes available to this process
}

// Statfs describes the file system that holds path.
func Statfs(path string) (FSInfo, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return FSInfo{}, pathErr("statfs", path, err)
		}
		return FSInfo{Type: int64(st.Type), Free: st.Bavail * uint64(st.Bsize)}, nil //nolint:unconvert // differs by architecture
	}
}

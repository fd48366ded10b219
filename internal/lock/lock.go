// Package lock wraps flock(2) on files and directories. Locks belong to the
// open file description: the kernel drops them when the last descriptor is
// closed, whatever killed the process.
package lock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// ErrLocked means another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// Mode says how to lock.
type Mode int

const (
	Shared Mode = iota
	Exclusive
)

func (m Mode) op() int {
	if m == Exclusive {
		return syscall.LOCK_EX
	}
	return syscall.LOCK_SH
}

// File locks f, waiting for other holders.
func File(f *os.File, m Mode) error { return flock(f, m.op()) }

// TryFile locks f or returns ErrLocked at once.
func TryFile(f *os.File, m Mode) error { return flock(f, m.op()|syscall.LOCK_NB) }

// Unlock releases f's lock and keeps f open.
func Unlock(f *os.File) error { return flock(f, syscall.LOCK_UN) }

func flock(f *os.File, op int) error {
	for {
		err := syscall.Flock(int(f.Fd()), op)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrLocked
		default:
			return fmt.Errorf("flock %s: %w", f.Name(), err)
		}
	}
}

// Dir opens and locks a directory.
func Dir(path string, m Mode) (*os.File, error) {
	return open(path, os.O_RDONLY|syscall.O_DIRECTORY, 0, m, false)
}

// TryDir is Dir without waiting.
func TryDir(path string, m Mode) (*os.File, error) {
	return open(path, os.O_RDONLY|syscall.O_DIRECTORY, 0, m, true)
}

// Path opens (creating it, mode 0660) and locks a lock file. A cleaner may
// unlink lock files, so the file locked is compared with the file at the path
// and opened again when they differ.
func Path(path string, m Mode) (*os.File, error) {
	return open(path, os.O_RDWR|os.O_CREATE, shared, m, false)
}

// TryPath is Path without waiting.
func TryPath(path string, m Mode) (*os.File, error) {
	return open(path, os.O_RDWR|os.O_CREATE, shared, m, true)
}

// Private is Path for a file that only its owner can open, and so lock (mode
// 0600): on one that others may read, any of them could keep the lock for ever.
func Private(path string, m Mode) (*os.File, error) {
	return open(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, private, m, false)
}

// TryPrivate is Private without waiting.
func TryPrivate(path string, m Mode) (*os.File, error) {
	return open(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, private, m, true)
}

// Modes of lock files.
const (
	shared  = 0o660
	private = 0o600
)

// share lets the group that the directory gives a lock file use it, whatever
// the umask: the file may be one that root made just now.
func share(f *os.File) {
	st, err := f.Stat()
	if err != nil || st.Mode().Perm()&shared == shared {
		return
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == os.Geteuid() {
		_ = f.Chmod(st.Mode().Perm() | shared) // who cannot open it says so
	}
}

// maxTries is how often a lock file may be replaced while one waits: each time
// somebody else got on.
const maxTries = 10_000

func open(path string, flags int, perm os.FileMode, m Mode, try bool) (*os.File, error) {
	for range maxTries {
		f, err := os.OpenFile(path, flags|syscall.O_CLOEXEC, perm)
		if err != nil {
			return nil, err
		}
		if perm == shared {
			share(f)
		}
		if try {
			err = TryFile(f, m)
		} else {
			err = File(f, m)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		have, err := f.Stat()
		if err == nil {
			var now os.FileInfo
			if now, err = os.Stat(path); err == nil && os.SameFile(have, now) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && flags&os.O_CREATE == 0 {
			return nil, err
		}
	}
	return nil, fmt.Errorf("locking %s: the file keeps being replaced", path)
}

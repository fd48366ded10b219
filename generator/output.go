package generator

import (
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/podunit"
)

// output writes below the output directory. Several may write at once, also of
// several programs: each file and link appears whole, by a rename from a name of
// this process. Nothing needs to last, so nothing is synced. It makes system calls
// itself: os.File's poller costs more than the writing.
type output struct {
	dir string
	// suffix is that of names before the rename; systemd ignores them for the dot
	// they begin with.
	suffix string

	mu   sync.Mutex
	dirs map[string]bool
}

// write puts the output of one pod in place.
func (o *output) write(out podunit.Output) error {
	for _, f := range out.Files {
		mode, dirMode := uint32(0o644), uint32(0o755)
		if f.Secret {
			mode, dirMode = 0o600, 0o700
		}
		path, tmp, fresh, err := o.paths(f.Path, dirMode)
		if err != nil {
			return err
		}
		// A drop-in that is still empty is as good as none, and nobody else knows a
		// directory that was just made: no rename is needed, a fifth of the work.
		if fresh && strings.HasSuffix(path, ".conf") && writeFirst(path, f.Data, mode) {
			continue
		}
		if err := writeNew(tmp, f.Data, mode); err != nil {
			return err
		}
		if err := syscall.Rename(tmp, path); err != nil {
			return &fs.PathError{Op: "rename", Path: path, Err: err}
		}
	}
	for _, l := range out.Links {
		if err := o.link(l); err != nil {
			return err
		}
	}
	return nil
}

func (o *output) link(l podunit.Link) error {
	path, tmp, _, err := o.paths(l.Path, 0o755)
	if err != nil {
		return err
	}
	err = syscall.Symlink(l.Target, path)
	if err == syscall.EEXIST {
		// of a run before, or of one at the same time
		if have, rerr := os.Readlink(path); rerr == nil && have == l.Target {
			return nil
		}
		if err = syscall.Symlink(l.Target, tmp); err == syscall.EEXIST {
			if err = syscall.Unlink(tmp); err == nil {
				err = syscall.Symlink(l.Target, tmp)
			}
		}
		if err == nil {
			err = syscall.Rename(tmp, path)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "symlink", Path: path, Err: err}
	}
	return nil
}

// writeNew writes a file that nobody else knows.
func writeNew(path string, data []byte, mode uint32) error {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_EXCL | syscall.O_CLOEXEC
	fd, err := syscall.Open(path, flags, mode)
	if err == syscall.EEXIST {
		// Left by a process of the same number that was killed.
		if err = syscall.Unlink(path); err == nil {
			fd, err = syscall.Open(path, flags, mode)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	for len(data) > 0 && err == nil {
		var n int
		if n, err = syscall.Write(fd, data); err == syscall.EINTR {
			err = nil
			continue
		}
		data = data[max(n, 0):]
	}
	if cerr := syscall.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// writeFirst writes a file where there is none, with one call, or leaves none.
func writeFirst(path string, data []byte, mode uint32) bool {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_CLOEXEC, mode)
	if err != nil {
		return false // somebody was faster
	}
	n, err := syscall.Write(fd, data)
	if cerr := syscall.Close(fd); err == nil {
		err = cerr
	}
	if err == nil && n == len(data) {
		return true
	}
	_ = syscall.Unlink(path) // it is written again, and replaced
	return false
}

// paths returns the full path for rel and the one before the rename, and makes
// the directory; fresh says that there was none.
func (o *output) paths(rel string, mode uint32) (path, tmp string, fresh bool, err error) {
	dir, base := o.dir, rel
	if i := strings.LastIndexByte(rel, '/'); i >= 0 {
		dir, base = o.dir+"/"+rel[:i], rel[i+1:]
	}
	path, tmp = dir+"/"+base, dir+"/."+base+o.suffix
	o.mu.Lock()
	made := o.dirs[dir]
	o.mu.Unlock()
	if made {
		return path, tmp, false, nil
	}
	err = syscall.Mkdir(dir, mode)
	if fresh = err == nil; err != nil && err != syscall.EEXIST {
		if err := os.MkdirAll(dir, fs.FileMode(mode)); err != nil {
			return "", "", false, err
		}
	}
	o.mu.Lock()
	o.dirs[dir] = true
	o.mu.Unlock()
	return path, tmp, fresh, nil
}

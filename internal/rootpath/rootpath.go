// Package rootpath resolves names inside a root file system that is not the
// process's own: absolute symbolic links are legal there and lead to places
// inside that root, ".." at its top stays there, and nothing an image contains
// can lead out. The kernel does the walking (openat2 with RESOLVE_IN_ROOT), so
// that there is no moment between check and use.
//
// Every package may import it.
package rootpath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// Root is an open root directory.
type Root struct {
	f *os.File
}

// Open opens a root directory by path.
func Open(dir string) (*Root, error) {
	fd, err := sys.Openat(sys.CWD, dir, sys.O_PATH|sys.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening root directory %q: %w", dir, err)
	}
	return &Root{f: os.NewFile(uintptr(fd), dir)}, nil
}

// Close closes the root directory.
func (r *Root) Close() error { return r.f.Close() }

// Fd is the root directory's descriptor; it stays the Root's.
func (r *Root) Fd() int { return int(r.f.Fd()) }

func (r *Root) wrap(op, name string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &os.PathError{Op: op, Path: filepath.Join(r.f.Name(), name), Err: err}
}

// OpenFile opens name inside the root, following links inside it.
func (r *Root) OpenFile(name string, flags int, mode fs.FileMode) (*os.File, error) {
	if flags&os.O_CREATE == 0 {
		mode = 0 // openat2 refuses a mode nobody asked for
	}
	fd, err := sys.Openat2(r.Fd(), clean(name), flags, uint32(mode.Perm()), sys.InRoot)
	if err != nil {
		return nil, r.wrap("open", name, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(r.f.Name(), name)), nil
}

// OpenPath opens name only as a place (O_PATH): for stat, or as a mount target
// through sys.ProcPath. With nofollow a final symbolic link is opened itself.
func (r *Root) OpenPath(name string, nofollow bool) (*os.File, error) {
	flags := sys.O_PATH
	if nofollow {
		flags |= sys.O_NOFOLLOW
	}
	return r.OpenFile(name, flags, 0)
}

// Stat looks at what name leads to.
func (r *Root) Stat(name string) (sys.Stat, error) { return r.stat(name, false) }

// Lstat looks at name itself.
func (r *Root) Lstat(name string) (sys.Stat, error) { return r.stat(name, true) }

func (r *Root) stat(name string, nofollow bool) (sys.Stat, error) {
	f, err := r.OpenPath(name, nofollow)
	if err != nil {
		return sys.Stat{}, err
	}
	defer f.Close()
	return sys.Fstat(int(f.Fd()))
}

// ReadFile reads a regular file of at most max bytes.
func (r *Root) ReadFile(name string, max int64) ([]byte, error) {
	// O_NONBLOCK: a FIFO in the image must not hold us up.
	f, err := r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, r.wrap("read", name, errors.New("not a regular file"))
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, r.wrap("read", name, fmt.Errorf("larger than %d bytes", max))
	}
	return data, nil
}

// Resolve is the path, inside the root and beginning with "/", that name leads
// to once all links are followed; it must exist.
func (r *Root) Resolve(name string) (string, error) {
	f, err := r.OpenPath(name, false)
	if err != nil {
		return "", err
	}
	defer f.Close()
	target, err := os.Readlink(sys.ProcPath(int(f.Fd())))
	if err != nil {
		return "", err
	}
	top, err := os.Readlink(sys.ProcPath(r.Fd()))
	if err != nil {
		return "", err
	}
	if target == top {
		return "/", nil
	}
	rest, ok := strings.CutPrefix(target, strings.TrimSuffix(top, "/")+"/")
	if !ok {
		return "", r.wrap("resolve", name, fmt.Errorf("%q is not below %q", target, top))
	}
	return "/" + rest, nil
}

// Dir says how MkdirAll makes what is missing.
type Dir struct {
	Mode     fs.FileMode // permission bits; 0 means 0755
	UID, GID uint32
}

const maxLinks = 40 // as the kernel's

// MkdirAll makes name and its missing parents, following links inside the
// root, dangling ones too, and returns the opened directory (O_PATH).
func (r *Root) MkdirAll(name string, d Dir) (*os.File, error) {
	if d.Mode == 0 {
		d.Mode = 0o755
	}
	return r.mkdirAll(clean(name), d, maxLinks)
}

func (r *Root) mkdirAll(name string, d Dir, links int) (*os.File, error) {
	for range 64 {
		f, err := r.OpenFile(name, sys.O_PATH|sys.O_DIRECTORY, 0)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || name == "." {
			return f, err
		}
		base := path.Base(name)
		if base == ".." {
			return nil, err
		}
		parent, err := r.mkdirAll(path.Dir(name), d, links)
		if err != nil {
			return nil, err
		}
		made, err := makeDir(parent, base, d)
		if err == nil {
			parent.Close()
			return made, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			parent.Close()
			return nil, r.wrap("mkdir", name, err)
		}
		// Someone was faster, or a link leads to nothing: make its target.
		target, lerr := sys.Readlinkat(int(parent.Fd()), base)
		parent.Close()
		if lerr != nil {
			continue
		}
		if links == 0 {
			return nil, r.wrap("mkdir", name, syscall.ELOOP)
		}
		if !path.IsAbs(target) {
			// Not path.Join: ".." after a link must be walked, not erased.
			target = path.Dir(name) + "/" + target
		}
		return r.mkdirAll(trim(target), d, links-1)
	}
	return nil, r.wrap("mkdir", name, syscall.EBUSY)
}

// MkFile makes the empty file name and its missing parents, following links
// inside the root, dangling ones too, and returns what is there opened (O_PATH).
// d is for the parents.
func (r *Root) MkFile(name string, d Dir) (*os.File, error) {
	if d.Mode == 0 {
		d.Mode = 0o755
	}
	name = clean(name)
	for range maxLinks {
		f, err := r.OpenPath(name, false)
		base := path.Base(name)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || base == "." || base == ".." {
			return f, err
		}
		parent, err := r.mkdirAll(path.Dir(name), d, maxLinks)
		if err != nil {
			return nil, err
		}
		fd, err := makeFile(int(parent.Fd()), base)
		target, lerr := sys.Readlinkat(int(parent.Fd()), base)
		parent.Close()
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case !errors.Is(err, fs.ErrExist):
			return nil, r.wrap("create", name, err)
		case lerr != nil:
			continue // someone was faster
		case !path.IsAbs(target):
			target = path.Dir(name) + "/" + target
		}
		name = trim(target)
	}
	return nil, r.wrap("create", name, syscall.ELOOP)
}

func makeFile(dir int, base string) (int, error) {
	if err := sys.Mknodat(dir, base, syscall.S_IFREG|0o644, 0, 0); err != nil {
		return -1, err
	}
	return sys.Openat(dir, base, sys.O_PATH|sys.O_NOFOLLOW, 0)
}

func makeDir(parent *os.File, base string, d Dir) (*os.File, error) {
	dir := int(parent.Fd())
	if err := sys.Mkdirat(dir, base, 0o700); err != nil {
		return nil, err
	}
	fd, err := sys.Openat(dir, base, sys.O_DIRECTORY|sys.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path.Join(parent.Name(), base))
	if os.Geteuid() == 0 {
		err = sys.Fchown(fd, d.UID, d.GID)
	}
	if err == nil {
		err = sys.Fchmod(fd, uint32(d.Mode.Perm()))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// clean makes name relative without changing where it leads.
func clean(name string) string {
	if !strings.Contains(name, "..") {
		name = path.Clean("/" + name)
	}
	return trim(name)
}

func trim(name string) string {
	name = strings.Trim(name, "/")
	if name == "" {
		return "."
	}
	return name
}

package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// Marks of overlayfs in the tree of a layer: a whiteout is the character
// device 0:0, an opaque directory carries one of these attributes.
const (
	opaqueXattr     = "trusted.overlay.opaque"
	opaqueUserXattr = "user.overlay.opaque" // where only root may set the other
)

func isWhiteout(st sys.Stat) bool { return st.Type() == sys.S_IFCHR && st.Rdev == 0 }

// isOpaque says whether a directory hides the ones of lower layers.
func isOpaque(dir int) (bool, error) {
	for _, name := range []string{opaqueXattr, opaqueUserXattr} {
		v, err := sys.Fgetxattr(dir, name)
		switch {
		case err == nil:
			if string(v) == "y" {
				return true, nil
			}
		case !errors.Is(err, syscall.ENODATA) && !errors.Is(err, syscall.ENOTSUP):
			return false, err
		}
	}
	return false, nil
}

// lowerView looks into rendered layers as an overlay mount of them would.
type lowerView struct{ roots []int } // top first

func openLowers(dirs []string) (*lowerView, error) {
	v := &lowerView{}
	for _, d := range dirs {
		fd, err := sys.Openat(sys.CWD, d, sys.O_DIRECTORY|sys.O_NOFOLLOW, 0)
		if err != nil {
			v.close()
			return nil, err
		}
		v.roots = append(v.roots, fd)
	}
	return v, nil
}

func (v *lowerView) close() { closeAll(v.roots) }

func closeAll(fds []int) {
	for _, fd := range fds {
		sys.Close(fd)
	}
}

// descend opens the directories that make up dirs' merged child name; none if
// it is no directory. The caller closes them.
func descend(dirs []int, name string) ([]int, error) {
	var out []int
	for _, d := range dirs {
		fd, err := sys.Openat(d, name, sys.O_DIRECTORY|sys.O_NOFOLLOW, 0)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
			return out, nil // hides what is below
		case err != nil:
			closeAll(out)
			return nil, err
		}
		out = append(out, fd)
		opaque, err := isOpaque(fd)
		if err != nil {
			closeAll(out)
			return nil, err
		}
		if opaque {
			return out, nil
		}
	}
	return out, nil
}

// lookup finds what rel is in the merged view. Its directory stays open until
// the caller closes it; ok is false if there is nothing.
func (v *lowerView) lookup(rel string) (e entry, ok bool, err error) {
	if rel == "" {
		if len(v.roots) == 0 {
			return entry{}, false, nil
		}
		fd, err := sys.Openat(v.roots[0], ".", sys.O_DIRECTORY, 0)
		if err != nil {
			return entry{}, false, err
		}
		st, err := sys.Fstat(fd)
		return entry{"", fd, ".", st}, err == nil, err
	}
	dirs, owned := v.roots, false
	parts := strings.Split(rel, "/")
	for _, part := range parts[:len(parts)-1] {
		next, err := descend(dirs, part)
		if owned {
			closeAll(dirs)
		}
		if err != nil {
			return entry{}, false, err
		}
		dirs, owned = next, true
	}
	if owned {
		defer closeAll(dirs)
	}
	name := parts[len(parts)-1]
	for _, d := range dirs {
		st, err := sys.Lstatat(d, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || isWhiteout(st) {
			return entry{}, false, err
		}
		fd, err := sys.Openat(d, ".", sys.O_DIRECTORY, 0)
		return entry{rel, fd, name, st}, err == nil, err
	}
	return entry{}, false, nil
}

// walkMerged is walk over what an overlay of the directories, top first,
// would show.
func walkMerged(lowers []string, f func(entry) error) error {
	if len(lowers) == 1 && !strings.HasPrefix(path.Base(path.Dir(lowers[0])), layerPrefix) {
		return walk(lowers[0], f)
	}
	v, err := openLowers(lowers)
	if err != nil {
		return err
	}
	if len(v.roots) == 0 {
		return errors.New("no layers")
	}
	st, err := sys.Fstat(v.roots[0])
	if err != nil {
		v.close()
		return err
	}
	if err := f(entry{"", v.roots[0], ".", st}); err != nil {
		v.close()
		return err
	}
	return walkMergedDir(v.roots, "", f)
}

// walkMergedDir walks the directories that make up one, and closes them.
func walkMergedDir(dirs []int, rel string, f func(entry) error) error {
	defer closeAll(dirs)
	from := map[string]int{} // name: the highest directory that has it
	for _, d := range dirs {
		names, err := readNames(d)
		if err != nil {
			return err
		}
		for _, n := range names {
			if _, ok := from[n]; !ok {
				from[n] = d
			}
		}
	}
	names := make([]string, 0, len(from))
	for n := range from {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, name := range names {
		st, err := sys.Lstatat(from[name], name)
		if err != nil {
			return err
		}
		if isWhiteout(st) {
			continue
		}
		e := entry{path.Join(rel, name), from[name], name, st}
		if err := f(e); err != nil {
			return fmt.Errorf("%q: %w", e.rel, err)
		}
		if !st.IsDir() {
			continue
		}
		children, err := descend(dirs, name)
		if err != nil {
			return err
		}
		if err := walkMergedDir(children, e.rel, f); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists an open directory, which stays open.
func readNames(dir int) ([]string, error) {
	fd, err := sys.Openat(dir, ".", sys.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), ".")
	defer d.Close()
	return d.Readdirnames(-1)
}

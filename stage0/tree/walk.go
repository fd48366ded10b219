package tree

import (
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// entry is a file met on a walk. The descriptor of its directory is valid
// during the call.
type entry struct {
	rel  string // "" is the root
	dir  int
	name string
	stat sys.Stat
}

// openRead opens the entry itself; for regular files and directories only.
func (e entry) openRead() (int, error) {
	flags := sys.O_NOFOLLOW
	if e.stat.IsDir() {
		flags |= sys.O_DIRECTORY
	}
	return sys.Openat(e.dir, e.name, flags, 0)
}

// walk calls f for root and all below it, in lexical order, directories before
// their content. It follows no link.
func walk(root string, f func(entry) error) error {
	fd, err := sys.Openat(sys.CWD, root, sys.O_DIRECTORY|sys.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	st, err := sys.Fstat(fd)
	if err != nil {
		sys.Close(fd)
		return err
	}
	if err := f(entry{"", fd, ".", st}); err != nil {
		sys.Close(fd)
		return err
	}
	return walkDir(os.NewFile(uintptr(fd), root), "", f)
}

func walkDir(d *os.File, rel string, f func(entry) error) error {
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	dir := int(d.Fd())
	for _, name := range names {
		st, err := sys.Lstatat(dir, name)
		if err != nil {
			return err
		}
		e := entry{path.Join(rel, name), dir, name, st}
		if err := f(e); err != nil {
			return fmt.Errorf("%q: %w", e.rel, err)
		}
		if !st.IsDir() {
			continue
		}
		fd, err := e.openRead()
		if err != nil {
			return err
		}
		if err := walkDir(os.NewFile(uintptr(fd), name), e.rel, f); err != nil {
			return err
		}
	}
	return nil
}

package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// Copy copies a rendered root file system, given as Tree.Lowers has it, to dst,
// which is made when missing and must be empty otherwise. Owners, modes, times,
// extended attributes, hard links and holes stay; blocks are shared where the
// file system can.
func Copy(ctx context.Context, lowers []string, dst string) error {
	return CopyShifted(ctx, lowers, dst, 0, 0)
}

// CopyShifted is Copy with shift added to all ids, for a user namespace of
// count ids. Those beyond it become the last but one, nobody's.
func CopyShifted(ctx context.Context, lowers []string, dst string, shift, count uint32) error {
	if err := os.Mkdir(dst, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	x, err := newExtractor(dst, Limits{}.withDefaults(), nil)
	if err != nil {
		return err
	}
	defer x.close()
	c := copier{x: x, first: map[inode]string{}, shift: shift, count: count}
	err = walkMerged(lowers, func(e entry) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return c.copy(e)
	})
	if err == nil {
		err = x.finish()
	}
	if err != nil {
		return fmt.Errorf("copying a tree to %q: %w", dst, err)
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type copier struct {
	x     *extractor
	first map[inode]string
	// shift and count are those of CopyShifted, zero without.
	shift, count uint32
}

func (c *copier) copy(e entry) error {
	typ := e.stat.Type()
	if e.rel == "" {
		m, err := c.meta(e)
		c.x.dirs[""] = m
		return err
	}
	if typ != sys.S_IFDIR && e.stat.Nlink > 1 {
		id := inode{e.stat.Dev, e.stat.Inode}
		if first, ok := c.first[id]; ok {
			return c.x.link(e.rel, first)
		}
		c.first[id] = e.rel
	}
	dir, err := c.x.dir(filepath.Dir(e.rel))
	if err != nil {
		return err
	}
	return c.put(e, dir)
}

// put copies an entry into the open directory dir.
func (c *copier) put(e entry, dir int) error {
	m, err := c.meta(e)
	if err != nil {
		return err
	}
	typ := e.stat.Type()
	switch typ {
	case sys.S_IFDIR:
		return c.x.mkdir(dir, e.rel, e.name, m)
	case sys.S_IFREG:
		return c.file(e, dir, m)
	case sys.S_IFLNK:
		target, err := sys.Readlinkat(e.dir, e.name)
		if err != nil {
			return err
		}
		if err := sys.Symlinkat(target, dir, e.name); err != nil {
			return err
		}
		return c.x.specialMeta(dir, e.name, m, false)
	case sys.S_IFCHR, sys.S_IFBLK, sys.S_IFIFO:
		if err := sys.Mknodat(dir, e.name, typ|0o600, sys.Major(e.stat.Rdev), sys.Minor(e.stat.Rdev)); err != nil {
			return err
		}
		return c.x.specialMeta(dir, e.name, m, true)
	}
	return nil // a socket means nothing in a copy
}

func (c *copier) file(e entry, dir int, m meta) error {
	in, err := e.openRead()
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), e.rel)
	defer src.Close()
	out, err := sys.Openat(dir, e.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|sys.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), e.rel)
	err = sys.CopyData(dst, src, e.stat.Size)
	if err == nil {
		err = c.x.fileMeta(out, m, readable)
	}
	return errors.Join(err, dst.Close())
}

// xattrs reads what a copy keeps: everything but labels, which the system sets.
func xattrs(e entry) (map[string]string, error) {
	fd, err := e.openRead()
	if err != nil {
		return nil, err
	}
	defer sys.Close(fd)
	names, err := sys.Flistxattr(fd)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	out := map[string]string{}
	for _, n := range names {
		if n == "security.selinux" || strings.HasPrefix(n, "trusted.overlay.") || strings.HasPrefix(n, "user.overlay.") {
			continue
		}
		v, err := sys.Fgetxattr(fd, n)
		if errors.Is(err, syscall.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[n] = string(v)
	}
	return out, nil
}

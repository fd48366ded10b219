package tree

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// WriteRootfs writes what an overlay of the directories, top first, shows as an
// ACI with the given image manifest. It reads the directories themselves, so
// that nothing has to be mounted. inside turns the ids of a pod's private users
// into those of the image; nil leaves ids alone. Sockets are left out.
func WriteRootfs(ctx context.Context, w io.Writer, manifest []byte, dirs []string, inside func(id uint32) (uint32, bool)) error {
	manifest, err := standalone(manifest)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestFile, Mode: 0o644, Size: int64(len(manifest)), Format: tar.FormatUSTAR}); err != nil {
		return err
	}
	if _, err := tw.Write(manifest); err != nil {
		return err
	}
	x := rootfsWriter{out: tarSink(tw, rootfsDir+"/", nil), inside: inside, first: map[inode]string{}}
	each := func(e entry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return x.entry(e)
	}
	if len(dirs) == 1 {
		err = walk(dirs[0], each) // a copy, not a layer
	} else {
		err = walkMerged(dirs, each)
	}
	if err != nil {
		return err
	}
	return tw.Close()
}

type rootfsWriter struct {
	out    sink
	inside func(id uint32) (uint32, bool)
	first  map[inode]string
}

func (x *rootfsWriter) entry(e entry) error {
	m, err := entryMeta(e)
	if err != nil {
		return err
	}
	if err := redirected(e); err != nil {
		return err
	}
	x.unshift(&m)
	n := &flatNode{meta: m, major: int64(sys.Major(e.stat.Rdev)), minor: int64(sys.Minor(e.stat.Rdev))}
	switch e.stat.Type() {
	case sys.S_IFDIR:
		n.typ = tar.TypeDir
	case sys.S_IFREG:
		n.typ, n.size = tar.TypeReg, e.stat.Size
	case sys.S_IFLNK:
		n.typ = tar.TypeSymlink
		if n.target, err = sys.Readlinkat(e.dir, e.name); err != nil {
			return err
		}
	case sys.S_IFCHR:
		n.typ = tar.TypeChar
	case sys.S_IFBLK:
		n.typ = tar.TypeBlock
	case sys.S_IFIFO:
		n.typ = tar.TypeFifo
	default:
		return nil
	}
	if n.typ != tar.TypeChar && n.typ != tar.TypeBlock {
		n.major, n.minor = 0, 0
	}
	if n.typ != tar.TypeDir && e.stat.Nlink > 1 {
		id := inode{e.stat.Dev, e.stat.Inode}
		if first, ok := x.first[id]; ok {
			return x.out(e.rel, &tar.Header{Typeflag: tar.TypeLink, Linkname: first, Format: tar.FormatPAX}, nil)
		}
		x.first[id] = e.rel
	}
	if n.typ != tar.TypeReg {
		return x.out(e.rel, n.header(e.rel), nil)
	}
	fd, err := e.openRead()
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.rel)
	defer f.Close()
	return x.out(e.rel, n.header(e.rel), io.LimitReader(f, e.stat.Size))
}

// unshift takes a pod's private users out of a file's metadata. Files of the
// image that the pod has not changed carry the image's ids already.
func (x *rootfsWriter) unshift(m *meta) {
	if x.inside == nil {
		return
	}
	id := func(id uint32) uint32 {
		if in, ok := x.inside(id); ok {
			return in
		}
		return id
	}
	m.uid, m.gid = id(m.uid), id(m.gid)
	le := binary.LittleEndian
	for name, value := range m.xattrs {
		b := []byte(value)
		switch {
		case name == capXattr && len(b) == capV2Len+4 && le.Uint32(b)&capFlags == capV3:
			if id(le.Uint32(b[capV2Len:])) == 0 {
				le.PutUint32(b, le.Uint32(b)&^capFlags|capV2)
				b = b[:capV2Len]
			}
		case strings.HasPrefix(name, "system.posix_acl_"):
			for i := aclHeader; i+aclEntry <= len(b); i += aclEntry {
				if tag := le.Uint16(b[i:]); tag == aclUser || tag == aclGroup {
					le.PutUint32(b[i+4:], id(le.Uint32(b[i+4:])))
				}
			}
		}
		m.xattrs[name] = string(b)
	}
}

// redirected refuses what only a mounted overlay can resolve. rkt's overlays
// make no such files, unless the kernel was told to by a module parameter.
func redirected(e entry) error {
	if !e.stat.IsDir() && e.stat.Type() != sys.S_IFREG {
		return nil
	}
	fd, err := e.openRead()
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	for _, name := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
		_, err := sys.Fgetxattr(fd, name)
		switch {
		case err == nil:
			return fmt.Errorf("the overlay has left %q incomplete (%s); the kernel's overlay module runs with redirect_dir or metacopy", e.rel, name)
		case !errors.Is(err, syscall.ENODATA) && !errors.Is(err, syscall.ENOTSUP) && !errors.Is(err, syscall.EPERM):
			return err
		}
	}
	return nil
}

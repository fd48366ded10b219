package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/failpoint"
)

const (
	maxMembers    = 1 << 16 // of an archive
	maxMemberName = 512
	maxLinks      = 8 // followed from one member
	// An archive may be unpacked to this many times its size, and always to
	// minUnpacked; no honest one of tar files comes near.
	maxRatio    = 1100
	minUnpacked = 1 << 30
)

// ArchiveOptions say how to read archives.
type ArchiveOptions struct {
	// TempDir holds a compressed archive's plain bytes while it is open.
	TempDir string
	// Decompress yields a compressed stream's plain bytes; without it only
	// plain tar archives are read.
	Decompress func(io.Reader) (io.ReadCloser, error)
	// MaxUnpacked bounds the plain bytes; 0 stands for what any honest archive
	// of that size can hold.
	MaxUnpacked int64
}

// archive is a tar archive whose members can be opened in any order.
type archive struct {
	f       *os.File
	members map[string]member
}

type member struct {
	offset, size int64
	link         string // of symbolic and hard links: the name of another member
}

// OpenArchive opens a tar archive of a layout, plain or compressed.
func OpenArchive(ctx context.Context, ref LayoutRef, o ArchiveOptions) (*Layout, error) {
	a, err := openArchive(ctx, ref.Path, o)
	if err != nil {
		return nil, fmt.Errorf("opening image archive %q: %w", ref.Path, err)
	}
	l := &Layout{place: a, ref: ref}
	if err := l.checkVersion(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening image archive %q: %w", ref.Path, err), l.Close())
	}
	return l, nil
}

func openArchive(ctx context.Context, path string, o ArchiveOptions) (*archive, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	a := &archive{f: f, members: map[string]member{}}
	if plain, err := isTar(f); err != nil || !plain {
		if err == nil {
			a.f, err = unpack(ctx, f, o)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			if a.f != nil && a.f != f {
				err = errors.Join(err, a.f.Close())
			}
			return nil, err
		}
	}
	if err := a.scan(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = errors.New("it is a directory (a layout directory is written oci:PATH)")
	case !st.Mode().IsRegular():
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// isTar says whether a file begins as a tar archive does; the reader judges the rest.
func isTar(f *os.File) (bool, error) {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n == len(head) && string(head[257:262]) == "ustar", nil
}

// unpack decompresses a file into one without a name, which a crash cannot leave behind.
func unpack(ctx context.Context, f *os.File, o ArchiveOptions) (*os.File, error) {
	if o.Decompress == nil {
		return nil, errors.New("it is not a tar archive")
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	plain, err := o.Decompress(contextReader{ctx, f})
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	tmp, err := os.CreateTemp(o.TempDir, "oci-archive-*")
	if err != nil {
		return nil, err
	}
	failpoint.Hit("oci/unpack")
	err = os.Remove(tmp.Name())
	if err == nil {
		limit := o.MaxUnpacked
		if limit == 0 {
			limit = max(minUnpacked, st.Size()*maxRatio)
		}
		var n int64
		n, err = io.Copy(tmp, io.LimitReader(plain, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("it unpacks to more than %d bytes", limit)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpacking: %w", err), tmp.Close())
	}
	return tmp, nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// scan notes where the members are. The tar reader seeks over their content and
// reads nothing ahead, so that the file's offset is that of a member's first byte.
func (a *archive) scan(ctx context.Context) error {
	st, err := a.f.Stat()
	if err != nil {
		return err
	}
	if _, err := a.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tr := tar.NewReader(a.f)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading tar header: %w", err)
		}
		if n >= maxMembers {
			return fmt.Errorf("more than %d members", maxMembers)
		}
		name, ok := memberName(h.Name)
		if !ok {
			continue // nobody asks for it
		}
		m := member{size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			if sparse(h) {
				continue
			}
			if m.offset, err = a.f.Seek(0, io.SeekCurrent); err != nil {
				return err
			}
			if m.size > st.Size()-m.offset {
				return fmt.Errorf("member %q: %w", name, io.ErrUnexpectedEOF)
			}
		case tar.TypeSymlink:
			m.link, ok = memberName(path.Join(path.Dir(name), h.Linkname))
			ok = ok && !path.IsAbs(h.Linkname)
		case tar.TypeLink:
			m.link, ok = memberName(h.Linkname)
		default:
			continue
		}
		if !ok {
			continue
		}
		if _, twice := a.members[name]; twice {
			return fmt.Errorf("member %q is in the archive twice", name)
		}
		a.members[name] = m
	}
}

// memberName is a name as it is looked up by.
func memberName(name string) (string, bool) {
	clean := path.Clean(name)
	return clean, len(name) <= maxMemberName && filepath.IsLocal(clean)
}

// sparse says whether a member's content does not lie in the archive in one piece.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (a *archive) Close() error { return a.f.Close() }

// open opens a member by name; links lead to other members and nowhere else.
func (a *archive) open(name string, offset int64) (section, error) {
	m, err := a.find(name)
	if err != nil {
		return section{}, err
	}
	return section{io.NewSectionReader(a.f, m.offset+min(offset, m.size), max(0, m.size-offset)), nil}, nil
}

func (a *archive) find(name string) (member, error) {
	at, ok := memberName(name)
	for range maxLinks {
		m, found := a.members[at]
		if !ok || !found {
			return member{}, &fs.PathError{Op: "open", Path: clip(name), Err: fs.ErrNotExist}
		}
		if m.link == "" {
			return m, nil
		}
		at = m.link
	}
	return member{}, fmt.Errorf("%q leads through more than %d links", clip(name), maxLinks)
}

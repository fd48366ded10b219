package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// regular writes a regular file.
func (x *extractor) regular(dir int, rel, name string, h *tar.Header, m meta, body io.Reader) error {
	if x.bytes += h.Size; h.Size < 0 || x.bytes > x.limits.Bytes {
		return fmt.Errorf("more than %d bytes in all", x.limits.Bytes)
	}
	if sparse(h) {
		if err := x.make(h.Size); err != nil {
			return err
		}
	}
	fd := -1
	err := x.replace(dir, rel, name, func() (err error) {
		fd, err = sys.Openat(dir, name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|sys.O_NOFOLLOW, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	if sparse(h) {
		err = x.copySparse(f, body, h.Size)
	} else {
		_, err = io.CopyBuffer(onlyWriter{f}, onlyReader{body}, x.buf)
	}
	if err == nil {
		err = x.fileMeta(fd, m, readable)
	}
	return errors.Join(err, f.Close())
}

type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// copySparse writes what is not zero; the tar reader hands holes out as zeros.
func (x *extractor) copySparse(f *os.File, body io.Reader, size int64) error {
	const block = 4096
	zero := make([]byte, block)
	var off int64
	for {
		n, err := io.ReadFull(body, x.buf)
		for i := 0; i < n; i += block {
			b := x.buf[i:min(i+block, n)]
			if bytes.Equal(b, zero[:len(b)]) {
				continue
			}
			if _, err := f.WriteAt(b, off+int64(i)); err != nil {
				return err
			}
		}
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && off == size:
			return f.Truncate(size)
		case err != nil:
			return err
		}
	}
}

// special makes a FIFO or a device.
func (x *extractor) special(dir int, rel, name string, typ uint32, h *tar.Header, m meta) error {
	if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
		return fmt.Errorf("device %d:%d is out of range", h.Devmajor, h.Devminor)
	}
	device := typ != sys.S_IFIFO
	if typ == sys.S_IFCHR && h.Devmajor == 0 && h.Devminor == 0 {
		return errors.New("character device 0:0 would hide files of lower layers")
	}
	if device && !x.owner {
		x.tell("devices are left out: only root can make them")
		return nil
	}
	var major, minor uint32
	if device {
		major, minor = uint32(h.Devmajor), uint32(h.Devminor)
	}
	err := x.replace(dir, rel, name, func() error { return sys.Mknodat(dir, name, typ|0o600, major, minor) })
	if err != nil {
		return err
	}
	return x.specialMeta(dir, name, m, true)
}

// fileMeta sets the metadata of an open file or directory: the owner first,
// since that clears set-id bits and capabilities, the times last. Need are
// rights without which nobody but root could read or remove it again.
func (x *extractor) fileMeta(fd int, m meta, need uint32) error {
	if x.owner {
		if err := sys.Fchown(fd, m.uid, m.gid); err != nil {
			return err
		}
	} else if int(m.uid) != os.Geteuid() {
		x.tell("owners of files are not kept: only root can give files away")
	}
	if err := sys.Fchmod(fd, x.mode(m, need)); err != nil {
		return err
	}
	for name, value := range m.xattrs {
		if err := x.xattr(fd, name, value); err != nil {
			return err
		}
	}
	return sys.Futimens(fd, m.atime, m.mtime)
}

// Rights that the owner needs for files and directories.
const (
	readable   = 0o400
	searchable = 0o700
)

func (x *extractor) mode(m meta, need uint32) uint32 {
	if x.owner || m.mode&need == need {
		return m.mode
	}
	x.tell("files and directories without rights for their owner get some: only root does not need them")
	return m.mode | need
}

func (x *extractor) xattr(fd int, name, value string) error {
	if !x.owner && strings.HasPrefix(name, "system.posix_acl_") { // it may take away the owner's rights
		x.tell("access control lists are left out: only root can do without its rights")
		return nil
	}
	err := sys.Fsetxattr(fd, name, []byte(value))
	switch {
	case err == nil:
		return nil
	case !x.owner && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP)):
		x.tell(fmt.Sprintf("extended attribute %.100q is left out: %v", name, err))
		return nil
	case errors.Is(err, syscall.ENOTSUP) && name != "security.capability":
		x.tell(fmt.Sprintf("extended attribute %.100q is left out: the file system does not support it", name))
		return nil
	}
	return err
}

// specialMeta is fileMeta for what cannot be opened: links, FIFOs and devices.
func (x *extractor) specialMeta(dir int, name string, m meta, chmod bool) error {
	if x.owner {
		if err := sys.Lchownat(dir, name, m.uid, m.gid); err != nil {
			return err
		}
	}
	if chmod {
		if err := sys.Chmodat(dir, name, m.mode); err != nil {
			return err
		}
	}
	return sys.Utimensat(dir, name, m.atime, m.mtime)
}

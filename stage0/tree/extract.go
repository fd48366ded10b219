package tree

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"sort"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// Limits bound what is extracted; a zero member means its default.
type Limits struct {
	Entries int   // default 2,000,000
	Bytes   int64 // of file content, holes included; default 1 TiB
	Xattrs  int   // bytes of extended attributes of one file; default 64 KiB
}

func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = 2_000_000
	}
	if l.Bytes == 0 {
		l.Bytes = 1 << 40
	}
	if l.Xattrs == 0 {
		l.Xattrs = 64 << 10
	}
	return l
}

// extractor writes tar entries beneath a directory. It walks by descriptors
// and never follows a symbolic link: one in the place of a directory is
// replaced by a directory. Metadata of directories is set when all is written.
type extractor struct {
	root    int
	limits  Limits
	warn    func(string)
	warned  map[string]bool
	owner   bool // may give files away, make devices
	entries int
	bytes   int64
	open    *dirCache
	dirs    map[string]meta
	// made are bytes of files that the archive itself does not hold, kept bytes
	// of memory that last, work what was done besides writing.
	made       int64
	kept, work int
	// manifest is that of the image extracted last.
	manifest []byte
	buf      []byte
}

// What an archive may cost besides the room of its files.
const (
	maxMade = 64 << 30 // holes, and copies of lower layers' files
	maxKept = 32 << 20 // the heap is twice that before garbage goes
	maxWork = 1 << 31  // bytes of names looked at: seconds
)

// spend counts work.
func (x *extractor) spend(n int) error {
	if x.work += n; x.work > maxWork {
		return errors.New("too deep, or too much is replaced: unpacking would take too long")
	}
	return nil
}

// keep counts memory that lasts as long as the extractor.
func (x *extractor) keep(n int) error {
	if x.kept += n; x.kept > maxKept {
		return errors.New("too many directories, or whiteouts, or too long names or attributes of them")
	}
	return nil
}

// make counts bytes that a small archive can make many of.
func (x *extractor) make(n int64) error {
	if x.made += n; n < 0 || x.made > maxMade {
		return fmt.Errorf("more than %d bytes of holes in sparse files and of copies", int64(maxMade))
	}
	return nil
}

// setDir notes the metadata of a directory, which is set at the end.
func (x *extractor) setDir(rel string, m meta) error {
	if old, ok := x.dirs[rel]; ok {
		x.kept -= old.size(rel)
	}
	x.dirs[rel] = m
	return x.keep(m.size(rel))
}

// size is about what remembering the metadata of rel takes.
func (m meta) size(rel string) int {
	n := len(rel) + 160
	for k, v := range m.xattrs {
		n += len(k) + len(v) + 64
	}
	return n
}

// meta is the metadata of an entry, checked.
type meta struct {
	mode     uint32
	uid, gid uint32
	atime    time.Time
	mtime    time.Time
	xattrs   map[string]string
}

func newExtractor(dir string, l Limits, warn func(string)) (*extractor, error) {
	fd, err := sys.Openat(sys.CWD, dir, sys.O_DIRECTORY|sys.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return &extractor{
		root: fd, limits: l, warn: warn, warned: map[string]bool{}, owner: os.Geteuid() == 0,
		open: newDirCache(), dirs: map[string]meta{}, buf: make([]byte, 256<<10),
	}, nil
}

func (x *extractor) close() {
	x.open.drop("")
	sys.Close(x.root)
}

func (x *extractor) tell(text string) {
	const enough = 50
	if x.warn != nil && !x.warned[text] && len(x.warned) < enough {
		x.warned[text] = true
		x.warn(text)
	}
}

// image extracts the rootfs of an ACI and notes its manifest.
func (x *extractor) image(ctx context.Context, r io.Reader, lists []*whitelist, alias map[string]string) error {
	manifest := func(body io.Reader) (err error) {
		x.manifest, err = io.ReadAll(io.LimitReader(body, appc.MaxManifest))
		return err
	}
	return eachEntry(ctx, r, manifest, func(rel string, h *tar.Header, body io.Reader) error {
		return x.aci(rel, h, body, lists, alias)
	})
}

// aci extracts one entry of an ACI.
func (x *extractor) aci(rel string, h *tar.Header, body io.Reader, lists []*whitelist, alias map[string]string) error {
	if x.entries++; x.entries > x.limits.Entries {
		return fmt.Errorf("more than %d entries", x.limits.Entries)
	}
	dir := h.Typeflag == tar.TypeDir
	if h.Typeflag == tar.TypeLink {
		target, err := linkTarget(h)
		if err != nil {
			return err
		}
		if a, ok := alias[target]; ok {
			if a == rel {
				return nil // written when its original came
			}
			target = a
		}
		if !allows(lists, rel, false) {
			return nil
		}
		return x.link(rel, target)
	}
	if !allows(lists, rel, dir) {
		// A filtered file that a surviving hard link needs goes there.
		if rel, dir = alias[rel], false; rel == "" {
			return nil
		}
	}
	return x.entry(rel, h, body)
}

// eachEntry calls f for every entry below rootfs and for rootfs itself (""),
// and manifest, if not nil, for the manifest.
func eachEntry(ctx context.Context, r io.Reader, manifest func(io.Reader) error, f func(rel string, h *tar.Header, body io.Reader) error) error {
	tr := tar.NewReader(bufio.NewReaderSize(r, 256<<10))
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading tar: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		rel, ok, err := below(h.Name)
		if err != nil {
			return err
		}
		if !ok {
			if clean, _ := store.CleanName(h.Name); clean == manifestFile && manifest != nil {
				if err := manifest(tr); err != nil {
					return err
				}
			}
			continue
		}
		if err := f(rel, h, tr); err != nil {
			return fmt.Errorf("entry %q: %w", rel, err)
		}
	}
}

// below is an entry's path relative to rootfs.
func below(name string) (rel string, ok bool, err error) {
	clean, err := store.CleanName(name)
	if err != nil {
		return "", false, err
	}
	if clean == rootfsDir {
		return "", true, nil
	}
	rel, ok = strings.CutPrefix(clean, rootfsDir+"/")
	return rel, ok, nil
}

func linkTarget(h *tar.Header) (string, error) {
	target, ok, err := below(h.Linkname)
	if err != nil {
		return "", fmt.Errorf("hard link: %w", err)
	}
	if !ok || target == "" {
		return "", fmt.Errorf("hard link leads to %.200q, outside the root file system", h.Linkname)
	}
	return target, nil
}

// aliases finds, for files that the white lists filter, the first hard link to
// each that stays.
func aliases(ctx context.Context, r io.Reader, lists []*whitelist) (map[string]string, error) {
	out := map[string]string{}
	err := eachEntry(ctx, r, nil, func(rel string, h *tar.Header, _ io.Reader) error {
		if h.Typeflag != tar.TypeLink {
			return nil
		}
		target, err := linkTarget(h)
		if err != nil {
			return err
		}
		if _, have := out[target]; !have && !allows(lists, target, false) && allows(lists, rel, false) {
			out[target] = rel
		}
		return nil
	})
	return out, err
}

// entry writes one entry that is no hard link.
func (x *extractor) entry(rel string, h *tar.Header, body io.Reader) error {
	m, err := x.meta(h)
	if err != nil {
		return err
	}
	if rel == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("rootfs is not a directory")
		}
		return x.setDir("", m)
	}
	dir, err := x.dir(parentOf(rel))
	if err != nil {
		return err
	}
	return x.put(dir, rel, path.Base(rel), h, m, body)
}

// put writes one entry, no hard link, named name in the open directory dir.
func (x *extractor) put(dir int, rel, name string, h *tar.Header, m meta, body io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return x.mkdir(dir, rel, name, m)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.regular(dir, rel, name, h, m, body)
	case tar.TypeSymlink:
		if h.Linkname == "" || strings.ContainsRune(h.Linkname, 0) {
			return fmt.Errorf("bad symbolic link to %.200q", h.Linkname)
		}
		if err := x.replace(dir, rel, name, func() error { return sys.Symlinkat(h.Linkname, dir, name) }); err != nil {
			return err
		}
		return x.specialMeta(dir, name, m, false)
	case tar.TypeFifo:
		return x.special(dir, rel, name, sys.S_IFIFO, h, m)
	case tar.TypeChar:
		return x.special(dir, rel, name, sys.S_IFCHR, h, m)
	case tar.TypeBlock:
		return x.special(dir, rel, name, sys.S_IFBLK, h, m)
	}
	return fmt.Errorf("unknown type %q", h.Typeflag)
}

const maxID = math.MaxUint32 - 1 // 2^32-1 means "leave it"

func (x *extractor) meta(h *tar.Header) (meta, error) {
	if h.Uid < 0 || int64(h.Uid) >= maxID+1 || h.Gid < 0 || int64(h.Gid) >= maxID+1 {
		return meta{}, fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	m := meta{
		mode: uint32(h.Mode) & 0o7777, uid: uint32(h.Uid), gid: uint32(h.Gid), //nolint:gosec // checked above
		mtime: clamp(h.ModTime),
	}
	m.atime = m.mtime
	if !h.AccessTime.IsZero() {
		m.atime = clamp(h.AccessTime)
	}
	total := 0
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok || !allowedXattr(name) {
			continue
		}
		if err := checkXattr(name, v); err != nil {
			return meta{}, err
		}
		if total += len(name) + len(v); total > x.limits.Xattrs {
			return meta{}, fmt.Errorf("more than %d bytes of extended attributes", x.limits.Xattrs)
		}
		if m.xattrs == nil {
			m.xattrs = map[string]string{}
		}
		m.xattrs[name] = v
	}
	return m, nil
}

// checkXattr refuses what no file system takes or could give back.
func checkXattr(name, value string) error {
	bad := len(name) > 255 || strings.ContainsFunc(name, unicode.IsControl)
	if name == "security.capability" { // versions 1 to 3
		bad = len(value) != 12 && len(value) != 20 && len(value) != 24
	}
	if bad {
		return fmt.Errorf("bad extended attribute %.100q", name)
	}
	return nil
}

// allowedXattr lists what an image may carry. Attributes that mean something
// to the host's security modules or to overlayfs stay out.
func allowedXattr(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// clamp keeps times within what every file system can store.
func clamp(t time.Time) time.Time {
	// ext4 ends first, in the year 2446.
	first, last := time.Unix(math.MinInt32, 0), time.Unix(1<<34-1<<31-1, 0)
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}

// replace creates something at name, removing what is in its place.
func (x *extractor) replace(dir int, rel, name string, create func() error) error {
	err := create()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := x.remove(dir, rel, name); err != nil {
		return err
	}
	return create()
}

// remove removes name, whatever it is.
func (x *extractor) remove(dir int, rel, name string) error {
	err := sys.Unlinkat(dir, name, false)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	x.open.drop(rel)
	if err := x.spend(64 * len(x.dirs)); err != nil {
		return err
	}
	for d, m := range x.dirs {
		if d == rel || isBelow(d, rel) {
			x.kept -= m.size(d)
			delete(x.dirs, d)
		}
	}
	// os.Root removes by descriptors and follows nothing.
	r, err := os.OpenRoot(sys.ProcPath(dir))
	if err != nil {
		return err
	}
	defer r.Close()
	return r.RemoveAll(name)
}

func (x *extractor) mkdir(dir int, rel, name string, m meta) error {
	err := sys.Mkdirat(dir, name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		var st sys.Stat
		if st, err = sys.Lstatat(dir, name); err == nil && !st.IsDir() {
			err = x.replace(dir, rel, name, func() error { return sys.Mkdirat(dir, name, 0o700) })
		}
	}
	if err != nil {
		return err
	}
	return x.setDir(rel, m)
}

// isBelow says whether the path p is below the path dir.
func isBelow(p, dir string) bool {
	return len(p) > len(dir) && p[len(dir)] == '/' && strings.HasPrefix(p, dir)
}

// parentOf is the directory of a clean path; "" is the root.
func parentOf(rel string) string { return rel[:max(0, strings.LastIndexByte(rel, '/'))] }

// dir opens the directory rel, making what is missing and replacing what is no
// directory. The descriptor belongs to the cache.
func (x *extractor) dir(rel string) (int, error) {
	if rel == "." || rel == "" {
		return x.root, nil
	}
	if fd, ok := x.open.get(rel); ok {
		return fd, nil
	}
	if err := x.spend(len(rel)); err != nil {
		return -1, err
	}
	parent, err := x.dir(parentOf(rel))
	if err != nil {
		return -1, err
	}
	name := path.Base(rel)
	const flags = sys.O_DIRECTORY | sys.O_NOFOLLOW
	fd, err := sys.Openat(parent, name, flags, 0)
	if err != nil {
		m := meta{mode: 0o755, mtime: time.Unix(0, 0), atime: time.Unix(0, 0)}
		if err := x.mkdir(parent, rel, name, m); err != nil {
			return -1, err
		}
		if fd, err = sys.Openat(parent, name, flags, 0); err != nil {
			return -1, err
		}
	}
	x.open.put(rel, fd)
	return fd, nil
}

// link makes a hard link. The target is found without following anything.
func (x *extractor) link(rel, target string) error {
	if rel == "" || rel == target {
		return fmt.Errorf("bad hard link to %q", target)
	}
	if isBelow(target, rel) {
		return fmt.Errorf("hard link to %q, which it would replace", target)
	}
	from := x.root
	if d := path.Dir(target); d != "." {
		fd, err := sys.Openat2(x.root, d, sys.O_DIRECTORY|sys.O_PATH, 0, sys.Beneath|sys.NoSymlinks)
		if err != nil {
			return fmt.Errorf("hard link to %q: %w", target, err)
		}
		defer sys.Close(fd)
		from = fd
	}
	st, err := sys.Lstatat(from, path.Base(target))
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	if st.IsDir() {
		return fmt.Errorf("hard link to %q, a directory", target)
	}
	to, err := x.dir(parentOf(rel))
	if err != nil {
		return err
	}
	name := path.Base(rel)
	return x.replace(to, rel, name, func() error { return sys.Linkat(from, path.Base(target), to, name) })
}

// finish sets the metadata of directories, deepest first so that times stay.
func (x *extractor) finish() error {
	paths := make([]string, 0, len(x.dirs))
	for p := range x.dirs {
		paths = append(paths, p)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(paths)))
	for _, p := range paths {
		fd := x.root
		if p != "" {
			var err error
			if fd, err = sys.Openat2(x.root, p, sys.O_DIRECTORY, 0, sys.Beneath|sys.NoSymlinks); err != nil {
				return err
			}
		}
		err := x.fileMeta(fd, x.dirs[p], searchable)
		if fd != x.root {
			sys.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("entry %q: %w", p, err)
		}
	}
	return nil
}

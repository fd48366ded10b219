package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// Names with a meaning in layers (OCI image layer filesystem changeset).
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // of aufs; not for us but for opaqueMarker
	opaqueMarker   = ".wh..wh..opq"
)

// maxLinks is how many symbolic links the path of an entry may lead through.
const maxLinks = 40

// layerExtractor extracts a layer into a directory of its own, in the form
// that overlayfs takes as a lower directory. Unlike an ACI's, the parents of a
// layer's entries may be symbolic links, of this layer or of lower ones; they
// are followed by hand, never out of the root.
type layerExtractor struct {
	*extractor
	lower *lowerView
	// whiteouts and opaque are paths this layer takes away from lower ones.
	whiteouts, opaque map[string]bool
	// implied are directories that lower layers describe, followed the lower
	// links that were gone through, copied the files brought up to be linked to.
	implied, followed, copied map[string]bool
}

func newLayerExtractor(dir string, lowers []string, l Limits, warn func(string)) (*layerExtractor, error) {
	v, err := openLowers(lowers)
	if err != nil {
		return nil, err
	}
	x, err := newExtractor(dir, l, warn)
	if err != nil {
		v.close()
		return nil, err
	}
	lx := &layerExtractor{
		extractor: x, lower: v, whiteouts: map[string]bool{}, opaque: map[string]bool{},
		implied: map[string]bool{"": true}, followed: map[string]bool{}, copied: map[string]bool{},
	}
	if x.dirs[""], err = lx.lowerMeta(""); err != nil {
		lx.close()
		return nil, err
	}
	return lx, nil
}

func (x *layerExtractor) close() {
	x.lower.close()
	x.extractor.close()
}

// defaultDir is the metadata of a directory nobody describes.
func defaultDir() meta {
	return meta{mode: 0o755, mtime: time.Unix(0, 0), atime: time.Unix(0, 0)}
}

// lowerMeta is the metadata of a directory of lower layers, the default if
// there is none.
func (x *layerExtractor) lowerMeta(rel string) (meta, error) {
	e, ok, err := x.lower.lookup(rel)
	if err != nil || !ok {
		return defaultDir(), err
	}
	defer sys.Close(e.dir)
	if !e.stat.IsDir() {
		return defaultDir(), nil
	}
	return entryMeta(e)
}

// hidden says whether this layer takes rel away from lower layers.
func (x *layerExtractor) hidden(rel string) bool {
	if len(x.whiteouts) == 0 && len(x.opaque) == 0 {
		return false
	}
	if x.whiteouts[rel] {
		return true
	}
	for p := rel; p != ""; {
		p = parentOf(p)
		x.work += len(p) // who calls spends, too
		if x.opaque[p] || p != "" && x.whiteouts[p] {
			return true
		}
	}
	return false
}

// layerEntry extracts one entry of the layer.
func (x *layerExtractor) layerEntry(h *tar.Header, body io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if x.entries++; x.entries > x.limits.Entries {
		return fmt.Errorf("more than %d entries", x.limits.Entries)
	}
	name, err := store.CleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is not a directory")
		}
		m, err := x.meta(h)
		if err != nil {
			return err
		}
		delete(x.implied, "")
		return x.setDir("", m)
	}
	base := path.Base(name)
	if strings.HasPrefix(base, whiteoutMeta) && base != opaqueMarker {
		return nil
	}
	if target, ok := strings.CutPrefix(base, whiteoutPrefix); ok && base != opaqueMarker && (target == "" || target == "." || target == "..") {
		return fmt.Errorf("a whiteout of %q", target)
	}
	dir, parent, err := x.layerDir(path.Dir(name))
	if err != nil {
		return err
	}
	if base == opaqueMarker {
		return x.note(x.opaque, parent)
	}
	if target, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return x.note(x.whiteouts, join(parent, target))
	}
	rel := join(parent, base)
	delete(x.copied, rel)
	delete(x.implied, rel)
	if h.Typeflag == tar.TypeLink {
		return x.layerLink(dir, rel, h.Linkname)
	}
	m, err := x.meta(h)
	if err != nil {
		return err
	}
	return x.put(dir, rel, base, h, m, body)
}

// note adds a path to a set that lasts.
func (x *layerExtractor) note(set map[string]bool, rel string) error {
	if set[rel] {
		return nil
	}
	set[rel] = true
	return x.keep(len(rel) + 64)
}

// join is path.Join for a clean directory and a name.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// layerDir opens a directory by the path that an entry gives, making what is
// missing, and tells where it really is.
func (x *layerExtractor) layerDir(rel string) (fd int, real string, err error) {
	if rel == "." || rel == "" {
		return x.root, "", nil
	}
	// What is open under this very path has no link on its way. Where links led
	// is not remembered: the layer may put something else in their place.
	if fd, ok := x.open.get(rel); ok {
		return fd, rel, nil
	}
	fd, real, links := x.root, "", 0
	for todo := strings.Split(rel, "/"); len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			real = parentOf(real)
			if fd, err = x.openDir(real); err != nil {
				return -1, "", err
			}
			continue
		}
		next := join(real, part)
		child, target, err := x.step(fd, next, part)
		if err == nil {
			err = x.spend(len(next) + 2*len(target) + 64)
		}
		if err != nil {
			return -1, "", err
		}
		if target == "" {
			fd, real = child, next
			continue
		}
		if links++; links > maxLinks || len(todo) > 1024 {
			return -1, "", fmt.Errorf("%q leads through more than %d symbolic links", rel, maxLinks)
		}
		todo = append(strings.Split(target, "/"), todo...)
		if strings.HasPrefix(target, "/") {
			fd, real = x.root, ""
		}
	}
	return fd, real, nil
}

// openDir opens a directory of this layer that exists.
func (x *layerExtractor) openDir(real string) (int, error) {
	if real == "" {
		return x.root, nil
	}
	if fd, ok := x.open.get(real); ok {
		return fd, nil
	}
	fd, err := sys.Openat2(x.root, real, sys.O_DIRECTORY, 0, sys.Beneath|sys.NoSymlinks)
	if err != nil {
		return -1, err
	}
	x.open.put(real, fd)
	return fd, nil
}

// step opens the directory next, named name in dir, or tells the target of the
// symbolic link that is there instead.
func (x *layerExtractor) step(dir int, next, name string) (fd int, target string, err error) {
	if fd, ok := x.open.get(next); ok {
		return fd, "", nil
	}
	const flags = sys.O_DIRECTORY | sys.O_NOFOLLOW
	fd, err = sys.Openat(dir, name, flags, 0)
	if err == nil {
		x.open.put(next, fd)
		return fd, "", nil
	}
	st, statErr := sys.Lstatat(dir, name)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		if target, err = x.lowerLink(next); err != nil || target != "" {
			return -1, target, err
		}
	case statErr != nil:
		return -1, "", statErr
	case st.Type() == sys.S_IFLNK:
		if target, err = sys.Readlinkat(dir, name); err != nil || target != "" {
			return -1, target, err
		}
	}
	m := defaultDir()
	if !x.hidden(next) {
		if m, err = x.lowerMeta(next); err != nil {
			return -1, "", err
		}
	}
	if err := x.mkdir(dir, next, name, m); err != nil {
		return -1, "", err
	}
	if err := x.note(x.implied, next); err != nil {
		return -1, "", err
	}
	if fd, err = sys.Openat(dir, name, flags, 0); err != nil {
		return -1, "", err
	}
	x.open.put(next, fd)
	return fd, "", nil
}

// lowerLink is the target of the symbolic link that lower layers have at rel.
func (x *layerExtractor) lowerLink(rel string) (string, error) {
	if x.hidden(rel) {
		return "", nil
	}
	e, ok, err := x.lower.lookup(rel)
	if err != nil || !ok {
		return "", err
	}
	defer sys.Close(e.dir)
	if e.stat.Type() != sys.S_IFLNK {
		return "", nil
	}
	if err := x.note(x.followed, rel); err != nil {
		return "", err
	}
	return sys.Readlinkat(e.dir, e.name)
}

// layerLink makes a hard link to a file of this layer or of a lower one, which
// is then brought up into this one.
func (x *layerExtractor) layerLink(dir int, rel, linkname string) error {
	target, err := store.CleanName(linkname)
	if err != nil || target == "" {
		return fmt.Errorf("bad hard link to %.200q", linkname)
	}
	// Opening another directory may push this one out of the cache.
	if dir, err = sys.Openat(dir, ".", sys.O_DIRECTORY, 0); err != nil {
		return err
	}
	defer sys.Close(dir)
	from, parent, err := x.layerDir(path.Dir(target))
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	name := path.Base(target)
	if target = join(parent, name); target == rel {
		return errors.New("a hard link to itself")
	}
	if isBelow(target, rel) { // its directory, which is open, would go first
		return fmt.Errorf("hard link to %q, which it would replace", target)
	}
	st, err := sys.Lstatat(from, name)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = x.bringUp(from, target, name)
	}
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	if st.IsDir() {
		return fmt.Errorf("hard link to %q, a directory", target)
	}
	base := path.Base(rel)
	return x.replace(dir, rel, base, func() error { return sys.Linkat(from, name, dir, base) })
}

// bringUp copies a file of a lower layer into this one.
func (x *layerExtractor) bringUp(dir int, rel, name string) (sys.Stat, error) {
	e, ok, err := x.lower.lookup(rel)
	if err != nil {
		return sys.Stat{}, err
	}
	if !ok {
		return sys.Stat{}, fs.ErrNotExist
	}
	defer sys.Close(e.dir)
	if e.stat.IsDir() {
		return e.stat, nil
	}
	if x.bytes += e.stat.Size; x.bytes > x.limits.Bytes {
		return sys.Stat{}, fmt.Errorf("more than %d bytes in all", x.limits.Bytes)
	}
	if err := x.make(e.stat.Size); err != nil {
		return sys.Stat{}, err
	}
	c := copier{x: x.extractor}
	e.rel = rel
	if err := c.put(e, dir); err != nil {
		return sys.Stat{}, err
	}
	if err := x.note(x.copied, rel); err != nil {
		return sys.Stat{}, err
	}
	return sys.Lstatat(dir, name)
}

// errLateWhiteout means that entries went through a link of a lower layer which
// the same layer takes away: they have to be extracted again, knowing that.
var errLateWhiteout = errors.New("the layer removes a link after going through it")

// finishLayer writes the marks that hide lower files, then sets the metadata of
// directories.
func (x *layerExtractor) finishLayer() error {
	for p := range x.followed {
		if x.hidden(p) {
			return errLateWhiteout
		}
		if err := x.spend(len(p)); err != nil {
			return err
		}
	}
	for p := range x.implied {
		if err := x.spend(len(p)); err != nil {
			return err
		}
		if _, ok := x.dirs[p]; ok && p != "" && x.hidden(p) {
			x.dirs[p] = defaultDir()
		}
	}
	if len(x.lower.roots) > 0 {
		for _, rel := range slices.Sorted(maps.Keys(x.whiteouts)) {
			if err := x.whiteout(rel); err != nil {
				return fmt.Errorf("whiteout of %q: %w", rel, err)
			}
		}
		for _, rel := range slices.Sorted(maps.Keys(x.opaque)) {
			if err := x.makeOpaque(rel); err != nil {
				return fmt.Errorf("opaque directory %q: %w", rel, err)
			}
		}
	}
	return x.finish()
}

// whiteout hides rel of lower layers, if this layer has nothing there itself.
func (x *layerExtractor) whiteout(rel string) error {
	dir, err := x.openDir(parentOf(rel))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil // something of this layer hides all of it
	}
	if err != nil {
		return err
	}
	name := path.Base(rel)
	st, err := sys.Lstatat(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		// The kernel lists marks in directories that lie over nothing.
		if below, lerr := x.overLower(rel); lerr != nil || !below {
			return lerr
		}
	}
	switch {
	case err == nil && st.IsDir():
		x.opaque[rel] = true
		return nil
	case err == nil && !x.copied[rel]:
		return nil
	case err == nil:
		if err := sys.Unlinkat(dir, name, false); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return sys.Mknodat(dir, name, sys.S_IFCHR, 0, 0)
}

// overLower says whether lower layers have something at rel that shows through
// the directory it is in.
func (x *layerExtractor) overLower(rel string) (bool, error) {
	if err := x.spend(len(rel) * len(x.lower.roots)); err != nil {
		return false, err
	}
	if parent := parentOf(rel); x.opaque[parent] || x.hidden(parent) {
		return false, nil
	}
	e, ok, err := x.lower.lookup(rel)
	if ok {
		sys.Close(e.dir)
	}
	return ok, err
}

func (x *layerExtractor) makeOpaque(rel string) error {
	dir, err := x.openDir(rel)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil // replaced by something else of this layer
	}
	if err != nil {
		return err
	}
	name := opaqueXattr
	if !x.owner {
		name = opaqueUserXattr
	}
	return sys.Fsetxattr(dir, name, []byte("y"))
}

// entryMeta reads an entry's metadata.
func entryMeta(e entry) (meta, error) {
	m := meta{mode: e.stat.Mode & 0o7777, uid: e.stat.UID, gid: e.stat.GID, atime: e.stat.Atime, mtime: e.stat.Mtime}
	if typ := e.stat.Type(); typ == sys.S_IFDIR || typ == sys.S_IFREG {
		var err error
		if m.xattrs, err = xattrs(e); err != nil {
			return meta{}, err
		}
	}
	return m, nil
}

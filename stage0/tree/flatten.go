package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/store"
)

// flatNode is a file of a root file system that is put together in memory from
// the headers of archives. Hard links are several names of one node.
type flatNode struct {
	typ          byte // of tar: TypeReg, TypeDir, TypeSymlink, TypeFifo, TypeChar, TypeBlock
	layer        int  // the layer that has the file itself
	meta         meta
	target       string // of a symbolic link
	major, minor int64
	// A regular file's content is that of entry number entry of archive source.
	source, entry int
	size          int64
	children      map[string]*flatNode
	opaque        bool // hides what lower layers have in the directory

	names []string // where it was written, when it is
}

func (n *flatNode) isDir() bool { return n.typ == tar.TypeDir }

func newFlatDir(layer int, m meta) *flatNode {
	return &flatNode{typ: tar.TypeDir, layer: layer, meta: m, children: map[string]*flatNode{}}
}

// at finds what is at rel, going through directories alone.
func (n *flatNode) at(rel string) *flatNode {
	if rel == "" || rel == "." {
		return n
	}
	for part := range strings.SplitSeq(rel, "/") {
		if n == nil || !n.isDir() {
			return nil
		}
		n = n.children[part]
	}
	return n
}

// flatReader turns tar entries into nodes under the rules for extraction.
type flatReader struct {
	x      *extractor // for its checks of metadata alone
	limits Limits
	source int // the archive that is read
	layer  int
	n      int // entries of it so far
}

func newFlatReader(l Limits) *flatReader {
	return &flatReader{x: &extractor{limits: l}, limits: l}
}

// next counts an entry.
func (r *flatReader) next() error {
	r.n++
	if r.x.entries++; r.x.entries > r.limits.Entries {
		return fmt.Errorf("more than %d entries", r.limits.Entries)
	}
	return nil
}

// put puts the entry counted last into dir, over whatever has the name.
func (r *flatReader) put(dir *flatNode, name string, h *tar.Header) error {
	m, err := r.x.meta(h)
	if err != nil {
		return err
	}
	n := &flatNode{typ: h.Typeflag, layer: r.layer, meta: m, source: r.source, entry: r.n - 1}
	switch h.Typeflag {
	case tar.TypeDir:
		if have := dir.children[name]; have != nil && have.isDir() {
			have.meta = m
			return nil
		}
		n.children = map[string]*flatNode{}
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		n.typ, n.size = tar.TypeReg, h.Size
		if r.x.bytes += h.Size; h.Size < 0 || r.x.bytes > r.limits.Bytes {
			return fmt.Errorf("more than %d bytes in all", r.limits.Bytes)
		}
	case tar.TypeSymlink:
		if n.target = h.Linkname; n.target == "" || strings.ContainsRune(n.target, 0) {
			return fmt.Errorf("bad symbolic link to %q", n.target)
		}
	case tar.TypeChar, tar.TypeBlock:
		n.major, n.minor = h.Devmajor, h.Devminor
		if n.major < 0 || n.major >= 1<<12 || n.minor < 0 || n.minor >= 1<<20 || h.Typeflag == tar.TypeChar && n.major == 0 && n.minor == 0 {
			return fmt.Errorf("device %d:%d is out of range", n.major, n.minor)
		}
	case tar.TypeFifo:
	default:
		return fmt.Errorf("unknown type %q", h.Typeflag)
	}
	dir.children[name] = n
	return nil
}

// flatLayer is one layer on its way over the merged lower ones. It is what
// layerExtractor is on a disk.
type flatLayer struct {
	*flatReader
	lower             *flatNode // nil below the lowest layer
	own               *flatNode
	whiteouts, opaque map[string]bool
	implied           map[*flatNode]bool
	followed          map[string]bool
	copied            map[string]*flatNode // lower files that links need
}

func newFlatLayer(r *flatReader, lower *flatNode) *flatLayer {
	l := &flatLayer{flatReader: r, lower: lower, whiteouts: map[string]bool{}, opaque: map[string]bool{}}
	l.restart()
	return l
}

// restart forgets all but what the layer takes away.
func (l *flatLayer) restart() {
	m := defaultDir()
	if l.lower != nil {
		m = l.lower.meta
	}
	l.n = 0
	l.own = newFlatDir(l.layer, m)
	l.implied, l.followed, l.copied = map[*flatNode]bool{}, map[string]bool{}, map[string]*flatNode{}
}

func (l *flatLayer) lowerAt(rel string) *flatNode {
	if l.lower == nil {
		return nil
	}
	return l.lower.at(rel)
}

func (l *flatLayer) hidden(rel string) bool {
	if l.whiteouts[rel] {
		return true
	}
	for rel != "" {
		if rel = parentOf(rel); l.opaque[rel] || l.whiteouts[rel] {
			return true
		}
	}
	return false
}

// Entry takes one entry; it is a store.LayerVisitor.
func (l *flatLayer) Entry(h *tar.Header, _ io.Reader) error {
	if err := l.next(); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := store.CleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is not a directory")
		}
		l.own.meta, err = l.x.meta(h)
		return err
	}
	base := path.Base(name)
	target, whiteout := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case base == opaqueMarker:
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	case whiteout && (target == "" || target == "." || target == ".."):
		return fmt.Errorf("a whiteout of %q", target)
	}
	dir, real, err := l.dir(path.Dir(name))
	if err != nil {
		return err
	}
	switch {
	case base == opaqueMarker:
		l.opaque[real] = true
		return nil
	case whiteout:
		l.whiteouts[path.Join(real, target)] = true
		return nil
	}
	delete(l.copied, path.Join(real, base))
	if h.Typeflag == tar.TypeLink {
		return l.link(dir, path.Join(real, base), h.Linkname)
	}
	if err := l.put(dir, base, h); err != nil {
		return err
	}
	delete(l.implied, dir.children[base])
	return nil
}

// dir finds the directory that a path leads to, over links of this layer and
// of lower ones, making what is missing.
func (l *flatLayer) dir(rel string) (*flatNode, string, error) {
	n, real, links := l.own, "", 0
	for todo := strings.Split(rel, "/"); len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			real = parentOf(real)
			n = l.own.at(real)
			continue
		}
		at := path.Join(real, part)
		// A look at lower layers goes down from the root.
		if l.x.work += len(at); l.x.work > maxWork {
			return nil, "", errors.New("finding directories takes too long: the paths are too deep")
		}
		child, target := n.children[part], ""
		if child == nil {
			if low := l.lowerAt(at); low != nil && low.typ == tar.TypeSymlink && !l.hidden(at) {
				l.followed[at] = true
				target = low.target
			}
		} else if child.typ == tar.TypeSymlink {
			target = child.target
		}
		if target == "" {
			if child == nil || !child.isDir() {
				child = newFlatDir(l.layer, l.lowerMeta(at))
				n.children[part] = child
				l.implied[child] = true
			}
			n, real = child, at
			continue
		}
		if links++; links > maxLinks || len(todo) > 1024 {
			return nil, "", fmt.Errorf("%q leads through more than %d symbolic links", rel, maxLinks)
		}
		todo = append(strings.Split(target, "/"), todo...)
		if strings.HasPrefix(target, "/") {
			n, real = l.own, ""
		}
	}
	return n, real, nil
}

// lowerMeta is the metadata of a lower directory that the layer does not hide.
func (l *flatLayer) lowerMeta(rel string) meta {
	if low := l.lowerAt(rel); low != nil && low.isDir() && !l.hidden(rel) {
		return low.meta
	}
	return defaultDir()
}

// link makes a hard link. A file of a lower layer is brought up first: links to
// it that lower layers have stay what they are, as with overlayfs.
func (l *flatLayer) link(dir *flatNode, rel, linkname string) error {
	target, err := store.CleanName(linkname)
	if err != nil || target == "" {
		return fmt.Errorf("bad hard link to %.200q", linkname)
	}
	from, parent, err := l.dir(path.Dir(target))
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	name := path.Base(target)
	if target = path.Join(parent, name); target == rel {
		return errors.New("a hard link to itself")
	}
	n := from.children[name]
	if n == nil {
		low := l.lowerAt(target)
		if low == nil {
			return fmt.Errorf("hard link to %q, which does not exist", target)
		}
		if low.isDir() {
			return fmt.Errorf("hard link to %q, a directory", target)
		}
		up := *low
		up.layer = l.layer
		n = &up
		from.children[name] = n
		l.copied[target] = n
	}
	if n.isDir() {
		return fmt.Errorf("hard link to %q, a directory", target)
	}
	if strings.HasPrefix(target, rel+"/") {
		return fmt.Errorf("hard link to %q in the place of its directory", target)
	}
	dir.children[path.Base(rel)] = n
	return nil
}

// finish lays the layer over the lower ones.
func (l *flatLayer) finish() (*flatNode, error) {
	for p := range l.followed {
		if l.hidden(p) {
			return nil, errLateWhiteout
		}
	}
	l.resetImplied(l.own, "")
	if l.lower == nil {
		return l.own, nil
	}
	for _, rel := range slices.Sorted(maps.Keys(l.whiteouts)) {
		parent := l.own.at(parentOf(rel))
		if parent == nil || !parent.isDir() {
			continue // something of this layer hides all of it
		}
		name := path.Base(rel)
		n := parent.children[name]
		if n != nil && n.isDir() {
			n.opaque = true
			continue
		}
		if n != nil && l.copied[rel] != n {
			continue
		}
		delete(parent.children, name)
		if low := l.lowerAt(parentOf(rel)); low != nil && low.isDir() {
			delete(low.children, name)
		}
	}
	for rel := range l.opaque {
		if n := l.own.at(rel); n != nil && n.isDir() {
			n.opaque = true
		}
	}
	return merge(l.lower, l.own), nil
}

// resetImplied gives directories that the layer only goes through default
// metadata where it hides those of lower layers.
func (l *flatLayer) resetImplied(n *flatNode, rel string) {
	for name, c := range n.children {
		if !c.isDir() {
			continue
		}
		at := path.Join(rel, name)
		if l.implied[c] && l.hidden(at) {
			c.meta = defaultDir()
		}
		l.resetImplied(c, at)
	}
}

// merge lays a directory over a lower one, which is not used any more.
func merge(lower, upper *flatNode) *flatNode {
	if upper.opaque {
		return upper
	}
	for name, u := range upper.children {
		if low := lower.children[name]; low != nil && low.isDir() && u.isDir() {
			u = merge(low, u)
		}
		lower.children[name] = u
	}
	upper.children = lower.children
	return upper
}

// flatACI takes the entries of ACIs one over the other, as extraction does.
type flatACI struct {
	*flatReader
	root *flatNode
}

// dir finds a directory, making what is missing and replacing what is none.
func (a *flatACI) dir(rel string) *flatNode {
	n := a.root
	if rel == "." {
		return n
	}
	for part := range strings.SplitSeq(rel, "/") {
		c := n.children[part]
		if c == nil || !c.isDir() {
			c = newFlatDir(0, defaultDir())
			n.children[part] = c
		}
		n = c
	}
	return n
}

// entry takes one entry; rel is as extractor.aci has it.
func (a *flatACI) entry(rel string, h *tar.Header, lists []*whitelist, alias map[string]string) error {
	if err := a.next(); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		target, err := linkTarget(h)
		if err != nil {
			return err
		}
		if to, ok := alias[target]; ok {
			if to == rel {
				return nil
			}
			target = to
		}
		if !allows(lists, rel, false) {
			return nil
		}
		return a.link(rel, target)
	}
	if !allows(lists, rel, h.Typeflag == tar.TypeDir) {
		if rel = alias[rel]; rel == "" {
			return nil
		}
	}
	if rel == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("rootfs is not a directory")
		}
		m, err := a.x.meta(h)
		a.root.meta = m
		return err
	}
	return a.put(a.dir(path.Dir(rel)), path.Base(rel), h)
}

func (a *flatACI) link(rel, target string) error {
	if rel == "" || rel == target {
		return fmt.Errorf("bad hard link to %q", target)
	}
	n := a.root.at(target)
	if n == nil || n.isDir() || strings.HasPrefix(target, rel+"/") {
		return fmt.Errorf("hard link to %q, which is no file", target)
	}
	a.dir(path.Dir(rel)).children[path.Base(rel)] = n
	return nil
}

// header describes a node; rel is where it is.
func (n *flatNode) header(rel string) *tar.Header {
	h := &tar.Header{
		Name: rel, Typeflag: n.typ, Mode: int64(n.meta.mode), Uid: int(n.meta.uid), Gid: int(n.meta.gid), ModTime: n.meta.mtime,
		Linkname: n.target, Devmajor: n.major, Devminor: n.minor, Size: n.size, Format: tar.FormatPAX,
	}
	for k, v := range n.meta.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	return h
}

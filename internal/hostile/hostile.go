// Package hostile makes archives that mean harm, or look as if they did: image
// layers and App Container images for tests of whatever unpacks them. It is for
// tests only.
//
// A case tells what has to become of it: most are refused, others are unpacked
// into nothing but what List shows. None may touch anything outside the target,
// whose place the caller tells as the decoy directory that links lead to.
//
// Exported:
//
//	Cases(decoy string) []Case
//	Case{Name, Kind, Layers, Want, List, Heavy, Disk}; Kind: ACI, Layers
//	Roots(decoy string) []Root: root file systems; Strings() []string; Marks, Fill, JSONText: templates to put strings into
//	Layer{Data, Plain, Digest, DiffID, Extra}; Want: Refused, Harmless, Bounded
package hostile

import (
	"strings"
)

// Kind is what the archives of a case are.
type Kind int

// Kinds of cases.
const (
	ACI    Kind = iota // one App Container image
	Layers             // the layers of an OCI image, lowest first
)

// Want is what has to become of a case.
type Want int

// What becomes of cases.
const (
	Refused  Want = iota
	Harmless      // unpacked, into what List shows if that is not nil
	Bounded       // either: it depends on the user or the file system
)

// Case is one attack.
type Case struct {
	Name   string
	Kind   Kind
	Layers []Layer
	Want   Want
	// List shows the merged tree, sorted: "/", "d/", "f = content", "l -> target",
	// and the bare name for what is something else. Nil: whatever it is.
	List []string
	// Heavy cases take much time; once is enough. Disk says that the file system
	// matters.
	Heavy, Disk bool
}

// Layer is one archive.
type Layer struct {
	Data  func() []byte // as it comes
	Plain func() []byte // uncompressed; nil if Data is
	// Digest, DiffID and Extra, which is added to the size, are lies about it.
	Digest, DiffID string
	Extra          int64
}

// Cases makes all cases. The files that links lead to are below decoy, an
// absolute path.
func Cases(decoy string) []Case {
	c := &corpus{decoy: decoy}
	for _, add := range []func(){c.names, c.links, c.stacks, c.whiteouts, c.attributes, c.owners, c.devices, c.sparse} {
		add()
	}
	for i := range c.cases {
		c.cases[i].Disk = true
	}
	for _, add := range []func(){c.headers, c.numbers, c.pax, c.truncated, c.compressed, c.bombs, c.lies, c.manifests, c.masses} {
		add()
	}
	for i, cs := range c.cases {
		_, name, _ := strings.Cut(cs.Name, "/")
		switch name {
		case "path of 4090", "path of 4096", "2000 levels", "long links in a row", "link of 4095 gone through", "many sparse files":
			c.cases[i].Heavy = true
		}
	}
	return c.cases
}

type corpus struct {
	decoy string
	cases []Case
}

func (c *corpus) add(cs Case) { c.cases = append(c.cases, cs) }

// manifest is that of every App Container image here.
const manifest = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/hostile","labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]}`

// image puts entries below rootfs between what an App Container image needs.
func image(entries func(b *builder, top string)) []byte {
	b := &builder{}
	b.dir("rootfs")
	entries(b, "rootfs/")
	b.file("manifest", manifest)
	return b.end()
}

func layer(entries func(b *builder, top string)) []byte {
	b := &builder{}
	entries(b, "")
	return b.end()
}

func plain(data []byte) Layer { return Layer{Data: func() []byte { return data }} }

// notHere as a wish means that there is no such case.
const notHere = "-"

// wish turns "!" into Refused, "?" into Bounded, "" into Harmless, and what
// else there is into a listing.
func wish(text, decoy string) (Want, []string) {
	switch text {
	case "!":
		return Refused, nil
	case "?":
		return Bounded, nil
	case "":
		return Harmless, nil
	}
	out := []string{"/"}
	for f := range strings.FieldsSeq(text) {
		if f == "/" {
			continue
		}
		f = strings.ReplaceAll(f, "$C", decoy)
		if name, target, ok := strings.Cut(f, "->"); ok {
			f = name + " -> " + target
		} else if name, data, ok := strings.Cut(f, "="); ok {
			f = name + " = " + data
		}
		out = append(out, f)
	}
	return Harmless, out
}

// both adds entries as a layer and as an image, with a wish for each.
func (c *corpus) both(name, layerWish, imageWish string, entries func(b *builder, top string)) {
	if layerWish != notHere {
		w, list := wish(layerWish, c.decoy)
		c.add(Case{Name: "layer/" + name, Kind: Layers, Layers: []Layer{plain(layer(entries))}, Want: w, List: list})
	}
	if imageWish != notHere {
		w, list := wish(imageWish, c.decoy)
		c.add(Case{Name: "aci/" + name, Kind: ACI, Layers: []Layer{plain(image(entries))}, Want: w, List: list})
	}
}

// lines is both for entries given as text: "a/" a directory, "a=x" a file,
// "a->b" a symbolic link, "a=>b" a hard link; "$C" is the decoy.
func (c *corpus) lines(name, text, layerWish, imageWish string) {
	c.both(name, layerWish, imageWish, func(b *builder, top string) { b.lines(text, top, c.decoy) })
}

// stack adds an image of several layers given as lines.
func (c *corpus) stack(name, wanted string, layers ...string) {
	w, list := wish(wanted, c.decoy)
	cs := Case{Name: "stack/" + name, Kind: Layers, Want: w, List: list}
	for i, l := range layers {
		cs.Layers = append(cs.Layers, plain(layer(func(b *builder, top string) {
			b.mtime = int64(i) // no two layers are the same
			b.lines(l, top, c.decoy)
		})))
	}
	c.add(cs)
}

func (b *builder) lines(text, top, decoy string) {
	for f := range strings.FieldsSeq(text) {
		f = strings.ReplaceAll(f, "$C", decoy)
		if name, target, ok := strings.Cut(f, "=>"); ok {
			b.hard(top+name, top+target)
		} else if name, target, ok := strings.Cut(f, "->"); ok {
			b.sym(top+name, target)
		} else if name, data, ok := strings.Cut(f, "="); ok {
			b.file(top+name, data)
		} else {
			b.dir(top + f)
		}
	}
}

// repeat is a text of n numbered parts.
func repeat(n int, format string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(format, "#", itoa(i)) + " ")
	}
	return b.String()
}

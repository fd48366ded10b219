package hostile

import (
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
)

func crc32sum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

const noDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// lies are layers that are not what they are said to be.
func (c *corpus) lies() {
	data := layer(func(b *builder, _ string) { b.file("x", "1") })
	base := layer(func(b *builder, _ string) { b.file("base", "1") })
	zipped := func() []byte { return gzipped(data) }
	get := func() []byte { return data }
	for _, l := range []struct {
		name string
		l    Layer
	}{
		{"digest", Layer{Data: get, Digest: noDigest}},
		{"diff ID", Layer{Data: get, DiffID: noDigest}},
		{"size, one less", Layer{Data: get, Extra: -1}},
		{"size, one more", Layer{Data: get, Extra: 1}},
		{"size, huge", Layer{Data: get, Extra: 1 << 60}},
		{"digest, compressed", Layer{Data: zipped, Plain: get, Digest: noDigest}},
		{"diff ID, compressed", Layer{Data: zipped, Plain: get, DiffID: noDigest}},
		{"diff ID is the digest", Layer{Data: zipped}},
		{"size, compressed", Layer{Data: zipped, Plain: get, Extra: -8}},
	} {
		c.add(Case{Name: "lie/" + l.name, Kind: Layers, Want: Refused, Layers: []Layer{l.l}})
		c.add(Case{Name: "lie/second layer, " + l.name, Kind: Layers, Want: Refused, Layers: []Layer{plain(base), l.l}})
	}
	c.add(Case{Name: "layer/no bytes", Kind: Layers, Want: Refused, Layers: []Layer{plain(nil)}})
	c.add(Case{Name: "layer/nothing but an end", Kind: Layers, Want: Harmless, List: []string{"/"}, Layers: []Layer{plain(make([]byte, 1024))}})
	c.add(Case{Name: "aci/no bytes", Kind: ACI, Want: Refused, Layers: []Layer{plain(nil)}})
}

// manifests are App Container images without a proper manifest or rootfs.
func (c *corpus) manifests() {
	aci := func(name, wanted string, entries func(b *builder)) {
		w, list := wish(wanted, c.decoy)
		b := &builder{}
		entries(b)
		c.add(Case{Name: "image/" + name, Kind: ACI, Want: w, List: list, Layers: []Layer{plain(b.end())}})
	}
	rootfs := func(b *builder) { b.dir("rootfs") }
	aci("good", "a=1", func(b *builder) { rootfs(b); b.file("rootfs/a", "1"); b.file("manifest", manifest) })
	aci("manifest first", "a=1", func(b *builder) { b.file("manifest", manifest); rootfs(b); b.file("rootfs/a", "1") })
	aci("dots", "a=1", func(b *builder) {
		b.dir("./")
		b.file("./manifest", manifest)
		b.dir("./rootfs/")
		b.file("./rootfs/a", "1")
	})
	aci("no manifest", "!", rootfs)
	aci("no rootfs", "!", func(b *builder) { b.file("manifest", manifest) })
	aci("no rootfs, but below it", "!", func(b *builder) { b.file("manifest", manifest); b.file("rootfs/a", "1") })
	aci("two manifests", "!", func(b *builder) { rootfs(b); b.file("manifest", manifest); b.file("manifest", manifest) })
	aci("two manifests, by another name", "!", func(b *builder) { rootfs(b); b.file("manifest", manifest); b.file("./manifest", manifest) })
	aci("two rootfs", "!", func(b *builder) { rootfs(b); rootfs(b); b.file("manifest", manifest) })
	aci("huge manifest", "!", func(b *builder) { rootfs(b); b.file("manifest", strings.Repeat(" ", 20<<20)+manifest) })
	aci("deep manifest", "!", func(b *builder) { rootfs(b); b.file("manifest", strings.Repeat("[", 1<<20)) })
	aci("deep annotations", "!", func(b *builder) {
		rootfs(b)
		b.file("manifest", strings.TrimSuffix(manifest, "}")+`,"x":`+strings.Repeat(`{"a":`, 100000)+"1"+strings.Repeat("}", 100001))
	})
	aci("empty manifest", "!", func(b *builder) { rootfs(b); b.file("manifest", "") })
	aci("manifest of garbage", "!", func(b *builder) { rootfs(b); b.file("manifest", "\x00\x01\x02") })
	aci("manifest as a link", "!", func(b *builder) { rootfs(b); b.sym("manifest", c.decoy+"/manifest") })
	aci("manifest as a hard link", "!", func(b *builder) { rootfs(b); b.file("rootfs/m", manifest); b.hard("manifest", "rootfs/m") })
	aci("manifest as a directory", "!", func(b *builder) { rootfs(b); b.dir("manifest"); b.file("manifest/x", "1") })
	aci("manifest as a FIFO", "!", func(b *builder) { rootfs(b); b.put(header{name: "manifest", typ: '6'}) })
	aci("manifest as a sparse file", "!", func(b *builder) {
		rootfs(b)
		b.put(header{name: "manifest", body: []byte("1"), records: []string{"GNU.sparse.size=549755813888", "GNU.sparse.numblocks=1", "GNU.sparse.map=5,1"}})
	})
	aci("manifest below rootfs alone", "!", func(b *builder) { rootfs(b); b.file("rootfs/manifest", manifest) })
	aci("rootfs as a link", "!", func(b *builder) { b.sym("rootfs", c.decoy); b.file("rootfs/secret", "x"); b.file("manifest", manifest) })
	aci("rootfs as a file", "!", func(b *builder) { b.file("rootfs", "x"); b.file("manifest", manifest) })
	aci("rootfs as a hard link", "!", func(b *builder) { b.file("manifest", manifest); b.hard("rootfs", "manifest") })
	aci("rootfs later", "a=1", func(b *builder) { b.file("rootfs/a", "1"); rootfs(b); b.file("manifest", manifest) })
	aci("rootfs replaced", "!", func(b *builder) { rootfs(b); b.sym("rootfs", c.decoy); b.file("manifest", manifest) })
	aci("more than there should be", "!", func(b *builder) { rootfs(b); b.file("manifest", manifest); b.file("more", "1") })
	aci("beside rootfs", "!", func(b *builder) { rootfs(b); b.file("manifest", manifest); b.file("rootfs2/a", "1") })
	aci("out of rootfs", "!", func(b *builder) { rootfs(b); b.file("manifest", manifest); b.file("rootfs/../x", "1") })
	aci("rootfs in capitals", "!", func(b *builder) { b.dir("Rootfs"); b.file("manifest", manifest) })
	aci("hard link to the manifest", "!", func(b *builder) { rootfs(b); b.file("manifest", manifest); b.hard("rootfs/m", "manifest") })
	aci("hard link to rootfs", "!", func(b *builder) { rootfs(b); b.file("manifest", manifest); b.hard("rootfs/m", "rootfs") })
	aci("reserved annotation", "!", func(b *builder) {
		rootfs(b)
		b.file("manifest", strings.TrimSuffix(manifest, "}")+`,"annotations":[{"name":"`+appc.LayersAnnotation+`","value":"{}"}]}`)
	})
}

// masses are archives with too much of something.
func (c *corpus) masses() {
	heavy := func(name, layerWish, imageWish string, entries func(b *builder, top string)) {
		w, _ := wish(layerWish, c.decoy)
		if layerWish != notHere {
			c.add(Case{Name: "layer/" + name, Kind: Layers, Heavy: true, Want: w, Layers: []Layer{{
				Data: func() []byte { return gzipped(layer(entries)) }, Plain: func() []byte { return layer(entries) },
			}}})
		}
		if imageWish != notHere {
			w, _ = wish(imageWish, c.decoy)
			c.add(Case{Name: "aci/" + name, Kind: ACI, Heavy: true, Want: w, Layers: []Layer{{Data: func() []byte { return gzipped(image(entries)) }}}})
		}
	}
	c.both("2000 levels", "?", "?", func(b *builder, top string) { b.file(top+strings.Repeat("a/", 1999)+"x", "1") })
	heavy("2000 levels by turns", "?", notHere, func(b *builder, top string) {
		for i := range 600 {
			b.file(fmt.Sprintf("%s%s%sx%d", top, []string{"a/", "b/"}[i%2], strings.Repeat("a/", 1900), i), "1")
		}
	})
	heavy("200000 entries", "", notHere, func(b *builder, top string) {
		for i := range 200000 {
			b.file(fmt.Sprintf("%sd%d/f%d", top, i/1000, i), "")
		}
	})
	heavy("same name 10000 times", "", "!", func(b *builder, top string) {
		for i := range 10000 {
			b.file(top+"x", itoa(i))
		}
	})
	heavy("directory and file by turns", "", "!", func(b *builder, top string) {
		for range 10000 {
			b.lines("x/ x=1", top, "")
		}
	})
	heavy("directory and file by turns, beside many", "?", "!", func(b *builder, top string) {
		for i := range 30000 {
			b.dir(fmt.Sprintf("%sd%d", top, i))
		}
		for range 10000 {
			b.lines("x/ x/y=1 x=1", top, "")
		}
	})
	heavy("30000 directories with long names", "!", "!", func(b *builder, top string) {
		for i := range 30000 {
			b.dir(fmt.Sprintf("%sd%d%s/%s/%s/%s", top, i, strings.Repeat("x", 240), long(250), long(250), long(250)))
		}
	})
	heavy("directories with large attributes", "!", "!", func(b *builder, top string) {
		for i := range 2000 {
			b.put(header{name: fmt.Sprintf("%sd%d", top, i), typ: '5', mode: 0o755, records: []string{xattr + "user.x=" + strings.Repeat("v", 3000), xattr + "user.y=" + strings.Repeat("v", 30000)}})
		}
	})
	heavy("whiteouts with long names", "!", notHere, func(b *builder, top string) {
		for i := range 70000 {
			b.file(fmt.Sprintf("%s/%s/%s/.wh.%d", long(250), long(250), long(250), i), "")
		}
	})
	heavy("20000 hard links", "", "", func(b *builder, top string) {
		b.file(top+"a", "1")
		for i := range 20000 {
			b.hard(fmt.Sprintf("%sh%d", top, i), top+"a")
		}
	})
	heavy("70000 hard links", "?", notHere, func(b *builder, top string) {
		b.file(top+"a", "1")
		for i := range 70000 {
			b.hard(fmt.Sprintf("%sh%d", top, i), top+"a")
		}
	})
	heavy("large records", "?", "?", func(b *builder, top string) {
		for i := range 30 {
			b.put(header{name: fmt.Sprintf("%sf%d", top, i), records: []string{"comment=" + strings.Repeat("c", 1000000)}})
		}
	})
	heavy("record too large", "!", "!", func(b *builder, top string) {
		b.put(header{name: top + "f", records: []string{"comment=" + strings.Repeat("c", 4<<20)}})
	})
	heavy("GNU long name too large", "!", "!", func(b *builder, top string) {
		b.put(header{name: "././@LongLink", typ: 'L', body: []byte(strings.Repeat("c", 4<<20))})
		b.file(top+"x", "1")
	})
	heavy("links gone through by turns", "?", notHere, func(b *builder, top string) {
		for i := range 39 {
			b.sym(fmt.Sprintf("%sl%d", top, i), fmt.Sprintf("l%d", i+1))
		}
		b.dir(top + "l39")
		for i := range 8000 {
			b.file(fmt.Sprintf("%sl0/d%d/x", top, i), "")
		}
	})
}

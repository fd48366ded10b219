package hostile

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// one writes a single file x whose header a function changes.
func one(change func(h *header, top string)) func(b *builder, top string) {
	return func(b *builder, top string) {
		h := header{name: top + "x", mode: 0o644, body: []byte("1")}
		change(&h, top)
		b.put(h)
	}
}

// headers are blocks that are no proper headers.
func (c *corpus) headers() {
	after := func(f func(h []byte)) func(b *builder, top string) {
		return one(func(h *header, _ string) { h.after = f })
	}
	before := func(f func(h []byte)) func(b *builder, top string) {
		return one(func(h *header, _ string) { h.before = f })
	}
	c.both("bad checksum", "!", "!", after(func(h []byte) { h[0]++ }))
	c.both("no checksum", "!", "!", after(func(h []byte) { clear(h[148:156]) }))
	c.both("checksum of letters", "!", "!", after(func(h []byte) { copy(h[148:], "abcdefgh") }))
	c.both("signed checksum", "?", "?", one(func(h *header, top string) {
		h.name = top + "\xff"
		h.after = func(b []byte) {
			copy(b[148:156], "        ")
			sum := 0
			for _, v := range b {
				sum += int(int8(v)) //nolint:gosec // as old programs did
			}
			copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
		}
	}))
	c.both("size of letters", "!", "!", before(func(h []byte) { copy(h[124:], "12345abc") }))
	c.both("mode of letters", "?", "?", before(func(h []byte) { copy(h[100:], "rwxrwxr\x00") }))
	c.both("owner of letters", "?", "?", before(func(h []byte) { copy(h[108:], "nobody\x00\x00") }))
	c.both("time of letters", "?", "?", before(func(h []byte) { copy(h[136:], "yesterday\x00\x00\x00") }))
	c.both("other magic", "x=1", "x=1", before(func(h []byte) { copy(h[257:], "USTAR\x0099") }))
	c.both("GNU magic", "x=1", "x=1", before(func(h []byte) { copy(h[257:], "ustar  \x00") }))
	c.both("star magic", "?", "?", before(func(h []byte) { copy(h[508:], "tar\x00") }))
	c.both("user names of control characters", "x=1", "x=1", before(func(h []byte) { copy(h[265:], strings.Repeat("\x1b", 32)) }))
	c.both("user names of others", "x=1", "x=1", before(func(h []byte) { copy(h[265:], "root") }))
	for _, typ := range []byte("346789ABEFIMNOQRTUVWYZabcz!\x80\xff") {
		if typ == '3' || typ == '4' || typ == '6' {
			continue
		}
		wanted := "!"
		if typ == '7' {
			wanted = "x=1"
		}
		c.both(fmt.Sprintf("type %#02x", typ), wanted, wanted, one(func(h *header, _ string) { h.typ = typ }))
	}
	// Records for what comes next.
	for _, r := range []struct {
		name, layer, image string
		typ                byte
		body               string
	}{
		{"GNU long name up", "!", "!", 'L', "%s../../x\x00"},
		{"GNU long name", "n/ n/y=1", "n/ n/y=1", 'L', "%sn/y\x00"},
		{"GNU long name without its end", "y=1", "y=1", 'L', "%sy"},
		{"GNU long name with a NUL within", "y=1", "y=1", 'L', "%sy\x00/../../z\x00"},
		{"GNU long name of nothing", "?", "?", 'L', ""},
		{"GNU long link on a file", "x=1", "x=1", 'K', "../../x\x00"},
		{"PAX of nothing", "x=1", "x=1", 'x', ""},
		{"PAX of garbage", "!", "!", 'x', "garbage"},
		{"PAX of zeros", "!", "!", 'x', "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"PAX with a length of nothing", "!", "!", 'x', "0 path=y\n"},
		{"PAX with a negative length", "!", "!", 'x', "-9 path=y\n"},
		{"PAX with too great a length", "!", "!", 'x', "99 path=y\n"},
		{"PAX with too small a length", "!", "!", 'x', "5 path=y\n"},
		{"PAX with a huge length", "!", "!", 'x', "99999999999999999999 path=y\n"},
		{"PAX without a line's end", "!", "!", 'x', "9 path=yy"},
		{"PAX without a value", "!", "!", 'x', "7 path\n"},
		{"PAX without a key", "!", "!", 'x', "5 =y\n"},
		{"global PAX", "x=1", "x=1", 'g', "10 path=y\n"},
		{"global PAX of garbage", "!", "!", 'g', "garbage"},
	} {
		c.both(r.name, r.layer, r.image, func(b *builder, top string) {
			body := r.body
			if strings.Contains(body, "%s") {
				body = fmt.Sprintf(body, top)
			}
			b.put(header{name: "././@LongLink", typ: r.typ, body: []byte(body)})
			b.file(top+"x", "1")
		})
	}
	c.both("GNU long link to the decoy", "", "l/ l/x=1", func(b *builder, top string) {
		b.put(header{name: "././@LongLink", typ: 'K', body: []byte(c.decoy + "\x00")})
		b.sym(top+"l", "here")
		b.file(top+"l/x", "1")
	})
	c.both("GNU long link up, hard", "!", "!", func(b *builder, top string) {
		b.file(top+"a", "1")
		b.put(header{name: "././@LongLink", typ: 'K', body: []byte("../../../canary/secret\x00")})
		b.hard(top+"h", top+"a")
	})
	c.both("records of records", "?", "?", func(b *builder, top string) {
		for range 200 {
			b.put(header{name: "././@LongLink", typ: 'L', body: []byte(top + "y\x00")})
			b.put(header{name: "x", typ: 'x', body: records("path=" + top + "z")})
		}
		b.file(top+"x", "1")
	})
	c.both("records and then nothing", "?", "!", func(b *builder, top string) {
		b.put(header{name: "x", typ: 'x', body: records("path=" + top + "z")})
		b.buf.Write(make([]byte, 2*block))
	})
	c.both("10000 global records", "x=1", "x=1", func(b *builder, top string) {
		for range 10000 {
			b.put(header{name: "x", typ: 'g', body: records("comment=y")})
		}
		b.file(top+"x", "1")
	})
	c.both("second archive behind the end", "x=1", "!", func(b *builder, top string) {
		b.file(top+"x", "1")
		b.end()
		b.file(top+"../../y", "2")
	})
	c.both("garbage behind the end", "x=1", "!", func(b *builder, top string) {
		b.file(top+"x", "1")
		b.end()
		b.buf.WriteString(strings.Repeat("garbage", 100000))
	})
	c.both("one empty block within", "?", "?", func(b *builder, top string) {
		b.buf.Write(make([]byte, block))
		b.file(top+"x", "1")
	})
}

// numbers are fields with numbers that make no sense.
func (c *corpus) numbers() {
	size := func(v int64) func(b *builder, top string) {
		return one(func(h *header, _ string) { h.size = v })
	}
	c.both("negative size", "!", "!", size(-1))
	c.both("very negative size", "!", "!", size(math.MinInt64))
	c.both("size of 8 EiB", "!", "!", size(math.MaxInt64))
	c.both("size nearly 8 EiB", "!", "!", size(math.MaxInt64-511))
	c.both("size of 1 PiB", "!", "!", size(1<<50))
	c.both("size larger than the archive", "!", "!", size(100<<20))
	c.both("size beyond 64 bits", "!", "!", one(func(h *header, _ string) {
		h.before = func(b []byte) { copy(b[124:136], "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }
	}))
	c.both("negative size of a directory", "!", "!", one(func(h *header, _ string) { h.typ, h.size = '5', -512 }))
	c.both("huge size of a link", "?", "?", one(func(h *header, top string) { h.typ, h.size, h.link = '2', 1<<40, "y" }))
	c.both("huge size of a hard link", "?", "?", one(func(h *header, top string) { h.typ, h.size, h.link = '1', 1<<40, top+"y" }))
	for name, v := range map[string]int64{"largest": math.MaxInt64, "least": math.MinInt64, "negative": -1, "before 1901": -1 << 40, "year 9999999": 1 << 48} {
		c.both("time "+name, "x=1", "x=1", one(func(h *header, _ string) { h.mtime = v }))
	}
	c.both("mode of all bits", "x=1", "x=1", one(func(h *header, _ string) { h.mode = math.MaxInt64 }))
	c.both("negative mode", "x=1", "x=1", one(func(h *header, _ string) { h.mode = -1 }))
}

// pax are extended headers that say other things than the header.
func (c *corpus) pax() {
	for _, r := range []struct {
		name, layer, image string
		records            []string
	}{
		{"path up", "!", "!", []string{"path=$T../../x"}},
		{"path otherwise", "y=1", "y=1", []string{"path=$Ty"}},
		{"path of the decoy", "", "!", []string{"path=$C/secret"}},
		{"path twice, up last", "!", "!", []string{"path=$Ty", "path=../x"}},
		{"path twice, up first", "y=1", "y=1", []string{"path=../x", "path=$Ty"}},
		{"path empty", "x=1", "x=1", []string{"path="}},
		{"path with a NUL", "!", "!", []string{"path=$Ty\x00z"}},
		{"path of slashes", "!", "!", []string{"path=////"}},
		{"linkpath on a file", "x=1", "x=1", []string{"linkpath=../.."}},
		{"size negative", "!", "!", []string{"size=-1"}},
		{"size huge", "!", "!", []string{"size=9223372036854775807"}},
		{"size beyond 64 bits", "!", "!", []string{"size=99999999999999999999999"}},
		{"size of letters", "!", "!", []string{"size=many"}},
		{"size of zero", "?", "?", []string{"size=0"}},
		{"uid negative", "!", "!", []string{"uid=-1"}},
		{"uid of 2^32-1", "!", "!", []string{"uid=4294967295"}},
		{"uid of 2^32", "!", "!", []string{"uid=4294967296"}},
		{"uid of 2^63", "!", "!", []string{"uid=9223372036854775808"}},
		{"uid of 2^32-2", "x=1", "x=1", []string{"uid=4294967294"}},
		{"uid of letters", "!", "!", []string{"uid=root"}},
		{"gid negative", "!", "!", []string{"gid=-2"}},
		{"gid of 2^32-1", "!", "!", []string{"gid=4294967295"}},
		{"mtime not a number", "!", "!", []string{"mtime=NaN"}},
		{"mtime infinite", "!", "!", []string{"mtime=Inf"}},
		{"mtime with an exponent", "!", "!", []string{"mtime=1e9"}},
		{"mtime huge", "x=1", "x=1", []string{"mtime=9223372036854775807.999999999"}},
		{"mtime far before", "x=1", "x=1", []string{"mtime=-9223372036854775808.999999999"}},
		{"mtime beyond 64 bits", "!", "!", []string{"mtime=99999999999999999999"}},
		{"mtime with many digits", "x=1", "x=1", []string{"mtime=1." + strings.Repeat("9", 10000)}},
		{"mtime negative fraction", "x=1", "x=1", []string{"mtime=-1.5"}},
		{"atime absurd", "x=1", "x=1", []string{"atime=253402300800000"}},
		{"unknown keys", "x=1", "x=1", []string{"VENDOR.x=y", "comment=z", "hdrcharset=BINARY"}},
		{"charset", "x=1", "x=1", []string{"hdrcharset=ISO-IR 10646 2000 UTF-8"}},
		{"device by record", "x=1", "x=1", []string{"SCHILY.devmajor=8", "SCHILY.devminor=0"}},
		{"type by record", "x=1", "x=1", []string{"SCHILY.filetype=sparse", "SCHILY.realsize=10"}},
	} {
		c.both("PAX "+r.name, r.layer, r.image, one(func(h *header, top string) {
			for _, t := range r.records {
				h.records = append(h.records, strings.NewReplacer("$T", top, "$C", c.decoy).Replace(t))
			}
		}))
	}
	c.both("PAX linkpath to the decoy", "", "l/ l/secret=x", func(b *builder, top string) {
		b.put(header{name: top + "l", link: "here", typ: '2', records: []string{"linkpath=" + c.decoy}})
		b.file(top+"l/secret", "x")
	})
	c.both("PAX linkpath up, hard", "!", "!", func(b *builder, top string) {
		b.file(top+"a", "1")
		b.put(header{name: top + "h", link: top + "a", typ: '1', records: []string{"linkpath=../../../canary/secret"}})
	})
}

// truncated are archives that end in the middle of something.
func (c *corpus) truncated() {
	entries := func(b *builder, top string) {
		b.dir(top + "d")
		b.put(header{name: top + "d/" + long(120), mode: 0o644, body: bytes.Repeat([]byte("x"), 1300)})
		b.sym(top+"l", c.decoy)
	}
	for _, cut := range []struct {
		name         string
		at           int
		layer, image string
	}{
		{"before anything", 0, "!", "!"},
		{"after one byte", 1, "!", "!"},
		{"in the first header", 300, "!", "!"},
		{"in the extended header", 700, "!", "!"},
		{"in the extended header's content", 1100, "!", "!"},
		{"after the extended header", 1536, "?", "!"},
		{"in the file's header", 1800, "!", "!"},
		{"after the file's header", 2048, "!", "!"},
		{"in the file", 2500, "!", "!"},
		{"in the file's padding", 2048 + 1310, "?", "!"},
		{"after the file", 3584, "?", "!"},
		{"in the link", 3700, "!", "!"},
		{"before the end", 4096, "?", "!"},
		{"in the end", 4096 + 512, "?", "!"},
		{"in the end's second block", 4096 + 700, "?", "!"},
	} {
		l := layer(entries)
		w, _ := wish(cut.layer, "")
		c.add(Case{Name: "layer/cut " + cut.name, Kind: Layers, Want: w, Layers: []Layer{plain(l[:cut.at])}})
		a := image(entries)
		c.add(Case{Name: "aci/cut " + cut.name, Kind: ACI, Want: Refused, Layers: []Layer{plain(a[:cut.at])}})
	}
	c.both("file without padding", "!", "!", func(b *builder, top string) {
		b.put(header{name: top + "a", body: []byte("1"), noPad: true})
		b.file(top+"x", "1")
	})
}

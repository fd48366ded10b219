package hostile

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// sparse are files with holes.
func (c *corpus) sparse() {
	// The map of an old GNU header: offset and length, twelve digits each.
	old := func(real int64, spans ...int64) func(b *builder, top string) {
		return one(func(h *header, _ string) {
			h.typ, h.body = 'S', nil
			h.before = func(b []byte) {
				copy(b[257:], "ustar  \x00")
				for i, v := range spans {
					number(b[386+12*i:398+12*i], v)
				}
				number(b[483:495], real)
			}
		})
	}
	c.both("GNU sparse, nothing but a hole", "?", "?", old(1<<20, 1<<20, 0))
	c.both("GNU sparse, 8 EiB", "!", "!", old(1<<63-1, 1<<63-1, 0))
	c.both("GNU sparse, 1 PiB", "!", "!", old(1<<50, 1<<50, 0))
	c.both("GNU sparse, 512 GiB", "!", "!", old(1<<39, 1<<39, 0))
	c.both("GNU sparse, negative", "!", "!", old(-1, 0, 0))
	c.both("GNU sparse, negative span", "!", "!", old(100, -5, 10))
	c.both("GNU sparse, negative length", "!", "!", old(100, 5, -10))
	c.both("GNU sparse, overlapping", "!", "!", old(100, 0, 50, 20, 50))
	c.both("GNU sparse, backwards", "!", "!", old(100, 50, 10, 0, 10))
	c.both("GNU sparse, beyond its end", "!", "!", old(10, 50, 10))
	c.both("GNU sparse, more than there is", "!", "!", old(1000, 0, 1000))
	c.both("GNU sparse, map without an end", "!", "!", func(b *builder, top string) {
		b.put(header{name: top + "x", typ: 'S', before: func(h []byte) {
			copy(h[257:], "ustar  \x00")
			for i := range 4 {
				number(h[386+24*i:], int64(i))
				number(h[398+24*i:410+24*i], 0)
			}
			h[482] = 1
			number(h[483:495], 1000)
		}})
		blk := bytes.Repeat([]byte("00000000000\x00"), 43)[:block]
		blk[504] = 1
		for range 20000 {
			b.buf.Write(blk)
		}
	})
	for _, r := range []struct {
		name, want string
		body       string
		records    []string
	}{
		{"0.0", "?", "1", []string{"GNU.sparse.size=1000", "GNU.sparse.numblocks=1", "GNU.sparse.offset=5", "GNU.sparse.numbytes=1"}},
		{"0.0, 512 GiB", "!", "1", []string{"GNU.sparse.size=549755813888", "GNU.sparse.numblocks=1", "GNU.sparse.offset=5", "GNU.sparse.numbytes=1"}},
		{"0.0, many blocks", "?", "1", []string{"GNU.sparse.size=1000", "GNU.sparse.numblocks=9223372036854775807", "GNU.sparse.offset=5", "GNU.sparse.numbytes=1"}},
		{"0.0, number without an offset", "!", "1", []string{"GNU.sparse.size=1000", "GNU.sparse.numblocks=1", "GNU.sparse.numbytes=1"}},
		{"0.1", "?", "1", []string{"GNU.sparse.size=1000", "GNU.sparse.numblocks=1", "GNU.sparse.map=5,1"}},
		{"0.1, 512 GiB", "!", "1", []string{"GNU.sparse.size=549755813888", "GNU.sparse.numblocks=1", "GNU.sparse.map=5,1"}},
		{"0.1, overlapping", "!", "1", []string{"GNU.sparse.size=1000", "GNU.sparse.numblocks=2", "GNU.sparse.map=5,10,7,10"}},
		{"0.1, negative", "!", "1", []string{"GNU.sparse.size=1000", "GNU.sparse.numblocks=1", "GNU.sparse.map=-5,1"}},
		{"0.1, odd", "!", "1", []string{"GNU.sparse.size=1000", "GNU.sparse.numblocks=1", "GNU.sparse.map=5"}},
		{"0.1, name up", "!", "1", []string{"GNU.sparse.name=../../x", "GNU.sparse.size=1000", "GNU.sparse.numblocks=1", "GNU.sparse.map=5,1"}},
		{"1.0", "?", "1\n5\n1\n" + strings.Repeat("\x00", 506) + "1", []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"}},
		{"1.0, 512 GiB", "!", "1\n5\n1\n" + strings.Repeat("\x00", 506) + "1", []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=549755813888"}},
		{"1.0, 8 EiB", "!", "1\n5\n1\n" + strings.Repeat("\x00", 506) + "1", []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9223372036854775807"}},
		{"1.0, negative", "!", "1\n5\n1\n" + strings.Repeat("\x00", 506) + "1", []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=-1"}},
		{"1.0, many spans", "!", "99999999999\n5\n1\n" + strings.Repeat("\x00", 496), []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"}},
		{"1.0, endless map", "!", strings.Repeat("1\n", 5<<20), []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"}},
		{"1.0, endless number", "!", strings.Repeat("1", 5<<20), []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"}},
		{"1.0, name up", "!", "1\n5\n1\n" + strings.Repeat("\x00", 506) + "1", []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=../../x", "GNU.sparse.realsize=1000"}},
		{"2.0", "?", "1", []string{"GNU.sparse.major=2", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"}},
	} {
		c.both("PAX sparse "+r.name, r.want, r.want, one(func(h *header, _ string) {
			h.body, h.records = []byte(r.body), r.records
		}))
	}
	c.both("many sparse files", "!", "!", func(b *builder, top string) {
		for i := range 2000 {
			b.put(header{
				name: fmt.Sprintf("%sf%d", top, i), body: []byte("1"),
				records: []string{"GNU.sparse.size=1073741824", "GNU.sparse.numblocks=1", "GNU.sparse.map=5,1"},
			})
		}
	})
}

func gzipped(data []byte) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	must(err)
	_, err = w.Write(data)
	must(err)
	must(w.Close())
	return buf.Bytes()
}

func zstandard(data []byte, o ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, append([]zstd.EOption{zstd.WithEncoderConcurrency(1)}, o...)...)
	must(err)
	return w.EncodeAll(data, nil)
}

func xzed(data []byte, dict int) []byte {
	var buf bytes.Buffer
	w, err := xz.WriterConfig{DictCap: dict}.NewWriter(&buf)
	must(err)
	_, err = w.Write(data)
	must(err)
	must(w.Close())
	return buf.Bytes()
}

// must is for what fails only if this package is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// packed adds a layer and an image, compressed.
func (c *corpus) packed(name, layerWish, imageWish string, pack func(plain []byte) []byte) {
	entries := func(b *builder, top string) {
		b.file(top+"x", "1")
		b.file(top+"y", strings.Repeat("some text, ", 200))
	}
	big := func(b *builder, top string) { // enough for a program of its own
		b.file(top+"x", "1")
		r := uint32(1)
		data := make([]byte, 400<<10)
		for i := range data {
			r = r*1664525 + 1013904223
			data[i] = byte(r >> 24)
		}
		b.put(header{name: top + "y", body: data, mode: 0o644})
	}
	sizes := map[string]func(*builder, string){"": entries}
	if strings.HasPrefix(name, "gzip") {
		sizes[", large"] = big
	}
	for suffix, e := range sizes {
		if layerWish != notHere {
			w, _ := wish(layerWish, c.decoy)
			data := layer(e)
			c.add(Case{Name: "layer/" + name + suffix, Kind: Layers, Want: w, Layers: []Layer{{
				Data: func() []byte { return pack(data) }, Plain: func() []byte { return data },
			}}})
		}
		if imageWish != notHere {
			w, _ := wish(imageWish, c.decoy)
			c.add(Case{Name: "aci/" + name + suffix, Kind: ACI, Want: w, Layers: []Layer{{Data: func() []byte { return pack(image(e)) }}}})
		}
	}
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func flip(b []byte, at int) []byte {
	b[at] ^= 0x55
	return b
}

// split compresses data in n parts.
func split(data []byte, n int, pack func([]byte) []byte) []byte {
	var out []byte
	for i := range n {
		out = append(out, pack(data[len(data)*i/n:len(data)*(i+1)/n])...)
	}
	return out
}

// compressed are streams that are damaged, or strange.
func (c *corpus) compressed() {
	zst := func(p []byte) []byte { return zstandard(p) }
	xz1 := func(p []byte) []byte { return xzed(p, 1<<20) }
	skip := func(n int) []byte {
		return append([]byte{0x50, 0x2a, 0x4d, 0x18, byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}, make([]byte, n)...)
	}
	c.packed("gzip", "", "", gzipped)
	c.packed("gzip of many members", "", "", func(p []byte) []byte { return split(p, 50, gzipped) })
	c.packed("gzip with empty members", "", "", func(p []byte) []byte {
		return cat(gzipped(nil), gzipped(p), bytes.Repeat(gzipped(nil), 1000))
	})
	c.packed("gzip with garbage behind", "!", "!", func(p []byte) []byte { return append(gzipped(p), "garbage"...) })
	c.packed("gzip with zeros behind", "!", "!", func(p []byte) []byte { return append(gzipped(p), make([]byte, 1024)...) })
	c.packed("gzip with a tar behind", "!", "!", func(p []byte) []byte { return append(gzipped(p), p...) })
	c.packed("gzip cut", "!", "!", func(p []byte) []byte { z := gzipped(p); return z[:len(z)-20] })
	c.packed("gzip without its sums", "!", "!", func(p []byte) []byte { z := gzipped(p); return z[:len(z)-8] })
	c.packed("gzip with a bad sum", "!", "!", func(p []byte) []byte { z := gzipped(p); return flip(z, len(z)-6) })
	c.packed("gzip with a bad length", "!", "!", func(p []byte) []byte { z := gzipped(p); return flip(z, len(z)-2) })
	c.packed("gzip with a bad middle", "!", "!", func(p []byte) []byte { z := gzipped(p); return flip(z, len(z)/2) })
	c.packed("gzip with a bad method", "!", "!", func(p []byte) []byte { return flip(gzipped(p), 2) })
	c.packed("gzip of gzip", "!", "!", func(p []byte) []byte { return gzipped(gzipped(p)) })
	c.packed("gzip with an endless name", "!", "!", func(p []byte) []byte {
		return cat([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3}, bytes.Repeat([]byte("n"), 1<<20))
	})
	c.packed("zstd", "", "", zst)
	c.packed("zstd of many frames", "", "", func(p []byte) []byte { return split(p, 50, zst) })
	c.packed("zstd with frames to skip", "", "", func(p []byte) []byte {
		return cat(zst(p), bytes.Repeat(skip(0), 50000), skip(1<<20), zst(nil))
	})
	c.packed("zstd with garbage behind", "!", "!", func(p []byte) []byte { return append(zst(p), "garbage"...) })
	c.packed("zstd cut", "!", "!", func(p []byte) []byte { z := zst(p); return z[:len(z)-5] })
	c.packed("zstd with a bad sum", "!", "!", func(p []byte) []byte { z := zst(p); return flip(z, len(z)-1) })
	c.packed("zstd with a frame to skip that is cut", "!", "!", func(p []byte) []byte { return cat(zst(p), skip(1 << 16)[:100]) })
	c.packed("zstd with a huge window", "!", "!", func(p []byte) []byte {
		return cat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8}, make([]byte, 200))
	})
	c.packed("zstd with a huge frame", "!", "!", func(p []byte) []byte {
		return cat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 200))
	})
	c.packed("zstd with a dictionary", "!", "!", func(p []byte) []byte {
		return cat([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x03, 0x58, 1, 2, 3, 4}, make([]byte, 200))
	})
	c.packed("xz", "", "", xz1)
	c.packed("xz of many streams", "", "", func(p []byte) []byte { return split(p, 10, xz1) })
	c.packed("xz cut", "!", "!", func(p []byte) []byte { z := xz1(p); return z[:len(z)-20] })
	c.packed("xz with garbage behind", "!", "!", func(p []byte) []byte { return append(xz1(p), "garbage"...) })
	c.packed("xz with a huge dictionary", "!", "!", func(p []byte) []byte { return bigDict(xz1(p), 0) })
	c.packed("xz with a huge dictionary, later", "!", "!", func(p []byte) []byte {
		first := xz1(p)
		return bigDict(cat(first, xz1([]byte("more"))), len(first))
	})
	c.packed("bzip2 of garbage", "!", "!", func([]byte) []byte { return []byte("BZh9" + strings.Repeat("garbage", 100)) })
	c.packed("bzip2 of nothing", "!", "!", func([]byte) []byte { return []byte("BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00") })
	c.packed("text", "!", "!", func([]byte) []byte { return []byte("<!DOCTYPE html><html>no such image</html>") })
	c.packed("encrypted", "!", "!", func([]byte) []byte { return []byte("-----BEGIN PGP MESSAGE-----\n\nxxxx\n") })
	c.packed("zeros", "!", "!", func([]byte) []byte { return make([]byte, 4096) })
	c.packed("zip", "!", "!", func([]byte) []byte { return cat([]byte("PK\x03\x04"), make([]byte, 2000)) })
}

const bombSize = 16 << 30

// bombs grow when they are decompressed.
func (c *corpus) bombs() {
	// One file, all zeros, in members of 16 MiB each.
	head := func(top string) []byte {
		b := &builder{}
		if top != "" {
			b.dir("rootfs")
		}
		b.put(header{name: top + "big", size: bombSize, noBody: true})
		return b.buf.Bytes()
	}
	zeros := make([]byte, 16<<20)
	best := func(p []byte) []byte {
		var buf bytes.Buffer
		w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
		must(err)
		_, err = w.Write(p)
		must(err)
		must(w.Close())
		return buf.Bytes()
	}
	gz := func(top string) []byte {
		return cat(best(head(top)), bytes.Repeat(best(zeros), bombSize>>24))
	}
	zs := func(top string) []byte {
		return cat(zstandard(head(top)), bytes.Repeat(zstandard(zeros), bombSize>>24))
	}
	xzs := func(top string) []byte { return cat(xzed(head(top), 1<<20), bytes.Repeat(xzed(zeros, 1<<20), 30)) }
	for name, make := range map[string]func(string) []byte{"gzip": gz, "zstd": zs, "xz": xzs} {
		if name != "xz" { // it is slow: once is enough
			c.add(Case{Name: "aci/bomb of " + name, Kind: ACI, Heavy: true, Want: Refused, Layers: []Layer{{Data: func() []byte { return make("rootfs/") }}}})
		}
		c.add(Case{Name: "layer/bomb of " + name, Kind: Layers, Heavy: true, Want: Refused, Layers: []Layer{{
			Data: func() []byte { return make("") }, DiffID: noDigest,
		}}})
	}
}

// bigDict makes the first block's dictionary after a place 4 GiB large, and its
// header's sum right.
func bigDict(z []byte, at int) []byte {
	blk := z[at+12:]
	size := (int(blk[0]) + 1) * 4
	for i := 2; i < size-6; i++ {
		if blk[i] == 0x21 && blk[i+1] == 1 {
			blk[i+2] = 40
			break
		}
	}
	sum := crc32sum(blk[:size-4])
	blk[size-4], blk[size-3], blk[size-2], blk[size-1] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
	return z
}

package hostile

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

const xattr = "SCHILY.xattr."

// attributes are extended attributes.
func (c *corpus) attributes() {
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x01\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	for _, r := range []struct {
		name, key, value, want string
	}{
		{"opaque", "trusted.overlay.opaque", "y", "$x"},
		{"redirect", "trusted.overlay.redirect", "/../../canary", "$x"},
		{"metacopy", "trusted.overlay.metacopy", "", "$x"},
		{"origin", "trusted.overlay.origin", "\x00\xfb", "$x"},
		{"whiteout", "trusted.overlay.whiteout", "y", "$x"},
		{"user opaque", "user.overlay.opaque", "y", "$x"},
		{"user redirect", "user.overlay.redirect", "/../../canary", "$x"},
		{"user metacopy", "user.overlay.metacopy", "", "$x"},
		{"user whiteouts", "user.overlay.whiteouts", "y", "$x"},
		{"escaped opaque", "user.overlay.overlay.opaque", "y", "$x"},
		{"selinux", "security.selinux", "system_u:object_r:shadow_t:s0", "$x"},
		{"ima", "security.ima", "\x01xxxxxxxx", "$x"},
		{"evm", "security.evm", "\x02xxxxxxxx", "$x"},
		{"smack", "security.SMACK64", "_", "$x"},
		{"apparmor", "security.apparmor", "x", "$x"},
		{"trusted", "trusted.md5sum", "x", "$x"},
		{"capability", "security.capability", capability, "$x"},
		{"capability with a suffix", "security.capability.x", capability, "$x"},
		{"bad capability", "security.capability", "garbage", "?"},
		{"empty capability", "security.capability", "", "?"},
		{"capability of a namespace", "security.capability", strings.Replace(capability, "\x02", "\x03", 1) + "\xe8\x03\x00\x00", "?"},
		{"user", "user.x", "y", "$x"},
		{"user without a name", "user.", "y", "?"},
		{"name without a dot", "username", "y", "$x"},
		{"name of nothing", "", "y", "?"},
		{"name with a slash", "user.a/b", "y", "?"},
		{"name with escapes", "user.\x1b[2J", "y", "?"},
		{"long name", "user." + strings.Repeat("n", 250), "y", "?"},
		{"too long a name", "user." + strings.Repeat("n", 251), "y", "?"},
		{"very long name", "user." + strings.Repeat("n", 60000), "y", "?"},
		{"value of 60000", "user.x", strings.Repeat("v", 60000), "?"},
		{"value of 65536", "user.x", strings.Repeat("v", 65536), "!"},
		{"value of 900000", "user.x", strings.Repeat("v", 900000), "!"},
		{"ACL", "system.posix_acl_access", acl, "?"},
		{"default ACL", "system.posix_acl_default", acl, "?"},
		{"bad ACL", "system.posix_acl_access", "garbage", "?"},
		{"huge ACL", "system.posix_acl_access", acl[:4] + strings.Repeat(acl[4:12], 5000), "?"},
		{"NFS ACL", "system.nfs4_acl", "x", "$x"},
		{"of libarchive", "LIBARCHIVE.xattr.trusted.overlay.opaque", "eQ==", "$x"},
	} {
		key := xattr + r.key
		if strings.HasPrefix(r.key, "LIBARCHIVE") {
			key = r.key
		}
		for _, typ := range []byte("05") {
			want, kind := strings.Replace(r.want, "$x", "x=1", 1), "file"
			h := header{name: "x", mode: 0o644, typ: typ, body: []byte("1"), records: []string{key + "=" + r.value}}
			if typ == '5' {
				want, kind = strings.Replace(r.want, "$x", "x/ x/y=2", 1), "directory"
				h.body, h.mode = nil, 0o755
			}
			image := want
			if typ == '5' {
				image = notHere
			}
			c.both("xattr "+r.name+", "+kind, want, image, func(b *builder, top string) {
				h := h
				h.name = top + "x"
				b.put(h)
				if typ == '5' {
					b.file(top+"x/y", "2")
				}
			})
		}
	}
	c.both("xattr on a link", "l->$C", "l->$C", func(b *builder, top string) {
		b.put(header{name: top + "l", link: c.decoy, typ: '2', records: []string{xattr + "user.x=y", xattr + "security.capability=" + capability}})
	})
	c.both("xattr on a hard link", "a=1 h=1", "a=1 h=1", func(b *builder, top string) {
		b.file(top+"a", "1")
		b.put(header{name: top + "h", link: top + "a", typ: '1', records: []string{xattr + "trusted.overlay.metacopy="}})
	})
	c.both("xattr on a FIFO", "f", "f", func(b *builder, top string) {
		b.put(header{name: top + "f", typ: '6', mode: 0o644, records: []string{xattr + "user.x=y"}})
	})
	c.both("xattr on the root", "a=1", "?", func(b *builder, top string) {
		b.put(header{name: "./" + top, typ: '5', mode: 0o755, records: []string{xattr + "trusted.overlay.opaque=y", xattr + "user.overlay.opaque=y"}})
		b.file(top+"a", "1")
	})
	c.both("many xattrs", "?", "?", one(func(h *header, _ string) {
		for i := range 3000 {
			h.records = append(h.records, fmt.Sprintf("%suser.n%d=y", xattr, i))
		}
	}))
	c.both("10000 records", "x=1", "x=1", one(func(h *header, _ string) {
		for i := range 10000 {
			h.records = append(h.records, fmt.Sprintf("VENDOR.n%d=y", i))
		}
	}))
	// A lower layer that would be read through what its attributes say.
	for _, name := range []string{"trusted.overlay.redirect", "user.overlay.redirect"} {
		low := layer(func(b *builder, _ string) { b.lines("secret/ secret/s=1 d/ d/a=1", "", "") })
		high := layer(func(b *builder, _ string) {
			b.put(header{name: "d", typ: '5', mode: 0o755, records: []string{xattr + name + "=/secret"}})
			b.put(header{name: "e", typ: '5', mode: 0o755, records: []string{xattr + name + "=/secret"}})
			b.file("d/b", "2")
		})
		c.add(Case{
			Name: "stack/redirected by " + name, Kind: Layers, Want: Harmless, Layers: []Layer{plain(low), plain(high)},
			List: []string{"/", "d/", "d/a = 1", "d/b = 2", "e/", "secret/", "secret/s = 1"},
		})
	}
	low := layer(func(b *builder, _ string) { b.lines("d/ d/a=1 f=1", "", "") })
	high := layer(func(b *builder, _ string) {
		b.put(header{name: "d", typ: '5', mode: 0o755, records: []string{xattr + "trusted.overlay.opaque=x", xattr + "user.overlay.opaque=x"}})
		b.put(header{name: "f", mode: 0o644, records: []string{xattr + "trusted.overlay.whiteout=y", xattr + "user.overlay.whiteout=y"}})
	})
	c.add(Case{
		Name: "stack/marks by attributes", Kind: Layers, Want: Harmless, Layers: []Layer{plain(low), plain(high)},
		List: []string{"/", "d/", "d/a = 1", "f = "},
	})
}

// owners are modes, owners and times.
func (c *corpus) owners() {
	for _, mode := range []int64{0, 0o4755, 0o2755, 0o1777, 0o7777, 0o6000} {
		c.both(fmt.Sprintf("mode %04o", mode), "?", "?", func(b *builder, top string) {
			b.put(header{name: top + "d", typ: '5', mode: mode})
			b.put(header{name: top + "d/f", mode: mode, body: []byte("1")})
			b.put(header{name: top + "p", typ: '6', mode: mode})
		})
	}
	c.both("root without rights", "?", "?", func(b *builder, top string) {
		if top == "" {
			b.put(header{name: "./", typ: '5', mode: 0})
		}
		b.file(top+"a", "1")
	})
	hidden := layer(func(b *builder, _ string) {
		b.put(header{name: "d", typ: '5', mode: 0})
		b.put(header{name: "d/f", mode: 0, body: []byte("1")})
	})
	c.add(Case{Name: "stack/below a directory without rights", Kind: Layers, Want: Bounded, Layers: []Layer{
		plain(hidden), plain(layer(func(b *builder, _ string) { b.lines("d/g=1 h=>d/f", "", "") })),
	}})
	for _, r := range []struct {
		id    int64
		layer string
	}{{1 << 31, "x=1"}, {1<<32 - 2, "x=1"}, {1<<32 - 1, "!"}, {1 << 32, "!"}, {-1, "!"}, {-2, "!"}, {-1 << 40, "!"}, {math.MaxInt64, "!"}, {1<<32 + 1000, "!"}} {
		c.both(fmt.Sprintf("uid %d", r.id), r.layer, r.layer, one(func(h *header, _ string) { h.uid = r.id }))
		c.both(fmt.Sprintf("gid %d", r.id), r.layer, r.layer, one(func(h *header, _ string) { h.gid = r.id }))
	}
	c.both("owner overridden", "!", "!", one(func(h *header, _ string) { h.uid, h.records = 0, []string{"uid=4294967295", "uname=root"} }))
	c.both("bad owner of a link", "!", "!", func(b *builder, top string) {
		b.put(header{name: top + "l", link: "x", typ: '2', uid: -1})
	})
	c.both("bad owner of a directory", "!", "!", func(b *builder, top string) {
		b.put(header{name: top + "d", typ: '5', gid: 1 << 32})
	})
	c.both("bad owner of a hard link", "a=1 h=1", "a=1 h=1", func(b *builder, top string) {
		b.file(top+"a", "1")
		b.put(header{name: top + "h", link: top + "a", typ: '1', uid: -1})
	})
}

// devices are all that is neither file, directory nor link.
func (c *corpus) devices() {
	for _, r := range []struct {
		name         string
		typ          byte
		major, minor int64
		want         string
	}{
		{"null", '3', 1, 3, "?"}, {"mem", '3', 1, 1, "?"}, {"disk", '4', 8, 0, "?"}, {"loop", '4', 7, 0, "?"},
		{"overlay's whiteout", '3', 0, 0, "!"}, {"block 0:0", '4', 0, 0, "?"},
		{"largest", '3', 1<<12 - 1, 1<<20 - 1, "?"}, {"too large a major", '3', 1 << 12, 0, "!"}, {"too large a minor", '4', 0, 1 << 20, "!"},
		{"0:0 modulo 2^12", '3', 1 << 32, 1 << 32, "!"}, {"negative", '3', -1, -1, "!"}, {"largest numbers", '4', math.MaxInt64, math.MaxInt64, "!"},
		{"FIFO", '6', 0, 0, "x"}, {"FIFO with numbers", '6', 5, 5, "x"}, {"FIFO with large numbers", '6', 1 << 40, 0, "!"},
		{"socket of cpio", 's', 0, 0, "!"}, {"door", 'D', 0, 0, "!"},
	} {
		c.both("device "+r.name, r.want, r.want, one(func(h *header, _ string) {
			h.typ, h.major, h.minor, h.body = r.typ, r.major, r.minor, nil
		}))
	}
	c.both("write through a device", "?", "?", func(b *builder, top string) {
		b.put(header{name: top + "null", typ: '3', mode: 0o666, major: 1, minor: 3})
		b.file(top+"null/x", "1")
	})
	c.both("write into a FIFO", "f=1", "!", func(b *builder, top string) {
		b.put(header{name: top + "f", typ: '6', mode: 0o666})
		b.file(top+"f", "1")
	})
	c.both("hard link to a device", "?", "?", func(b *builder, top string) {
		b.put(header{name: top + "m", typ: '3', mode: 0o666, major: 1, minor: 1})
		b.hard(top+"h", top+"m")
	})
	c.both("hard link to a FIFO", "f h", "f h", func(b *builder, top string) {
		b.put(header{name: top + "f", typ: '6', mode: 0o666})
		b.hard(top+"h", top+"f")
	})
	c.both("device with content", "?", "?", func(b *builder, top string) {
		b.put(header{name: top + "m", typ: '3', mode: 0o666, major: 1, minor: 3, body: bytes.Repeat([]byte("x"), 2000)})
		b.file(top+"a", "1")
	})
	low := layer(func(b *builder, _ string) { b.put(header{name: "p", typ: '6', mode: 0o600}); b.dir("d") })
	c.add(Case{
		Name: "stack/write through a lower FIFO", Kind: Layers, Want: Harmless, List: []string{"/", "d/", "p/", "p/x = 1"},
		Layers: []Layer{plain(low), plain(layer(func(b *builder, _ string) { b.lines("p/x=1", "", "") }))},
	})
	c.add(Case{
		Name: "stack/whiteout by a device", Kind: Layers, Want: Refused,
		Layers: []Layer{plain(low), plain(layer(func(b *builder, _ string) { b.put(header{name: "d", typ: '3'}) }))},
	})
	c.add(Case{
		Name: "stack/hard link to a lower FIFO", Kind: Layers, Want: Harmless, List: []string{"/", "d/", "h", "p"},
		Layers: []Layer{plain(low), plain(layer(func(b *builder, _ string) { b.hard("h", "p") }))},
	})
}

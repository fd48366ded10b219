package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

const block = 512

// builder writes tar archives byte by byte, so that everything can be wrong.
type builder struct {
	buf   bytes.Buffer
	mtime int64
}

// header is one entry. Long names go into records of their own.
type header struct {
	name, link           string
	typ                  byte
	mode, uid, gid       int64
	size                 int64 // of body if zero
	mtime                int64
	major, minor         int64
	records              []string // "key=value"
	body                 []byte
	before, after        func(h []byte) // change the block before or after the checksum
	noBody, noPad, exact bool           // exact: the name as it is, cut to its field
}

func (b *builder) dir(name string)  { b.put(header{name: name, typ: '5', mode: 0o755}) }
func (b *builder) sym(n, to string) { b.put(header{name: n, link: to, typ: '2', mode: 0o777}) }
func (b *builder) hard(n, to string) {
	b.put(header{name: n, link: to, typ: '1', mode: 0o644})
}
func (b *builder) file(name, data string) {
	b.put(header{name: name, typ: '0', mode: 0o644, body: []byte(data)})
}

// end ends the archive.
func (b *builder) end() []byte {
	b.buf.Write(make([]byte, 2*block))
	return b.buf.Bytes()
}

// number writes an octal number, or one to the base of 256 if it does not fit.
func number(field []byte, v int64) {
	if s := strconv.FormatInt(v, 8); v >= 0 && len(s) < len(field) {
		copy(field, fmt.Sprintf("%0*s", len(field)-1, s))
		return
	}
	var big [16]byte
	if v < 0 {
		for i := range big {
			big[i] = 0xff
		}
	}
	binary.BigEndian.PutUint64(big[8:], uint64(v)) //nolint:gosec // two's complement is meant
	copy(field, big[16-len(field):])
	field[0] |= 0x80
}

// record is one PAX record with its length.
func record(text string) string {
	for n := len(text) + 2; ; n++ {
		if s := strconv.Itoa(n) + " " + text + "\n"; len(s) == n {
			return s
		}
	}
}

func records(texts ...string) []byte {
	var out bytes.Buffer
	for _, t := range texts {
		out.WriteString(record(t))
	}
	return out.Bytes()
}

// put writes an entry.
func (b *builder) put(h header) {
	if h.typ == 0 {
		h.typ = '0'
	}
	if len(h.name) > 100 && !h.exact {
		h.records = append(h.records, "path="+h.name)
	}
	if len(h.link) > 100 && !h.exact {
		h.records = append(h.records, "linkpath="+h.link)
	}
	if len(h.records) > 0 {
		b.put(header{name: "PaxHeaders/x", typ: 'x', body: records(h.records...), mode: 0o644})
	}
	if h.mtime == 0 {
		h.mtime = 1000 + b.mtime
	}
	if h.size == 0 {
		h.size = int64(len(h.body))
	}
	var blk [block]byte
	copy(blk[:100], h.name)
	number(blk[100:108], h.mode)
	number(blk[108:116], h.uid)
	number(blk[116:124], h.gid)
	number(blk[124:136], h.size)
	number(blk[136:148], h.mtime)
	blk[156] = h.typ
	copy(blk[157:257], h.link)
	copy(blk[257:], "ustar\x0000")
	number(blk[329:337], h.major)
	number(blk[337:345], h.minor)
	if h.before != nil {
		h.before(blk[:])
	}
	checksum(blk[:])
	if h.after != nil {
		h.after(blk[:])
	}
	b.buf.Write(blk[:])
	if h.noBody {
		return
	}
	b.buf.Write(h.body)
	if pad := -len(h.body) & (block - 1); pad > 0 && !h.noPad {
		b.buf.Write(make([]byte, pad))
	}
}

func checksum(blk []byte) {
	copy(blk[148:156], "        ")
	sum := 0
	for _, c := range blk {
		sum += int(c)
	}
	copy(blk[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

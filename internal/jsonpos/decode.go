package jsonpos

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxErrors bounds the duplicate keys reported for one document.
const maxErrors = 20

// Decode reads one document. file is only used for positions. It returns the
// tree and every problem found; the tree is nil when the text is no JSON, and
// usable but wrong when the problems are duplicate keys (the last one wins).
func Decode(file string, data []byte) (*Value, []*Error) {
	if len(data) > MaxSize {
		return nil, []*Error{{Pos{File: file}, "file is larger than " + strconv.Itoa(MaxSize) + " bytes"}}
	}
	d := decoder{file: file, data: data, line: 1}
	// Some editors write a byte order mark.
	if len(data) >= 3 && string(data[:3]) == "\xef\xbb\xbf" {
		d.off, d.mark = 3, 3
	}
	if !d.space() {
		return nil, d.errs
	}
	if d.off == len(data) {
		d.fail("file holds no value")
		return nil, d.errs
	}
	v := d.value(0)
	if v == nil || !d.space() {
		return nil, d.errs
	}
	if d.off < len(data) {
		d.fail("unexpected " + d.found() + " after the value")
		return nil, d.errs
	}
	return v, d.errs
}

type decoder struct {
	file string
	data []byte
	off  int
	line int
	// mark is an offset on the current line whose column is markCol; counting
	// goes on from there, so that one very long line costs linear time.
	mark    int
	markCol int
	errs    []*Error
	count   int
	// slab is where values are taken from, a block at a time.
	slab []Value
}

func (d *decoder) pos() Pos {
	if d.off > d.mark {
		d.markCol += utf8.RuneCount(d.data[d.mark:d.off])
		d.mark = d.off
	}
	return Pos{d.file, d.line, d.markCol + 1}
}

func (d *decoder) newline() {
	d.line++
	d.mark, d.markCol = d.off, 0
}

func (d *decoder) fail(msg string) { d.errs = append(d.errs, &Error{d.pos(), msg}) }

// found describes the next character for a message.
func (d *decoder) found() string {
	if d.off >= len(d.data) {
		return "end of file"
	}
	r, _ := utf8.DecodeRune(d.data[d.off:])
	return strconv.QuoteRune(r)
}

// space skips white space and comments. It reports false after an error.
func (d *decoder) space() bool {
	for d.off < len(d.data) {
		switch c := d.data[d.off]; c {
		case ' ', '\t', '\r':
			d.off++
		case '\n':
			d.off++
			d.newline()
		case '/':
			if !d.comment() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

func (d *decoder) comment() bool {
	rest := d.data[d.off:]
	switch {
	case len(rest) > 1 && rest[1] == '/':
		for d.off < len(d.data) && d.data[d.off] != '\n' {
			d.off++
		}
		return true
	case len(rest) > 1 && rest[1] == '*':
		start := d.pos()
		for d.off += 2; d.off+1 < len(d.data); {
			if d.data[d.off] == '*' && d.data[d.off+1] == '/' {
				d.off += 2
				return true
			}
			d.off++
			if d.data[d.off-1] == '\n' {
				d.newline()
			}
		}
		d.errs = append(d.errs, &Error{start, "comment is not closed"})
		return false
	}
	d.fail("unexpected '/'")
	return false
}

func (d *decoder) value(depth int) *Value {
	if depth >= MaxDepth {
		d.fail("nested deeper than " + strconv.Itoa(MaxDepth) + " levels")
		return nil
	}
	if d.off >= len(d.data) {
		d.fail("unexpected end of file, want a value")
		return nil
	}
	if d.count++; d.count > MaxValues {
		d.fail("file has more than " + strconv.Itoa(MaxValues) + " values")
		return nil
	}
	if len(d.slab) == 0 {
		d.slab = make([]Value, min(16+d.count, 1024))
	}
	v := &d.slab[0]
	d.slab = d.slab[1:]
	v.Pos = d.pos()
	ok := true
	switch c := d.data[d.off]; {
	case c == '{':
		v.Kind = Object
		ok = d.object(v, depth)
	case c == '[':
		v.Kind = Array
		ok = d.array(v, depth)
	case c == '"':
		v.Kind = String
		v.Text, ok = d.string()
	case c == '-' || c >= '0' && c <= '9':
		v.Kind = Number
		v.Text, ok = d.number()
	case d.word("true"):
		v.Kind, v.Bool = Bool, true
	case d.word("false"):
		v.Kind = Bool
	case d.word("null"):
	default:
		d.fail("unexpected " + d.found() + ", want a value")
		ok = false
	}
	if !ok {
		return nil
	}
	return v
}

// word consumes a literal name.
func (d *decoder) word(w string) bool {
	if len(d.data)-d.off < len(w) || string(d.data[d.off:d.off+len(w)]) != w {
		return false
	}
	d.off += len(w)
	return true
}

// next skips to the next token inside a list or object that close ends. first
// is whether no element came yet. It reports whether another element follows.
func (d *decoder) next(closing byte, first bool, what string) (more, ok bool) {
	if !d.space() {
		return false, false
	}
	comma := false
	if !first && d.off < len(d.data) && d.data[d.off] == ',' {
		comma = true
		d.off++
		if !d.space() {
			return false, false
		}
	}
	if d.off < len(d.data) && d.data[d.off] == closing {
		d.off++
		return false, true
	}
	if !first && !comma {
		d.fail("unexpected " + d.found() + ", want ',' or '" + string(rune(closing)) + "' " + what)
		return false, false
	}
	return true, true
}

func (d *decoder) array(v *Value, depth int) bool {
	d.off++
	for {
		more, ok := d.next(']', len(v.Items) == 0, "in a list")
		if !ok || !more {
			return ok
		}
		it := d.value(depth + 1)
		if it == nil {
			return false
		}
		v.Items = append(v.Items, it)
	}
}

func (d *decoder) object(v *Value, depth int) bool {
	d.off++
	// seen is only built for objects of many members.
	var seen map[string]int
	for {
		more, ok := d.next('}', len(v.Members) == 0, "in an object")
		if !ok || !more {
			return ok
		}
		m := Member{Pos: d.pos()}
		if d.off >= len(d.data) || d.data[d.off] != '"' {
			d.fail("unexpected " + d.found() + ", want a key in double quotes")
			return false
		}
		if m.Key, ok = d.string(); !ok {
			return false
		}
		if !d.space() {
			return false
		}
		if d.off >= len(d.data) || d.data[d.off] != ':' {
			d.fail("unexpected " + d.found() + ", want ':' after a key")
			return false
		}
		d.off++
		if !d.space() {
			return false
		}
		if m.Value = d.value(depth + 1); m.Value == nil {
			return false
		}
		i := -1
		if i, seen = index(v.Members, seen, m.Key); i >= 0 {
			if len(d.errs) < maxErrors {
				first := v.Members[i].Pos
				d.errs = append(d.errs, &Error{m.Pos, "duplicate key " + strconv.Quote(m.Key) +
					", first seen on line " + strconv.Itoa(first.Line)})
			}
			v.Members[i] = m
			continue
		}
		v.Members = append(v.Members, m)
		if seen != nil {
			seen[m.Key] = len(v.Members) - 1
		}
	}
}

// index finds key among ms: by scanning while there are few, by a map after.
func index(ms []Member, seen map[string]int, key string) (int, map[string]int) {
	const few = 16
	if seen == nil && len(ms) > few {
		seen = make(map[string]int, 4*few)
		for i := range ms {
			seen[ms[i].Key] = i
		}
	}
	if seen != nil {
		if i, ok := seen[key]; ok {
			return i, seen
		}
		return -1, seen
	}
	for i := range ms {
		if ms[i].Key == key {
			return i, nil
		}
	}
	return -1, nil
}

func (d *decoder) number() (string, bool) {
	start, i := d.off, d.off
	at := func(i int) byte {
		if i < len(d.data) {
			return d.data[i]
		}
		return 0
	}
	digits := func() bool {
		from := i
		for at(i) >= '0' && at(i) <= '9' {
			i++
		}
		return i > from
	}
	if at(i) == '-' {
		i++
	}
	lead := i
	ok := digits()
	if ok && at(lead) == '0' && i > lead+1 {
		d.fail("a number must not begin with 0")
		return "", false
	}
	if ok && at(i) == '.' {
		i++
		ok = digits()
	}
	if ok && (at(i) == 'e' || at(i) == 'E') {
		if i++; at(i) == '+' || at(i) == '-' {
			i++
		}
		ok = digits()
	}
	if !ok {
		d.fail("number is not complete")
		return "", false
	}
	d.off = i
	return string(d.data[start:i]), true
}

func (d *decoder) string() (string, bool) {
	start := d.off + 1
	i := start
	for i < len(d.data) {
		c := d.data[i]
		switch {
		case c == '"':
			d.off = i + 1
			return string(d.data[start:i]), true
		case c == '\\':
			return d.stringSlow(start, i)
		case c < 0x20:
			d.off = i
			return d.badControl(c)
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(d.data[i:])
			if r == utf8.RuneError && n == 1 {
				d.off = i
				d.fail("string is not valid UTF-8")
				return "", false
			}
			i += n
		}
	}
	d.fail("string is not closed")
	return "", false
}

func (d *decoder) badControl(c byte) (string, bool) {
	if c == '\n' {
		d.fail("string is not closed on its line")
	} else {
		d.fail("control character " + strconv.QuoteRune(rune(c)) + " in a string, write it as an escape")
	}
	return "", false
}

// stringSlow goes on at the first backslash, at i, of the string that began
// at start.
func (d *decoder) stringSlow(start, i int) (string, bool) {
	b := append(make([]byte, 0, i-start+32), d.data[start:i]...)
	for i < len(d.data) {
		c := d.data[i]
		switch {
		case c == '"':
			d.off = i + 1
			return string(b), true
		case c == '\\':
			r, n := d.escape(i)
			if n == 0 {
				d.off = i
				d.fail("unknown escape in a string")
				return "", false
			}
			b = utf8.AppendRune(b, r)
			i += n
		case c < 0x20:
			d.off = i
			return d.badControl(c)
		default:
			r, n := utf8.DecodeRune(d.data[i:])
			if r == utf8.RuneError && n == 1 {
				d.off = i
				d.fail("string is not valid UTF-8")
				return "", false
			}
			b = append(b, d.data[i:i+n]...)
			i += n
		}
	}
	d.fail("string is not closed")
	return "", false
}

// escape decodes the escape at i and returns its length, 0 if it is none.
// Half a surrogate pair becomes U+FFFD, as in encoding/json.
func (d *decoder) escape(i int) (rune, int) {
	if i+1 >= len(d.data) {
		return 0, 0
	}
	switch d.data[i+1] {
	case '"', '\\', '/':
		return rune(d.data[i+1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := d.hex4(i + 2)
		if !ok {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if i+7 < len(d.data) && d.data[i+6] == '\\' && d.data[i+7] == 'u' {
			if r2, ok := d.hex4(i + 8); ok {
				if full := utf16.DecodeRune(r, r2); full != utf8.RuneError {
					return full, 12
				}
			}
		}
		return utf8.RuneError, 6
	}
	return 0, 0
}

func (d *decoder) hex4(i int) (rune, bool) {
	if i+4 > len(d.data) {
		return 0, false
	}
	var r rune
	for _, c := range d.data[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

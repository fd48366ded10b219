package hostile

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Marks are the names in a template: text in which "«NAME|VALUE»" stands for
// VALUE, or for what an attack puts there.
func Marks(template string) []string {
	var out []string
	for _, part := range strings.Split(template, "«")[1:] {
		name, _, _ := strings.Cut(part, "|")
		out = append(out, name)
	}
	return out
}

// Fill puts value, as JSON text, in the place of a mark and the usual values in that of the others.
func Fill(template, mark string, value []byte) []byte {
	var b bytes.Buffer
	for {
		before, rest, ok := strings.Cut(template, "«")
		b.WriteString(before)
		if !ok {
			return b.Bytes()
		}
		in, after, _ := strings.Cut(rest, "»")
		name, usual, _ := strings.Cut(in, "|")
		if name == mark {
			b.Write(value)
		} else {
			b.WriteString(usual)
		}
		template = after
	}
}

// JSONText writes a string into JSON as a hostile writer does: bytes that are
// no UTF-8 as they are.
func JSONText(s string) []byte {
	var b bytes.Buffer
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteByte(s[0])
		case r < ' ' || r == '"' || r == '\\' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.Bytes()
}

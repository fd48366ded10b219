package unitfile

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// EscapeSpecifiers doubles every "%", so that systemd expands none.
func EscapeSpecifiers(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// CommandWord quotes an argument of a command line; see "COMMAND LINES" in
// systemd.service(5).
func CommandWord(arg string) string {
	return Quote(strings.ReplaceAll(EscapeSpecifiers(arg), "$", "$$"))
}

// Quote returns s as one word, in double quotes unless it needs none; see
// "QUOTING" in systemd.syntax(7). Bytes that are not printable text become
// escapes, so any s but one with a NUL survives. Specifiers are left alone.
func Quote(s string) string {
	if s != "" && strings.IndexFunc(s, needsQuote) < 0 {
		return s
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	b.Grow(len(s) + 8)
	b.WriteByte('"')
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteByte(s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x20 || r == 0x7f || r == utf8.RuneError && n == 1:
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	b.WriteByte('"')
	return b.String()
}

func needsQuote(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune("-_./:=,+@%^~$", r)
}

// nameChars are what a unit name has unescaped, besides letters and digits.
const nameChars = ":_."

// Escape turns any string into a part of a unit name: "/" becomes "-", other
// characters that a unit name cannot have become \xNN; see systemd-escape(1).
func Escape(s string) string {
	const hex = "0123456789abcdef"
	b := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '/':
			b = append(b, '-')
		case i == 0 && c == '.', !isNameChar(c):
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

func isNameChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(nameChars, c) >= 0
}

// EscapePath is Escape for a path: without the slashes around it and without
// empty components; the root is "-". A path with ".." or "." components is
// refused.
func EscapePath(path string) (string, error) {
	var parts []string
	for p := range strings.SplitSeq(path, "/") {
		switch p {
		case "":
		case ".", "..":
			return "", errors.New("path " + strconv.Quote(path) + " is not normalized")
		default:
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return "-", nil
	}
	return Escape(strings.Join(parts, "/")), nil
}

// Unescape undoes Escape.
func Unescape(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '-':
			b = append(b, '/')
		case '\\':
			if i+3 >= len(s) || s[i+1] != 'x' {
				return "", errors.New("unescaping " + strconv.Quote(s) + ": bad escape")
			}
			n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				return "", errors.New("unescaping " + strconv.Quote(s) + ": bad escape")
			}
			b = append(b, byte(n))
			i += 3
		default:
			b = append(b, c)
		}
	}
	return string(b), nil
}

// IsUnitName reports whether s is a valid unit name with a known type, a
// template's name ("a@.service") included; see systemd.unit(5).
func IsUnitName(s string) bool {
	i := strings.LastIndexByte(s, '.')
	if i <= 0 || len(s) > 255 || s[0] == '@' {
		return false
	}
	switch s[i+1:] {
	case "service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope":
	default:
		return false
	}
	for j := 0; j < i; j++ {
		if c := s[j]; !isNameChar(c) && strings.IndexByte(`-\@`, c) < 0 {
			return false
		}
	}
	return strings.Count(s, "@") <= 1 || strings.IndexByte(s, '@') > 0
}

package unitfile

import (
	"errors"
	"strconv"
	"strings"
)

// Parse reads a unit file as systemd does: comments, continued lines, white
// space around keys and values. It serves tests and `rkt pod show`. A section
// that occurs twice is joined.
func Parse(text string) ([]Section, error) {
	f := &File{}
	var section *Section
	var pending string
	continued := false
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		trimmed := strings.Trim(line, " \t")
		if continued {
			// A comment between continued lines is skipped.
			if trimmed != "" && (trimmed[0] == '#' || trimmed[0] == ';') {
				continue
			}
		} else if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			pending += rest + " "
			continued = true
			continue
		}
		line, pending, continued = strings.Trim(pending+line, " \t"), "", false
		if line == "" {
			continue
		}
		if line[0] == '[' {
			name, ok := strings.CutSuffix(line[1:], "]")
			if !ok || checkSection(name) != nil {
				return nil, lineError(n, "bad section header")
			}
			section = f.section(name)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == nil {
			return nil, lineError(n, "want KEY=VALUE in a section")
		}
		section.Entries = append(section.Entries, Entry{strings.TrimRight(key, " \t"), strings.TrimLeft(value, " \t")})
	}
	if continued {
		return nil, errors.New("unit file ends in a continued line")
	}
	return f.sections, nil
}

func lineError(n int, msg string) error {
	return errors.New("line " + strconv.Itoa(n+1) + ": " + msg)
}

// SplitWords splits a value into words as systemd does, undoing Quote. Doubled
// "%" and "$" stay doubled.
func SplitWords(s string) ([]string, error) {
	var words []string
	for i := 0; ; {
		for i < len(s) && isSpace(s[i]) {
			i++
		}
		if i == len(s) {
			return words, nil
		}
		var w []byte
		var quote byte
		for ; i < len(s) && (quote != 0 || !isSpace(s[i])); i++ {
			c := s[i]
			switch {
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
			case c == quote && quote != 0:
				quote = 0
			case c == '\\':
				r, n := unescapeChar(s[i+1:])
				if n == 0 {
					return nil, errors.New("bad escape in " + strconv.Quote(s))
				}
				w = append(w, r)
				i += n
			default:
				w = append(w, c)
			}
		}
		if quote != 0 {
			return nil, errors.New("quote is not closed in " + strconv.Quote(s))
		}
		words = append(words, string(w))
	}
}

// unescapeChar decodes what follows a backslash.
func unescapeChar(s string) (c byte, n int) {
	if s == "" {
		return 0, 0
	}
	switch s[0] {
	case 'n':
		return '\n', 1
	case 't':
		return '\t', 1
	case 'r':
		return '\r', 1
	case 's':
		return ' ', 1
	case '"', '\\', '\'', ' ', ';':
		return s[0], 1
	case 'x':
		if len(s) >= 3 {
			if v, err := strconv.ParseUint(s[1:3], 16, 8); err == nil && v != 0 {
				return byte(v), 3
			}
		}
	}
	return 0, 0
}

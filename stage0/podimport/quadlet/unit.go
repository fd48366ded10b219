// Package quadlet turns the units of Podman's Quadlet into pod files.
package quadlet

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// entry is a line of a unit.
type entry struct {
	section, key, value string
	path                string
	line                int
}

// name is how the report calls it.
func (e entry) name() string { return e.section + "." + e.key }

// words splits the value as systemd does.
func (e entry) words() ([]string, error) {
	w, err := unitfile.SplitWords(e.value)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %s: %w", e.path, e.line, e.key, err)
	}
	return w, nil
}

// unit is a file of Quadlet, with its drop-ins.
type unit struct {
	path string
	// file is the name of the file, stem the name without what says its kind.
	file, stem, kind string
	entries          []entry
}

// template says that the unit is a template, whose stem ends in "@".
func (u *unit) template() bool { return strings.HasSuffix(u.stem, "@") }

// instanced says that specifiers of the instance have a meaning: a template, or
// an instance with a file of its own.
func (u *unit) instanced() bool { return strings.Contains(u.stem, "@") }

// get returns the last value of a key.
func (u *unit) get(section, key string) string {
	for _, e := range slices.Backward(u.entries) {
		if e.section == section && e.key == key {
			return e.value
		}
	}
	return ""
}

// service is the name of the service that Quadlet makes of the unit.
func (u *unit) service() string {
	section := strings.ToUpper(u.kind[:1]) + u.kind[1:]
	if s := u.get(section, "ServiceName"); s != "" {
		return strings.TrimSuffix(s, ".service") + ".service"
	}
	switch u.kind {
	case "container", "kube":
		return u.stem + ".service"
	}
	prefix, instance, at := strings.Cut(u.stem, "@")
	if at {
		return prefix + "-" + u.kind + "@" + instance + ".service"
	}
	return u.stem + "-" + u.kind + ".service"
}

func kinds() []string {
	return []string{"container", "pod", "volume", "network", "kube", "image", "build", "timer", "path"}
}

// Is reports whether a file is a unit, by its name.
func Is(path string) bool {
	ext := strings.TrimPrefix(filepath.Ext(path), ".")
	return ext != "" && slices.Contains(kinds(), ext)
}

// parse reads a file, and joins it to the unit.
func (u *unit) parse(s podimport.Source) error {
	section := ""
	pending, start, continued := "", 0, false
	for n, line := range strings.Split(string(s.Data), "\n") {
		line = strings.TrimSuffix(line, "\r")
		trimmed := strings.TrimSpace(line)
		comment := trimmed != "" && (trimmed[0] == '#' || trimmed[0] == ';')
		if comment || trimmed == "" && !continued {
			continue
		}
		if !continued {
			start = n + 1
		}
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			pending, continued = pending+rest+" ", true
			continue
		}
		line, pending, continued = strings.TrimSpace(pending+line), "", false
		if line == "" {
			continue
		}
		if strings.ContainsRune(line, 0) {
			return fmt.Errorf("%s:%d: a zero byte", s.Path, start)
		}
		if line[0] == '[' {
			if !strings.HasSuffix(line, "]") {
				return fmt.Errorf("%s:%d: bad section header %q", s.Path, start, line)
			}
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == "" {
			return fmt.Errorf("%s:%d: want KEY=VALUE in a section", s.Path, start)
		}
		e := entry{section, strings.TrimSpace(key), strings.TrimSpace(value), s.Path, start}
		if e.value == "" {
			// an empty value takes back what was said before
			u.entries = slices.DeleteFunc(u.entries, func(o entry) bool { return o.section == e.section && o.key == e.key })
			continue
		}
		u.entries = append(u.entries, e)
	}
	if continued {
		return fmt.Errorf("%s: the file ends in a continued line", s.Path)
	}
	return nil
}

// expand replaces specifiers by what they are for the unit, or by those of pod
// files; it returns those that only systemd could replace.
func (u *unit) expand(s string) (out string, unknown []string) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	literal := func(text string) string {
		if u.instanced() {
			return strings.ReplaceAll(text, "%", "%%")
		}
		return text
	}
	prefix, _, _ := strings.Cut(u.stem, "@")
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteString(literal(s[i : i+1]))
			continue
		}
		i++
		switch c := s[i]; c {
		case '%':
			b.WriteString(literal("%"))
		case 'i', 'I':
			if u.instanced() {
				b.WriteString("%" + string(c))
			}
		case 'p', 'P':
			b.WriteString(literal(prefix))
		case 'j', 'J':
			b.WriteString(literal(prefix[strings.LastIndexByte(prefix, '-')+1:]))
		case 'N', 'n':
			b.WriteString(literal(prefix))
			if u.instanced() {
				b.WriteString("@%i")
			}
			if c == 'n' {
				b.WriteString(".service")
			}
		case 'h':
			b.WriteString("/root")
		case 't':
			b.WriteString("/run")
		case 'S':
			b.WriteString("/var/lib")
		case 'C':
			b.WriteString("/var/cache")
		case 'L':
			b.WriteString("/var/log")
		case 'E':
			b.WriteString("/etc")
		case 'T':
			b.WriteString("/tmp")
		case 'V':
			b.WriteString("/var/tmp")
		case 'u', 'g':
			b.WriteString("root")
		case 'U', 'G':
			b.WriteString("0")
		case 's':
			b.WriteString("/bin/sh")
		default:
			b.WriteString(literal("%" + string(c)))
			unknown = append(unknown, "%"+string(c))
		}
	}
	return b.String(), unknown
}

// expandUnit does that for a directive of systemd, which knows the rest itself.
func (u *unit) expandUnit(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	prefix, _, _ := strings.Cut(u.stem, "@")
	name := prefix
	if u.instanced() {
		name += "@%i"
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 'p', 'P':
			b.WriteString(prefix)
		case 'N':
			b.WriteString(name)
		case 'n':
			b.WriteString(name + ".service")
		default:
			b.WriteString(s[i-1 : i+1])
		}
	}
	return b.String()
}

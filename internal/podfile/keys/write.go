package keys

import (
	"go/format"
	"strconv"
	"strings"
	"unicode"
)

// ListName is the variable of package podfile with the keys of an object.
func ListName(path string) string {
	switch path {
	case "":
		return "podKeys"
	case "apps[]":
		return "appKeys"
	case "apps[].app":
		return "sectionKeys"
	case "volumes[]":
		return "volumeKeys"
	case "ports[]":
		return "portKeys"
	}
	name := ""
	for part := range strings.SplitSeq(strings.Replace(path, "apps[]", "app", 1), ".") {
		part = strings.TrimSuffix(part, "[]")
		if part == "NAME" {
			continue
		}
		r := []rune(part)
		if name != "" {
			r[0] = unicode.ToUpper(r[0])
		}
		name += string(r)
	}
	return strings.TrimSuffix(name, "s") + "Keys"
}

// Lists is the source of the parser's lists of keys.
func Lists() ([]byte, error) {
	var b strings.Builder
	b.WriteString("// Code generated from the table of internal/podfile/keys; DO NOT EDIT.\n\npackage podfile\n\n" +
		"// Keys of each object, for suggestions; the parser's switches decide.\nvar (\n")
	order, of := objects(Table())
	for _, path := range order {
		if pairs(of[path]) {
			continue // one list for all of them
		}
		b.WriteString(ListName(path) + " = []string{")
		for _, k := range of[path] {
			_, name := parent(k.Path)
			b.WriteString(strconv.Quote(name) + ", ")
		}
		b.WriteString("}\n")
	}
	b.WriteString("pairKeys = []string{\"name\", \"value\"}\n)\n")
	return format.Source([]byte(b.String()))
}

// pairs reports whether an object is one of the many of a name and a value.
func pairs(keys []Key) bool {
	if len(keys) != 2 {
		return false
	}
	_, a := parent(keys[0].Path)
	_, b := parent(keys[1].Path)
	return a == "name" && b == "value"
}

// Man is the reference of the keys for rkt.pod(5).
func Man() string {
	var b strings.Builder
	order, of := objects(Table())
	for _, path := range order {
		if pairs(of[path]) {
			continue
		}
		heading := "The file"
		if path != "" {
			heading = path
		}
		b.WriteString(".SS " + roff(heading) + "\n")
		for _, k := range of[path] {
			_, name := parent(k.Path)
			b.WriteString(".TP\n\\fB" + roff(name) + "\\fR (" + roff(inWords(k.Type)) + ")\n" + roffLine(k.Text) + "\n")
			var notes []string
			if k.Default != "" {
				notes = append(notes, "Default: "+k.Default+".")
			}
			if k.Becomes != "" {
				notes = append(notes, "Becomes "+k.Becomes+".")
			}
			notes = append(notes, "Since "+k.Since+".")
			b.WriteString(".br\n" + roffLine(strings.Join(notes, " ")) + "\n")
		}
	}
	return b.String()
}

// roff escapes text for man pages.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\&...`).Replace(s)
}

// roffLine is a line of text, which must not look like a request.
func roffLine(s string) string {
	s = roff(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

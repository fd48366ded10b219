package keys

import "strings"

// atom is one alternative of a type, its argument in parentheses taken off.
type atom struct{ name, arg string }

// alternatives reads the notation of Key.Type.
func alternatives(typ string) []atom {
	var out []atom
	depth, start := 0, 0
	add := func(s string) {
		name, arg, _ := strings.Cut(s, "(")
		out = append(out, atom{name, strings.TrimSuffix(arg, ")")})
	}
	for i := 0; i < len(typ); i++ {
		switch typ[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 && strings.HasPrefix(typ[i:], " or ") {
			add(typ[start:i])
			start = i + len(" or ")
		}
	}
	add(typ[start:])
	return out
}

// words says a type in words.
func (a atom) words() string {
	switch a.name {
	case "pattern":
		return "string"
	case "path":
		return "absolute path"
	case "scalar":
		return "string, number or boolean"
	case "map":
		return "object of any names"
	case "directives":
		return "object of directives"
	case "list":
		return "list of " + plural(a.arg)
	case "enum":
		return strings.Join(strings.Fields(a.arg), "|")
	case "integer":
		lo, hi, _ := strings.Cut(a.arg, " ")
		return "number from " + lo + " to " + hi
	case "any":
		return "any value"
	}
	return a.name
}

func plural(typ string) string {
	var out []string
	for _, a := range alternatives(typ) {
		switch a.name {
		case "object", "string":
			out = append(out, a.name+"s")
		case "pattern":
			out = append(out, "strings")
		case "integer":
			out = append(out, "numbers")
		default:
			out = append(out, a.words())
		}
	}
	return strings.Join(out, " or ")
}

// inWords says a whole type in words.
func inWords(typ string) string {
	var out []string
	for _, a := range alternatives(typ) {
		out = append(out, a.words())
	}
	return strings.Join(out, ", or ")
}

// parent returns the path of the object that holds a key, and the key's own name.
func parent(path string) (string, string) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// objects returns the paths of all objects that have keys, in the order of the
// table, and their keys.
func objects(table []Key) ([]string, map[string][]Key) {
	var order []string
	of := map[string][]Key{}
	for _, k := range table {
		p, _ := parent(k.Path)
		if of[p] == nil {
			order = append(order, p)
		}
		of[p] = append(of[p], k)
	}
	return order, of
}

package keys

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/internal/podfile"
)

type object = map[string]any

// maker makes a schema of the table.
type maker struct{ of map[string][]Key }

// Schema is the JSON Schema of a pod file, of draft 2020-12. It holds for
// drop-ins, too: no key of the file itself is needed. Where the parser only
// warns, of a key it does not know, the schema refuses, for an editor shows
// both alike; what keys mean to each other is the parser's alone.
func Schema() ([]byte, error) {
	m := &maker{}
	_, m.of = objects(Table())
	root := m.object("", true)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "A pod of rkt: /etc/rkt/pods/NAME.json"
	root["description"] = "See rkt.pod(5)."
	root["$defs"] = object{
		"directive": object{
			"description": "A value as in a unit file; a list becomes one line each.",
			"anyOf":       []any{object{"$ref": "#/$defs/value"}, object{"type": "array", "items": object{"$ref": "#/$defs/value"}}},
		},
		"value": object{"type": []string{"string", "number", "boolean"}},
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// object is the schema of the object at a path. Parts of an object may lie in
// drop-ins, but a list comes from one file, so its entries are whole.
func (m *maker) object(path string, partial bool) object {
	properties := object{}
	var required []string
	for _, k := range m.of[path] {
		_, name := parent(k.Path)
		properties[name] = m.property(k, partial)
		if k.Default == "needed" && !partial {
			required = append(required, name)
		}
	}
	out := object{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		out["required"] = required
	}
	return out
}

func (m *maker) property(k Key, partial bool) object {
	text := k.Text
	if k.Default != "" {
		text += " Default: " + k.Default + "."
	}
	if k.Becomes != "" {
		text += " Becomes: " + k.Becomes + "."
	}
	out := object{"description": text}
	anyOf := m.alternatives(k.Path, k.Type, partial)
	if len(anyOf) == 1 && len(anyOf[0].(object)) == 0 {
		return out // any
	}
	// A null means an absent key; in a drop-in, one that is removed.
	anyOf = append(anyOf, object{"type": "null"})
	out["anyOf"] = anyOf
	return out
}

func (m *maker) alternatives(path, typ string, partial bool) []any {
	var out []any
	for _, a := range alternatives(typ) {
		out = append(out, m.atom(path, a, partial))
	}
	return out
}

// one is a schema for any of the alternatives of a type.
func (m *maker) one(path, typ string) object {
	all := m.alternatives(path, typ, false)
	if len(all) == 1 {
		return all[0].(object)
	}
	return object{"anyOf": all}
}

func (m *maker) atom(path string, a atom, partial bool) object {
	switch a.name {
	case "any":
		return object{}
	case "scalar":
		return object{"$ref": "#/$defs/value"}
	case "name":
		return pattern("^[a-z0-9]+(-[a-z0-9]+)*$")
	case "identifier":
		return pattern("^[a-z0-9]+([-._~/][a-z0-9]+)*$")
	case "path":
		return pattern("^/")
	case "pattern":
		return pattern(a.arg)
	case "enum":
		return object{"enum": strings.Fields(a.arg)}
	case "integer":
		lo, hi, _ := strings.Cut(a.arg, " ")
		return object{"type": "integer", "minimum": json.Number(lo), "maximum": json.Number(hi)}
	case "list":
		return object{"type": "array", "items": m.one(path+"[]", a.arg)}
	case "map":
		return object{"type": "object", "additionalProperties": m.one(path+".NAME", a.arg)}
	case "directives":
		return directives(a.arg)
	case "object":
		if a.arg != "" {
			path = a.arg
		}
		return m.object(path, partial)
	}
	return object{"type": a.name}
}

// pattern is a string of this form, or one in which a template has a specifier.
func pattern(re string) object { return object{"type": "string", "pattern": re + "|%"} }

// directives lists what systemd knows, for completion, and refuses what breaks
// a pod. Others are systemd's to judge.
func directives(section string) object {
	ref := object{"$ref": "#/$defs/directive"}
	properties := object{}
	if name, ok := strings.CutPrefix(section, "app-"); ok {
		for _, k := range appunit.Known(name) {
			properties[k] = ref
		}
		if name == "unit" {
			for _, k := range podfile.AppOrder() {
				properties[k] = object{"anyOf": []any{object{"type": "string"}, object{"type": "array", "items": object{"type": "string"}}}}
			}
		}
		for name := range properties {
			properties[name] = orNull(properties[name].(object))
		}
		return object{"type": "object", "additionalProperties": false, "properties": properties}
	}
	for _, k := range podfile.Directives(section) {
		if reason := podfile.Refused(section, k); reason != "" {
			properties[k] = object{"description": strconv.Quote(k) + " cannot be set: " + reason, "type": "null"}
		} else {
			properties[k] = orNull(ref)
		}
	}
	return object{"type": "object", "additionalProperties": false, "properties": properties,
		"patternProperties": object{"^[A-Z][A-Za-z0-9-]*$": object{}}}
}

func orNull(o object) object { return object{"anyOf": []any{o, object{"type": "null"}}} }

// Package jsonpos decodes JSON into a tree in which every key and every value
// knows the file, line and column it came from, so that whoever checks the
// tree can point at the place. It accepts what people write by hand: comments
// and trailing commas (JWCC). Everything else is as strict as RFC 8259, and
// stricter in two points: a key that occurs twice in one object and text that
// is not UTF-8 are errors.
//
// The input is hostile: its size and its depth are limited, and decoding takes
// time and memory linear in the size. The package imports neither
// encoding/json nor reflect, since the generator starts at every boot.
//
// Any package may import it; it imports only the standard library.
package jsonpos

import "strconv"

// Limits of a document.
const (
	MaxSize  = 1 << 20
	MaxDepth = 64
	// MaxValues bounds what a small text can blow up to in memory.
	MaxValues = 1 << 16
)

// Kind is the JSON type of a value.
type Kind uint8

// The JSON types.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// String names the kind as a message to a person would.
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Bool:
		return "a boolean"
	case Number:
		return "a number"
	case String:
		return "a string"
	case Array:
		return "a list"
	case Object:
		return "an object"
	}
	return "kind " + strconv.Itoa(int(k))
}

// Pos is a place in a file. Line and Column count from 1; a column counts
// characters, as editors do. Line 0 means the file as a whole.
type Pos struct {
	File   string
	Line   int
	Column int
}

// String returns "file:line:column".
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
}

// Value is one JSON value.
type Value struct {
	Kind Kind
	Pos  Pos
	// Text is a string's content, or a number exactly as written.
	Text string
	// Bool is a boolean's value.
	Bool bool
	// Items are an array's elements.
	Items []*Value
	// Members are an object's members in the order of the file.
	Members []Member
}

// Member is a key and value of an object.
type Member struct {
	Key   string
	Pos   Pos // of the key
	Value *Value
}

// Member returns the value of a key, or nil. It serves nil and values that
// are no objects too, so that look-ups chain.
func (v *Value) Member(key string) *Value {
	if v == nil {
		return nil
	}
	for i := range v.Members {
		if v.Members[i].Key == key {
			return v.Members[i].Value
		}
	}
	return nil
}

// Error says what is wrong at a place.
type Error struct {
	Pos Pos
	Msg string
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Msg }

// AppendJSON appends v as compact standard JSON: no comments, no trailing
// commas, members in order.
func (v *Value) AppendJSON(b []byte) []byte {
	if v == nil {
		return append(b, "null"...)
	}
	switch v.Kind {
	case Bool:
		return strconv.AppendBool(b, v.Bool)
	case Number:
		return append(b, v.Text...)
	case String:
		return AppendString(b, v.Text)
	case Array:
		b = append(b, '[')
		for i, it := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = it.AppendJSON(b)
		}
		return append(b, ']')
	case Object:
		b = append(b, '{')
		for i, m := range v.Members {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendString(b, m.Key)
			b = append(b, ':')
			b = m.Value.AppendJSON(b)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

// AppendString appends s as a JSON string. s must be UTF-8.
func AppendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

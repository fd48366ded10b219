package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits on any document.
const (
	maxDepth  = 32
	maxValues = 1 << 17 // bounds what a small text can blow up to in memory
)

// decode reads a JSON document into maps, slices, strings and json.Numbers.
// Programs that read a document differently can be played off against each
// other, so what they do not agree on is refused: a member given twice, text
// that is not UTF-8, data after the end.
func decode(data []byte, limit int) (any, error) {
	if len(data) > limit {
		return nil, fmt.Errorf("larger than %d bytes", limit)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("it is not UTF-8 text")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	d := decoder{dec: dec}
	v, err := d.value(0)
	if err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			before := data[:min(int64(len(data)), dec.InputOffset())]
			return nil, fmt.Errorf("bad JSON in line %d: %w", 1+bytes.Count(before, []byte("\n")), err)
		}
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bad JSON: data after the end of the document")
	}
	return v, nil
}

type decoder struct {
	dec   *json.Decoder
	count int
}

func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	if d.count++; d.count > maxValues {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	tok, err := d.dec.Token()
	if err != nil {
		return nil, unexpected(err)
	}
	switch tok {
	case json.Delim('{'):
		return d.object(depth)
	case json.Delim('['):
		list := []any{}
		for d.dec.More() {
			v, err := d.value(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.dec.Token()
		return list, unexpected(err)
	}
	return tok, nil
}

func (d *decoder) object(depth int) (any, error) {
	m := map[string]any{}
	for d.dec.More() {
		tok, err := d.dec.Token()
		if err != nil {
			return nil, unexpected(err)
		}
		key, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("bad JSON: a member's name is %v", tok)
		}
		if _, twice := m[key]; twice {
			return nil, fmt.Errorf("the member %q is given twice", clip(key))
		}
		if m[key], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	_, err := d.dec.Token()
	return m, unexpected(err)
}

// unexpected says that a document stopped, where the library says EOF.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// reader takes values out of a decoded document and keeps the first error.
type reader struct{ err error }

func (r *reader) fail(at, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", at, fmt.Errorf(format, args...))
	}
}

// object returns v's members; null counts as absent. A member that is spelt
// like a known one but for the case of letters is refused: some programs would
// take it for that one.
func (r *reader) object(at string, v any, known ...string) map[string]any {
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		r.fail(at, "not a JSON object")
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		for _, k := range known {
			if key != k && strings.EqualFold(key, k) {
				r.fail(at, "the member %q must be spelt %q", clip(key), k)
			}
		}
	}
	return m
}

func (r *reader) str(at string, m map[string]any, key string) string {
	v := m[key]
	if v == nil {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		r.fail(at+"."+key, "not a string")
	}
	return s
}

// text is a string without control characters, of at most max bytes.
func (r *reader) text(at string, m map[string]any, key string, max int) string {
	s := r.str(at, m, key)
	if len(s) > max {
		r.fail(at+"."+key, "longer than %d bytes", max)
	}
	if strings.ContainsFunc(s, control) {
		r.fail(at+"."+key, "%q holds control characters", clip(s))
	}
	return s
}

func control(c rune) bool { return c < ' ' || c == 0x7f }

func (r *reader) list(at string, m map[string]any, key string, max int) []any {
	v := m[key]
	if v == nil {
		return nil
	}
	l, ok := v.([]any)
	if !ok {
		r.fail(at+"."+key, "not a list")
	}
	if len(l) > max {
		r.fail(at+"."+key, "%d elements, more than %d", len(l), max)
		return nil
	}
	return l
}

// strs is a list of strings without NUL, which no system call can carry.
func (r *reader) strs(at string, m map[string]any, key string, max int) []string {
	var out []string
	for i, v := range r.list(at, m, key, max) {
		s, ok := v.(string)
		if !ok {
			r.fail(fmt.Sprintf("%s.%s[%d]", at, key, i), "not a string")
		}
		if strings.ContainsRune(s, 0) {
			r.fail(fmt.Sprintf("%s.%s[%d]", at, key, i), "%q holds a NUL", clip(s))
		}
		out = append(out, s)
	}
	return out
}

// stringMap is an object whose values are strings.
func (r *reader) stringMap(at string, m map[string]any, key string, max int) map[string]string {
	at += "." + key
	in := r.object(at, m[key])
	if len(in) > max {
		r.fail(at, "%d members, more than %d", len(in), max)
		return nil
	}
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		s, ok := v.(string)
		if !ok {
			r.fail(at, "the member %q is not a string", clip(k))
		}
		out[k] = s
	}
	return out
}

// keys are the sorted names of an object's members.
func (r *reader) keys(at string, m map[string]any, key string, max int) []string {
	in := r.object(at+"."+key, m[key])
	if len(in) > max {
		r.fail(at+"."+key, "%d members, more than %d", len(in), max)
		return nil
	}
	return slices.Sorted(maps.Keys(in))
}

func (r *reader) size(at string, m map[string]any, key string, max int64) int64 {
	n, ok := m[key].(json.Number)
	if !ok {
		r.fail(at+"."+key, "missing, or not a number")
		return 0
	}
	v, err := strconv.ParseInt(n.String(), 10, 64)
	switch {
	case err != nil:
		r.fail(at+"."+key, "%s is not a number of bytes", clip(n.String()))
	case v < 0:
		r.fail(at+"."+key, "%d is negative", v)
	case v > max:
		r.fail(at+"."+key, "%d is more than %d", v, max)
	}
	return v
}

package jsonpos

import (
	"fmt"
	"strings"
	"testing"
)

// patched applies patch to base as RFC 7396 says and returns the result, which
// shares parts with both; neither is changed. A null in the patch removes the
// member, lists are replaced whole, and every part keeps its position. Merge
// is compared with it.
func patched(base, patch *Value) *Value {
	if patch == nil {
		return base
	}
	if patch.Kind != Object {
		return patch
	}
	out := &Value{Kind: Object, Pos: patch.Pos}
	if base != nil && base.Kind == Object {
		out.Pos = base.Pos
		out.Members = make([]Member, len(base.Members), len(base.Members)+len(patch.Members))
		copy(out.Members, base.Members)
	}
	// Large objects get an index, so that hostile input stays linear.
	index := make(map[string]int, len(out.Members))
	for i, m := range out.Members {
		index[m.Key] = i
	}
	for _, m := range patch.Members {
		i, ok := index[m.Key]
		switch {
		case m.Value.Kind == Null && ok:
			out.Members[i].Value = nil
		case m.Value.Kind == Null:
		case ok:
			m.Value = patched(out.Members[i].Value, m.Value)
			out.Members[i] = m
		default:
			m.Value = patched(nil, m.Value)
			index[m.Key] = len(out.Members)
			out.Members = append(out.Members, m)
		}
	}
	kept := out.Members[:0]
	for _, m := range out.Members {
		if m.Value != nil {
			kept = append(kept, m)
		}
	}
	out.Members = kept
	return out
}

func TestPatched(t *testing.T) {
	// The cases of RFC 7396, appendix A.
	for _, c := range []struct{ base, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		base, _ := Decode("a", []byte(c.base))
		patch, _ := Decode("b", []byte(c.patch))
		if got := string(patched(base, patch).AppendJSON(nil)); got != c.want {
			t.Errorf("patched(%s, %s) = %s, want %s", c.base, c.patch, got, c.want)
		}
		if got := string(base.AppendJSON(nil)); got != c.base {
			t.Errorf("patched changed its base %s to %s", c.base, got)
		}
	}
}

// FuzzMerge: all at once is the same as one after the other.
func FuzzMerge(f *testing.F) {
	f.Add(`{"a":1,"b":{"c":null,"d":{"e":2}},"n":null}`, `{"a":null,"b":{"d":{"f":3}}}`, `{"a":4,"b":{"d":{"e":null}}}`)
	f.Add(`{"a":{"b":1}}`, `{"a":[1]}`, `{"a":{"c":null,"d":1}}`)
	f.Add(`{"a":{"b":1},"z":0}`, `{"a":null}`, `{"z":1,"a":{"c":2}}`)
	f.Add(`{"a":1}`, `{"a":{"b":{"c":null}}}`, `{"a":{"b":{"d":1}}}`)
	f.Fuzz(func(t *testing.T, one, two, three string) {
		var want *Value
		var docs []*Value
		for i, text := range []string{one, two, three} {
			v, _ := Decode(fmt.Sprint(i), []byte(text))
			if v == nil || v.Kind != Object {
				return
			}
			docs = append(docs, v)
			want = patched(want, v)
			if got := shown(Merge(docs)); got != shown(want) {
				t.Fatalf("merge of %s, %s, %s is\n%s, want\n%s", one, two, three, got, shown(want))
			}
		}
	})
}

// shown is a tree with its positions.
func shown(v *Value) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v:%d:%s:%v", v.Pos, v.Kind, v.Text, v.Bool)
	for _, it := range v.Items {
		b.WriteString("[" + shown(it) + "]")
	}
	for _, m := range v.Members {
		fmt.Fprintf(&b, "{%v %q %s}", m.Pos, m.Key, shown(m.Value))
	}
	return b.String()
}

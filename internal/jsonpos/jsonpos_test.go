package jsonpos

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPositions(t *testing.T) {
	v, errs := Decode("f", []byte("// c\n{\"a\": [1,\n  \"ü\", true], /* x\ny */ \"b\" : {\"c\": null},\n}\n"))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, c := range []struct {
		got  Pos
		want string
	}{
		{v.Pos, "f:2:1"},
		{v.Members[0].Pos, "f:2:2"},
		{v.Member("a").Pos, "f:2:7"},
		{v.Member("a").Items[0].Pos, "f:2:8"},
		{v.Member("a").Items[1].Pos, "f:3:3"},
		{v.Member("a").Items[2].Pos, "f:3:8"},
		{v.Members[1].Pos, "f:4:6"},
		{v.Member("b").Member("c").Pos, "f:4:18"},
	} {
		if got := c.got.String(); got != c.want {
			t.Errorf("position %s, want %s", got, c.want)
		}
	}
	if v.Member("x").Member("y") != nil {
		t.Error("a missing member is not nil")
	}
}

func TestErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "f:1:1: file holds no value",
		" // x":                                 "f:1:6: file holds no value",
		"{":                                     "f:1:2: unexpected end of file, want a key in double quotes",
		"[1 2]":                                 "f:1:4: unexpected '2', want ',' or ']' in a list",
		"[1,,2]":                                "f:1:4: unexpected ',', want a value",
		"[,]":                                   "f:1:2: unexpected ',', want a value",
		"{\"a\" 1}":                             "f:1:6: unexpected '1', want ':' after a key",
		"1 2":                                   "f:1:3: unexpected '2' after the value",
		"01":                                    "f:1:1: a number must not begin with 0",
		"-":                                     "f:1:1: number is not complete",
		"1.":                                    "f:1:1: number is not complete",
		"\"a\nb\"":                              "f:1:3: string is not closed on its line",
		"\"a":                                   "f:1:1: string is not closed",
		"\"a\\":                                 "f:1:3: unknown escape in a string",
		`"\x"`:                                  "f:1:2: unknown escape in a string",
		"\"\xff\"":                              "f:1:2: string is not valid UTF-8",
		"\"\x01\"":                              `f:1:2: control character '\x01' in a string, write it as an escape`,
		"[\n/* x":                               "f:2:1: comment is not closed",
		"/":                                     "f:1:1: unexpected '/'",
		"nul":                                   "f:1:1: unexpected 'n', want a value",
		"{\"a\":1,\n\"a\":2}":                   `f:2:1: duplicate key "a", first seen on line 1`,
		strings.Repeat("[", 65):                 "f:1:65: nested deeper than 64 levels",
		"[" + strings.Repeat("1,", 1<<16) + "]": "f:1:131072: file has more than 65536 values",
		strings.Repeat(" ", 1<<21):              "f: file is larger than 1048576 bytes",
	} {
		_, errs := Decode("f", []byte(in))
		if len(errs) != 1 || errs[0].Error() != want {
			t.Errorf("Decode(%.20q) = %v, want %s", in, errs, want)
		}
	}
}

// FuzzDecode compares with encoding/json: what it accepts is accepted with the
// same meaning, but for duplicate keys and text that is not UTF-8; what comes
// out is JSON it accepts.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e+3,true,null,"\u00e9\ud83d\ude00\ud800"]}`, "[1,]", "// x\n{}", `"\u0000"`, "\xef\xbb\xbf1", "[[[]]]", `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, errs := Decode("f", data)
		var want any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		valid := json.Valid(data) && dec.Decode(&want) == nil
		if valid && v == nil && utf8.Valid(data) && !strings.Contains(errs[0].Msg, "deeper") && !strings.Contains(errs[0].Msg, "values") {
			t.Fatalf("%q is refused: %v", data, errs)
		}
		if v == nil {
			if len(errs) == 0 {
				t.Fatalf("%q: neither value nor error", data)
			}
			return
		}
		out := v.AppendJSON(nil)
		var got any
		dec = json.NewDecoder(bytes.NewReader(out))
		dec.UseNumber()
		if err := dec.Decode(&got); err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		if valid && len(errs) == 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q", data, out)
		}
		again, errs2 := Decode("f", out)
		if len(errs) == 0 && (len(errs2) > 0 || !bytes.Equal(again.AppendJSON(nil), out)) {
			t.Fatalf("%q does not survive a second time: %v", out, errs2)
		}
	})
}

func BenchmarkDecodeLarge(b *testing.B) {
	data := []byte("[" + strings.Repeat(`{"key": "value", "n": [1, 2, 3]},`+"\n", 10000) + "]")
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if v, errs := Decode("f", data); v == nil {
			b.Fatal(errs)
		}
	}
}

func BenchmarkDecodeNumbers(b *testing.B) {
	data := []byte("[" + strings.Repeat("1,", 60000) + "]")
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if v, errs := Decode("f", data); v == nil {
			b.Fatal(errs)
		}
	}
}

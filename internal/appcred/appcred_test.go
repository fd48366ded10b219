package appcred

import (
	"reflect"
	"strings"
	"testing"
)

func TestDecodeIsTheInverse(t *testing.T) {
	want := []Credential{{Name: "db"}, {Name: "tls.key", File: "/etc/ssl/key", Env: "TLS_KEY_FILE"}, {Name: "x", Env: "X"}}
	got, err := Decode(Encode(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		c    []Credential
		want string
	}{
		{[]Credential{{Name: "a"}, {Name: "b", File: "/a/b", Env: "A_FILE"}}, ""},
		{[]Credential{{Name: "../x"}}, "no name of a credential"},
		{[]Credential{{Name: ".x"}}, "no name of a credential"},
		{[]Credential{{Name: "a b"}}, "no name of a credential"},
		{[]Credential{{Name: "a"}, {Name: "a"}}, "given twice"},
		{[]Credential{{Name: "a", File: "/x"}, {Name: "b", File: "/x"}}, "given twice"},
		{[]Credential{{Name: "a", Env: "X"}, {Name: "b", Env: "X"}}, "given twice"},
		{[]Credential{{Name: "a", File: "x"}}, "no absolute path"},
		{[]Credential{{Name: "a", File: "/x/../y"}}, "no absolute path"},
		{[]Credential{{Name: "a", File: "/"}}, "no absolute path"},
		{[]Credential{{Name: "a", File: "/proc/x"}}, "into /proc"},
		{[]Credential{{Name: "a", Env: "1A"}}, "no name of a variable"},
		{[]Credential{{Name: "a", Env: "A=B"}}, "no name of a variable"},
		{[]Credential{{Name: "a", Env: "CREDENTIALS_DIRECTORY"}}, "set by rkt"},
		{make([]Credential, MaxCredentials+1), "128"},
	} {
		got := Check(c.c)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.c, got, c.want)
		}
		if _, err := Decode(Encode(c.c)); (err == nil) != (c.want == "") {
			t.Errorf("%v: decoded: %v", c.c, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode([]Credential{{Name: "db", File: "/x", Env: "Y"}}))
	f.Add(`[["a","",""],["b"]]`)
	f.Fuzz(func(t *testing.T, s string) {
		cs, err := Decode(s)
		if err == nil && Check(cs) != "" {
			t.Errorf("%q: %v", s, cs)
		}
	})
}

package hostsfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// check list: runtime 28
func TestParseResolv(t *testing.T) {
	for _, c := range []struct {
		name                 string
		dns, search, options []string
		domain, mode, text   string
		err                  string
	}{
		{name: "nothing", mode: "default"},
		{name: "all", dns: []string{"1.1.1.1,8.8.8.8", "2001:db8::1"}, search: []string{"a.example", "b"}, options: []string{"ndots:2", "rotate"}, domain: "d.example",
			mode: "stage0", text: "# c\n\nsearch a.example b\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver 2001:db8::1\noptions ndots:2 rotate\ndomain d.example\n"},
		{name: "servers", dns: []string{"1.1.1.1"}, mode: "stage0", text: "# c\n\nnameserver 1.1.1.1\n"},
		{name: "search only", search: []string{"a"}, mode: "stage0", text: "# c\n\nsearch a\n"},
		{name: "host", dns: []string{"host"}, mode: "host"},
		{name: "none", dns: []string{"none"}, mode: "none"},
		{name: "none and more", dns: []string{"none", "1.1.1.1"}, err: "no other --dns options allowed when --dns=none"},
		{name: "host and more", dns: []string{"1.1.1.1,host"}, err: "no other --dns options allowed when --dns=host"},
		{name: "host and search", dns: []string{"host"}, search: []string{"x"}, err: "when --dns=host"},
		{name: "none and domain", dns: []string{"none"}, domain: "x", err: "when --dns=none"},
		{name: "no address", dns: []string{"example.com"}, err: `name server "example.com" is no IP address`},
		{name: "empty", dns: []string{""}, err: "is no IP address"},
		{name: "a second line", search: []string{"x\nnameserver 6.6.6.6"}, err: "search domain"},
		{name: "an option with a space", options: []string{"a b"}, err: "resolver option"},
		{name: "a comment", domain: "x#y", err: "domain"},
	} {
		r, mode, err := ParseResolv(c.dns, c.search, c.options, c.domain)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || mode != c.mode {
			t.Errorf("%s: mode %q, %v", c.name, mode, err)
		}
		if mode == "stage0" && r.String("c") != c.text {
			t.Errorf("%s:\n%s", c.name, cmp.Diff(c.text, r.String("c")))
		}
	}
}

func TestParseEntries(t *testing.T) {
	got, host, err := ParseEntries([]string{"10.0.0.1=a,10.0.0.2=b", "10.0.0.1=c", "::1=d"})
	want := []Entry{{"10.0.0.1", []string{"a", "c"}}, {"10.0.0.2", []string{"b"}}, {"::1", []string{"d"}}}
	if d := cmp.Diff(want, got); err != nil || host || d != "" {
		t.Errorf("%v %v\n%s", host, err, d)
	}
	if text := Hosts("me", got); !strings.HasPrefix(text, Fallback("me")) || !strings.HasSuffix(text, "\n10.0.0.1 a c\n10.0.0.2 b\n::1 d\n") {
		t.Errorf("hosts file:\n%s", text)
	}
	if e, host, err := ParseEntries([]string{"host", "host"}); len(e) > 0 || !host || err != nil {
		t.Error(e, host, err)
	}
	for arg, want := range map[string]string{"x": "neither", "1.2.3=a": "no IP address", "1.2.3.4=": "is empty", "1.2.3.4=a b": "cannot stand there",
		"1.2.3.4=a\nb": "cannot stand there", "host,1.2.3.4=a": "no other entries", "": "neither", "fe80::1%eth0=a": "no IP address"} {
		if e, _, err := ParseEntries([]string{arg}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseEntries(%q) = %v, %v, want %q", arg, e, err, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	f.Add("1.2.3.4=a,::1=b", "1.1.1.1", "x")
	f.Add("host", "none", "a\nb")
	f.Fuzz(func(t *testing.T, entry, dns, search string) {
		if e, _, err := ParseEntries([]string{entry}); err == nil {
			text := Hosts("h", e)
			if got := strings.Count(text, "\n"); got != strings.Count(Hosts("h", nil), "\n")+len(e) {
				t.Errorf("%q makes %d lines", entry, got)
			}
		}
		if r, mode, err := ParseResolv([]string{dns}, []string{search}, nil, ""); err == nil && mode == "stage0" {
			if got := strings.Count(r.String("c"), "\n"); got != 3+len(r.Servers) {
				t.Errorf("%q %q make %d lines", dns, search, got)
			}
		}
	})
}

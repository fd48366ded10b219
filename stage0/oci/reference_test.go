package oci

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// check list: 7
func TestParseReference(t *testing.T) {
	digest := digestOf("x")
	for _, c := range []struct{ in, want, display, name string }{
		{"redis", "registry-1.docker.io/library/redis:latest", "redis", "registry-1.docker.io/library/redis"},
		{"//redis", "registry-1.docker.io/library/redis:latest", "redis", "registry-1.docker.io/library/redis"},
		{"///redis", "registry-1.docker.io/library/redis:latest", "redis", "registry-1.docker.io/library/redis"},
		{"redis:7.2", "registry-1.docker.io/library/redis:7.2", "redis:7.2", "registry-1.docker.io/library/redis"},
		{"a/b", "registry-1.docker.io/a/b:latest", "a/b", "registry-1.docker.io/a/b"},
		{"docker.io/redis", "registry-1.docker.io/library/redis:latest", "redis", "registry-1.docker.io/library/redis"},
		{"index.docker.io/library/redis:latest", "registry-1.docker.io/library/redis:latest", "redis", "registry-1.docker.io/library/redis"},
		{"Docker.IO/redis", "registry-1.docker.io/library/redis:latest", "redis", "registry-1.docker.io/library/redis"},
		{"docker.io/library/localhost", "registry-1.docker.io/library/localhost:latest", "localhost", "registry-1.docker.io/library/localhost"},
		{"docker.io/localhost/x", "registry-1.docker.io/localhost/x:latest", "registry-1.docker.io/localhost/x", "registry-1.docker.io/localhost/x"},
		{"localhost/x", "localhost/x:latest", "localhost/x", "localhost/x"},
		{"localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x", "localhost_5000/x"},
		{"127.0.0.1:05000/x/y:t", "127.0.0.1:5000/x/y:t", "127.0.0.1:5000/x/y:t", "127.0.0.1_5000/x/y"},
		{"[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x", "1_5000/x"},
		{"[0:0::1]/x:t", "[::1]/x:t", "[::1]/x:t", "1/x"},
		{"redis:7@" + digest, "registry-1.docker.io/library/redis:7@" + digest, "redis:7@" + digest, "registry-1.docker.io/library/redis"},
		{"quay.io/a/b@" + digest, "quay.io/a/b@" + digest, "quay.io/a/b@" + digest, "quay.io/a/b"},
		{"redis:latest@" + digest, "registry-1.docker.io/library/redis:latest@" + digest, "redis:latest@" + digest, "registry-1.docker.io/library/redis"},
		{"ghcr.io/a__b/c--d:X_1", "ghcr.io/a__b/c--d:X_1", "ghcr.io/a__b/c--d:X_1", "ghcr.io/a_b/c-d"},
	} {
		r, err := ParseReference(c.in)
		if err != nil || r.String() != c.want || r.Display() != c.display || r.Name() != c.name {
			t.Errorf("ParseReference(%q) = %q, display %q, name %q, error %v", c.in, r, r.Display(), r.Name(), err)
		}
	}
	long := strings.Repeat("a", 300)
	for _, c := range []struct{ in, err string }{
		{"", "no repository"}, {"//", "no repository"}, {"////x", "bad repository"}, {"a.com/", "no repository"},
		{"Redis", "lower case"}, {"a.com/Redis", "lower case"}, {"a b", "bad repository"}, {"a//b", "bad repository"},
		{"a.com/../b", "bad repository"}, {"a.com/b/../c", "bad repository"}, {"-a", "bad repository"}, {"a_", "bad repository"},
		{"a:", "bad tag"}, {"a:-x", "bad tag"}, {"a:x/y", "bad host"}, {"a:" + strings.Repeat("t", 129), "bad tag"}, {"a:b:c", "bad repository"},
		{"a@sha512:" + long, `algorithm "sha512" is not supported`}, {"a@sha256:AB", "bad digest"}, {"a@", "bad digest"},
		{"a@" + strings.ToUpper(digest), "not supported"}, {"a@" + digest + "@" + digest, "bad digest"},
		{"a.com:0/x", "port"}, {"a.com:65536/x", "port"}, {"a.com:x/y", "port"}, {"a..com/x", "bad host"}, {"-a.com/x", "bad host"},
		{"[::1/x", "bad host"}, {"[1.2.3.4]/x", "IPv6"}, {"[fe80::1%eth0]/x", "IPv6"}, {"user@host/x", "bad digest"}, {"u:p@a.com/x", "bad digest"},
		{"a.com/" + long, "more than 255"}, {strings.Repeat("a", 5000), "longer than"}, {"a.com/x?y", "bad repository"}, {"ä.com/x", "bad host"},
	} {
		if r, err := ParseReference(c.in); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("ParseReference(%q) = %v, %v, want error %q", c.in, r, err, c.err)
		}
	}
}

func TestParseLayoutRef(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	digest := digestOf("x")
	for _, c := range []struct{ in, want string }{
		{"/x", "/x"}, {"x", filepath.Join(dir, "x")}, {"/a/../b:v1", "/b:v1"}, {"/x:@3", "/x:@3"}, {"/x:@03", "/x:@3"},
		{"/x@" + digest, "/x@" + digest}, {"/x:@" + digest, "/x@" + digest}, {"/x:docker.io/a:7", "/x:docker.io/a:7"}, {"/a@b", "/a@b"}, {"/a@b:c", "c"},
	} {
		r, err := ParseLayoutRef(c.in)
		if c.want == "c" { // what looks like a digest must be one
			if err == nil {
				t.Errorf("ParseLayoutRef(%q) = %v", c.in, r)
			}
			continue
		}
		if err != nil || r.String() != c.want {
			t.Errorf("ParseLayoutRef(%q) = %q, %v, want %q", c.in, r, err, c.want)
		}
		if again, err := ParseLayoutRef(r.String()); again != r || err != nil {
			t.Errorf("ParseLayoutRef(%q) = %+v, %v, want %+v", r, again, err, r)
		}
	}
	for _, c := range []struct{ in, err string }{
		{"", "no path"}, {":x", "no path"}, {"/x:", "nothing follows"}, {"/x:@", "bad selection"}, {"/x:@-1", "bad selection"}, {"/x:@1024", "bad selection"},
		{"/x@sha512:ab", "not supported"}, {"/x:@sha256:ab", "bad digest"}, {"/x\x00", "control"},
	} {
		if r, err := ParseLayoutRef(c.in); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("ParseLayoutRef(%q) = %v, %v, want error %q", c.in, r, err, c.err)
		}
	}
	for in, want := range map[string]string{
		"/x": "/x", "/x:redis": "/x:registry-1.docker.io/library/redis:latest", "/x:a/b:1": "/x:registry-1.docker.io/a/b:1", "/x:@0": "/x:@0",
	} {
		r, err := ParseDockerArchiveRef(in)
		if err != nil || r.String() != want {
			t.Errorf("ParseDockerArchiveRef(%q) = %q, %v", in, r, err)
		}
	}
	for _, in := range []string{"/x@" + digest, "/x:redis@" + digest, "/x:UPPER"} {
		if r, err := ParseDockerArchiveRef(in); err == nil {
			t.Errorf("ParseDockerArchiveRef(%q) = %v", in, r)
		}
	}
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"redis", "a.com:5000/b/c:t@" + digestOf("x"), "[::1]:5000/x", "///x", "docker.io/a__b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseLayoutRef(s); err == nil {
			if again, err := ParseLayoutRef(l.String()); err != nil || again != l {
				t.Errorf("layout %q: %q parses to %+v, %v", s, l, again, err)
			}
		}
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		for _, form := range []string{r.String(), r.Display()} {
			if again, err := ParseReference(form); err != nil || again != r {
				t.Errorf("%q: %q parses to %+v, %v", s, form, again, err)
			}
		}
		if err := appc.CheckName(r.Name()); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}

package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRef(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, f := range []string{"example.com", "x:y"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		in   string
		want Ref
		err  string
	}{
		{"sha512-ABc", Ref{Kind: KindHash, Hash: "sha512-abc"}, ""},
		{"sha512-not-a-hash", Ref{}, "bad image ID"},
		{"sha512-", Ref{}, "bad image ID"},
		{"sha512-xyz", Ref{}, "bad image ID"},
		{"docker:redis", Ref{Kind: KindDocker, Rest: "redis"}, ""},
		{"docker://redis", Ref{Kind: KindDocker, Rest: "redis"}, ""},
		{"oci:/x:y", Ref{Kind: KindOCI, Rest: "/x:y"}, ""},
		{"oci://host/x", Ref{}, "docker://host/x"},
		{"oci-archive:x.tar", Ref{Kind: KindOCIArchive, Rest: "x.tar"}, ""},
		{"docker-archive:x.tar", Ref{Kind: KindDockerArchive, Rest: "x.tar"}, ""},
		{"http://a.com/x.aci", Ref{Kind: KindURL, URL: "http://a.com/x.aci"}, ""},
		{"https://a.com/x?y#z", Ref{Kind: KindURL, URL: "https://a.com/x?y#z"}, ""},
		{"https:///x", Ref{}, "no host"},
		{"https://u:p@a.com/x", Ref{}, "auth.d"},
		{"file:///a%20b.aci", Ref{Kind: KindPath, Path: "/a b.aci"}, ""},
		{"file://host/a", Ref{}, "no host"},
		{"file:a", Ref{}, "absolute"},
		{"/a/../b", Ref{Kind: KindPath, Path: "/b"}, ""},
		{"./x", Ref{Kind: KindPath, Path: dir + "/x"}, ""},
		{"../x", Ref{Kind: KindPath, Path: filepath.Dir(dir) + "/x"}, ""},
		{"x.aci", Ref{Kind: KindPath, Path: dir + "/x.aci"}, ""},
		{"example.com", Ref{Kind: KindPath, Path: dir + "/example.com"}, ""},
		{"x:y", Ref{Kind: KindPath, Path: dir + "/x:y"}, ""},
		{"appc:example.com", Ref{Kind: KindName, Name: "example.com", Labels: map[string]string{}}, ""},
		{"example.com/a", Ref{Kind: KindName, Name: "example.com/a", Labels: map[string]string{}}, ""},
		{"example.com/a:1.2", Ref{Kind: KindName, Name: "example.com/a", Labels: map[string]string{"version": "1.2"}}, ""},
		{"a.com/b:1,os=linux,x=y z", Ref{Kind: KindName, Name: "a.com/b", Labels: map[string]string{"version": "1", "os": "linux", "x": "y z"}}, ""},
		{"a:1,version=1", Ref{}, "given twice"},
		{"a:1:2", Ref{}, "more than one colon"},
		{"a,x=1,x=1", Ref{}, "given twice"},
		{"a,x", Ref{}, "no value"},
		{"a,name=b", Ref{}, "no label"},
		{"a,version=", Ref{}, "is empty"},
		{"a:", Ref{}, "is empty"},
		{"localhost:5000/foo", Ref{}, "docker://localhost:5000/foo"},
		{"UPPER", Ref{}, "bad name"},
		{"a..b", Ref{}, "bad name"},
		{"", Ref{}, "bad image reference"},
		{"a\nb", Ref{}, "bad image reference"},
		{"cimd:appc:v=0:a.com/b?version=1&os=linux", Ref{Kind: KindName, Name: "a.com/b", Labels: map[string]string{"version": "1", "os": "linux"}}, ""},
		{"cimd:aci-archive:v=0:https%3A%2F%2Fa.com%2Fx.aci", Ref{Kind: KindURL, URL: "https://a.com/x.aci"}, ""},
		{"cimd:docker:v=0:redis", Ref{Kind: KindDocker, Rest: "redis"}, ""},
		{"cimd:x:v=0:y", Ref{}, "unknown type"},
		{"cimd:appc:v=1:y", Ref{}, "v=0"},
	} {
		got, err := ParseRef(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("ParseRef(%q): error %v, want %q", c.in, err, c.err)
			}
			continue
		}
		c.want.Text = c.in
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("ParseRef(%q): %v %s", c.in, err, diff)
		}
		again, err := ParseRef(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("ParseRef(%q).String() = %q, parsed again: %v, %v", c.in, got, again, err)
		}
	}
}

func TestInsecure(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string
		err  string
	}{
		{"none", "none", ""}, {"image,TLS", "image,tls", ""}, {"none,ondisk", "ondisk", ""},
		{"all-fetch", "image,tls,http,pubkey", ""}, {"all-run", "capabilities,paths,seccomp", ""},
		{"all", "image,tls,http,pubkey,capabilities,paths,seccomp,ondisk", ""},
		{"x", "", "unknown insecure option"}, {"image,image", "", "given twice"}, {"", "", "unknown"},
	} {
		got, err := ParseInsecure(c.in)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || err == nil && got.String() != c.want {
			t.Errorf("ParseInsecure(%q) = %v, %v", c.in, got, err)
		}
	}
}

func TestPullPolicy(t *testing.T) {
	if _, err := ParsePullPolicy("always"); err == nil {
		t.Error("unknown words are accepted")
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"a.com/b:1,os=linux", "cimd:appc:v=0:a?b=c", "file:///x", "sha512-ab", "docker://x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := parseRef(s, func(string) bool { return false })
		if err != nil {
			return
		}
		again, err := parseRef(ref.String(), func(string) bool { return false })
		if err != nil || again.String() != ref.String() {
			t.Errorf("%q: %q does not parse to itself: %q, %v", s, ref, again, err)
		}
	})
}

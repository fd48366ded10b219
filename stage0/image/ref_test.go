package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/stage0/oci"
)

// check list: 4, 5, 7
func TestParseRef(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, f := range []string{"example.com", "x:y"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	digest := oci.Digest(nil)
	redis := Ref{Kind: KindDocker, Docker: oci.Reference{Host: oci.DefaultHost, Repository: "library/redis", Tag: "latest"}}
	for _, c := range []struct {
		in   string
		want Ref
		err  string
	}{
		{"sha512-ABc", Ref{Kind: KindHash, Hash: "sha512-abc"}, ""},
		{"sha512-not-a-hash", Ref{}, "bad image ID"},
		{"sha512-", Ref{}, "bad image ID"},
		{"sha512-xyz", Ref{}, "bad image ID"},
		{"docker:redis", redis, ""},
		{"docker://redis", redis, ""},
		{"docker:///redis", redis, ""},
		{"DOCKER:redis:latest", redis, ""},
		{"docker://docker.io/library/redis", redis, ""},
		{"docker://index.docker.io/redis", redis, ""},
		{"docker:redis:7@" + digest, Ref{Kind: KindDocker, Docker: oci.Reference{Host: oci.DefaultHost, Repository: "library/redis", Tag: "7", Digest: digest}}, ""},
		{"docker://[::1]:5000/x", Ref{Kind: KindDocker, Docker: oci.Reference{Host: "[::1]:5000", Repository: "x", Tag: "latest"}}, ""},
		{"docker://Redis", Ref{}, "lower case"},
		{"docker://", Ref{}, "no repository"},
		{"docker://x@sha512:ab", Ref{}, "only sha256"},
		{"oci:/x:y", Ref{Kind: KindOCI, Layout: oci.LayoutRef{Path: "/x", Name: "y"}}, ""},
		{"oci:/x:@2", Ref{Kind: KindOCI, Layout: oci.LayoutRef{Path: "/x", Nth: 3}}, ""},
		{"oci:/x@" + digest, Ref{Kind: KindOCI, Layout: oci.LayoutRef{Path: "/x", Digest: digest}}, ""},
		{"oci:///x", Ref{Kind: KindOCI, Layout: oci.LayoutRef{Path: "/x"}}, ""},
		{"oci:", Ref{}, "no path"},
		{"oci://host/x", Ref{}, "docker://host/x"},
		{"oci-archive://host/x", Ref{}, "docker://host/x"},
		{"oci-archive:x.tar", Ref{Kind: KindOCIArchive, Layout: oci.LayoutRef{Path: dir + "/x.tar"}}, ""},
		{"docker-archive:x.tar", Ref{Kind: KindDockerArchive, Layout: oci.LayoutRef{Path: dir + "/x.tar"}}, ""},
		{"docker-archive:x.tar:a:1", Ref{Kind: KindDockerArchive, Layout: oci.LayoutRef{Path: dir + "/x.tar", Name: "registry-1.docker.io/library/a:1"}}, ""},
		{"docker-archive:x.tar@" + digest, Ref{}, "no digest"},
		{"docker.io/library/redis", Ref{}, "docker://redis"},
		{"index.docker.io/a/b:1", Ref{}, "docker://a/b:1"},
		{"quay.io/a/b:1@" + digest, Ref{}, "docker://quay.io/a/b:1@" + digest},
		{"ghcr.io/a__b/c", Ref{}, "docker://ghcr.io/a__b/c"},
		{"registry-1.docker.io/library/redis:7", Ref{Kind: KindName, Name: "registry-1.docker.io/library/redis", Labels: map[string]string{"version": "7"}}, ""},
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
		{"cimd:docker:v=0:redis", redis, ""},
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

func TestNamesTellWhatTheyCouldBe(t *testing.T) {
	ref, err := ParseRef("redis:7")
	if err != nil || cmp.Diff([]string{"docker://redis:7"}, ref.Candidates()) != "" {
		t.Errorf("candidates %v, %v", ref.Candidates(), err)
	}
	var candidates *CandidatesError
	if _, err := ParseRef("localhost:5000/foo"); !errors.As(err, &candidates) || !strings.Contains(candidates.Hint(), "docker://localhost:5000/foo") {
		t.Errorf("hint of %v", err)
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
	for _, s := range []string{"a.com/b:1,os=linux", "cimd:appc:v=0:a?b=c", "file:///x", "sha512-ab", "docker://x",
		"docker:a.com:5000/b:c@" + oci.Digest(nil), "oci:/x:@1", "oci:/x@" + oci.Digest(nil), "docker-archive:/x:y:1", "oci-archive:x:y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := parseRef(s, func(string) bool { return false })
		if err != nil {
			return
		}
		again, err := parseRef(ref.String(), func(string) bool { return false })
		again.Text = ref.Text
		if err != nil || cmp.Diff(ref, again) != "" {
			t.Errorf("%q: %q does not parse to itself: %q, %v", s, ref, again, err)
		}
	})
}

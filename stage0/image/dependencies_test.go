package image

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/acitest"
)

func depends(entries ...string) string {
	for i, e := range entries {
		if !strings.HasPrefix(e, "{") {
			entries[i] = fmt.Sprintf(`{"imageName":%q}`, e)
		}
	}
	return `"dependencies":[` + strings.Join(entries, ",") + `]`
}

const noarch = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":%q}`

// check list: 54, 56
func TestDependenciesAreFetchedOnceEach(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com")
	w := newWeb(t, e)
	w.page("example.com", webTemplate)
	put := func(name string, extra ...string) string {
		return w.put(t, e.key, "example.com/i/example.com/"+name+"/latest", acitest.Manifest("example.com/"+name, "", extra...))
	}
	d := put("d")
	put("b", depends("example.com/d", "example.com/none"))
	put("c", depends(fmt.Sprintf(`{"imageName":"example.com/d","imageID":%q}`, d), "example.com/d", "example.com/local"))
	w.put(t, e.key, "example.com/i/example.com/none/latest", fmt.Sprintf(noarch, "example.com/none"))
	local := acitest.Build(t, e.dir, fmt.Sprintf(noarch, "example.com/local"))
	e.key.SignFile(t, local)
	if _, err := e.fetch(t, local, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	top := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", depends("example.com/b", "example.com/c")))
	e.key.SignFile(t, top)
	for range 2 {
		if _, err := e.fetch(t, top, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"b", "c", "d", "none"} {
		if n := w.count("/" + name + "/latest.aci"); n != 2 { // image and signature
			t.Errorf("%q was asked for %d times", name, n)
		}
	}
	if w.count("local") != 0 {
		t.Error("a stored dependency was looked up")
	}
}

// check list: 55
func TestBadDependencies(t *testing.T) {
	for _, c := range []struct {
		name string
		put  func(put func(name string, extra ...string) string)
		top  string
		want []string
	}{
		{name: "missing", top: depends("example.com/none"), want: []string{`dependency "example.com/none" of image "example.com/a"`, "404"}},
		{
			name: "another ID", top: depends(`{"imageName":"example.com/b","imageID":"sha512-` + strings.Repeat("0", 128) + `"}`),
			put:  func(put func(string, ...string) string) { put("b") },
			want: []string{`dependency "example.com/b"`, `of image "example.com/a"`, "the image's ID is", "not \"sha512-0000"},
		},
		{
			name: "a short ID", top: depends(`{"imageName":"example.com/b","imageID":"sha512-1234"}`),
			want: []string{"the whole ID is needed"},
		},
		{
			name: "another size", top: depends(`{"imageName":"example.com/b","size":5}`),
			put: func(put func(string, ...string) string) { put("b") }, want: []string{"asks for 5"},
		},
		{
			name: "a cycle", top: depends("example.com/b"),
			put: func(put func(string, ...string) string) {
				put("b", depends("example.com/c"))
				put("c", depends("example.com/d"))
				put("d", depends("example.com/b"))
			},
			want: []string{"cycle: example.com/a:1 -> example.com/b -> example.com/c -> example.com/d -> example.com/b"},
		},
		{
			name: "a cycle across a diamond", top: depends("example.com/b", "example.com/c"),
			put: func(put func(string, ...string) string) {
				put("b", depends("example.com/c"))
				put("c", depends("example.com/b"))
			},
			want: []string{"cycle: "},
		},
		{name: "itself", top: depends("example.com/a"), want: []string{"cycle: example.com/a:1 -> example.com/a:1"}},
		{name: "another label", top: depends(`{"imageName":"example.com/b","labels":[{"name":"channel","value":"x"}]}`), put: func(put func(string, ...string) string) { put("b") }, want: []string{`no label "channel"`}},
		{name: "a bad name", top: depends("example.com/a..b/../c"), want: []string{"bad name"}},
		{name: "a local host", top: depends("localhost/b"), want: []string{`local host "localhost"`}},
		{
			name: "too deep", top: depends("example.com/n0"),
			put: func(put func(string, ...string) string) {
				for i := range maxDepth + 2 {
					put(fmt.Sprintf("n%d", i), depends(fmt.Sprintf("example.com/n%d", i+1)))
				}
			},
			want: []string{"deeper than 64"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			e.trust(t, "example.com")
			w := newWeb(t, e)
			w.page("example.com", webTemplate)
			if c.put != nil {
				c.put(func(name string, extra ...string) string {
					return w.put(t, e.key, "example.com/i/example.com/"+name+"/latest", acitest.Manifest("example.com/"+name, "", extra...))
				})
			}
			path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", c.top))
			e.key.SignFile(t, path)
			_, err := e.fetch(t, path, FetchOptions{})
			for _, want := range c.want {
				wantErr(t, err, want)
			}
			if c.name == "another ID" {
				if _, err := e.f.Store.Find("example.com/b", nil); err == nil {
					t.Error("what was not asked for is stored")
				}
				if !errors.As(err, new(*PinError)) {
					t.Errorf("%T", err)
				}
			}
		})
	}
}

func TestPinnedDependencyNeedsNoRequest(t *testing.T) {
	e := newEnv(t)
	e.f.Insecure, e.f.Policy = InsecureImage, PullUpdate
	w := newWeb(t, e)
	dep := acitest.Tar(t, acitest.Manifest("example.com/b", "1"))
	other := acitest.Tar(t, acitest.Manifest("example.com/x", "1"))
	for _, m := range []string{acitest.Manifest("example.com/b", "1"), acitest.Manifest("example.com/x", "1")} {
		if _, err := e.fetch(t, acitest.Build(t, e.dir, m), FetchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pin := func(id string) string { return depends(fmt.Sprintf(`{"imageName":"example.com/b","imageID":%q}`, id)) }
	if _, err := e.fetch(t, acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", pin(acitest.ID(t, dep)))), FetchOptions{}); err != nil {
		t.Error(err)
	}
	_, err := e.fetch(t, acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", pin(acitest.ID(t, other)))), FetchOptions{})
	wantErr(t, err, `named "example.com/x", not "example.com/b"`)
	if len(w.asked) != 0 {
		t.Errorf("asked for %q", w.asked)
	}
}

// check list: 55
func TestEndlessDependencyIsCutAtItsSize(t *testing.T) {
	e := newEnv(t)
	e.f.Insecure = InsecureImage
	w := newWeb(t, e)
	w.page("example.com", webTemplate)
	w.files["example.com/i/example.com/b/latest.aci"] = make([]byte, 3*sizeSlack)
	path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", depends(`{"imageName":"example.com/b","size":1000}`)))
	_, err := e.fetch(t, path, FetchOptions{})
	wantErr(t, err, fmt.Sprintf("larger than %d bytes", 1000+sizeSlack))
}

// A dependency's own name decides who may sign it, and is known before the download.
func TestDependencySignedForAnotherPrefix(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com/a")
	w := newWeb(t, e)
	w.page("example.com", webTemplate)
	w.put(t, e.key, "example.com/i/example.com/b/latest", acitest.Manifest("example.com/b", ""))
	path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", depends("example.com/b")))
	e.key.SignFile(t, path)
	_, err := e.fetch(t, path, FetchOptions{})
	wantErr(t, err, "unknown entity")
	if w.count("latest.aci.asc") != 1 || w.count("latest.aci") != 1 {
		t.Errorf("asked for %q", w.asked)
	}
}

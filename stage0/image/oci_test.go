package image

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// testRegistry is a registry that counts requests.
type testRegistry struct {
	*httptest.Server
	requests, blobs atomic.Int64

	mu  sync.Mutex
	got []string // PATH RANGE of requests for blobs
}

// take is what was requested since the last call.
func (r *testRegistry) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

func newTestRegistry(t *testing.T) *testRegistry {
	t.Helper()
	r := &testRegistry{}
	h := ggcr.New(ggcr.Logger(nil2log()))
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		if strings.Contains(req.URL.Path, "/blobs/") && req.Method == http.MethodGet {
			r.blobs.Add(1)
			r.mu.Lock()
			r.got = append(r.got, req.URL.Path+" "+req.Header.Get("Range"))
			r.mu.Unlock()
		}
		h.ServeHTTP(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *testRegistry) ref(repo string) string {
	u, _ := url.Parse(r.URL)
	return u.Host + "/" + repo
}

func (r *testRegistry) push(t *testing.T, repo string, img v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(r.ref(repo), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
}

func randomImage(t *testing.T, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(300<<10, layers)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.Config(img, v1.Config{Cmd: []string{"/bin/x"}})
	if err != nil {
		t.Fatal(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf.OS, cf.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// TestFetchRegistry checks policies, sharing and requests of registry images.
// check list: 12, 13, 63
func TestFetchRegistry(t *testing.T) {
	e := newEnv(t)
	reg := newTestRegistry(t)
	img := randomImage(t, 3)
	reg.push(t, "a/one:1", img)
	top, err := random.Layer(10<<10, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	second, err := mutate.AppendLayers(img, top)
	if err != nil {
		t.Fatal(err)
	}
	reg.push(t, "a/two:1", second)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	trees, err := tree.Open(e.f.Store, tree.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		e.f.Trees = trees
	}
	e.f.Insecure = InsecureHTTP
	one := "docker://" + reg.ref("a/one:1")
	ref, err := ParseRef(one)
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(r Ref, p PullPolicy) (Image, int64, int64, error) {
		requests, blobs := reg.requests.Load(), reg.blobs.Load()
		got, err := e.f.Fetch(t.Context(), r, FetchOptions{policy: p})
		return got, reg.requests.Load() - requests, reg.blobs.Load() - blobs, err
	}
	if _, n, _, err := fetch(ref, PullNever); err == nil || n != 0 {
		t.Errorf("never: %d requests, %v", n, err)
	}
	_, _, blobs, err := fetch(ref, PullNew)
	var unvouched *UnvouchedError
	if !errors.As(err, &unvouched) || !strings.Contains(unvouched.Hint(), digest.String()) {
		t.Fatalf("unverified image: %v", err)
	}
	if blobs > 1 {
		t.Errorf("%d blobs brought for an image that is refused", blobs)
	}
	// With a digest the content is what was asked for.
	pinned, err := ParseRef(one + "@" + digest.String())
	if err != nil {
		t.Fatal(err)
	}
	first, _, blobs, err := fetch(pinned, PullNew)
	if err != nil {
		t.Fatal(err)
	}
	if first.Record.Admission.Kind != store.AdmittedDigest || blobs != 4 {
		t.Errorf("admission %+v, %d blobs", first.Record.Admission, blobs)
	}
	if _, n, _, err := fetch(pinned, PullUpdate); err != nil || n != 0 {
		t.Errorf("a digest means what it meant: %d requests, %v", n, err)
	}
	// That says nothing of what the tag means.
	if _, _, _, err := fetch(ref, PullNew); !errors.As(err, &unvouched) {
		t.Errorf("the tag was taken on trust: %v", err)
	}
	e.f.Insecure |= InsecureImage
	if _, n, blobs, err := fetch(ref, PullNew); err != nil || blobs > 1 {
		t.Errorf("stored layers were brought again: %d requests, %d blobs, %v", n, blobs, err)
	}
	if _, n, _, err := fetch(ref, PullNew); err != nil || n != 0 {
		t.Errorf("new: %d requests, %v", n, err)
	}
	if _, n, _, err := fetch(ref, PullUpdate); err != nil || n > 1 {
		t.Errorf("update of an unchanged tag: %d requests, %v", n, err)
	}
	e.f.Insecure &^= InsecureImage
	if _, _, _, err := fetch(ref, PullNew); !errors.As(err, &unvouched) {
		t.Errorf("the store launders an unverified image: %v", err)
	}
	e.f.Insecure |= InsecureImage
	two, err := ParseRef("docker://" + reg.ref("a/two:1"))
	if err != nil {
		t.Fatal(err)
	}
	other, _, blobs, err := fetch(two, PullNew)
	if err != nil || blobs != 2 {
		t.Errorf("one new layer and a configuration: %d blobs, %v", blobs, err)
	}
	if e.f.Trees != nil {
		a, errA := trees.Render(t.Context(), first.Key)
		b, errB := trees.Render(t.Context(), other.Key)
		if errA != nil || errB != nil || len(b.Lowers()) != 4 || b.Lowers()[1] != a.Lowers()[0] {
			t.Errorf("the trees share nothing: %v %v", errA, errB)
		}
	}
	// Removing one image keeps what the other is made of.
	if err := e.f.Store.Remove(first.Key); err != nil {
		t.Fatal(err)
	}
	if !e.f.Store.Complete(other.Record) {
		t.Error("shared layers were removed")
	}
	if err := e.f.Store.Remove(other.Key); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(e.f.Store.Dir(), "objects/sha256/*/*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestFetchRegistryOnce checks that simultaneous fetches do the work once.
// check list: 17
func TestFetchRegistryOnce(t *testing.T) {
	e := newEnv(t)
	reg := newTestRegistry(t)
	reg.push(t, "a/b:1", randomImage(t, 2))
	e.f.Insecure = InsecureHTTP | InsecureImage
	ref, err := ParseRef("docker://" + reg.ref("a/b:1"))
	if err != nil {
		t.Fatal(err)
	}
	before := reg.blobs.Load()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			f := &Fetcher{Store: e.f.Store, Insecure: e.f.Insecure}
			if _, err := f.Fetch(t.Context(), ref, FetchOptions{policy: PullNew}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := reg.blobs.Load() - before; n != 3 {
		t.Errorf("%d blobs were brought", n)
	}
}

// TestFetchBrokenLayer checks that what is not what its digest says leaves
// nothing. check list: 62
func TestFetchBrokenLayer(t *testing.T) {
	e := newEnv(t)
	dir := filepath.Join(t.TempDir(), "l")
	p, err := layout.Write(dir, emptyIndex())
	if err != nil {
		t.Fatal(err)
	}
	img := randomImage(t, 2)
	if err := p.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dir, "blobs/sha256", digest.Hex)
	data, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	e.f.Insecure = InsecureImage
	ref, err := ParseRef("oci:" + dir)
	if err != nil {
		t.Fatal(err)
	}
	for what, broken := range map[string][]byte{
		"changed": append(append([]byte{}, data[:len(data)-1]...), data[len(data)-1]^1),
		"short":   data[:len(data)-1],
		"long":    append(append([]byte{}, data...), 0),
		"empty":   {},
	} {
		if err := os.WriteFile(blob, broken, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := e.f.Fetch(t.Context(), ref, FetchOptions{}); err == nil {
			t.Errorf("%s: stored as %s", what, got.ID)
		}
		if recs, err := e.f.Store.Records(); err != nil || len(recs) != 0 {
			t.Errorf("%s: %v %v", what, recs, err)
		}
	}
	if err := os.WriteFile(blob, data, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := e.f.Fetch(t.Context(), ref, FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// The same image has the same ID wherever it lies.
	moved := filepath.Join(t.TempDir(), "l")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if ref, err = ParseRef(moved); err != nil { // a bare path, told by content
		t.Skip("a directory by its path alone")
	}
	if again, err := e.f.Fetch(t.Context(), ref, FetchOptions{}); err != nil || again.ID != got.ID {
		t.Errorf("%v, %s is not %s", err, again.ID, got.ID)
	}
}

func emptyIndex() v1.ImageIndex { return empty.Index }

func nil2log() *log.Logger { return log.New(io.Discard, "", 0) }

// TestResumeLayer checks that a partial layer is continued, and that one whose
// bytes are wrong is fetched again. check list: 16
func TestResumeLayer(t *testing.T) {
	reg := newTestRegistry(t)
	img := randomImage(t, 1)
	reg.push(t, "a/b:1", img)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	half := len(data) / 2
	garbage := append([]byte{}, data[:half]...)
	garbage[half/2] ^= 1
	for _, c := range []struct {
		name    string
		partial []byte
		ranges  []string // of the requests for the layer
	}{
		{"nothing", nil, []string{""}},
		{"half", data[:half], []string{fmt.Sprintf("bytes=%d-", half)}},
		{"all", data, nil},
		{"damaged", garbage, []string{fmt.Sprintf("bytes=%d-", half), ""}},
		{"too long", append(append([]byte{}, data...), 0), []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			if os.Geteuid() == 0 {
				if e.f.Trees, err = tree.Open(e.f.Store, tree.Options{}); err != nil {
					t.Fatal(err)
				}
			}
			e.f.Insecure = InsecureHTTP | InsecureImage
			ref, err := ParseRef("docker://" + reg.ref("a/b:1"))
			if err != nil {
				t.Fatal(err)
			}
			tmp := e.f.Store.LayerTemp(digest.String())
			if c.partial != nil {
				if err := os.WriteFile(tmp, c.partial, 0o660); err != nil {
					t.Fatal(err)
				}
			}
			reg.take()
			got, err := e.f.Fetch(t.Context(), ref, FetchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !e.f.Store.Complete(got.Record) {
				t.Error("the image is not whole")
			}
			var ranges []string
			for _, r := range reg.take() {
				if path, rng, _ := strings.Cut(r, " "); strings.HasSuffix(path, digest.String()) {
					ranges = append(ranges, strings.TrimRight(rng, "0123456789")) // where it ends is the client's affair
				}
			}
			if !slices.Equal(ranges, c.ranges) {
				t.Errorf("requests for the layer: %q, want %q", ranges, c.ranges)
			}
			if _, err := os.Stat(tmp); err == nil {
				t.Error("the partial file is left")
			}
		})
	}
}

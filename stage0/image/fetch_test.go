package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/discovery"
	"github.com/rkt-systemd/rkt/stage0/keystore"
	"github.com/rkt-systemd/rkt/stage0/store"
)

type env struct {
	f    *Fetcher
	keys *keystore.Store
	key  *acitest.Key
	dir  string
}

func newEnv(t *testing.T) *env {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "cas"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keys := keystore.New("", t.TempDir())
	f := &Fetcher{Store: s, Keys: keys, Transport: loopbackOnly, pause: func(context.Context, time.Duration) error { return nil }}
	return &env{f, keys, acitest.NewKey(t, "signer"), t.TempDir()}
}

// loopbackOnly keeps tests off the network.
func loopbackOnly(tr *http.Transport) {
	tr.Proxy = nil
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(addr); !discovery.LocalHost(host) {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
}

func (e *env) trust(t *testing.T, prefix string) {
	t.Helper()
	if _, err := e.keys.Add(prefix, e.key.Public(t)); err != nil {
		t.Fatal(err)
	}
}

func (e *env) fetch(t *testing.T, text string, o FetchOptions) (Image, error) {
	t.Helper()
	ref, err := ParseRef(text)
	if err != nil {
		t.Fatal(err)
	}
	return e.f.Fetch(t.Context(), ref, o)
}

func wantErr(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// check list: 31, 32
func TestFetchFile(t *testing.T) {
	e := newEnv(t)
	path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1"))
	_, err := e.fetch(t, path, FetchOptions{})
	wantErr(t, err, "error opening signature file")
	var sigErr *SignatureError
	if !errors.As(err, &sigErr) {
		t.Errorf("%T", err)
	}
	sig := e.key.SignFile(t, path)
	_, err = e.fetch(t, path, FetchOptions{})
	wantErr(t, err, "signature made by unknown entity")
	if !errors.As(err, &sigErr) || sigErr.Hint() != "rkt trust --prefix=example.com/a" {
		t.Errorf("%+v", sigErr)
	}
	e.trust(t, "example.com/other")
	_, err = e.fetch(t, path, FetchOptions{})
	wantErr(t, err, "signature made by unknown entity")
	if all, _ := e.f.Store.Records(); len(all) != 0 {
		t.Error("stored without a signature")
	}

	// Unsigned, on demand; what comes in so is not taken as verified later.
	e.f.Insecure = InsecureImage
	img, err := e.fetch(t, path, FetchOptions{})
	if err != nil || img.Record.Admission.Kind != store.AdmittedUnsigned {
		t.Fatal(img, err)
	}
	if _, err := e.fetch(t, "example.com/a:1", FetchOptions{}); err != nil {
		t.Error(err)
	}
	e.f.Insecure = 0
	_, err = e.fetch(t, "example.com/a:1", FetchOptions{})
	wantErr(t, err, "admitted without verification")

	e.trust(t, "example.com")
	if img, err = e.fetch(t, "file://"+path, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if img.Record.Admission.Fingerprint != e.key.Fingerprint() || img.Name != "example.com/a" || img.Labels["version"] != "1" {
		t.Errorf("%+v", img)
	}
	for _, ref := range []string{"example.com/a:1", "example.com/a", "example.com/a,version=1,os=linux", img.ID, img.Key, img.ID[:9]} {
		if got, err := e.fetch(t, ref, FetchOptions{}); err != nil || got.Key != img.Key {
			t.Errorf("%s: %v, %v", ref, got.Key, err)
		}
	}
	for _, ref := range []string{"example.com/a:2", "example.com/b"} {
		_, err := e.fetch(t, ref, FetchOptions{})
		wantErr(t, err, "not in the store")
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v is no ErrNotFound", err)
		}
	}
	other := filepath.Join(t.TempDir(), "sig")
	if err := os.Rename(sig, other); err != nil {
		t.Fatal(err)
	}
	if _, err := e.fetch(t, path, FetchOptions{Signature: other}); err != nil {
		t.Error(err)
	}
	_, err = e.fetch(t, path, FetchOptions{Signature: "/nonexistent"})
	wantErr(t, err, "error opening signature file")
	data, _ := os.ReadFile(path)
	data[len(data)-1]++
	changed := filepath.Join(e.dir, "changed.aci")
	if err := os.WriteFile(changed, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := e.fetch(t, changed, FetchOptions{Signature: other}); err == nil {
		t.Error("a changed file is accepted")
	}
}

// server serves one image and its signature, and counts.
type server struct {
	*httptest.Server
	mu                     sync.Mutex
	data, sig              []byte
	etag                   string
	cache                  string
	cut                    int // bytes after which the body breaks off, once
	later                  int // how often the signature is deferred
	images, sigs, ranges   atomic.Int64
	notModified, forbidden atomic.Int64
	order                  []string
}

func newServer(t *testing.T, tls bool) *server {
	s := &server{etag: `"one"`}
	h := http.HandlerFunc(s.serve)
	if tls {
		s.Server = httptest.NewTLSServer(h)
	} else {
		s.Server = httptest.NewServer(h)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = append(s.order, r.URL.Path)
	switch r.URL.Path {
	case "/redirect.aci":
		http.Redirect(w, r, "/x.aci", http.StatusFound)
	case "/loop.aci":
		http.Redirect(w, r, "/loop.aci", http.StatusFound)
	case "/redirect.aci.asc", "/x.aci.asc":
		s.sigs.Add(1)
		if s.later > 0 {
			s.later--
			w.WriteHeader(http.StatusAccepted)
			return
		}
		if s.sig == nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(s.sig)
	case "/secret.aci", "/secret.aci.asc":
		if u, p, _ := r.BasicAuth(); u != "u" || p != "p" {
			s.forbidden.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(r.URL.Path, ".asc") {
			_, _ = w.Write(s.sig)
			return
		}
		_, _ = w.Write(s.data)
	case "/x.aci":
		s.images.Add(1)
		w.Header().Set("ETag", s.etag)
		if s.cache != "" {
			w.Header().Set("Cache-Control", s.cache)
		}
		if r.Header.Get("If-None-Match") == s.etag {
			s.notModified.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Header.Get("Range") != "" {
			s.ranges.Add(1)
		}
		if s.cut > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(s.data)))
			_, _ = w.Write(s.data[:s.cut])
			s.cut = 0
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(s.data)))
	default:
		http.NotFound(w, r)
	}
}

func (e *env) image(t *testing.T, s *server, version string) {
	t.Helper()
	data := acitest.Compress(t, "gzip", acitest.Tar(t, acitest.Manifest("example.com/a", version), acitest.Reg("f", strings.Repeat(version, 1000), 0o644)))
	s.data, s.sig = data, e.key.Sign(t, data)
}

// check list: 12, 13, 14, 19
func TestFetchURL(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com")
	s := newServer(t, false)
	e.image(t, s, "1")
	img, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(s.order, " ") != "/x.aci.asc /x.aci" {
		t.Errorf("requests: %v", s.order)
	}
	if left, _ := os.ReadDir(e.f.Store.TempDir()); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// new: no request. update: a conditional one. never: none.
	for _, c := range []struct {
		policy PullPolicy
		images int64
	}{{PullNew, 1}, {PullNever, 1}, {PullUpdate, 2}, {PullUpdate, 3}} {
		e.f.Policy = c.policy
		got, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
		if err != nil || got.Key != img.Key || s.images.Load() != c.images {
			t.Errorf("%s: %v, %d requests, want %d", c.policy, err, s.images.Load(), c.images)
		}
	}
	if s.notModified.Load() != 2 {
		t.Errorf("%d answers of 304", s.notModified.Load())
	}
	// A changed image is fetched; with max-age it stays fresh.
	e.image(t, s, "2")
	s.etag, s.cache = `"two"`, "public, max-age=3600"
	second, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
	if err != nil || second.Key == img.Key {
		t.Fatal(err)
	}
	before := s.images.Load()
	if _, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{}); err != nil || s.images.Load() != before {
		t.Error("max-age has no effect", err)
	}
	e.f.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if _, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{}); err != nil || s.images.Load() != before+1 {
		t.Error("max-age has no end", err)
	}
	e.f.Policy = PullNew
	if got, err := e.fetch(t, s.URL+"/redirect.aci", FetchOptions{}); err != nil || got.Key != second.Key {
		t.Error(err)
	}
	s.mu.Lock()
	s.sig = nil
	s.mu.Unlock()
	_, err = e.fetch(t, s.URL+"/x.aci?other", FetchOptions{})
	wantErr(t, err, "bad HTTP status code: 404")
	e.f.Insecure = InsecureImage
	_, err = e.fetch(t, s.URL+"/loop.aci", FetchOptions{})
	wantErr(t, err, "redirects")
	e.f.Policy = PullNever
	_, err = e.fetch(t, s.URL+"/never.aci", FetchOptions{})
	wantErr(t, err, "the pull policy is never")
}

func TestUnverifiedCacheHit(t *testing.T) {
	e := newEnv(t)
	s := newServer(t, false)
	e.image(t, s, "1")
	e.f.Insecure = InsecureImage
	if _, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	e.f.Insecure = 0
	_, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
	wantErr(t, err, "signature made by unknown entity")
	if s.images.Load() != 1 {
		t.Error("downloaded although nobody known signed")
	}
	e.trust(t, "")
	img, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
	if err != nil || !img.Record.Admission.Verified() {
		t.Error(img.Record, err)
	}
}

// check list: 16
func TestResume(t *testing.T) {
	for _, changed := range []bool{false, true} {
		e := newEnv(t)
		e.trust(t, "example.com")
		s := newServer(t, false)
		e.image(t, s, "1")
		s.cut = len(s.data) / 2
		e.f.pause = func(context.Context, time.Duration) error { return errors.New("killed") }
		if _, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{}); err == nil {
			t.Fatal("a broken transfer succeeds")
		}
		if changed {
			e.image(t, s, "2")
			s.etag = `"two"`
		}
		img, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if s.ranges.Load() != 1 || (img.Labels["version"] == "2") != changed {
			t.Errorf("changed %v: %d range requests, version %s", changed, s.ranges.Load(), img.Labels["version"])
		}
	}
}

// check list: 18
func TestDeferredSignature(t *testing.T) {
	for later, want := range map[int]string{1: "", 2: "deferred"} {
		e := newEnv(t)
		e.trust(t, "example.com")
		s := newServer(t, false)
		e.image(t, s, "1")
		s.later = later
		_, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
		if want == "" && err != nil {
			t.Error(err)
		} else if want != "" {
			wantErr(t, err, want)
		}
	}
}

// check list: 17
func TestConcurrentDownload(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com")
	s := newServer(t, false)
	e.image(t, s, "1")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.images.Load(); n != 1 {
		t.Errorf("%d downloads", n)
	}
}

// check list: 26, 29
func TestAuth(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com")
	s := newServer(t, true)
	e.image(t, s, "1")
	_, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
	wantErr(t, err, "certificate")
	e.f.Insecure = InsecureTLS
	_, err = e.fetch(t, s.URL+"/secret.aci", FetchOptions{})
	wantErr(t, err, "bad HTTP status code: 401")
	host := strings.TrimPrefix(s.URL, "https://")
	e.f.Config = &config.Config{Auth: map[string]config.Auth{host: {Type: config.AuthBasic, Basic: config.BasicSecret{User: "u", Password: "p"}}}}
	if _, err := e.fetch(t, s.URL+"/secret.aci", FetchOptions{}); err != nil {
		t.Error(err)
	}
	plain := newServer(t, false)
	e.image(t, plain, "1")
	e.f.Config.Auth[strings.TrimPrefix(plain.URL, "http://")] = e.f.Config.Auth[host]
	_, err = e.fetch(t, plain.URL+"/secret.aci", FetchOptions{})
	wantErr(t, err, "401")
}

func TestLimits(t *testing.T) {
	e := newEnv(t)
	e.f.Insecure = InsecureImage
	s := newServer(t, false)
	e.image(t, s, "1")
	e.f.MaxSize = 100
	_, err := e.fetch(t, s.URL+"/x.aci", FetchOptions{})
	wantErr(t, err, "larger than 100 bytes")
}

// check list: 71, 72, 73
func TestStage1(t *testing.T) {
	base := rootOnlyDir(t)
	dir := filepath.Join(base, "stage1-images")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	oldDir, oldFile := buildinfo.Stage1Dir, buildinfo.Stage1File
	t.Cleanup(func() { buildinfo.Stage1Dir, buildinfo.Stage1File = oldDir, oldFile })
	buildinfo.Stage1Dir, buildinfo.Stage1File = dir, "default.aci"
	e := newEnv(t)
	def := filepath.Join(dir, "default.aci")
	build := func(path, name, version string) {
		t.Helper()
		if err := os.Rename(acitest.Build(t, base, acitest.Manifest(name, version)), path); err != nil {
			t.Fatal(err)
		}
	}
	_, err := e.f.FindStage1(t.Context(), Stage1Options{})
	wantErr(t, err, "use a --stage1-")
	build(def, buildinfo.Stage1Name, buildinfo.Stage1Version)
	img, err := e.f.FindStage1(t.Context(), Stage1Options{})
	if err != nil || img.Record.Admission.Kind != store.AdmittedSystem {
		t.Fatal(img, err)
	}
	// Unchanged: not read again (an unreadable file would fail).
	if err := os.Rename(def, def+".away"); err != nil {
		t.Fatal(err)
	}
	if got, err := e.f.FindStage1(t.Context(), Stage1Options{}); err != nil || got.Key != img.Key {
		t.Error("name and version in the store are not enough", err)
	}
	for _, o := range []Stage1Options{{Hash: img.ID[:20]}, {Name: buildinfo.Stage1Name + ":" + buildinfo.Stage1Version}} {
		if got, err := e.f.FindStage1(t.Context(), o); err != nil || got.Key != img.Key {
			t.Errorf("%+v: %v", o, err)
		}
	}
	// An upgraded file of the same version wins over the stored image.
	build(def, buildinfo.Stage1Name, buildinfo.Stage1Version+`"},{"name":"x","value":"y`)
	upgraded, err := e.f.FindStage1(t.Context(), Stage1Options{})
	if err != nil || upgraded.Key == img.Key {
		t.Error("the upgraded file is not used", err)
	}
	for _, o := range []Stage1Options{{Path: def}, {FromDir: "default.aci"}, {URL: "file://" + def}} {
		if got, err := e.f.FindStage1(t.Context(), o); err != nil || got.Key != upgraded.Key {
			t.Errorf("%+v: %v", o, err)
		}
	}
	// Elsewhere, or where others can write, the signature counts.
	other := filepath.Join(t.TempDir(), "s.aci")
	build(other, "example.com/s", "1")
	_, err = e.f.FindStage1(t.Context(), Stage1Options{Path: other})
	wantErr(t, err, "signature file")
	link := filepath.Join(dir, "link.aci")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	_, err = e.f.FindStage1(t.Context(), Stage1Options{FromDir: "link.aci"})
	wantErr(t, err, "signature file")
	loose := filepath.Join(dir, "loose.aci")
	build(loose, "example.com/s", "1")
	if err := os.Chmod(loose, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = e.f.FindStage1(t.Context(), Stage1Options{FromDir: "loose.aci"})
	wantErr(t, err, "signature file")
	_, err = e.f.FindStage1(t.Context(), Stage1Options{FromDir: "../x"})
	wantErr(t, err, "not the name of a file")
	_, err = e.f.FindStage1(t.Context(), Stage1Options{Path: "a", Hash: "b"})
	wantErr(t, err, "only one of")
	// Configured name and location override independently.
	e.f.Config = &config.Config{Stage1: config.Stage1{Name: "example.com/none", Version: "1"}}
	if got, err := e.f.FindStage1(t.Context(), Stage1Options{}); err != nil || got.Key != upgraded.Key {
		t.Error(err)
	}
}

// rootOnlyDir is a directory that only root can write to, on the whole path.
func rootOnlyDir(t testing.TB) string {
	t.Helper()
	for _, parent := range []string{"/root", "/var/lib"} {
		if rootOnly(parent) != nil {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "rkt-test-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	t.Skip("needs a directory that only root can write to")
	return ""
}

func BenchmarkStage1HotPath(b *testing.B) {
	base := rootOnlyDir(b)
	oldDir, oldFile := buildinfo.Stage1Dir, buildinfo.Stage1File
	b.Cleanup(func() { buildinfo.Stage1Dir, buildinfo.Stage1File = oldDir, oldFile })
	buildinfo.Stage1Dir, buildinfo.Stage1File = base, "default.aci"
	if err := os.Rename(acitest.Build(b, base, acitest.Manifest(buildinfo.Stage1Name, buildinfo.Stage1Version)), filepath.Join(base, "default.aci")); err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(filepath.Join(b.TempDir(), "cas"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	f := &Fetcher{Store: s}
	for b.Loop() {
		if _, err := f.FindStage1(b.Context(), Stage1Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

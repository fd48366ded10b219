package image

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// web is an internet of one TLS server: it answers for every host.
type web struct {
	mu     sync.Mutex
	files  map[string][]byte // by host and path
	codes  map[string]int
	asked  []string
	auth   map[string]string // the credentials that came, by host
	server *httptest.Server
}

func newWeb(t *testing.T, e *env) *web {
	t.Helper()
	w := &web{files: map[string][]byte{}, codes: map[string]int{}, auth: map[string]string{}}
	w.server = httptest.NewTLSServer(w)
	t.Cleanup(w.server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(w.server.Certificate())
	e.f.Transport = func(tr *http.Transport) {
		tr.Proxy = nil
		tr.TLSClientConfig.RootCAs, tr.TLSClientConfig.ServerName = roots, "example.com"
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.server.Listener.Addr().String())
		}
	}
	return w
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := strings.TrimSuffix(r.Host+r.URL.Path, "/")
	if r.URL.RawQuery != "" {
		at += "?" + r.URL.RawQuery
	}
	w.asked = append(w.asked, at)
	if a := r.Header.Get("Authorization"); a != "" {
		w.auth[r.Host] = a
	}
	if code, ok := w.codes[at]; ok {
		rw.WriteHeader(code)
		return
	}
	data, ok := w.files[at]
	if !ok {
		http.NotFound(rw, r)
		return
	}
	sum := etag(data)
	rw.Header().Set("ETag", sum)
	if r.Header.Get("If-None-Match") == sum {
		rw.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = rw.Write(data)
}

// page serves discovery tags at a name.
func (w *web) page(at string, tags ...string) {
	var b strings.Builder
	for _, t := range tags {
		name, content, _ := strings.Cut(t, " ")
		fmt.Fprintf(&b, "<meta name=%q content=%q>", name, content)
	}
	w.files[at+"?ac-discovery=1"] = []byte("<head>" + b.String() + "</head>")
}

// put serves an image, and its signature unless key is nil; its ID is returned.
func (w *web) put(t *testing.T, key *acitest.Key, at, manifest string) string {
	t.Helper()
	plain := acitest.Tar(t, manifest)
	data := acitest.Compress(t, "gzip", plain)
	w.files[at+".aci"] = data
	if key != nil {
		w.files[at+".aci.asc"] = key.Sign(t, data)
	}
	return acitest.ID(t, plain)
}

const webTemplate = "ac-discovery example.com https://example.com/i/{name}/{version}.{ext}"

func (w *web) count(part string) int {
	n := 0
	for _, a := range w.asked {
		if strings.Contains(a, part) {
			n++
		}
	}
	return n
}

// check list: 13, 19, 22, 23, 40
func TestFetchName(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com")
	w := newWeb(t, e)
	w.page("example.com", webTemplate)
	latest := w.put(t, e.key, "example.com/i/example.com/a/latest", acitest.Manifest("example.com/a", "3"))
	img, err := e.fetch(t, "example.com/a", FetchOptions{})
	if err != nil || img.ID != latest || !img.Record.Latest {
		t.Fatal(img, err)
	}
	want := []string{"example.com/a?ac-discovery=1", "example.com?ac-discovery=1", "example.com/i/example.com/a/latest.aci.asc", "example.com/i/example.com/a/latest.aci"}
	if !slices.Equal(w.asked, want) {
		t.Errorf("asked for %q", w.asked)
	}
	// new: no request. An image of a version comes second.
	old := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1"))
	e.key.SignFile(t, old)
	if _, err := e.fetch(t, old, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.asked = nil
	if img, err = e.fetch(t, "example.com/a", FetchOptions{}); err != nil || img.ID != latest || len(w.asked) != 0 {
		t.Errorf("%v, %v, asked for %q", img.ID, err, w.asked)
	}
	// update: a conditional request for the image.
	e.f.Policy = PullUpdate
	if img, err = e.fetch(t, "example.com/a", FetchOptions{}); err != nil || img.ID != latest || w.count("latest.aci") != 2 {
		t.Errorf("%v, %v, asked for %q", img.ID, err, w.asked)
	}
	e.f.Policy = PullNew
	// An explicit latest is a version like any other.
	_, err = e.fetch(t, "example.com/a:latest", FetchOptions{})
	wantErr(t, err, `label "version" is "3", not "latest"`)
	w.put(t, e.key, "example.com/i/example.com/b/1", acitest.Manifest("example.com/other", "1"))
	_, err = e.fetch(t, "example.com/b:1", FetchOptions{})
	wantErr(t, err, `named "example.com/other", not "example.com/b"`)
	w.put(t, e.key, "example.com/i/example.com/c/1", acitest.Manifest("example.com/c", "1"))
	_, err = e.fetch(t, "example.com/c:1,channel=beta", FetchOptions{})
	wantErr(t, err, `no label "channel"`)
	w.put(t, e.key, "example.com/i/example.com/d/1", strings.Replace(acitest.Manifest("example.com/d", "1"), "amd64", "s390x", 1))
	_, err = e.fetch(t, "example.com/d:1", FetchOptions{})
	wantErr(t, err, "is for linux/s390x")
	w.put(t, e.key, "example.com/i/example.com/e/1", `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/e","labels":[{"name":"version","value":"1"}]}`)
	for range 2 {
		if _, err = e.fetch(t, "example.com/e:1", FetchOptions{}); err != nil {
			t.Error("an image for every machine:", err)
		}
	}
}

// check list: 12
func TestNeverOpensNoConnection(t *testing.T) {
	e := newEnv(t)
	w := newWeb(t, e)
	e.f.Policy = PullNever
	_, err := e.fetch(t, "example.com/a", FetchOptions{})
	wantErr(t, err, "the pull policy is never")
	w.page("example.com", webTemplate)
	e.f.Insecure = InsecureImage
	path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", `"dependencies":[{"imageName":"example.com/b"}]`))
	_, err = e.fetch(t, path, FetchOptions{})
	wantErr(t, err, `dependency "example.com/b" of image "example.com/a"`)
	wantErr(t, err, "the pull policy is never")
	if len(w.asked) != 0 {
		t.Errorf("asked for %q", w.asked)
	}
	if err := e.f.Store.Remove("sha512-" + strings.Repeat("0", 64)); err == nil {
		t.Log("removing what is not there is no error")
	}
}

// check list: 3
func TestHashOpensNoConnection(t *testing.T) {
	e := newEnv(t)
	w := newWeb(t, e)
	e.f.Insecure = InsecureImage
	_, err := e.fetch(t, "sha512-1234", FetchOptions{})
	if !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	w.page("example.com", webTemplate)
	w.put(t, nil, "example.com/i/example.com/b/latest", acitest.Manifest("example.com/b", "1"))
	path := acitest.Build(t, e.dir, acitest.Manifest("example.com/a", "1", `"dependencies":[{"imageName":"example.com/b"}]`))
	img, err := e.fetch(t, path, FetchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dep, err := e.f.Store.Find("example.com/b", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.f.Store.Remove(dep.Key); err != nil {
		t.Fatal(err)
	}
	w.asked = nil
	if _, err := e.fetch(t, img.ID, FetchOptions{}); err != nil || len(w.asked) != 0 {
		t.Errorf("%v, asked for %q", err, w.asked)
	}
}

func TestEndpointsAreTriedInOrder(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com")
	w := newWeb(t, e)
	w.page("example.com", "ac-discovery example.com https://one.example.com/{version}.{ext}", "ac-discovery example.com ftp://two.example.com/{version}.{ext}",
		"ac-discovery example.com https://three.example.com/{version}.{ext}", "ac-discovery example.com https://four.example.com/{version}.{ext}",
		"ac-discovery example.com https://five.example.com/{version}.{ext}")
	w.codes["three.example.com/1.aci.asc"] = http.StatusServiceUnavailable
	w.put(t, e.key, "four.example.com/1", acitest.Manifest("example.com/a", "1"))
	w.codes["four.example.com/1.aci"] = http.StatusNotFound
	w.put(t, e.key, "five.example.com/1", acitest.Manifest("example.com/a", "1"))
	if _, err := e.fetch(t, "example.com/a:1", FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if w.count("three.") != maxTries || w.count("one.") != 1 || w.count("four.") != 2 {
		t.Errorf("asked for %q", w.asked)
	}
	// What another place cannot mend ends the search.
	other := acitest.NewKey(t, "other")
	w.page("example.com/b", "ac-discovery example.com https://six.example.com/{version}.{ext}", "ac-discovery example.com https://five.example.com/{version}.{ext}")
	w.put(t, other, "six.example.com/2", acitest.Manifest("example.com/b", "2"))
	_, err := e.fetch(t, "example.com/b:2", FetchOptions{})
	wantErr(t, err, "unknown entity")
	if w.count("five.example.com/2") != 0 {
		t.Errorf("asked for %q", w.asked)
	}
}

// check list: 37, 38
func TestTrustOnFirstUse(t *testing.T) {
	setup := func(t *testing.T) (*env, *web) {
		e := newEnv(t)
		w := newWeb(t, e)
		w.page("example.com", webTemplate, "ac-discovery-pubkeys example.com https://example.com/key.asc")
		w.files["example.com/key.asc"] = e.key.Public(t)
		w.put(t, e.key, "example.com/i/example.com/a/latest", acitest.Manifest("example.com/a", "1"))
		return e, w
	}
	t.Run("nobody to ask", func(t *testing.T) {
		e, _ := setup(t)
		_, err := e.fetch(t, "example.com/a", FetchOptions{})
		wantErr(t, err, "--trust-keys-from-https")
		wantErr(t, err, "rkt trust --prefix=example.com/a")
		// A root key may do all the same.
		e.trust(t, "")
		if _, err := e.fetch(t, "example.com/a", FetchOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("no and yes", func(t *testing.T) {
		e, w := setup(t)
		answer := false
		e.f.Ask = func(_ context.Context, q KeyQuestion) (bool, error) {
			if q.Prefix != "example.com/a" || q.URL != "https://example.com/key.asc" || len(q.Keys) != 1 || q.Keys[0].Fingerprint != e.key.Fingerprint() {
				t.Errorf("%+v", q)
			}
			return answer, nil
		}
		_, err := e.fetch(t, "example.com/a", FetchOptions{})
		wantErr(t, err, "unknown entity")
		answer = true
		if _, err := e.fetch(t, "example.com/a", FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		if keys, err := e.keys.List(); err != nil || len(keys) != 1 || keys[0].Prefix != "example.com/a" {
			t.Error(keys, err)
		}
		// From now on no key is discovered: a changed one is the user's to resolve.
		next := acitest.NewKey(t, "next")
		w.files["example.com/key.asc"] = next.Public(t)
		w.put(t, next, "example.com/i/example.com/a/2", acitest.Manifest("example.com/a", "2"))
		w.asked = nil
		_, err = e.fetch(t, "example.com/a:2", FetchOptions{})
		wantErr(t, err, "unknown entity")
		if w.count("key.asc") != 0 {
			t.Error("a key was discovered")
		}
		w.put(t, next, "example.com/i/example.com/a/b/2", acitest.Manifest("example.com/a/b", "2"))
		_, err = e.fetch(t, "example.com/a/b:2", FetchOptions{})
		wantErr(t, err, "unknown entity")
	})
	t.Run("by https", func(t *testing.T) {
		e, w := setup(t)
		e.f.TrustKeysFromHTTPS = true
		if _, err := e.fetch(t, "example.com/a", FetchOptions{}); err != nil {
			t.Error(err)
		}
		if w.count("key.asc") != 1 {
			t.Errorf("asked for %q", w.asked)
		}
	})
	t.Run("not over unverified connections", func(t *testing.T) {
		e, w := setup(t)
		e.f.TrustKeysFromHTTPS, e.f.Insecure = true, InsecureTLS
		_, err := e.fetch(t, "example.com/a", FetchOptions{})
		wantErr(t, err, "unknown entity")
		if w.count("key.asc") != 0 {
			t.Error("a key was discovered")
		}
		e.f.Insecure |= InsecurePubkey
		_, err = e.fetch(t, "example.com/a", FetchOptions{})
		wantErr(t, err, "nobody can be asked")
	})
	t.Run("plain http", func(t *testing.T) {
		e, w := setup(t)
		w.page("example.com", webTemplate, "ac-discovery-pubkeys example.com http://example.com/key.asc")
		e.f.TrustKeysFromHTTPS = true
		_, err := e.fetch(t, "example.com/a", FetchOptions{})
		wantErr(t, err, "unknown entity")
	})
}

// check list: 26
func TestDiscoveryUsesCredentialsOfEachHost(t *testing.T) {
	e := newEnv(t)
	e.trust(t, "example.com")
	w := newWeb(t, e)
	w.page("example.com", "ac-discovery example.com https://s3-eu-west-1.amazonaws.com/b/{version}.{ext}")
	w.put(t, e.key, "s3-eu-west-1.amazonaws.com/b/1", acitest.Manifest("example.com/a", "1"))
	e.f.Config = &config.Config{Auth: map[string]config.Auth{
		"example.com":                {Type: config.AuthOAuth, OAuth: config.OAuthSecret{Token: "t"}},
		"s3-eu-west-1.amazonaws.com": {Type: config.AuthAWS, AWS: config.AWSSecret{AccessKeyID: "AK", SecretAccessKey: "s"}},
	}}
	if _, err := e.fetch(t, "example.com/a:1", FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if w.auth["example.com"] != "Bearer t" || !strings.HasPrefix(w.auth["s3-eu-west-1.amazonaws.com"], "AWS4-HMAC-SHA256 Credential=AK/") ||
		!strings.Contains(w.auth["s3-eu-west-1.amazonaws.com"], "/eu-west-1/s3/aws4_request,") || len(w.auth) != 2 {
		t.Errorf("%q", w.auth)
	}
	// Pages lie in no bucket.
	e.f.Config.Auth["example.com"] = e.f.Config.Auth["s3-eu-west-1.amazonaws.com"]
	w.auth = map[string]string{}
	w.put(t, e.key, "s3-eu-west-1.amazonaws.com/b/2", acitest.Manifest("example.com/a", "2"))
	if _, err := e.fetch(t, "example.com/a:2", FetchOptions{}); err != nil || len(w.auth) != 1 {
		t.Errorf("%v, %q", err, w.auth)
	}
}

func TestShortNamesAreNotLookedUp(t *testing.T) {
	e := newEnv(t)
	w := newWeb(t, e)
	for _, name := range []string{"redis", "library/redis"} {
		_, err := e.fetch(t, name, FetchOptions{})
		wantErr(t, err, "is no host that could be asked")
		wantErr(t, err, "docker://")
		if !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	}
	if len(w.asked) != 0 {
		t.Errorf("asked for %q", w.asked)
	}
}

func TestNoArchOfAnotherMachineIsAsked(t *testing.T) {
	e := newEnv(t)
	_, err := e.fetch(t, "example.com/a,arch=pdp11", FetchOptions{})
	wantErr(t, err, "pdp11")
	if _, arch := appc.HostOSArch(); arch == "" {
		t.Error("no arch")
	}
}

func etag(data []byte) string { return fmt.Sprintf(`"%x"`, sha256.Sum256(data)) }

// check list: 71, 74
func TestStage1ByNameAndDependencies(t *testing.T) {
	oldDir, oldFile := buildinfo.Stage1Dir, buildinfo.Stage1File
	t.Cleanup(func() { buildinfo.Stage1Dir, buildinfo.Stage1File = oldDir, oldFile })
	buildinfo.Stage1Dir, buildinfo.Stage1File = "", ""
	e := newEnv(t)
	e.trust(t, "example.com")
	w := newWeb(t, e)
	w.page("example.com", webTemplate)
	e.f.Config = &config.Config{
		Stage1: config.Stage1{Name: "example.com/stage1", Version: "1"},
		Auth:   map[string]config.Auth{"example.com": {Type: config.AuthOAuth, OAuth: config.OAuthSecret{Token: "t"}}},
	}
	w.put(t, e.key, "example.com/i/example.com/base/latest", acitest.Manifest("example.com/base", ""))
	w.put(t, e.key, "example.com/i/example.com/stage1/1", acitest.Manifest("example.com/stage1", "1", depends("example.com/base")))
	_, err := e.f.FindStage1(t.Context(), Stage1Options{})
	wantErr(t, err, "use a --stage1-")
	if len(w.asked) != 0 {
		t.Errorf("the configured name was looked up: %q", w.asked)
	}
	img, err := e.f.FindStage1(t.Context(), Stage1Options{Name: "example.com/stage1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.f.Store.Find("example.com/base", nil); err != nil || w.auth["example.com"] != "Bearer t" {
		t.Error(err, w.auth)
	}
	w.asked = nil
	for _, o := range []Stage1Options{{}, {Name: "example.com/stage1:1"}, {Hash: img.ID}} {
		if got, err := e.f.FindStage1(t.Context(), o); err != nil || got.Key != img.Key {
			t.Errorf("%+v: %v", o, err)
		}
	}
	url := "https://example.com/i/example.com/stage1/1.aci"
	for range 2 {
		if got, err := e.f.FindStage1(t.Context(), Stage1Options{URL: url}); err != nil || got.Key != img.Key {
			t.Error(err)
		}
	}
	if w.count("stage1/1.aci") > 2 {
		t.Errorf("asked for %q", w.asked)
	}
}

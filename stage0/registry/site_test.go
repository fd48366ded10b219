package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

var amd64 = oci.Platform{OS: "linux", Architecture: "amd64"}

// doc is a manifest or an index of a site.
type doc struct {
	mediaType string
	data      []byte
}

// site is a registry in this process that is honest unless hook, which is asked
// first, answers a request itself.
type site struct {
	*httptest.Server
	host  string
	docs  map[string]doc // by REPOSITORY:TAG or REPOSITORY@DIGEST
	blobs map[string][]byte
	hook  func(w http.ResponseWriter, r *http.Request) bool

	mu  sync.Mutex
	log []logged
}

type logged struct {
	method, path, auth, ranges, agent string
}

func newSite(t *testing.T, secure bool) *site {
	t.Helper()
	s := &site{docs: map[string]doc{}, blobs: map[string][]byte{}}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.host = u.Host
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.log = append(s.log, logged{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("Range"), r.UserAgent()})
	hook := s.hook
	s.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	s.honest(w, r)
}

func (s *site) honest(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if repo, ref, ok := strings.Cut(path, "/manifests/"); ok {
		sep := ":"
		if strings.Contains(ref, ":") {
			sep = "@"
		}
		if d, ok := s.docs[repo+sep+ref]; ok {
			w.Header().Set("Content-Type", d.mediaType)
			w.Header().Set(digestHeader, oci.Digest(d.data))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.data))
			return
		}
	}
	if _, digest, ok := strings.Cut(path, "/blobs/"); ok {
		if b, ok := s.blobs[digest]; ok {
			w.Header().Set("Content-Type", "application/octet-stream")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such\u001b[2Jthing"}]}`)
}

func (s *site) requests() []logged {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]logged(nil), s.log...)
}

func (s *site) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

// put adds a manifest or an index under its digest and a tag.
func (s *site) put(repo, tag, mediaType string, data []byte) oci.Descriptor {
	d := oci.Descriptor{MediaType: mediaType, Digest: oci.Digest(data), Size: int64(len(data))}
	s.docs[repo+"@"+d.Digest] = doc{mediaType, data}
	if tag != "" {
		s.docs[repo+":"+tag] = doc{mediaType, data}
	}
	return d
}

func (s *site) blob(mediaType string, data []byte) oci.Descriptor {
	d := oci.Descriptor{MediaType: mediaType, Digest: oci.Digest(data), Size: int64(len(data))}
	s.blobs[d.Digest] = data
	return d
}

// image adds an image for an architecture with one layer.
func (s *site) image(t *testing.T, repo, tag, arch string, layer []byte) (manifest, blob oci.Descriptor) {
	t.Helper()
	blob = s.blob(oci.TypeLayer, layer)
	conf := s.blob(oci.TypeConfig, mustJSON(t, map[string]any{
		"os": "linux", "architecture": arch,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{blob.Digest}},
	}))
	return s.put(repo, tag, oci.TypeManifest, mustJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": oci.TypeManifest, "config": conf, "layers": []oci.Descriptor{blob},
	})), blob
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// quick are time-outs for tests: nothing that works comes near them, also on a
// busy machine.
func quick() Timeouts {
	return Timeouts{
		Connect: 10 * time.Second, TLS: 10 * time.Second, Header: 5 * time.Second, Stall: 5 * time.Second,
		Document: 10 * time.Second, Backoff: time.Millisecond, Wait: 20 * time.Millisecond, Helper: 10 * time.Second,
	}
}

// tight are those of tests in which a server is too slow.
func tight() Timeouts {
	t := quick()
	t.Header, t.Stall, t.Document = 300*time.Millisecond, 150*time.Millisecond, time.Second
	return t
}

// client trusts the certificates of sites and nothing else out of the ordinary.
func client(t *testing.T, sites ...*site) *Client {
	t.Helper()
	certs := t.TempDir()
	for _, s := range sites {
		if s.Certificate() == nil {
			continue
		}
		writeFile(t, filepath.Join(certs, s.host, "ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	}
	c := &Client{Config: &config.Config{}, Timeouts: quick(), MaxRetries: 2, CertDirs: []string{filepath.Join(certs, "absent"), certs}}
	t.Cleanup(c.CloseIdle)
	return c
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, c *Client, ref string) *Repository {
	t.Helper()
	parsed, err := oci.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Open(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// soon fails the test when what should be bounded takes too long.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(func() {
		if ctx.Err() != nil && t.Context().Err() == nil {
			t.Error("not bounded in time")
		}
		cancel()
	})
	return ctx
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q, want %q in it", err, p)
		}
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) || len(err.Error()) > 4000 {
		t.Errorf("the error cannot be printed: %q", err)
	}
}

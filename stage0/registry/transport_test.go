package registry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

// selfSigned makes a client certificate and its key.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	k := ecKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM(t, k)
}

func keyPEM(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestCertificates: authorities from the configuration and from certs.d, and a
// client's certificate, which only its own host gets to see.
func TestCertificates(t *testing.T) {
	s, other := newSite(t, true), newSite(t, true)
	_, layer := s.image(t, "a", "1", "amd64", []byte("x"))
	other.image(t, "a", "1", "amd64", []byte("x"))
	shown := func(s *site) *atomic.Int32 {
		var n atomic.Int32
		inner := s.hook
		s.hook = func(w http.ResponseWriter, r *http.Request) bool {
			n.Add(int32(len(r.TLS.PeerCertificates)))
			return inner != nil && inner(w, r)
		}
		return &n
	}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/"+layer.Digest) {
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusFound)
			return true
		}
		return false
	}
	seen, elsewhere := shown(s), shown(other)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "ca.pem"), ca) // both sites have httptest's
	cert, key := selfSigned(t)
	certs := filepath.Join(dir, "certs.d", s.host)
	writeFile(t, filepath.Join(certs, "client.cert"), cert)
	writeFile(t, filepath.Join(certs, "client.key"), key)
	c := client(t)
	c.CertDirs = []string{filepath.Join(dir, "certs.d")}
	c.Config = &config.Config{Registries: map[string]config.Registry{s.host: {Prefix: s.host, CA: filepath.Join(dir, "ca.pem")}}}
	r := open(t, c, s.host+"/a:1")
	img, err := r.Image(soon(t), amd64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readBlob(soon(t), r, img.Layers[0].Descriptor, 0); err != nil {
		t.Fatal(err)
	}
	if seen.Load() == 0 || elsewhere.Load() != 0 {
		t.Errorf("the certificate was shown %d times, elsewhere %d", seen.Load(), elsewhere.Load())
	}

	writeFile(t, filepath.Join(certs, "x.crt"), []byte("junk"))
	bad := client(t)
	bad.CertDirs = c.CertDirs
	_, err = open(t, bad, s.host+"/a:1").Image(soon(t), amd64)
	wantError(t, err, "holds no certificate")
	writeFile(t, filepath.Join(certs, "other.cert"), cert)
	bad = client(t)
	bad.CertDirs = c.CertDirs
	_, err = open(t, bad, s.host+"/a:1").Image(soon(t), amd64)
	wantError(t, err, "needs its key")
	absent := client(t)
	absent.Config = &config.Config{Registries: map[string]config.Registry{s.host: {Prefix: s.host, CA: filepath.Join(dir, "absent.pem")}}}
	_, err = open(t, absent, s.host+"/a:1").Image(soon(t), amd64)
	wantError(t, err, "reading certificates", "absent.pem")
}

// A host's name may come from a redirect, so it must not lead out of certs.d.
func TestCertDirNames(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "evil.crt"), []byte("junk"))
	writeFile(t, filepath.Join(dir, "certs.d", "evil.crt"), []byte("junk"))
	c := &Client{CertDirs: []string{filepath.Join(dir, "certs.d")}}
	for _, host := range []string{"..", ".", "", "../x", "a/../..", "a\x00", "-"} {
		if cas, certs, err := c.certDir(host); cas != nil || certs != nil || err != nil {
			t.Errorf("%q: %v %v %v", host, cas, certs, err)
		}
	}
}

// check list: 30
func TestProxy(t *testing.T) {
	s := newSite(t, true)
	s.image(t, "a", "1", "amd64", []byte("x"))
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "registry.test:443" || r.Header.Get("Authorization") != "" {
			w.WriteHeader(400)
			return
		}
		asked.Add(1)
		up, err := net.Dial("tcp", s.host)
		if err != nil {
			w.WriteHeader(502)
			return
		}
		w.WriteHeader(200)
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			up.Close()
			return
		}
		go func() { _, _ = io.Copy(up, down); up.Close() }()
		_, _ = io.Copy(down, up)
		down.Close()
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t)
	c.InsecureTLS = true
	c.Proxy = http.ProxyURL(u)
	if _, err := open(t, c, "registry.test/a:1").Image(soon(t), amd64); err != nil || asked.Load() == 0 {
		t.Error(err, asked.Load())
	}
	c.CloseIdle()
}

// Blobs wait for their turn; manifests do not wait for blobs.
func TestBlobsAtATime(t *testing.T) {
	s := newSite(t, true)
	s.image(t, "a", "1", "amd64", []byte("x"))
	d := s.blob(oci.TypeLayer, pattern(100<<10))
	var now, most atomic.Int32
	go1, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, d.Digest) {
			return false
		}
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		if now.Load() == 2 {
			once.Do(func() { close(go1) })
		}
		<-hold
		now.Add(-1)
		return false
	}
	c := client(t, s)
	c.MaxBlobs = 2
	c.Timeouts.Header = 10 * time.Second
	c.Timeouts.Document = 10 * time.Second
	r := open(t, c, s.host+"/a:1")
	ctx := soon(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if data, err := readBlob(ctx, r, d, 0); err != nil || len(data) != 100<<10 {
				t.Error(len(data), err)
			}
		})
	}
	<-go1
	if _, err := r.Image(ctx, amd64); err != nil {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.Blob(cancelled, d, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(hold)
	wg.Wait()
	if most.Load() != 2 {
		t.Errorf("%d blobs at a time", most.Load())
	}
}

// Redirects that are each quick enough are not, together.
func TestSlowRedirects(t *testing.T) {
	s := newSite(t, true)
	d := s.blob(oci.TypeLayer, []byte("x"))
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		_ = sleep(r.Context(), 150*time.Millisecond)
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
		return true
	}
	c := client(t, s)
	c.MaxRetries = -1
	c.Timeouts.Document = 400 * time.Millisecond
	_, err := open(t, c, s.host+"/a:1").Blob(soon(t), d, 0)
	wantError(t, err, "no answer in time")
}

// A signature that refers to the image, as cosign 2 makes it when asked to.
func TestReferringSignature(t *testing.T) {
	k := ecKey(t)
	s := newSite(t, true)
	d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
	payload := simpleSigning(s.host+"/a", d.Digest)
	p := s.blob(typeSimpleSigning, payload)
	m := s.put("a", "", oci.TypeManifest, mustJSON(t, object{
		"schemaVersion": 2, "mediaType": oci.TypeManifest, "config": s.blob(typeArtifactSig, []byte("{}")),
		"layers": []any{object{"mediaType": p.MediaType, "digest": p.Digest, "size": p.Size, "annotations": object{sigAnnotation: b64(sign(t, k, payload))}}},
	}))
	s.put("a", strings.Replace(d.Digest, ":", "-", 1), oci.TypeIndex, mustJSON(t, object{"manifests": []any{
		object{"mediaType": m.MediaType, "digest": m.Digest, "size": m.Size, "artifactType": typeArtifactSig},
	}}))
	r := open(t, client(t, s), s.host+"/a:1")
	if got, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, []Key{parseKey(t, k.Public())}); err != nil || got.Identity != s.host+"/a" {
		t.Error(got, err)
	}
}

// Many readers share a client: nothing races (run with -race).
func TestManyAtOnce(t *testing.T) {
	s, auth := newSite(t, true), newSite(t, true)
	data := pattern(300 << 10)
	s.image(t, "a", "1", "amd64", []byte("x"))
	d := s.blob(oci.TypeLayer, data)
	guard(s, auth.URL)
	tokenServer(auth, `{"token":"`+theToken+`"}`)
	c := client(t, s, auth)
	c.Timeouts = Timeouts{}
	r := open(t, c, s.host+"/a:1")
	ctx := soon(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			offset := int64(i * 1000)
			got, err := readBlob(ctx, r, d, offset)
			if err != nil || !bytes.Equal(got, data[offset:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if _, err := r.Image(ctx, amd64); err != nil {
				t.Error(err)
			}
			if _, err := r.Head(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

// check list: 7, 63, 64
func TestImageByTagDigestAndIndex(t *testing.T) {
	s := newSite(t, true)
	one, layer := s.image(t, "a/b", "one", "amd64", []byte("layer"))
	other, _ := s.image(t, "a/b", "", "s390x", []byte("other"))
	entry := func(d oci.Descriptor, arch string) map[string]any {
		return map[string]any{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size, "platform": map[string]any{"os": "linux", "architecture": arch}}
	}
	index := s.put("a/b", "multi", oci.TypeIndex, mustJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": oci.TypeIndex, "manifests": []any{entry(other, "s390x"), entry(one, "amd64")},
	}))
	c := client(t, s)
	for _, tt := range []struct{ ref, manifest, index, tag string }{
		{":one", one.Digest, "", "one"},
		{"@" + one.Digest, one.Digest, "", ""},
		{":other@" + one.Digest, one.Digest, "", "other"},
		{":multi", one.Digest, index.Digest, "multi"},
		{"@" + index.Digest, one.Digest, index.Digest, ""},
	} {
		r := open(t, c, s.host+"/a/b"+tt.ref)
		img, err := r.Image(soon(t), amd64)
		if err != nil {
			t.Fatal(err)
		}
		if img.ManifestDigest != tt.manifest || img.Index != tt.index || img.Tag != tt.tag || len(img.Layers) != 1 || img.Layers[0].Digest != layer.Digest {
			t.Errorf("%s: %+v", tt.ref, img)
		}
		b, err := r.Blob(soon(t), img.Layers[0].Descriptor, 0)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(b); err != nil || string(data) != "layer" {
			t.Errorf("%q, %v", data, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := open(t, c, s.host+"/a/b:multi").Image(soon(t), oci.Platform{OS: "linux", Architecture: "riscv64"})
	var platform *oci.PlatformError
	if !errors.As(err, &platform) {
		t.Errorf("error %v is no PlatformError", err)
	}
	wantError(t, err, "linux/amd64, linux/s390x")
	_, err = open(t, c, s.host+"/a/b:absent").Image(soon(t), amd64)
	wantError(t, err, `fetching manifest of "`+s.host+`/a/b:absent"`, "HTTP status 404 (Not Found)", `the registry says "MANIFEST_UNKNOWN: no such [2Jthing"`)
	if !errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized) {
		t.Errorf("%v is not ErrNotFound", err)
	}
	for _, l := range s.requests() {
		if l.agent != "rkt/"+buildinfo.Version {
			t.Errorf("User-Agent %q", l.agent)
		}
	}
}

// check list: 13
func TestHeadIsOneRequest(t *testing.T) {
	s := newSite(t, true)
	d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
	r := open(t, client(t, s), s.host+"/a:1")
	digest, err := r.Head(soon(t))
	if err != nil || digest != d.Digest {
		t.Fatal(digest, err)
	}
	if log := s.requests(); len(log) != 1 || log[0].method != http.MethodHead {
		t.Errorf("%+v", log)
	}
	// A server without HEAD, or without the header.
	for _, code := range []int{405, 200} {
		s.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(code)
				return true
			}
			return false
		}
		if digest, err := r.Head(soon(t)); err != nil || digest != d.Digest {
			t.Error(code, digest, err)
		}
	}
	s.forget()
	pinned := open(t, client(t, s), s.host+"/a@"+d.Digest)
	if digest, err := pinned.Head(soon(t)); err != nil || digest != d.Digest || len(s.requests()) != 0 {
		t.Error(digest, err, s.requests())
	}
}

// TestHostileManifests: every lie is found, in bounded time and memory.
// check list: 62
func TestHostileManifests(t *testing.T) {
	manifests := func(do func(http.ResponseWriter, *http.Request, doc)) func(*site, http.ResponseWriter, *http.Request) bool {
		return func(s *site, w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			do(w, r, s.docs["a:1"])
			return true
		}
	}
	configs := func(do func(http.ResponseWriter, []byte)) func(*site, http.ResponseWriter, *http.Request) bool {
		return func(s *site, w http.ResponseWriter, r *http.Request) bool {
			_, digest, ok := strings.Cut(r.URL.Path, "/blobs/")
			if ok {
				do(w, s.blobs[digest])
			}
			return ok
		}
	}
	endless := func(w http.ResponseWriter) {
		junk := bytes.Repeat([]byte(" "), 64<<10)
		for {
			if _, err := w.Write(junk); err != nil {
				return
			}
		}
	}
	hang := func(r *http.Request) { <-r.Context().Done() }
	for _, tt := range []struct {
		name string
		hook func(*site, http.ResponseWriter, *http.Request) bool
		err  string
	}{
		{"digest header of other content", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			w.Header().Set(digestHeader, oci.Digest([]byte("other")))
			_, _ = w.Write(d.data)
		}), "tampered"},
		{"two digest headers", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			w.Header().Add(digestHeader, oci.Digest(d.data))
			w.Header().Add(digestHeader, oci.Digest([]byte("other")))
			_, _ = w.Write(d.data)
		}), "tampered"},
		{"digest header of another algorithm", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			w.Header().Set(digestHeader, "sha512:"+strings.Repeat("0", 128))
			_, _ = w.Write(d.data)
		}), "not supported"},
		{"junk digest header", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			w.Header().Set(digestHeader, "x")
			_, _ = w.Write(d.data)
		}), "bad digest"},
		{"endless manifest", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) { endless(w) }), "more than 4194304 bytes"},
		{"huge announced manifest", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.Header().Set("Content-Length", "1099511627776")
		}), "1099511627776 bytes, more than"},
		{"shorter than announced", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			w.Header().Set("Content-Length", fmt.Sprint(len(d.data)+1))
			_, _ = w.Write(d.data)
		}), "unexpected EOF"},
		{"longer than announced", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			raw(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(d.data)-1, d.data)
		}), "bad JSON"},
		{"two lengths", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			raw(w, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n%s", d.data)
		}), "Content-Length"},
		{"giant headers", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.Header().Set("X-Junk", strings.Repeat("x", 1<<20))
		}), "headers exceeded"},
		{"endless interim answers", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			raw(w, "%s", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("x", 4000)+"\r\n\r\n", 200))
		}), "headers exceeded"},
		{"no answer", manifests(func(_ http.ResponseWriter, r *http.Request, _ doc) { hang(r) }), "timeout awaiting response headers"},
		{"no body", manifests(func(w http.ResponseWriter, r *http.Request, _ doc) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			hang(r)
		}), "stalled"},
		{"a byte at a time", manifests(func(w http.ResponseWriter, r *http.Request, d doc) {
			for i := range d.data {
				_, _ = w.Write(d.data[i : i+1])
				w.(http.Flusher).Flush()
				if sleep(r.Context(), 20*time.Millisecond) != nil {
					return
				}
			}
		}), "stalled"},
		{"connection dropped", manifests(func(http.ResponseWriter, *http.Request, doc) { panic(http.ErrAbortHandler) }), "EOF"},
		{"not HTTP", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) { raw(w, "220 smtp ready\r\n") }), "malformed HTTP"},
		{"partial answer", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			w.WriteHeader(206)
			_, _ = w.Write(d.data)
		}), "206"},
		{"error with escapes", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"errors":[{"code":"\u001b]0;x\u0007","message":%q}]}`, strings.Repeat("é", 5000))
		}), "400"},
		{"endless error", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.WriteHeader(400)
			endless(w)
		}), "400"},
		{"schema 1", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
			fmt.Fprint(w, `{"schemaVersion":1}`)
		}), "schema 1"},
		{"another type than the document's", manifests(func(w http.ResponseWriter, _ *http.Request, d doc) {
			w.Header().Set("Content-Type", oci.TypeIndex)
			_, _ = w.Write(d.data)
		}), "but it was offered as"},
		{"HTML", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			fmt.Fprint(w, "<html>captive portal</html>")
		}), "bad JSON"},
		{"endless redirects", manifests(func(w http.ResponseWriter, r *http.Request, _ doc) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}), "more than 10 redirects"},
		{"redirect to http", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.Header().Set("Location", "http://127.0.0.1:1/x")
			w.WriteHeader(307)
		}), "a redirect to plain http"},
		{"redirect to a file", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(307)
		}), "no URL of https"},
		{"redirect with a password", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) {
			w.Header().Set("Location", "https://u:p@127.0.0.1:1/x")
			w.WriteHeader(307)
		}), "a URL with a password"},
		{"redirect to nowhere", manifests(func(w http.ResponseWriter, _ *http.Request, _ doc) { w.WriteHeader(307) }), "without a usable Location"},
		{"wrong configuration", configs(func(w http.ResponseWriter, b []byte) { _, _ = w.Write(bytes.ToUpper(b)) }), "tampered"},
		{"short configuration", configs(func(w http.ResponseWriter, b []byte) { _, _ = w.Write(b[1:]) }), "its descriptor says"},
		{"long configuration", configs(func(w http.ResponseWriter, b []byte) { _, _ = w.Write(append(bytes.Clone(b), ' ')) }), "more than"},
		{"endless configuration", configs(func(w http.ResponseWriter, _ []byte) { endless(w) }), "more than"},
		{"absent configuration", configs(func(w http.ResponseWriter, _ []byte) { w.WriteHeader(404) }), "404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, true)
			s.image(t, "a", "1", "amd64", []byte("x"))
			s.hook = func(w http.ResponseWriter, r *http.Request) bool { return tt.hook(s, w, r) }
			c := client(t, s)
			if tt.err == "stalled" || strings.Contains(tt.err, "timeout") {
				c.Timeouts = tight()
			}
			img, err := open(t, c, s.host+"/a:1").Image(soon(t), amd64)
			if img != nil {
				t.Error("there is an image")
			}
			wantError(t, err, tt.err)
		})
	}
}

// raw answers with bytes of one's own.
func raw(w http.ResponseWriter, format string, args ...any) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(conn, format, args...)
	conn.Close()
}

func TestManifestOfAnotherDigest(t *testing.T) {
	s := newSite(t, true)
	d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
	e, _ := s.image(t, "a", "2", "amd64", []byte("y"))
	s.docs["a@"+d.Digest] = s.docs["a@"+e.Digest] // also in its header
	_, err := open(t, client(t, s), s.host+"/a@"+d.Digest).Image(soon(t), amd64)
	wantError(t, err, "expected "+d.Digest)
}

// An index cannot hold its own digest, but it can be deep and wide.
func TestDeepIndex(t *testing.T) {
	s := newSite(t, true)
	d, _ := s.image(t, "a", "", "amd64", []byte("x"))
	for range 6 {
		d = s.put("a", "deep", oci.TypeIndex, mustJSON(t, map[string]any{"schemaVersion": 2, "mediaType": oci.TypeIndex, "manifests": []any{d}}))
	}
	_, err := open(t, client(t, s), s.host+"/a:deep").Image(soon(t), amd64)
	wantError(t, err, "nested deeper than 4")
	// A cycle by lies: every digest is answered with the index itself.
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		top := s.docs["a:deep"]
		w.Header().Set("Content-Type", top.mediaType)
		_, _ = w.Write(top.data)
		return true
	}
	_, err = open(t, client(t, s), s.host+"/a:deep").Image(soon(t), amd64)
	wantError(t, err, "tampered")
	if n := len(s.requests()); n > 40 {
		t.Errorf("%d requests", n)
	}
}

// check list: 64
func TestRetries(t *testing.T) {
	for _, tt := range []struct {
		name     string
		code     int
		after    string
		failures int
		ok       bool
		requests int
	}{
		{"too many requests, once", 429, "", 1, true, 2},
		{"unavailable, twice", 503, "0", 2, true, 3},
		{"unavailable for ever", 503, "", 99, false, 3},
		{"come back too late", 429, "3600", 99, false, 1},
		{"come back at a date", 429, "Fri, 31 Dec 2199 23:59:59 GMT", 99, false, 1},
		{"junk in Retry-After", 429, "-1e9\x80", 1, true, 2},
		{"forbidden", 403, "", 99, false, 1},
		{"not implemented", 501, "", 99, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, true)
			s.image(t, "a", "1", "amd64", []byte("x"))
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if len(s.requests()) > tt.failures || strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				if tt.after != "" {
					w.Header().Set("Retry-After", tt.after)
				}
				w.WriteHeader(tt.code)
				return true
			}
			_, err := open(t, client(t, s), s.host+"/a:1").Image(soon(t), amd64)
			n := 0
			for _, l := range s.requests() {
				if strings.Contains(l.path, "/manifests/") {
					n++
				}
			}
			if (err == nil) != tt.ok || n != tt.requests {
				t.Errorf("error %v after %d requests, want ok %v, %d requests", err, n, tt.ok, tt.requests)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	s := newSite(t, true)
	ctx, cancel := context.WithCancelCause(soon(t))
	why := errors.New("the user pressed Ctrl-C")
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		cancel(why)
		<-r.Context().Done()
		return true
	}
	c := client(t, s)
	c.Timeouts.Header = time.Hour
	_, err := open(t, c, s.host+"/a:1").Image(ctx, amd64)
	if !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// check list: 29, 64
func TestPlainHTTPAndUnknownCertificates(t *testing.T) {
	plain, unknown := newSite(t, false), newSite(t, true)
	plain.image(t, "a", "1", "amd64", []byte("x"))
	unknown.image(t, "a", "1", "amd64", []byte("x"))
	insecure := func(s *site) *config.Config {
		return &config.Config{Registries: map[string]config.Registry{s.host: {Prefix: s.host, Insecure: true}}}
	}
	for _, tt := range []struct {
		name string
		site *site
		set  func(*Client)
		err  string
	}{
		{"http refused, also on loopback", plain, func(*Client) {}, "first record does not look like a TLS handshake"},
		{"http refused with tls", plain, func(c *Client) { c.InsecureTLS = true }, "TLS handshake"},
		{"http by option", plain, func(c *Client) { c.InsecureHTTP = true }, ""},
		{"http by configuration", plain, func(c *Client) { c.Config = insecure(plain) }, ""},
		{"http of another registry", plain, func(c *Client) { c.Config = insecure(unknown) }, "TLS handshake"},
		{"unknown certificate", unknown, func(*Client) {}, "certificate"},
		{"unknown certificate with http", unknown, func(c *Client) { c.InsecureHTTP = true }, "certificate"},
		{"unknown certificate by option", unknown, func(c *Client) { c.InsecureTLS = true }, ""},
		{"unknown certificate by configuration", unknown, func(c *Client) { c.Config = insecure(unknown) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t)
			tt.set(c)
			plain.forget()
			_, err := open(t, c, tt.site.host+"/a:1").Image(soon(t), amd64)
			if tt.err == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, tt.err)
			var hint interface{ Hint() string }
			if !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "registries.d") {
				t.Errorf("no hint: %v", err)
			}
			if n := len(plain.requests()); n != 0 {
				t.Errorf("%d requests over http", n)
			}
		})
	}
}

// check list: 64
func TestMirrorOrder(t *testing.T) {
	first, second, origin := newSite(t, true), newSite(t, true), newSite(t, true)
	d, layer := origin.image(t, "acme/web", "1", "amd64", []byte("layer"))
	conf := func(pull config.Pull) *config.Config {
		return &config.Config{Registries: map[string]config.Registry{
			"example.com/acme": {
				Prefix: "example.com/acme", Location: origin.host + "/acme",
				Mirrors: []config.Mirror{{Location: first.host + "/hub"}, {Location: second.host + "/m", Pull: pull}},
			},
			second.host: {Prefix: second.host},
		}}
	}
	c := client(t, first, second, origin)
	c.Config = conf(config.PullDigest)
	forget := func() { first.forget(); second.forget(); origin.forget() }

	// Nobody but the origin has it; the digest-only mirror is not asked.
	r := open(t, c, "example.com/acme/web:1")
	if _, err := r.Image(soon(t), amd64); err != nil {
		t.Fatal(err)
	}
	if len(first.requests()) != 1 || len(second.requests()) != 0 || first.requests()[0].path != "/v2/hub/web/manifests/1" {
		t.Errorf("%v %v", first.requests(), second.requests())
	}
	// Layers come from where the manifest came from.
	forget()
	if b, err := r.Blob(soon(t), layer, 0); err != nil {
		t.Error(err)
	} else {
		b.Close()
	}
	if len(first.requests()) != 0 || len(origin.requests()) != 1 {
		t.Errorf("%v %v", first.requests(), origin.requests())
	}
	// By digest the second mirror is asked; what it lies is not taken.
	forget()
	liar, _ := second.image(t, "m/web", "", "amd64", []byte("evil"))
	second.docs["m/web@"+d.Digest] = second.docs["m/web@"+liar.Digest]
	img, err := open(t, c, "example.com/acme/web@"+d.Digest).Image(soon(t), amd64)
	if err != nil || img.ManifestDigest != d.Digest || len(second.requests()) != 1 {
		t.Error(img, err, second.requests())
	}
	// The error tells about all.
	origin.docs = nil
	_, err = open(t, c, "example.com/acme/web@"+d.Digest).Image(soon(t), amd64)
	wantError(t, err, `from mirror "`+first.host+`/hub/web": GET`, `from mirror "`+second.host+`/m/web": checking manifest`, `from "`+origin.host+`/acme/web": GET`)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("%v: the registry itself does not have it", err)
	}
	// A mirror for tags only is left out for digests.
	forget()
	c.Config = conf(config.PullTag)
	_, _ = open(t, c, "example.com/acme/web@"+d.Digest).Image(soon(t), amd64)
	if len(second.requests()) != 0 {
		t.Errorf("%v", second.requests())
	}
	// A dead mirror costs nothing but its attempt.
	first.Close()
	if _, err := open(t, c, "example.com/acme/web:1").Image(soon(t), amd64); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestBlocked(t *testing.T) {
	c := &Client{Config: &config.Config{Registries: map[string]config.Registry{
		"a.com": {Prefix: "a.com", Blocked: true}, "b.com": {Prefix: "b.com", Location: "a.com/b"},
	}}}
	for _, text := range []string{"a.com/x:1", "b.com/x:1"} {
		ref, err := oci.ParseReference(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Open(ref)
		wantError(t, err, "the configuration blocks")
	}
}

// TestAgainstRegistry runs against somebody else's idea of the protocol.
// check list: 64
func TestAgainstRegistry(t *testing.T) {
	srv := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	s := newSite(t, true) // only to make the documents
	d, layer := s.image(t, "a/b", "1", "amd64", bytes.Repeat([]byte("layer"), 1000))
	put := func(path, mediaType string, data []byte) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPut, srv.URL+path, bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Fatal(path, resp.Status)
		}
	}
	for digest, data := range s.blobs {
		resp, err := http.Post(srv.URL+"/v2/a/b/blobs/uploads/?digest="+digest, "application/octet-stream", bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Fatal(resp.Status)
		}
	}
	put("/v2/a/b/manifests/1", oci.TypeManifest, s.docs["a/b:1"].data)
	c := client(t)
	c.InsecureHTTP = true
	r := open(t, c, host+"/a/b:1")
	if digest, err := r.Head(soon(t)); err != nil || digest != d.Digest {
		t.Error(digest, err)
	}
	img, err := r.Image(soon(t), amd64)
	if err != nil || img.ManifestDigest != d.Digest {
		t.Fatal(img, err)
	}
	for _, offset := range []int64{0, 1, 2500, layer.Size - 1, layer.Size} {
		b, err := r.Blob(soon(t), layer, offset)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(data, s.blobs[layer.Digest][offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(data), err)
		}
		b.Close()
	}
	if _, err := open(t, c, host+"/a/b:2").Image(soon(t), amd64); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

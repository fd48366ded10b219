package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/stage0/config"
)

// handle serves one image with a handler of the test's own; signatures are off.
func handle(t *testing.T, h http.HandlerFunc) (*env, string) {
	t.Helper()
	e := newEnv(t)
	e.f.Insecure = InsecureImage
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return e, s.URL + "/x.aci"
}

func someImage(t *testing.T, version string) []byte {
	t.Helper()
	return acitest.Compress(t, "gzip", acitest.Tar(t, acitest.Manifest("example.com/a", version), acitest.Reg("f", strings.Repeat(version+"-", 1000), 0o644)))
}

// leave puts a partial file where an interrupted download left it.
func (e *env) leave(t *testing.T, url string, data []byte, v validators) {
	t.Helper()
	tmp, err := os.Create(e.f.Store.TempFor(url))
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	if _, err := tmp.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := writeValidators(tmp, v); err != nil {
		t.Fatal(err)
	}
}

// check list: 16
func TestResumeAtEveryOffset(t *testing.T) {
	data := someImage(t, "1")
	old := time.Now().Add(-time.Hour).UTC()
	for _, kind := range []string{"strong ETag", "weak ETag and date", "date"} {
		for _, offset := range []int{0, 1, 100, len(data) / 2, len(data) - 1, len(data)} {
			t.Run(fmt.Sprintf("%s at %d", kind, offset), func(t *testing.T) {
				var sent, requests int
				e, url := handle(t, func(w http.ResponseWriter, r *http.Request) {
					requests++
					modified := old
					switch kind {
					case "strong ETag":
						w.Header().Set("ETag", `"a"`)
						modified = time.Time{}
					case "weak ETag and date":
						w.Header().Set("ETag", `W/"a"`)
					}
					count := &counted{ResponseWriter: w, n: &sent}
					http.ServeContent(count, r, "", modified, strings.NewReader(string(data)))
				})
				v := validators{LastModified: old.Format(http.TimeFormat), Size: int64(len(data))}
				switch kind {
				case "strong ETag":
					v = validators{ETag: `"a"`, Size: v.Size}
				case "weak ETag and date":
					v.ETag = `W/"a"`
				}
				e.leave(t, url, data[:offset], v)
				if _, err := e.fetch(t, url, FetchOptions{}); err != nil {
					t.Fatal(err)
				}
				if requests != 1 || sent != len(data)-offset {
					t.Errorf("%d requests, %d bytes; want %d bytes", requests, sent, len(data)-offset)
				}
				if left, _ := os.ReadDir(e.f.Store.TempDir()); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

type counted struct {
	http.ResponseWriter
	n *int
}

func (c *counted) Write(b []byte) (int, error) {
	*c.n += len(b)
	return c.ResponseWriter.Write(b)
}

// check list: 16
func TestChangedFileNeverMixesWithTheOldPart(t *testing.T) {
	data, other := someImage(t, "1"), someImage(t, "2")
	half := len(other) / 2
	const etag, next = `"old"`, `"new"`
	whole := func(w http.ResponseWriter) {
		w.Header().Set("ETag", next)
		_, _ = w.Write(data)
	}
	part := func(w http.ResponseWriter, etag, rng string, body []byte) {
		w.Header().Set("ETag", etag)
		w.Header().Set("Content-Range", rng)
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"200 to a range request": func(w http.ResponseWriter, _ *http.Request) { whole(w) },
		"another ETag": func(w http.ResponseWriter, _ *http.Request) {
			part(w, next, fmt.Sprintf("bytes %d-%d/%d", half, len(data)-1, len(data)), data[half:])
		},
		"another size": func(w http.ResponseWriter, _ *http.Request) {
			part(w, etag, fmt.Sprintf("bytes %d-%d/%d", half, len(data)+4, len(data)+5), append(data[half:], "12345"...))
		},
		"another start": func(w http.ResponseWriter, _ *http.Request) {
			part(w, etag, fmt.Sprintf("bytes 0-%d/%d", len(other)-1, len(other)), other)
		},
		"no range": func(w http.ResponseWriter, _ *http.Request) { part(w, etag, "", other[half:]) },
		"a negative range": func(w http.ResponseWriter, _ *http.Request) {
			part(w, etag, fmt.Sprintf("bytes %d--1/%d", half, len(other)), other[half:])
		},
		"a range that ends early": func(w http.ResponseWriter, _ *http.Request) {
			part(w, etag, fmt.Sprintf("bytes %d-%d/%d", half, half+1, len(other)), other[half:half+2])
		},
		"416": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, url := handle(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					whole(w)
					return
				}
				if r.Header.Get("Range") != fmt.Sprintf("bytes=%d-", half) || r.Header.Get("If-Range") != etag {
					t.Errorf("asked with %v", r.Header)
				}
				answer(w, r)
			})
			e.leave(t, url, other[:half], validators{ETag: etag, Size: int64(len(other))})
			img, err := e.fetch(t, url, FetchOptions{})
			if err != nil || img.Labels["version"] != "1" {
				t.Error(img.Labels, err)
			}
		})
	}
	for name, v := range map[string]validators{"nothing known": {}, "a weak ETag": {ETag: `W/"a"`}, "too much": {ETag: etag, Size: 3}} {
		t.Run(name, func(t *testing.T) {
			e, url := handle(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					t.Errorf("asked with %v", r.Header)
				}
				whole(w)
			})
			e.leave(t, url, other[:half], v)
			if img, err := e.fetch(t, url, FetchOptions{}); err != nil || img.Labels["version"] != "1" {
				t.Error(img.Labels, err)
			}
		})
	}
}

func TestDateProvesOnlyWhatIsOlder(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]bool{time.Hour: true, 0: false, -time.Hour: false} {
		h := http.Header{"Date": {now.UTC().Format(http.TimeFormat)}, "Last-Modified": {now.Add(-age).UTC().Format(http.TimeFormat)}}
		if got := validatorsOf(h).ifRange() != ""; got != want {
			t.Errorf("%s: %v", age, got)
		}
	}
}

// check list: 16
func TestDroppedConnectionsAreResumed(t *testing.T) {
	data := someImage(t, "1")
	for _, pieces := range []int{2, 3, 4} {
		requests := 0
		e, url := handle(t, func(w http.ResponseWriter, r *http.Request) {
			requests++
			w.Header().Set("ETag", `"a"`)
			start := 0
			if rng := r.Header.Get("Range"); rng != "" {
				if _, err := fmt.Sscanf(rng, "bytes=%d-", &start); err != nil {
					t.Error(err)
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(data)-1, len(data)))
				w.Header().Set("Content-Length", fmt.Sprint(len(data)-start))
				w.WriteHeader(http.StatusPartialContent)
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			}
			if requests == pieces {
				_, _ = w.Write(data[start:])
				return
			}
			_, _ = w.Write(data[start:min(len(data), start+len(data)/pieces)])
			w.(http.Flusher).Flush() //nolint:forcetypeassert // it is one
			panic(http.ErrAbortHandler)
		})
		if _, err := e.fetch(t, url, FetchOptions{}); err != nil || requests != pieces {
			t.Errorf("%d pieces: %v after %d requests", pieces, err, requests)
		}
	}
}

func TestTriesAreBounded(t *testing.T) {
	for _, c := range []struct {
		code         int
		after        string
		tries, waits int
		wait         time.Duration
	}{
		{503, "", maxTries, maxTries - 1, time.Second},
		{503, "7", maxTries, maxTries - 1, 7 * time.Second},
		{429, "0", maxTries, maxTries - 1, time.Second},
		{503, "3600", 1, 0, 0},
		{500, "nonsense", maxTries, maxTries - 1, time.Second},
		{404, "1", 1, 0, 0},
		{401, "", 1, 0, 0},
		{403, "", 1, 0, 0},
		{410, "", 1, 0, 0},
	} {
		tries := 0
		e, url := handle(t, func(w http.ResponseWriter, _ *http.Request) {
			tries++
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.WriteHeader(c.code)
		})
		var waits []time.Duration
		e.f.pause = func(_ context.Context, d time.Duration) error {
			waits = append(waits, d)
			return nil
		}
		_, err := e.fetch(t, url, FetchOptions{})
		var status *StatusError
		if !errors.As(err, &status) || status.Code != c.code || tries != c.tries || len(waits) != c.waits || c.waits > 0 && waits[0] != c.wait {
			t.Errorf("%d: %v after %d tries and %v", c.code, err, tries, waits)
		}
	}
	// Nobody is there: once is enough.
	e := newEnv(t)
	e.f.Insecure = InsecureImage
	e.f.pause = func(context.Context, time.Duration) error {
		t.Error("a refused connection is tried again")
		return nil
	}
	if _, err := e.fetch(t, "http://127.0.0.1:1/x.aci", FetchOptions{}); err == nil {
		t.Error("no error")
	}
}

func TestHostileServers(t *testing.T) {
	data := someImage(t, "1")
	release := make(chan struct{})
	defer close(release)
	for name, c := range map[string]struct {
		want string
		h    http.HandlerFunc
	}{
		"endless": {"larger than 1048576 bytes", func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}},
		"too long by its own word": {"larger than 1048576 bytes", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1099511627776")
			_, _ = w.Write(data)
		}},
		"shorter than its word": {"", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)+100))
			_, _ = w.Write(data)
		}},
		"silent": {"stalled", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(data[:10])
			w.(http.Flusher).Flush() //nolint:forcetypeassert // it is one
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}},
		"no answer": {"", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}},
		"huge headers": {"", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("a", 2<<20))
		}},
		"304 without a question": {"304", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }},
		"206 without a question": {"another range", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) }},
		"no content":             {"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }},
		"202 for an image":       {"202", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }},
		"401 for ever":           {"401", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }},
		"a loop": {"redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}},
		"to a file": {"unsupported URL scheme", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}},
		"HTML":        {"", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }},
		"nothing":     {"", func(http.ResponseWriter, *http.Request) {}},
		"wrong image": {"", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data[:len(data)-4]) }},
	} {
		t.Run(name, func(t *testing.T) {
			e, url := handle(t, c.h)
			e.f.MaxSize = 1 << 20
			e.f.Timeouts = Timeouts{Header: 200 * time.Millisecond, Stall: 200 * time.Millisecond}
			_, err := e.fetch(t, url, FetchOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if all, _ := e.f.Store.Records(); len(all) != 0 {
				t.Error("something is stored")
			}
		})
	}
}

// A byte now and then is no progress.
func TestDrippingServerIsStopped(t *testing.T) {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	body := newStallReader(r, 300*time.Millisecond, cancel)
	go func() {
		defer w.Close()
		for ctx.Err() == nil {
			if _, err := w.Write([]byte{1}); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 1)
	for n := 0; ctx.Err() == nil && n < slowest-1; n++ {
		if n > 100 {
			<-ctx.Done() // one reader that takes its time stands for a slow server
		}
		if _, err := body.Read(buf); err != nil {
			break
		}
	}
	if ctx.Err() == nil {
		t.Error("a transfer that drips goes on")
	}
	body.Close()
}

// check list: 28
func TestCredentialsStayWithTheirHost(t *testing.T) {
	var mu sync.Mutex
	got := map[string][]http.Header{}
	note := func(who string, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got[who] = append(got[who], r.Header.Clone())
	}
	data := someImage(t, "1")
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("other", r)
		_, _ = w.Write(data)
	}))
	defer other.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("plain", r)
		_, _ = w.Write(data)
	}))
	defer plain.Close()
	first := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("first", r)
		switch r.URL.Path {
		case "/x.aci":
			http.Redirect(w, r, "/second.aci", http.StatusFound)
		case "/second.aci":
			http.Redirect(w, r, other.URL+"/x.aci", http.StatusTemporaryRedirect)
		default:
			http.Redirect(w, r, plain.URL+"/x.aci", http.StatusFound)
		}
	}))
	defer first.Close()
	host := func(s *httptest.Server) string {
		return strings.TrimPrefix(strings.TrimPrefix(s.URL, "https://"), "http://")
	}
	e := newEnv(t)
	e.f.Insecure = InsecureImage | InsecureTLS
	for _, a := range []config.Auth{
		{Type: config.AuthBasic, Basic: config.BasicSecret{User: "u", Password: "secret"}},
		{Type: config.AuthAWS, AWS: config.AWSSecret{AccessKeyID: "AK", SecretAccessKey: "secret"}},
	} {
		clear(got)
		e.f.Config = &config.Config{Auth: map[string]config.Auth{host(first): a, host(plain): a}}
		if _, err := e.fetch(t, first.URL+"/x.aci?"+a.Type, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(got["first"]) != 2 || got["first"][0].Get("Authorization") == "" || got["first"][1].Get("Authorization") == "" {
			t.Errorf("%v", got["first"])
		}
		if a.Type == config.AuthAWS && got["first"][0].Get("Authorization") == got["first"][1].Get("Authorization") {
			t.Error("the second hop is not signed anew")
		}
		for k := range got["other"][0] {
			if k == "Authorization" || strings.HasPrefix(k, "X-Amz") || k == "Referer" {
				t.Errorf("%s went to another host", k)
			}
		}
		if !strings.HasPrefix(got["other"][0].Get("User-Agent"), "rkt/") {
			t.Error("other headers got lost")
		}
	}
	_, err := e.fetch(t, first.URL+"/plain.aci", FetchOptions{})
	wantErr(t, err, "redirect from https to http")
	e.f.Insecure |= InsecureHTTP
	if _, err := e.fetch(t, first.URL+"/plain.aci", FetchOptions{}); err != nil || got["plain"][0].Get("Authorization") != "" {
		t.Error(err, got["plain"])
	}
}

// check list: 28
func TestTenRedirectsAreEnough(t *testing.T) {
	data := someImage(t, "1")
	for hops, ok := range map[int]bool{10: true, 11: false} {
		e, url := handle(t, func(w http.ResponseWriter, r *http.Request) {
			if n := strings.Count(r.URL.Path, "r"); n < hops {
				http.Redirect(w, r, r.URL.Path+"r", http.StatusFound)
				return
			}
			_, _ = w.Write(data)
		})
		if _, err := e.fetch(t, url, FetchOptions{}); (err == nil) != ok {
			t.Errorf("%d: %v", hops, err)
		}
	}
}

func TestDiscoveredRequestsAvoidLocalHosts(t *testing.T) {
	for addr, local := range map[string]bool{"127.0.0.1:443": true, "[::1]:80": true, "169.254.169.254:80": true, "[fe80::1]:80": true, "0.0.0.0:1": true, "[::ffff:127.0.0.1]:1": true, "192.0.2.1:443": false, "[2001:db8::1]:443": false} {
		if err := refuseLocal("tcp", addr, nil); (err != nil) != local {
			t.Errorf("%s: %v", addr, err)
		}
		if _, err := netip.ParseAddrPort(addr); err != nil {
			t.Error(err)
		}
	}
	// Names that resolve to this machine are refused when they are connected to.
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	at := strings.Replace(strings.TrimPrefix(s.URL, "http://"), "127.0.0.1", "localhost", 1)
	for host, ok := range map[string]bool{"example.com": false, "localhost": true} {
		g := &guard{host: host, connect: time.Second}
		c, err := g.dial(t.Context(), "tcp4", at)
		if (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
		if err == nil {
			c.Close()
		}
	}
	// So are redirects by address.
	e := newEnv(t)
	w := newWeb(t, e)
	e.f.Insecure = InsecureImage
	w.page("example.com", webTemplate)
	redirect := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".aci") {
			http.Redirect(rw, r, "https://127.0.0.1:1/x.aci", http.StatusFound)
			return
		}
		w.ServeHTTP(rw, r)
	})
	w.server.Config.Handler = redirect
	_, err := e.fetch(t, "example.com/a:1", FetchOptions{})
	wantErr(t, err, `redirect to the local host "127.0.0.1"`)
}

func FuzzHeaders(f *testing.F) {
	f.Add("bytes 0-9/10", "max-age=5", "Wed, 21 Oct 2015 07:28:00 GMT", "3")
	f.Add("bytes */10", "no-cache, max-age=99999999999999999999", "", "Wed, 21 Oct 2015 07:28:00 GMT")
	f.Fuzz(func(t *testing.T, rng, cache, date, after string) {
		start, total, err := contentRange(rng)
		if err == nil && (start < 0 || total >= 0 && start >= total) && total != -1 {
			t.Errorf("%q: %d of %d", rng, start, total)
		}
		if age, _ := maxAge(http.Header{"Cache-Control": {cache}}); age < 0 || age > longestAge {
			t.Errorf("%q: %d", cache, age)
		}
		h := http.Header{"Last-Modified": {date}, "Date": {date}, "Etag": {cache}, "Retry-After": {after}}
		if v := validatorsOf(h); v.LastModified != "" {
			t.Errorf("%q proves something", date)
		}
		if statusError("x", &http.Response{Header: h, StatusCode: 503}).after > 1<<31*time.Second && transient(statusError("x", &http.Response{Header: h, StatusCode: 503})) {
			t.Errorf("%q is waited for", after)
		}
	})
}

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return b
}

// readBlob reads a layer as the store does: from where it stopped.
func readBlob(ctx context.Context, r *Repository, d oci.Descriptor, offset int64) ([]byte, error) {
	b, err := r.Blob(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(b)
	return data, errors.Join(err, b.Close())
}

// dropAt makes a site break off a blob's transfer once, after n bytes of it.
func dropAt(s *site, n int64, ranges bool) func(http.ResponseWriter, *http.Request) bool {
	done := false
	return func(w http.ResponseWriter, r *http.Request) bool {
		_, digest, ok := strings.Cut(r.URL.Path, "/blobs/")
		if !ok {
			return false
		}
		s.mu.Lock()
		first := !done
		done = true
		s.mu.Unlock()
		data := s.blobs[digest]
		if !ranges {
			r.Header.Del("Range")
		}
		if !first {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// TestResume: a connection that breaks at any kind of place is made good, once
// with ranges and once by a server that has none.
// check list: 16, 64
func TestResume(t *testing.T) {
	data := pattern(300 << 10)
	size := int64(len(data))
	for _, ranges := range []bool{true, false} {
		for _, n := range []int64{0, 1, 4095, 4096, size / 2, size - 1} {
			t.Run(fmt.Sprintf("at %d, ranges %v", n, ranges), func(t *testing.T) {
				s := newSite(t, true)
				d := s.blob(oci.TypeLayer, data)
				s.hook = dropAt(s, n, ranges)
				got, err := readBlob(soon(t), open(t, client(t, s), s.host+"/a:1"), d, 0)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				log := s.requests()
				want := fmt.Sprintf("bytes=%d-%d", n, size-1)
				if n == 0 {
					want = ""
				}
				if len(log) != 2 || log[1].ranges != want {
					t.Errorf("%+v", log)
				}
			})
		}
	}
}

func TestBlobOffsets(t *testing.T) {
	s := newSite(t, true)
	data := pattern(1000)
	d := s.blob(oci.TypeLayer, data)
	r := open(t, client(t, s), s.host+"/a:1")
	for _, offset := range []int64{0, 1, 500, 999, 1000} {
		got, err := readBlob(soon(t), r, d, offset)
		if err != nil || !bytes.Equal(got, data[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
	if n := len(s.requests()); n != 4 {
		t.Errorf("%d requests: all bytes were there for the last", n)
	}
	for _, offset := range []int64{-1, 1001} {
		_, err := r.Blob(soon(t), d, offset)
		wantError(t, err, "not within")
	}
	_, err := r.Blob(soon(t), oci.Descriptor{Digest: "sha256:../../x", Size: 1}, 0)
	wantError(t, err, "bad digest")
	b, err := r.Blob(soon(t), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("a closed blob can be read")
	}
}

// TestHostileBlobs: no more bytes than announced, no wrong part, no endless wait.
// check list: 62
func TestHostileBlobs(t *testing.T) {
	data := pattern(100 << 10)
	part := func(header string, body []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(206)
			_, _ = w.Write(body)
		}
	}
	for _, tt := range []struct {
		name   string
		offset int64
		do     func(w http.ResponseWriter, r *http.Request)
		err    string // "" if it must work
	}{
		{"longer than the manifest says", 0, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)+1))
			_, _ = w.Write(append(bytes.Clone(data), 'x'))
		}, "the server offers 102401 bytes, the manifest says 102400"},
		{"shorter than the manifest says", 0, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write(data[:10])
		}, "the server offers 10 bytes"},
		{"endless without length", 0, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(data)
			for {
				if _, err := w.Write(data); err != nil {
					return
				}
			}
		}, ""},
		{"always ends early", 0, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				_, _ = w.Write(data[:10])
			}
			w.(http.Flusher).Flush()
		}, "unexpected EOF"},
		{"stalls", 0, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(data[:10])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "stalled"},
		{"stalls in what is skipped", 500, func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(data[:10])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "skipping the first 500 bytes"},
		{"drips", 0, func(w http.ResponseWriter, r *http.Request) {
			for i := range data {
				_, _ = w.Write(data[i : i+1])
				w.(http.Flusher).Flush()
				if sleep(r.Context(), 10*time.Millisecond) != nil {
					return
				}
			}
		}, "stalled"},
		{"a part where the whole was asked for", 0, part("bytes 0-102399/102400", data), "a part it calls"},
		{"another part", 500, part("bytes 501-102399/102400", data[501:]), "a part it calls"},
		{"a part of another file", 500, part("bytes 500-102400/102401", data[500:]), "a part it calls"},
		{"a part past the end", 500, part("bytes 500-102400/*", data[500:]), "a part it calls"},
		{"a part turned round", 500, part("bytes 500-499/102400", nil), "a part it calls"},
		{"a part of other length", 500, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 500-102399/102400")
			w.Header().Set("Content-Length", "3")
			w.WriteHeader(206)
			_, _ = w.Write(data[:3])
		}, "a part it calls"},
		{"a part without range", 500, part("", data[500:]), "a part it calls"},
		{"a part with junk", 500, part("bytes 500-99999999999999999999/102400", data[500:]), "a part it calls"},
		{"several parts", 500, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
			w.WriteHeader(206)
		}, "a part it calls"},
		{"total unknown", 500, part("bytes 500-102399/*", data[500:]), ""},
		{"small parts", 500, func(w http.ResponseWriter, r *http.Request) {
			var from int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			to := min(from+40000, len(data))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(data[from:to])
		}, "unexpected EOF"},
		{"no such range", 500, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(416) }, "416"},
		{"nothing", 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, "204"},
		{"not modified", 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, "304"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, true)
			d := s.blob(oci.TypeLayer, data)
			s.hook = func(w http.ResponseWriter, r *http.Request) bool { tt.do(w, r); return true }
			c := client(t, s)
			c.MaxRetries = 1
			if tt.err == "stalled" || strings.Contains(tt.err, "skipping") {
				c.Timeouts = tight()
			}
			got, err := readBlob(soon(t), open(t, c, s.host+"/a:1"), d, tt.offset)
			if len(got) > len(data) {
				t.Errorf("%d bytes of %d", len(got), len(data))
			}
			if tt.err == "" {
				if err != nil || !bytes.Equal(got, data[tt.offset:]) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				return
			}
			wantError(t, err, tt.err)
			if n := len(s.requests()); n > 6 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A layer goes on from the next place when one breaks down for good.
// check list: 64
func TestBlobChangesMirror(t *testing.T) {
	mirror, origin := newSite(t, true), newSite(t, true)
	data := pattern(100 << 10)
	d := origin.blob(oci.TypeLayer, data)
	mirror.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" {
			w.WriteHeader(500)
			return true
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:5000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c := client(t, mirror, origin)
	c.Config = &config.Config{Registries: map[string]config.Registry{
		origin.host: {Prefix: origin.host, Mirrors: []config.Mirror{{Location: mirror.host}}},
	}}
	got, err := readBlob(soon(t), open(t, c, origin.host+"/a:1"), d, 0)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if log := origin.requests(); len(log) != 1 || log[0].ranges != "bytes=5000-102399" {
		t.Errorf("%+v", log)
	}
	origin.hook = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true }
	_, err = readBlob(soon(t), open(t, c, origin.host+"/a:1"), d, 0)
	wantError(t, err, "at byte 5000 of 102400", "from mirror", "500", `from "`+origin.host, "404")
}

// Layers with URLs of their own: https, and nothing secret.
func TestForeignLayer(t *testing.T) {
	s, other, plain := newSite(t, true), newSite(t, true), newSite(t, false)
	data := pattern(1000)
	d := other.blob(oci.TypeLayer, data)
	serve := func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write(data); return true }
	other.hook, plain.hook = serve, serve
	c := client(t, s, other)
	c.Config = &config.Config{
		DockerAuth: map[string]config.BasicSecret{s.host: {User: "u", Password: "p"}, other.host: {User: "u", Password: "p"}},
		Registries: map[string]config.Registry{s.host: {Prefix: s.host, Insecure: true}},
	}
	d.URLs = []string{plain.URL + "/x", "https://u:p@" + other.host + "/x", other.URL + "/layer"}
	got, err := readBlob(soon(t), open(t, c, s.host+"/a:1"), d, 0)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if len(plain.requests()) != 0 || len(other.requests()) != 1 || other.requests()[0].auth != "" {
		t.Errorf("%v %v", plain.requests(), other.requests())
	}
	d.URLs = d.URLs[:2]
	_, err = readBlob(soon(t), open(t, c, s.host+"/a:1"), d, 0)
	wantError(t, err, "404", "not one of https")
}

// A slow reader is not a slow server.
func TestSlowConsumer(t *testing.T) {
	s := newSite(t, true)
	data := pattern(8 << 20)
	d := s.blob(oci.TypeLayer, data)
	c := client(t, s)
	c.Timeouts.Stall = 100 * time.Millisecond
	b, err := open(t, c, s.host+"/a:1").Blob(soon(t), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	buf := make([]byte, 1024)
	for range 3 {
		if _, err := io.ReadFull(b, buf); err != nil {
			t.Fatal(err)
		}
		if err := sleep(t.Context(), 150*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.Copy(io.Discard, b); err != nil || len(s.requests()) != 1 {
		t.Error(err, len(s.requests()))
	}
}

// Connections are used again after a layer was read.
func TestConnectionsAreKept(t *testing.T) {
	s := newSite(t, true)
	d := s.blob(oci.TypeLayer, pattern(1000))
	var remotes []string
	s.hook = func(_ http.ResponseWriter, r *http.Request) bool {
		remotes = append(remotes, r.RemoteAddr)
		return false
	}
	r := open(t, client(t, s), s.host+"/a:1")
	for range 3 {
		if _, err := readBlob(soon(t), r, d, 0); err != nil {
			t.Fatal(err)
		}
	}
	if remotes[0] != remotes[1] || remotes[1] != remotes[2] {
		t.Errorf("connections from %v", remotes)
	}
}

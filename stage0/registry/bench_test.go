package registry

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/oci"
)

// BenchmarkBlob compares reading a layer with the floor, which is net/http alone.
func BenchmarkBlob(b *testing.B) {
	chunk := pattern(1 << 20)
	const chunks = 64
	for _, secure := range []bool{false, true} {
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(chunks*len(chunk)))
			for range chunks {
				_, _ = w.Write(chunk)
			}
		})
		start := httptest.NewServer
		if secure {
			start = httptest.NewTLSServer
		}
		srv := start(h)
		_, host, _ := strings.Cut(srv.URL, "://")
		ref, err := oci.ParseReference(host + "/a:1")
		if err != nil {
			b.Fatal(err)
		}
		c := &Client{InsecureHTTP: true, InsecureTLS: true}
		r, err := c.Open(ref)
		if err != nil {
			b.Fatal(err)
		}
		d := oci.Descriptor{Digest: oci.Digest(nil), Size: chunks << 20}
		buf := make([]byte, 256<<10)
		read := func(body io.ReadCloser) {
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, buf)
			if err != nil || n != d.Size {
				b.Fatal(n, err)
			}
			body.Close()
		}
		b.Run(fmt.Sprintf("secure=%v/registry", secure), func(b *testing.B) {
			b.SetBytes(d.Size)
			for b.Loop() {
				body, err := r.Blob(b.Context(), d, 0)
				if err != nil {
					b.Fatal(err)
				}
				read(body)
			}
		})
		b.Run(fmt.Sprintf("secure=%v/floor", secure), func(b *testing.B) {
			b.SetBytes(d.Size)
			for b.Loop() {
				resp, err := srv.Client().Get(srv.URL)
				if err != nil {
					b.Fatal(err)
				}
				read(resp.Body)
			}
		})
		c.CloseIdle()
		srv.Close()
	}
}

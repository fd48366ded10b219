package image

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/keystore"
)

// check list: 39, 42
func TestDiscoverAndDownloadKeys(t *testing.T) {
	e := newEnv(t)
	w := newWeb(t, e)
	w.page("example.com", "ac-discovery-pubkeys example.com https://example.com/1.asc", "ac-discovery-pubkeys example.com http://example.com/2.asc",
		"ac-discovery-pubkeys example.com https://127.0.0.1/3.asc", "ac-discovery-pubkeys example.org https://example.com/4.asc")
	urls, err := e.f.DiscoverKeys(t.Context(), "example.com/a/b", false)
	if err != nil || !slices.Equal(urls, []string{"https://example.com/1.asc"}) {
		t.Error(urls, err)
	}
	if urls, err = e.f.DiscoverKeys(t.Context(), "example.com/a", true); err != nil || len(urls) != 2 {
		t.Error(urls, err)
	}
	w.files["example.com/1.asc"] = e.key.Public(t)
	data, err := e.f.DownloadKey(t.Context(), "example.com/a", "https://example.com/1.asc", false)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := keystore.ReadKeys(data); err != nil || keys[0].Fingerprint != e.key.Fingerprint() {
		t.Error(keys, err)
	}
	w.files["example.com/huge.asc"] = make([]byte, maxKey+1)
	for url, want := range map[string]string{
		"https://example.com/none.asc": "404", "http://example.com/1.asc": "plain http", "https://example.com/huge.asc": "larger than", "file:///etc/passwd": "scheme",
	} {
		_, err := e.f.DownloadKey(t.Context(), "", url, false)
		wantErr(t, err, want)
	}
	inner := w.server.Config.Handler
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/to-http") {
			http.Redirect(rw, r, "http://example.com/1.asc", http.StatusFound)
			return
		}
		inner.ServeHTTP(rw, r)
	})
	_, err = e.f.DownloadKey(t.Context(), "", "https://example.com/to-http.asc", false)
	wantErr(t, err, "from https to http")
	e.f.Insecure = InsecureHTTP
	_, err = e.f.DownloadKey(t.Context(), "", "https://example.com/to-http.asc", false)
	if err == nil {
		t.Error("a key came over http")
	}
	e.f.Insecure = InsecureTLS
	_, err = e.f.DiscoverKeys(t.Context(), "example.com/a", false)
	wantErr(t, err, "needs pubkey")
}

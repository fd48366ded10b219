package image

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rkt-systemd/rkt/internal/acitest"
)

// connectProxy leads every CONNECT, and every plain request, to one server.
func connectProxy(t *testing.T, to string) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var list []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		list = append(list, r.Method+" "+r.Host)
		mu.Unlock()
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer out.Close()
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer in.Close()
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(out, in)
			out.Close()
		}()
		_, _ = io.Copy(in, out)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

// TestProxied runs in a process of its own: Go reads the proxy variables once.
func TestProxied(t *testing.T) {
	if os.Getenv("RKT_TEST_PROXIED") == "" {
		t.Skip("run by TestProxy")
	}
	e := newEnv(t)
	e.f.Transport = nil
	e.f.Insecure = InsecureImage
	if os.Getenv("RKT_TEST_PROXIED") == "tls" {
		e.f.Insecure |= InsecureTLS
	}
	for _, ref := range []string{"https://example.com/i/example.com/a/1.aci", "example.com/a:1"} {
		if _, err := e.fetch(t, ref, FetchOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// check list: 30
func TestProxy(t *testing.T) {
	for _, mode := range []string{"verified", "tls"} {
		t.Run(mode, func(t *testing.T) {
			e := newEnv(t)
			w := newWeb(t, e)
			w.page("example.com", webTemplate)
			w.put(t, nil, "example.com/i/example.com/a/1", acitest.Manifest("example.com/a", "1"))
			proxy, asked := connectProxy(t, w.server.Listener.Addr().String())
			cmd := exec.Command(os.Args[0], "-test.run=^TestProxied$")
			cmd.Env = append(os.Environ(), "RKT_TEST_PROXIED="+mode, "HTTPS_PROXY="+proxy, "HTTP_PROXY="+proxy, "NO_PROXY=", "no_proxy=")
			if mode == "verified" {
				roots := t.TempDir() + "/roots.pem"
				if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.server.Certificate().Raw}), 0o644); err != nil {
					t.Fatal(err)
				}
				cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+roots, "SSL_CERT_DIR=/nonexistent")
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if list := asked(); len(list) == 0 || strings.Trim(strings.Join(slices.Compact(slices.Sorted(slices.Values(list))), " "), " ") != "CONNECT example.com:443" {
				t.Errorf("the proxy was asked for %q", list)
			}
			if w.count("a/1.aci") == 0 {
				t.Error("the image did not come from the server")
			}
		})
	}
}

package image

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/discovery"
)

// Timeouts of requests; a zero member means its default.
type Timeouts struct {
	Connect time.Duration // 20 s
	TLS     time.Duration // 20 s
	Header  time.Duration // 60 s
	Stall   time.Duration // 60 s without a byte of the body
}

func (t Timeouts) withDefaults() Timeouts {
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{{&t.Connect, 20 * time.Second}, {&t.TLS, 20 * time.Second}, {&t.Header, time.Minute}, {&t.Stall, time.Minute}} {
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	return t
}

const (
	maxRedirects = 10
	maxSigBody   = 1 << 20
	// slowest is how many bytes must come within the time of a stall: a server
	// that sends one byte now and then holds nobody up for ever.
	slowest = 16 << 10
)

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("unsupported URL scheme %q", u.Scheme)
	}
	return u, nil
}

// client makes requests for one fetch. Found, if not "", is the image name
// whose discovery page leads here: such requests go to no local host.
func (f *Fetcher) client(found string) *http.Client {
	return f.clientWith(found, f.Insecure.Has(InsecureTLS))
}

func (f *Fetcher) clientWith(found string, anyCertificate bool) *http.Client {
	t := f.Timeouts.withDefaults()
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: t.Connect}).DialContext,
		TLSHandshakeTimeout:    t.TLS,
		ResponseHeaderTimeout:  t.Header,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the signed bytes are those of the file
		MaxResponseHeaderBytes: 1 << 20,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			InsecureSkipVerify: anyCertificate, //nolint:gosec // the user's --insecure-options=tls
		},
	}
	guarded := found != "" && !discovery.LocalHost(discovery.Host(found))
	if guarded {
		g := &guard{host: discovery.Host(found), connect: t.Connect}
		transport.Proxy, transport.DialContext = g.proxy, g.dial
	}
	if f.Transport != nil {
		f.Transport(transport)
	}
	return &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if guarded && discovery.LocalHost(req.URL.Hostname()) {
			return fmt.Errorf("redirect to the local host %q", req.URL.Hostname())
		}
		return f.redirect(req, via)
	}}
}

// guard keeps what a discovery page leads to from connecting to this machine
// and its link-local neighbours, whatever names resolve to. The host that the
// user named and proxies are free.
type guard struct {
	host    string
	connect time.Duration
	proxies sync.Map // addresses
}

func (g *guard) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err == nil && u != nil {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		if port == "" {
			port = "1080"
		}
		g.proxies.Store(net.JoinHostPort(u.Hostname(), port), true)
	}
	return u, err
}

func (g *guard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: g.connect}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, free := g.proxies.Load(addr); !free && host != g.host {
		d.Control = refuseLocal
	}
	return d.DialContext(ctx, network, addr)
}

func refuseLocal(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err == nil && discovery.LocalAddr(at.Addr()) {
		err = fmt.Errorf("a discovery page led to the local address %s", at.Addr())
	}
	return err
}

// redirect is asked before each hop: credentials go to their own host only.
func (f *Fetcher) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	last := via[len(via)-1].URL
	switch {
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return fmt.Errorf("redirect to unsupported URL scheme %q", req.URL.Scheme)
	case last.Scheme == "https" && req.URL.Scheme == "http" && !f.Insecure.Has(InsecureHTTP):
		return fmt.Errorf("redirect from https to http, to %q", req.URL.Redacted())
	}
	req.Header.Del("Referer")
	return f.authorize(req)
}

// unsigned marks the context of requests that are not signed for S3: pages of
// discovery lie in no bucket.
type unsigned struct{}

// authorize sets the configured credentials, over https only, and takes away
// those of an earlier hop.
func (f *Fetcher) authorize(req *http.Request) error {
	for _, h := range []string{"Authorization", "X-Amz-Date", "X-Amz-Content-Sha256"} {
		req.Header.Del(h)
	}
	if req.URL.Scheme != "https" {
		return nil
	}
	a, ok := f.Config.AuthFor(req.URL.Host)
	if !ok {
		return nil
	}
	switch a.Type {
	case config.AuthBasic:
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(a.Basic.User+":"+a.Basic.Password)))
	case config.AuthOAuth:
		req.Header.Set("Authorization", "Bearer "+a.OAuth.Token)
	case config.AuthAWS:
		if req.Context().Value(unsigned{}) == nil {
			signAWS(req, a.AWS, f.now())
		}
	default:
		return fmt.Errorf("unknown type %q of credentials for %q", a.Type, req.URL.Host)
	}
	return nil
}

// get makes a GET request; the caller closes the body, which ends when no byte
// arrives for too long.
func (f *Fetcher) get(ctx context.Context, c *http.Client, target string, header http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "rkt/"+buildinfo.Version)
	if err := f.authorize(req); err != nil {
		cancel()
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = newStallReader(resp.Body, f.Timeouts.withDefaults().Stall, cancel)
	return resp, nil
}

var errStalled = errors.New("the transfer stalled")

// stallReader cancels a request whose body makes no progress.
type stallReader struct {
	io.ReadCloser
	timer   *time.Timer
	after   time.Duration
	got     int
	stalled *atomic.Bool
	cancel  context.CancelFunc
}

func newStallReader(r io.ReadCloser, after time.Duration, cancel context.CancelFunc) *stallReader {
	s := &stallReader{ReadCloser: r, after: after, stalled: &atomic.Bool{}, cancel: cancel}
	s.timer = time.AfterFunc(after, func() {
		s.stalled.Store(true)
		cancel()
	})
	return s
}

func (s *stallReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if s.got += n; s.got >= slowest {
		s.got = 0
		s.timer.Reset(s.after)
	}
	if err != nil && s.stalled.Load() {
		err = errStalled
	}
	return n, err
}

func (s *stallReader) Close() error {
	s.timer.Stop()
	err := s.ReadCloser.Close()
	s.cancel()
	return err
}

// longestAge keeps times from overflowing.
const longestAge = 365 * 24 * 60 * 60

// maxAge reads Cache-Control: how many seconds an answer stays fresh, and
// whether it says so at all.
func maxAge(h http.Header) (age int64, said bool) {
	for _, line := range h.Values("Cache-Control") {
		for _, part := range strings.Split(line, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch strings.ToLower(strings.TrimSpace(k)) {
			case "no-cache", "no-store":
				return 0, true
			case "max-age":
				v = strings.Trim(strings.TrimSpace(v), `"`)
				n, err := strconv.ParseInt(v, 10, 64)
				if err != nil || n < 0 || len(v) > 1 && v[0] == '0' {
					n = 0
				}
				age, said = min(n, longestAge), true
			}
		}
	}
	return age, said
}

// fetchSignature downloads a signature; later means that the server wants to
// be asked again once the image was downloaded (202).
func (f *Fetcher) fetchSignature(ctx context.Context, c *http.Client, target string) (sig []byte, later bool, err error) {
	resp, err := f.ask(ctx, c, target, http.StatusAccepted)
	if err != nil {
		return nil, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted {
		return nil, true, nil
	}
	sig, err = readBody(resp.Body, maxSigBody)
	if err != nil {
		return nil, false, fmt.Errorf("signature at %q: %w", target, err)
	}
	return sig, false, nil
}

func readBody(r io.Reader, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(bodyReader{r}, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return data, err
}

// strong says whether an entity tag proves that two answers are the same byte for byte.
func strong(etag string) bool { return strings.HasPrefix(etag, `"`) }

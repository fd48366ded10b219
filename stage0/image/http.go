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
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage0/config"
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
	maxRedirects  = 10
	maxSigBody    = 1 << 20
	defaultMaxAge = 0
)

// StatusError is an answer nobody asked for.
type StatusError struct {
	URL  string
	Code int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("requesting %q: bad HTTP status code: %d", e.URL, e.Code)
}

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

// client makes requests for one fetch.
func (f *Fetcher) client() *http.Client {
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
			InsecureSkipVerify: f.Insecure.Has(InsecureTLS), //nolint:gosec // the user's --insecure-options=tls
		},
	}
	return &http.Client{Transport: transport, CheckRedirect: f.redirect}
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
	req.Header.Del("Authorization")
	req.Header.Del("Referer")
	return f.authorize(req)
}

// authorize adds the configured credentials, over https only.
func (f *Fetcher) authorize(req *http.Request) error {
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
	default:
		return fmt.Errorf("credentials of type %q for %q are not supported by this build yet", a.Type, req.URL.Host)
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
	if n > 0 {
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

// maxAge reads Cache-Control: how many seconds an answer stays fresh.
func maxAge(h http.Header) int64 {
	var age int64 = defaultMaxAge
	for _, line := range h.Values("Cache-Control") {
		for _, part := range strings.Split(line, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch strings.ToLower(strings.TrimSpace(k)) {
			case "no-cache", "no-store":
				return 0
			case "max-age":
				v = strings.Trim(strings.TrimSpace(v), `"`)
				n, err := strconv.ParseInt(v, 10, 64)
				if err != nil || n < 0 || len(v) > 1 && v[0] == '0' {
					n = 0
				}
				age = n
			}
		}
	}
	return age
}

// fetchSignature downloads a signature; later means that the server wants to
// be asked again once the image was downloaded (202).
func (f *Fetcher) fetchSignature(ctx context.Context, c *http.Client, target string) (sig []byte, later bool, err error) {
	resp, err := f.get(ctx, c, target, nil)
	if err != nil {
		return nil, false, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusAccepted:
		return nil, true, nil
	default:
		return nil, false, &StatusError{target, resp.StatusCode}
	}
	sig, err = io.ReadAll(io.LimitReader(resp.Body, maxSigBody+1))
	if err == nil && len(sig) > maxSigBody {
		err = fmt.Errorf("signature at %q is larger than %d bytes", target, maxSigBody)
	}
	return sig, false, err
}

// strong says whether an entity tag proves that two answers are the same byte for byte.
func strong(etag string) bool { return strings.HasPrefix(etag, `"`) }

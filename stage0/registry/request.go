package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	maxRedirects = 10
	maxErrorBody = 16 << 10
	maxDetail    = 300
	maxLocation  = 16 << 10
)

// request is one question to a repository.
type request struct {
	method string
	path   string // below /v2/REPOSITORY/
	accept []string
	offset int64 // of a blob of size bytes
	size   int64
}

// send makes a request and follows it through challenges and redirects. The
// answer's body ends with an error when it stalls; the caller closes it.
// Statuses other than those of success are errors.
func (c *Client) send(ctx context.Context, e *endpoint, r request) (*http.Response, error) {
	c.mu.Lock()
	scheme := c.schemes[e.host]
	c.mu.Unlock()
	schemes := []string{scheme}
	if scheme == "" || scheme == "http" && !c.plainHTTP(e) {
		if schemes = []string{"https"}; c.plainHTTP(e) {
			schemes = append(schemes, "http")
		}
	}
	var first error
	for _, s := range schemes {
		resp, err := c.sendAuth(ctx, e, s, r)
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			return nil, c.explain(e, err) // no reason to do without a certificate
		}
		if err == nil || answered(err) {
			c.mu.Lock()
			if c.schemes == nil {
				c.schemes = map[string]string{}
			}
			c.schemes[e.host] = s
			c.mu.Unlock()
			return resp, err
		}
		switch {
		case ctx.Err() != nil:
			return nil, err
		case first == nil:
			first = err
		default:
			first = fmt.Errorf("%w; over http: %w", first, err)
		}
	}
	return nil, c.explain(e, first)
}

// explain adds what to do about a failed connection.
func (c *Client) explain(e *endpoint, first error) error {
	var header tls.RecordHeaderError
	if errors.As(first, &header) && !c.plainHTTP(e) {
		first = &hintError{first, fmt.Sprintf("if %s is to be used without TLS, say so: \"insecure\" in registries.d, or --insecure-options=http", e.host)}
	}
	var cert *tls.CertificateVerificationError
	if errors.As(first, &cert) {
		first = &hintError{first, fmt.Sprintf("if the certificate's authority is to be trusted, name it: \"ca\" in registries.d, or /etc/containers/certs.d/%s/ca.crt", e.host)}
	}
	return first
}

// hintError adds what to do.
type hintError struct {
	error
	hint string
}

func (e *hintError) Hint() string  { return e.hint }
func (e *hintError) Unwrap() error { return e.error }

// answered says whether an error is a server's answer, not a connection's failure.
func answered(err error) bool {
	var t *transferError
	var dns interface{ Timeout() bool }
	return !errors.As(err, &t) && !errors.As(err, &dns)
}

func (c *Client) sendAuth(ctx context.Context, e *endpoint, scheme string, r request) (*http.Response, error) {
	u := &url.URL{Scheme: scheme, Host: e.host, Path: "/v2/" + e.repository + "/" + r.path}
	origin := scheme + "://" + e.host
	key := tokenKey{origin, e.repository}
	auth := c.cachedToken(key)
	for round := 0; ; round++ {
		resp, final, err := c.follow(ctx, e, u, r, auth)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
			return resp, nil
		}
		challenged := resp.StatusCode == http.StatusUnauthorized && final.Scheme == u.Scheme && final.Host == u.Host
		failed := statusError(r.method, final, resp)
		resp.Body.Close()
		if !challenged {
			return nil, failed
		}
		c.dropToken(key, auth)
		if round == maxAuthRounds {
			s, ignored := c.secret(ctx, e)
			return nil, &AuthError{Registry: e.host, Had: !s.empty(), Ignored: ignored, Cause: failed}
		}
		fresh, err := c.authorize(ctx, e, origin, resp.Header)
		if err != nil {
			return nil, err
		}
		if fresh == auth { // the same again: it was refused already
			round = maxAuthRounds - 1
		}
		auth = fresh
	}
}

// follow makes a request and follows redirects. auth goes to the first host
// only, and never again once a redirect has left it.
func (c *Client) follow(ctx context.Context, e *endpoint, u *url.URL, r request, auth string) (*http.Response, *url.URL, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	slow := time.AfterFunc(e.timeouts.Document, func() { cancel(errSlow) }) // however many redirects
	defer slow.Stop()
	for hop := 0; ; hop++ {
		req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
		if err != nil {
			cancel(nil)
			return nil, nil, err
		}
		req.Header.Set("User-Agent", c.userAgent())
		if len(r.accept) > 0 {
			req.Header.Set("Accept", strings.Join(r.accept, ", ")) // one line: some read only the first
		}
		if r.offset > 0 {
			// With an end: not all know what a range without one means.
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.offset, r.size-1))
		}
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		t, err := c.transport(e, u.Host)
		if err != nil {
			cancel(nil)
			return nil, nil, err
		}
		resp, err := t.RoundTrip(req)
		if err != nil {
			cancel(nil)
			return nil, nil, transfer(fmt.Errorf("%s %q: %w", r.method, redacted(u), err))
		}
		if !isRedirect(resp.StatusCode) {
			resp.Body = &stallReader{body: resp.Body, cancel: cancel, after: e.timeouts.Stall, left: e.timeouts.Stall}
			return resp, u, nil
		}
		// Read to the end, a short answer lets the connection be used again.
		_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
		resp.Body.Close()
		next, err := c.redirect(e, u, resp.Header.Get("Location"), hop)
		if err != nil {
			cancel(nil)
			return nil, nil, fmt.Errorf("%s %q: %w", r.method, redacted(u), err)
		}
		if next.Scheme != u.Scheme || !strings.EqualFold(next.Host, u.Host) {
			auth = ""
		}
		u = next
	}
}

func (c *Client) redirect(e *endpoint, from *url.URL, location string, hop int) (*url.URL, error) {
	if hop >= maxRedirects {
		return nil, fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if location == "" || len(location) > maxLocation {
		return nil, errors.New("a redirect without a usable Location")
	}
	u, err := from.Parse(location)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("a redirect to %.200q, which is no URL of https", location)
	case u.User != nil:
		return nil, fmt.Errorf("a redirect to a URL with a password, on %q", u.Host)
	case u.Scheme == "http" && !c.plainHTTP(e) && !c.insecureHost(e, u.Host):
		return nil, fmt.Errorf("a redirect to plain http, %q, which is not allowed", redacted(u))
	}
	u.Fragment = ""
	return u, nil
}

// redacted shows a URL without its query, which may hold a signed permission.
func redacted(u *url.URL) string {
	if u.RawQuery == "" {
		return u.Redacted()
	}
	short := *u
	short.RawQuery = "..."
	return short.Redacted()
}

// statusError reads what a registry says about a failure.
func statusError(method string, u *url.URL, resp *http.Response) *StatusError {
	e := &StatusError{Method: method, URL: redacted(u), Code: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	if method == http.MethodHead {
		return e
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what came of it
	var v struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	if json.Unmarshal(body, &v) == nil && len(v.Errors) > 0 {
		e.Detail = strings.TrimPrefix(v.Errors[0].Code+": "+v.Errors[0].Message, ": ")
	}
	e.Detail = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, e.Detail)
	if len(e.Detail) > maxDetail {
		e.Detail = strings.ToValidUTF8(e.Detail[:maxDetail], "")
	}
	return e
}

func retryAfter(text string) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// retry does something again while it fails for reasons that may pass.
func (c *Client) retry(ctx context.Context, e *endpoint, do func() error) error {
	for n := 0; ; n++ {
		err := do()
		if err == nil || n >= c.retries() || !retryable(err, n > 0) {
			return err
		}
		if err := c.pause(ctx, e, n, err); err != nil {
			return err
		}
	}
}

// pause waits before attempt n+1; it fails with the cause when that is useless.
func (c *Client) pause(ctx context.Context, e *endpoint, n int, cause error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d := min(e.timeouts.Backoff<<min(n, 16), e.timeouts.Wait)
	d = d/2 + rand.N(d/2+1) // many clients must not come back at once
	var status *StatusError
	if errors.As(cause, &status) && status.retryAfter > d {
		if d = status.retryAfter; d > e.timeouts.Wait {
			return fmt.Errorf("%w; it asks to come back in %s", cause, d.Round(time.Second))
		}
	}
	c.debugf("trying %s again in %s: %v", e, d, cause)
	return sleep(ctx, d)
}

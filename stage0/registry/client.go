package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

// Client talks to registries. The zero value works, without configuration,
// without credentials and over verified https only. It is safe for concurrent
// use and must not be copied or changed once used.
type Client struct {
	Config *config.Config
	// InsecureTLS accepts any certificate; InsecureHTTP allows plain http where
	// https fails, and the sending of credentials over it.
	InsecureTLS, InsecureHTTP bool
	// AuthFiles are logins of other programs, see AuthFiles.
	AuthFiles []string
	// CertDirs hold HOST[:PORT]/{*.crt,*.cert,*.key}; nil means those in /etc of
	// containers and Docker.
	CertDirs   []string
	Timeouts   Timeouts
	MaxRetries int                                   // in a row without progress; 0 means 4, negative none
	MaxBlobs   int                                   // read from a host at a time; 0 means 6
	UserAgent  string                                // "" means rkt/VERSION
	Proxy      func(*http.Request) (*url.URL, error) // nil means as the environment says
	Log        logrus.FieldLogger                    // may be nil

	mu         sync.Mutex
	transports map[hostKey]*http.Transport
	schemes    map[string]string // by host: what worked
	tokens     map[tokenKey]token
	secrets    map[string]*secretEntry  // by host/repository
	slots      map[string]chan struct{} // by host
}

// Timeouts of requests; a zero member means its default.
type Timeouts struct {
	Connect  time.Duration // 20 s
	TLS      time.Duration // 20 s
	Header   time.Duration // 60 s until an answer begins
	Stall    time.Duration // 60 s in which less than 4 KiB of a body arrive
	Document time.Duration // 2 min for a manifest, configuration or token, and until a blob begins, retries not counted
	Backoff  time.Duration // 500 ms before the first retry, doubled for each further one
	Wait     time.Duration // 60 s: longest wait before a retry, also if the server asks for more
	Helper   time.Duration // 30 s for a credential helper
}

func (t Timeouts) withDefaults() Timeouts {
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{
		{&t.Connect, 20 * time.Second}, {&t.TLS, 20 * time.Second}, {&t.Header, time.Minute}, {&t.Stall, time.Minute},
		{&t.Document, 2 * time.Minute}, {&t.Backoff, 500 * time.Millisecond}, {&t.Wait, time.Minute}, {&t.Helper, 30 * time.Second},
	} {
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	return t
}

// configured puts the operator's time-outs for a registry over t.
func (t Timeouts) configured(r config.RegistryTimeouts) Timeouts {
	for _, d := range []struct {
		p *time.Duration
		v config.Duration
	}{{&t.Connect, r.Connect}, {&t.TLS, r.TLS}, {&t.Header, r.Header}, {&t.Stall, r.Stall}} {
		if d.v != 0 {
			*d.p = time.Duration(d.v)
		}
	}
	return t
}

func (c *Client) retries() int {
	switch {
	case c.MaxRetries == 0:
		return 4
	case c.MaxRetries < 0:
		return 0
	}
	return c.MaxRetries
}

func (c *Client) userAgent() string {
	if c.UserAgent != "" {
		return c.UserAgent
	}
	return "rkt/" + buildinfo.Version
}

func (c *Client) debugf(format string, args ...any) {
	if c.Log != nil {
		c.Log.Debugf(format, args...)
	}
}

// endpoint is a repository at a host: where requests go.
type endpoint struct {
	host, repository string
	mirror           bool
	insecure         bool   // this host may show any certificate or speak plain http
	ca               string // further certificates to trust, a path
	entry            config.Registry
	timeouts         Timeouts
}

func (e *endpoint) String() string {
	if e.mirror {
		return fmt.Sprintf("mirror %q", e.host+"/"+e.repository)
	}
	return fmt.Sprintf("%q", e.host+"/"+e.repository)
}

// plainHTTP says whether requests and secrets may go over http.
func (c *Client) plainHTTP(e *endpoint) bool { return e.insecure || c.InsecureHTTP }

// Open finds out where to fetch the images of a reference; it makes no request.
func (c *Client) Open(ref oci.Reference) (*Repository, error) {
	entry, _ := c.Config.RegistryFor(ref.Host, ref.Repository)
	if entry.Blocked {
		return nil, fmt.Errorf("opening registry for %q: the configuration blocks %q", ref.String(), entry.Prefix)
	}
	r := &Repository{client: c, ref: ref}
	host := config.RegistryHost(ref.Host)
	rest := strings.TrimPrefix(host+"/"+ref.Repository, entry.Prefix)
	add := func(location string, mirror, insecure bool) error {
		h, repo, _ := strings.Cut(location+rest, "/")
		if repo == "" {
			return fmt.Errorf("opening registry for %q: the location %q leaves no repository", ref.String(), location)
		}
		e := &endpoint{host: h, repository: repo, mirror: mirror, insecure: insecure, ca: entry.CA, entry: entry}
		e.timeouts = c.Timeouts.configured(entry.Timeouts)
		// A mirror, or a location on another host, may have settings of its own.
		if own, ok := c.Config.RegistryFor(h, repo); ok && own.Prefix != entry.Prefix {
			if own.Blocked {
				return nil
			}
			e.insecure = e.insecure || own.Insecure
			e.timeouts = e.timeouts.configured(own.Timeouts)
			if own.CA != "" {
				e.ca = own.CA
			}
		}
		e.timeouts = e.timeouts.withDefaults()
		r.endpoints = append(r.endpoints, e)
		return nil
	}
	for _, m := range entry.Mirrors {
		if m.Pull == config.PullDigest && ref.Digest == "" || m.Pull == config.PullTag && ref.Digest != "" {
			continue
		}
		if err := add(m.Location, true, m.Insecure); err != nil {
			return nil, err
		}
	}
	location := entry.Location
	if location == "" {
		location = entry.Prefix
	}
	r.location = location + rest
	if err := add(location, false, entry.Insecure); err != nil {
		return nil, err
	}
	if len(r.endpoints) == 0 {
		return nil, fmt.Errorf("opening registry for %q: the configuration blocks its location %q", ref.String(), location)
	}
	return r, nil
}

// CloseIdle closes the connections that are not in use.
func (c *Client) CloseIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// sleep waits, for less if the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Sentinels, matched by errors.Is.
var (
	// ErrNotFound: the registry has no such image or blob.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: the registry wants credentials, or others.
	ErrUnauthorized = errors.New("not authorized")
)

// StatusError is an answer nobody asked for.
type StatusError struct {
	Method, URL string
	Code        int
	Detail      string // what the registry says about it, made safe to print
	retryAfter  time.Duration
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %q: HTTP status %d", e.Method, e.URL, e.Code)
	if text := http.StatusText(e.Code); text != "" {
		s += " (" + text + ")"
	}
	if e.Detail != "" {
		s += fmt.Sprintf(": the registry says %q", e.Detail)
	}
	return s
}

// Is makes the sentinels of the codes.
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Code == http.StatusNotFound
	case ErrUnauthorized:
		return e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden
	}
	return false
}

func (e *StatusError) temporary() bool {
	switch e.Code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// AuthError says that credentials are missing or refused.
type AuthError struct {
	Registry string
	Had      bool  // credentials were found and sent
	Ignored  error // why others could not be read, if so
	Cause    error
}

func (e *AuthError) Error() string {
	s := fmt.Sprintf("registry %q asks for credentials, and none are configured for it", e.Registry)
	if e.Had {
		s = fmt.Sprintf("registry %q refuses the credentials configured for it", e.Registry)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	if e.Ignored != nil {
		s += " (" + e.Ignored.Error() + ")"
	}
	return s
}

// Hint is what to do about it.
func (e *AuthError) Hint() string {
	return fmt.Sprintf("put a user and password for %q into auth.d (kind dockerAuth), or log in with: podman login %s (some registries answer so, too, when there is no such image)", e.Registry, e.Registry)
}

// Is makes it an ErrUnauthorized.
func (e *AuthError) Is(target error) bool { return target == ErrUnauthorized }

func (e *AuthError) Unwrap() error { return e.Cause }

// listError is several errors in one line.
type listError []error

func (l listError) Error() string {
	texts := make([]string, len(l))
	for i, err := range l {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (l listError) Unwrap() []error { return l }

// list joins the errors that there are.
func list(errs ...error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return listError(errs)
}

// triedError tells about all places that were tried. Its cause is that of the
// last one, which is the registry itself.
type triedError struct {
	places []string
	errs   []error
}

func (e *triedError) Error() string {
	var b strings.Builder
	for i, err := range e.errs {
		if i > 0 {
			b.WriteString("; ")
		}
		if len(e.errs) > 1 {
			b.WriteString("from " + e.places[i] + ": ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

func (e *triedError) Unwrap() error { return e.errs[len(e.errs)-1] }

func (e *triedError) add(place fmt.Stringer, err error) {
	e.places = append(e.places, place.String())
	e.errs = append(e.errs, err)
}

package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
)

const (
	maxHeader    = 256 << 10
	maxCertFiles = 64
	maxCertFile  = 1 << 20
	minProgress  = 4 << 10 // bytes that count as progress of a body
)

// hostKey is what tells transports apart: a client certificate of one host is
// never shown to another.
type hostKey struct {
	host, ca             string
	insecure             bool
	connect, tls, header time.Duration
}

// transport gives the connections to a host, which is e's own or one that e's
// registry refers to: an endpoint's permission to be insecure is its own host's.
func (c *Client) transport(e *endpoint, host string) (*http.Transport, error) {
	host = strings.ToLower(host)
	k := hostKey{
		host: host, ca: e.ca, insecure: c.InsecureTLS || c.insecureHost(e, host),
		connect: e.timeouts.Connect, tls: e.timeouts.TLS, header: e.timeouts.Header,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.transports[k]; ok {
		return t, nil
	}
	conf, err := c.tlsConfig(e, host)
	if err != nil {
		return nil, err
	}
	conf.InsecureSkipVerify = k.insecure
	proxy := c.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	t := &http.Transport{
		Proxy:                  proxy,
		DialContext:            (&net.Dialer{Timeout: k.connect}).DialContext,
		TLSHandshakeTimeout:    k.tls,
		ResponseHeaderTimeout:  k.header,
		TLSClientConfig:        conf,
		DisableCompression:     true, // digests are of the bytes as sent
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    c.maxBlobs(),
		IdleConnTimeout:        30 * time.Second,
		// HTTP/1.1 only: layers are few and large, and one connection for each
		// is faster than one for all.
		Protocols: http1(),
	}
	if c.transports == nil {
		c.transports = map[hostKey]*http.Transport{}
	}
	const maxTransports = 64 // an enemy may redirect to many hosts
	if len(c.transports) >= maxTransports {
		for k, old := range c.transports {
			old.CloseIdleConnections()
			delete(c.transports, k)
			break
		}
	}
	c.transports[k] = t
	return t, nil
}

func (c *Client) maxBlobs() int {
	if c.MaxBlobs > 0 {
		return c.MaxBlobs
	}
	return 6
}

// slot waits until a blob may be read from a host. Only blobs wait: a manifest
// must not time out because large layers are on their way.
func (c *Client) slot(ctx context.Context, host string) (release func(), err error) {
	c.mu.Lock()
	slots := c.slots[host]
	if slots == nil {
		if c.slots == nil {
			c.slots = map[string]chan struct{}{}
		}
		slots = make(chan struct{}, c.maxBlobs())
		c.slots[host] = slots
	}
	c.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return sync.OnceFunc(func() { <-slots }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func http1() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	return p
}

// insecureHost says whether the operator allowed a host of e's registry to be
// insecure: the registry's own name, on any port, or one with its own entry.
func (c *Client) insecureHost(e *endpoint, host string) bool {
	if e.insecure && hostname(host) == hostname(e.host) {
		return true
	}
	own, ok := c.Config.RegistryFor(host, "")
	return ok && own.Insecure
}

// hostname is a host without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

func (c *Client) tlsConfig(e *endpoint, host string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	var pems [][]byte
	paths := []string{e.ca}
	if own, ok := c.Config.RegistryFor(host, ""); ok && own.CA != e.ca {
		paths = append(paths, own.CA)
	}
	for _, p := range paths {
		if p == "" {
			continue
		}
		data, err := config.Registry{Prefix: host, CA: p}.CAFile()
		if err != nil {
			return nil, err
		}
		pems = append(pems, data)
	}
	more, certs, err := c.certDir(host)
	if err != nil {
		return nil, err
	}
	conf.Certificates = certs
	if pems = append(pems, more...); len(pems) == 0 {
		return conf, nil
	}
	if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
		conf.RootCAs = x509.NewCertPool()
	}
	for _, data := range pems {
		if !conf.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("reading certificates for registry %q: a file holds no certificate", host)
		}
	}
	return conf, nil
}

var plainHost = regexp.MustCompile(`^(\[[0-9a-f:]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:[0-9]+)?$`)

// certDir reads the certificates that containers and Docker keep for a host.
func (c *Client) certDir(host string) (cas [][]byte, certs []tls.Certificate, err error) {
	if !plainHost.MatchString(host) { // the name may come from a redirect
		return nil, nil, nil
	}
	dirs := c.CertDirs
	if dirs == nil {
		dirs = []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	}
	names := []string{host}
	if host == config.HubHost {
		names = append(names, "docker.io")
	}
	for _, dir := range dirs {
		for _, name := range names {
			found, err := os.ReadDir(filepath.Join(dir, name))
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, nil, fmt.Errorf("reading certificates for registry %q: %w", host, err)
			}
			if len(found) > maxCertFiles {
				return nil, nil, fmt.Errorf("reading certificates for registry %q: more than %d files in %q", host, maxCertFiles, filepath.Join(dir, name))
			}
			cas, certs, err = readCerts(filepath.Join(dir, name), found)
			if err != nil {
				err = fmt.Errorf("reading certificates for registry %q: %w", host, err)
			}
			return cas, certs, err // the first directory that exists
		}
	}
	return nil, nil, nil
}

func readCerts(dir string, files []os.DirEntry) (cas [][]byte, certs []tls.Certificate, err error) {
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch filepath.Ext(path) {
		case ".crt":
			data, err := readSmall(path, maxCertFile)
			if err != nil {
				return nil, nil, err
			}
			cas = append(cas, data)
		case ".cert":
			key := strings.TrimSuffix(path, ".cert") + ".key"
			cert, err := readSmall(path, maxCertFile)
			if err != nil {
				return nil, nil, err
			}
			secret, err := readSmall(key, maxCertFile)
			if err != nil {
				return nil, nil, fmt.Errorf("%q needs its key: %w", path, err)
			}
			pair, err := tls.X509KeyPair(cert, secret)
			if err != nil {
				return nil, nil, fmt.Errorf("%q and %q: %w", path, key, err)
			}
			certs = append(certs, pair)
		}
	}
	return cas, certs, nil
}

// readSmall reads a regular file that has at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%q is larger than %d bytes", path, limit)
	}
	return data, err
}

var (
	errStalled = errors.New("the transfer stalled")
	errSlow    = errors.New("no answer in time")
)

// stallReader ends a request whose body makes no progress. Only time spent in
// Read counts, so that a slow consumer is not taken for a slow server.
type stallReader struct {
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	after  time.Duration
	left   time.Duration // until the transfer counts as stalled
	got    int           // bytes since left was last full
	dead   bool          // the timer fired
}

func (s *stallReader) Read(p []byte) (int, error) {
	start := time.Now()
	t := time.AfterFunc(s.left, func() { s.cancel(errStalled) })
	n, err := s.body.Read(p)
	if !t.Stop() {
		s.dead = true
	}
	s.left -= time.Since(start)
	if s.got += n; s.got >= minProgress {
		s.got, s.left = 0, s.after
	}
	if err != nil && s.dead {
		// Also an end: a server that is hung up on may end its answer in time
		// for it to look complete.
		err = errStalled
	}
	return n, err
}

func (s *stallReader) Close() error {
	err := s.body.Close()
	s.cancel(context.Canceled)
	return err
}

// transferError is trouble on the way, which may be gone at the next attempt.
type transferError struct{ err error }

func (e *transferError) Error() string { return e.err.Error() }
func (e *transferError) Unwrap() error { return e.err }

// transfer wraps an error of a connection unless trying again is pointless.
func transfer(err error) error {
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case err == nil, errors.As(err, &cert), errors.As(err, &dns) && dns.IsNotFound:
		return err
	}
	return &transferError{err}
}

// retryable says whether to try again; resumed means that the host answered before.
func retryable(err error, resumed bool) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.temporary()
	}
	var t *transferError
	if !errors.As(err, &t) {
		return false
	}
	var tlsHeader tls.RecordHeaderError
	switch {
	case errors.As(err, &tlsHeader):
		return false
	case errors.Is(err, syscall.ECONNREFUSED):
		return resumed
	}
	return true
}

func isRedirect(code int) bool {
	return slices.Contains([]int{301, 302, 303, 307, 308}, code)
}

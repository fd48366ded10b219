package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	maxTries  = 4
	firstWait = time.Second
	// longestWait bounds what a server may ask for with Retry-After.
	longestWait = 30 * time.Second
)

// StatusError is an answer nobody asked for.
type StatusError struct {
	URL   string
	Code  int
	after time.Duration // Retry-After
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("requesting %q: bad HTTP status code: %d", e.URL, e.Code)
}

func statusError(target string, resp *http.Response) *StatusError {
	e := &StatusError{URL: target, Code: resp.StatusCode}
	text := resp.Header.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		e.after = time.Duration(n) * time.Second //nolint:gosec // 31 bits
	} else if at, err := http.ParseTime(text); err == nil {
		e.after = time.Until(at)
	}
	return e
}

// transferError is a body that broke off: the network's fault, not the disk's.
type transferError struct{ err error }

func (e *transferError) Error() string { return e.err.Error() }
func (e *transferError) Unwrap() error { return e.err }

// bodyReader marks the errors of a body.
type bodyReader struct{ r io.Reader }

func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &transferError{err}
	}
	return n, err
}

// transient says whether trying the same again soon may help. A host that does
// not exist, refuses or shows a bad certificate will do so again.
func transient(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		switch status.Code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return status.after <= longestWait
		}
		return false
	}
	var transfer *transferError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &transfer):
		return true
	case errors.As(err, &dns):
		return dns.IsTemporary && !dns.IsNotFound
	case errors.As(err, &timeout) && timeout.Timeout():
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// elsewhere says whether another place may have what this one failed to give.
func elsewhere(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code == http.StatusNotFound || status.Code == http.StatusGone || status.Code/100 == 5 || transient(err)
	}
	var network net.Error // each *url.Error of a client is one
	return transient(err) || errors.As(err, &network)
}

// retrier bounds how often something is tried.
type retrier struct {
	f     *Fetcher
	tries int
}

// next waits before the next try, or gives the error back.
func (r *retrier) next(ctx context.Context, err error) error {
	r.tries++
	if ctx.Err() != nil || r.tries >= maxTries || !transient(err) {
		return err
	}
	wait := firstWait << (r.tries - 1)
	var status *StatusError
	if errors.As(err, &status) {
		wait = max(wait, status.after)
	}
	r.f.log().WithError(err).Infof("trying again in %s", wait)
	if r.f.pause != nil {
		if r.f.pause(ctx, wait) != nil {
			return err
		}
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return err
	case <-t.C:
		return nil
	}
}

// ask makes a GET request whose answer is 200, or another code that want
// names; transient failures are tried again.
func (f *Fetcher) ask(ctx context.Context, c *http.Client, target string, want ...int) (*http.Response, error) {
	r := retrier{f: f}
	for {
		resp, err := f.get(ctx, c, target, nil)
		if err == nil {
			if resp.StatusCode == http.StatusOK {
				return resp, nil
			}
			for _, code := range want {
				if resp.StatusCode == code {
					return resp, nil
				}
			}
			err = statusError(target, resp)
			resp.Body.Close()
		}
		if err := r.next(ctx, err); err != nil {
			return nil, err
		}
	}
}

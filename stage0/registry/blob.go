package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/rkt-systemd/rkt/stage0/oci"
)

// retriesAfter is how many bytes make up for earlier failures, so that a server
// cannot hold a transfer for ever by giving a byte at a time.
const retriesAfter = 1 << 20

// Blob opens a layer. The reader resumes after broken connections, from another
// mirror if need be, and gives exactly the bytes from offset to the size in d,
// or an error; they are not compared with the digest.
func (r *Repository) Blob(ctx context.Context, d oci.Descriptor, offset int64) (io.ReadCloser, error) {
	if _, err := oci.ParseDigest(d.Digest); err != nil {
		return nil, fmt.Errorf("fetching blob: %w", err)
	}
	if offset < 0 || d.Size < 0 || offset > d.Size {
		return nil, fmt.Errorf("fetching blob %s: offset %d is not within its %d bytes", d.Digest, offset, d.Size)
	}
	b := &blobReader{ctx: ctx, repo: r, d: d, pos: offset, mark: offset, tried: &triedError{}}
	for _, e := range r.order() {
		b.places = append(b.places, blobPlace{endpoint: e})
	}
	last := r.endpoints[len(r.endpoints)-1]
	for _, text := range d.URLs {
		b.places = append(b.places, blobPlace{endpoint: last, url: text})
	}
	if b.pos == d.Size {
		return b, nil
	}
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// blobPlace is where a blob may be: an endpoint, or a URL of its descriptor.
type blobPlace struct {
	*endpoint
	url string
}

func (p blobPlace) String() string {
	if p.url != "" {
		return fmt.Sprintf("%q", p.url)
	}
	return p.endpoint.String()
}

// blobReader is one pass over a blob. Its context is the opener's: a reader has
// no other way to get it.
type blobReader struct {
	ctx    context.Context
	repo   *Repository
	d      oci.Descriptor
	places []blobPlace // the first is in use
	tried  *triedError

	body     io.ReadCloser
	known    bool  // the body's length was announced
	pos      int64 // of the next byte
	mark     int64 // pos at the last failure
	failures int   // in a row, without much progress
	started  bool  // the place answered before
	err      error
}

// open connects at pos, waiting and changing places as it must.
func (b *blobReader) open() error {
	for {
		body, known, err := b.connect(b.places[0])
		if err == nil {
			b.body, b.known, b.started = body, known, true
			return nil
		}
		if err := b.failed(err); err != nil {
			return err
		}
	}
}

// failed decides after a failure: nil means to connect again.
func (b *blobReader) failed(cause error) error {
	if b.ctx.Err() != nil {
		return fmt.Errorf("fetching blob %s: %w", b.d.Digest, context.Cause(b.ctx))
	}
	if b.pos-b.mark >= retriesAfter {
		b.failures = 0
	}
	b.mark = b.pos
	c := b.repo.client
	if b.failures < c.retries() && retryable(cause, b.started) {
		err := c.pause(b.ctx, b.places[0].endpoint, b.failures, cause)
		if err == nil {
			b.failures++
			return nil
		}
		if b.ctx.Err() != nil {
			return fmt.Errorf("fetching blob %s: %w", b.d.Digest, err)
		}
		cause = err
	}
	b.tried.add(b.places[0], cause)
	b.places, b.failures, b.started = b.places[1:], 0, false
	if len(b.places) == 0 {
		return fmt.Errorf("fetching blob %s of %q, at byte %d of %d: %w", b.d.Digest, b.repo.ref, b.pos, b.d.Size, b.tried)
	}
	return nil
}

func (b *blobReader) connect(p blobPlace) (body io.ReadCloser, known bool, err error) {
	c := b.repo.client
	r := request{method: http.MethodGet, path: "blobs/" + b.d.Digest, offset: b.pos, size: b.d.Size}
	release, err := c.slot(b.ctx, p.host)
	if err != nil {
		return nil, false, err
	}
	var resp *http.Response
	if p.url == "" {
		resp, err = c.send(b.ctx, p.endpoint, r)
	} else {
		resp, err = c.foreign(b.ctx, p.endpoint, p.url, r)
	}
	if err != nil {
		release()
		return nil, false, err
	}
	skip, err := b.check(resp)
	if err == nil && skip > 0 {
		// The server has no ranges: what is known already must pass by again.
		if _, err = io.CopyN(io.Discard, resp.Body, skip); err != nil {
			err = transfer(fmt.Errorf("skipping the first %d bytes: %w", skip, noEOF(err)))
		}
	}
	if err != nil {
		resp.Body.Close()
		release()
		return nil, false, err
	}
	return &slotBody{resp.Body, release}, resp.ContentLength >= 0, nil
}

// slotBody gives its place back when closed.
type slotBody struct {
	io.ReadCloser
	release func()
}

func (s *slotBody) Close() error {
	defer s.release()
	return s.ReadCloser.Close()
}

var contentRange = regexp.MustCompile(`^bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)$`)

// check compares an answer's headers with what was asked for; skip is how much
// of the body comes before that.
func (b *blobReader) check(resp *http.Response) (skip int64, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		if n := resp.ContentLength; n >= 0 && n != b.d.Size {
			return 0, fmt.Errorf("the server offers %d bytes, the manifest says %d", n, b.d.Size)
		}
		return b.pos, nil
	case http.StatusPartialContent:
	default:
		return 0, fmt.Errorf("HTTP status %d is no answer to this request", resp.StatusCode)
	}
	text := resp.Header.Get("Content-Range")
	m := contentRange.FindStringSubmatch(text)
	if m == nil || b.pos == 0 {
		return 0, fmt.Errorf("the server answers byte %d with a part it calls %.100q", b.pos, text)
	}
	first, _ := strconv.ParseInt(m[1], 10, 64) // 18 digits always fit
	last, _ := strconv.ParseInt(m[2], 10, 64)
	total := b.d.Size
	if m[3] != "*" {
		total, _ = strconv.ParseInt(m[3], 10, 64)
	}
	if first != b.pos || last < first || last >= b.d.Size || total != b.d.Size ||
		resp.ContentLength >= 0 && resp.ContentLength != last-first+1 {
		return 0, fmt.Errorf("the server answers byte %d of %d with a part it calls %.100q", b.pos, b.d.Size, text)
	}
	return 0, nil
}

func (b *blobReader) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.read(p)
	b.err = err
	return n, err
}

func (b *blobReader) read(p []byte) (int, error) {
	for b.pos < b.d.Size {
		if b.body == nil {
			if err := b.open(); err != nil {
				return 0, err
			}
		}
		n, err := b.body.Read(p[:min(int64(len(p)), b.d.Size-b.pos)])
		b.pos += int64(n)
		if err == nil || b.pos == b.d.Size {
			if n > 0 {
				return n, nil
			}
			continue
		}
		b.body.Close()
		b.body = nil
		if err := b.failed(transfer(noEOF(err))); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
	if b.body != nil && b.known {
		// Seeing the end lets the connection be used again.
		_, _ = b.body.Read(make([]byte, 1)) // all bytes are there already
	}
	return 0, io.EOF
}

// Close ends the transfer.
func (b *blobReader) Close() error {
	if b.err == nil {
		b.err = errors.New("reading a closed blob")
	}
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// foreign reads a layer from a URL of its descriptor: https, no credentials.
func (c *Client) foreign(ctx context.Context, e *endpoint, text string, r request) (*http.Response, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("the layer's URL %.200q is not one of https without a password", text)
	}
	// The permission to be insecure is the registry's, not that of others.
	strict := *e
	strict.insecure = false
	resp, final, err := c.follow(ctx, &strict, u, r, "")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		defer resp.Body.Close()
		return nil, statusError(r.method, final, resp)
	}
	return resp, nil
}

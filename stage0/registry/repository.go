package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/rkt-systemd/rkt/stage0/oci"
)

var _ oci.Source = (*Repository)(nil)

// Repository is the image that a reference names, wherever it is fetched from:
// its mirrors, then the registry itself. It is safe for concurrent use.
type Repository struct {
	client    *Client
	ref       oci.Reference
	location  string // what the configuration makes of the reference's scope
	endpoints []*endpoint

	mu   sync.Mutex
	good *endpoint // which one had the image
}

// Close gives up nothing that others may use; it makes a Repository an oci.Source.
func (r *Repository) Close() error { return nil }

// Reference is what the repository was opened for.
func (r *Repository) Reference() oci.Reference { return r.ref }

// order lists the endpoints, the one that had the image first.
func (r *Repository) order() []*endpoint {
	r.mu.Lock()
	good := r.good
	r.mu.Unlock()
	if good == nil {
		return r.endpoints
	}
	list := []*endpoint{good}
	for _, e := range r.endpoints {
		if e != good {
			list = append(list, e)
		}
	}
	return list
}

// each tries the endpoints in order until one succeeds, and tells about all.
func (r *Repository) each(ctx context.Context, endpoints []*endpoint, do func(*endpoint) error) error {
	tried := &triedError{}
	for _, e := range endpoints {
		err := do(e)
		if err == nil {
			return nil
		}
		tried.add(e, err)
		if ctx.Err() != nil {
			break
		}
		if e.mirror {
			r.client.debugf("going on to the next place of %q: %v", r.ref, err)
		}
	}
	return tried
}

// want is the tag or digest that the reference asks for.
func (r *Repository) want() string {
	if r.ref.Digest != "" {
		return r.ref.Digest
	}
	return r.ref.Tag
}

// Image finds the image for a platform.
func (r *Repository) Image(ctx context.Context, p oci.Platform) (*oci.Image, error) {
	var img *oci.Image
	err := r.each(ctx, r.endpoints, func(e *endpoint) (err error) {
		img, err = r.imageFrom(ctx, e, p)
		if err == nil {
			r.mu.Lock()
			r.good = e
			r.mu.Unlock()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetching manifest of %q: %w", r.ref, err)
	}
	img.Tag = r.ref.Tag
	return img, nil
}

func (r *Repository) imageFrom(ctx context.Context, e *endpoint, p oci.Platform) (*oci.Image, error) {
	data, mediaType, err := r.client.manifest(ctx, e, r.want(), oci.AcceptTypes(), oci.MaxManifest)
	if err != nil {
		return nil, err
	}
	return oci.Resolve(ctx, data, mediaType, p, func(ctx context.Context, d oci.Descriptor) ([]byte, error) {
		if oci.IsIndex(d.MediaType) || oci.IsManifest(d.MediaType) {
			data, _, err := r.client.manifest(ctx, e, d.Digest, oci.AcceptTypes(), d.Size)
			return data, err
		}
		return r.client.smallBlob(ctx, e, d)
	})
}

// Head asks what the reference's tag means now: one request, after the first
// also without the round trips of authentication. A reference with a digest
// always means that, and nobody is asked. The answer is the registry's word;
// only Image proves it.
func (r *Repository) Head(ctx context.Context) (digest string, err error) {
	if r.ref.Digest != "" {
		return r.ref.Digest, nil
	}
	err = r.each(ctx, r.endpoints, func(e *endpoint) (err error) {
		digest, err = r.client.head(ctx, e, r.ref.Tag)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("asking for the digest of %q: %w", r.ref, err)
	}
	return digest, nil
}

const digestHeader = "Docker-Content-Digest"

func (c *Client) head(ctx context.Context, e *endpoint, tag string) (digest string, err error) {
	err = c.retry(ctx, e, func() error {
		ctx, cancel := context.WithTimeout(ctx, e.timeouts.Document)
		defer cancel()
		resp, err := c.send(ctx, e, request{method: http.MethodHead, path: "manifests/" + tag, accept: oci.AcceptTypes()})
		if err != nil {
			return err
		}
		digest = resp.Header.Get(digestHeader)
		return resp.Body.Close()
	})
	var status *StatusError
	switch {
	case errors.As(err, &status) && (status.Code == http.StatusMethodNotAllowed || status.Code == http.StatusNotImplemented):
		digest = ""
	case err != nil:
		return "", err
	}
	if _, err := oci.ParseDigest(digest); err == nil {
		return digest, nil
	}
	data, _, err := c.manifest(ctx, e, tag, oci.AcceptTypes(), oci.MaxManifest)
	if err != nil {
		return "", err
	}
	return oci.Digest(data), nil
}

// document reads a small body whole.
func (c *Client) document(ctx context.Context, e *endpoint, r request, limit int64) (data []byte, header http.Header, err error) {
	err = c.retry(ctx, e, func() error {
		ctx, cancel := context.WithTimeout(ctx, e.timeouts.Document)
		defer cancel()
		resp, err := c.send(ctx, e, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return &StatusError{Method: r.method, URL: r.path, Code: resp.StatusCode}
		}
		if resp.ContentLength > limit {
			return fmt.Errorf("reading %s: %d bytes, more than %d", r.path, resp.ContentLength, limit)
		}
		data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err == nil {
			err = ctx.Err() // an answer that was cut off may look complete
		}
		switch {
		case err != nil:
			return transfer(fmt.Errorf("reading %s: %w", r.path, err))
		case int64(len(data)) > limit:
			return fmt.Errorf("reading %s: more than %d bytes", r.path, limit)
		}
		header = resp.Header
		return nil
	})
	return data, header, err
}

// manifest reads a manifest or an index and compares it with the digest that
// was asked for and the one that the registry says it has.
func (c *Client) manifest(ctx context.Context, e *endpoint, ref string, accept []string, limit int64) (data []byte, mediaType string, err error) {
	data, header, err := c.document(ctx, e, request{method: http.MethodGet, path: "manifests/" + ref, accept: accept}, limit)
	if err != nil {
		return nil, "", err
	}
	said := header.Values(digestHeader)
	if strings.Contains(ref, ":") { // a digest: no tag has a colon
		said = append(slices.Clone(said), ref)
	}
	for _, digest := range said {
		if err := oci.CheckDigest(digest, data); err != nil {
			return nil, "", fmt.Errorf("checking manifest %s: %w", ref, err)
		}
	}
	mediaType, _, _ = strings.Cut(header.Get("Content-Type"), ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	if !strings.HasPrefix(mediaType, "application/vnd.") {
		mediaType = "" // a server that does not know; the document says it
	}
	return data, mediaType, nil
}

// smallBlob reads a blob whole and compares it with its descriptor.
func (c *Client) smallBlob(ctx context.Context, e *endpoint, d oci.Descriptor) ([]byte, error) {
	data, _, err := c.document(ctx, e, request{method: http.MethodGet, path: "blobs/" + d.Digest}, d.Size)
	if err != nil {
		return nil, err
	}
	if err := oci.CheckBlob(d, data); err != nil {
		return nil, fmt.Errorf("checking blob: %w", err)
	}
	return data, nil
}

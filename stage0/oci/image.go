package oci

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// maxDocuments bounds how many documents of nested indexes are read for one image.
const maxDocuments = 32

// NewImage makes an image of its documents, which must agree: the manifest
// names the configuration by digest and size, the configuration has a diff ID
// for every layer. mediaType is what the place calls the manifest, "" if it
// does not say. The image must run on p; the zero Platform stands for any.
//
// The caller compares the manifest with the digest it was asked by (CheckDigest)
// and fills in Index and Tag.
func NewImage(manifest []byte, mediaType string, config []byte, p Platform) (*Image, error) {
	m, err := ParseManifest(manifest, mediaType)
	if err != nil {
		return nil, err
	}
	if err := CheckBlob(m.Config, config); err != nil {
		return nil, fmt.Errorf("checking image configuration: %w", err)
	}
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	if len(c.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("checking image: the manifest has %d layers, the configuration %d", len(m.Layers), len(c.DiffIDs))
	}
	if _, ok := p.Runs(c.Platform); !ok && p != (Platform{}) {
		return nil, fmt.Errorf("checking image: %w", &PlatformError{Want: p, Offered: []string{c.Platform.String()}})
	}
	img := &Image{
		Manifest: manifest, ManifestType: m.MediaType, ManifestDigest: Digest(manifest),
		Config: config, ConfigDigest: m.Config.Digest,
	}
	ids := map[string]string{}
	for i, d := range m.Layers {
		id := c.DiffIDs[i]
		if known, ok := ids[d.Digest]; ok && known != id {
			return nil, fmt.Errorf("checking image: layer %s has the diff IDs %s and %s", d.Digest, known, id)
		}
		ids[d.Digest] = id
		img.Layers = append(img.Layers, Layer{Descriptor: d, DiffID: id})
	}
	return img, nil
}

// Fetch reads a document whole; Resolve compares it with its descriptor.
type Fetch func(ctx context.Context, d Descriptor) ([]byte, error)

// Resolve goes from a top document (an index or a manifest, already compared
// with its digest) to the image for a platform, following nested indexes. It
// sets Image.Index to the digest of the top index.
func Resolve(ctx context.Context, data []byte, mediaType string, p Platform, fetch Fetch) (*Image, error) {
	r := resolver{platform: p, fetch: fetch}
	img, err := r.resolve(ctx, data, mediaType, 0)
	if err != nil {
		return nil, err
	}
	if digest := Digest(data); digest != img.ManifestDigest {
		img.Index = digest
	}
	return img, nil
}

type resolver struct {
	platform Platform
	fetch    Fetch
	count    int
}

func (r *resolver) get(ctx context.Context, d Descriptor) ([]byte, error) {
	if r.count++; r.count > maxDocuments {
		return nil, fmt.Errorf("the index leads to more than %d documents", maxDocuments)
	}
	data, err := r.fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	return data, CheckBlob(d, data)
}

func (r *resolver) resolve(ctx context.Context, data []byte, mediaType string, depth int) (*Image, error) {
	mediaType, err := DocumentType(data, mediaType)
	if err != nil {
		return nil, fmt.Errorf("parsing image manifest: %w", err)
	}
	if !IsIndex(mediaType) {
		return r.image(ctx, data, mediaType)
	}
	if depth >= MaxNesting {
		return nil, fmt.Errorf("the index is nested deeper than %d levels", MaxNesting)
	}
	x, err := ParseIndex(data, mediaType)
	if err != nil {
		return nil, err
	}
	found, err := x.candidates(r.platform)
	if err != nil {
		return nil, err
	}
	// Entries that name no platform are tried in order.
	want := &PlatformError{Want: r.platform}
	for _, e := range found {
		data, err := r.get(ctx, e.Descriptor)
		if err != nil {
			return nil, err
		}
		img, err := r.resolve(ctx, data, e.MediaType, depth+1)
		var other *PlatformError
		switch {
		case err == nil:
			return img, nil
		case !errors.As(err, &other):
			return nil, err
		}
		want.Offered = append(want.Offered, other.Offered...)
	}
	slices.Sort(want.Offered)
	want.Offered = slices.Compact(want.Offered)
	return nil, want
}

func (r *resolver) image(ctx context.Context, manifest []byte, mediaType string) (*Image, error) {
	m, err := ParseManifest(manifest, mediaType)
	if err != nil {
		return nil, err
	}
	config, err := r.get(ctx, m.Config)
	if err != nil {
		return nil, fmt.Errorf("reading image configuration: %w", err)
	}
	return NewImage(manifest, mediaType, config, r.platform)
}

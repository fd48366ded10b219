package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
)

const dockerManifest = "manifest.json"

// DockerArchive is a tar archive as `docker save` writes it: a Source.
//
// Such an archive has no manifest as registries have. One is made, always the
// same for the same content, whose layers are the plain tars in the archive, so
// that a layer's digest is its diff ID.
type DockerArchive struct {
	a   *archive
	ref LayoutRef

	mu    sync.Mutex
	blobs map[string]string // digest to member
}

var _ Source = (*DockerArchive)(nil)

// OpenDockerArchive opens an archive, plain or compressed.
func OpenDockerArchive(ctx context.Context, ref LayoutRef, o ArchiveOptions) (*DockerArchive, error) {
	a, err := openArchive(ctx, ref.Path, o)
	if err != nil {
		return nil, fmt.Errorf("opening docker archive %q: %w", ref.Path, err)
	}
	if _, err := a.find(dockerManifest); err != nil {
		err = fmt.Errorf("opening docker archive %q: it holds no %q, so docker save did not make it", ref.Path, dockerManifest)
		return nil, errors.Join(err, a.Close())
	}
	return &DockerArchive{a: a, ref: ref, blobs: map[string]string{}}, nil
}

// Close closes the archive.
func (d *DockerArchive) Close() error { return d.a.Close() }

type dockerEntry struct {
	config string
	tags   []string // canonical references
	layers []string
}

func parseDockerManifest(data []byte) ([]dockerEntry, error) {
	v, err := decode(data, MaxManifest)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	var out []dockerEntry
	for i, v := range r.list(dockerManifest, map[string]any{"images": v}, "images", MaxEntries) {
		at := fmt.Sprintf("images[%d]", i)
		m := r.object(at, v, "Config", "RepoTags", "Layers")
		e := dockerEntry{config: r.text(at, m, "Config", maxMemberName), layers: r.strs(at, m, "Layers", MaxLayers)}
		for _, tag := range r.strs(at, m, "RepoTags", maxAnnotations) {
			// An image may have a name that no registry would take: it has no name then.
			if ref, err := ParseReference(tag); err == nil && ref.Digest == "" {
				e.tags = append(e.tags, ref.String())
			}
		}
		if e.config == "" {
			r.fail(at, "it names no configuration")
		}
		out = append(out, e)
	}
	if r.err == nil && len(out) == 0 {
		return nil, errors.New("it holds no image")
	}
	return out, r.err
}

func (d *DockerArchive) pick(entries []dockerEntry) (dockerEntry, error) {
	switch {
	case d.ref.Nth > len(entries):
		return dockerEntry{}, fmt.Errorf("there is no image @%d: it holds %d", d.ref.Nth-1, len(entries))
	case d.ref.Nth > 0:
		return entries[d.ref.Nth-1], nil
	case d.ref.Name == "" && len(entries) == 1:
		return entries[0], nil
	}
	var list []string
	for i, e := range entries {
		if d.ref.Name != "" && slices.Contains(e.tags, d.ref.Name) {
			e.tags = []string{d.ref.Name}
			return e, nil
		}
		if i < 20 {
			list = append(list, fmt.Sprintf("@%d %s", i, clip(strings.Join(e.tags, " "))))
		}
	}
	if d.ref.Name != "" {
		return dockerEntry{}, fmt.Errorf("it holds no image %q: %s", d.ref.Name, strings.Join(list, ", "))
	}
	return dockerEntry{}, fmt.Errorf("it holds %d images, name one: %s", len(entries), strings.Join(list, ", "))
}

// Image finds the image that the reference selects.
func (d *DockerArchive) Image(ctx context.Context, p Platform) (*Image, error) {
	img, err := d.image(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("reading docker archive %q: %w", d.ref.Path, err)
	}
	return img, nil
}

func (d *DockerArchive) image(ctx context.Context, p Platform) (*Image, error) {
	data, err := readSmall(d.a, dockerManifest, MaxManifest)
	if err != nil {
		return nil, err
	}
	entries, err := parseDockerManifest(data)
	if err != nil {
		return nil, fmt.Errorf("parsing %q: %w", dockerManifest, err)
	}
	e, err := d.pick(entries)
	if err != nil {
		return nil, err
	}
	config, err := readSmall(d.a, e.config, MaxConfig)
	if err != nil {
		return nil, err
	}
	// Its name is its digest, where docker chose it.
	if digits := strings.TrimSuffix(path.Base(e.config), ".json"); len(digits) == digestHex {
		if err := CheckDigest(digestPrefix+digits, config); err != nil {
			return nil, fmt.Errorf("image configuration: %w", err)
		}
	}
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	if len(c.DiffIDs) != len(e.layers) {
		return nil, fmt.Errorf("%q has %d layers, the configuration %d", dockerManifest, len(e.layers), len(c.DiffIDs))
	}
	layers := []Descriptor{}
	for i, name := range e.layers {
		l, err := d.layer(ctx, name, c.DiffIDs[i])
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	manifest, err := newManifest(Descriptor{TypeConfig, Digest(config), int64(len(config)), nil}, layers)
	if err != nil {
		return nil, err
	}
	img, err := NewImage(manifest, TypeManifest, config, p)
	if err == nil && len(e.tags) > 0 {
		img.Tag = e.tags[0]
	}
	return img, err
}

// layer describes a layer. docker saves plain tars; other tools compress them,
// and then the digest must be computed.
func (d *DockerArchive) layer(ctx context.Context, name, diffID string) (Descriptor, error) {
	f, err := d.a.open(name, 0)
	if err != nil {
		return Descriptor{}, fmt.Errorf("layer: %w", err)
	}
	out := Descriptor{MediaType: TypeLayer, Digest: diffID, Size: f.Size()}
	head := make([]byte, 4)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Descriptor{}, fmt.Errorf("layer %q: %w", clip(name), err)
	}
	switch {
	case head[0] == 0x1f && head[1] == 0x8b:
		out.MediaType = TypeLayerGzip
	case string(head) == "\x28\xb5\x2f\xfd":
		out.MediaType = TypeLayerZstd
	}
	if out.MediaType != TypeLayer {
		h := sha256.New()
		if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
			return Descriptor{}, fmt.Errorf("layer %q: %w", clip(name), err)
		}
		out.Digest = digestPrefix + hex.EncodeToString(h.Sum(nil))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blobs[out.Digest] = name
	return out, nil
}

// Blob opens a layer of an image that Image found.
func (d *DockerArchive) Blob(_ context.Context, desc Descriptor, offset int64) (io.ReadCloser, error) {
	d.mu.Lock()
	name, ok := d.blobs[desc.Digest]
	d.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("opening blob %s of %q: there is none", clip(desc.Digest), d.ref.Path)
	}
	f, err := d.a.open(name, 0)
	switch {
	case err != nil:
		return nil, err
	case f.Size() != desc.Size || offset < 0 || offset > desc.Size:
		return nil, fmt.Errorf("opening blob %s of %q: it has %d bytes, its descriptor says %d (offset %d)", desc.Digest, d.ref.Path, f.Size(), desc.Size, offset)
	}
	return d.a.open(name, offset)
}

// newManifest is the manifest of an image, the same for the same content.
func newManifest(config Descriptor, layers []Descriptor) ([]byte, error) {
	b, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        Descriptor   `json:"config"`
		Layers        []Descriptor `json:"layers"`
	}{2, TypeManifest, config, layers})
	if err != nil {
		return nil, fmt.Errorf("making image manifest: %w", err)
	}
	return b, nil
}

package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Assemble makes an image of a configuration and the layers that belong to it,
// lowest first. The same input gives the same manifest.
func Assemble(config []byte, layers []Layer) (*Image, error) {
	descriptors := make([]Descriptor, 0, len(layers))
	for _, l := range layers {
		descriptors = append(descriptors, l.Descriptor)
	}
	manifest, err := newManifest(Descriptor{MediaType: TypeConfig, Digest: Digest(config), Size: int64(len(config))}, descriptors)
	if err != nil {
		return nil, err
	}
	img, err := NewImage(manifest, TypeManifest, config, Platform{})
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		if l.DiffID != img.Layers[i].DiffID {
			return nil, fmt.Errorf("assembling image: layer %d has the diff ID %s, its configuration says %s", i, l.DiffID, img.Layers[i].DiffID)
		}
	}
	return img, nil
}

// WriteOCIArchive writes an image as a tar archive of a layout; open yields a
// layer's bytes as stored. name becomes the annotation
// org.opencontainers.image.ref.name unless it is empty. The documents are
// written as they came, so that their digests stay; the layers are compared
// with theirs. The same image and name give the same bytes.
func WriteOCIArchive(ctx context.Context, w io.Writer, img *Image, open func(Descriptor) (io.ReadCloser, error), name string) error {
	a := newWriter(ctx, w)
	index, err := layoutIndexOf(img, name)
	if err != nil {
		return fmt.Errorf("writing OCI archive: %w", err)
	}
	a.file(layoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	a.file(layoutIndex, index)
	a.file(blobDir+hexOf(img.ManifestDigest), img.Manifest)
	a.file(blobDir+hexOf(img.ConfigDigest), img.Config)
	for _, l := range img.Layers {
		if a.once(l.Digest) {
			a.stream(blobDir+hexOf(l.Digest), l.Digest, l.Size, func() (io.ReadCloser, error) { return open(l.Descriptor) })
		}
	}
	if err := a.close(); err != nil {
		return fmt.Errorf("writing OCI archive: %w", err)
	}
	return nil
}

func layoutIndexOf(img *Image, name string) ([]byte, error) {
	cfg, err := ParseConfig(img.Config)
	if err != nil {
		return nil, err
	}
	type jsonPlatform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
	}
	type jsonEntry struct {
		Descriptor
		Platform    jsonPlatform      `json:"platform"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	e := jsonEntry{
		Descriptor: Descriptor{MediaType: img.ManifestType, Digest: img.ManifestDigest, Size: int64(len(img.Manifest))},
		Platform:   jsonPlatform{cfg.Architecture, cfg.OS, cfg.Variant},
	}
	if name != "" {
		e.Annotations = map[string]string{annotationRefName: name}
	}
	return json.Marshal(struct {
		SchemaVersion int         `json:"schemaVersion"`
		MediaType     string      `json:"mediaType"`
		Manifests     []jsonEntry `json:"manifests"`
	}{2, TypeIndex, []jsonEntry{e}})
}

// WriteDockerArchive writes an image as `docker save` does; open yields a
// layer's plain tar and its size, -1 if that is not known (then the layer is
// opened twice). The layers are compared with their diff IDs. tags are what
// docker load calls the image; those without a tag are left out.
func WriteDockerArchive(ctx context.Context, w io.Writer, img *Image, open func(Layer) (io.ReadCloser, int64, error), tags []Reference) error {
	a := newWriter(ctx, w)
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: hexOf(img.ConfigDigest) + ".json", RepoTags: []string{}}
	for _, ref := range tags {
		if ref.Tag != "" {
			entry.RepoTags = append(entry.RepoTags, ref.repoTag())
		}
	}
	for _, l := range img.Layers {
		name := hexOf(l.DiffID) + ".tar"
		entry.Layers = append(entry.Layers, name)
		if a.err != nil || !a.once(l.DiffID) {
			continue
		}
		r, size, err := open(l)
		if err == nil && size < 0 {
			size, err = io.Copy(io.Discard, contextReader{ctx, r})
			if err = errors.Join(err, r.Close()); err == nil {
				r, _, err = open(l)
			}
		}
		a.stream(name, l.DiffID, size, func() (io.ReadCloser, error) { return r, err })
	}
	a.file(entry.Config, img.Config)
	manifest, err := json.Marshal([]any{entry})
	if err != nil {
		return fmt.Errorf("writing docker archive: %w", err)
	}
	a.file(dockerManifest, manifest)
	if err := a.close(); err != nil {
		return fmt.Errorf("writing docker archive: %w", err)
	}
	return nil
}

// repoTag is the form that docker load and others take for the same image.
func (r Reference) repoTag() string {
	host := r.Host
	if host == DefaultHost {
		host = "docker.io"
	}
	return host + "/" + r.Repository + ":" + r.Tag
}

func hexOf(digest string) string { return digest[len(digestPrefix):] }

// writer writes a tar archive and keeps the first error.
type writer struct {
	ctx  context.Context
	tw   *tar.Writer
	done map[string]bool
	err  error
}

func newWriter(ctx context.Context, w io.Writer) *writer {
	return &writer{ctx: ctx, tw: tar.NewWriter(w), done: map[string]bool{}}
}

// once says whether content is seen for the first time.
func (w *writer) once(digest string) bool {
	first := !w.done[digest]
	w.done[digest] = true
	return first
}

func (w *writer) header(name string, size int64) {
	if w.err == nil {
		w.err = w.tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
	}
}

func (w *writer) file(name string, data []byte) {
	w.header(name, int64(len(data)))
	if w.err == nil {
		_, w.err = w.tw.Write(data)
	}
}

// stream writes what open yields, which must have this size and digest.
func (w *writer) stream(name, digest string, size int64, open func() (io.ReadCloser, error)) {
	if w.err != nil {
		return
	}
	r, err := open()
	if err != nil {
		w.err = fmt.Errorf("opening layer %s: %w", digest, err)
		return
	}
	w.header(name, size)
	if w.err == nil {
		h := sha256.New()
		n, err := io.Copy(io.MultiWriter(w.tw, h), io.LimitReader(contextReader{w.ctx, r}, size))
		if err == nil {
			var more int64
			more, err = io.CopyN(io.Discard, r, 1)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			n += more
		}
		switch {
		case err != nil:
			w.err = fmt.Errorf("layer %s: %w", digest, err)
		case n != size:
			w.err = fmt.Errorf("layer %s: it does not have %d bytes", digest, size)
		case digestPrefix+hex.EncodeToString(h.Sum(nil)) != digest:
			w.err = fmt.Errorf("layer %s: the content has another digest: it was damaged or tampered with", digest)
		}
	}
	w.err = errors.Join(w.err, r.Close())
}

func (w *writer) close() error {
	if w.err != nil {
		return w.err
	}
	return w.tw.Close()
}

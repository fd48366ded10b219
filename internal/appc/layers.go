package appc

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/appc/spec/schema"
)

// LayersAnnotation is the annotation of an image whose root file system is
// layers kept beside it: its own archive holds an empty rootfs, and the value,
// a Layered as JSON, pins every byte by digest. rkt alone writes it; an archive
// from outside that carries it is refused.
const LayersAnnotation = "appc.io/oci/layers"

// MaxLayers is the largest number of layers an image may have.
const MaxLayers = 512

// Layered is the value of LayersAnnotation.
type Layered struct {
	Manifest     string     `json:"manifest"`     // digest of the image's OCI or Docker manifest
	ManifestType string     `json:"manifestType"` // its media type
	Config       string     `json:"config"`       // digest of its configuration
	Layers       []LayerRef `json:"layers"`       // lowest first
}

// LayerRef names a layer.
type LayerRef struct {
	Digest    string `json:"digest"` // of the bytes as stored, "sha256:" and 64 digits
	DiffID    string `json:"diffID"` // of the uncompressed tar
	Size      int64  `json:"size"`   // as stored, bytes
	MediaType string `json:"mediaType"`
}

// CheckDigest says whether d is "sha256:" and 64 lower-case hex digits.
func CheckDigest(d string) error {
	hexed, ok := strings.CutPrefix(d, "sha256:")
	if !ok || len(hexed) != sha256.Size*2 || strings.Trim(hexed, "0123456789abcdef") != "" {
		return fmt.Errorf("bad digest %.100q (want sha256: and 64 hex digits)", d)
	}
	return nil
}

// Layers are the layers of an image, nil if it has none of its own kind.
func Layers(m *schema.ImageManifest) (*Layered, error) {
	value, ok := m.Annotations.Get(LayersAnnotation)
	if !ok {
		return nil, nil
	}
	var l Layered
	d := json.NewDecoder(bytes.NewReader([]byte(value)))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return nil, fmt.Errorf("annotation %q: %w", LayersAnnotation, err)
	}
	if len(l.Layers) > MaxLayers {
		return nil, fmt.Errorf("annotation %q: %d layers, more than %d", LayersAnnotation, len(l.Layers), MaxLayers)
	}
	errs := []error{CheckDigest(l.Manifest), CheckDigest(l.Config)}
	for _, r := range l.Layers {
		errs = append(errs, CheckDigest(r.Digest), CheckDigest(r.DiffID))
		if r.Size < 0 {
			errs = append(errs, fmt.Errorf("layer %q has a negative size", r.Digest))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("annotation %q: %w", LayersAnnotation, err)
	}
	return &l, nil
}

// ChainIDs name each layer together with all below it (OCI image
// configuration, "Layer ChainID"): hex digits, lowest first.
func (l *Layered) ChainIDs() []string {
	ids := make([]string, 0, len(l.Layers))
	chain := ""
	for i, r := range l.Layers {
		if i == 0 {
			chain = r.DiffID
		} else {
			sum := sha256.Sum256([]byte(chain + " " + r.DiffID))
			chain = "sha256:" + hex.EncodeToString(sum[:])
		}
		ids = append(ids, strings.TrimPrefix(chain, "sha256:"))
	}
	return ids
}

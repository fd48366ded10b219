package oci

import (
	"fmt"
	"net/url"
)

// Limits on documents and what they describe.
const (
	MaxManifest = 4 << 20 // bytes of a manifest or an index
	MaxConfig   = 8 << 20 // bytes of a configuration
	MaxEntries  = 1024    // of an index
	MaxLayers   = 512     // of an image
	MaxNesting  = 4       // indexes within indexes
	MaxLayer    = 1 << 40 // bytes of one layer and of all together

	maxURLs        = 16
	maxText        = 4096
	maxAnnotations = 1024
)

// Manifest is an image manifest.
type Manifest struct {
	MediaType   string
	Config      Descriptor
	Layers      []Descriptor // lowest first
	Annotations map[string]string
}

// Entry is a member of an index.
type Entry struct {
	Descriptor
	Platform    *Platform // nil when the index does not say
	Annotations map[string]string
	// ArtifactType is set on what is no image.
	ArtifactType string
}

// Index is an index or a manifest list.
type Index struct {
	MediaType   string
	Entries     []Entry
	Annotations map[string]string
}

// DocumentType tells an index from a manifest: by the media type the place it
// came from gives ("" when there is none) and by the document itself. The two
// may not contradict each other, nor may a document be both.
func DocumentType(data []byte, mediaType string) (string, error) {
	_, mediaType, err := top(data, mediaType)
	return mediaType, err
}

func top(data []byte, mediaType string) (map[string]any, string, error) {
	if mediaType != "" {
		if err := checkTop(mediaType); err != nil {
			return nil, "", err
		}
	}
	v, err := decode(data, MaxManifest)
	if err != nil {
		return nil, "", err
	}
	r := &reader{}
	m := r.object("the document", v, "schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "artifactType", "fsLayers", "subject")
	if m == nil {
		r.fail("the document", "not a JSON object")
	}
	version := r.size("the document", m, "schemaVersion", 99)
	own := r.text("the document", m, "mediaType", maxText)
	if r.err != nil {
		return nil, "", r.err
	}
	_, fsLayers := m["fsLayers"]
	_, manifests := m["manifests"]
	_, config := m["config"]
	_, layers := m["layers"]
	switch {
	case version == 1, fsLayers:
		return nil, "", errSchema1
	case version != 2:
		return nil, "", fmt.Errorf("schema version %d, want 2", version)
	case manifests && (config || layers):
		return nil, "", fmt.Errorf("the document is an index and a manifest at once")
	case own != "" && checkTop(own) != nil:
		return nil, "", checkTop(own)
	case own != "" && mediaType != "" && own != mediaType:
		return nil, "", fmt.Errorf("the document says it is %q, but it was offered as %q", clip(own), mediaType)
	}
	if own != "" {
		mediaType = own
	}
	if mediaType == "" {
		// Only OCI documents may leave their type out.
		switch {
		case manifests:
			mediaType = TypeIndex
		case config:
			mediaType = TypeManifest
		}
	}
	if err := checkTop(mediaType); err != nil {
		return nil, "", err
	}
	if IsIndex(mediaType) && (config || layers) || IsManifest(mediaType) && manifests {
		return nil, "", fmt.Errorf("the document is not what its media type %q says", mediaType)
	}
	return m, mediaType, nil
}

// ParseManifest parses an image manifest; mediaType is what the place it came
// from calls it, "" if it does not say.
func ParseManifest(data []byte, mediaType string) (*Manifest, error) {
	m, err := parseManifest(data, mediaType)
	if err != nil {
		return nil, fmt.Errorf("parsing image manifest: %w", err)
	}
	return m, nil
}

func parseManifest(data []byte, mediaType string) (*Manifest, error) {
	doc, mediaType, err := top(data, mediaType)
	if err != nil {
		return nil, err
	}
	if !IsManifest(mediaType) {
		return nil, fmt.Errorf("it is an index (%s)", mediaType)
	}
	r := &reader{}
	out := &Manifest{MediaType: mediaType}
	if doc["config"] == nil {
		return nil, fmt.Errorf("it names no configuration")
	}
	artifact := r.text("manifest", doc, "artifactType", maxText)
	out.Config, _ = r.descriptor("config", doc["config"], MaxConfig)
	if r.err == nil {
		r.err = checkConfigType(out.Config.MediaType)
	}
	if artifact != "" && checkConfigType(artifact) != nil {
		r.fail("artifactType", "it is an artifact of type %q, not an image", clip(artifact))
	}
	total := int64(0)
	sizes := map[string]int64{}
	for i, v := range r.list("manifest", doc, "layers", MaxLayers) {
		at := fmt.Sprintf("layers[%d]", i)
		d, _ := r.descriptor(at, v, MaxLayer)
		if r.err != nil {
			return nil, r.err
		}
		if err := checkLayerType(d.MediaType); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		if size, twice := sizes[d.Digest]; twice && size != d.Size {
			r.fail(at, "%s has %d bytes here and %d before", d.Digest, d.Size, size)
		} else if !twice {
			total += d.Size // at most MaxLayers*MaxLayer: no overflow
		}
		sizes[d.Digest] = d.Size
		out.Layers = append(out.Layers, d)
	}
	out.Annotations = r.stringMap("manifest", doc, "annotations", maxAnnotations)
	switch {
	case r.err != nil:
		return nil, r.err
	case len(out.Layers) == 0:
		return nil, fmt.Errorf("the image has no layers, so there is nothing to run")
	case total > MaxLayer:
		return nil, fmt.Errorf("the layers have %d bytes together, more than %d", total, int64(MaxLayer))
	}
	return out, nil
}

// ParseIndex parses an index; mediaType as for ParseManifest.
func ParseIndex(data []byte, mediaType string) (*Index, error) {
	x, err := parseIndex(data, mediaType)
	if err != nil {
		return nil, fmt.Errorf("parsing image index: %w", err)
	}
	return x, nil
}

func parseIndex(data []byte, mediaType string) (*Index, error) {
	doc, mediaType, err := top(data, mediaType)
	if err != nil {
		return nil, err
	}
	if !IsIndex(mediaType) {
		return nil, fmt.Errorf("it is a manifest (%s)", mediaType)
	}
	r := &reader{}
	out := &Index{MediaType: mediaType}
	sizes := map[string]int64{}
	for i, v := range r.list("index", doc, "manifests", MaxEntries) {
		at := fmt.Sprintf("manifests[%d]", i)
		var e Entry
		var m map[string]any
		// What is neither image nor index may be large; it is never read.
		e.Descriptor, m = r.descriptor(at, v, MaxLayer)
		if r.err != nil {
			return nil, r.err
		}
		if (IsIndex(e.MediaType) || IsManifest(e.MediaType)) && e.Size > MaxManifest {
			r.fail(at+".size", "%d is more than %d", e.Size, MaxManifest)
		}
		if size, twice := sizes[e.Digest]; twice && size != e.Size {
			r.fail(at, "%s has %d bytes here and %d before", e.Digest, e.Size, size)
		}
		sizes[e.Digest] = e.Size
		e.Annotations = r.stringMap(at, m, "annotations", maxAnnotations)
		e.ArtifactType = r.text(at, m, "artifactType", maxText)
		if p := r.object(at+".platform", m["platform"], "os", "architecture", "variant"); p != nil {
			e.Platform = &Platform{
				OS:           r.text(at+".platform", p, "os", 64),
				Architecture: r.text(at+".platform", p, "architecture", 64),
				Variant:      r.text(at+".platform", p, "variant", 64),
			}
			if *e.Platform == (Platform{}) {
				e.Platform = nil
			}
		}
		out.Entries = append(out.Entries, e)
	}
	out.Annotations = r.stringMap("index", doc, "annotations", maxAnnotations)
	if r.err != nil {
		return nil, r.err
	}
	return out, nil
}

// descriptor reads a descriptor and returns its members too.
func (r *reader) descriptor(at string, v any, max int64) (Descriptor, map[string]any) {
	m := r.object(at, v, "mediaType", "digest", "size", "urls", "platform", "annotations", "artifactType")
	if m == nil {
		r.fail(at, "missing")
		return Descriptor{}, nil
	}
	d := Descriptor{
		MediaType: r.text(at, m, "mediaType", maxText),
		Digest:    r.str(at, m, "digest"),
		Size:      r.size(at, m, "size", max),
	}
	if r.err == nil {
		if _, err := ParseDigest(d.Digest); err != nil {
			r.fail(at, "%w", err)
		}
	}
	for _, s := range r.strs(at, m, "urls", maxURLs) {
		u, err := url.Parse(s)
		if err != nil || len(s) > maxText || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
			r.fail(at+".urls", "bad URL %q", clip(s))
		}
		d.URLs = append(d.URLs, s)
	}
	return d, m
}

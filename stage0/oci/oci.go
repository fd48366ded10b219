// Package oci understands images in the formats of the Open Container
// Initiative and of Docker: references, indexes, manifests and configurations,
// and the two places on disk that hold them, layout directories and archives.
// It turns a configuration into an App Container image manifest and writes
// images out again. Everything it reads may come from an enemy: documents are
// bounded, digests and sizes are compared with the bytes.
//
// Invariants: a document is believed only after its digest and size were
// compared; what programs could read in two ways (members given twice or in
// another case, a document that is index and manifest) is refused; names inside
// documents never become paths; the same image converts to the same bytes.
//
// Exported:
//
//	ParseReference(text) (Reference, error): String, Display, Scope, Name, Latest, Naming
//	ParseLayoutRef, ParseDockerArchiveRef(text) (LayoutRef, error): String, Naming
//	HostPlatform, ParsePlatform; Platform.Runs; *PlatformError
//	ParseManifest, ParseIndex, DocumentType(data, mediaType); ParseConfig(data)
//	ParseDigest, Digest, CheckDigest, CheckBlob; AcceptTypes, IsIndex, IsManifest
//	Select(index, platform) (Descriptor, error); Resolve(ctx, data, mediaType, platform, fetch) (*Image, error)
//	NewImage(manifest, mediaType, config, platform), Assemble(config, layers) (*Image, error)
//	Source; OpenLayout(ref), OpenArchive, OpenDockerArchive(ctx, ref, options); Sniff(path, decompress) (Kind, error)
//	Convert(img, naming) (manifest, warnings, error); FromACI(manifest, diffIDs...) (config, warnings, error)
//	Command: what a converted manifest says
//	WriteOCIArchive, WriteDockerArchive
//
// It knows nothing of the store, of trust or of the network. stage0/registry,
// stage0/image, stage0/prepare and stage0/cli may import it.
package oci

import (
	"context"
	"io"
)

// Descriptor names content by digest.
type Descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"` // "sha256:" and 64 hex digits
	Size      int64    `json:"size"`   // bytes, as stored
	URLs      []string `json:"urls,omitempty"`
}

// Layer is a layer of an image; DiffID is the digest of its uncompressed tar.
type Layer struct {
	Descriptor
	DiffID string `json:"diffID"`
}

// Image is one image's documents as they came, checked against their digests.
type Image struct {
	Manifest       []byte
	ManifestType   string // media type
	ManifestDigest string
	Config         []byte
	ConfigDigest   string
	Layers         []Layer // lowest first
	// Index is the digest of the index the manifest was picked from, or "".
	Index string
	// Tag is the name the source knows the image by (the tag, the annotation
	// org.opencontainers.image.ref.name, the RepoTag), or "".
	Tag string
}

// Source is a place that holds images: a repository of a registry, a layout
// directory, an archive. It is safe for concurrent use.
type Source interface {
	// Image finds the image that the source's reference selects, for a platform.
	// Manifest, configuration and index are checked against their digests.
	Image(ctx context.Context, p Platform) (*Image, error)
	// Blob opens a layer's bytes as stored, from offset on. Whoever reads
	// compares digest and size. An io.ReaderAt is also an *os.File section.
	Blob(ctx context.Context, d Descriptor, offset int64) (io.ReadCloser, error)
	Close() error
}

// Platform selects an image of an index, in the words of Go and OCI.
type Platform struct {
	OS, Architecture, Variant string
}

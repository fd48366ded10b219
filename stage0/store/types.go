package store

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/appc/spec/schema"
)

var (
	// ErrNotFound means that no stored image matches.
	ErrNotFound = errors.New("no such image in the store")
	// ErrShortID means that a hash prefix has fewer than two digits.
	ErrShortID = errors.New("image ID too short")
	// ErrNoMatch means that no stored image has an ID with this prefix; it is an ErrNotFound.
	ErrNoMatch = fmt.Errorf("no image IDs found: %w", ErrNotFound)
)

// AmbiguousError means that several images' IDs begin with the prefix.
type AmbiguousError struct {
	Prefix string
	Keys   []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("ambiguous image ID: %q matches %s", e.Prefix, strings.Join(e.Keys, ", "))
}

// Options of a store; the zero value is the default.
type Options struct {
	Limits Limits
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Limits bound what an import accepts; a zero member means its default.
type Limits struct {
	Plain   int64 // bytes of the uncompressed tar; default 64 GiB
	Entries int   // tar entries; default 2,000,000
	Ratio   int64 // plain bytes per compressed byte, checked above 1 GiB; default 512
}

// How an image was let into the store.
const (
	AdmittedUnsigned = "unsigned" // signature verification was switched off
	AdmittedDigest   = "digest"   // the reference named the manifest's digest
	AdmittedSigned   = "signed"   // signature by Fingerprint verified
	AdmittedSystem   = "system"   // an installed stage1 image in a trusted place
)

// Admission records how an image was let in. A later import never weakens it.
type Admission struct {
	Kind        string   `json:"kind"`
	Fingerprint string   `json:"fingerprint,omitempty"` // of the primary key, lower-case hex
	Identities  []string `json:"identities,omitempty"`
}

// Verified says whether somebody trusted vouched for the image under its name.
// A digest vouches for content alone: whoever made the image chose its name.
func (a Admission) Verified() bool { return a.Kind == AdmittedSigned || a.Kind == AdmittedSystem }

// Record is what the store knows about an image.
type Record struct {
	Key        string            `json:"key"` // "sha512-" and 64 hex digits
	ID         string            `json:"id"`  // "sha512-" and 128 hex digits
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels,omitempty"`
	ImportTime time.Time         `json:"importTime"`
	Size       int64             `json:"size"`                // plain tar, with its layers
	Compressed int64             `json:"compressed"`          // as it came, with its layers
	Stored     int64             `json:"stored"`              // the image's own file in the store
	Layers     []Layer           `json:"layers,omitempty"`    // lowest first
	Documents  []string          `json:"documents,omitempty"` // digests of the OCI manifest and configuration
	TreeSize   int64             `json:"treeSize,omitempty"`  // its rendered trees
	Latest     bool              `json:"latest,omitempty"`    // fetched without a version
	Source     string            `json:"source,omitempty"`    // where it came from first
	Admission  Admission         `json:"admission"`
	// LastUsed is kept as the record file's modification time, so that using an
	// image writes nothing else.
	LastUsed time.Time `json:"-"`
}

// Remote is what is known about a source of images: the validators of an HTTP
// response, or the identity of a local file.
type Remote struct {
	Source       string    `json:"source"` // the URL as given, or "file:" and a path
	SigSource    string    `json:"sigSource,omitempty"`
	Key          string    `json:"key"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"lastModified,omitempty"`
	MaxAge       int64     `json:"maxAge,omitempty"` // seconds
	Downloaded   time.Time `json:"downloaded"`
	File         *FileID   `json:"file,omitempty"`
	// Admitted is how it was verified that the source means this image, where
	// that is not a matter of the image alone (Admission.Kind).
	Admitted string `json:"admitted,omitempty"`
}

// FileID tells whether a local file is still the one that was imported.
type FileID struct {
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // ns
	Ctime int64  `json:"ctime"` // ns
	Inode uint64 `json:"inode"`
	Dev   uint64 `json:"dev"`
}

// ImportOptions say where an image comes from and who may refuse it.
type ImportOptions struct {
	Source string
	Latest bool
	// Admit is asked after the last byte was read and before anything becomes
	// visible; its error aborts the import. Nil admits as unsigned.
	Admit func(m *schema.ImageManifest, id string) (Admission, error)
	// Visit is shown the image while it is read; nil if nobody looks.
	Visit Visitor
	// Progress counts the bytes read from the reader, if not nil.
	Progress func(n int64)
	// layers are those of an image that ImportLayered makes.
	layers    []Layer
	documents []string
}

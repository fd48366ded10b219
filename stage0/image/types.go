package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/appc/spec/schema"
	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/keystore"
	"github.com/rkt-systemd/rkt/stage0/store"
)

var errTODO = errors.New("not implemented")

// PullPolicy says when a source is contacted.
type PullPolicy string

const (
	PullNew    PullPolicy = "new"    // use the store's match, else fetch
	PullUpdate PullPolicy = "update" // ask the source, reuse what is unchanged
	PullNever  PullPolicy = "never"  // the store only
)

// Image is an image in the store.
type Image struct {
	Key      string // "sha512-" and 64 hex digits
	ID       string // "sha512-" and 128 hex digits
	Name     string
	Labels   map[string]string
	Manifest *schema.ImageManifest
	Record   store.Record
}

// Kind is the form of a reference.
type Kind string

const (
	KindHash          Kind = "hash"
	KindPath          Kind = "path" // also file://
	KindURL           Kind = "url"  // http, https
	KindName          Kind = "name"
	KindDocker        Kind = "docker"
	KindOCI           Kind = "oci"
	KindOCIArchive    Kind = "oci-archive"
	KindDockerArchive Kind = "docker-archive"
)

// Ref is a parsed image reference.
type Ref struct {
	Kind   Kind
	Text   string            // as typed
	Hash   string            // KindHash: "sha512-" and lower-case digits
	Path   string            // KindPath: absolute
	URL    string            // KindURL
	Name   string            // KindName
	Labels map[string]string // KindName
	Rest   string            // docker, oci…: what follows the scheme
}

// UnsupportedError means that a reference is understood but its transport is not built in.
type UnsupportedError struct {
	Kind Kind
	Ref  string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("image %q: %s images are not supported by this build yet", e.Ref, e.Kind)
}

// SignatureError means that an image's signature is missing or wrong.
type SignatureError struct {
	Image string // reference or name
	Name  string // name to trust keys for, when known
	Err   error
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("verifying signature of image %q: %v", e.Image, e.Err)
}
func (e *SignatureError) Unwrap() error { return e.Err }

// Fetcher fetches images into a store. Only Store is required.
type Fetcher struct {
	Store              *store.Store
	Keys               *keystore.Store
	Config             *config.Config
	Insecure           Insecure
	Policy             PullPolicy // PullNew if empty
	TrustKeysFromHTTPS bool
	Progress           Progress           // none if nil
	Log                logrus.FieldLogger // discarded if nil
}

// FetchOptions belong to one image.
type FetchOptions struct {
	Signature string // local file that holds the detached signature
}

// Stage1Options say which stage1 image was asked for; at most one member is set.
type Stage1Options struct {
	Path, URL, Name, Hash, FromDir string
}

// Progress is told how a transfer goes on. One at a time.
type Progress interface {
	Start(what string, total int64) // total < 0: unknown
	Add(n int64)
	Done()
}

func ParseRef(text string) (Ref, error)               { return Ref{}, errTODO }
func ParsePullPolicy(word string) (PullPolicy, error) { return "", errTODO }
func (f *Fetcher) Fetch(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	return Image{}, errTODO
}
func (f *Fetcher) Lookup(ref Ref) (Image, error) { return Image{}, errTODO }
func (f *Fetcher) FindStage1(ctx context.Context, o Stage1Options) (Image, error) {
	return Image{}, errTODO
}

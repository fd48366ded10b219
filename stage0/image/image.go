package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/appc/spec/schema"
	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/keystore"
	"github.com/rkt-systemd/rkt/stage0/oci"
	"github.com/rkt-systemd/rkt/stage0/registry"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// PullPolicy says when a source is contacted.
type PullPolicy string

const (
	PullNew    PullPolicy = "new"    // use the store's match, else fetch
	PullUpdate PullPolicy = "update" // ask the source, reuse what is unchanged
	PullNever  PullPolicy = "never"  // the store only
)

// ParsePullPolicy parses the value of --pull-policy.
func ParsePullPolicy(word string) (PullPolicy, error) {
	switch p := PullPolicy(word); p {
	case PullNew, PullUpdate, PullNever:
		return p, nil
	}
	return "", fmt.Errorf("unknown pull policy %q: must be one of never, new, update", word)
}

// Image is an image in the store.
type Image struct {
	Key      string // "sha512-" and 64 hex digits
	ID       string // "sha512-" and 128 hex digits
	Name     string
	Labels   map[string]string
	Manifest *schema.ImageManifest
	Record   store.Record
}

// SignatureError means that an image's signature is missing or wrong.
type SignatureError struct {
	Image string // reference as typed
	Name  string // the image's name, when known
	Err   error
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("verifying signature of image %q: %v", e.Image, e.Err)
}

func (e *SignatureError) Unwrap() error { return e.Err }

// Hint is what the user can do about it, "" when nothing but a better
// signature helps.
func (e *SignatureError) Hint() string {
	name := e.Name
	if name == "" {
		name = "NAME"
	}
	var status *StatusError
	switch {
	case errors.Is(e.Err, keystore.ErrUnknownSigner):
		return "rkt trust --prefix=" + name
	case errors.Is(e.Err, fs.ErrNotExist), errors.As(e.Err, &status) && status.Code == http.StatusNotFound:
		return "the image has no signature: --signature=FILE names one elsewhere, rkt --insecure-options=image does without"
	}
	return ""
}

// NotStoredError means that an image is not in the store and was not fetched.
type NotStoredError struct {
	Image string
	Why   string
}

func (e *NotStoredError) Error() string {
	return fmt.Sprintf("image %q is not in the store: %s", e.Image, e.Why)
}

// Is makes errors.Is(err, store.ErrNotFound) true.
func (e *NotStoredError) Is(target error) bool { return target == store.ErrNotFound }

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
	MaxSize            int64              // bytes of a download; 0 means 16 GiB
	Timeouts           Timeouts
	// Ask lets the user decide about keys that were discovered; nil when nobody
	// can be asked.
	Ask func(ctx context.Context, q KeyQuestion) (bool, error)
	// Transport, if not nil, changes what requests are made with.
	Transport func(*http.Transport)
	// Trees, if not nil, unpack images while they are read.
	Trees *tree.Trees
	// Platform picks an image of several; this machine's if zero.
	Platform oci.Platform
	// Now is the clock; time.Now if nil.
	Now func() time.Time

	once       sync.Once
	registries *registry.Client

	// pause waits between tries; a timer if nil.
	pause func(ctx context.Context, d time.Duration) error
}

// FetchOptions belong to one image.
type FetchOptions struct {
	Signature string // local file that holds the detached signature
	policy    PullPolicy
	// trusted is set for stage1 images in places only root can write to.
	trusted bool
	// What follows is set for images found by discovery.
	sigURL  string
	latest  bool   // no version was asked for
	found   string // the name whose page led here: the page must not lead to local hosts
	pinID   string // the image's whole ID, or at least KeyDigits of it
	maxSize int64  // bytes of the download, if not 0
}

func (f *Fetcher) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

func (f *Fetcher) log() logrus.FieldLogger {
	if f.Log != nil {
		return f.Log
	}
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

func (f *Fetcher) progress() Progress {
	if f.Progress != nil {
		return f.Progress
	}
	return noProgress{}
}

// Fetch finds an image under the pull policy: in the store, or by fetching,
// verifying and storing it.
func (f *Fetcher) Fetch(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	if o.policy == "" {
		o.policy = f.Policy
	}
	if o.policy == "" {
		o.policy = PullNew
	}
	img, err := f.fetch(ctx, ref, o)
	if err != nil {
		return Image{}, fmt.Errorf("fetching image %q: %w", ref.Text, err)
	}
	if ref.Kind != KindHash { // a hash never causes a request
		if err := f.fetchDependencies(ctx, img, o.policy); err != nil {
			return Image{}, fmt.Errorf("fetching the dependencies of image %q: %w", ref.Text, err)
		}
	}
	// The time of last use keeps the image from being collected; losing it is
	// no reason to fail.
	if err := f.Store.Touch(img.Key); err != nil {
		f.log().WithError(err).Debug("noting the use of an image, ignoring")
	}
	return img, nil
}

func (f *Fetcher) fetch(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	switch ref.Kind {
	case KindHash:
		r, err := f.Store.Resolve(ref.Hash)
		if err != nil {
			return Image{}, err
		}
		return f.image(r)
	case KindName:
		return f.fetchName(ctx, ref, o)
	case KindPath:
		if layered, ok := f.layeredPath(ref, o); ok {
			return f.fetchOCI(ctx, layered, o)
		}
		return f.fetchPath(ctx, ref, o)
	case KindURL:
		return f.fetchURL(ctx, ref, o)
	case KindDocker, KindOCI, KindOCIArchive, KindDockerArchive:
		return f.fetchOCI(ctx, ref, o)
	}
	return Image{}, &UnsupportedError{Kind: ref.Kind, Ref: ref.Text}
}

// acceptable says whether a stored image may stand for one that would be
// verified if it were fetched now.
func (f *Fetcher) acceptable(r store.Record) bool {
	return f.Insecure.Has(InsecureImage) || r.Admission.Verified()
}

func (f *Fetcher) image(r store.Record) (Image, error) {
	m, err := f.Store.Manifest(r.Key)
	if err != nil {
		return Image{}, err
	}
	return Image{Key: r.Key, ID: r.ID, Name: r.Name, Labels: appc.Labels(m), Manifest: m, Record: r}, nil
}

// Lookup finds an image in the store by hash or by name and labels exactly as
// given; it never fetches.
func (f *Fetcher) Lookup(ref Ref) (Image, error) {
	var r store.Record
	var err error
	switch ref.Kind {
	case KindHash:
		r, err = f.Store.Resolve(ref.Hash)
	case KindName:
		r, err = f.Store.Find(ref.Name, ref.Labels)
	default:
		return Image{}, fmt.Errorf("image %q: want an image ID or a name", ref.Text)
	}
	if err != nil {
		return Image{}, err
	}
	return f.image(r)
}

// sigPath is where the signature of an image at path is: the suffix .aci, if
// any, gives way to .aci.asc.
func sigPath(path string) string { return strings.TrimSuffix(path, ".aci") + ".aci.asc" }

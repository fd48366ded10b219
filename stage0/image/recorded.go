package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/registry"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// Recorded finds the image that a reference was resolved to earlier, by its ID.
// admitted is how that was verified then. The image must still be whole, and
// what lets the reference's images in must still let it in.
func (f *Fetcher) Recorded(ref Ref, id, admitted string) (Image, error) {
	img, err := f.LocateRecorded(ref, id, admitted)
	if err != nil {
		return Image{}, err
	}
	// The time of last use keeps the image from being collected; losing it is
	// no reason to fail.
	if err := f.Store.Touch(img.Key); err != nil {
		f.log().WithError(err).Debug("noting the use of an image, ignoring")
	}
	return img, nil
}

// LocateRecorded is Recorded for who will not use the image: nothing is noted.
func (f *Fetcher) LocateRecorded(ref Ref, id, admitted string) (Image, error) {
	r, err := f.Store.Resolve(id)
	if err != nil {
		return Image{}, err
	}
	if !f.Store.Complete(r) {
		return Image{}, &NotStoredError{ref.Text, "parts of it are missing"}
	}
	if ref.Kind != KindHash && !f.acceptableRecord(ref, r, admitted) {
		return Image{}, &NotStoredError{ref.Text, "it was stored without being verified as is demanded now"}
	}
	return f.image(r)
}

func (f *Fetcher) acceptableRecord(ref Ref, r store.Record, admitted string) bool {
	if len(r.Layers) == 0 {
		return f.acceptable(r)
	}
	if f.Insecure.Has(InsecureImage) || admitted == store.AdmittedSigned {
		return true
	}
	switch f.registry(ref).Verify {
	case config.VerifyNone:
		return true
	case config.VerifySignature:
		return false
	}
	return admitted == store.AdmittedDigest
}

// FetchWith is Fetch under another pull policy than the fetcher's.
func (f *Fetcher) FetchWith(ctx context.Context, ref Ref, policy PullPolicy) (Image, error) {
	return f.Fetch(ctx, ref, FetchOptions{policy: policy})
}

// Resolution is what the store knows of how a reference was resolved last.
type Resolution struct {
	Digest   string // of the registry's manifest
	Admitted string
}

// Resolved tells about a reference that Fetch resolved to img.
func (f *Fetcher) Resolved(ref Ref, img Image) Resolution {
	out := Resolution{Admitted: img.Record.Admission.Kind}
	source := ""
	switch ref.Kind {
	case KindURL:
		source = ref.URL
	case KindPath:
		for _, kind := range []string{"oci:", "oci-archive:", "docker-archive:"} {
			if remote, err := f.Store.Remote(kind + ref.Path); err == nil && remote.Key == img.Key && remote.Admitted != "" {
				out.Admitted = remote.Admitted
			}
		}
		return out
	case KindDocker:
		source = ref.String()
	case KindOCI, KindOCIArchive, KindDockerArchive:
		source = ref.String()
	default:
		return out
	}
	remote, err := f.Store.Remote(source)
	if err != nil || remote.Key != img.Key {
		return out
	}
	if ref.Kind == KindDocker {
		out.Digest = remote.ETag
	}
	if remote.Admitted != "" {
		out.Admitted = remote.Admitted
	}
	return out
}

// LocalFile is the identity of the local file that a reference names, nil when
// it names none, or none that is there.
func LocalFile(ref Ref) *store.FileID {
	if ref.Kind == KindPath {
		return pathID(ref)
	}
	return localID(ref)
}

func pathID(ref Ref) *store.FileID {
	if id, err := fileID(ref.Path); err == nil {
		return &id
	}
	return nil
}

// ErrCannotTell means that only fetching tells what a reference stands for.
var ErrCannotTell = errors.New("only fetching tells")

// Head asks the source of a reference, without fetching anything, for the
// digest of what it stands for.
func (f *Fetcher) Head(ctx context.Context, ref Ref) (string, error) {
	if ref.Kind != KindDocker {
		return "", ErrCannotTell
	}
	if ref.Docker.Digest != "" {
		return ref.Docker.Digest, nil
	}
	src, err := f.openSource(ctx, ref)
	if err != nil {
		return "", err
	}
	defer src.Close()
	repo, ok := src.(*registry.Repository)
	if !ok {
		return "", ErrCannotTell
	}
	digest, err := repo.Head(ctx)
	if err != nil {
		return "", fmt.Errorf("asking for image %q: %w", ref.Text, err)
	}
	return digest, nil
}

// Unreachable says whether a source could not be asked, as opposed to one that
// answered: it may be another day.
func Unreachable(err error) bool {
	var status *StatusError
	var answer *registry.StatusError
	var netErr net.Error
	var op *net.OpError
	var transfer *transferError
	switch {
	case errors.As(err, &status):
		return status.Code >= http.StatusInternalServerError || status.Code == http.StatusTooManyRequests
	case errors.As(err, &answer):
		return answer.Code >= http.StatusInternalServerError || answer.Code == http.StatusTooManyRequests
	case errors.As(err, &op), errors.As(err, &transfer):
		return true
	}
	return errors.As(err, &netErr)
}

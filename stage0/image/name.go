package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/discovery"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// fetchName finds a name in the store or by meta discovery.
func (f *Fetcher) fetchName(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	os, arch := appc.HostOSArch()
	labels := map[string]string{"os": os, "arch": arch}
	maps.Copy(labels, ref.Labels)
	if err := appc.CheckOSArch(labels["os"], labels["arch"]); err != nil {
		return Image{}, err
	}
	var unverified error
	if o.policy != PullUpdate {
		r, err := f.findName(ref, labels)
		if err == nil {
			return f.image(r)
		}
		if !errors.Is(err, store.ErrNotFound) && !errors.As(err, new(*SignatureError)) {
			return Image{}, err
		}
		if errors.As(err, new(*SignatureError)) {
			unverified = err
		}
	}
	if o.policy == PullNever {
		if unverified != nil {
			return Image{}, unverified
		}
		return Image{}, &NotStoredError{ref.display(), "the pull policy is never"}
	}
	img, err := f.fetchDiscovered(ctx, ref, labels, o)
	var none *discovery.NotFoundError
	if errors.As(err, &none) {
		err = withCandidates(ref.Text, &NotStoredError{ref.display(), "nobody offers it: " + err.Error()})
	}
	if err != nil && unverified != nil {
		return Image{}, fmt.Errorf("%w (%w)", unverified, err)
	}
	return img, err
}

// findName finds the best stored image of a name. Images without os and arch
// labels fit every machine; those with the machine's own come first.
func (f *Fetcher) findName(ref Ref, labels map[string]string) (store.Record, error) {
	fits := func(r store.Record) bool { return f.acceptable(r) && fitsMachine(r.Labels, labels) }
	r, err := f.Store.FindFunc(ref.Name, labels, f.acceptable)
	if errors.Is(err, store.ErrNotFound) {
		r, err = f.Store.FindFunc(ref.Name, ref.Labels, fits)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return r, err
	}
	_, e := f.Store.FindFunc(ref.Name, ref.Labels, func(r store.Record) bool { return fitsMachine(r.Labels, labels) })
	if e == nil {
		return store.Record{}, &SignatureError{Image: ref.Text, Name: ref.Name, Err: errors.New(
			"the stored image was admitted without verification; fetch it again with its signature, or name it by its ID")}
	}
	return store.Record{}, err
}

// fitsMachine accepts labels that lack os and arch, and refuses other values.
func fitsMachine(have, want map[string]string) bool {
	for _, k := range []string{"os", "arch"} {
		if have[k] != "" && want[k] != "" && have[k] != want[k] {
			return false
		}
	}
	return true
}

// fetchDiscovered fetches a name from the first endpoint that has it.
func (f *Fetcher) fetchDiscovered(ctx context.Context, ref Ref, labels map[string]string, o FetchOptions) (Image, error) {
	if host := discovery.Host(ref.Name); !strings.Contains(host, ".") && !discovery.LocalHost(host) {
		return Image{}, withCandidates(ref.Text, &NotStoredError{ref.display(), fmt.Sprintf("%q is no host that could be asked for it", host)})
	}
	if o.found == "" {
		o.found = ref.Name
	}
	client := f.client(o.found)
	defer client.CloseIdleConnections()
	// A page over https may point to http: the signature protects the image.
	do := f.discoveryOptions(client, f.Insecure.Has(InsecureHTTP), !f.Insecure.Has(InsecureImage) || f.Insecure.Has(InsecureHTTP))
	endpoints, err := discovery.Discover(ctx, do, ref.Name, labels)
	if err != nil {
		return Image{}, err
	}
	var untrusted error
	if !f.Insecure.Has(InsecureImage) {
		if untrusted, err = f.trustOnFirstUse(ctx, ref.Name, o.found); err != nil {
			return Image{}, err
		}
	}
	_, versioned := ref.Labels["version"]
	var errs []error
	for _, e := range endpoints {
		at, how := ref, o
		at.URL = e.Image
		how.sigURL, how.latest = e.Signature, !versioned
		how.policy = PullUpdate // the store has no match, whatever was at the URL before
		img, err := f.fetchURL(ctx, at, how)
		if err == nil {
			if !fitsMachine(img.Labels, labels) {
				return Image{}, fmt.Errorf("the image at %q is for %s/%s, not for %s/%s", e.Image, img.Labels["os"], img.Labels["arch"], labels["os"], labels["arch"])
			}
			return img, nil
		}
		errs = append(errs, fmt.Errorf("endpoint %q: %w", e.Image, err))
		if ctx.Err() != nil || !elsewhere(err) {
			break
		}
		f.log().WithError(err).Infof("image %q cannot be had from %q, trying the next endpoint", ref.Text, e.Image)
	}
	return Image{}, errors.Join(append(errs, untrusted)...)
}

// discoveryOptions ask for pages with the operator's credentials.
func (f *Fetcher) discoveryOptions(c *http.Client, plain, plainResults bool) discovery.Options {
	return discovery.Options{
		Get: func(ctx context.Context, page string) (*http.Response, error) {
			return f.get(context.WithValue(ctx, unsigned{}, true), c, page, nil)
		},
		AllowHTTP: plain, AllowHTTPResults: plainResults,
		Warn: func(text string) { f.log().Warn(text) },
	}
}

// checkIdentity compares an image's manifest with the name and labels asked for.
func checkIdentity(ref Ref, m *schema.ImageManifest) error {
	if ref.Kind != KindName {
		return nil
	}
	if m.Name.String() != ref.Name {
		return fmt.Errorf("the image is named %q, not %q", m.Name, ref.Name)
	}
	for k, want := range ref.Labels {
		have, ok := m.Labels.Get(k)
		if !ok {
			return fmt.Errorf("the image has no label %q (want %q)", k, want)
		}
		if have != want {
			return fmt.Errorf("the image's label %q is %q, not %q", k, have, want)
		}
	}
	return nil
}

// checkPin compares an image's ID with the one asked for.
func (o FetchOptions) checkPin(id string) error {
	if o.pinID != "" && !strings.HasPrefix(id, o.pinID) {
		return &PinError{Want: o.pinID, Have: id}
	}
	return nil
}

// pinned lets only the image of the wanted ID pass.
func (o FetchOptions) pinned(admit func(*schema.ImageManifest, string) (store.Admission, error)) func(*schema.ImageManifest, string) (store.Admission, error) {
	return func(m *schema.ImageManifest, id string) (store.Admission, error) {
		if err := o.checkPin(id); err != nil {
			return store.Admission{}, err
		}
		return admit(m, id)
	}
}

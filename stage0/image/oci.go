package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
	"github.com/rkt-systemd/rkt/stage0/registry"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// fetchOCI fetches an image that is made of layers: from a registry, a layout
// or an archive.
func (f *Fetcher) fetchOCI(ctx context.Context, ref Ref, o FetchOptions) (Image, error) {
	if o.Signature != "" {
		return Image{}, errors.New("a detached signature signs an ACI; images made of layers are verified by digest or by the keys of their registry")
	}
	source := ref.String()
	if f.Platform != (oci.Platform{}) { // what it means for this machine is another matter
		source += " " + f.Platform.String()
	}
	id := localID(ref)
	if img, ok, err := f.cachedOCI(ref, source, id, o); ok || err != nil {
		return img, err
	}
	if o.policy == PullNever {
		return Image{}, &NotStoredError{ref.Text, "the pull policy is never"}
	}
	// One process fetches, the others wait and then find the image stored.
	l, came, err := f.lockTemp(source, "fetching")
	if err != nil {
		return Image{}, err
	}
	defer dropLock(l)
	if img, ok, err := f.cachedOCI(ref, source, id, lookAgain(o, came)); ok || err != nil {
		return img, err
	}
	src, err := f.openSource(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	defer src.Close()
	if img, ok, err := f.unchangedTag(ctx, ref, source, src, o); ok || err != nil {
		return img, err
	}
	return f.pull(ctx, ref, source, id, src)
}

// localID identifies what a layout or an archive holds; nil for a registry.
func localID(ref Ref) *store.FileID {
	path := ref.Layout.Path
	switch ref.Kind {
	case KindOCI:
		path += "/index.json"
	case KindOCIArchive, KindDockerArchive:
	default:
		return nil
	}
	if id, err := fileID(path); err == nil {
		return &id
	}
	return nil // opening it tells why
}

// cachedOCI finds a reference's image in the store, if no question is left
// that only its source could answer.
func (f *Fetcher) cachedOCI(ref Ref, source string, id *store.FileID, o FetchOptions) (Image, bool, error) {
	remote, r, err := f.stored(source)
	if errors.Is(err, store.ErrNotFound) {
		return Image{}, false, nil
	}
	if err != nil || !f.acceptableOCI(ref, remote) || !f.Store.Complete(r) {
		return Image{}, false, err
	}
	pinned := ref.Docker.Digest != "" || ref.Layout.Digest != ""
	changed := remote.File != nil && (id == nil || *id != *remote.File)
	if o.policy != PullNever && !pinned && (o.policy == PullUpdate || changed) {
		return Image{}, false, nil
	}
	img, err := f.image(r)
	return img, err == nil, err
}

// acceptableOCI says whether a source may stand for its image without being
// asked: how it was admitted is recorded with the source, since it is the name
// that was verified, not the content alone.
func (f *Fetcher) acceptableOCI(ref Ref, remote store.Remote) bool {
	if f.Insecure.Has(InsecureImage) || remote.Admitted == store.AdmittedSigned {
		return true
	}
	switch f.registry(ref).Verify {
	case config.VerifyNone:
		return true
	case config.VerifySignature:
		return false
	}
	return remote.Admitted == store.AdmittedDigest
}

// registry is what the configuration says of a reference's registry.
func (f *Fetcher) registry(ref Ref) config.Registry {
	if ref.Kind != KindDocker || f.Config == nil {
		return config.Registry{}
	}
	r, _ := f.Config.RegistryFor(ref.Docker.Host, ref.Docker.Repository)
	return r
}

func (f *Fetcher) openSource(ctx context.Context, ref Ref) (oci.Source, error) {
	o := oci.ArchiveOptions{TempDir: f.Store.TempDir(), Decompress: decompressor}
	switch ref.Kind {
	case KindDocker:
		return f.registryClient().Open(ref.Docker)
	case KindOCI:
		return oci.OpenLayout(ref.Layout)
	case KindOCIArchive:
		return oci.OpenArchive(ctx, ref.Layout, o)
	case KindDockerArchive:
		return oci.OpenDockerArchive(ctx, ref.Layout, o)
	}
	return nil, &UnsupportedError{Kind: ref.Kind, Ref: ref.Text}
}

func (f *Fetcher) registryClient() *registry.Client {
	f.once.Do(func() {
		t := f.Timeouts
		f.registries = &registry.Client{
			Config:      f.Config,
			InsecureTLS: f.Insecure.Has(InsecureTLS), InsecureHTTP: f.Insecure.Has(InsecureHTTP),
			AuthFiles: registry.AuthFiles(os.Getenv, os.Getuid()),
			Timeouts:  registry.Timeouts{Connect: t.Connect, TLS: t.TLS, Header: t.Header, Stall: t.Stall},
			Log:       f.log(),
		}
	})
	return f.registries
}

// unchangedTag asks the registry, in one request, whether a tag still means
// what is stored.
func (f *Fetcher) unchangedTag(ctx context.Context, ref Ref, source string, src oci.Source, o FetchOptions) (Image, bool, error) {
	repo, ok := src.(*registry.Repository)
	if !ok || o.policy != PullUpdate {
		return Image{}, false, nil
	}
	remote, r, err := f.stored(source)
	if err != nil || remote.ETag == "" || !f.acceptableOCI(ref, remote) || !f.Store.Complete(r) {
		return Image{}, false, nil //nolint:nilerr // then it is fetched
	}
	digest, err := repo.Head(ctx)
	if err != nil {
		return Image{}, false, err
	}
	if digest != remote.ETag {
		return Image{}, false, nil
	}
	remote.Downloaded = f.now()
	if err := f.Store.PutRemote(remote); err != nil {
		return Image{}, false, err
	}
	img, err := f.image(r)
	return img, err == nil, err
}

// pull fetches what the source has, verifies and stores it.
func (f *Fetcher) pull(ctx context.Context, ref Ref, source string, id *store.FileID, src oci.Source) (Image, error) {
	img, err := f.pick(ctx, src)
	if err != nil {
		return Image{}, err
	}
	r, err := f.bring(ctx, ref, source, src, img)
	if err != nil {
		return Image{}, err
	}
	failpoint.Hit("image/stored-layered")
	if err := f.Store.PutRemote(store.Remote{
		Source: source, Key: r.Key, ETag: topDigest(img), Downloaded: f.now(), File: id, Admitted: r.Admission.Kind,
	}); err != nil {
		return Image{}, err
	}
	return f.image(r)
}

// pick finds the source's image for the platform wanted.
func (f *Fetcher) pick(ctx context.Context, src oci.Source) (*oci.Image, error) {
	platform := f.Platform
	if platform == (oci.Platform{}) {
		platform = oci.HostPlatform()
	}
	return src.Image(ctx, platform)
}

// bring verifies and stores an image of a source. The record's admission is how
// it came in now, whatever the store knew of it before.
func (f *Fetcher) bring(ctx context.Context, ref Ref, source string, src oci.Source, img *oci.Image) (store.Record, error) {
	admission, err := f.admitOCI(ctx, ref, src, img)
	if err != nil {
		return store.Record{}, err
	}
	manifest, layered, err := f.convert(ref, img)
	if err != nil {
		return store.Record{}, err
	}
	r, err := f.storeOCI(ctx, src, img, layered, manifest, store.ImportOptions{
		Source: source, Latest: ref.Docker.Latest(), Admit: fixedAdmission(admission),
	})
	r.Admission = admission
	return r, err
}

// convert makes the image manifest, which pins the layers.
func (f *Fetcher) convert(ref Ref, img *oci.Image) ([]byte, *appc.Layered, error) {
	naming := ref.Layout.Naming(img.Tag)
	if ref.Kind == KindDocker {
		naming = ref.Docker.Naming()
	}
	manifest, warnings, err := oci.Convert(img, naming)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range warnings {
		f.log().Warnf("image %q: %s", ref.Text, w)
	}
	m, _, err := appc.ParseImageManifest(manifest)
	if err != nil {
		return nil, nil, err
	}
	layered, err := appc.Layers(m)
	if err == nil && layered == nil {
		err = errors.New("the converted manifest pins no layers")
	}
	return manifest, layered, err
}

// admitOCI decides whether the image may come in.
func (f *Fetcher) admitOCI(ctx context.Context, ref Ref, src oci.Source, img *oci.Image) (store.Admission, error) {
	verify := f.registry(ref).Verify
	pinned := ref.Docker.Digest != "" || ref.Layout.Digest != ""
	if pinned && verify != config.VerifySignature {
		return store.Admission{Kind: store.AdmittedDigest}, nil
	}
	if verify == config.VerifyNone {
		return store.Admission{Kind: store.AdmittedUnsigned}, nil
	}
	if f.Insecure.Has(InsecureImage) {
		f.log().Warnf("signature verification of image %q is disabled", ref.Text)
		return store.Admission{Kind: store.AdmittedUnsigned}, nil
	}
	repo, ok := src.(*registry.Repository)
	if !ok || verify == config.VerifyDigest {
		return store.Admission{}, &UnvouchedError{Ref: ref, Digest: topDigest(img)}
	}
	keys, err := f.registryKeys(ref)
	if err != nil {
		return store.Admission{}, &SignatureError{Image: ref.Text, Err: err}
	}
	if len(keys) == 0 && verify != config.VerifySignature {
		return store.Admission{}, &UnvouchedError{Ref: ref, Digest: topDigest(img)}
	}
	signer, err := repo.Verify(ctx, img, keys)
	if err != nil {
		return store.Admission{}, err
	}
	f.log().WithField("image", ref.Docker.Display()).Infof("signature verified: key %s", signer.Fingerprint)
	return store.Admission{Kind: store.AdmittedSigned, Fingerprint: signer.Fingerprint}, nil
}

// registryKeys are the public keys trusted for a registry's repository.
func (f *Fetcher) registryKeys(ref Ref) ([]registry.Key, error) {
	if f.Keys == nil {
		return nil, errors.New("there is no key store")
	}
	public, err := f.Keys.PublicKeys(ref.Docker.Scope())
	if err != nil {
		return nil, err
	}
	var keys []registry.Key
	for _, k := range public {
		keys = append(keys, registry.Key{Fingerprint: k.Fingerprint, Public: k.Public, Source: k.Path})
	}
	return keys, nil
}

func topDigest(img *oci.Image) string {
	if img.Index != "" {
		return img.Index
	}
	return img.ManifestDigest
}

// UnvouchedError means that nothing vouches for an image made of layers.
type UnvouchedError struct {
	Ref    Ref
	Digest string // what the source offers now
}

func (e *UnvouchedError) Error() string {
	return fmt.Sprintf("nothing vouches for image %q: the reference names no digest and no key is trusted for it", e.Ref.Text)
}

// Hint is what the user can do about it.
func (e *UnvouchedError) Hint() string {
	pin := e.Ref.Text + "@" + e.Digest
	if e.Ref.Kind == KindDockerArchive {
		pin = ""
	} else if e.Ref.Kind != KindDocker {
		pin = string(e.Ref.Kind) + ":" + e.Ref.Layout.Path + "@" + e.Digest
	}
	var ways []string
	if pin != "" {
		ways = append(ways, "name the image by digest, if it is the one you mean: "+pin)
	}
	if e.Ref.Kind == KindDocker {
		ways = append(ways, "trust its signer's key: rkt trust --prefix="+e.Ref.Docker.Scope()+" KEY.pub")
	}
	return strings.Join(append(ways, "or switch verification off: rkt --insecure-options=image"), "\n")
}

// layeredPath says whether a path leads to layers rather than to an ACI, by
// content.
func (f *Fetcher) layeredPath(ref Ref, o FetchOptions) (Ref, bool) {
	if _, ok := f.unchanged(ref.Path); ok && o.policy == PullNew || o.trusted {
		return ref, false
	}
	kind, err := oci.Sniff(ref.Path, decompressor)
	if err != nil {
		return ref, false // whoever opens it tells why
	}
	switch kind {
	case oci.KindLayout:
		ref.Kind = KindOCI
	case oci.KindArchive:
		ref.Kind = KindOCIArchive
	case oci.KindDockerArchive:
		ref.Kind = KindDockerArchive
	default:
		return ref, false
	}
	ref.Layout = oci.LayoutRef{Path: ref.Path}
	return ref, true
}

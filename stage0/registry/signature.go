package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

// Limits on what is looked at for one image.
const (
	maxSignatures  = 64
	maxSigManifest = 1 << 20
	maxPayload     = 64 << 10
	maxSigBytes    = 8 << 10 // of one signature; an RSA key of 16384 bits needs 2 KiB
	maxReasons     = 8
	sigTimeouts    = 4 // times the time-out of a document, for everything together
)

const (
	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	sigAnnotation     = "dev.cosignproject.cosign/signature"
	payloadType       = "cosign container image signature"
)

// ErrUnsigned: the registry has no signature for the image.
var ErrUnsigned = errors.New("no signature")

// Signer is who made a good signature.
type Signer struct {
	Fingerprint string // of the key
	Source      string // where the key came from
	Digest      string // what was signed: the manifest or the index it was picked from
	// Identity is the image's name in the signature. Bundles of cosign 3 hold
	// none: they vouch for the content, wherever it lies. Then it is empty.
	Identity string
}

// SignatureError says why an image does not count as signed.
type SignatureError struct {
	Ref     string
	Digest  string
	Found   int      // signatures looked at
	Reasons []string // why each is no good, without repetition
	prefix  string
}

func (e *SignatureError) Error() string {
	s := fmt.Sprintf("verifying signature of %q (%s): ", e.Ref, e.Digest)
	if len(e.Reasons) == 0 {
		return s + "the registry has no signature for it"
	}
	return s + strings.Join(e.Reasons, "; ")
}

// Is makes it an ErrUnsigned if there was nothing to verify.
func (e *SignatureError) Is(target error) bool { return target == ErrUnsigned && e.Found == 0 }

// Hint is what to do about it.
func (e *SignatureError) Hint() string {
	if e.Found == 0 {
		return fmt.Sprintf("name the content instead, which needs no signature: %s@%s", e.prefix, e.Digest)
	}
	return fmt.Sprintf("if the signer is to be trusted, add the public key: rkt trust --prefix=%s KEY.pub", e.prefix)
}

// Verify looks for a signature of an image that was fetched from the
// repository: of its index, which vouches for what was picked from it, or of
// its manifest.
func (r *Repository) Verify(ctx context.Context, img *oci.Image, keys []Key) (Signer, error) {
	if img.Index == "" {
		return VerifySignature(ctx, r, r.ref, img.ManifestDigest, keys)
	}
	s, err := VerifySignature(ctx, r, r.ref, img.Index, keys)
	if err == nil || ctx.Err() != nil {
		return s, err
	}
	s, err2 := VerifySignature(ctx, r, r.ref, img.ManifestDigest, keys)
	switch {
	case err2 == nil:
		return s, nil
	case errors.Is(err2, ErrUnsigned):
		return Signer{}, err
	}
	return Signer{}, err2
}

// VerifySignature looks for a signature, by one of the keys, that says that the
// manifest or index with this digest is an image of ref's repository. It reads
// what cosign stores beside images: signatures under the tag sha256-HEX.sig, and
// bundles that refer to the image. The keys are those that the caller trusts for
// this repository. Transparency logs and keyless signatures are not looked at.
func VerifySignature(ctx context.Context, repo *Repository, ref oci.Reference, digest string, keys []Key) (Signer, error) {
	digits, err := oci.ParseDigest(digest)
	if err != nil {
		return Signer{}, fmt.Errorf("verifying signature of %q: %w", ref, err)
	}
	v := &verifier{repo: repo, ref: ref, digest: digest, digits: digits}
	v.names = []string{ref.Scope()}
	if ref == repo.ref && repo.location != "" {
		// The operator said that the one name stands for the other.
		v.names = append(v.names, canonicalScope(repo.location))
	}
	for _, k := range keys {
		if err := checkKey(k.Public); err != nil {
			v.refuse("key %.16s... is not used: %v", k.Fingerprint, err)
			continue
		}
		v.keys = append(v.keys, k)
	}
	limit := sigTimeouts * repo.endpoints[0].timeouts.Document
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var broken []error
	for _, look := range []func(context.Context) (Signer, bool, error){v.attached, v.referring} {
		s, ok, err := look(ctx)
		if ok {
			s.Digest = digest
			return s, nil
		}
		if err != nil {
			broken = append(broken, err)
		}
	}
	fail := &SignatureError{Ref: ref.String(), Digest: digest, Found: v.found, Reasons: v.reasons, prefix: ref.Scope()}
	if len(broken) > 0 {
		// Not unsigned: nobody knows.
		return Signer{}, fmt.Errorf("looking for signatures of %q: %w", ref, list(broken...))
	}
	return Signer{}, fail
}

// canonicalScope gives host/repository the spelling of oci.Reference.
func canonicalScope(name string) string {
	host, path, _ := strings.Cut(name, "/")
	return config.RegistryHost(host) + "/" + path
}

// verifier looks at the signatures of one digest.
type verifier struct {
	repo    *Repository
	ref     oci.Reference
	names   []string // scopes that a signature may speak of
	digest  string
	digits  string
	keys    []Key
	found   int
	reasons []string
}

// refuse notes why something is not accepted; what it holds may be an enemy's.
func (v *verifier) refuse(format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	if len(reason) > maxDetail {
		reason = strings.ToValidUTF8(reason[:maxDetail], "") + "..."
	}
	for _, r := range v.reasons {
		if r == reason {
			return
		}
	}
	if len(v.reasons) < maxReasons {
		v.reasons = append(v.reasons, reason)
	}
}

// next counts a signature and says whether it is one too many.
func (v *verifier) next() bool {
	if v.found == maxSignatures {
		v.refuse("there are more than %d signatures; the others were not looked at", maxSignatures)
		return false
	}
	v.found++
	return true
}

// signedBy finds the key that made a signature.
func (v *verifier) signedBy(message, sig []byte) (Key, bool) {
	for _, k := range v.keys {
		if k.verify(message, sig) == nil {
			return k, true
		}
	}
	switch {
	case len(v.keys) == 0:
		v.refuse("there is a signature, but no key is trusted for %q", v.ref.Scope())
	default:
		v.refuse("there is a signature, but by none of the keys trusted for %q", v.ref.Scope())
	}
	return Key{}, false
}

func decodeSignature(text string) ([]byte, error) {
	if text == "" || len(text) > base64.StdEncoding.EncodedLen(maxSigBytes) {
		return nil, fmt.Errorf("a signature of %d characters", len(text))
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("a signature that is not base64")
	}
	return sig, nil
}

// sigManifest is the part of a manifest that signatures need.
type sigManifest struct {
	Layers []sigLayerDescriptor `json:"layers"`
}

type sigLayerDescriptor struct {
	oci.Descriptor
	Annotations map[string]string `json:"annotations"`
}

// fetch reads a document from the first place that has it; absent is no error.
func (v *verifier) fetch(ctx context.Context, do func(e *endpoint) error) (found bool, err error) {
	err = v.repo.each(ctx, v.repo.order(), do)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (v *verifier) manifest(ctx context.Context, ref string) (m sigManifest, found bool, err error) {
	var data []byte
	found, err = v.fetch(ctx, func(e *endpoint) (err error) {
		data, _, err = v.repo.client.manifest(ctx, e, ref, []string{oci.TypeManifest, oci.TypeDockerManifest}, maxSigManifest)
		return err
	})
	if !found {
		return m, false, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		v.refuse("the manifest of a signature is not the JSON that is expected")
		v.found++
		return sigManifest{}, true, nil
	}
	return m, true, nil
}

// blob reads a signature's blob; what is wrong with it is noted, not fatal.
func (v *verifier) blob(ctx context.Context, d oci.Descriptor, limit int64) ([]byte, bool) {
	if d.Size < 0 || d.Size > limit {
		v.refuse("a signature of %d bytes, more than %d", d.Size, limit)
		return nil, false
	}
	if _, err := oci.ParseDigest(d.Digest); err != nil {
		v.refuse("a signature's %v", err)
		return nil, false
	}
	var data []byte
	err := v.repo.each(ctx, v.repo.order(), func(e *endpoint) (err error) {
		data, err = v.repo.client.smallBlob(ctx, e, d)
		return err
	})
	if err != nil {
		v.refuse("a signature cannot be read: %v", err)
		return nil, false
	}
	return data, true
}

// attached looks at the signatures under the tag that cosign derives from the digest.
func (v *verifier) attached(ctx context.Context) (Signer, bool, error) {
	m, found, err := v.manifest(ctx, "sha256-"+v.digits+".sig")
	if !found || err != nil {
		return Signer{}, false, err
	}
	for _, l := range m.Layers {
		if ctx.Err() != nil {
			return Signer{}, false, context.Cause(ctx)
		}
		if !v.next() {
			break
		}
		if s, ok := v.layer(ctx, l); ok {
			return s, true, nil
		}
	}
	return Signer{}, false, nil
}

// layer looks at one signature of the kind that has its payload beside it.
func (v *verifier) layer(ctx context.Context, l sigLayerDescriptor) (Signer, bool) {
	if l.MediaType != typeSimpleSigning {
		v.refuse("a signature of unknown type %.100q", l.MediaType)
		return Signer{}, false
	}
	sig, err := decodeSignature(l.Annotations[sigAnnotation])
	if err != nil {
		v.refuse("%v", err)
		return Signer{}, false
	}
	payload, ok := v.blob(ctx, l.Descriptor, maxPayload)
	if !ok {
		return Signer{}, false
	}
	// Nothing of the payload is read before its signature is good.
	key, ok := v.signedBy(payload, sig)
	if !ok {
		return Signer{}, false
	}
	identity, err := v.payload(payload)
	if err != nil {
		v.refuse("a good signature of key %.16s... is for something else: %v", key.Fingerprint, err)
		return Signer{}, false
	}
	return Signer{Fingerprint: key.Fingerprint, Source: key.Source, Identity: identity}, true
}

// payload checks what was signed (github.com/sigstore/cosign, specs/
// SIGNATURE_SPEC.md): unknown members of "critical" mean something that is not
// understood, so they are refused.
func (v *verifier) payload(data []byte) (identity string, err error) {
	doc, err := strictJSON(data)
	if err != nil {
		return "", fmt.Errorf("its payload: %w", err)
	}
	top, err := members(doc, "payload", "critical", "optional")
	if err != nil {
		return "", err
	}
	critical, err := members(top["critical"], "critical", "identity", "image", "type")
	if err != nil {
		return "", err
	}
	who, err := members(critical["identity"], "identity", "docker-reference")
	if err != nil {
		return "", err
	}
	what, err := members(critical["image"], "image", "docker-manifest-digest")
	if err != nil {
		return "", err
	}
	if kind, _ := critical["type"].(string); kind != payloadType {
		return "", fmt.Errorf("its type is %.100q, not %q", kind, payloadType)
	}
	if digest, _ := what["docker-manifest-digest"].(string); digest != v.digest {
		return "", fmt.Errorf("it is for the digest %.100q", digest)
	}
	identity, _ = who["docker-reference"].(string)
	return identity, v.identity(identity)
}

// identity compares the name in a signature with the image that was asked for.
func (v *verifier) identity(name string) error {
	signed, err := oci.ParseReference(name)
	if err != nil || name == "" {
		return fmt.Errorf("it is for the image %.200q, which is no name of an image", name)
	}
	known := false
	for _, n := range v.names {
		known = known || n == signed.Scope()
	}
	tagged := signed.Digest == "" && strings.HasSuffix(name, ":"+signed.Tag)
	switch {
	case !known:
		return fmt.Errorf("it is for the image %.200q", name)
	case signed.Digest != "" && signed.Digest != v.digest:
		return fmt.Errorf("it is for the image %.200q", name)
	case tagged && v.ref.Tag != "" && v.ref.Tag != signed.Tag:
		return fmt.Errorf("it is for the tag %q", signed.Tag)
	}
	return nil
}

// document reads a document that is no image's from the repository.
func (v *verifier) document(ctx context.Context, path, accept string, limit int64) (data []byte, found bool, err error) {
	found, err = v.fetch(ctx, func(e *endpoint) (err error) {
		data, _, err = v.repo.client.document(ctx, e, request{method: http.MethodGet, path: path, accept: []string{accept}}, limit)
		return err
	})
	return data, found, err
}

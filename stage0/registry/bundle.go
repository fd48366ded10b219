package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rkt-systemd/rkt/stage0/oci"
)

const (
	typeBundle      = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeBundleOld   = "application/vnd.dev.sigstore.bundle+json;version=0.3"
	typeBundleStart = "application/vnd.dev.sigstore.bundle"
	typeArtifactSig = "application/vnd.dev.cosign.artifact.sig.v1+json"
	typeStatement   = "application/vnd.in-toto+json"
	predicateSign   = "https://sigstore.dev/cosign/sign/v1"

	maxBundle    = 1 << 20
	maxReferrers = 1024
	maxSubjects  = 64
)

// referring looks at the bundles and signatures that refer to the digest: by the registry's
// list of referrers or, where it keeps none, by the list under the tag that
// clients then write (OCI distribution specification 1.1, "Listing Referrers").
func (v *verifier) referring(ctx context.Context) (Signer, bool, error) {
	// No filter by artifactType: there are two kinds.
	data, found, err := v.document(ctx, "referrers/"+v.digest, oci.TypeIndex, oci.MaxManifest)
	if !found && (err == nil || refusedQuestion(err)) {
		data, found, err = v.document(ctx, "manifests/sha256-"+v.digits, oci.TypeIndex, oci.MaxManifest)
	}
	if !found || err != nil {
		return Signer{}, false, err
	}
	var index struct {
		Manifests []struct {
			oci.Descriptor
			ArtifactType string `json:"artifactType"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return Signer{}, false, nil // some other thing under that name: no list
	}
	if len(index.Manifests) > maxReferrers {
		return Signer{}, false, fmt.Errorf("the list of referrers has more than %d entries", maxReferrers)
	}
	for _, d := range index.Manifests {
		if ctx.Err() != nil {
			return Signer{}, false, context.Cause(ctx)
		}
		if d.ArtifactType != "" && d.ArtifactType != typeArtifactSig && !strings.HasPrefix(d.ArtifactType, typeBundleStart) {
			continue
		}
		if _, err := oci.ParseDigest(d.Digest); err != nil {
			continue
		}
		if !v.next() {
			break
		}
		m, found, err := v.manifest(ctx, d.Digest)
		if err != nil || !found {
			v.refuse("the manifest of a bundle cannot be read: %v", err)
			continue
		}
		for i, l := range m.Layers {
			look := func() (Signer, bool) { return v.bundle(ctx, l.Descriptor) }
			if l.MediaType == typeSimpleSigning {
				look = func() (Signer, bool) { return v.layer(ctx, l) }
			} else if !strings.HasPrefix(l.MediaType, typeBundleStart) {
				continue
			}
			if i > 0 && !v.next() {
				break
			}
			if s, ok := look(); ok {
				return s, true, nil
			}
		}
	}
	return Signer{}, false, nil
}

// refusedQuestion says whether a registry does not know a question, which older
// ones show in several ways.
func refusedQuestion(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && slices.Contains([]int{400, 404, 405, 501}, status.Code)
}

// bundle is Sigstore's container of a signature and what is needed to check it
// (github.com/sigstore/protobuf-specs, sigstore_bundle.proto).
type bundle struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		PublicKey *struct{} `json:"publicKey"`
	} `json:"verificationMaterial"`
	MessageSignature *struct {
		MessageDigest struct {
			Algorithm string `json:"algorithm"`
			Digest    string `json:"digest"`
		} `json:"messageDigest"`
		Signature string `json:"signature"`
	} `json:"messageSignature"`
	Envelope *struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig string `json:"sig"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

func (v *verifier) bundle(ctx context.Context, d oci.Descriptor) (Signer, bool) {
	data, ok := v.blob(ctx, d, maxBundle)
	if !ok {
		return Signer{}, false
	}
	var b bundle
	if _, err := strictJSON(data); err != nil {
		v.refuse("a bundle: %v", err)
		return Signer{}, false
	}
	if err := json.Unmarshal(data, &b); err != nil {
		v.refuse("a bundle is not the JSON that is expected")
		return Signer{}, false
	}
	switch {
	case b.MediaType != typeBundle && b.MediaType != typeBundleOld:
		v.refuse("a bundle of unknown type %.100q", b.MediaType)
	case b.VerificationMaterial.PublicKey == nil:
		v.refuse("a bundle without a key (keyless), which is not supported: sign with a key")
	case (b.MessageSignature == nil) == (b.Envelope == nil):
		v.refuse("a bundle that does not hold exactly one signature")
	case b.Envelope != nil:
		return v.envelope(b)
	default:
		return v.message(ctx, b)
	}
	return Signer{}, false
}

// message checks a signature over the manifest's bytes.
func (v *verifier) message(ctx context.Context, b bundle) (Signer, bool) {
	said, err := base64.StdEncoding.DecodeString(b.MessageSignature.MessageDigest.Digest)
	if err != nil || b.MessageSignature.MessageDigest.Algorithm != "SHA2_256" || hex.EncodeToString(said) != v.digits {
		v.refuse("a bundle is for another digest")
		return Signer{}, false
	}
	sig, err := decodeSignature(b.MessageSignature.Signature)
	if err != nil {
		v.refuse("%v", err)
		return Signer{}, false
	}
	var manifest []byte
	err = v.repo.each(ctx, v.repo.order(), func(e *endpoint) (err error) {
		manifest, _, err = v.repo.client.manifest(ctx, e, v.digest, oci.AcceptTypes(), oci.MaxManifest)
		return err
	})
	if err != nil {
		v.refuse("the manifest that a bundle signs cannot be read: %v", err)
		return Signer{}, false
	}
	key, ok := v.signedBy(manifest, sig)
	return Signer{Fingerprint: key.Fingerprint, Source: key.Source}, ok
}

// envelope checks a signed statement about the image
// (github.com/secure-systems-lab/dsse and in-toto's Statement).
func (v *verifier) envelope(b bundle) (Signer, bool) {
	e := b.Envelope
	if e.PayloadType != typeStatement || len(e.Signatures) != 1 {
		v.refuse("a bundle that holds no statement with one signature")
		return Signer{}, false
	}
	sig, err := decodeSignature(e.Signatures[0].Sig)
	if err != nil {
		v.refuse("%v", err)
		return Signer{}, false
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		v.refuse("a bundle whose statement is not base64")
		return Signer{}, false
	}
	// Pre-authentication encoding: the type is signed, too.
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(payload), payload)
	key, ok := v.signedBy(message, sig)
	if !ok {
		return Signer{}, false
	}
	identity, err := v.statement(payload)
	if err != nil {
		v.refuse("a good signature of key %.16s... is for something else: %v", key.Fingerprint, err)
		return Signer{}, false
	}
	return Signer{Fingerprint: key.Fingerprint, Source: key.Source, Identity: identity}, true
}

// statement checks that a statement is a signature of the image, and not what
// somebody found out about it: a signed list of holes does not admit an image.
func (v *verifier) statement(data []byte) (identity string, err error) {
	if _, err := strictJSON(data); err != nil {
		return "", err
	}
	var s struct {
		Type      string `json:"_type"`
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Name   string            `json:"name"`
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return "", errors.New("it is not the JSON that is expected")
	}
	switch {
	case s.Type != "https://in-toto.io/Statement/v1" && s.Type != "https://in-toto.io/Statement/v0.1":
		return "", fmt.Errorf("its type is %.100q", s.Type)
	case s.Predicate != predicateSign:
		return "", fmt.Errorf("it is a statement of type %.100q, not a signature", s.Predicate)
	case len(s.Subject) > maxSubjects:
		return "", fmt.Errorf("it has more than %d subjects", maxSubjects)
	}
	err = errors.New("it names another digest")
	for _, subject := range s.Subject {
		if subject.Digest["sha256"] != v.digits {
			continue
		}
		if subject.Name == "" {
			return "", nil
		}
		if err = v.identity(subject.Name); err == nil {
			return subject.Name, nil
		}
	}
	return "", err
}

const (
	maxJSONDepth  = 32
	maxJSONValues = 1 << 14
)

// strictJSON decodes what every reader must understand the same: no member
// twice, also not in other letters, nothing after the end.
func strictJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("it is not UTF-8 text")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	count := 0
	v, err := strictValue(dec, 0, &count)
	if err != nil {
		return nil, fmt.Errorf("bad JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bad JSON: data after the end")
	}
	return v, nil
}

func strictValue(dec *json.Decoder, depth int, count *int) (any, error) {
	if *count++; depth > maxJSONDepth || *count > maxJSONValues {
		return nil, errors.New("too deep or too large")
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, noEOF(err)
	}
	switch tok {
	case json.Delim('['):
		var list []any
		for dec.More() {
			v, err := strictValue(dec, depth+1, count)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, noEOF(err)
	case json.Delim('{'):
	default:
		return tok, nil
	}
	m, seen := map[string]any{}, map[string]bool{}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, noEOF(err)
		}
		key, _ := k.(string)
		// encoding/json matches members in any case; strings.ToLower after
		// ToUpper folds as it does, also for the few letters outside of ASCII.
		folded := strings.ToLower(strings.ToUpper(key))
		if seen[folded] {
			return nil, fmt.Errorf("the member %.50q is given twice", key)
		}
		seen[folded] = true
		if m[key], err = strictValue(dec, depth+1, count); err != nil {
			return nil, err
		}
	}
	_, err = dec.Token()
	return m, noEOF(err)
}

// members checks that a value is an object without members that are not known.
func members(v any, name string, known ...string) (map[string]any, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("its %s is no JSON object", name)
	}
	for k := range m {
		if !slices.Contains(known, k) {
			return nil, fmt.Errorf("its %s has the unknown member %.50q", name, k)
		}
	}
	return m, nil
}

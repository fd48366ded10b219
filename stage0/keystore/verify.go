package keystore

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

var (
	// ErrUnknownSigner means that no key trusted for the image made the signature.
	ErrUnknownSigner = errors.New("signature made by unknown entity")
	// ErrBadSignature means that the signature does not fit the image.
	ErrBadSignature = errors.New("the signature does not match the image")
	errNoSignature  = errors.New("the signature file holds no signature")
)

const (
	maxSignature  = 1 << 20
	maxSignatures = 32
	// clockSkew is how much a signer's clock may be ahead.
	clockSkew = 5 * time.Minute
)

// Check verifies a detached signature, armoured or binary, over signed, by a
// key that may sign images of that name.
func (s *Store) Check(name string, signed, signature io.Reader) (*Signer, error) {
	v, err := s.Begin(signature)
	if err != nil {
		return nil, err
	}
	defer v.Abort()
	if err := v.Known(name); err != nil {
		return nil, err
	}
	if _, err := io.Copy(v, signed); err != nil {
		return nil, err
	}
	return v.Finish(name)
}

// Verification is a signature check under way: write the signed bytes to it,
// then call Finish. It exists because an image's name, which decides whose
// signature counts, is known only when its last byte was read.
type Verification struct {
	store      *Store
	candidates []*candidate
	refused    []error // why other signatures of the file do not count
	pipe       *io.PipeWriter
	hashed     chan error
}

// candidate is a signature that claims to be by a key we have.
type candidate struct {
	sig  *packet.Signature
	key  openpgp.Key
	hash hash.Hash
}

// Begin starts a check of a detached signature, armoured or binary. One good
// signature among several is enough.
func (s *Store) Begin(signature io.Reader) (*Verification, error) {
	packets, err := readSignature(signature)
	if err != nil {
		return nil, err
	}
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	v := &Verification{store: s}
	if err := v.collect(packets, openpgp.EntityList(slices.Collect(maps.Values(all)))); err != nil {
		return nil, err
	}
	if len(v.candidates) == 0 {
		return v, nil
	}
	r, w := io.Pipe()
	v.pipe, v.hashed = w, make(chan error, 1)
	// Hashing has a processor of its own: the writer is busy enough.
	go func() {
		_, err := io.CopyBuffer(hashes(v.candidates), struct{ io.Reader }{r}, make([]byte, 128<<10))
		r.CloseWithError(io.ErrClosedPipe)
		v.hashed <- err
	}()
	return v, nil
}

// hashes feeds the hashes of all candidates.
type hashes []*candidate

func (h hashes) Write(p []byte) (int, error) {
	for _, c := range h {
		_, _ = c.hash.Write(p) // a hash never fails
	}
	return len(p), nil
}

func readSignature(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSignature+1))
	if err != nil {
		return nil, fmt.Errorf("reading signature: %w", err)
	}
	if len(data) > maxSignature {
		return nil, fmt.Errorf("reading signature: larger than %d bytes", maxSignature)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errNoSignature
	}
	block, err := armor.Decode(bytes.NewReader(data))
	if err != nil { // not armoured
		return data, nil
	}
	if block.Type != openpgp.SignatureType {
		return nil, fmt.Errorf("reading signature: the file holds a %q", block.Type)
	}
	body, err := io.ReadAll(io.LimitReader(block.Body, maxSignature))
	if err != nil {
		return nil, fmt.Errorf("reading signature: %w", err)
	}
	if len(body) == 0 {
		return nil, errNoSignature
	}
	return body, nil
}

// guard turns a panic of the OpenPGP code, which is large and gets bytes from
// the network, into an error.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("malformed signature: %v", p)
	}
}

// collect reads the packets of a signature file; all must be signatures.
func (v *Verification) collect(packets []byte, ring openpgp.EntityList) (err error) {
	defer guard(&err)
	r := packet.NewReader(bytes.NewReader(packets))
	for n := 0; ; n++ {
		p, err := r.NextWithUnsupported()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return errNoSignature
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading signature: %w", err)
		}
		if n >= maxSignatures {
			return fmt.Errorf("reading signature: more than %d signatures", maxSignatures)
		}
		switch p := p.(type) {
		case *packet.Signature:
			if err := v.add(p, ring, time.Now()); err != nil {
				v.refused = append(v.refused, err)
			}
		case *packet.UnsupportedPacket:
			v.refused = append(v.refused, fmt.Errorf("the signature cannot be checked: %w", p.Error))
		default:
			return errors.New("reading signature: the file holds something else than signatures")
		}
	}
}

// add takes a signature for checking if it is one that may count.
func (v *Verification) add(sig *packet.Signature, ring openpgp.EntityList, now time.Time) error {
	switch {
	case sig.SigType != packet.SigTypeBinary:
		return fmt.Errorf("the signature is of type 0x%02x; only signatures of binary documents (0x00) count", byte(sig.SigType))
	case !strongHash(sig.Hash):
		return fmt.Errorf("the signature uses the weak hash algorithm %s", sig.Hash)
	case sig.CreationTime.After(now.Add(clockSkew)):
		return fmt.Errorf("the signature was made in the future, at %s", sig.CreationTime.UTC().Format(time.RFC3339))
	case sig.CreationTime.Before(now) && sig.SigExpired(now):
		return errors.New("the signature is expired")
	case sig.IssuerKeyId == nil:
		return errors.New("the signature does not say whose it is")
	}
	if name, ok := criticalNotation(sig); ok {
		return fmt.Errorf("the signature has the unknown critical notation %q", name)
	}
	known := ring.KeysById(*sig.IssuerKeyId)
	signing := ring.KeysByIdUsage(*sig.IssuerKeyId, packet.KeyFlagSign)
	if len(known) > 0 && len(signing) == 0 {
		return fmt.Errorf("the key %016X may not sign", *sig.IssuerKeyId)
	}
	for _, key := range signing {
		if fpr := sig.IssuerFingerprint; len(fpr) > 0 && !bytes.Equal(fpr, key.PublicKey.Fingerprint) {
			continue
		}
		h, err := sig.PrepareVerify()
		if err != nil {
			return fmt.Errorf("the signature cannot be checked: %w", err)
		}
		v.candidates = append(v.candidates, &candidate{sig, key, h})
	}
	return nil
}

func strongHash(h crypto.Hash) bool {
	return slices.Contains([]crypto.Hash{crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}, h)
}

func criticalNotation(sigs ...*packet.Signature) (string, bool) {
	for _, s := range sigs {
		if s == nil {
			continue
		}
		for _, n := range s.Notations {
			if n.IsCritical {
				return n.Name, true
			}
		}
	}
	return "", false
}

// Known says early, before the signed bytes were read, whether the signature
// claims to be by a key that may sign images of that name. It proves nothing.
func (v *Verification) Known(name string) error {
	allowed, err := v.store.keyring(name)
	if err != nil {
		return err
	}
	for _, c := range v.candidates {
		if _, ok := allowed[fingerprint(c.key.Entity)]; ok {
			return nil
		}
	}
	return v.none()
}

// KnownAtAll is Known for an image whose name is not known yet: a key trusted
// for anything will do.
func (v *Verification) KnownAtAll() error {
	if len(v.candidates) > 0 {
		return nil
	}
	return v.none()
}

// none is the error when nobody we know signed. A signature that was refused
// for itself says more than that.
func (v *Verification) none() error {
	if len(v.refused) > 0 {
		return v.refused[0]
	}
	return ErrUnknownSigner
}

// Write takes the next signed bytes. It never fails: what is wrong Finish tells.
func (v *Verification) Write(p []byte) (int, error) {
	if v.pipe != nil {
		_, _ = v.pipe.Write(p) // a check that ended early has its error in the result
	}
	return len(p), nil
}

// Finish says who signed, provided that they may sign images of that name.
func (v *Verification) Finish(name string) (*Signer, error) {
	if v.pipe == nil {
		return nil, v.none()
	}
	v.pipe.Close()
	err := <-v.hashed
	v.hashed <- err // for a second call
	if err != nil {
		return nil, fmt.Errorf("checking signature: %w", err)
	}
	allowed, err := v.store.keyring(name)
	if err != nil {
		return nil, err
	}
	var first error
	for _, c := range v.candidates {
		e := c.key.Entity
		if _, ok := allowed[fingerprint(e)]; !ok {
			continue
		}
		err := c.check(time.Now())
		if err == nil {
			return &Signer{Fingerprint: fingerprint(e), Identities: identities(e)}, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = v.none()
	}
	return nil, first
}

// check verifies one signature and that its key is fit to sign.
func (c *candidate) check(now time.Time) (err error) {
	defer guard(&err)
	if err := c.key.PublicKey.VerifySignature(c.hash, c.sig); err != nil {
		return fmt.Errorf("%w: %v", ErrBadSignature, err)
	}
	return keyProblem(c.key, now)
}

// keyProblem says why a key, or the subkey of one, is not fit to sign.
func keyProblem(k openpgp.Key, now time.Time) error {
	e := k.Entity
	name := FormatFingerprint(fingerprint(e))
	self, identity := e.PrimarySelfSignature()
	if self == nil {
		return fmt.Errorf("the signing key %s has no valid signature of its own", name)
	}
	sub := k.PublicKey != e.PrimaryKey
	sigs := []*packet.Signature{self}
	if sub {
		if k.SelfSignature == nil {
			return fmt.Errorf("a subkey of the signing key %s is not bound to it", name)
		}
		sigs = append(sigs, k.SelfSignature, k.SelfSignature.EmbeddedSignature)
	}
	if n, ok := criticalNotation(sigs...); ok {
		return fmt.Errorf("the signing key %s has the unknown critical notation %q", name, n)
	}
	for _, pk := range []*packet.PublicKey{e.PrimaryKey, k.PublicKey} {
		if why := weakness(pk); why != "" {
			return fmt.Errorf("the signing key %s is weak: %s", name, why)
		}
	}
	switch {
	case e.Revoked(now), sub && k.Revoked(now), identity != nil && identity.Revoked(now):
		return fmt.Errorf("the signing key %s is revoked", name)
	case e.PrimaryKey.KeyExpired(self, now), sub && k.PublicKey.KeyExpired(k.SelfSignature, now):
		return fmt.Errorf("the signing key %s is expired", name)
	}
	for _, s := range sigs {
		if s != nil && s.SigExpired(now) {
			return fmt.Errorf("the signing key %s is expired: a signature of its own is", name)
		}
	}
	return nil
}

// weakness says why an algorithm or the length of a key is not good enough.
func weakness(pk *packet.PublicKey) string {
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if bits, err := pk.BitLength(); err != nil || bits < minRSABits-1 { // a modulus may lack a bit
			return fmt.Sprintf("RSA with %d bits", bits)
		}
	case packet.PubKeyAlgoDSA:
		return "DSA"
	case packet.PubKeyAlgoElGamal:
		return "ElGamal"
	case packet.PubKeyAlgoECDSA:
		if curve, err := pk.Curve(); err != nil || curve == packet.CurveSecP256k1 {
			return "an unfit elliptic curve"
		}
	}
	return ""
}

// Abort ends a check that nobody will finish; after Finish it does nothing.
func (v *Verification) Abort() {
	if v.pipe != nil {
		v.pipe.CloseWithError(errors.New("aborted"))
	}
}

package keystore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

var (
	// ErrUnknownSigner means that no key trusted for the image made the signature.
	ErrUnknownSigner = errors.New("signature made by unknown entity")
	// ErrBadSignature means that the signature does not fit the image.
	ErrBadSignature = errors.New("the signature does not match the image")
	errNoSignature  = errors.New("the signature file holds no signature")
)

const maxSignature = 1 << 20

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
	store   *Store
	packets []byte
	pipe    *io.PipeWriter
	result  chan result
}

type result struct {
	signer *openpgp.Entity
	err    error
}

// Begin starts a check of a detached signature, armoured or binary.
func (s *Store) Begin(signature io.Reader) (*Verification, error) {
	packets, err := readSignature(signature)
	if err != nil {
		return nil, err
	}
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	ring := openpgp.EntityList(slices.Collect(maps.Values(all)))
	r, w := io.Pipe()
	v := &Verification{store: s, packets: packets, pipe: w, result: make(chan result, 1)}
	go func() {
		signer, err := verify(ring, r, packets)
		r.CloseWithError(io.ErrClosedPipe)
		v.result <- result{signer, err}
	}()
	return v, nil
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

func verify(ring openpgp.KeyRing, signed io.Reader, packets []byte) (signer *openpgp.Entity, err error) {
	defer func() {
		if p := recover(); p != nil {
			signer, err = nil, fmt.Errorf("malformed signature: %v", p)
		}
	}()
	return openpgp.CheckDetachedSignature(ring, signed, bytes.NewReader(packets), nil)
}

// Known says early, before the signed bytes were read, whether the signature
// claims to be by a key that may sign images of that name. It proves nothing.
func (v *Verification) Known(name string) error {
	allowed, err := v.store.keyring(name)
	if err != nil {
		return err
	}
	return v.among(allowed)
}

// KnownAtAll is Known for an image whose name is not known yet: a key trusted
// for anything will do.
func (v *Verification) KnownAtAll() error {
	all, err := v.store.all()
	if err != nil {
		return err
	}
	return v.among(all)
}

func (v *Verification) among(set map[string]*openpgp.Entity) error {
	ids, err := issuers(v.packets)
	if err != nil {
		return err
	}
	for _, e := range set {
		for _, id := range ids {
			if len((openpgp.EntityList{e}).KeysById(id)) > 0 {
				return nil
			}
		}
	}
	return ErrUnknownSigner
}

func issuers(packets []byte) (ids []uint64, err error) {
	defer func() {
		if p := recover(); p != nil {
			ids, err = nil, fmt.Errorf("malformed signature: %v", p)
		}
	}()
	r := packet.NewReader(bytes.NewReader(packets))
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ids, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading signature: %w", err)
		}
		if sig, ok := p.(*packet.Signature); ok && sig.IssuerKeyId != nil {
			ids = append(ids, *sig.IssuerKeyId)
		}
	}
}

// Write takes the next signed bytes. It never fails: what is wrong Finish tells.
func (v *Verification) Write(p []byte) (int, error) {
	_, _ = v.pipe.Write(p) // a check that ended early has its error in the result
	return len(p), nil
}

// Finish says who signed, provided that they may sign images of that name.
func (v *Verification) Finish(name string) (*Signer, error) {
	v.pipe.Close()
	res := <-v.result
	v.result <- res // for a second call
	switch {
	case errors.Is(res.err, pgperrors.ErrUnknownIssuer):
		return nil, ErrUnknownSigner
	case errors.Is(res.err, pgperrors.ErrKeyRevoked):
		return nil, fmt.Errorf("the signing key %s is revoked", keyName(res.signer))
	case errors.Is(res.err, pgperrors.ErrKeyExpired):
		return nil, fmt.Errorf("the signing key %s is expired", keyName(res.signer))
	case errors.Is(res.err, pgperrors.ErrSignatureExpired):
		return nil, errors.New("the signature is expired")
	case res.err != nil:
		var bad pgperrors.SignatureError
		if errors.As(res.err, &bad) {
			return nil, fmt.Errorf("%w: %v", ErrBadSignature, res.err)
		}
		return nil, fmt.Errorf("checking signature: %w", res.err)
	}
	allowed, err := v.store.keyring(name)
	if err != nil {
		return nil, err
	}
	if _, ok := allowed[fingerprint(res.signer)]; !ok {
		return nil, ErrUnknownSigner
	}
	return &Signer{Fingerprint: fingerprint(res.signer), Identities: identities(res.signer)}, nil
}

// Abort ends a check that nobody will finish; after Finish it does nothing.
func (v *Verification) Abort() { v.pipe.CloseWithError(errors.New("aborted")) }

func keyName(e *openpgp.Entity) string {
	if e == nil {
		return "of the image"
	}
	return FormatFingerprint(fingerprint(e))
}

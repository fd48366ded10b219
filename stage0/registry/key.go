package registry

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	maxKeyFile = 64 << 10
	minRSABits = 2048
	maxRSABits = 16384 // a larger modulus only costs time
)

// Key is a public key that may sign images of registries.
type Key struct {
	Fingerprint string // lower-case hex SHA-256 of the SubjectPublicKeyInfo
	Public      crypto.PublicKey
	Source      string // the file it came from, for messages; may be empty
}

// ParseKey reads one PEM block "PUBLIC KEY", as written by cosign and openssl.
// Keys too weak to prove anything are refused.
func ParseKey(data []byte) (Key, error) {
	if len(data) > maxKeyFile {
		return Key{}, fmt.Errorf("reading public key: larger than %d bytes", maxKeyFile)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return Key{}, errors.New(`reading public key: no PEM block "PUBLIC KEY"`)
	case block.Type != "PUBLIC KEY":
		return Key{}, fmt.Errorf(`reading public key: the PEM block is %q, not "PUBLIC KEY"`, block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return Key{}, errors.New("reading public key: more follows the key; a file holds one key")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("reading public key: %w", err)
	}
	if err := checkKey(public); err != nil {
		return Key{}, fmt.Errorf("reading public key: %w", err)
	}
	// The fingerprint is of the canonical form: one key, one name.
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("reading public key: %w", err)
	}
	if !bytes.Equal(der, block.Bytes) {
		return Key{}, errors.New("reading public key: not in canonical DER")
	}
	sum := sha256.Sum256(der)
	return Key{Fingerprint: hex.EncodeToString(sum[:]), Public: public}, nil
}

// checkKey refuses kinds that are not supported and keys that are too weak.
func checkKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("ECDSA curve %s is too weak: use P-256, P-384 or P-521", k.Params().Name)
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case bits < minRSABits:
			return fmt.Errorf("RSA key of %d bits is too weak: at least %d are needed", bits, minRSABits)
		case bits > maxRSABits:
			return fmt.Errorf("RSA key of %d bits: at most %d are supported", bits, maxRSABits)
		case k.E < 65537:
			return fmt.Errorf("RSA exponent %d is too small: at least 65537 is needed", k.E)
		}
		return nil
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return errors.New("malformed Ed25519 key")
		}
		return nil
	}
	return fmt.Errorf("keys of type %T are not supported: use ECDSA, RSA or Ed25519", public)
}

// verify checks a signature over message. The key's own type decides the
// algorithm; nothing a signature says about itself is looked at.
func (k Key) verify(message, sig []byte) error {
	if err := checkKey(k.Public); err != nil {
		return err
	}
	bad := errors.New("the signature does not match")
	sum := sha256.Sum256(message)
	ok := false
	switch p := k.Public.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(p, sum[:], sig)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], sig) == nil ||
			rsa.VerifyPSS(p, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil
	case ed25519.PublicKey:
		ok = ed25519.Verify(p, message, sig)
	}
	if !ok {
		return bad
	}
	return nil
}

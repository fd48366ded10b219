package keystore

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
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	pemType    = "PUBLIC KEY"
	minRSABits = 2048
	maxPrefix  = 512
)

// PublicKey is a trusted sigstore key.
type PublicKey struct {
	Fingerprint string // SHA-256 of the DER form, lower-case hex
	Public      crypto.PublicKey
	Path        string
}

type publicKey struct {
	fingerprint string
	public      crypto.PublicKey
	der         []byte
	kind        string
}

func (k publicKey) describe() Key {
	return Key{Type: Sigstore, Fingerprint: k.fingerprint, Identities: []string{k.kind}}
}

func (k publicKey) pem() []byte { return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: k.der}) }

// isPEM tells public keys of sigstore from armoured OpenPGP keys.
func isPEM(data []byte) bool {
	return bytes.Contains(data, []byte("-----BEGIN "+pemType+"-----"))
}

// parsePEM parses public keys, one or several.
func parsePEM(data []byte) ([]publicKey, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("larger than %d bytes", maxKeyFile)
	}
	var keys []publicKey
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		switch {
		case block == nil && len(keys) == 0:
			return nil, errors.New("not a public key in PEM form")
		case block == nil:
			return keys, nil
		case block.Type != pemType:
			return nil, fmt.Errorf("the file holds a %q, not only public keys", block.Type)
		case len(keys) >= maxKeys:
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("not a public key: %w", err)
		}
		kind, err := kindOf(public)
		if err != nil {
			return nil, err
		}
		// The one DER form of the key: what was read may have another.
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return nil, fmt.Errorf("not a public key: %w", err)
		}
		sum := sha256.Sum256(der)
		keys = append(keys, publicKey{hex.EncodeToString(sum[:]), public, der, kind})
	}
}

// kindOf names the algorithm of a key that is good enough.
func kindOf(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return "", fmt.Errorf("the key is weak: elliptic curve %s", k.Params().Name)
		}
		return "ECDSA " + k.Params().Name, nil
	case ed25519.PublicKey:
		return "Ed25519", nil
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return "", fmt.Errorf("the key is weak: RSA with %d bits", k.N.BitLen())
		}
		return fmt.Sprintf("RSA %d", k.N.BitLen()), nil
	}
	return "", fmt.Errorf("keys of type %T do not sign images", public)
}

// PublicKeys are the sigstore keys that may sign the images of a repository,
// HOST[:PORT]/REPOSITORY: root keys, and those of prefixes that cover the name.
func (s *Store) PublicKeys(name string) ([]PublicKey, error) {
	if err := CheckPrefix(name); err != nil {
		return nil, err
	}
	found, err := s.trusted(name)
	if err != nil {
		return nil, err
	}
	var keys []PublicKey
	for _, fpr := range slices.Sorted(maps.Keys(found)) {
		if k := found[fpr]; k.pub != nil {
			keys = append(keys, PublicKey{fpr, k.pub.public, k.path})
		}
	}
	return keys, nil
}

// CheckPrefix checks a name prefix that may be of a registry: HOST[:PORT] and
// components of a repository.
func CheckPrefix(prefix string) error {
	host, rest, deeper := strings.Cut(prefix, "/")
	ok := len(prefix) <= maxPrefix && regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+|--+[a-z0-9]+)*(:[0-9]{1,5})?$`).MatchString(host)
	if deeper {
		component := regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+|~)[a-z0-9]+)*$`)
		for _, c := range strings.Split(rest, "/") {
			ok = ok && component.MatchString(c)
		}
	}
	if !ok {
		return fmt.Errorf("bad name prefix %q: want HOST[:PORT] and lower-case components, separated by slashes", clipText(prefix))
	}
	return nil
}

func clipText(s string) string {
	if len(s) > maxPrefix {
		return s[:64] + "..."
	}
	return s
}

package keystore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Key is a trusted public key.
type Key struct {
	Path        string // file it is kept in, if any
	Prefix      string // image names it may sign; "" with Root
	Root        bool
	Masked      bool
	Type        string // OpenPGP or Sigstore; "" with Masked
	Fingerprint string // of the primary key, or of a sigstore key, lower-case hex
	Subkeys     []string
	Identities  []string
	Problem     string // why the key does not count: expired, revoked, weak
}

// Types of keys.
const (
	OpenPGP  = "openpgp"  // signs images and their files
	Sigstore = "sigstore" // signs images of registries
)

// Signer is who made a good signature.
type Signer struct {
	Fingerprint string // of the primary key, lower-case hex
	Identities  []string
}

// ReadKeys parses an armoured key ring, or sigstore public keys (PEM).
func ReadKeys(data []byte) ([]Key, error) {
	if isPEM(data) {
		keys, err := parsePEM(data)
		if err != nil {
			return nil, err
		}
		var out []Key
		for _, k := range keys {
			out = append(out, k.describe())
		}
		return out, nil
	}
	entities, err := parse(data)
	if err != nil {
		return nil, err
	}
	keys := make([]Key, len(entities))
	for i, e := range entities {
		keys[i] = describe(e)
	}
	return keys, nil
}

const maxKeys = 256

func parse(data []byte) (entities openpgp.EntityList, err error) {
	// The parser is large and gets bytes from the network.
	defer func() {
		if p := recover(); p != nil {
			entities, err = nil, fmt.Errorf("malformed key: %v", p)
		}
	}()
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("larger than %d bytes", maxKeyFile)
	}
	entities, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	switch {
	case err != nil:
		return nil, fmt.Errorf("not an armoured OpenPGP public key: %w", err)
	case len(entities) == 0:
		return nil, errors.New("the file holds no OpenPGP key")
	case len(entities) > maxKeys:
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	return entities, nil
}

func fingerprint(e *openpgp.Entity) string { return hex.EncodeToString(e.PrimaryKey.Fingerprint) }

func identities(e *openpgp.Entity) []string { return slices.Sorted(maps.Keys(e.Identities)) }

func describe(e *openpgp.Entity) Key {
	k := Key{Type: OpenPGP, Fingerprint: fingerprint(e), Identities: identities(e)}
	if err := entityProblem(e, time.Now()); err != nil {
		k.Problem = err.Error()
	}
	for _, s := range e.Subkeys {
		k.Subkeys = append(k.Subkeys, hex.EncodeToString(s.PublicKey.Fingerprint))
	}
	return k
}

// entityProblem says why a whole key does not count.
func entityProblem(e *openpgp.Entity, now time.Time) (err error) {
	defer guard(&err)
	self, _ := e.PrimarySelfSignature()
	return keyProblem(openpgp.Key{Entity: e, PublicKey: e.PrimaryKey, SelfSignature: self, Revocations: e.Revocations}, now)
}

// armoured is the public part of a key alone.
func armoured(e *openpgp.Entity) ([]byte, error) {
	var buf bytes.Buffer
	w, err := armor.Encode(&buf, openpgp.PublicKeyType, nil)
	if err != nil {
		return nil, err
	}
	if err := e.Serialize(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	buf.WriteByte('\n')
	return buf.Bytes(), nil
}

// FormatFingerprint writes a fingerprint for people: upper case, groups of
// four digits, a wider gap in the middle.
func FormatFingerprint(fpr string) string {
	fpr = strings.ToUpper(fpr)
	var b strings.Builder
	groups := (len(fpr) + 3) / 4
	for i := range groups {
		switch {
		case i == 0:
		case i == groups/2:
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
		b.WriteString(fpr[4*i : min(4*i+4, len(fpr))])
	}
	return b.String()
}

// Describe is what is shown to somebody who decides whether to trust the key.
func (k Key) Describe() string {
	var b strings.Builder
	kind := "GPG"
	if k.Type == Sigstore {
		kind = "Sigstore"
	}
	fmt.Fprintf(&b, "%s key fingerprint is: %s\n", kind, FormatFingerprint(k.Fingerprint))
	for _, s := range k.Subkeys {
		fmt.Fprintf(&b, "    Subkey fingerprint: %s\n", FormatFingerprint(s))
	}
	for _, id := range k.Identities {
		fmt.Fprintf(&b, "\t%s\n", Printable(id))
	}
	if k.Problem != "" {
		fmt.Fprintf(&b, "    Warning: %s\n", k.Problem)
	}
	return b.String()
}

// Printable keeps an identity from writing over the fingerprint on a terminal.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

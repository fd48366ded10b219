// Package keystore keeps the OpenPGP keys that may sign images and verifies
// detached signatures with them.
//
// Keys live in LAYER/trustedkeys/root.d/FINGERPRINT (may sign anything) and
// LAYER/trustedkeys/prefix.d/PREFIX/FINGERPRINT (may sign images named PREFIX
// or below it, by whole components), where LAYER is the system's and the
// administrator's configuration directory. An empty file masks the key of that
// fingerprint read before it. Only the administrator's layer is ever written.
//
// Exported:
//
//	New(systemDir, localDir string) *Store
//	(*Store) Check(name, signed, signature) (*Signer, error)
//	(*Store) Verify(signature []byte) (*Verification, error)   streaming: io.Writer, then Finish(name)
//	(*Store) HasPrefixKey(name) (bool, error)
//	(*Store) Add(prefix string, key []byte) ([]Key, error)     prefix "" = root
//	(*Store) List() ([]Key, error); ReadKeys(data []byte) ([]Key, error)
//	Fingerprint(hex string) string                             formatted for people
//
// stage0/image and stage0/cli may import it.
package keystore

import (
	"errors"
	"io"
)

var errTODO = errors.New("not implemented")

// ErrUnknownSigner means that no trusted key made the signature.
var ErrUnknownSigner = errors.New("signature made by unknown entity")

// Store is a key store; it reads the disk at every check.
type Store struct {
	system, local string
}

// Signer is who made a good signature.
type Signer struct {
	Fingerprint string // of the primary key, lower-case hex
	Identities  []string
}

// Key is a trusted public key.
type Key struct {
	Path        string // file it is kept in, if any
	Prefix      string // image names it may sign; "" with Root
	Root        bool
	Masked      bool
	Fingerprint string
	Subkeys     []string // fingerprints
	Identities  []string
}

// New makes a store of the two layers' configuration directories.
func New(systemDir, localDir string) *Store { return &Store{systemDir, localDir} }

func (s *Store) Check(name string, signed, signature io.Reader) (*Signer, error) { return nil, errTODO }
func (s *Store) Add(prefix string, key []byte) ([]Key, error)                    { return nil, errTODO }
func (s *Store) List() ([]Key, error)                                            { return nil, errTODO }
func (s *Store) HasPrefixKey(name string) (bool, error)                          { return false, errTODO }
func ReadKeys(data []byte) ([]Key, error)                                        { return nil, errTODO }

// Package keystore keeps the keys that may sign images: OpenPGP keys, with which
// it verifies detached signatures, and sigstore public keys (PEM), which it
// hands out for images of registries.
//
// Keys live in LAYER/trustedkeys/root.d/FINGERPRINT (may sign anything) and
// LAYER/trustedkeys/prefix.d/PREFIX/FINGERPRINT (may sign images named PREFIX
// or below it, by whole components; HOST:PORT/REPOSITORY for registries), where
// LAYER is the system's and the administrator's configuration directory. A
// sigstore key's fingerprint is the SHA-256 of its DER form. An empty file masks
// the key of that fingerprint read before it. Only the administrator's layer is
// ever written.
//
// Exported:
//
//	New(systemDir, localDir string) *Store
//	(*Store) Check(name, signed, signature) (*Signer, error)
//	(*Store) Begin(signature io.Reader) (*Verification, error)  a Writer of the signed bytes
//	(*Verification) Known(name), KnownAtAll() error; Finish(name) (*Signer, error); Abort()
//	(*Store) HasPrefixKey(name) (bool, error)
//	(*Store) Add(prefix string, key []byte) ([]Key, error)      prefix "" = root
//	(*Store) Remove(prefix string, root bool, fingerprint string) ([]Removal, error)
//	(*Store) PublicKeys(name string) ([]PublicKey, error)       sigstore keys
//	(*Store) List() ([]Key, error); ReadKeys(data []byte) ([]Key, error)
//	CheckPrefix(prefix string) error
//	FormatFingerprint(hex string) string; (Key) Describe() string; Printable(s) string
//
// stage0/image and stage0/cli may import it.
package keystore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/rkt-systemd/rkt/internal/appc"
)

const (
	maxKeyFile  = 4 << 20
	maxKeyFiles = 10_000
)

// Store is a key store; it reads the disk at every check.
type Store struct {
	layers []string // trustedkeys directories: system, local
	local  string
}

// New makes a store of the two layers' configuration directories; an empty
// name is no layer.
func New(systemDir, localDir string) *Store {
	s := &Store{}
	for _, dir := range []string{systemDir, localDir} {
		if dir != "" {
			s.layers = append(s.layers, filepath.Join(dir, "trustedkeys"))
		}
	}
	if localDir != "" {
		s.local = filepath.Join(localDir, "trustedkeys")
	}
	return s
}

// prefixes are a name and its parents, shortest first.
func prefixes(name string) []string {
	var out []string
	for i := range name {
		if name[i] == '/' {
			out = append(out, name[:i])
		}
	}
	return append(out, name)
}

// keyring is the set of OpenPGP keys that may sign images of a name.
func (s *Store) keyring(name string) (map[string]*openpgp.Entity, error) {
	if err := appc.CheckName(name); err != nil {
		return nil, err
	}
	found, err := s.trusted(name)
	if err != nil {
		return nil, err
	}
	set := map[string]*openpgp.Entity{}
	for fpr, k := range found {
		if k.pgp != nil {
			set[fpr] = k.pgp
		}
	}
	return set, nil
}

// trusted is the keys of all types that count for a name, by fingerprint.
func (s *Store) trusted(name string) (map[string]fileKey, error) {
	set := map[string]fileKey{}
	for _, l := range s.layers {
		if err := readDir(filepath.Join(l, "root.d"), set); err != nil {
			return nil, err
		}
	}
	for _, l := range s.layers {
		for _, p := range prefixes(name) {
			if err := readDir(filepath.Join(l, "prefix.d", p), set); err != nil {
				return nil, err
			}
		}
	}
	return set, nil
}

// all is every key of the store, masked or not.
func (s *Store) all() (map[string]*openpgp.Entity, error) {
	set := map[string]*openpgp.Entity{}
	err := s.walk(func(file string, _ Key) error {
		k, err := readFile(file)
		if err != nil || k.pgp == nil {
			return err
		}
		// A revocation in any copy of a key counts.
		fpr := fingerprint(k.pgp)
		if old := set[fpr]; old == nil || !old.Revoked(time.Now()) {
			set[fpr] = k.pgp
		}
		return nil
	})
	return set, err
}

// readDir adds the keys directly in dir to set and takes the masked ones out.
func readDir(dir string, set map[string]fileKey) error {
	files, err := keyFiles(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		k, err := readFile(file)
		if err != nil {
			return err
		}
		if k.mask() {
			delete(set, filepath.Base(file))
		} else {
			set[filepath.Base(file)] = k
		}
	}
	return nil
}

// keyFiles lists the files directly in dir; a missing directory has none.
func keyFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading trusted keys: %w", err)
	}
	var files []string
	for _, e := range entries {
		// Temporary files of a writer begin with a dot.
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) > maxKeyFiles {
		return nil, fmt.Errorf("reading trusted keys: %q holds more than %d files", dir, maxKeyFiles)
	}
	return files, nil
}

// fileKey is what a key file holds: one of the two, or nothing, a mask.
type fileKey struct {
	path string
	pgp  *openpgp.Entity
	pub  *publicKey
}

func (k fileKey) mask() bool { return k.pgp == nil && k.pub == nil }

func (k fileKey) describe() Key {
	var d Key
	switch {
	case k.pgp != nil:
		d = describe(k.pgp)
	case k.pub != nil:
		d = k.pub.describe()
	default:
		d = Key{Masked: true, Fingerprint: filepath.Base(k.path)}
	}
	d.Path = k.path
	return d
}

// readFile reads one key file, which is named by its fingerprint.
func readFile(file string) (fileKey, error) {
	k := fileKey{path: file}
	data, err := readLimited(file)
	if err != nil {
		return k, fmt.Errorf("reading trusted key: %w", err)
	}
	if len(data) == 0 {
		return k, nil
	}
	var fpr string
	if isPEM(data) {
		keys, err := parsePEM(data)
		if err != nil {
			return k, fmt.Errorf("trusted key %q: %w", file, err)
		}
		k.pub, fpr = &keys[0], keys[0].fingerprint
	} else {
		entities, err := parse(data)
		if err != nil {
			return k, fmt.Errorf("trusted key %q: %w", file, err)
		}
		k.pgp, fpr = entities[0], fingerprint(entities[0])
	}
	if fpr != filepath.Base(file) {
		return k, fmt.Errorf("trusted key %q: the file's name is not the key's fingerprint %q", file, fpr)
	}
	return k, nil
}

func readLimited(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%q is larger than %d bytes", file, maxKeyFile)
	}
	return data, err
}

// walk calls f for every key file of the store, in the order they are read.
func (s *Store) walk(f func(file string, k Key) error) error {
	for _, l := range s.layers {
		files, err := keyFiles(filepath.Join(l, "root.d"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := f(file, Key{Path: file, Root: true}); err != nil {
				return err
			}
		}
	}
	for _, l := range s.layers {
		top := filepath.Join(l, "prefix.d")
		err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && file == top {
				return fs.SkipAll
			}
			if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
				return err
			}
			prefix, err := filepath.Rel(top, filepath.Dir(file))
			if err != nil || prefix == "." {
				return err
			}
			return f(file, Key{Path: file, Prefix: prefix})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// List is every key file of the store; masks have no identities. A file that
// cannot be read does not hide the others; the error joins what is wrong.
func (s *Store) List() ([]Key, error) {
	var keys []Key
	var errs []error
	err := s.walk(func(file string, k Key) error {
		found, err := readFile(file)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		d := found.describe()
		d.Prefix, d.Root = k.Prefix, k.Root
		keys = append(keys, d)
		return nil
	})
	return keys, errors.Join(append(errs, err)...)
}

// HasPrefixKey says whether a key for the name or a prefix of it is there, so
// that no other may be discovered. Root keys and masks do not count.
func (s *Store) HasPrefixKey(name string) (bool, error) {
	if err := appc.CheckName(name); err != nil {
		return false, err
	}
	for _, l := range s.layers {
		for _, p := range prefixes(name) {
			files, err := keyFiles(filepath.Join(l, "prefix.d", p))
			if err != nil {
				return false, err
			}
			for _, f := range files {
				if st, err := os.Stat(f); err == nil && st.Size() > 0 {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// Clean removes what killed writers left before a time: temporary files, which
// no reader takes for keys.
func (s *Store) Clean(before time.Time) error {
	if s.local == "" {
		return nil
	}
	return filepath.WalkDir(s.local, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(d.Name(), ".") || !strings.Contains(d.Name(), ".tmp") {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.Remove(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

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
//	(*Store) Begin(signature io.Reader) (*Verification, error)  a Writer of the signed bytes
//	(*Verification) Known(name), KnownAtAll() error; Finish(name) (*Signer, error); Abort()
//	(*Store) HasPrefixKey(name) (bool, error)
//	(*Store) Add(prefix string, key []byte) ([]Key, error)      prefix "" = root
//	(*Store) List() ([]Key, error); ReadKeys(data []byte) ([]Key, error)
//	FormatFingerprint(hex string) string; (Key) Describe() string
//
// stage0/image and stage0/cli may import it.
package keystore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
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

// keyring is the set of keys that may sign images of a name.
func (s *Store) keyring(name string) (map[string]*openpgp.Entity, error) {
	if err := appc.CheckName(name); err != nil {
		return nil, err
	}
	set := map[string]*openpgp.Entity{}
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
		e, err := readFile(file)
		if err != nil || e == nil {
			return err
		}
		// A revocation in any copy of a key counts.
		if old := set[fingerprint(e)]; old == nil || !old.Revoked(time.Now()) {
			set[fingerprint(e)] = e
		}
		return nil
	})
	return set, err
}

// readDir adds the keys directly in dir to set and takes the masked ones out.
func readDir(dir string, set map[string]*openpgp.Entity) error {
	files, err := keyFiles(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		e, err := readFile(file)
		if err != nil {
			return err
		}
		if e == nil {
			delete(set, filepath.Base(file))
		} else {
			set[filepath.Base(file)] = e
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

// readFile reads one key file; nil means that the file is empty, a mask.
func readFile(file string) (*openpgp.Entity, error) {
	data, err := readLimited(file)
	if err != nil {
		return nil, fmt.Errorf("reading trusted key: %w", err)
	}
	if len(data) == 0 {
		return nil, nil
	}
	entities, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("trusted key %q: %w", file, err)
	}
	if fpr := fingerprint(entities[0]); fpr != filepath.Base(file) {
		return nil, fmt.Errorf("trusted key %q: the file's name is not the key's fingerprint %q", file, fpr)
	}
	return entities[0], nil
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
		e, err := readFile(file)
		switch {
		case err != nil:
			errs = append(errs, err)
		case e == nil:
			k.Masked, k.Fingerprint = true, filepath.Base(file)
			keys = append(keys, k)
		default:
			d := describe(e)
			d.Path, d.Prefix, d.Root = k.Path, k.Prefix, k.Root
			keys = append(keys, d)
		}
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

// Add trusts the keys of an armoured key ring for a name prefix, or for
// everything if prefix is empty; one file per primary key.
func (s *Store) Add(prefix string, key []byte) ([]Key, error) {
	if s.local == "" {
		return nil, errors.New("adding a trusted key: there is no local configuration directory")
	}
	dir := filepath.Join(s.local, "root.d")
	if prefix != "" {
		if err := appc.CheckName(prefix); err != nil {
			return nil, fmt.Errorf("adding a trusted key: %w", err)
		}
		dir = filepath.Join(s.local, "prefix.d", path.Clean(prefix))
	}
	entities, err := parse(key)
	if err != nil {
		return nil, fmt.Errorf("adding a trusted key: %w", err)
	}
	if err := mkdirAll(dir); err != nil {
		return nil, fmt.Errorf("adding a trusted key: %w", err)
	}
	var added []Key
	for _, e := range entities {
		data, err := armoured(e)
		if err != nil {
			return added, fmt.Errorf("adding a trusted key: %w", err)
		}
		k := describe(e)
		k.Prefix, k.Root, k.Path = prefix, prefix == "", filepath.Join(dir, k.Fingerprint)
		if err := atomicfile.WriteFile(k.Path, data, 0o644); err != nil {
			return added, fmt.Errorf("adding a trusted key: %w", err)
		}
		failpoint.Hit("keystore/added")
		added = append(added, k)
	}
	return added, nil
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

// mkdirAll makes directories of mode 0755 whatever the umask.
func mkdirAll(dir string) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		missing = append(missing, d)
	}
	slices.Reverse(missing)
	for _, d := range missing {
		err := os.Mkdir(d, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = os.Chmod(d, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

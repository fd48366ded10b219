package keystore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
)

// dirOf is where keys of a prefix lie in a layer, those of no prefix for root.
func dirOf(layer, prefix string) string {
	if prefix == "" {
		return filepath.Join(layer, "root.d")
	}
	return filepath.Join(layer, "prefix.d", path.Clean(prefix))
}

// Add trusts the keys of a file, an armoured OpenPGP key ring or sigstore
// public keys, for a name prefix, or for everything if prefix is empty; one
// file per key. Weak keys are refused.
func (s *Store) Add(prefix string, key []byte) (added []Key, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("adding a trusted key: %w", err)
		}
	}()
	if s.local == "" {
		return nil, errors.New("there is no local configuration directory")
	}
	files, err := keyData(key)
	if err != nil {
		return nil, err
	}
	if prefix != "" {
		check := appc.CheckName
		if files[0].key.Type == Sigstore {
			check = CheckPrefix
		}
		if err := check(prefix); err != nil {
			return nil, err
		}
	}
	dir := dirOf(s.local, prefix)
	if err := mkdirAll(dir); err != nil {
		return nil, err
	}
	for _, f := range files {
		f.key.Prefix, f.key.Root, f.key.Path = prefix, prefix == "", filepath.Join(dir, f.key.Fingerprint)
		if err := atomicfile.WriteFile(f.key.Path, f.data, 0o644); err != nil {
			return added, err
		}
		failpoint.Hit("keystore/added")
		added = append(added, f.key)
	}
	return added, nil
}

// newFile is a key to be written.
type newFile struct {
	key  Key
	data []byte
}

// keyData splits a key file into one file per key.
func keyData(data []byte) ([]newFile, error) {
	var files []newFile
	if isPEM(data) {
		keys, err := parsePEM(data)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			files = append(files, newFile{k.describe(), k.pem()})
		}
		return files, nil
	}
	entities, err := parse(data)
	if err != nil {
		return nil, err
	}
	for _, e := range entities {
		if why := weakness(e.PrimaryKey); why != "" {
			return nil, fmt.Errorf("the key %s is weak: %s", FormatFingerprint(fingerprint(e)), why)
		}
		data, err := armoured(e)
		if err != nil {
			return nil, err
		}
		files = append(files, newFile{describe(e), data})
	}
	return files, nil
}

// Removal is one thing that Remove did.
type Removal struct {
	Path   string // the file removed, or the mask written
	Masked bool
}

// Remove takes the trust in a key back: for a prefix, for everything with
// root, wherever it is found if neither is given. A key of the system's layer
// is masked.
func (s *Store) Remove(prefix string, root bool, fpr string) (done []Removal, err error) {
	if s.local == "" {
		return nil, errors.New("removing a trusted key: there is no local configuration directory")
	}
	type place struct{ prefix, fpr string }
	seen := map[place][]string{} // the layers whose file is no mask
	var order []place
	err = s.walk(func(file string, k Key) error {
		st, err := os.Stat(file)
		if err != nil || filepath.Base(file) != fpr || (prefix != "" || root) && (k.Root != root || k.Prefix != prefix) {
			return err
		}
		p := place{k.Prefix, fpr}
		if _, ok := seen[p]; !ok {
			order = append(order, p)
		}
		layer := s.layers[0]
		if s.local != "" && strings.HasPrefix(file, s.local+"/") {
			layer = s.local
			if st.Size() == 0 {
				seen[p] = nil // masked already
				return nil
			}
		}
		seen[p] = append(seen[p], layer)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("removing a trusted key: %w", err)
	}
	for _, p := range order {
		layers := seen[p]
		if len(layers) == 0 {
			continue
		}
		file := filepath.Join(dirOf(s.local, p.prefix), fpr)
		masked := slices.ContainsFunc(layers, func(l string) bool { return l != s.local })
		if masked {
			if err = mkdirAll(filepath.Dir(file)); err == nil {
				err = atomicfile.WriteFile(file, nil, 0o644)
			}
		} else {
			err = remove(file)
		}
		if err != nil {
			return done, fmt.Errorf("removing a trusted key: %w", err)
		}
		failpoint.Hit("keystore/removed")
		done = append(done, Removal{file, masked})
	}
	if len(done) == 0 {
		return nil, fmt.Errorf("removing the trusted key %q: %w", fpr, fs.ErrNotExist)
	}
	return done, nil
}

// remove removes a file for good.
func remove(file string) error {
	if err := os.Remove(file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
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

package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// Members of group rkt fetch and list: directories are setgid and group
// writable, files group writable, whatever the umask.
const (
	dirMode  = 0o770 | fs.ModeSetgid
	fileMode = 0o660
)

// readyFile proves that the directories of this version's layout exist.
const readyFile = "ready-2"

// Store is an image store; safe for concurrent use by processes and goroutines.
type Store struct {
	dir string
	o   Options
}

// Open opens the store in dir, creating its directories when missing.
func Open(dir string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Limits = o.Limits.withDefaults()
	s := &Store{dir: dir, o: o}
	// The last directory made proves the others: the usual case is one stat.
	if _, err := os.Stat(s.path(readyFile)); err == nil {
		return s, nil
	}
	for _, sub := range []string{"blob/sha512", "imageManifest/sha512", "objects/sha256", "records/images", "records/remotes",
		"records/names", "records/layers", "imagelocks", "layerlocks", "tmp"} {
		if err := s.mkdir(sub); err != nil {
			return nil, fmt.Errorf("opening image store %q: %w", dir, err)
		}
	}
	if err := os.WriteFile(s.path(readyFile), nil, fileMode); err != nil {
		return nil, fmt.Errorf("opening image store %q: %w", dir, err)
	}
	return s, nil
}

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

// TempDir is the store's directory for partial files.
func (s *Store) TempDir() string { return s.path("tmp") }

// TempFor is the name of the partial file of a source; whoever writes it holds
// an exclusive lock on it.
func (s *Store) TempFor(source string) string {
	return s.path("tmp", appc.HashPrefix+sourceHash(source))
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// mkdir makes a directory of the store and its missing parents with the
// store's mode; the data directory itself is given the same.
func (s *Store) mkdir(sub string) error {
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o750); err != nil {
		return err
	}
	dir := s.dir
	for _, part := range append([]string{""}, strings.Split(sub, "/")...) {
		dir = filepath.Join(dir, part)
		err := os.Mkdir(dir, 0o770)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = os.Chmod(dir, dirMode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func digits(key string) string { return strings.TrimPrefix(key, appc.HashPrefix) }

func (s *Store) blobPath(key string) string {
	return s.path("blob", "sha512", digits(key)[:2], key)
}

func (s *Store) manifestPath(key string) string {
	return s.path("imageManifest", "sha512", digits(key)[:2], key)
}

func (s *Store) recordPath(key string) string { return s.path("records", "images", key+".json") }
func (s *Store) lockPath(key string) string   { return s.path("imagelocks", key) }

func (s *Store) namePath(name, key string) string {
	return s.path("records", "names", sourceHash(name), key)
}

func (s *Store) remotePath(source string) string {
	return s.path("records", "remotes", sourceHash(source)+".json")
}

func sourceHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Lock locks an image: shared to read its blob, exclusive to import or remove it.
func (s *Store) Lock(key string, m lock.Mode) (*os.File, error) {
	if err := appc.CheckKey(key); err != nil {
		return nil, err
	}
	f, err := lock.Path(s.lockPath(key), m)
	if err != nil {
		return nil, fmt.Errorf("locking image %q: %w", key, err)
	}
	return f, nil
}

// ManifestBytes is an image's manifest as the image carried it.
func (s *Store) ManifestBytes(key string) ([]byte, error) {
	if err := appc.CheckKey(key); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(s.manifestPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image %q: %w", key, ErrNotFound)
	}
	return data, err
}

// Manifest is an image's parsed manifest.
func (s *Store) Manifest(key string) (*schema.ImageManifest, error) {
	data, err := s.ManifestBytes(key)
	if err != nil {
		return nil, err
	}
	m, _, err := appc.ParseImageManifest(data)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", key, err)
	}
	return m, nil
}

// blob is the plain tar out of a stored file that stays locked.
type blob struct {
	io.ReadCloser
	file, lock *os.File
}

func (b *blob) Close() error {
	return errors.Join(b.ReadCloser.Close(), b.file.Close(), b.lock.Close())
}

func openBlob(path string, l *os.File) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	plain, _, err := Decompress(f)
	if err != nil {
		return nil, errors.Join(err, f.Close(), l.Close())
	}
	return &blob{plain, f, l}, nil
}

// ReadBlob opens an image's plain tar; the image stays locked (shared) until
// the reader is closed. Whoever must rely on the content hashes it.
func (s *Store) ReadBlob(key string) (io.ReadCloser, error) {
	l, err := s.Lock(key, lock.Shared)
	if err != nil {
		return nil, err
	}
	b, err := openBlob(s.blobPath(key), l)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("image %q: %w", key, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Remove removes an image: its record, its sources, manifest and blob. Trees
// rendered from it are not touched.
func (s *Store) Remove(key string) error {
	l, err := s.Lock(key, lock.Exclusive)
	if err != nil {
		return err
	}
	defer l.Close()
	r, err := s.Record(key)
	if err != nil {
		return err
	}
	if err := os.Remove(s.recordPath(key)); err != nil {
		return fmt.Errorf("removing image %q: %w", key, err)
	}
	failpoint.Hit("store/remove-record")
	errs := []error{s.removeRemotes(key)}
	for _, p := range []string{s.namePath(r.Name, key), s.manifestPath(key), s.blobPath(key)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		failpoint.Hit("store/remove-file")
	}
	// Whoever waits for the lock compares the file with the name and opens again.
	if err := os.Remove(s.lockPath(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, s.removeObjects(r.objects()))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing files of image %q: %w", key, err)
	}
	return nil
}

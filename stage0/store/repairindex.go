package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// gone runs remove if the image has no record and nobody is at it: an import
// writes the record last.
func (s *Store) gone(key string, remove func() error) error {
	recorded := func() bool {
		_, err := os.Stat(s.recordPath(key))
		return err == nil
	}
	if recorded() {
		return nil
	}
	l, err := lock.TryPath(s.lockPath(key), lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if recorded() {
		return nil
	}
	return remove()
}

// oldFiles calls f for the regular files below a directory of the store that
// are older than before and whose names are no temporary file's.
func (s *Store) oldFiles(sub string, before time.Time, f func(path, name string) error) error {
	return filepath.WalkDir(s.path(sub), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		info, err := d.Info()
		if err != nil || info.ModTime().After(before) {
			return nil //nolint:nilerr // removed meanwhile
		}
		return f(path, d.Name())
	})
}

// cleanIndex removes names and sources that lead to no image: Remove takes the
// record away first.
func (s *Store) cleanIndex(before time.Time) error {
	names := s.oldFiles("records/names", before, func(path, key string) error {
		if appc.CheckKey(key) != nil {
			return nil
		}
		return s.gone(key, func() error {
			if err := removeAll(path); err != nil {
				return err
			}
			_ = os.Remove(filepath.Dir(path)) // unless there are more
			return nil
		})
	})
	sources := s.oldFiles("records/remotes", before, func(path, _ string) error {
		r, err := readRemote(path, "")
		if errors.Is(err, ErrNotFound) {
			return removeAll(path) // nobody can read it
		}
		if err != nil {
			return err
		}
		return s.gone(r.Key, func() error { return removeAll(path) })
	})
	return errors.Join(names, sources)
}

// cleanLayerLocks removes the lock files of layers that are not there.
func (s *Store) cleanLayerLocks() error {
	entries, err := os.ReadDir(s.path("layerlocks"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		digest := digestPrefix + e.Name()
		if appc.CheckDigest(digest) != nil {
			continue
		}
		if _, err := os.Stat(s.objectPath(digest)); err == nil {
			continue
		}
		l, err := lock.TryPath(s.layerLock(digest), lock.Exclusive)
		if err != nil {
			continue // in use
		}
		errs = append(errs, removeAll(l.Name()), l.Close())
	}
	return errors.Join(errs...)
}

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// Record is what the store knows about the image with this key.
func (s *Store) Record(key string) (Record, error) {
	if err := appc.CheckKey(key); err != nil {
		return Record{}, err
	}
	return s.readRecord(key)
}

func (s *Store) readRecord(key string) (Record, error) {
	f, err := os.Open(s.recordPath(key))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Record{}, fmt.Errorf("image %q: %w", key, ErrNotFound)
		}
		return Record{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Record{}, err
	}
	if st.Size() > 1<<20 {
		return Record{}, fmt.Errorf("record of image %q is too large", key)
	}
	data := make([]byte, st.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return Record{}, fmt.Errorf("reading record of image %q: %w", key, err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("record of image %q: %w", key, err)
	}
	if r.Key != key {
		return Record{}, fmt.Errorf("record of image %q names %q", key, r.Key)
	}
	r.LastUsed = st.ModTime()
	return r, nil
}

// putRecord writes a record; the caller holds the image's lock exclusively.
func (s *Store) putRecord(r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := s.recordPath(r.Key)
	if err := atomicfile.WriteFile(path, data, fileMode); err != nil {
		return err
	}
	return os.Chtimes(path, time.Time{}, r.LastUsed)
}

// update changes an image's record under its lock.
func (s *Store) update(key string, change func(*Record) bool) error {
	l, err := s.Lock(key, lock.Exclusive)
	if err != nil {
		return err
	}
	defer l.Close()
	r, err := s.readRecord(key)
	if err != nil || !change(&r) {
		return err
	}
	return s.putRecord(r)
}

// SetTreeSize notes the size of an image's rendered trees.
func (s *Store) SetTreeSize(key string, n int64) error {
	return s.update(key, func(r *Record) bool {
		changed := r.TreeSize != n
		r.TreeSize = n
		return changed
	})
}

// SetAdmission notes that an image passed a check that it had not passed before.
func (s *Store) SetAdmission(key string, a Admission) error {
	return s.update(key, func(r *Record) bool { return r.admit(a) })
}

// admit strengthens an admission, never weakens it.
func (r *Record) admit(a Admission) bool {
	if rank(a.Kind) <= rank(r.Admission.Kind) {
		return false
	}
	r.Admission = a
	return true
}

func rank(kind string) int {
	return slices.Index([]string{AdmittedUnsigned, AdmittedDigest, AdmittedSystem, AdmittedSigned}, kind)
}

// touchEvery is how exact the time of last use is.
const touchEvery = time.Minute

// Touch notes that an image is used now.
func (s *Store) Touch(key string) error {
	if err := appc.CheckKey(key); err != nil {
		return err
	}
	st, err := os.Stat(s.recordPath(key))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("image %q: %w", key, ErrNotFound)
		}
		return err
	}
	now := s.o.Now()
	if d := now.Sub(st.ModTime()); d >= 0 && d < touchEvery {
		return nil
	}
	return os.Chtimes(s.recordPath(key), time.Time{}, now)
}

func (s *Store) keys() ([]string, error) {
	d, err := os.Open(s.path("records", "images"))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	keys := names[:0]
	for _, n := range names {
		key, ok := strings.CutSuffix(n, ".json")
		if ok && appc.CheckKey(key) == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// Records lists all images by key. It returns the good records even when some
// are bad; the error joins what is wrong with those.
func (s *Store) Records() ([]Record, error) {
	keys, err := s.keys()
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	records := make([]Record, 0, len(keys))
	var errs []error
	for _, key := range keys {
		r, err := s.readRecord(key)
		switch {
		case err == nil:
			records = append(records, r)
		case !errors.Is(err, ErrNotFound): // removed since the listing
			errs = append(errs, err)
		}
	}
	return records, errors.Join(errs...)
}

// Named lists the images of a name.
func (s *Store) Named(name string) ([]Record, error) {
	entries, err := os.ReadDir(filepath.Dir(s.namePath(name, "x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking up image %q: %w", name, err)
	}
	var records []Record
	for _, e := range entries {
		r, err := s.Record(e.Name())
		switch {
		case errors.Is(err, ErrNotFound): // left by a crash
		case err != nil:
			return nil, err
		case r.Name == name:
			records = append(records, r)
		}
	}
	return records, nil
}

// Find is the best match for a name and labels: every label asked for must be
// there with that value; without a version, images fetched as the latest come
// first; among equals the last imported.
func (s *Store) Find(name string, labels map[string]string) (Record, error) {
	return s.FindFunc(name, labels, nil)
}

// FindFunc is Find among the images that ok accepts.
func (s *Store) FindFunc(name string, labels map[string]string, ok func(Record) bool) (Record, error) {
	records, err := s.Named(name)
	if err != nil {
		return Record{}, err
	}
	_, versioned := labels["version"]
	var best *Record
	for i := range records {
		r := &records[i]
		if !r.Matches(labels) || (ok != nil && !ok(*r)) {
			continue
		}
		switch {
		case best == nil:
			best = r
		case !versioned && r.Latest != best.Latest:
			if r.Latest {
				best = r
			}
		case r.ImportTime.After(best.ImportTime):
			best = r
		}
	}
	if best == nil {
		return Record{}, fmt.Errorf("image %q: %w", name, ErrNotFound)
	}
	return *best, nil
}

// Matches says whether the image has all the labels, with those values.
func (r Record) Matches(labels map[string]string) bool {
	for k, v := range labels {
		if have, ok := r.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Resolve finds the one image whose ID begins with hash ("sha512-" and 2 to
// 128 digits, all of which must match).
func (s *Store) Resolve(hash string) (Record, error) {
	d, err := appc.CheckHash(hash)
	if err != nil {
		return Record{}, err
	}
	if len(d) < 2 {
		return Record{}, fmt.Errorf("%w: %q", ErrShortID, hash)
	}
	prefix := appc.HashPrefix + d
	if len(d) >= appc.KeyDigits {
		r, err := s.Record(appc.Key(prefix))
		if errors.Is(err, ErrNotFound) || err == nil && !strings.HasPrefix(r.ID, prefix) {
			return Record{}, fmt.Errorf("image %q: %w", hash, ErrNoMatch)
		}
		return r, err
	}
	keys, err := s.keys()
	if err != nil {
		return Record{}, err
	}
	keys = slices.DeleteFunc(keys, func(k string) bool { return !strings.HasPrefix(k, prefix) })
	switch len(keys) {
	case 0:
		return Record{}, fmt.Errorf("image %q: %w", hash, ErrNoMatch)
	case 1:
		return s.Record(keys[0])
	}
	return Record{}, &AmbiguousError{Prefix: hash, Keys: keys}
}

// Remote is what is known about a source; ErrNotFound if nothing is.
func (s *Store) Remote(source string) (Remote, error) {
	return readRemote(s.remotePath(source), source)
}

func readRemote(path, source string) (Remote, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Remote{}, fmt.Errorf("source %q: %w", source, ErrNotFound)
	}
	if err != nil {
		return Remote{}, err
	}
	var r Remote
	// A record nobody can read is as good as none: it only saves work.
	if json.Unmarshal(data, &r) != nil || (source != "" && r.Source != source) || appc.CheckKey(r.Key) != nil {
		return Remote{}, fmt.Errorf("source %q: %w", source, ErrNotFound)
	}
	return r, nil
}

// PutRemote records a source, replacing what was known about it.
func (s *Store) PutRemote(r Remote) error {
	if err := appc.CheckKey(r.Key); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	failpoint.Hit("store/remote")
	return atomicfile.WriteFile(s.remotePath(r.Source), data, fileMode)
}

func (s *Store) removeRemotes(key string) error {
	entries, err := os.ReadDir(s.path("records", "remotes"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := s.path("records", "remotes", e.Name())
		if r, err := readRemote(path, ""); err == nil && r.Key == key {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

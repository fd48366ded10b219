package store

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// blobs calls f for every blob's key, path and metadata.
func (s *Store) blobs(f func(key, path string, info fs.FileInfo) error) error {
	root := s.path("blob", "sha512")
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || appc.CheckKey(d.Name()) != nil || path != s.blobPath(d.Name()) {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return f(d.Name(), path, info)
	})
}

// Rebuild makes records for blobs that have none, reading each to its end; how
// they were admitted is lost, so they count as unsigned. It returns how many
// it made.
func (s *Store) Rebuild(ctx context.Context) (int, error) {
	made := 0
	var errs []error
	err := s.blobs(func(key, path string, info fs.FileInfo) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		ok, err := s.rebuild(ctx, key, path, info)
		if err != nil {
			errs = append(errs, fmt.Errorf("rebuilding record of image %q: %w", key, err))
		}
		if ok {
			made++
		}
		return nil
	})
	return made, errors.Join(append(errs, err)...)
}

func (s *Store) rebuild(ctx context.Context, key, path string, info fs.FileInfo) (bool, error) {
	l, err := s.Lock(key, lock.Exclusive)
	if err != nil {
		return false, err
	}
	defer l.Close()
	if _, err := s.readRecord(key); err == nil {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	u, err := s.reread(ctx, f)
	if err != nil {
		return false, err
	}
	manifest, id := u.manifest, u.id
	if appc.Key(id) != key {
		return false, errors.New("the blob's content does not match its name")
	}
	m, _, err := appc.ParseImageManifest(manifest)
	if err != nil {
		return false, err
	}
	if err := s.mkdir("imageManifest/sha512/" + digits(key)[:2]); err != nil {
		return false, err
	}
	if err := atomicfile.WriteFile(s.manifestPath(key), manifest, fileMode); err != nil {
		return false, err
	}
	if err := s.index(m.Name.String(), key); err != nil {
		return false, err
	}
	rec := Record{
		Key: key, ID: id, Name: m.Name.String(), Labels: appc.Labels(m),
		ImportTime: info.ModTime(), LastUsed: s.o.Now(), Size: u.size, Compressed: info.Size(), Stored: info.Size(),
		Admission: Admission{Kind: AdmittedUnsigned},
	}
	layered, err := appc.Layers(m)
	if err != nil {
		return false, err
	}
	if layered != nil {
		rec.Documents = []string{layered.Manifest, layered.Config}
		for _, r := range layered.Layers {
			l, err := s.rebuildLayer(ctx, r)
			if err != nil {
				return false, err
			}
			rec.Layers = append(rec.Layers, l)
			rec.Size += l.Plain
			rec.Compressed += l.Size
		}
	}
	return true, s.putRecord(rec)
}

// reread reads a stored image's own file to its end.
func (s *Store) reread(ctx context.Context, f io.Reader) (u unpacked, err error) {
	in := &countingReader{ctx: ctx, r: f}
	plain, _, err := Decompress(in)
	if err != nil {
		return u, err
	}
	h := sha512.New()
	err = through(ctx, plain, s.check(in), func(b []byte) error {
		u.size += int64(len(b))
		h.Write(b)
		return nil
	}, func(r io.Reader) (err error) {
		u.manifest, err = readLayout(r, s.o.Limits.Entries, nil)
		return err
	})
	u.id = appc.HashPrefix + hex.EncodeToString(h.Sum(nil))
	return u, errors.Join(err, plain.Close())
}

// rebuildLayer makes a layer's record anew from its bytes, if it has none.
func (s *Store) rebuildLayer(ctx context.Context, r appc.LayerRef) (Layer, error) {
	if l, err := s.Layer(r.Digest); err == nil {
		return l, nil
	}
	f, err := s.OpenLayer(r.Digest)
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	l, err := s.readLayer(ctx, f, Layer{Digest: r.Digest, DiffID: r.DiffID, Size: r.Size}, nil, f)
	if err != nil {
		return Layer{}, fmt.Errorf("layer %q: %w", r.Digest, err)
	}
	return l, s.putLayer(l)
}

// Clean removes what crashes left behind: partial files that nobody holds
// locked and that are older than age, blobs, manifests, names and sources
// without a record, and unused lock files. It returns the number of bytes freed.
func (s *Store) Clean(ctx context.Context, age time.Duration) (int64, error) {
	before := s.o.Now().Add(-age)
	freed, err := s.cleanTemp(before)
	errs := []error{err}
	errs = append(errs, s.blobs(func(key, path string, info fs.FileInfo) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if info.ModTime().After(before) {
			return nil
		}
		gone, err := s.cleanOrphan(key)
		if gone {
			freed += info.Size()
		}
		return err
	}), s.cleanPartial(before), s.cleanIndex(before), s.cleanLocks())
	objects, err := s.cleanObjects(before)
	return freed + objects, errors.Join(append(errs, err, s.cleanLayerLocks())...)
}

func (s *Store) cleanTemp(before time.Time) (int64, error) {
	entries, err := os.ReadDir(s.TempDir())
	if err != nil {
		return 0, err
	}
	var freed int64
	var errs []error
	for _, e := range entries {
		path := filepath.Join(s.TempDir(), e.Name())
		info, err := e.Info()
		if err != nil || info.ModTime().After(before) {
			continue
		}
		if info.Mode().IsRegular() {
			f, err := lock.TryPath(path, lock.Exclusive)
			if err != nil { // in use
				continue
			}
			freed += info.Size()
			err = os.Remove(path)
			errs = append(errs, err, f.Close())
			continue
		}
		errs = append(errs, os.RemoveAll(path))
	}
	return freed, errors.Join(errs...)
}

// cleanPartial removes what a killed writer of small files left: their
// temporary files begin with a dot.
func (s *Store) cleanPartial(before time.Time) error {
	var errs []error
	for _, sub := range []string{"records", "imageManifest", "objects", "tmp"} {
		err := filepath.WalkDir(s.path(sub), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(d.Name(), ".") {
				return err
			}
			info, err := d.Info()
			if err == nil && !info.ModTime().After(before) {
				err = os.Remove(path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cleanOrphan removes the files of an image without a record.
func (s *Store) cleanOrphan(key string) (bool, error) {
	removed := false
	err := s.gone(key, func() error {
		for _, p := range []string{s.manifestPath(key), s.blobPath(key)} {
			if err := removeAll(p); err != nil {
				return err
			}
			failpoint.Hit("store/clean")
		}
		removed = true
		return nil
	})
	return removed, err
}

func (s *Store) cleanLocks() error {
	entries, err := os.ReadDir(s.path("imagelocks"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if _, err := os.Stat(s.recordPath(e.Name())); err == nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		l, err := lock.TryPath(s.lockPath(e.Name()), lock.Exclusive)
		if err != nil {
			continue // in use
		}
		if err := os.Remove(l.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

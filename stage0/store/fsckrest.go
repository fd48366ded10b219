package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// orphans finds blobs and manifests without a record.
func (c *checker) orphans() error {
	known := func(key string) bool {
		_, err := os.Stat(c.recordPath(key))
		return err == nil
	}
	err := c.blobs(func(key, path string, info fs.FileInfo) error {
		if known(key) || c.busy(key) {
			return c.ctx.Err()
		}
		c.found(Finding{Kind: "blob", Object: key, Problem: "no record leads to this image", Leftover: true,
			Remedy: "its record is made again, or, if it is damaged, it is removed"}, FindingRepaired, func() error { return c.remake(key) })
		return c.ctx.Err()
	})
	if err != nil {
		return err
	}
	return c.walk("imageManifest", func(path string, d fs.DirEntry) {
		key := d.Name()
		if appc.CheckKey(key) != nil || path != c.manifestPath(key) || known(key) || c.busy(key) {
			return
		}
		if _, err := os.Stat(c.blobPath(key)); err == nil {
			return // reported before
		}
		c.found(Finding{Kind: "manifest", Object: key, Problem: "its image is not there", Remedy: "it is removed", Leftover: true},
			FindingRemoved, func() error { return c.alone(key, func() error { return removeAll(path) }) })
	})
}

// busy says whether somebody is importing or removing the image.
func (c *checker) busy(key string) bool {
	return c.busyNow(key) || c.hasRecord(key) // by now
}

// walk calls f for the regular files below a directory of the store.
func (c *checker) walk(sub string, f func(path string, d fs.DirEntry)) error {
	return filepath.WalkDir(c.path(sub), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			f(path, d)
		}
		return c.ctx.Err()
	})
}

// names finds entries of the index that lead to no image.
func (c *checker) names() error {
	return c.walk("records/names", func(path string, d fs.DirEntry) {
		r, err := c.Record(d.Name())
		switch {
		case isTemp(d.Name()) || err == nil && path == c.namePath(r.Name, r.Key):
			return
		case appc.CheckKey(d.Name()) == nil && (err != nil && c.hasRecord(d.Name()) || c.busyNow(d.Name())):
			return // a bad record was reported; an import writes the index first
		}
		c.found(Finding{Kind: "index", Object: d.Name(), Problem: "a name leads to an image that is not there", Remedy: "the entry is removed", Leftover: true},
			FindingRemoved, func() error {
				err := removeAll(path)
				_ = os.Remove(filepath.Dir(path)) // unless there are more
				return err
			})
	})
}

// busyNow says whether somebody holds the image alone.
func (c *checker) busyNow(key string) bool {
	l, err := lock.TryPath(c.lockPath(key), lock.Shared)
	if err != nil {
		return errors.Is(err, lock.ErrLocked)
	}
	_ = l.Close() // a read lock
	return false
}

// remotes finds sources whose image is not there.
func (c *checker) remotes() error {
	return c.walk("records/remotes", func(path string, d fs.DirEntry) {
		if isTemp(d.Name()) {
			return
		}
		f := Finding{Kind: "source", Object: d.Name(), Remedy: "the record of the source is removed", Leftover: true}
		r, err := readRemote(path, "")
		if err != nil {
			f.Problem = "the record of a source cannot be read"
		} else if f.Object = r.Source; c.hasRecord(r.Key) {
			return
		} else {
			f.Problem = "its image is not there"
		}
		c.found(f, FindingRemoved, func() error { return removeAll(path) })
	})
}

func (c *checker) hasRecord(key string) bool {
	_, err := os.Stat(c.recordPath(key))
	return err == nil
}

// objects finds layers and documents that no image refers to, and records of
// layers without their bytes.
func (c *checker) objects() error {
	used, err := c.usedObjects()
	if err != nil {
		return nil //nolint:nilerr // the bad record was reported; what it refers to is not known
	}
	drop := func(digest string) error {
		l, err := lock.TryPath(c.layerLock(digest), lock.Exclusive)
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
		return c.removeObjects([]string{digest})
	}
	err = c.walk("objects", func(path string, d fs.DirEntry) {
		digest := digestPrefix + d.Name()
		if appc.CheckDigest(digest) != nil || used[digest] || path != c.objectPath(digest) {
			return
		}
		c.found(Finding{Kind: "layer", Object: digest, Problem: "no image refers to it", Leftover: true,
			Remedy: "it is removed; an interrupted fetch would have used it"}, FindingRemoved, func() error { return drop(digest) })
	})
	if err != nil {
		return err
	}
	return c.walk("records/layers", func(path string, d fs.DirEntry) {
		digest := digestPrefix + strings.TrimSuffix(d.Name(), ".json")
		if appc.CheckDigest(digest) != nil {
			return
		}
		if _, err := os.Stat(c.objectPath(digest)); err == nil {
			data, err := os.ReadFile(path)
			if err != nil || json.Valid(data) {
				return
			}
		}
		c.found(Finding{Kind: "layer", Object: digest, Problem: "there is a record of it, but it is not there whole", Leftover: !used[digest],
			Remedy: "the record is removed"}, FindingRemoved, func() error { return removeAll(path) })
	})
}

// temporary finds what killed writers left.
func (c *checker) temporary() error {
	now := c.Store.o.Now()
	entries, err := os.ReadDir(c.TempDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < tempAge {
			continue
		}
		path := filepath.Join(c.TempDir(), e.Name())
		c.found(Finding{Kind: "temporary", Object: path, Problem: "a partial file that nobody went on with for a day", Remedy: "it is removed", Leftover: true},
			FindingRemoved, func() error {
				l, err := lock.TryPath(path, lock.Exclusive)
				if err != nil {
					return err
				}
				return errors.Join(os.RemoveAll(path), l.Close())
			})
	}
	for _, sub := range []string{"records", "imageManifest", "objects"} {
		err := c.walk(sub, func(path string, d fs.DirEntry) {
			info, err := d.Info()
			if err != nil || !isTemp(d.Name()) || now.Sub(info.ModTime()) < smallAge {
				return
			}
			c.found(Finding{Kind: "temporary", Object: path, Problem: "a file that was never written whole", Remedy: "it is removed", Leftover: true},
				FindingRemoved, func() error { return removeAll(path) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Usage is the bytes that images, layers and partial files take on the disk,
// without rendered trees.
func (s *Store) Usage() (int64, error) {
	var sum int64
	for _, sub := range []string{"blob", "imageManifest", "objects", "tmp"} {
		err := filepath.WalkDir(s.path(sub), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				if errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
				return err
			}
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return sum, nil
}

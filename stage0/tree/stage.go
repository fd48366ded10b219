package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// stagePrefix begins the names of directories that nobody knows yet; a locked
// one is in use.
const stagePrefix = ".stage-"

// Stage is the tree of an ACI that is extracted while it is imported, before
// anybody knows what it is: a store.Visitor.
type Stage struct {
	t        *Trees
	dir      string
	lock     *os.File
	x        *extractor
	manifest []byte
}

// Stage begins a tree. The caller closes it.
func (t *Trees) Stage() (*Stage, error) {
	if err := privateDir(t.dir); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(t.dir, stagePrefix)
	if err != nil {
		return nil, err
	}
	st := &Stage{t: t, dir: dir}
	if st.lock, err = lock.TryDir(dir, lock.Exclusive); err == nil {
		st.x, err = t.newRootfs(dir)
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return st, nil
}

// Entry extracts an entry.
func (st *Stage) Entry(rel string, h *tar.Header, body io.Reader) error {
	return st.x.aci(rel, h, body, nil, nil)
}

// Manifest notes the manifest.
func (st *Stage) Manifest(data []byte) { st.manifest = data }

// Adopt makes the stage the tree of the imported image, if the image alone
// makes up its tree and nobody was faster.
func (st *Stage) Adopt(ctx context.Context, key string) error {
	id, layers, err := st.t.plan(key)
	if err != nil || len(layers) != 1 || len(layers[0].lists) > 0 || layers[0].layered != nil {
		return nil //nolint:nilerr // Render tells what is wrong with the plan
	}
	if !bytes.Equal(layers[0].manifest, st.manifest) {
		return errors.New("the stored manifest is not the image's own")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l, err := st.t.lock(id, lock.Exclusive)
	if err != nil {
		return err
	}
	defer l.Close()
	tree := st.t.tree(id)
	tree.Key = key
	if st.t.rendered(id) {
		return nil
	}
	if err := st.t.remove(tree); err != nil {
		return err
	}
	if err := st.x.finish(); err != nil {
		return err
	}
	if err := st.x.writeSize(st.dir); err != nil {
		return err
	}
	if err := atomicfile.WriteFileNoSync(filepath.Join(st.dir, manifestFile), st.manifest, 0o644); err != nil {
		return err
	}
	failpoint.Hit("tree/staged")
	if err := os.Rename(st.dir, tree.dir); err != nil {
		return err
	}
	failpoint.Hit("tree/adopted")
	return st.t.finish(tree)
}

// Close ends the stage and removes what was not adopted.
func (st *Stage) Close() error {
	if st.x != nil {
		st.x.close()
	}
	err := os.RemoveAll(st.dir)
	if st.lock != nil {
		err = errors.Join(err, st.lock.Close())
	}
	return err
}

// cleanStages removes stages whose makers died, unless images are being
// rendered just now: a stage is there before it is locked.
func (t *Trees) cleanStages() error {
	all, err := lock.TryPath(filepath.Join(t.store.Dir(), "treestorelocks", "all"), lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer all.Close()
	dirs, err := filepath.Glob(filepath.Join(t.dir, stagePrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		l, err := lock.TryDir(dir, lock.Exclusive)
		if err != nil { // in use, or gone
			continue
		}
		errs = append(errs, os.RemoveAll(dir), l.Close())
	}
	return errors.Join(errs...)
}

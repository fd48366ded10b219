package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// layerPrefix begins the id of every layer's tree: the chain ID follows, which
// names the layer and all below it, so that images share what they have in
// common.
const layerPrefix = "layer-sha256-"

// maxLowers is how many layers an overlay is made of; images with more are
// also copied together.
const maxLowers = 128

func isLayerID(id string) bool {
	chain, ok := strings.CutPrefix(id, layerPrefix)
	return ok && appc.CheckDigest("sha256:"+chain) == nil
}

// Hold keeps layers that are being rendered from being collected, until the
// result is closed.
func (t *Trees) Hold() (*os.File, error) { return t.lock("all", lock.Shared) }

// readLayers finds a tree's layers: ErrNotRendered if one is missing.
func (t *Trees) readLayers(tree *Tree) error {
	data, err := os.ReadFile(filepath.Join(tree.dir, layersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var ids []string
	for id := range strings.FieldsSeq(string(data)) {
		if !isLayerID(id) || !marked(filepath.Join(t.dir, id)) {
			return fmt.Errorf("tree %q: layer %q: %w", tree.ID, id, ErrNotRendered)
		}
		ids = append(ids, id)
	}
	tree.layers, err = t.lowers(ids)
	return err
}

// lowers are the directories that make up a stack of layers, top first. What
// lies below an opaque root does not count: overlayfs would not ask the root.
func (t *Trees) lowers(ids []string) ([]string, error) {
	out := []string{}
	for i := len(ids) - 1; i >= 0; i-- {
		dir := filepath.Join(t.dir, ids[i], rootfsDir)
		out = append(out, dir)
		d, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		opaque, err := isOpaque(int(d.Fd()))
		d.Close()
		if err != nil || opaque {
			return out, err
		}
	}
	return out, nil
}

func layerIDs(l *appc.Layered) []string {
	ids := l.ChainIDs()
	for i := range ids {
		ids[i] = layerPrefix + ids[i]
	}
	return ids
}

// renderLayers renders the layers of an image that are not rendered yet, from
// the store.
func (t *Trees) renderLayers(ctx context.Context, layered *appc.Layered) error {
	for i, r := range layered.Layers {
		st, err := t.StageLayer(layered, i)
		if err != nil {
			return err
		}
		if st == nil {
			continue
		}
		want := store.Layer{Digest: r.Digest, DiffID: r.DiffID, Size: r.Size}
		err = st.Replay(ctx, want)
		if err := errors.Join(err, st.Close()); err != nil {
			return err
		}
	}
	return nil
}

// LayerStage is a layer's tree that is being filled.
type LayerStage struct {
	t      *Trees
	dir    string
	lowers []string
	lock   *os.File
	x      *layerExtractor
	// finished is set when finish was called, done when the tree counts.
	finished, done bool
}

// StageLayer begins the tree of an image's layer i, those below being rendered.
// It waits for whoever is at it already; the result is nil if there is nothing
// left to do. The caller holds Hold, and closes the stage.
func (t *Trees) StageLayer(layered *appc.Layered, i int) (*LayerStage, error) {
	ids := layerIDs(layered)[:i+1]
	id := ids[i]
	if t.rendered(id) {
		return nil, nil
	}
	l, err := t.lock(id, lock.Exclusive)
	if err != nil {
		return nil, err
	}
	if t.rendered(id) {
		return nil, l.Close()
	}
	st := &LayerStage{t: t, dir: filepath.Join(t.dir, id), lock: l}
	if st.lowers, err = t.lowers(ids[:i]); err == nil {
		if err = privateDir(t.dir); err == nil {
			err = st.restart()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rendering layer %q: %w", layered.Layers[i].Digest, err), st.Close())
	}
	return st, nil
}

// restart begins with an empty directory.
func (st *LayerStage) restart() error {
	if st.x != nil {
		st.x.close()
		st.x = nil
	}
	if err := st.t.remove(&Tree{dir: st.dir}); err != nil {
		return err
	}
	if err := os.Mkdir(st.dir, 0o700); err != nil {
		return err
	}
	if err := makeRootfs(st.dir); err != nil {
		return err
	}
	var err error
	st.x, err = newLayerExtractor(filepath.Join(st.dir, rootfsDir), st.lowers, st.t.o.Limits, st.t.o.Warn)
	return err
}

// Entry extracts one entry; it is a store.LayerVisitor.
func (st *LayerStage) Entry(h *tar.Header, body io.Reader) error { return st.x.layerEntry(h, body) }

// replay extracts a stored layer, twice if its whiteouts come too late: then
// they are known from the first time.
func (st *LayerStage) replay(ctx context.Context, want store.Layer) error {
	if err := st.t.store.ReplayLayer(ctx, want, st.Entry); err != nil {
		return err
	}
	err := st.x.finishLayer()
	if !errors.Is(err, errLateWhiteout) {
		st.finished = err == nil
		return err
	}
	whiteouts, opaque := st.x.whiteouts, st.x.opaque
	if err := st.restart(); err != nil {
		return err
	}
	st.x.whiteouts, st.x.opaque = whiteouts, opaque
	return st.t.store.ReplayLayer(ctx, want, st.Entry)
}

// Replay extracts a layer that is in the store, and makes its tree count. What
// was extracted before is dropped.
func (st *LayerStage) Replay(ctx context.Context, want store.Layer) error {
	st.finished = false
	if err := st.restart(); err != nil {
		return err
	}
	if err := st.replay(ctx, want); err != nil {
		return err
	}
	return st.Commit()
}

// finish writes what can be written only when all entries are there.
func (st *LayerStage) finish() error {
	if st.finished {
		return nil
	}
	st.finished = true
	return st.x.finishLayer()
}

// Commit makes the layer's tree count. The caller knows that its content was
// what it should be.
func (st *LayerStage) Commit() error {
	if err := st.finish(); err != nil {
		return err
	}
	if err := st.x.writeSize(st.dir); err != nil {
		return err
	}
	failpoint.Hit("tree/layer-extracted")
	if err := st.t.mark(st.dir); err != nil {
		return err
	}
	st.done = true
	return nil
}

// Late says whether Commit failed since the layer must be read again: Render
// does that.
func Late(err error) bool { return errors.Is(err, errLateWhiteout) }

// Close ends the stage; without a Commit its tree is removed.
func (st *LayerStage) Close() error {
	var err error
	if st.x != nil {
		st.x.close()
	}
	if !st.done {
		err = st.t.remove(&Tree{dir: st.dir})
	}
	return errors.Join(err, st.lock.Close())
}

func (x *extractor) writeSize(dir string) error {
	return atomicfile.WriteFileNoSync(filepath.Join(dir, sizeFile), []byte(strconv.FormatInt(x.bytes, 10)), 0o644)
}

// fillLayered writes what the tree of an image made of layers is: the list of
// them, or, where there are too many for an overlay, a copy of what they show.
func (t *Trees) fillLayered(ctx context.Context, tree *Tree, l layer) error {
	if err := t.checkBlob(ctx, l); err != nil {
		return err
	}
	ids := layerIDs(l.layered)
	if len(ids) == 0 || len(ids) > maxLowers {
		if err := t.squash(ctx, tree, ids); err != nil {
			return err
		}
	} else if err := atomicfile.WriteFileNoSync(filepath.Join(tree.dir, layersFile), []byte(strings.Join(ids, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return atomicfile.WriteFileNoSync(tree.ManifestPath(), l.manifest, 0o644)
}

func (t *Trees) squash(ctx context.Context, tree *Tree, ids []string) error {
	if err := makeRootfs(tree.dir); err != nil || len(ids) == 0 {
		return err
	}
	lowers, err := t.lowers(ids)
	if err != nil {
		return err
	}
	return Copy(ctx, lowers, tree.Rootfs())
}

// checkBlob checks that an image's own archive has the right hash and holds the
// manifest that the plan was made from.
func (t *Trees) checkBlob(ctx context.Context, l layer) error {
	dir, err := os.MkdirTemp(t.dir, stagePrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	x, err := newExtractor(dir, t.o.Limits, nil)
	if err != nil {
		return err
	}
	defer x.close()
	_, err = t.extract(ctx, x, l)
	return err
}

// Collect removes the trees whose ids keep does not accept, and the layers that
// no remaining tree is made of, unless images are being rendered just now. It
// returns how many trees and how many bytes went. Nobody prepares pods
// meanwhile. With dry set, nothing is removed.
func (t *Trees) Collect(ctx context.Context, keep func(id string) bool, dry bool) (n int, freed int64, err error) {
	l, err := lock.TryPath(filepath.Join(t.store.Dir(), "treestorelocks", "all"), lock.Exclusive)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if errors.Is(err, lock.ErrLocked) {
		return 0, 0, ErrBusy
	}
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	ids, err := t.ids()
	if err != nil {
		return 0, 0, err
	}
	used := map[string]bool{}
	var gone []string
	for _, id := range ids {
		switch {
		case isLayerID(id):
		case keep(id):
			data, _ := os.ReadFile(filepath.Join(t.dir, id, layersFile)) // none: none used
			for layer := range strings.FieldsSeq(string(data)) {
				used[layer] = true
			}
		default:
			gone = append(gone, id)
		}
	}
	for _, id := range ids {
		if isLayerID(id) && !used[id] {
			gone = append(gone, id)
		}
	}
	var errs []error
	for _, id := range gone {
		var size int64
		if _, err := os.Stat(filepath.Join(t.dir, id, rootfsDir)); err == nil {
			size, _ = readSize(filepath.Join(t.dir, id)) // for the report alone
		}
		if !dry {
			if err := t.removeID(ctx, id); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		n++
		freed += size
	}
	return n, freed, errors.Join(errs...)
}

// ErrBusy means that trees are being rendered.
var ErrBusy = errors.New("images are being rendered")

package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// Verify compares a tree with its image: it is made again beside, from verified
// bytes, and the two are hashed. ErrChanged tells that they differ.
func (t *Trees) Verify(ctx context.Context, tree *Tree) error {
	_, err := t.verify(ctx, tree)
	return err
}

// verify also tells the ids of what differs: the tree itself, or layers.
func (t *Trees) verify(ctx context.Context, tree *Tree) ([]string, error) {
	hold, err := t.Hold()
	if err != nil {
		return nil, err
	}
	defer hold.Close()
	if !t.rendered(tree.ID) {
		return nil, fmt.Errorf("tree %q: %w", tree.ID, ErrNotRendered)
	}
	_, layers, err := t.plan(tree.Key)
	if err != nil {
		return nil, err
	}
	var bad []string
	layered := layers[len(layers)-1].layered
	if layered != nil {
		for i := range layered.Layers {
			same, err := t.sameLayer(ctx, layered, i)
			if err != nil {
				return nil, err
			}
			if !same {
				bad = append(bad, layerIDs(layered)[i])
			}
		}
	}
	if layered == nil || tree.layers == nil {
		same, err := t.sameTree(ctx, tree, layers)
		if err != nil {
			return nil, err
		}
		if !same {
			bad = append(bad, tree.ID)
		}
	}
	if len(bad) > 0 {
		return bad, fmt.Errorf("tree %q: %w", tree.ID, ErrChanged)
	}
	return nil, nil
}

// beside makes a directory for a second version of something.
func (t *Trees) beside(f func(dir string) error) error {
	dir, err := os.MkdirTemp(t.dir, stagePrefix)
	if err != nil {
		return err
	}
	l, err := lock.TryDir(dir, lock.Exclusive)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return errors.Join(f(dir), os.RemoveAll(dir), l.Close())
}

func (t *Trees) sameTree(ctx context.Context, tree *Tree, layers []layer) (same bool, err error) {
	l, err := t.lock(tree.ID, lock.Shared)
	if err != nil {
		return false, err
	}
	defer l.Close()
	err = t.beside(func(dir string) error {
		second := &Tree{ID: tree.ID, Key: tree.Key, dir: dir}
		if err := t.fill(ctx, second, layers); err != nil {
			return err
		}
		same, err = sameHash(ctx, tree.Rootfs(), second.Rootfs())
		return err
	})
	return same, err
}

func (t *Trees) sameLayer(ctx context.Context, layered *appc.Layered, i int) (same bool, err error) {
	ids := layerIDs(layered)
	l, err := t.lock(ids[i], lock.Shared)
	if err != nil {
		return false, err
	}
	defer l.Close()
	lowers, err := t.lowers(ids[:i])
	if err != nil {
		return false, err
	}
	r := layered.Layers[i]
	want := store.Layer{Digest: r.Digest, DiffID: r.DiffID, Size: r.Size}
	err = t.beside(func(dir string) error {
		st := &LayerStage{t: t, dir: dir, lowers: lowers}
		defer func() {
			if st.x != nil {
				st.x.close()
			}
		}()
		if err := makeRootfs(dir); err != nil {
			return err
		}
		second := filepath.Join(dir, rootfsDir)
		if st.x, err = newLayerExtractor(second, lowers, t.o.Limits, nil); err != nil {
			return err
		}
		err := st.replay(ctx, want)
		if err == nil {
			err = st.finish()
		}
		if err != nil {
			return err
		}
		same, err = sameHash(ctx, filepath.Join(t.dir, ids[i], rootfsDir), second)
		return err
	})
	return same, err
}

func sameHash(ctx context.Context, a, b string) (bool, error) {
	x, err := hashTree(ctx, a)
	if err != nil {
		return false, err
	}
	y, err := hashTree(ctx, b)
	return x == y, err
}

// Repair renders an image again, whatever its tree looks like.
func (t *Trees) Repair(ctx context.Context, key string) (*Tree, error) {
	id, _, err := t.plan(key)
	if err != nil {
		return nil, err
	}
	bad := []string{id}
	if tree, err := t.Get(id); err == nil {
		tree.Key = key
		if ids, err := t.verify(ctx, tree); errors.Is(err, ErrChanged) {
			bad = append(bad, ids...)
		}
	}
	for _, id := range bad {
		if err := t.removeID(ctx, id); err != nil {
			return nil, err
		}
	}
	return t.Render(ctx, key)
}

package tree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// A tree's mark is its file "rendered". A tree can be made again from its image
// at any time, so nobody waits for the disk when one is rendered: the mark then
// holds the ID of the boot, and counts until the machine goes down. Settle
// syncs such trees and makes their marks empty: they count for ever.

const bootIDFile = "/proc/sys/kernel/random/boot_id"

func bootID() string {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// mark marks a filled tree rendered.
func (t *Trees) mark(dir string) error {
	boot := bootID()
	if boot == "" {
		if err := syncTree(dir); err != nil {
			return err
		}
	}
	err := atomicfile.WriteFileNoSync(filepath.Join(dir, renderedFile), []byte(boot), 0o644)
	failpoint.Hit("tree/rendered")
	return err
}

// rendered says whether a tree, or a layer, is there whole.
func (t *Trees) rendered(id string) bool {
	if isLayerID(id) {
		return marked(filepath.Join(t.dir, id))
	}
	return t.load(t.tree(id))
}

// load says whether a tree is there whole, and finds its layers if it is.
func (t *Trees) load(tree *Tree) bool { return marked(tree.dir) && t.readLayers(tree) == nil }

func marked(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, renderedFile))
	return err == nil && (len(data) == 0 || string(data) == bootID())
}

func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return sys.Syncfs(d)
}

// Settle makes the trees rendered since the machine started outlive it.
func (t *Trees) Settle() error {
	ids, err := t.ids()
	if err != nil {
		return err
	}
	var fresh []string
	for _, id := range ids {
		if data, err := os.ReadFile(filepath.Join(t.dir, id, renderedFile)); err == nil && len(data) > 0 && string(data) == bootID() {
			fresh = append(fresh, id)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := syncTree(t.dir); err != nil {
		return err
	}
	failpoint.Hit("tree/synced")
	var errs []error
	for _, id := range fresh {
		errs = append(errs, t.settle(id))
	}
	return errors.Join(errs...)
}

// settle makes the mark of a synced tree last, unless somebody is at the tree:
// then it is removed or rendered again.
func (t *Trees) settle(id string) error {
	l, err := lock.TryPath(filepath.Join(t.store.Dir(), "treestorelocks", id), lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	path := filepath.Join(t.dir, id, renderedFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { // removed meanwhile
		return os.Remove(l.Name())
	}
	return atomicfile.WriteFile(path, nil, 0o644)
}

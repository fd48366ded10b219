package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// ErrNotRendered means that the tree does not exist or was never completed.
var ErrNotRendered = errors.New("image is not rendered")

// ErrChanged means that a tree differs from what was rendered.
var ErrChanged = errors.New("the rendered tree was changed")

// idPrefix begins every tree id.
const idPrefix = "deps-sha512-"

// Files of a rendered tree.
const (
	rootfsDir    = "rootfs"
	manifestFile = "manifest"
	hashFile     = "hash"
	renderedFile = "rendered"
	imageFile    = "image"
)

// Options of Trees; the zero value is the default.
type Options struct {
	Limits Limits
	// Warn is told, once each, what extraction had to leave out; may be nil.
	Warn func(text string)
}

// Trees are the rendered trees of a store.
type Trees struct {
	store *store.Store
	dir   string
	o     Options
}

// Tree is one rendered tree.
type Tree struct {
	ID  string // "deps-sha512-" and 64 hex digits
	Key string // the image it was rendered for
	dir string
}

// Open opens the trees of a store.
func Open(s *store.Store, o Options) (*Trees, error) {
	o.Limits = o.Limits.withDefaults()
	return &Trees{store: s, dir: filepath.Join(s.Dir(), "tree"), o: o}, nil
}

// Path is the tree's directory.
func (t *Tree) Path() string { return t.dir }

// Rootfs is the rendered root file system; nobody writes there.
func (t *Tree) Rootfs() string { return filepath.Join(t.dir, rootfsDir) }

// ManifestPath is the image manifest of the tree's image.
func (t *Tree) ManifestPath() string { return filepath.Join(t.dir, manifestFile) }

// Manifest is the manifest of the tree's image, out of the verified blob; what
// runs as root goes by it rather than by the store's copy, which others than
// root may write to.
func (t *Tree) Manifest() (*schema.ImageManifest, error) {
	data, err := os.ReadFile(t.ManifestPath())
	if err != nil {
		return nil, err
	}
	m, _, err := appc.ParseImageManifest(data)
	if err != nil {
		return nil, fmt.Errorf("tree %q: %w", t.ID, err)
	}
	return m, nil
}

// CheckID checks a tree id, which may come from a pod's files.
func CheckID(id string) error {
	if !strings.HasPrefix(id, "deps-") || appc.CheckKey(strings.TrimPrefix(id, "deps-")) != nil {
		return fmt.Errorf("bad tree id %q", id)
	}
	return nil
}

func (t *Trees) tree(id string) *Tree { return &Tree{ID: id, dir: filepath.Join(t.dir, id)} }

func (t *Trees) rendered(id string) bool {
	_, err := os.Stat(filepath.Join(t.dir, id, renderedFile))
	return err == nil
}

func (t *Trees) lock(id string, m lock.Mode) (*os.File, error) {
	dir := filepath.Join(t.store.Dir(), "treestorelocks")
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	return lock.Path(filepath.Join(dir, id), m)
}

// privateDir makes a directory that only root may enter: trees hold setuid files.
func privateDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o700|fs.ModeSetgid)
}

// Get finds a rendered tree by its id.
func (t *Trees) Get(id string) (*Tree, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if !t.rendered(id) {
		return nil, fmt.Errorf("tree %q: %w", id, ErrNotRendered)
	}
	tree := t.tree(id)
	key, err := os.ReadFile(filepath.Join(tree.dir, imageFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tree.Key = strings.TrimSpace(string(key))
	return tree, nil
}

// List is every rendered tree, by id.
func (t *Trees) List() ([]*Tree, error) {
	ids, err := t.ids()
	if err != nil {
		return nil, err
	}
	var trees []*Tree
	for _, id := range ids {
		tree, err := t.Get(id)
		if errors.Is(err, ErrNotRendered) {
			continue
		}
		if err != nil {
			return nil, err
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

func (t *Trees) ids() ([]string, error) {
	entries, err := os.ReadDir(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing trees: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Find is the rendered tree that Render would return, without rendering:
// ErrNotRendered if there is none.
func (t *Trees) Find(key string) (*Tree, error) {
	id, _, err := t.plan(key)
	if err != nil {
		return nil, err
	}
	if !t.rendered(id) {
		return nil, fmt.Errorf("image %q: %w", key, ErrNotRendered)
	}
	tree := t.tree(id)
	tree.Key = key
	return tree, nil
}

// Render renders an image with its dependencies, unless that is done already.
func (t *Trees) Render(ctx context.Context, key string) (*Tree, error) {
	id, layers, err := t.plan(key)
	if err != nil {
		return nil, fmt.Errorf("rendering image %q: %w", key, err)
	}
	tree := t.tree(id)
	tree.Key = key
	if t.rendered(id) {
		return tree, nil
	}
	if err := t.render(ctx, tree, layers); err != nil {
		return nil, fmt.Errorf("rendering image %q: %w", key, err)
	}
	return tree, nil
}

func (t *Trees) render(ctx context.Context, tree *Tree, layers []layer) error {
	l, err := t.lock(tree.ID, lock.Exclusive)
	if err != nil {
		return err
	}
	defer l.Close()
	if t.rendered(tree.ID) { // somebody else was faster
		return nil
	}
	if err := privateDir(t.dir); err != nil {
		return err
	}
	if err := t.remove(tree); err != nil {
		return err
	}
	if err := os.Mkdir(tree.dir, 0o700); err != nil {
		return err
	}
	if err := t.fill(ctx, tree, layers); err != nil {
		// What is left is not a tree without its mark; taking it away saves room.
		return errors.Join(err, t.remove(tree))
	}
	failpoint.Hit("tree/extracted")
	if err := t.finish(ctx, tree); err != nil {
		return err
	}
	size, err := t.sizeOf(tree.Key)
	if err != nil {
		return err
	}
	return errors.Join(t.store.SetTreeSize(tree.Key, size), t.store.Touch(tree.Key))
}

// fill extracts the layers and writes the manifest beside the root file system.
func (t *Trees) fill(ctx context.Context, tree *Tree, layers []layer) error {
	if err := os.Mkdir(tree.Rootfs(), 0o755); err != nil {
		return err
	}
	// The tree's setgid group is for the files beside the rootfs.
	if err := os.Chmod(tree.Rootfs(), 0o755); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(tree.Rootfs(), 0, 0); err != nil {
			return err
		}
	}
	x, err := newExtractor(tree.Rootfs(), t.o.Limits, t.o.Warn)
	if err != nil {
		return err
	}
	defer x.close()
	var manifest []byte // the last layer's is the tree's
	for _, l := range layers {
		if manifest, err = t.extract(ctx, x, l); err != nil {
			return fmt.Errorf("image %q: %w", l.key, err)
		}
	}
	if err := x.finish(); err != nil {
		return err
	}
	return atomicfile.WriteFileNoSync(tree.ManifestPath(), manifest, 0o644)
}

// finish makes a filled tree durable, then marks it rendered.
func (t *Trees) finish(ctx context.Context, tree *Tree) error {
	sum, err := hashTree(ctx, tree.Rootfs())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree.dir, hashFile), []byte(sum+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree.dir, imageFile), []byte(tree.Key), 0o644); err != nil {
		return err
	}
	d, err := os.Open(tree.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := sys.Syncfs(d); err != nil {
		return err
	}
	failpoint.Hit("tree/synced")
	if err := os.WriteFile(filepath.Join(tree.dir, renderedFile), nil, 0o644); err != nil {
		return err
	}
	failpoint.Hit("tree/rendered")
	return d.Sync()
}

// Remove removes a tree, complete or not. The caller knows that no pod uses it.
func (t *Trees) Remove(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l, err := t.lock(id, lock.Exclusive)
	if err != nil {
		return err
	}
	defer l.Close()
	tree, _ := t.Get(id) // an incomplete one has no image to tell
	if err := t.remove(t.tree(id)); err != nil {
		return fmt.Errorf("removing tree %q: %w", id, err)
	}
	if err := os.Remove(l.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if tree == nil || tree.Key == "" {
		return nil
	}
	size, err := t.sizeOf(tree.Key)
	if err != nil {
		return err
	}
	if err := t.store.SetTreeSize(tree.Key, size); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// Clean removes trees that were never completed and that nobody is rendering.
func (t *Trees) Clean(ctx context.Context) error {
	ids, err := t.ids()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if !t.rendered(id) {
			errs = append(errs, t.clean(id))
		}
	}
	return errors.Join(errs...)
}

func (t *Trees) clean(id string) error {
	l, err := lock.TryPath(filepath.Join(t.store.Dir(), "treestorelocks", id), lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.Close()
	if t.rendered(id) {
		return nil
	}
	return errors.Join(os.RemoveAll(filepath.Join(t.dir, id)), os.Remove(l.Name()))
}

// remove takes a tree's mark away first, so that a crash leaves no half tree
// that looks whole.
func (t *Trees) remove(tree *Tree) error {
	err := os.Remove(filepath.Join(tree.dir, renderedFile))
	if err == nil {
		err = sys.SyncDir(tree.dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	failpoint.Hit("tree/unmarked")
	return os.RemoveAll(tree.dir)
}

// Verify compares a tree with the hash taken when it was rendered: ErrChanged.
func (t *Trees) Verify(ctx context.Context, tree *Tree) error {
	l, err := t.lock(tree.ID, lock.Shared)
	if err != nil {
		return err
	}
	defer l.Close()
	if !t.rendered(tree.ID) {
		return fmt.Errorf("tree %q: %w", tree.ID, ErrNotRendered)
	}
	want, err := os.ReadFile(filepath.Join(tree.dir, hashFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	got, err := hashTree(ctx, tree.Rootfs())
	if err != nil {
		return err
	}
	if got != strings.TrimSpace(string(want)) {
		return fmt.Errorf("tree %q: %w", tree.ID, ErrChanged)
	}
	return nil
}

// Repair renders an image again, whatever its tree looks like.
func (t *Trees) Repair(ctx context.Context, key string) (*Tree, error) {
	id, _, err := t.plan(key)
	if err != nil {
		return nil, err
	}
	if err := t.Remove(ctx, id); err != nil {
		return nil, err
	}
	return t.Render(ctx, key)
}

// sizeOf is the size of all trees rendered for an image.
func (t *Trees) sizeOf(key string) (int64, error) {
	ids, err := t.ids()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, id := range ids {
		tree := t.tree(id)
		image, err := os.ReadFile(filepath.Join(tree.dir, imageFile))
		if err != nil || string(image) != key {
			continue
		}
		n, err := tree.Size()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Size is the bytes of the tree's files; hard links count once.
func (t *Tree) Size() (int64, error) {
	seen := map[inode]struct{}{}
	var sum int64
	err := walk(t.Rootfs(), func(e entry) error {
		if e.stat.Type() != sys.S_IFREG {
			return nil
		}
		if e.stat.Nlink > 1 {
			id := inode{e.stat.Dev, e.stat.Inode}
			if _, ok := seen[id]; ok {
				return nil
			}
			seen[id] = struct{}{}
		}
		sum += e.stat.Size
		return nil
	})
	return sum, err
}

package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	renderedFile = "rendered"
	imageFile    = "image"
	layersFile   = "layers" // ids of the layers, lowest first, where there is no rootfs
	sizeFile     = "size"   // bytes of the rootfs, decimal
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
	// layers are the directories of the layers, top first; nil if the tree has a
	// root file system of its own.
	layers []string
}

// Open opens the trees of a store.
func Open(s *store.Store, o Options) (*Trees, error) {
	o.Limits = o.Limits.withDefaults()
	return &Trees{store: s, dir: filepath.Join(s.Dir(), "tree"), o: o}, nil
}

// Path is the tree's directory.
func (t *Tree) Path() string { return t.dir }

// Rootfs is the rendered root file system of an image that is not made of
// layers; nobody writes there.
func (t *Tree) Rootfs() string { return filepath.Join(t.dir, rootfsDir) }

// Lowers are the directories that make up the root file system, top first.
func (t *Tree) Lowers() []string {
	if t.layers != nil {
		return slices.Clone(t.layers)
	}
	return []string{t.Rootfs()}
}

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
	tree := t.tree(id)
	if !t.load(tree) {
		return nil, fmt.Errorf("tree %q: %w", id, ErrNotRendered)
	}
	key, err := os.ReadFile(filepath.Join(tree.dir, imageFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tree.Key = strings.TrimSpace(string(key))
	return tree, nil
}

// Again is Get, and renders the tree once more if it was there and does not
// count any more: one that nobody has synced before the machine went down.
func (t *Trees) Again(ctx context.Context, id string) (*Tree, error) {
	tree, err := t.Get(id)
	if !errors.Is(err, ErrNotRendered) {
		return tree, err
	}
	key, rerr := os.ReadFile(filepath.Join(t.tree(id).dir, imageFile))
	if rerr != nil || len(key) == 0 {
		return nil, err
	}
	again, rerr := t.Render(ctx, strings.TrimSpace(string(key)))
	if rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	if again.ID != id {
		return nil, err // its dependencies are others by now
	}
	return again, nil
}

// List is every rendered tree, by id.
func (t *Trees) List() ([]*Tree, error) {
	ids, err := t.ids()
	if err != nil {
		return nil, err
	}
	var trees []*Tree
	for _, id := range ids {
		if isLayerID(id) {
			continue
		}
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
		if CheckID(e.Name()) == nil || isLayerID(e.Name()) {
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
	tree := t.tree(id)
	tree.Key = key
	if !t.load(tree) {
		return nil, fmt.Errorf("image %q: %w", key, ErrNotRendered)
	}
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
	if t.load(tree) {
		return tree, nil
	}
	if err := t.render(ctx, tree, layers); err != nil {
		return nil, fmt.Errorf("rendering image %q: %w", key, err)
	}
	return tree, t.readLayers(tree)
}

func (t *Trees) render(ctx context.Context, tree *Tree, layers []layer) error {
	// What is rendered is not collected before something refers to it.
	hold, err := t.Hold()
	if err != nil {
		return err
	}
	defer hold.Close()
	if layered := layers[len(layers)-1].layered; layered != nil {
		if err := t.renderLayers(ctx, layered); err != nil {
			return err
		}
	}
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
	return t.finish(tree)
}

// fill extracts the layers and writes the manifest beside the root file system.
func (t *Trees) fill(ctx context.Context, tree *Tree, layers []layer) error {
	if layers[len(layers)-1].layered != nil {
		return t.fillLayered(ctx, tree, layers[len(layers)-1])
	}
	x, err := t.newRootfs(tree.dir)
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
	if err := x.writeSize(tree.dir); err != nil {
		return err
	}
	return atomicfile.WriteFileNoSync(tree.ManifestPath(), manifest, 0o644)
}

// newRootfs makes the root file system in a tree's directory.
func (t *Trees) newRootfs(dir string) (*extractor, error) {
	if err := makeRootfs(dir); err != nil {
		return nil, err
	}
	return newExtractor(filepath.Join(dir, rootfsDir), t.o.Limits, t.o.Warn)
}

func makeRootfs(dir string) error {
	rootfs := filepath.Join(dir, rootfsDir)
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return err
	}
	// The tree's setgid group is for the files beside the rootfs.
	if err := os.Chmod(rootfs, 0o755); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		return os.Chown(rootfs, 0, 0)
	}
	return nil
}

// finish marks a filled tree rendered and notes its size.
func (t *Trees) finish(tree *Tree) error {
	if err := os.WriteFile(filepath.Join(tree.dir, imageFile), []byte(tree.Key), 0o644); err != nil {
		return err
	}
	if err := t.mark(tree.dir); err != nil {
		return err
	}
	return t.noteSize(tree.Key)
}

func (t *Trees) noteSize(key string) error {
	size, err := t.sizeOf(key)
	if err != nil {
		return err
	}
	return errors.Join(t.store.SetTreeSize(key, size), t.store.Touch(key))
}

// Remove removes a tree, complete or not. The caller knows that no pod uses it.
func (t *Trees) Remove(ctx context.Context, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	return t.removeID(ctx, id)
}

// removeID removes a tree or a layer.
func (t *Trees) removeID(ctx context.Context, id string) error {
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
	return errors.Join(append(errs, t.cleanStages())...)
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

// sizeOf is the size of all trees rendered for an image.
func (t *Trees) sizeOf(key string) (int64, error) {
	ids, err := t.ids()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, id := range ids {
		if isLayerID(id) {
			continue
		}
		tree, err := t.Get(id)
		if err != nil || tree.Key != key {
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

// Size is the bytes of the tree's files; hard links count once. Layers count in
// every tree that is made of them.
func (t *Tree) Size() (int64, error) {
	var sum int64
	for _, rootfs := range t.Lowers() {
		n, err := readSize(filepath.Dir(rootfs))
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// readSize reads the size noted in a tree's directory, counting if there is none.
func readSize(dir string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(dir, sizeFile))
	if err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil {
			return n, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return countSize(filepath.Join(dir, rootfsDir))
}

func countSize(rootfs string) (int64, error) {
	seen := map[inode]struct{}{}
	var sum int64
	err := walk(rootfs, func(e entry) error {
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

package tree

import (
	"context"
	"errors"

	"github.com/rkt-systemd/rkt/stage0/store"
)

var errTODO = errors.New("not implemented")

// ErrNotRendered means that the tree does not exist or was never completed.
var ErrNotRendered = errors.New("image is not rendered")

// Options of Trees; the zero value is the default.
type Options struct{}

// Trees are the rendered trees of a store.
type Trees struct {
	store *store.Store
}

// Tree is one rendered tree.
type Tree struct {
	ID  string // "deps-sha512-" and 64 hex digits
	Key string // the image it was rendered for
	dir string
}

func Open(s *store.Store, o Options) (*Trees, error)                   { return &Trees{store: s}, nil }
func (t *Trees) Render(ctx context.Context, key string) (*Tree, error) { return nil, errTODO }
func (t *Trees) Get(id string) (*Tree, error)                          { return nil, errTODO }
func (t *Trees) List() ([]*Tree, error)                                { return nil, errTODO }
func (t *Trees) Remove(ctx context.Context, id string) error           { return errTODO }

func (t *Tree) Path() string                     { return t.dir }
func (t *Tree) Rootfs() string                   { return t.dir + "/rootfs" }
func (t *Tree) ManifestPath() string             { return t.dir + "/manifest" }
func (t *Tree) Verify(ctx context.Context) error { return errTODO }
func (t *Tree) Size() (int64, error)             { return 0, errTODO }

// Overlay describes an overlay mount.
type Overlay struct {
	Lower []string // top first
	Upper string
	Work  string
	Label string // SELinux context for the mount, or ""
}

func (o Overlay) Options() (string, error)  { return "", errTODO }
func (o Overlay) Mount(target string) error { return errTODO }

// SupportsOverlay says why a data directory cannot carry overlays, or nil.
func SupportsOverlay(dataDir string) error { return errTODO }

// Copy copies a rendered root file system, for pods without overlay.
func Copy(ctx context.Context, src, dst string) error { return errTODO }

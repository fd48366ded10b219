// Package tree turns stored images into root file systems: it renders each
// image once, below <store>/tree, and describes the overlay mounts and copies
// that pods make of a rendered tree.
//
// A tree counts only when its file "rendered" exists; it is created last, after
// a syncfs, and removed first. Rendering holds an exclusive lock per tree;
// using a rendered tree takes no lock: whoever removes trees holds the data
// directory's prepare lock exclusively, whoever prepares pods holds it shared.
// Nothing in an image can make extraction touch anything outside the tree.
//
// Exported:
//
//	Open(s *store.Store, o Options) (*Trees, error)
//	(*Trees) Render(ctx, key) (*Tree, error)    idempotent; a few file reads when rendered
//	(*Trees) Find(key), Get(id) (*Tree, error)  ErrNotRendered
//	(*Trees) List() ([]*Tree, error); Remove(ctx, id), Clean(ctx) error
//	(*Trees) Verify(ctx, tree) error            ErrChanged; Repair(ctx, key) (*Tree, error)
//	(*Tree)  ID, Key; Path(), Rootfs(), ManifestPath(), Manifest(); Size() (int64, error)
//	Overlay{Lower, Upper, Work, Label}; Options() (string, error); Mount(target) error
//	SupportsOverlay(dataDir string) error
//	Copy(ctx, srcRootfs, dst string) error
//	CheckID(id string) error
//
// stage0/prepare and stage0/cli may import it.
package tree

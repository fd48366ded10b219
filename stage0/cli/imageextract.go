package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

func (a *app) imageExtractCmd() *cobra.Command {
	var x extraction
	cmd := &cobra.Command{
		Use: "extract IMAGE DIR", Short: "Extract an image's own files to a directory", Args: exactArgs(2, "an image and a directory"),
		Long: `Extract the manifest and the root file system (rootfs) of an image to a new directory, without what the image depends
on; the layers of an image are put together. Anybody may do this, but only root keeps the owners of files and makes
devices.

  rkt image extract example.com/web web
  rkt image extract --rootfs-only sha512-7ba2 /srv/chroot`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.extract(args[0], args[1], x, func(st *stores, img image.Image, dir string) error {
				return st.trees.Extract(cmd.Context(), img.Key, dir, false)
			})
		},
	}
	x.flags(cmd)
	return cmd
}

func (a *app) imageRenderCmd() *cobra.Command {
	var x extraction
	cmd := &cobra.Command{
		Use: "render IMAGE DIR", Short: "Extract an image as an app sees it to a directory", Args: exactArgs(2, "an image and a directory"),
		Long: `Write the manifest and the root file system (rootfs) of an image, with all it depends on, to a new directory. If the
image is unpacked for pods, that is checked, and mended if it was changed. Anybody may do this, but only root keeps
the owners of files and makes devices.

  rkt image render example.com/web web`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.extract(args[0], args[1], x, func(st *stores, img image.Image, dir string) error {
				ctx := cmd.Context()
				t, err := st.trees.Find(img.Key)
				if errors.Is(err, tree.ErrNotRendered) || err != nil && a.EUID != 0 {
					return st.trees.Extract(ctx, img.Key, dir, true)
				}
				if err != nil {
					return err
				}
				if err := st.trees.Verify(ctx, t); errors.Is(err, tree.ErrChanged) {
					a.log.Warnf("%v; unpacking image %q again", err, args[0])
					if t, err = st.trees.Repair(ctx, img.Key); err != nil {
						return err
					}
				} else if err != nil {
					return err
				}
				m, err := os.ReadFile(t.ManifestPath())
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, "manifest"), m, 0o644)
				}
				if err != nil {
					return err
				}
				return tree.Copy(ctx, t.Lowers(), filepath.Join(dir, "rootfs"))
			})
		},
	}
	x.flags(cmd)
	return cmd
}

// extraction is how a directory is written.
type extraction struct{ overwrite, rootfsOnly bool }

func (x *extraction) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&x.overwrite, "overwrite", false, "replace an existing directory, once the new one is complete")
	cmd.Flags().BoolVar(&x.rootfsOnly, "rootfs-only", false, "make DIR the root file system itself")
}

// extract fills a new directory beside dir and puts it into its place.
func (a *app) extract(arg, dir string, x extraction, fill func(st *stores, img image.Image, dir string) error) error {
	st, err := a.stores()
	if err != nil {
		return err
	}
	img, err := a.lookup(st, arg)
	if err != nil {
		return err
	}
	target, exists, err := x.target(dir, st.dir)
	if err != nil {
		return err
	}
	if err := st.store.Touch(img.Key); err != nil {
		a.log.WithError(err).Debug("noting the use of an image, ignoring")
	}
	if a.EUID != 0 {
		a.log.Warn("not root: all files will belong to you, devices are left out")
	}
	tmp, err := os.MkdirTemp(filepath.Dir(target), "."+filepath.Base(target)+".rkt-")
	if err != nil {
		return err
	}
	fresh := filepath.Join(tmp, "new")
	if err = os.Mkdir(fresh, 0o755); err == nil {
		err = fill(st, img, fresh)
	}
	if err == nil {
		if x.rootfsOnly {
			fresh = filepath.Join(fresh, "rootfs")
		}
		err = replaceDir(fresh, target, filepath.Join(tmp, "old"), exists)
	}
	return errors.Join(err, removeTree(tmp))
}

// target resolves the directory to write and refuses what must not be replaced.
func (x extraction) target(dir, data string) (target string, exists bool, err error) {
	if dir == "" {
		return "", false, errors.New("the directory has no name")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", false, err
	}
	target, err = filepath.EvalSymlinks(abs)
	switch {
	case err == nil:
		exists = true
	case errors.Is(err, fs.ErrNotExist):
		if _, lerr := os.Lstat(abs); lerr == nil {
			return "", false, fmt.Errorf("%q is a link that leads nowhere", dir)
		}
		parent, perr := filepath.EvalSymlinks(filepath.Dir(abs))
		if perr != nil {
			return "", false, perr
		}
		target = filepath.Join(parent, filepath.Base(abs))
	default:
		return "", false, err
	}
	switch {
	case target == "/":
		return "", false, errors.New("not replacing the root file system of this host")
	case data == target || strings.HasPrefix(data, target+"/"):
		return "", false, fmt.Errorf("not replacing %q: the image store is there", target)
	case exists && !x.overwrite:
		return "", false, hint(fmt.Errorf("%q exists", dir), "--overwrite replaces it")
	}
	if exists {
		if st, err := os.Lstat(target); err != nil || !st.IsDir() {
			return "", false, errors.Join(err, fmt.Errorf("%q is not a directory", dir))
		}
	}
	return target, exists, nil
}

// replaceDir puts a directory into its place; what was there goes to old.
func replaceDir(fresh, target, old string, exists bool) error {
	st, err := os.Lstat(fresh)
	if err != nil {
		return err
	}
	// Who is not root can move only directories that are writable.
	if st.Mode().Perm()&0o200 == 0 {
		if err := os.Chmod(fresh, 0o700); err != nil {
			return err
		}
	}
	if !exists {
		err = renameNew(fresh, target)
	} else if err = sys.Renameat2(sys.CWD, fresh, sys.CWD, target, sys.RenameExchange); err != nil {
		if err = os.Rename(target, old); err == nil {
			err = os.Rename(fresh, target)
		}
	}
	if err != nil {
		return fmt.Errorf("putting the files in place: %w", err)
	}
	if st.Mode().Perm()&0o200 == 0 {
		return os.Chmod(target, st.Mode())
	}
	return nil
}

// removeTree removes a tree, also one with directories its owner cannot write to.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700) // before it is listed
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

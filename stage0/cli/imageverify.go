package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

func (a *app) imageVerifyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "verify IMAGE…", Short: "Check what is unpacked of images, and mend it",
		Long: `Compare the unpacked files of images with the images. What was changed is unpacked again: pods that run keep the files
that they have open. An image that is not unpacked has nothing to verify. rkt image fsck checks the images themselves.

  rkt image verify example.com/web sha512-7ba2`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("image verify takes at least one image; see rkt help image verify")
			}
			st, err := a.stores()
			if err != nil {
				return err
			}
			failed := 0
			for _, arg := range args {
				img, err := a.lookup(st, arg)
				if err == nil {
					err = a.verify(cmd.Context(), st, img)
				}
				if err != nil {
					a.log.Error(err)
					failed++
				}
			}
			if failed > 0 {
				a.log.Errorf("%d image(s) could not be verified", failed)
				return errSilent
			}
			return nil
		},
	}
}

// verify checks one image's trees and mends them.
func (a *app) verify(ctx context.Context, st *stores, img image.Image) error {
	if err := readable(st); err != nil {
		return err
	}
	name := displayName(img.Record)
	t, err := st.trees.Find(img.Key)
	if errors.Is(err, tree.ErrNotRendered) {
		fmt.Fprintf(a.Stdout, "image %q (%s) is not unpacked: nothing to verify\n", name, img.Key)
		return nil
	}
	if err == nil {
		err = st.trees.Verify(ctx, t)
	}
	if errors.Is(err, tree.ErrChanged) {
		a.log.Warnf("image %q (%s): %v; unpacking it again", name, img.Key, err)
		if t, err = st.trees.Repair(ctx, img.Key); err == nil {
			err = st.trees.Verify(ctx, t)
		}
	}
	if err != nil {
		return fmt.Errorf("verifying image %q: %w", name, err)
	}
	fmt.Fprintf(a.Stdout, "successfully verified image %q (%s)\n", name, img.Key)
	return nil
}

// readable says whether this user can see what is unpacked.
func readable(st *stores) error {
	f, err := os.Open(filepath.Join(st.store.Dir(), "tree"))
	if errors.Is(err, fs.ErrPermission) {
		return errors.New("only root can look at what is unpacked of images")
	}
	if err == nil {
		return f.Close()
	}
	return nil
}

// fsckJSON is the output of image fsck.
type fsckJSON struct {
	store.Checked
	Findings []store.Finding `json:"findings"`
	// Clean says that nothing is wrong, or not any more; leftovers do not count.
	Clean bool `json:"clean"`
}

func (a *app) imageFsckCmd() *cobra.Command {
	var o store.FsckOptions
	var format string
	cmd := &cobra.Command{
		Use: "fsck", Short: "Check the image store", Args: exactArgs(0, "no arguments"),
		Long: `Check every image in the store, byte for byte, and every record, and print what is wrong and how it is mended. The
exit status is 254 if anything is wrong and was not mended; what an interrupted command left, which harms nobody, is
printed, too, but does not count. Nothing that is in use is touched.

With --repair, records are made again from the images, leftovers are removed, and an image that is damaged is removed,
since only its source can give it back.

  rkt image fsck --quick
  rkt image fsck --repair`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			st, err := a.stores()
			if err != nil {
				return err
			}
			return a.fsck(cmd.Context(), st, o, format)
		},
	}
	cmd.Flags().BoolVar(&o.Repair, "repair", false, "mend what can be mended, remove what cannot")
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "do not read images and layers to their end")
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of text")
	return cmd
}

func (a *app) fsck(ctx context.Context, st *stores, o store.FsckOptions, format string) error {
	out := fsckJSON{Findings: []store.Finding{}, Clean: true}
	report := func(f store.Finding) {
		out.Clean = out.Clean && (f.Leftover || f.Mended())
		out.Findings = append(out.Findings, f)
		if format == "" {
			fmt.Fprintf(a.Stdout, "%s %s: %s: %s (with --repair: %s)\n", f.Kind, f.Object, f.State, f.Problem, f.Remedy)
		}
	}
	var err error
	if out.Checked, err = st.store.Fsck(ctx, o, report); err != nil {
		return err
	}
	if err := a.fsckTrees(ctx, st, o.Repair, report); err != nil {
		return err
	}
	if format != "" {
		if err := printJSON(a.Stdout, format, out); err != nil {
			return err
		}
	}
	a.log.Infof("%d image(s) and %d layer(s) checked", out.Images, out.Layers)
	if !out.Clean {
		if o.Repair {
			return errors.New("not all that is wrong with the image store could be mended")
		}
		return hint(errors.New("the image store is damaged"), "rkt image fsck --repair mends it")
	}
	return nil
}

// fsckTrees looks for trees that do not count. Whether those that count are
// what they should be, image verify tells.
func (a *app) fsckTrees(ctx context.Context, st *stores, repair bool, report func(store.Finding)) error {
	if readable(st) != nil {
		a.log.Info("not root: what is unpacked of images is not checked")
		return nil
	}
	found, err := st.trees.Check()
	if err != nil || len(found) == 0 {
		return err
	}
	still := map[string]bool{}
	if repair {
		if err := st.trees.Clean(ctx); err != nil {
			return err
		}
		left, err := st.trees.Check()
		if err != nil {
			return err
		}
		for _, f := range left {
			still[f.ID] = true
		}
	}
	for _, f := range found {
		state := store.FindingFound
		if repair {
			if state = store.FindingRemoved; still[f.ID] {
				state = store.FindingInUse
			}
		}
		report(store.Finding{Kind: "tree", Object: f.ID, Problem: f.Problem, Remedy: "it is removed; images are unpacked again when they are used", Leftover: true, State: state})
	}
	return nil
}

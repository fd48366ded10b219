package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/image"
)

func (a *app) imageImportCmd() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use: "import [FLAGS] FILE [--signature=FILE] [FILE …]", Short: "Store images from files, without any network",
		Long: `Store images from files: App Container images, compressed or not, OCI layout directories, OCI archives and archives of
docker save, told apart by what is in them; "-" is standard input. They are verified as by rkt fetch. Nobody is
contacted: what an image depends on must be imported, too, before the image is run. Prints an image ID per image.

  rkt image import web.aci base.aci
  skopeo copy docker://nginx oci-archive:/dev/stdout | rkt --insecure-options=image image import -`,
	}
	cmd.Flags().BoolVar(&full, "full", false, "print whole image IDs")
	own := slices.DeleteFunc(appFlags(), func(f appFlag) bool { return f.name != "signature" })
	imagesUsage(cmd, own)
	run := parsed(own, false, func(cmd *cobra.Command, g *grammar) error {
		if len(g.apps) == 0 {
			return errors.New("image import takes at least one file; see rkt help image import")
		}
		st, err := a.stores()
		if err != nil {
			return err
		}
		f, err := a.fetcher(st, image.PullNever)
		if err != nil {
			return err
		}
		var keys []image.Image
		for _, ia := range g.apps {
			img, err := a.importFile(cmd.Context(), st, f, ia)
			if err != nil {
				return err
			}
			keys = append(keys, img)
			fmt.Fprintln(a.Stdout, shortID(img.Key, 32, full))
		}
		// Only now may images that the others depend on be there.
		for i, img := range keys {
			if _, err := st.trees.Images(img.Key); err != nil {
				a.log.Warnf("image %q cannot be run yet: %v", g.apps[i].image, err)
			} else if err := a.unpack(cmd.Context(), st, img, g.apps[i].image); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		args = slices.Clone(args)
		for i, w := range args {
			if w == "-" { // a flag without a name to the grammar
				args[i] = stdinPath
			}
		}
		return run(cmd, args)
	}
	return cmd
}

const stdinPath = "/dev/stdin"

func (a *app) importFile(ctx context.Context, st *stores, f *image.Fetcher, ia *appArgs) (img image.Image, err error) {
	o := image.FetchOptions{Signature: ia.signature}
	if ia.image != stdinPath {
		return f.Import(ctx, ia.image, "", o)
	}
	if a.Stdin == nil {
		return image.Image{}, errors.New("there is no standard input")
	}
	// Archives are read more than once.
	tmp, err := os.CreateTemp(st.store.TempDir(), "stdin-")
	if err != nil {
		return image.Image{}, err
	}
	defer func() { err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name())) }()
	if err := lock.TryFile(tmp, lock.Exclusive); err != nil {
		return image.Image{}, err
	}
	if _, err := io.Copy(tmp, contextReader{ctx, a.Stdin}); err != nil {
		return image.Image{}, fmt.Errorf("reading standard input: %w", err)
	}
	return f.Import(ctx, tmp.Name(), "standard input", o)
}

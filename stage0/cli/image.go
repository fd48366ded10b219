package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/oci"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

func (a *app) fetchCmd() *cobra.Command {
	var policy, platform string
	var full, storeOnly, noStore bool
	cmd := &cobra.Command{
		Use: "fetch [FLAGS] IMAGE [--signature=FILE] [IMAGE …]", Short: "Fetch image(s), verify and store them",
		Long: `Fetch images into the store: by App Container name, from URLs and files, from registries, OCI layouts and archives.
They are verified by signature or digest (rkt trust). As root, images are also unpacked, so that the first pod starts
at once. Prints an image ID per image.

  rkt fetch coreos.com/etcd:v3.1.7
  rkt fetch https://example.com/web.aci
  rkt fetch docker://nginx@sha256:…
  rkt fetch oci:/srv/layout:stable docker-archive:web.tar`,
	}
	cmd.Flags().BoolVar(&full, "full", false, "print whole image IDs")
	cmd.Flags().StringVar(&platform, "platform", "", "the `OS/ARCH[/VARIANT]` to take of an image for several (default: this machine's)")
	policyFlags(cmd, &policy, &storeOnly, &noStore, string(image.PullUpdate))
	own := slices.DeleteFunc(appFlags(), func(f appFlag) bool { return f.name != "signature" })
	imagesUsage(cmd, own)
	cmd.RunE = parsed(own, false, func(cmd *cobra.Command, g *grammar) error {
		if len(g.apps) == 0 {
			return errors.New("fetch takes at least one image; see rkt help fetch")
		}
		p, err := pullPolicy(policy, storeOnly, noStore)
		if err != nil {
			return err
		}
		st, err := a.stores()
		if err != nil {
			return err
		}
		f, err := a.fetcher(st, p)
		if err != nil {
			return err
		}
		if platform != "" {
			if f.Platform, err = oci.ParsePlatform(platform); err != nil {
				return fmt.Errorf("--platform: %w", err)
			}
		}
		for _, ia := range g.apps {
			ref, err := image.ParseRef(ia.image)
			if err != nil {
				return err
			}
			img, err := f.Fetch(cmd.Context(), ref, image.FetchOptions{Signature: ia.signature})
			if err != nil {
				return err
			}
			if err := a.unpack(cmd.Context(), st, img, ia.image); err != nil {
				return err
			}
			fmt.Fprintln(a.Stdout, shortID(img.Key, 32, full))
		}
		return nil
	})
	return cmd
}

// unpack renders an image that was fetched, so that the first pod starts at once.
func (a *app) unpack(ctx context.Context, st *stores, img image.Image, text string) error {
	if a.EUID != 0 || tree.SupportsOverlay(st.dir) != nil {
		return nil
	}
	if _, err := st.trees.Render(ctx, img.Key); err != nil {
		return fmt.Errorf("unpacking %q: %w", text, err)
	}
	return nil
}

// shortID cuts a key to n digits for people.
func shortID(key string, n int, full bool) string {
	if full || len(key) < len("sha512-")+n {
		return key
	}
	return key[:len("sha512-")+n]
}

func (a *app) imageCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Work with the image store",
		Long: `Work with the images in the store. An IMAGE is an ID or a unique prefix of one (sha512- and at least two digits), a
name with labels (example.com/web:1.2,os=linux), or the registry reference it was fetched by. None of these commands
but fetch contacts anybody.`,
	}
	a.group(cmd)
	twin := a.fetchCmd()
	twin.Hidden = true // rkt image fetch, as old scripts have it
	cmd.AddCommand(a.imageListCmd(), a.imageRmCmd(), a.imageCatManifestCmd(), a.imageImportCmd(), a.imageExportCmd(), a.imageExtractCmd(),
		a.imageRenderCmd(), a.imageVerifyCmd(), a.imageFsckCmd(), a.imageGCCmd(), twin)
	return cmd
}

// lookup finds an image in the store by hash or name, or by the reference to a
// registry that it was fetched by.
func (a *app) lookup(st *stores, arg string) (image.Image, error) {
	f := &image.Fetcher{Store: st.store, Log: a.log}
	ref, err := image.ParseStored(arg)
	if err != nil && ref.Kind == image.KindDocker {
		remote, rerr := st.store.Remote(ref.String())
		if rerr != nil {
			return image.Image{}, fmt.Errorf("image %q: %w", arg, store.ErrNotFound)
		}
		ref, err = image.Ref{Kind: image.KindHash, Text: arg, Hash: remote.Key}, nil
	}
	if err != nil {
		return image.Image{}, err
	}
	return f.Lookup(ref)
}

func (a *app) imageCatManifestCmd() *cobra.Command {
	var pretty bool
	cmd := &cobra.Command{
		Use: "cat-manifest IMAGE", Short: "Print an image's manifest", Args: exactArgs(1, "one image"),
		RunE: func(_ *cobra.Command, args []string) error {
			st, err := a.stores()
			if err != nil {
				return err
			}
			img, err := a.lookup(st, args[0])
			if err != nil {
				return err
			}
			return printManifest(a.Stdout, img.Manifest, pretty)
		},
	}
	cmd.Flags().BoolVar(&pretty, "pretty-print", true, "indent")
	return cmd
}

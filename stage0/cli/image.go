package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

func (a *app) fetchCmd() *cobra.Command {
	var policy string
	var full, storeOnly, noStore bool
	cmd := &cobra.Command{
		Use: "fetch [FLAGS] IMAGE [--signature=FILE] [IMAGE …]", Short: "Fetch image(s), verify and store them",
		Long: `Fetch images from files and URLs into the store. Signatures are verified against the trusted keys (rkt trust).
As root, images are also unpacked, so that the first pod starts at once. Prints an image ID per image.`,
	}
	cmd.Flags().BoolVar(&full, "full", false, "print whole image IDs")
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
		for _, ia := range g.apps {
			ref, err := image.ParseRef(ia.image)
			if err != nil {
				return err
			}
			img, err := f.Fetch(cmd.Context(), ref, image.FetchOptions{Signature: ia.signature})
			if err != nil {
				return err
			}
			if a.EUID == 0 && tree.SupportsOverlay(st.dir) == nil {
				if _, err := st.trees.Render(cmd.Context(), img.Key); err != nil {
					return fmt.Errorf("unpacking %q: %w", ia.image, err)
				}
			}
			fmt.Fprintln(a.Stdout, shortID(img.Key, 32, full))
		}
		return nil
	})
	return cmd
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
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for image; rkt help image lists them", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(a.Stderr, "image: no command given")
			if err := cmd.Help(); err != nil {
				return err
			}
			return &exitError{2}
		},
	}
	cmd.AddCommand(a.imageListCmd(), a.imageRmCmd(), a.imageCatManifestCmd())
	return cmd
}

// lookup finds an image in the store by hash or name.
func (a *app) lookup(st *stores, arg string) (image.Image, error) {
	ref, err := image.ParseRef(arg)
	if err != nil {
		return image.Image{}, err
	}
	f := &image.Fetcher{Store: st.store, Log: a.log}
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

func (a *app) imageRmCmd() *cobra.Command {
	return &cobra.Command{
		Use: "rm IMAGE…", Short: "Remove images from the store",
		Long: "Remove images. Pods made from them keep running and can still be started: they hold what they need.",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("image rm takes at least one image; see rkt help image rm")
			}
			st, err := a.stores()
			if err != nil {
				return err
			}
			var keys []string
			failed := 0
			for _, arg := range args {
				img, err := a.lookup(st, arg)
				if err != nil {
					a.log.Error(err)
					failed++
				} else if !slices.Contains(keys, img.Key) {
					keys = append(keys, img.Key)
				}
			}
			removed := 0
			for _, k := range keys {
				if err := st.store.Remove(k); err != nil {
					a.log.Error(err)
					failed++
					continue
				}
				removed++
				fmt.Fprintf(a.Stdout, "successfully removed aci for image: %q\n", k)
			}
			if removed > 0 {
				a.log.Infof("%d image(s) successfully removed", removed)
			}
			if failed > 0 {
				a.log.Errorf("%d image(s) could not be removed", failed)
				return errSilent
			}
			return nil
		},
	}
}

// imageJSON is an image in the output of image list.
type imageJSON struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	ImportTime   int64  `json:"import_time"`
	LastUsedTime int64  `json:"last_used_time"`
	Size         int64  `json:"size"`
}

func displayName(r store.Record) string {
	if v := r.Labels["version"]; v != "" {
		return r.Name + ":" + v
	}
	return r.Name
}

func (a *app) imageListCmd() *cobra.Command {
	var fields, sortBy, order, format string
	var full, noLegend bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the images in the store", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			st, err := a.stores()
			if err != nil {
				return err
			}
			recs, listErr := st.store.Records()
			if err := sortImages(recs, sortBy, order); err != nil {
				return err
			}
			if format != "" {
				out := []imageJSON{}
				for _, r := range recs {
					out = append(out, imageJSON{r.Key, displayName(r), r.ImportTime.UnixNano(), r.LastUsed.UnixNano(), r.Size + r.TreeSize})
				}
				err = printJSON(a.Stdout, format, out)
			} else {
				err = a.imageTable(recs, strings.Split(fields, ","), full, noLegend)
			}
			a.itemErrors([]error{listErr})
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&fields, "fields", "id,name,size,importtime,lastused", "comma-separated `columns`; latest is known, too")
	f.StringVar(&sortBy, "sort", "importtime", "comma-separated `keys`: name, importtime, lastused, size")
	f.StringVar(&order, "order", "asc", "`asc` or desc")
	f.BoolVar(&full, "full", false, "whole IDs, sizes in bytes, absolute times")
	f.BoolVar(&noLegend, "no-legend", false, "no header line")
	f.StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

func sortImages(recs []store.Record, by, order string) error {
	if order != "asc" && order != "desc" {
		return fmt.Errorf("unknown order %q: asc and desc are known", order)
	}
	keys := strings.Split(by, ",")
	for _, k := range keys {
		if !slices.Contains([]string{"name", "importtime", "lastused", "size"}, k) {
			return fmt.Errorf("unknown sort key %q: name, importtime, lastused and size are known", k)
		}
	}
	slices.SortStableFunc(recs, func(x, y store.Record) int {
		c := 0
		for _, k := range keys {
			switch k {
			case "name":
				c = strings.Compare(displayName(x), displayName(y))
			case "importtime":
				c = x.ImportTime.Compare(y.ImportTime)
			case "lastused":
				c = x.LastUsed.Compare(y.LastUsed)
			case "size":
				c = cmp.Compare(x.Size+x.TreeSize, y.Size+y.TreeSize)
			}
			if c != 0 {
				break
			}
		}
		if order == "desc" {
			return -c
		}
		return c
	})
	return nil
}

func (a *app) imageTable(recs []store.Record, fields []string, full, noLegend bool) error {
	heads := map[string]string{"id": "ID", "name": "NAME", "size": "SIZE", "importtime": "IMPORT TIME", "lastused": "LAST USED", "latest": "LATEST"}
	var head []string
	for _, f := range fields {
		h, ok := heads[f]
		if !ok {
			return fmt.Errorf("unknown field %q: id, name, size, importtime, lastused and latest are known", f)
		}
		head = append(head, h)
	}
	w := table(a.Stdout)
	if !noLegend {
		fmt.Fprintln(w, strings.Join(head, "\t"))
	}
	for _, r := range recs {
		var row []string
		for _, f := range fields {
			var v string
			switch f {
			case "id":
				v = shortID(r.Key, 12, full)
			case "name":
				v = displayName(r)
			case "size":
				v = size(r.Size+r.TreeSize, full)
			case "importtime":
				v = when(r.ImportTime, full)
			case "lastused":
				v = when(r.LastUsed, full)
			case "latest":
				v = fmt.Sprint(r.Latest)
			}
			row = append(row, v)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// size prints bytes, or the largest IEC unit.
func size(n int64, full bool) string {
	if full {
		return fmt.Sprint(n)
	}
	f := float64(n)
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if f < 1024 {
			return fmt.Sprintf("%.0f%s", f, u)
		}
		f /= 1024
	}
	return fmt.Sprintf("%.1fTiB", f)
}

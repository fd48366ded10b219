package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

func (a *app) imageRmCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm IMAGE…", Short: "Remove images from the store",
		Long: `Remove images. Pods made from them keep running and can still be started: they hold what they need. As root, what
was unpacked of the images goes, too, as far as no pod uses it. An image that a generation of a declared pod needs stays,
unless --force is given: without it the pod could not start, or not be rolled back (rkt pod history).

  rkt image rm sha512-7ba2
  rkt image rm example.com/web:1.2 docker://nginx`,
		RunE: func(cmd *cobra.Command, args []string) error {
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
			needed := &protection{images: map[string]string{}, trees: map[string]string{}}
			if x, err := podfile.Scan(podfile.SearchOptions{}); !force {
				if err != nil {
					a.log.Warn(err)
				}
				needed.generations(st, x)
			}
			for _, err := range needed.doubts {
				a.log.Warn(err)
			}
			for _, k := range keys {
				if why := needed.images[k]; why != "" {
					a.log.Errorf("image %s is that of %s: it stays without --force", k, why)
					failed++
					continue
				}
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
				a.dropTrees(cmd.Context(), st)
			}
			if failed > 0 {
				a.log.Errorf("%d image(s) could not be removed", failed)
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove also what generations of declared pods need")
	return cmd
}

// dropTrees removes the trees of images that are gone and that no pod uses. What
// cannot be removed now is left to image gc.
func (a *app) dropTrees(ctx context.Context, st *stores) {
	if a.EUID != 0 {
		return
	}
	path, err := lockPath(st)
	if err != nil {
		a.log.WithError(err).Debug("not removing trees, ignoring")
		return
	}
	l, err := lock.TryPath(path, lock.Exclusive)
	if err != nil {
		a.log.WithError(err).Debug("not removing trees, ignoring")
		return
	}
	defer l.Close()
	p, err := a.protectPods(st)
	if err != nil {
		a.log.WithError(err).Debug("not removing trees, ignoring")
		return
	}
	_, freed, err := st.trees.Collect(ctx, func(id string) bool {
		if p.trees[id] != "" {
			return true
		}
		t, err := st.trees.Get(id)
		if err != nil {
			return !errors.Is(err, tree.ErrNotRendered)
		}
		_, err = st.store.Record(t.Key)
		return err == nil
	}, false)
	if err != nil {
		a.log.WithError(err).Debug("not removing all trees, ignoring")
	}
	if freed > 0 {
		a.log.Infof("%s of unpacked files removed", size(freed, false))
	}
}

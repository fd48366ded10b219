package cli

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage0/idrange"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

func (a *app) exportCmd() *cobra.Command {
	var name string
	var overwrite bool
	cmd := &cobra.Command{
		Use: "export [--app=NAME] UUID|NAME FILE.aci", Short: "Write an app of an ended pod to an image",
		Long: `Write the root file system of an app, as the ended pod left it, and its image's manifest to an ACI. Volumes are not part
of it. Nothing is mounted: it works after a reboot, too, as long as the pod has not been collected.`,
		Args: exactArgs(2, "a pod and a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if filepath.Ext(args[1]) != ".aci" {
				return fmt.Errorf("%q: an exported image is named FILE.aci", args[1])
			}
			return a.exportPod(cmd.Context(), args[0], name, args[1], overwrite)
		},
	}
	cmd.Flags().StringVar(&name, "app", "", "app to export; needed when the pod has several")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace an existing file")
	return cmd
}

func (a *app) exportPod(ctx context.Context, arg, name, file string, overwrite bool) error {
	pods, _, err := a.pods()
	if err != nil {
		return err
	}
	d, err := a.findPod(pods, arg)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.State != pod.Exited && d.State != pod.ExitedGarbage {
		return fmt.Errorf("pod %s is %s; only pods that have ended can be exported", d.UUID, d.State)
	}
	// gc does not delete what it cannot lock
	l, err := lock.TryDir(d.Dir(), lock.Shared)
	if err != nil {
		return fmt.Errorf("locking pod %s: %w", d.UUID, err)
	}
	defer l.Close()
	if name, err = appOf(d, name); err != nil {
		return err
	}
	manifest, err := d.ReadFile(filepath.Join(podfs.AppInfo(name), podfs.ManifestFile))
	if err != nil {
		return err
	}
	dirs, inside, err := a.appDirs(ctx, d, name)
	if err != nil {
		return err
	}
	out, err := a.newOutput(file, overwrite)
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	err = tree.WriteRootfs(ctx, z, manifest, dirs, inside)
	if err = errors.Join(err, z.Close()); err != nil {
		return errors.Join(fmt.Errorf("exporting app %q of pod %s: %w", name, d.UUID, err), out.abort())
	}
	return out.commit()
}

// appDirs are the directories that make up an app's root, top first, and how
// the ids of its files turn into those of the image; nil: they are the same.
func (a *app) appDirs(ctx context.Context, d *pod.Pod, name string) ([]string, func(uint32) (uint32, bool), error) {
	ids, err := idrange.Of(d.Dir())
	if err != nil {
		return nil, nil, err
	}
	inside := ids.Inside
	if ids.Count == 0 {
		inside = nil
	}
	if !d.Has(podfs.OverlayPrepared) {
		if !d.Has(podfs.PrivateUsersCopied) {
			inside = nil // the mount maps them, the copy has the image's
		}
		return []string{filepath.Join(d.Dir(), podfs.AppRootfs(name))}, inside, nil
	}
	id, err := d.ReadFile(filepath.Join(podfs.AppInfo(name), podfs.TreeStoreIDFile))
	if err != nil {
		return nil, nil, err
	}
	st, err := a.stores()
	if err != nil {
		return nil, nil, err
	}
	t, err := st.trees.Again(ctx, string(id))
	if err != nil {
		return nil, nil, fmt.Errorf("the image of app %q: %w", name, err)
	}
	return append([]string{filepath.Join(d.Dir(), podfs.Upper(string(id), name))}, t.Lowers()...), inside, nil
}

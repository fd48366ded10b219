package prepare

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/rootpath"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// seed makes the volumes of converted images that nobody gave a volume for:
// they begin with what the image has there, as users of such images expect.
// Stage1 makes all other empty volumes and leaves those that exist alone.
func (p *Preparer) seed(dir string, m *schema.PodManifest) error {
	for i := range m.Apps {
		if err := seedApp(dir, filepath.Join(dir, podfs.Stage1Rootfs), m, &m.Apps[i]); err != nil {
			return err
		}
	}
	return nil
}

// seedApp does so for one app of a pod whose root is stage1.
func seedApp(dir, stage1 string, m *schema.PodManifest, ra *schema.RuntimeApp) error {
	name := ra.Name.String()
	data, err := os.ReadFile(filepath.Join(dir, podfs.AppInfo(name), podfs.ManifestFile))
	if err != nil {
		return err
	}
	img, _, err := appc.ParseImageManifest(data)
	if err != nil {
		return fmt.Errorf("app %q: %w", name, err)
	}
	app := ra.App
	if app == nil {
		app = img.App
	}
	if app == nil || !appc.Converted(img) {
		return nil
	}
	for _, mp := range unassigned(m, ra, app) {
		if err := seedVolume(dir, filepath.Join(stage1, podfs.Stage2Dir, name, podfs.RootfsDir), name, mp); err != nil {
			return fmt.Errorf("filling the volume %q of app %q: %w", mp.Name, name, err)
		}
	}
	return nil
}

// unassigned are the mount points that get a volume of their own.
func unassigned(m *schema.PodManifest, ra *schema.RuntimeApp, app *types.App) []types.MountPoint {
	taken := map[string]bool{}
	for _, x := range ra.Mounts {
		taken[path.Clean("/"+x.Path)] = true
	}
	volumes := map[types.ACName]bool{}
	for _, v := range m.Volumes {
		volumes[v.Name] = true
	}
	var out []types.MountPoint
	for _, mp := range app.MountPoints {
		target := path.Clean("/" + mp.Path)
		if !taken[target] && !volumes[mp.Name] && target != "/" {
			out = append(out, mp)
		}
		taken[target] = true
	}
	return out
}

func seedVolume(dir, rootfs, app string, mp types.MountPoint) error {
	root, err := rootpath.Open(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	source, err := root.Resolve(mp.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // stage1 makes an empty one
	}
	if err != nil {
		return err
	}
	if st, err := root.Lstat(source); err != nil || !st.IsDir() {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	volumes := filepath.Join(dir, podfs.SharedVolumes)
	if err := os.MkdirAll(volumes, 0o755); err != nil {
		return err
	}
	target := filepath.Join(volumes, app+"-"+mp.Name.String())
	if _, err := os.Lstat(target); err == nil {
		return nil
	}
	if err := tree.Copy(context.Background(), []string{filepath.Join(rootfs, source)}, target); err != nil {
		return err
	}
	failpoint.Hit("prepare/seeded")
	return nil
}

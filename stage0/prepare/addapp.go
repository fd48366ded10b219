package prepare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/rootpath"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/idrange"
)

// Suffixes of the files beside an app's status that say when it was added and
// started last.
const (
	CreatedSuffix = "-created"
	StartedSuffix = "-started"
)

// Mutable says whether apps can be added to a pod and removed from it.
func Mutable(m *schema.PodManifest) bool {
	v, _ := m.Annotations.Get(abi.AnnotationMutable)
	return v == "true"
}

// Change is a change to the apps of a pod whose pod.lck is locked. Every step
// can be the last: what is left then is removed by RemoveApp, or by AddApp
// before it begins, since the directory of an app in appsinfo is made first and
// goes last.
type Change struct {
	Preparer *Preparer
	Dir      string
	// Live is where the pod runs; nil if it has ended.
	Live *sys.MountNS
	// Stage1 calls the entrypoint of an annotation for an app of the running pod.
	Stage1 func(annotation, app string) error
}

// LockApps locks the apps of a pod against other changes.
func LockApps(dir string) (*os.File, error) {
	return lock.Path(filepath.Join(dir, podfs.PodLock), lock.Exclusive)
}

// AddApp adds an app to the running pod.
func (c *Change) AddApp(ctx context.Context, ra *schema.RuntimeApp, img App) error {
	m, err := c.manifest()
	if err != nil {
		return err
	}
	name := ra.Name.String()
	switch {
	case m.Apps.Get(ra.Name) != nil:
		return fmt.Errorf("the pod has an app %q already; give this one another name (--name)", name)
	case strings.HasSuffix(name, CreatedSuffix), strings.HasSuffix(name, StartedSuffix):
		return fmt.Errorf("the name %q of an app of a mutable pod must not end in %s or %s", name, CreatedSuffix, StartedSuffix)
	}
	if _, err := os.Lstat(filepath.Join(c.Dir, podfs.AppInfo(name))); err == nil {
		// an add or a removal was killed
		if err := c.remove(m, name); err != nil {
			return fmt.Errorf("removing what is left of an earlier app %q: %w", name, err)
		}
	}
	err = c.add(ctx, m, ra, img)
	if err != nil {
		if undo := c.remove(m, name); undo != nil {
			err = errors.Join(err, fmt.Errorf("removing what was added; rkt app rm tries again: %w", undo))
		}
	}
	return err
}

func (c *Change) add(ctx context.Context, m *schema.PodManifest, ra *schema.RuntimeApp, img App) error {
	p, name := c.Preparer, img.Name
	ids, err := idrange.Of(c.Dir)
	if err != nil {
		return err
	}
	// image gc must not take the tree before it is recorded
	l, err := lock.Path(filepath.Join(p.DataDir, "locks", "prepareLock"), lock.Shared)
	if err != nil {
		return err
	}
	err = p.tree(ctx, c.Dir, podfs.AppInfo(name), img.Image.Key)
	if err = errors.Join(err, l.Close()); err != nil {
		return fmt.Errorf("rendering the image: %w", err)
	}
	failpoint.Hit("app/tree")
	if err := c.mount(ctx, name, img, ids); err != nil {
		return fmt.Errorf("putting its image into the pod: %w", err)
	}
	failpoint.Hit("app/mounted")
	if err := seedApp(c.Dir, c.Live.Root(), m, ra); err != nil {
		return err
	}
	m.Apps = append(m.Apps, *ra)
	if err := c.writeManifest(m); err != nil {
		return err
	}
	failpoint.Hit("app/manifest")
	if err := c.touch(ids, name+CreatedSuffix); err != nil {
		return err
	}
	failpoint.Hit("app/created")
	err = c.Stage1(abi.AnnotationAppAdd, name)
	failpoint.Hit("app/added")
	return err
}

// mount shows the app's tree in the pod: the overlay is mounted where nobody
// sees it, and moved into the pod's mount namespace.
func (c *Change) mount(ctx context.Context, name string, img App, ids abi.IDRange) error {
	p := c.Preparer
	if _, err := os.Lstat(filepath.Join(c.Dir, podfs.OverlayPrepared)); errors.Is(err, os.ErrNotExist) {
		copied := abi.IDRange{}
		if _, err := os.Lstat(filepath.Join(c.Dir, podfs.PrivateUsersCopied)); err == nil {
			copied = ids
		}
		return p.copyApp(ctx, c.Dir, img, copied)
	} else if err != nil {
		return err
	}
	id, err := os.ReadFile(filepath.Join(c.Dir, podfs.AppInfo(name), podfs.TreeStoreIDFile))
	if err != nil {
		return err
	}
	app := filepath.Join(c.Live.Root(), podfs.Stage2Dir, name)
	if err := AsRoot(ids, func() error {
		return errors.Join(os.MkdirAll(filepath.Join(app, podfs.RootfsDir), 0o755), p.appManifest(c.Dir, c.Live.Root(), name))
	}); err != nil {
		return err
	}
	var overlay *os.File
	if err := sys.OwnThread(func() error {
		if err := sys.PrivateMounts(); err != nil {
			return err
		}
		at := filepath.Join(c.Dir, podfs.Stage1) // on this thread nothing of it is needed
		if err := p.overlay(c.Dir, string(id), name, at, ids); err != nil {
			return err
		}
		overlay, err = sys.CloneTree(at, false)
		return err
	}); err != nil {
		return err
	}
	defer overlay.Close()
	root, err := rootpath.Open(app)
	if err != nil {
		return err
	}
	defer root.Close()
	target, err := root.OpenPath(podfs.RootfsDir, true)
	if err != nil {
		return err
	}
	defer target.Close()
	return c.Live.Attach(int(overlay.Fd()), target)
}

// RemoveApp removes an app, or what is left of one.
func (c *Change) RemoveApp(name string) error {
	m, err := c.manifest()
	if err != nil {
		return err
	}
	if _, err := types.NewACName(name); err != nil {
		return fmt.Errorf("app name %q: %w", name, err)
	}
	if _, err := os.Lstat(filepath.Join(c.Dir, podfs.AppInfo(name))); m.Apps.Get(types.ACName(name)) == nil && err != nil {
		return fmt.Errorf("the pod has no app %q", name)
	}
	return c.remove(m, name)
}

func (c *Change) remove(m *schema.PodManifest, name string) error {
	if c.Live != nil {
		if err := c.Stage1(abi.AnnotationAppRm, name); err != nil {
			return err
		}
		failpoint.Hit("app/rm-stopped")
		if err := c.Live.DetachBelow("/" + filepath.Join(podfs.Stage2Dir, name)); err != nil {
			return err
		}
	}
	volumes, err := c.ownVolumes(m, name)
	if err != nil {
		return err
	}
	failpoint.Hit("app/rm-unmounted")
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, v := range volumes {
		if err := root.RemoveAll(filepath.Join(podfs.SharedVolumes, v)); err != nil {
			return err
		}
	}
	m.Apps = slices.DeleteFunc(m.Apps, func(ra schema.RuntimeApp) bool { return ra.Name.String() == name })
	if err := c.writeManifest(m); err != nil {
		return err
	}
	failpoint.Hit("app/rm-manifest")
	if err := c.removeFiles(root, name); err != nil {
		return err
	}
	failpoint.Hit("app/rm-files")
	return root.RemoveAll(podfs.AppInfo(name))
}

// removeFiles removes an app's root, status, and overlay directories.
func (c *Change) removeFiles(root *os.Root, name string) error {
	stage1, err := c.stage1Root()
	if err != nil {
		return err
	}
	defer stage1.Close()
	record := filepath.Join(podfs.AppRecordDir, name+".json")
	if _, err := stage1.Lstat(record); err == nil {
		// of a pod that has ended; the name may be that of a unit of the pod's own otherwise
		if err := stage1.RemoveAll(filepath.Join(podfs.UnitDir, name+".service")); err != nil {
			return err
		}
	}
	for _, f := range []string{filepath.Join(podfs.Stage2Dir, name), filepath.Join(podfs.StatusDir, name), filepath.Join(podfs.StatusDir, name+StartedSuffix),
		filepath.Join(podfs.StatusDir, name+CreatedSuffix), filepath.Join(podfs.EnvDir, name), record} {
		if err := stage1.RemoveAll(f); err != nil {
			return err
		}
	}
	id, err := root.ReadFile(filepath.Join(podfs.AppInfo(name), podfs.TreeStoreIDFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing was mounted yet
	}
	if err != nil {
		return err
	}
	own, err := root.ReadFile(podfs.Stage1TreeID)
	if err != nil || string(own) == string(id) {
		return err
	}
	return errors.Join(root.RemoveAll(podfs.Upper(string(id), name)), root.RemoveAll(podfs.Work(string(id), name)))
}

// stage1Root is the root of the pod, or where its files are when it has ended.
func (c *Change) stage1Root() (*os.Root, error) {
	if c.Live != nil {
		return os.OpenRoot(c.Live.Root())
	}
	dir := filepath.Join(c.Dir, podfs.Stage1Rootfs)
	if _, err := os.Lstat(filepath.Join(c.Dir, podfs.OverlayPrepared)); err == nil {
		id, err := os.ReadFile(filepath.Join(c.Dir, podfs.Stage1TreeID))
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(c.Dir, podfs.Upper(string(id), ""))
	}
	return os.OpenRoot(dir)
}

// ownVolumes are the names of empty volumes that no other app of the pod has.
func (c *Change) ownVolumes(m *schema.PodManifest, name string) ([]string, error) {
	of := func(ra *schema.RuntimeApp) (map[string]bool, error) {
		out := map[string]bool{}
		app := ra.App
		if app == nil {
			b, err := os.ReadFile(filepath.Join(c.Dir, podfs.AppInfo(ra.Name.String()), podfs.ManifestFile))
			if err != nil {
				return nil, err
			}
			img, _, err := appc.ParseImageManifest(b)
			if err != nil || img.App == nil {
				return out, err
			}
			app = img.App
		}
		for _, mp := range unassigned(m, ra, app) {
			out[ra.Name.String()+"-"+mp.Name.String()] = true
		}
		for _, x := range ra.Mounts {
			if x.AppVolume != nil && x.AppVolume.Kind == "empty" {
				out[x.AppVolume.Name.String()] = true
			}
		}
		return out, nil
	}
	mine := map[string]bool{}
	others := map[string]bool{}
	for _, v := range m.Volumes {
		others[v.Name.String()] = true
	}
	for i := range m.Apps {
		vs, err := of(&m.Apps[i])
		if err != nil {
			return nil, err
		}
		for v := range vs {
			if m.Apps[i].Name.String() == name {
				mine[v] = true
			} else {
				others[v] = true
			}
		}
	}
	var out []string
	for v := range mine {
		if !others[v] {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Started notes that an app is being started: its status of before goes.
func (c *Change) Started(name string) error {
	ids, err := idrange.Of(c.Dir)
	if err != nil {
		return err
	}
	if err := c.NotStarted(name); err != nil {
		return err
	}
	if err := c.removeStatus(name); err != nil {
		return err
	}
	return c.touch(ids, name+StartedSuffix)
}

// NotStarted undoes Started.
func (c *Change) NotStarted(name string) error { return c.removeStatus(name + StartedSuffix) }

func (c *Change) removeStatus(file string) error {
	root, err := c.stage1Root()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(filepath.Join(podfs.StatusDir, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// touch makes an empty file beside the statuses.
func (c *Change) touch(ids abi.IDRange, file string) error {
	root, err := c.stage1Root()
	if err != nil {
		return err
	}
	defer root.Close()
	return AsRoot(ids, func() error { return root.WriteFile(filepath.Join(podfs.StatusDir, file), nil, 0o644) })
}

func (c *Change) manifest() (*schema.PodManifest, error) {
	b, err := os.ReadFile(filepath.Join(c.Dir, podfs.PodManifest))
	if err != nil {
		return nil, fmt.Errorf("reading the pod manifest: %w", err)
	}
	m, _, err := appc.ParsePodManifest(b)
	if err == nil && !Mutable(m) {
		err = errors.New("the pod is immutable: its apps are those it was started with; rkt app sandbox starts a mutable one")
	}
	return m, err
}

// writeManifest replaces the manifest as a whole; readers never lock.
func (c *Change) writeManifest(m *schema.PodManifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("making the pod manifest: %w", err)
	}
	if _, _, err := appc.ParsePodManifest(b); err != nil { // as all others will
		return err
	}
	return atomicfile.WriteFile(filepath.Join(c.Dir, podfs.PodManifest), b, 0o640)
}

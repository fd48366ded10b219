// Package prepare puts a pod together: it writes manifests and records into
// the pod's directory, renders the trees of its images, and, when the pod is
// about to run, mounts them. What runs in the pod is stage1's business.
package prepare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/idrange"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// Request is a pod to prepare.
type Request struct {
	Manifest []byte
	Apps     []App
	Stage1   image.Image
	// NoOverlay copies trees instead of mounting overlays over shared ones.
	NoOverlay bool
	// PrivateUsers says whether the pod gets a user namespace.
	PrivateUsers PrivateUsers
	// Declared is the name of the pod file, Machine the name for machined, Unit
	// the unit the pod runs in; empty where there is none.
	Declared, Machine, Unit string
}

// App is an app of the pod and its image.
type App struct {
	Name  string
	Image image.Image
}

// Preparer prepares pods in a data directory.
type Preparer struct {
	DataDir string
	Store   *store.Store
	Trees   *tree.Trees
	Warn    func(text string)

	ns userns
}

// Prepare fills the directory of a preparing pod.
func (p *Preparer) Prepare(ctx context.Context, h *pod.Handle, r Request) error {
	// image gc finds unreferenced trees under the same lock, exclusively
	if err := os.MkdirAll(filepath.Join(p.DataDir, "locks"), 0o750); err != nil {
		return err
	}
	l, err := lock.Path(filepath.Join(p.DataDir, "locks", "prepareLock"), lock.Shared)
	if err != nil {
		return err
	}
	defer l.Close()
	dir := h.Dir()
	put := func(name string, data []byte, mode os.FileMode) {
		if err == nil {
			// readers see files whole; what a power cut takes is a pod that does not run any more
			err = atomicfile.WriteFileNoSync(filepath.Join(dir, name), data, mode)
		}
	}
	mkdir := func(name string) {
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, name), 0o750)
		}
	}
	if r.Declared != "" {
		put(podfs.DeclaredName, []byte(r.Declared+"\n"), 0o644)
	}
	if r.Machine != "" {
		put(podfs.MachineName, []byte(r.Machine+"\n"), 0o644)
	}
	if r.Unit != "" {
		put(podfs.UnitName, []byte(r.Unit+"\n"), 0o644)
	}
	put(podfs.PodManifest, r.Manifest, 0o640)
	put(podfs.PodCreated, nil, 0o640)
	put(podfs.PodLock, nil, 0o600)
	mkdir(podfs.Stage1)
	mkdir(podfs.AppsInfo)
	if err != nil {
		return fmt.Errorf("writing the pod directory: %w", err)
	}
	failpoint.Hit("prepare/manifest")
	ids, err := p.allocate(dir, r.PrivateUsers)
	if err != nil {
		return err
	}
	failpoint.Hit("prepare/id-range")
	if err := p.trees(ctx, dir, r); err != nil {
		return err
	}
	failpoint.Hit("prepare/trees")
	overlay := !r.NoOverlay
	if overlay {
		if err := tree.SupportsOverlay(p.DataDir); err != nil {
			p.Warn(fmt.Sprintf("disabling overlay support: %v", err))
			overlay = false
		}
	}
	copied := ids
	if ids.Count > 0 {
		if overlay, copied, err = p.mapping(dir, ids, r, overlay); err != nil {
			return err
		}
	}
	if overlay {
		put(podfs.OverlayPrepared, nil, 0o640)
		mkdir(podfs.Stage1Rootfs)
		return err
	}
	if copied.Count > 0 {
		put(podfs.PrivateUsersCopied, nil, 0o640)
	}
	if err != nil {
		return err
	}
	return p.copies(ctx, dir, r, copied)
}

// trees renders every image and records which tree the pod uses.
func (p *Preparer) trees(ctx context.Context, dir string, r Request) error {
	type job struct {
		what, key, info string
	}
	jobs := []job{{"stage1 image", r.Stage1.Key, ""}}
	for _, a := range r.Apps {
		jobs = append(jobs, job{fmt.Sprintf("image of app %q", a.Name), a.Image.Key, podfs.AppInfo(a.Name)})
	}
	errs := make([]error, len(jobs))
	var wg sync.WaitGroup
	limit := make(chan struct{}, 2)
	for i, j := range jobs {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			if err := p.tree(ctx, dir, j.info, j.key); err != nil {
				errs[i] = fmt.Errorf("rendering the %s: %w", j.what, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *Preparer) tree(ctx context.Context, dir, info, key string) error {
	t, err := p.Trees.Render(ctx, key)
	if err != nil {
		return err
	}
	// of the tree, not of the store, where members of group rkt may write
	m, err := os.ReadFile(t.ManifestPath())
	if err != nil {
		return err
	}
	manifest, id := podfs.Stage1Manifest, podfs.Stage1TreeID
	if info != "" {
		manifest, id = filepath.Join(info, podfs.ManifestFile), filepath.Join(info, podfs.TreeStoreIDFile)
		if err := os.MkdirAll(filepath.Join(dir, info), 0o750); err != nil {
			return err
		}
	}
	if err := atomicfile.WriteFileNoSync(filepath.Join(dir, manifest), m, 0o640); err != nil {
		return err
	}
	if err := atomicfile.WriteFileNoSync(filepath.Join(dir, id), []byte(t.ID), 0o640); err != nil {
		return err
	}
	return p.Store.Touch(key)
}

// copies copies all trees; with ids, into that range.
func (p *Preparer) copies(ctx context.Context, dir string, r Request, ids abi.IDRange) error {
	t, err := p.Trees.Find(r.Stage1.Key)
	if err != nil {
		return err
	}
	if err := tree.CopyShifted(ctx, t.Lowers(), filepath.Join(dir, podfs.Stage1Rootfs), ids.Shift, ids.Count); err != nil {
		return fmt.Errorf("copying the stage1 image: %w", err)
	}
	for _, a := range r.Apps {
		if err := p.copyApp(ctx, dir, a, ids); err != nil {
			return err
		}
	}
	return nil
}

// copyApp copies an app's tree.
func (p *Preparer) copyApp(ctx context.Context, dir string, a App, ids abi.IDRange) error {
	t, err := p.Trees.Find(a.Image.Key)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, podfs.AppRootfs(a.Name))
	if err := AsRoot(ids, func() error { return os.MkdirAll(filepath.Dir(target), 0o755) }); err != nil {
		return err
	}
	if err := tree.CopyShifted(ctx, t.Lowers(), target, ids.Shift, ids.Count); err != nil {
		return fmt.Errorf("copying the image of app %q: %w", a.Name, err)
	}
	failpoint.Hit("prepare/copied")
	return AsRoot(ids, func() error { return p.appManifest(dir, filepath.Join(dir, podfs.Stage1Rootfs), a.Name) })
}

// appManifest puts the image's manifest beside the app's root, where the
// contract has it.
func (p *Preparer) appManifest(dir, stage1, app string) error {
	b, err := os.ReadFile(filepath.Join(dir, podfs.AppInfo(app), podfs.ManifestFile))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(stage1, podfs.Stage2Dir, app, podfs.ManifestFile), b, 0o644)
}

// Mount gives the calling thread, which must be locked to its goroutine, a
// mount namespace of its own and mounts the pod's trees in it. Whoever the
// thread becomes, the mounts end with the last process in the namespace.
func (p *Preparer) Mount(h *pod.Handle, m *schema.PodManifest) error {
	if err := sys.PrivateMounts(); err != nil {
		return fmt.Errorf("making a mount namespace for the pod: %w", err)
	}
	dir := h.Dir()
	ids, err := idrange.Of(dir)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, podfs.OverlayPrepared)); errors.Is(err, os.ErrNotExist) {
		if err := p.mapCopies(dir, ids); err != nil {
			return err
		}
		return p.seed(dir, m)
	} else if err != nil {
		return err
	}
	if err := tree.SupportsOverlay(p.DataDir); err != nil {
		return fmt.Errorf("the pod was prepared with overlay, which does not work here: %w", err)
	}
	id, err := os.ReadFile(filepath.Join(dir, podfs.Stage1TreeID))
	if err != nil {
		return err
	}
	// exit statuses are read from the upper directory, also before the first is
	// written; the set-group-ID bit of the data directory has no place in the pod
	for _, d := range []string{filepath.Dir(podfs.StatusDir), podfs.StatusDir} {
		d = filepath.Join(dir, podfs.Upper(string(id), ""), d)
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := errors.Join(os.Chown(d, int(ids.Shift), int(ids.Shift)), os.Chmod(d, 0o755)); err != nil {
			return err
		}
	}
	if err := p.overlay(dir, string(id), "", filepath.Join(dir, podfs.Stage1Rootfs), ids); err != nil {
		return fmt.Errorf("mounting stage1: %w", err)
	}
	failpoint.Hit("prepare/mounted-stage1")
	for i := range m.Apps {
		app := m.Apps[i].Name.String()
		id, err := os.ReadFile(filepath.Join(dir, podfs.AppInfo(app), podfs.TreeStoreIDFile))
		if err != nil {
			return err
		}
		target := filepath.Join(dir, podfs.AppRootfs(app))
		if err := AsRoot(ids, func() error {
			return errors.Join(os.MkdirAll(target, 0o755), p.appManifest(dir, filepath.Join(dir, podfs.Stage1Rootfs), app))
		}); err != nil {
			return err
		}
		if err := p.overlay(dir, string(id), app, target, ids); err != nil {
			return fmt.Errorf("mounting app %q: %w", app, err)
		}
	}
	failpoint.Hit("prepare/mounted")
	return p.seed(dir, m)
}

func (p *Preparer) overlay(dir, id, app, target string, ids abi.IDRange) error {
	t, err := p.Trees.Again(context.Background(), id)
	if err != nil {
		return err
	}
	o := tree.Overlay{Lower: t.Lowers(), Upper: filepath.Join(dir, podfs.Upper(id, app)), Work: filepath.Join(dir, podfs.Work(id, app))}
	if ids.Count > 0 {
		// the directory of the records is there, and nothing of it is needed now
		o.At = filepath.Join(dir, podfs.AppsInfo)
		if o.IDMap, err = p.ns.of(ids); err != nil {
			return err
		}
	}
	fresh := false
	if _, err := os.Lstat(o.Upper); errors.Is(err, os.ErrNotExist) {
		fresh = true
	}
	for _, d := range []string{o.Upper, o.Work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if fresh || app == "" {
		// the root of the overlay has the mode and owner of the upper directory
		st, err := sys.Lstatat(sys.CWD, t.Lowers()[0])
		if err != nil {
			return err
		}
		uid, _ := ids.Outside(st.UID)
		gid, _ := ids.Outside(st.GID)
		if err := os.Lchown(o.Upper, int(uid), int(gid)); err != nil {
			return err
		}
		if err := sys.Chmodat(sys.CWD, o.Upper, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return o.Mount(target)
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/handoff"
	"github.com/rkt-systemd/rkt/stage0/idrange"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/prepare"
)

// foreseen is what a declared pod would get if it was started now. What cannot be
// told without fetching, unpacking or writing anything is missing.
type foreseen struct {
	Images []foreseenImage `json:"images"`
	// Generation is the set of images that is recorded, 0 if none is.
	Generation      int             `json:"generation,omitempty"`
	GenerationState string          `json:"generation_state,omitempty"`
	Manifest        json.RawMessage `json:"manifest,omitempty"`
	// Missing says why what follows is not there.
	Missing []string `json:"missing,omitempty"`
	Plan    *abi.Plan
	// running is the pod that runs now, nil without one.
	running *pod.Pod
}

type foreseenImage struct {
	App       string `json:"app,omitempty"`
	Reference string `json:"reference"`
	ID        string `json:"id,omitempty"`
	Name      string `json:"name,omitempty"`
	Digest    string `json:"digest,omitempty"`
	Unpacked  bool   `json:"unpacked"`
}

// Stand-ins for what is chosen when a pod starts.
const standInUUID = "00000000-0000-4000-8000-000000000000"

func standInUsers() abi.IDRange { return abi.IDRange{Shift: 524288, Count: idrange.Count} }

// foresee makes the pod's manifest and has its stage1 plan it, as far as images
// are there.
func (a *app) foresee(ctx context.Context, p *podfile.Pod) (*foreseen, error) {
	out := &foreseen{Images: []foreseenImage{}}
	lacks := func(format string, args ...any) { out.Missing = append(out.Missing, fmt.Sprintf(format, args...)) }
	spec, err := declaredSpec(p)
	if errors.Is(err, os.ErrPermission) {
		lacks("%v", err)
	} else if err != nil {
		return nil, err
	}
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "cas")); err != nil {
		lacks("there is no image store yet (%v)", err)
		for _, ap := range p.Apps {
			out.Images = append(out.Images, foreseenImage{App: ap.Name, Reference: imageText(ap.Image)})
		}
		return out, nil
	}
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	f, err := a.podFetcher(st, p)
	if err != nil {
		return nil, err
	}
	records, err := declared.Open(st.dir, p.Name)
	if err != nil {
		return nil, err
	}
	current, err := records.Current()
	if err != nil {
		lacks("what is recorded of its images: %v", err)
	}
	if current != nil {
		out.Generation, out.GenerationState = current.Generation, string(current.State)
	}
	var images []image.Image
	request := &abi.PlanRequest{Machine: p.MachineName(), Unit: p.UnitName()}
	for i := range p.Apps {
		img, entry := a.locate(ctx, st, f, p, i, current, request, lacks)
		out.Images = append(out.Images, entry)
		images = append(images, img)
	}
	if len(out.Missing) > 0 {
		return out, nil
	}
	manifest, apps, err := spec.Manifest(images)
	if err != nil {
		return nil, err
	}
	out.Manifest = manifest
	request.Pod = manifest
	for i, ap := range apps { // by now every app has a name
		request.Apps[i].Name, out.Images[i].App = ap.Name, ap.Name
	}
	return out, a.plan(ctx, p, st, f, request, out, lacks)
}

// locate finds an app's image, and the tree it is unpacked to.
func (a *app) locate(ctx context.Context, st *stores, f *image.Fetcher, p *podfile.Pod, i int, current *declared.Current, request *abi.PlanRequest,
	lacks func(string, ...any)) (image.Image, foreseenImage) {
	ap := &p.Apps[i]
	entry := foreseenImage{App: ap.Name, Reference: imageText(ap.Image)}
	ref, err := image.ParseRef(appRef(ap.Image))
	var img image.Image
	if err == nil {
		rec := current.App(appKey(p, i), ref.Text)
		if rec != nil && !fileChanged(ref, rec) {
			entry.Digest = rec.Digest
			img, err = f.LocateRecorded(ref, rec.ID, rec.Admitted)
		} else {
			img, err = f.Locate(ctx, ref)
		}
	}
	if err != nil {
		lacks("image %s of app %s: %v", entry.Reference, orDash(ap.Name), err)
		return img, entry
	}
	entry.ID, entry.Name = img.ID, img.Name
	t, err := st.trees.Find(img.Key)
	if err == nil {
		img.Manifest, err = t.Manifest()
	}
	if err != nil {
		lacks("image %s of app %s is not unpacked yet: %v", entry.Reference, orDash(ap.Name), err)
		return img, entry
	}
	entry.Unpacked = true
	manifest, err := json.Marshal(img.Manifest)
	if err != nil {
		lacks("image %s of app %s: %v", entry.Reference, orDash(ap.Name), err)
	}
	request.Apps = append(request.Apps, abi.PlanApp{Manifest: manifest, Roots: t.Lowers()})
	return img, entry
}

// plan asks stage1.
func (a *app) plan(ctx context.Context, p *podfile.Pod, st *stores, f *image.Fetcher, request *abi.PlanRequest, out *foreseen, lacks func(string, ...any)) error {
	stage1, err := f.LocateStage1(ctx, declaredStage1(p))
	if err != nil {
		lacks("the stage1 image: %v", err)
		return nil
	}
	t, err := st.trees.Find(stage1.Key)
	if err != nil {
		lacks("the stage1 image is not unpacked yet: %v", err)
		return nil
	}
	uuid, ids := standInUUID, abi.IDRange{}
	if privateUsers(p, stage1.Manifest) != prepare.NoPrivateUsers {
		ids = standInUsers()
	}
	if out.running, err = a.runningOf(p.Name); err != nil {
		lacks("the pod that runs: %v", err)
	}
	if d := out.running; d != nil {
		uuid = d.UUID
		if r, err := abi.ParseIDRange(d.PrivateUsers()); err == nil && ids.Count > 0 {
			ids = r
		}
	}
	so := declaredOptions(p)
	names, err := so.check()
	if err != nil {
		return err
	}
	version, err := handoff.Version(stage1.Manifest)
	if err != nil {
		return err
	}
	request.Args, _ = a.runArguments(&so, names, f.Insecure, ids, false, uuid).Args(version)
	request.Dir = filepath.Join(st.dir, "pods", podfs.Run, uuid)
	out.Plan, err = handoff.Plan(ctx, t.Rootfs(), stage1.Manifest, request)
	if errors.Is(err, handoff.ErrNoEntrypoint) {
		lacks("this stage1 image does not tell what it would do")
		return nil
	}
	return err
}

// runningOf is the pod that runs for a declared name, nil if none does.
func (a *app) runningOf(name string) (*pod.Pod, error) {
	pods, _, err := a.pods()
	if err != nil {
		return nil, err
	}
	id, err := pods.NewestOf(name)
	if err != nil {
		return nil, nil //nolint:nilerr // none has run
	}
	d, err := pods.Get(id)
	if err != nil || d.State != pod.Running {
		if err == nil {
			d.Close()
		}
		return nil, err
	}
	return d, nil
}

// close lets go of the pod that runs.
func (f *foreseen) close() {
	if f.running != nil {
		f.running.Close()
	}
}

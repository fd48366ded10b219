package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/image"
)

// podFetcher makes a fetcher as a pod file wants it.
func (a *app) podFetcher(st *stores, p *podfile.Pod) (*image.Fetcher, error) {
	policy, err := image.ParsePullPolicy(orElse(p.Rkt.PullPolicy, string(image.PullNew)))
	if err != nil {
		return nil, err
	}
	text := a.insecureOptions
	if len(p.Rkt.InsecureOptions) > 0 && !a.insecureGiven {
		text = strings.Join(p.Rkt.InsecureOptions, ",")
	}
	insecure, err := image.ParseInsecure(text)
	if err != nil {
		return nil, err
	}
	return a.fetcherWith(st, policy, insecure)
}

// podRecords are what is recorded of a pod's images.
type podRecords struct {
	*declared.Pod
	current *declared.Current
	log     logrus.FieldLogger
}

// records reads what is recorded of a pod, as a start sees it; starts says
// whether the caller is one.
func (a *app) records(st *stores, name string, starts bool) (*podRecords, error) {
	d, err := declared.Open(st.dir, name)
	if err != nil {
		return nil, err
	}
	r := &podRecords{Pod: d, log: a.log}
	var over bool
	if r.current, over, err = d.ForStart(starts); err != nil {
		return nil, err
	}
	switch {
	case over && starts:
		a.log.Warnf("the update of pod %q was interrupted: it runs generation %d, as before", name, r.current.Generation)
	case over:
		a.log.Warnf("the update of pod %q was interrupted: generation %d counts, as before; if it runs, rkt pod update %s puts it back", name, r.current.Generation, name)
	}
	return r, nil
}

// podImages are the images of a pod's apps, in their order.
type podImages struct {
	images []image.Image
	apps   []declared.App
}

// appKey names an app in the records: one whose name comes from its image has
// none in the pod file.
func appKey(p *podfile.Pod, i int) string { return orElse(p.Apps[i].Name, "#"+strconv.Itoa(i+1)) }

func appRef(i podfile.Image) string {
	if i.ID != "" {
		return i.ID
	}
	return imageText(i)
}

// resolve finds the images of all apps as a start does: what is recorded counts,
// what is not is fetched.
func (r *podRecords) resolve(ctx context.Context, st *stores, f *image.Fetcher, p *podfile.Pod) (*podImages, error) {
	out, err := eachApp(ctx, st, p, func(i int, ref image.Ref) (image.Image, declared.App, error) {
		return r.find(ctx, f, appKey(p, i), ref)
	})
	if err != nil || p.Rkt.PullPolicy != string(image.PullUpdate) || r.current == nil || declared.SameImages(out.apps, r.current.Apps) {
		return out, err
	}
	// An update that proved bad must not come in by the next start.
	bad, err := r.BadGeneration(out.apps)
	if err != nil || bad == nil {
		return out, err
	}
	r.log.Warnf("the newest images of pod %q are those of generation %d, which is bad (%s): it runs generation %d", p.Name, bad.Number, bad.Reason, r.current.Generation)
	return eachApp(ctx, st, p, func(i int, ref image.Ref) (image.Image, declared.App, error) {
		if rec := r.current.App(appKey(p, i), ref.Text); rec != nil {
			return r.recorded(f, ref, *rec)
		}
		return r.find(ctx, f, appKey(p, i), ref)
	})
}

// eachApp finds and unpacks the image of each app.
func eachApp(ctx context.Context, st *stores, p *podfile.Pod, find func(i int, ref image.Ref) (image.Image, declared.App, error)) (*podImages, error) {
	out := &podImages{}
	for i := range p.Apps {
		img, app, err := func() (image.Image, declared.App, error) {
			want := p.Apps[i].Image
			ref, err := image.ParseRef(appRef(want))
			if err != nil {
				return image.Image{}, declared.App{}, err
			}
			img, app, err := find(i, ref)
			if err != nil {
				return img, app, err
			}
			if img, err = rendered(ctx, st, img, ref.Text); err == nil && want.ID != "" && want.Name != "" && img.Name != want.Name {
				err = fmt.Errorf("image %s is named %q, not %q", want.ID, img.Name, want.Name)
			}
			return img, app, err
		}()
		if err != nil {
			return nil, fmt.Errorf("app %d (%s): %w", i+1, orDash(p.Apps[i].Name), err)
		}
		out.images, out.apps = append(out.images, img), append(out.apps, app)
	}
	return out, nil
}

// find finds one app's image as the pull policy says.
func (r *podRecords) find(ctx context.Context, f *image.Fetcher, key string, ref image.Ref) (image.Image, declared.App, error) {
	rec := r.current.App(key, ref.Text)
	trial := r.current != nil && r.current.State == declared.Trial
	var old image.Image
	var app declared.App
	var oldErr error = errors.New("nothing is recorded")
	if rec != nil && (trial || !fileChanged(ref, rec)) {
		if old, app, oldErr = r.recorded(f, ref, *rec); trial || oldErr == nil && f.Policy != image.PullUpdate {
			return old, app, oldErr
		}
		if oldErr != nil {
			r.log.Warnf("image %q: what was recorded is not used: %v", ref.Text, oldErr)
		}
	}
	img, app2, err := resolved(ctx, f, key, ref, f.Policy)
	if err != nil && oldErr == nil && ctx.Err() == nil {
		r.log.Warnf("no newer image: %v; the pod runs the one recorded, %s", err, shortID(old.Key, 12, false))
		return old, app, nil
	}
	return img, app2, err
}

// fileChanged says whether the local file that a reference names is another one
// than what was recorded. One that is gone is not.
func fileChanged(ref image.Ref, rec *declared.App) bool {
	now := image.LocalFile(ref)
	return now != nil && (rec.File == nil || *now != *rec.File)
}

func (r *podRecords) recorded(f *image.Fetcher, ref image.Ref, rec declared.App) (image.Image, declared.App, error) {
	img, err := f.Recorded(ref, rec.ID, rec.Admitted)
	return img, rec, err
}

// resolved asks what a reference stands for under a policy, and describes it for
// the record.
func resolved(ctx context.Context, f *image.Fetcher, key string, ref image.Ref, policy image.PullPolicy) (image.Image, declared.App, error) {
	// The file as it is before it is read: should it change meanwhile, the next
	// start looks again.
	file := image.LocalFile(ref)
	img, err := f.FetchWith(ctx, ref, policy)
	if err != nil {
		return img, declared.App{}, err
	}
	how := f.Resolved(ref, img)
	return img, declared.App{Name: key, Ref: ref.Text, ID: img.ID, Digest: how.Digest, Admitted: how.Admitted, File: file}, nil
}

// note records what a start or a fetch resolved. That a pod can start counts for
// more than the record of it.
func (r *podRecords) note(found *podImages, p *podfile.Pod) {
	if _, err := r.RecordSince(r.current, found.apps, p.Rkt.Update.Keep); err != nil {
		r.log.Warnf("the images of pod %q are not recorded: %v", p.Name, err)
	}
}

// started notes that the pod is starting with what is recorded.
func (r *podRecords) started() {
	if r.current == nil || !r.current.Restore {
		return
	}
	if err := r.Restored(); err != nil {
		r.log.Warnf("the next update restarts pod %q once more: %v", r.Name, err)
	}
}

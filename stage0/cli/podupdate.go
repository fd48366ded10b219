package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/image"
)

// Defaults of updates.
const (
	updateTimeout = 2 * time.Minute
	updateSettle  = 30 * time.Second
)

// exitChanges is the exit status of --check and --detailed-exitcode: there are
// changes. It is no failure.
const exitChanges = 2

// Results of an update.
const (
	resultCurrent   = "up-to-date"
	resultAvailable = "available"   // --check
	resultRecorded  = "recorded"    // the pod does not run: the next start takes it
	resultUpdated   = "updated"     // and it proved good
	resultRolled    = "rolled-back" // it did not
	resultSkipped   = "skipped"     // its policy says never, or the newest is known as bad
	resultFailed    = "failed"
)

// updateJSON is one pod in the output of pod update and pod rollback.
type updateJSON struct {
	Name       string         `json:"name"`
	Result     string         `json:"result"`
	Generation int            `json:"generation,omitempty"` // the one that counts afterwards
	Previous   int            `json:"previous,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Apps       []updateAppOut `json:"apps,omitempty"`
}

type updateAppOut struct {
	Name string `json:"name"`
	Ref  string `json:"ref"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

type updateOptions struct {
	check, auto     bool
	timeout, settle time.Duration
	timeoutGiven    bool
	settleGiven     bool
}

func (o updateOptions) of(p *podfile.Pod) (timeout, settle time.Duration) {
	timeout, settle = updateTimeout, updateSettle
	if d := p.Rkt.Update.Timeout; d > 0 {
		timeout = d
	}
	if d := p.Rkt.Update.Settle; d != nil {
		settle = *d
	}
	if o.timeoutGiven {
		timeout = o.timeout
	}
	if o.settleGiven {
		settle = o.settle
	}
	return timeout, settle
}

func (o *updateOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&o.timeout, "timeout", updateTimeout, "how `long` a pod may take until it is ready (default: update.timeout of the pod file, else 2m0s)")
	f.DurationVar(&o.settle, "settle", updateSettle, "how `long` it has to stay up and healthy after that (default: update.settle of the pod file, else 30s)")
	f.Lookup("timeout").DefValue, f.Lookup("settle").DefValue = "", ""
}

func (a *app) podUpdateCmd() *cobra.Command {
	var o updateOptions
	var all bool
	var format string
	cmd := &cobra.Command{
		Use: "update [NAME…|--all]", Short: "Update the images of declared pods, and go back when they prove bad",
		Long: `Resolve the image references of declared pods again, fetch and verify what is new, and restart the pods with it. The new
generation is on trial: the pod has to become ready in time, and to stay up and healthy for a while, without a restart by
systemd in between. Otherwise the generation before it is put back and started. A trial that is interrupted, by a power cut or
a kill, is over: the next start runs what ran before.

Apps whose "update" is "never" are left alone. "registry" asks where the image comes from, "local" takes the newest image of that
reference in the store. A pod that says nothing is updated when asked for here, not by --auto (rkt-update.timer). A pod that does
not run is not started; its next start takes the new images.

With --check nothing is changed (images that are no OCI images are fetched into the store all the same): the exit status is 0
when there is nothing new, 2 when there is, 254 when that could not be told of a pod.`,
		Args: a.rootArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.insecureGiven = cmd.Flags().Changed("insecure-options")
			o.timeoutGiven, o.settleGiven = cmd.Flags().Changed("timeout"), cmd.Flags().Changed("settle")
			if err := checkFormat(format); err != nil {
				return err
			}
			if o.timeoutGiven && o.timeout <= 0 || o.settle < 0 {
				return errors.New("--timeout and --settle: want a duration like 30s")
			}
			names, err := a.podNames(args, all)
			if err != nil {
				return err
			}
			u, err := a.newUpdater(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer u.close()
			out := []updateJSON{}
			for _, n := range names {
				if r := u.update(cmd.Context(), n); r.Result != "" {
					u.tell(r)
					out = append(out, r)
				}
				if cmd.Context().Err() != nil {
					break
				}
			}
			return a.printUpdates(out, format, o.check)
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all declared pods")
	cmd.Flags().BoolVar(&o.auto, "auto", false, `only pods and apps whose "update" says registry or local, and no generation that proved bad before`)
	cmd.Flags().BoolVar(&o.check, "check", false, "only tell what there is")
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

func (a *app) printUpdates(out []updateJSON, format string, check bool) error {
	if format != "" {
		if err := printJSON(a.Stdout, format, out); err != nil {
			return err
		}
	} else if err := a.updateTable(a.Stdout, out); err != nil {
		return err
	}
	available := false
	for _, r := range out {
		switch r.Result {
		case resultFailed, resultRolled:
			return errSilent
		case resultAvailable:
			available = true
		}
	}
	if check && available {
		return &exitError{exitChanges}
	}
	return nil
}

func (a *app) updateTable(out io.Writer, rs []updateJSON) error {
	w := table(out)
	fmt.Fprintln(w, "NAME\tRESULT\tGENERATION\tAPP\tFROM\tTO")
	for _, r := range rs {
		apps := r.Apps
		if len(apps) == 0 {
			apps = []updateAppOut{{Name: "-"}}
		}
		for _, ap := range apps {
			gen := "-"
			if r.Generation > 0 {
				gen = fmt.Sprint(r.Generation)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Result, gen, ap.Name, orDash(shortID(ap.From, 12, false)), orDash(shortID(ap.To, 12, false)))
		}
	}
	return w.Flush()
}

// updater updates pods, one after the other.
type updater struct {
	a  *app
	o  updateOptions
	st *stores
	m  *systemd.Manager
}

func (a *app) newUpdater(ctx context.Context, o updateOptions) (*updater, error) {
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	m, err := systemd.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &updater{a: a, o: o, st: st, m: m}, nil
}

func (u *updater) close() { u.m.Close() }

// update updates one pod. A result without a name of it is one not to be told.
func (u *updater) update(ctx context.Context, name string) updateJSON {
	r := updateJSON{Name: name}
	err := func() error {
		p, err := u.a.loadPod(name)
		if err != nil {
			return err
		}
		if u.o.auto && !wantsUpdates(p) {
			return nil
		}
		return u.updatePod(ctx, p, &r)
	}()
	if err != nil {
		r.Result, r.Reason = resultFailed, err.Error()
		if h := hintOf(err); h != "" {
			r.Reason += "; " + h
		}
	}
	return r
}

// wantsUpdates says whether any app of the pod is updated unasked.
func wantsUpdates(p *podfile.Pod) bool {
	for i := range p.Apps {
		if s := p.UpdatePolicy(&p.Apps[i]); s == podfile.UpdateRegistry || s == podfile.UpdateLocal {
			return true
		}
	}
	return false
}

func (u *updater) updatePod(ctx context.Context, p *podfile.Pod, r *updateJSON) error {
	d, c, unlock, err := u.begin(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	rec := &podRecords{Pod: d, current: c, log: u.a.log}
	f, err := u.a.podFetcher(u.st, p)
	if err != nil {
		return err
	}
	if u.o.check {
		return u.check(ctx, rec, f, p, r)
	}
	found, err := eachApp(ctx, u.st, p, func(i int, ref image.Ref) (image.Image, declared.App, error) {
		return u.find(ctx, rec, f, p, i, ref)
	})
	if err != nil {
		return err
	}
	r.Apps = changes(c, found.apps)
	if c != nil && declared.SameImages(c.Apps, found.apps) {
		r.Result, r.Generation = resultCurrent, c.Generation
		rec.note(found, p) // files may have other dates
		return nil
	}
	if u.o.auto {
		bad, err := d.BadGeneration(found.apps)
		if err != nil {
			return err
		}
		if bad != nil {
			r.Result, r.Generation = resultSkipped, c.Generation
			r.Reason = fmt.Sprintf("generation %d of the same images is bad: %s", bad.Number, bad.Reason)
			return nil
		}
	}
	// What the images say together with the pod file must make a pod.
	spec, err := declaredSpec(p)
	if err != nil {
		return err
	}
	if _, _, err := spec.Manifest(found.images); err != nil {
		return err
	}
	state, err := u.steady(ctx, p)
	if err != nil {
		return err
	}
	if c == nil || !running(state) {
		next, err := d.Adopt(found.apps, p.Rkt.Update.Keep)
		if err != nil {
			return err
		}
		r.Result, r.Generation, r.Previous = resultRecorded, next.Generation, next.Previous
		return nil
	}
	return u.trial(ctx, p, d, found.apps, 0, declared.EventUpdated, "", r)
}

// find finds the newest image of one app, as its policy says.
func (u *updater) find(ctx context.Context, rec *podRecords, f *image.Fetcher, p *podfile.Pod, i int, ref image.Ref) (image.Image, declared.App, error) {
	key := appKey(p, i)
	if old := rec.current.App(key, ref.Text); old != nil && u.pinned(p, i) {
		if img, app, err := rec.recorded(f, ref, *old); err == nil {
			return img, app, nil
		}
	}
	return resolved(ctx, f, key, ref, u.policy(p, i))
}

// pinned says that an app stays as it is.
func (u *updater) pinned(p *podfile.Pod, i int) bool {
	s := p.UpdatePolicy(&p.Apps[i])
	return s == podfile.UpdateNever || s == "" && u.o.auto
}

func (u *updater) policy(p *podfile.Pod, i int) image.PullPolicy {
	switch {
	case p.UpdatePolicy(&p.Apps[i]) == podfile.UpdateLocal, p.Rkt.PullPolicy == string(image.PullNever):
		return image.PullNever
	case u.pinned(p, i): // it was never resolved
		return image.PullNew
	}
	return image.PullUpdate
}

// check tells what an update would change.
func (u *updater) check(ctx context.Context, rec *podRecords, f *image.Fetcher, p *podfile.Pod, r *updateJSON) error {
	r.Result = resultCurrent
	if rec.current != nil {
		r.Generation = rec.current.Generation
	}
	for i := range p.Apps {
		ref, err := image.ParseRef(appRef(p.Apps[i].Image))
		if err != nil {
			return err
		}
		key := appKey(p, i)
		old := rec.current.App(key, ref.Text)
		if old != nil && u.pinned(p, i) {
			continue
		}
		to, err := u.newest(ctx, f, old, key, ref, u.policy(p, i))
		if err != nil {
			return err
		}
		out := updateAppOut{Name: key, Ref: ref.Text, To: to}
		if old != nil {
			out.From = old.ID
		}
		if out.From != out.To {
			r.Apps, r.Result = append(r.Apps, out), resultAvailable
		}
	}
	return nil
}

// newest is the ID that a reference stands for now, or the digest if only that
// is known.
func (u *updater) newest(ctx context.Context, f *image.Fetcher, old *declared.App, key string, ref image.Ref, policy image.PullPolicy) (string, error) {
	if policy == image.PullUpdate {
		digest, err := f.Head(ctx, ref)
		switch {
		case errors.Is(err, image.ErrCannotTell):
		case err != nil:
			return "", err
		case old != nil && digest == old.Digest:
			return old.ID, nil
		default:
			return digest, nil
		}
	}
	_, app, err := resolved(ctx, f, key, ref, policy)
	return app.ID, err
}

// changes are the apps whose images an update changes.
func changes(c *declared.Current, apps []declared.App) []updateAppOut {
	var out []updateAppOut
	for _, ap := range apps {
		o := updateAppOut{Name: ap.Name, Ref: ap.Ref, To: ap.ID}
		if c != nil {
			for _, old := range c.Apps {
				if old.Name == ap.Name {
					o.From = old.ID
				}
			}
		}
		if o.From != o.To {
			out = append(out, o)
		}
	}
	return out
}

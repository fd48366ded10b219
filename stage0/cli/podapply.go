package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/bus"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/stage0/podset"
)

// applyJSON is the output of pod apply.
type applyJSON struct {
	Changed bool       `json:"changed"`
	DryRun  bool       `json:"dry_run"`
	Set     string     `json:"set,omitempty"`
	Pods    []applyPod `json:"pods"`
}

// applyPod is a pod of the plan.
type applyPod struct {
	Name string `json:"name"`
	// Change is "new", "changed", "removed" or "same".
	Change  string          `json:"change"`
	Files   []string        `json:"files"`
	Actions []podset.Action `json:"actions,omitempty"`
}

const (
	changeNew     = "new"
	changeChanged = "changed"
	changeRemoved = "removed"
	changeSame    = "same"
)

type applyOptions struct {
	dry, keep, detailed bool
	set, format         string
}

func (a *app) podApplyCmd() *cobra.Command {
	var o applyOptions
	cmd := &cobra.Command{
		Use: "apply [--dry-run] DIR|FILE…", Short: "Install a set of pod files as one transaction",
		Long: `Install pod files, NAME.json with the drop-ins in NAME.json.d/, into ` + podfile.DefaultDirs()[0] + `: all files are checked, then all images
fetched, then the files put in place together, then units started, restarted and stopped as it takes. Nothing is done when a
file has an error or an image cannot be had. Killed at any point, either the old files count or the new ones, for everybody who reads
them; what was not done with units by then is done by the next rkt pod apply.

  +  new: started if its install section wants that         ~  changed: restarted if it runs
  -  not in the set any more: stopped, and its file removed   =  the same: left alone

The files of a directory are a set, known by the directory's path or --set=NAME: what an earlier apply of the same set has
installed and is not in it any more is removed, nothing else; --keep removes nothing. Files named one by one are only a
set with --set.

The exit status is 0, or 254 when something failed. With --detailed-exitcode it is 2 when something was changed, or with
--dry-run would be. --format=json says it as "changed".`,
		Args: func(_ *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			if len(args) == 0 {
				return errors.New("apply takes a directory or pod files; see rkt help pod apply")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a.insecureGiven = cmd.Flags().Changed("insecure-options")
			if err := checkFormat(o.format); err != nil {
				return err
			}
			return a.apply(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.dry, "dry-run", false, "check and show the plan, change nothing")
	f.BoolVar(&o.keep, "keep", false, "remove nothing that left the set")
	f.BoolVar(&o.detailed, "detailed-exitcode", false, "exit with 2 when something changed")
	f.StringVar(&o.set, "set", "", "the `NAME` of the set (default: the path of the directory)")
	f.StringVar(&o.format, "format", "", "`json` or json-pretty instead of lines")
	return cmd
}

// applier carries out one pod apply.
type applier struct {
	a      *app
	o      applyOptions
	places podset.Places
	// files are those of the set by their path below the directory of pod files,
	// and from is where each comes from.
	files map[string]podset.File
	from  map[string]string
	// change is what has to be written, or removed.
	change map[string]podset.File
	before []podset.Set
	stage  string
}

func (a *app) apply(ctx context.Context, args []string, o applyOptions) error {
	places, err := a.podPlaces(podfile.DefaultDirs()[0])
	if err != nil {
		return err
	}
	ap := &applier{a: a, o: o, places: places, files: map[string]podset.File{}, from: map[string]string{}, change: map[string]podset.File{}}
	if err := ap.read(args); err != nil {
		return err
	}
	if !o.dry {
		l, err := a.lockPlaces(ctx, ap.places)
		if err != nil {
			return err
		}
		defer l.Close()
		if done, err := ap.places.Finish(); err != nil {
			return err
		} else if done {
			a.log.Warn("an interrupted rkt pod apply was finished: its files are in place")
		}
	}
	if ap.before, err = ap.places.ReadSets(); err != nil {
		return err
	}
	if err := ap.diff(); err != nil {
		return err
	}
	if ap.stage, err = os.MkdirTemp("", "rkt-apply-"); err != nil {
		return err
	}
	defer os.RemoveAll(ap.stage)
	if err := podset.Stage(ap.stage, ap.change); err != nil {
		return err
	}
	out, pods, err := ap.plan()
	if err != nil {
		return err
	}
	if !o.dry {
		err = ap.carryOut(ctx, out, pods)
	}
	if perr := ap.print(out); err == nil {
		err = perr
	}
	if err == nil && o.detailed && out.Changed {
		return &exitError{exitChanges}
	}
	return err
}

// podPlaces are the places of pod files below a directory of the search path.
func (a *app) podPlaces(pods string) (podset.Places, error) {
	dir, err := a.dataDir()
	return podset.Places{Pods: pods, Sets: filepath.Join(dir, "podsets"), LockFile: podset.LockFile}, err
}

func (a *app) lockPlaces(ctx context.Context, places podset.Places) (*os.File, error) {
	return places.Lock(ctx, func() { a.log.Info("another rkt is changing pod files, waiting for it") })
}

// read finds the files of the set.
func (ap *applier) read(args []string) error {
	add := func(rel, path string) error {
		f, err := podset.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading a pod file: %w", err)
		}
		if other, ok := ap.from[rel]; ok {
			return fmt.Errorf("%q and %q are both %s", other, path, rel)
		}
		ap.files[rel], ap.from[rel] = f, path
		return nil
	}
	one := func(path string) error {
		name := filepath.Base(path)
		stem, ok := strings.CutSuffix(name, ".json")
		if !ok {
			return fmt.Errorf("%q is no pod file: its name does not end in .json", path)
		}
		if err := podfile.CheckName(stem); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		if err := add(name, path); err != nil {
			return err
		}
		return ap.dropIns(path+".d", name+".d", add)
	}
	for _, arg := range args {
		st, err := os.Stat(arg)
		if err != nil {
			return fmt.Errorf("reading pod files: %w", err)
		}
		if !st.IsDir() {
			if err := one(arg); err != nil {
				return err
			}
			continue
		}
		abs, err := filepath.Abs(arg)
		if err != nil {
			return err
		}
		if len(args) == 1 && ap.o.set == "" {
			ap.o.set = abs
		}
		entries, err := os.ReadDir(arg)
		if err != nil {
			return fmt.Errorf("reading pod files: %w", err)
		}
		for _, e := range entries {
			path := filepath.Join(arg, e.Name())
			switch stem, dropIns := strings.CutSuffix(e.Name(), ".json.d"); {
			case strings.HasPrefix(e.Name(), "."):
			case strings.HasSuffix(e.Name(), ".json"):
				err = one(path)
			case dropIns && podfile.CheckName(stem) == nil:
				if _, serr := os.Stat(strings.TrimSuffix(path, ".d")); serr != nil { // of a file that is elsewhere
					err = ap.dropIns(path, e.Name(), add)
				}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (ap *applier) dropIns(dir, rel string, add func(rel, path string) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading drop-ins: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") {
			if err := add(filepath.Join(rel, e.Name()), filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// diff finds out what has to be written and removed.
func (ap *applier) diff() error {
	for _, s := range ap.before {
		for _, rel := range s.Files {
			if _, ours := ap.files[rel]; ours && s.Name != ap.o.set && s.Name != "" {
				return hint(fmt.Errorf("%s belongs to the set %q", rel, s.Name), "rkt pod apply --set=%s, or remove it from that set first", s.Name)
			}
		}
	}
	for rel, f := range ap.files {
		have, err := ap.places.Read(rel)
		if err != nil {
			return err
		}
		if have == nil || string(have) != string(f.Data) {
			ap.change[rel] = f
		}
	}
	for _, rel := range ap.members() {
		if _, ok := ap.files[rel]; ok || ap.o.keep {
			continue
		}
		have, err := ap.places.Read(rel)
		if err != nil {
			return err
		}
		if have != nil {
			ap.change[rel] = podset.File{}
		}
	}
	return nil
}

// members are the files that the set had before.
func (ap *applier) members() []string {
	if ap.o.set == "" {
		return nil
	}
	for _, s := range ap.before {
		if s.Name == ap.o.set {
			return s.Files
		}
	}
	return nil
}

// carryOut fetches, commits and does what is to be done with the units.
func (ap *applier) carryOut(ctx context.Context, out *applyJSON, pods map[string]*podfile.Pod) error {
	if err := ap.fetch(ctx, out, pods); err != nil {
		return err
	}
	set := ap.next(out)
	if len(ap.change) > 0 {
		if err := ap.places.Commit(set, ap.change); err != nil {
			return fmt.Errorf("installing pod files: %w", err)
		}
	}
	return ap.act(ctx, set)
}

// next is what the set consists of from now on, with what is to be done with units:
// also what an interrupted apply left, since this one may be interrupted, too.
func (ap *applier) next(out *applyJSON) podset.Set {
	set := podset.Set{Name: ap.o.set}
	if set.Name != "" {
		for rel := range ap.files {
			set.Files = append(set.Files, rel)
		}
		if ap.o.keep {
			set.Files = append(set.Files, ap.members()...)
		}
		slices.Sort(set.Files)
		set.Files = slices.Compact(set.Files)
	}
	for _, p := range out.Pods {
		set.Pending = append(set.Pending, p.Actions...)
	}
	for _, s := range ap.before {
		if s.Name == set.Name {
			set.Pending = podset.Merge(s.Pending, set.Pending)
		}
	}
	return set
}

// act does what is pending with units: of this set, and of others that an
// interrupted apply left.
func (ap *applier) act(ctx context.Context, set podset.Set) error {
	all := []podset.Set{set}
	for _, s := range ap.before {
		if s.Name != set.Name && len(s.Pending) > 0 {
			s.Pending = podset.Left(s.Pending, set.Pending)
			all = append(all, s)
		}
	}
	pending := len(ap.change) > 0
	for _, s := range all {
		pending = pending || len(s.Pending) > 0
	}
	if !pending {
		return ap.places.PutSet(set)
	}
	m, err := systemd.Connect(ctx)
	if err != nil {
		return fmt.Errorf("the files are in place, but their units are not: %w", err)
	}
	defer m.Close()
	// What goes is stopped while its units are still known.
	var errs []error
	for _, first := range []bool{true, false} {
		if !first {
			if err := m.Reload(ctx); err != nil {
				return err
			}
		}
		for _, s := range all {
			for _, p := range s.Pending {
				if (p.Verb == string(systemd.Stop)) == first {
					if err := m.Do(ctx, systemd.Action(p.Verb), p.Unit); err != nil && !gone(err) {
						errs = append(errs, hint(fmt.Errorf("%s of %s: %w", p.Verb, p.Unit, err), "systemctl status %s", p.Unit))
					}
				}
			}
		}
	}
	if ctx.Err() != nil {
		return errors.Join(append(errs, ctx.Err())...) // the next one goes on
	}
	for _, s := range all {
		s.Pending = nil
		errs = append(errs, ap.places.PutSet(s))
	}
	return errors.Join(errs...)
}

// gone says that a unit that was to be stopped is not there.
func gone(err error) bool { return errors.Is(err, bus.ErrNotFound) }

// fetch brings the images of what is new or changed.
func (ap *applier) fetch(ctx context.Context, out *applyJSON, pods map[string]*podfile.Pod) error {
	st, err := ap.a.stores()
	if err != nil {
		return err
	}
	failed := 0
	for _, o := range out.Pods {
		p := pods[o.Name]
		if p == nil || o.Change == changeSame || strings.HasSuffix(o.Name, "@") {
			continue
		}
		f, err := ap.a.podFetcher(st, p)
		if err != nil {
			return err
		}
		rec, err := ap.a.records(st, o.Name, false)
		if err != nil {
			return err
		}
		if _, err := rec.resolve(ctx, st, f, p); err != nil {
			ap.a.log.Errorf("pod %q: %v", o.Name, err)
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("nothing was changed: the images of %d pod(s) cannot be had", failed)
	}
	return nil
}

func (ap *applier) print(out *applyJSON) error {
	if ap.o.format != "" {
		return printJSON(ap.a.Stdout, ap.o.format, out)
	}
	marks := map[string]string{changeNew: "+", changeChanged: "~", changeRemoved: "-", changeSame: "="}
	w := table(ap.a.Stdout)
	for _, p := range out.Pods {
		var acts []string
		for _, x := range p.Actions {
			acts = append(acts, x.Verb+" "+x.Unit)
		}
		fmt.Fprintf(w, "%s %s\t%s\t%s\n", marks[p.Change], p.Name, p.Change, strings.Join(acts, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if out.DryRun {
		fmt.Fprintln(ap.a.Stdout, "nothing was changed (--dry-run)")
	}
	return nil
}

package cli

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podunit"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/podset"
)

// plan checks all pods that the files are about, and says what is to be done
// with each. It returns the pods as they will be.
func (ap *applier) plan() (*applyJSON, map[string]*podfile.Pod, error) {
	now, err := podfile.Scan(podfile.SearchOptions{})
	if err != nil {
		return nil, nil, err
	}
	dirs := append([]string{ap.stage, podfile.PendingDir}, podfile.DefaultDirs()...)
	then, err := podfile.Scan(podfile.SearchOptions{Dirs: dirs})
	if err != nil {
		return nil, nil, err
	}
	files := map[string][]string{} // by pod
	for _, all := range []map[string]podset.File{ap.files, ap.change} {
		for rel := range all {
			stem, _, _ := strings.Cut(rel, ".json")
			if !slices.Contains(files[stem], rel) {
				files[stem] = append(files[stem], rel)
			}
		}
	}
	running, err := ap.a.newestRuns()
	if err != nil {
		return nil, nil, err
	}
	out := &applyJSON{Changed: len(ap.change) > 0, DryRun: ap.o.dry, Set: ap.o.set, Pods: []applyPod{}}
	pods := map[string]*podfile.Pod{}
	failed := false
	for _, stem := range slices.Sorted(maps.Keys(files)) {
		slices.Sort(files[stem])
		changed := slices.ContainsFunc(files[stem], func(rel string) bool { _, ok := ap.change[rel]; return ok })
		names := []string{stem}
		if strings.HasSuffix(stem, "@") {
			names = append(names, instances(stem, now, then, running)...)
		}
		for i, name := range names {
			old, before := now.Load(name)
			p, problems := then.Load(name)
			if podfile.IsMasked(problems) && p == nil {
				problems = nil
			}
			failed = ap.say(problems) || failed
			if p != nil {
				failed = ap.checkImages(p) || failed
			}
			pods[name] = p
			e := applyPod{Name: name, Change: changeSame, Files: files[stem]}
			if i > 0 {
				e.Files = []string{}
			}
			switch {
			case !changed:
			case p == nil:
				e.Change = changeRemoved
			case old == nil:
				e.Change = changeNew
			default:
				e.Change = changeChanged
			}
			if e.Actions, err = actions(e.Change, name, old, p, running[name].state == "running", broken(before)); err != nil {
				return nil, nil, err
			}
			out.Pods = append(out.Pods, e)
		}
	}
	if failed {
		return nil, nil, errSilent
	}
	return out, pods, nil
}

// instances are those of a template that are declared or run.
func instances(template string, now, then *podfile.Index, running map[string]runOf) []string {
	names := append(now.Instances(template), then.Instances(template)...)
	if p, _ := then.Load(template); p != nil {
		if d := podunit.DefaultInstance(p); d != "" {
			names = append(names, template+d)
		}
	}
	for name, r := range running {
		if strings.HasPrefix(name, template) && r.state == "running" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), then.Has) // those have files of their own
}

// say prints problems, with the files that people know; it reports an error.
func (ap *applier) say(problems []podfile.Problem) bool {
	for _, p := range problems {
		if rel, ok := strings.CutPrefix(p.File, ap.stage+"/"); ok && ap.from[rel] != "" {
			p.File = ap.from[rel]
		}
		fmt.Fprintf(ap.a.Stderr, "%s: %s\n", p.Severity, p.Error())
	}
	return podfile.Failed(problems)
}

// checkImages checks what only stage0 can: the references; it reports an error.
func (ap *applier) checkImages(p *podfile.Pod) bool {
	failed := false
	for i := range p.Apps {
		if _, err := image.ParseRef(appRef(p.Apps[i].Image)); err != nil {
			fmt.Fprintf(ap.a.Stderr, "error: pod %q, app %d: %v\n", p.Name, i+1, err)
			failed = true
		}
	}
	return failed
}

// broken says that problems are those of a pod that is declared, but not to be used.
func broken(problems []podfile.Problem) bool {
	return podfile.Failed(problems) && !podfile.IsNotFound(problems) && !podfile.IsMasked(problems)
}

// actions are what is to be done with the units of a pod. Of one that has no old
// pod, but runs, or whose file is broken, units may be there that nobody tells.
func actions(change, name string, old, p *podfile.Pod, running, broken bool) ([]podset.Action, error) {
	was, err := unitsOf(old)
	if err != nil {
		return nil, err
	}
	is, err := unitsOf(p)
	if err != nil {
		return nil, err
	}
	var out []podset.Action
	add := func(v systemd.Action, unit string) {
		if x := (podset.Action{Verb: string(v), Unit: unit}); !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	service, template := podfile.UnitName(name), strings.HasSuffix(name, "@")
	blind := change != changeSame && old == nil && (running || broken) && !template
	if blind {
		// What has the pod's name, and what will be: a stop or restart of
		// what is not there does nothing.
		q := podfile.Pod{Name: name}
		for _, u := range append(slices.Collect(maps.Keys(is.files)), q.PathName(), q.SocketName(), q.TimerName()) {
			was.files[u] = ""
		}
	}
	// Units that nobody makes any more.
	for _, u := range slices.Sorted(maps.Keys(was.files)) {
		if _, ok := is.files[u]; !ok && u != service {
			add(systemd.Stop, u)
		}
	}
	switch change {
	case changeRemoved:
		if (old != nil || blind) && !template {
			add(systemd.Stop, service)
		}
	case changeNew, changeChanged:
		if old != nil && samePod(old, p) {
			return nil, nil
		}
		triggers := []string{}
		for _, u := range slices.Sorted(maps.Keys(is.files)) {
			if data, ok := was.files[u]; ok && data != is.files[u] && u != service {
				triggers = append(triggers, u)
			}
		}
		switch {
		case running && len(triggers) > 0:
			// A socket cannot be changed under a service that has it.
			add(systemd.Stop, service)
			for _, u := range triggers {
				add(systemd.TryRestart, u)
			}
			add(systemd.Start, service)
		default:
			for _, u := range triggers {
				add(systemd.TryRestart, u)
			}
			if running || blind {
				add(systemd.TryRestart, service)
			}
		}
		for _, u := range is.wanted {
			if !slices.Contains(was.wanted, u) {
				add(systemd.Start, u)
			}
		}
	}
	return out, nil
}

// podUnits are the units that the generator makes of a pod: files of its own, and
// those that a target or another unit wants.
type podUnits struct {
	files  map[string]string
	wanted []string
}

func unitsOf(p *podfile.Pod) (podUnits, error) {
	out := podUnits{files: map[string]string{}}
	if p == nil {
		return out, nil
	}
	q := *p
	q.Files = nil // units name them, wherever they lie now
	made, err := podunit.Pod(&q, podunit.Options{})
	if err != nil {
		return out, fmt.Errorf("pod %q: %w", p.Name, err)
	}
	for _, f := range made.Files {
		if !strings.Contains(f.Path, "/") {
			out.files[f.Path] = string(f.Data)
		}
	}
	for _, l := range made.Links {
		if dir := path.Dir(l.Path); strings.HasSuffix(dir, ".wants") || strings.HasSuffix(dir, ".requires") || strings.HasSuffix(dir, ".upholds") {
			out.wanted = append(out.wanted, path.Base(l.Path))
		}
	}
	slices.Sort(out.wanted)
	out.wanted = slices.Compact(out.wanted)
	return out, nil
}

// samePod says whether two pod files mean the same, wherever they lie.
func samePod(a, b *podfile.Pod) bool {
	x, y := *a, *b
	x.Files, y.Files = nil, nil
	clear := func(p *podfile.Pod) {
		p.Apps = slices.Clone(p.Apps)
		for i := range p.Apps {
			p.Apps[i].Pos = jsonpos.Pos{}
		}
		for _, ds := range []*[]podfile.Directive{&p.Unit, &p.Service, &p.Install, &p.Socket, &p.Timer, &p.Path} {
			*ds = slices.Clone(*ds)
			for i := range *ds {
				(*ds)[i].Pos = jsonpos.Pos{}
			}
		}
	}
	clear(&x)
	clear(&y)
	return reflect.DeepEqual(x, y)
}

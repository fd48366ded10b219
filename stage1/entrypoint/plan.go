package entrypoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/rootpath"
	"github.com/rkt-systemd/rkt/stage1/launch"
	"github.com/rkt-systemd/rkt/stage1/network"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// Plan tells what Run would make of a pod that is not there (abi.AnnotationPlan).
// It writes nothing but its answer.
func Plan(in io.Reader, out io.Writer) error {
	b, err := io.ReadAll(io.LimitReader(in, abi.MaxPlan+1))
	if err != nil {
		return err
	}
	if len(b) > abi.MaxPlan {
		return errors.New("the description of the pod is too large")
	}
	var q abi.PlanRequest
	if err := json.Unmarshal(b, &q); err != nil {
		return fmt.Errorf("reading the description of the pod: %w", err)
	}
	input, err := planInput(&q)
	if err != nil {
		return err
	}
	p, err := plan.Make(input)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer(p, &input))
}

func planInput(q *abi.PlanRequest) (plan.Input, error) {
	in := plan.Input{Images: map[string]*schema.ImageManifest{}, IDs: map[string]plan.IDs{}}
	var err error
	if in.Run, err = abi.ParseRun(q.Args); err != nil {
		return in, err
	}
	if in.Pod, _, err = appc.ParsePodManifest(q.Pod); err != nil {
		return in, err
	}
	images := map[string]*abi.PlanApp{}
	for i := range q.Apps {
		images[q.Apps[i].Name] = &q.Apps[i]
	}
	for i := range in.Pod.Apps {
		ra := &in.Pod.Apps[i]
		name := ra.Name.String()
		a := images[name]
		if a == nil {
			return in, fmt.Errorf("app %q: its image is not given", name)
		}
		m, _, err := appc.ParseImageManifest(a.Manifest)
		if err != nil {
			return in, fmt.Errorf("app %q: %w", name, err)
		}
		in.Images[name] = m
		if in.IDs[name], err = lookupIn(a.Roots, ra, m); err != nil {
			return in, fmt.Errorf("app %q: %w", name, err)
		}
	}
	f := plan.Facts{PodDir: q.Dir, Machine: q.Machine, InUnit: q.Unit != "", Declared: q.Unit != "", LogUnit: q.Unit, Register: true,
		LdSoCache: exists("/etc/ld.so.cache"), Joining: network.Joins(in.Run.Net)}
	if in.Run.PrivateUsers != "" {
		if f.IDs, err = abi.ParseIDRange(in.Run.PrivateUsers); err != nil {
			return in, fmt.Errorf("--private-users: %w", err)
		}
	}
	if f.Nspawn, err = find("systemd-nspawn", "systemd-container"); err != nil {
		f.Nspawn = "/usr/bin/systemd-nspawn" // where it would be
	}
	f.Hosts = f.Joining && in.Run.HostsMode != "host"
	f.ResolvConf = in.Run.ResolvMode == "stage0" || f.Joining && in.Run.ResolvMode == "default"
	if err := isolation(in, &f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return in, err
	}
	in.Facts = f
	return in, nil
}

// lookupIn looks up an app's user in the first of the directories of its root
// that says something about it.
func lookupIn(roots []string, ra *schema.RuntimeApp, m *schema.ImageManifest) (plan.IDs, error) {
	app := ra.App
	if app == nil {
		app = m.App
	}
	if app == nil {
		return plan.IDs{}, nil // the plan says what is wrong
	}
	user := ""
	if m.App != nil && app.User == m.App.User && app.Group == m.App.Group {
		user = appc.DockerUser(m)
	}
	err := error(nil)
	for _, dir := range roots {
		var ids plan.IDs
		if user != "" {
			ids, err = dockerLookup(dir, user)
		} else {
			ids, err = lookup(dir, app.User, app.Group, abi.IDRange{})
		}
		if err == nil || hasUsers(dir) {
			return ids, err
		}
	}
	return plan.IDs{}, err
}

// hasUsers says whether the files of users are of this layer, and not below it.
func hasUsers(dir string) bool {
	root, err := rootpath.Open(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	_, err = root.Lstat("/etc/passwd")
	return err == nil
}

func answer(p *plan.Plan, in *plan.Input) *abi.Plan {
	out := &abi.Plan{Command: p.Args, Environment: p.Env, Warnings: p.Warnings}
	for _, f := range p.Files {
		out.Files = append(out.Files, abi.PlanFile{Path: filepath.Clean(f.Path), Text: string(f.Data), Mode: f.Mode})
	}
	for i := range p.Apps {
		s := &p.Apps[i]
		a := abi.PlanSpec{Name: s.Name, Exec: s.Exec, UID: s.UID, GID: s.GID, Capabilities: launch.CapNames(s.Caps), NoNewPrivileges: s.NoNewPrivileges,
			ReadOnlyRoot: s.ReadOnlyRoot, MaskedPaths: s.MaskPaths, SELinux: s.SELinux, AppArmor: s.AppArmor, Filter: "own"}
		switch {
		case s.Filter == "":
			a.Filter = "none"
		case s.Filter == plan.FilterDir+"/app.bpf":
			a.Filter = "default"
		}
		for _, m := range p.Mounts {
			if m.App == s.Name && !strings.HasPrefix(m.Source, in.Facts.PodDir+"/") {
				a.Mounts = append(a.Mounts, abi.PlanMount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
			}
		}
		out.Apps = append(out.Apps, a)
	}
	return out
}

package plan

import (
	"errors"
	"fmt"
	"github.com/appc/spec/schema/types"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// App makes the plan of adding an app, the only one in the input's manifest, to
// a mutable pod that runs. What holds for the whole pod is as it was when the
// pod was started: an app that needs more of it is refused.
func App(in Input) (*Plan, error) {
	if len(in.Pod.Apps) != 1 {
		return nil, fmt.Errorf("one app can be added at a time, not %d", len(in.Pod.Apps))
	}
	ra := &in.Pod.Apps[0]
	name := ra.Name.String()
	img := in.Images[name]
	if img == nil {
		return nil, fmt.Errorf("app %q: its image manifest is missing", name)
	}
	p := &Plan{}
	p.forLater(in)
	if err := p.choosePodFilter(); err != nil {
		return nil, err
	}
	started := p.podFilter
	if _, ok := bandwidth(appOf(in, 0).Isolators); ok {
		p.warn("app %q: isolator %q is not applied: the pod has its network already", name, types.ResourceNetworkBandwidthName)
	}
	if err := p.app(in, ra, img); err != nil {
		return nil, fmt.Errorf("app %q: %w", name, err)
	}
	if err := p.fits(in, started); err != nil {
		return nil, fmt.Errorf("app %q: %w", name, err)
	}
	if err := p.lateLogs(in); err != nil {
		return nil, err
	}
	return p, p.records(in)
}

// fits refuses what the pod would have had to be started with.
func (p *Plan) fits(in Input, started string) error {
	const how = "; start the sandbox with --insecure-options=%s for such apps"
	if caps := extraCaps(p.Apps); len(caps) > 0 && !in.Run.DisableCaps {
		return fmt.Errorf("it retains %s, which this pod has not got"+how, strings.Join(caps, ", "), "capabilities")
	}
	if err := p.choosePodFilter(); err != nil {
		return err
	}
	if p.podFilter != started && !in.Run.DisableSeccomp {
		return fmt.Errorf("it is to make system calls that are denied to this pod"+how, "seccomp")
	}
	if in.Run.DisablePaths || in.Run.PrivateUsers != "" {
		return nil
	}
	for _, m := range p.Mounts {
		if _, ok := in.Facts.Devices[m.Source]; ok {
			return fmt.Errorf("volume %q is the device %q, and which devices a pod may open is settled when it starts"+how, m.Volume, m.Source, "paths")
		}
	}
	return nil
}

// forLater widens the filter of a mutable pod for the capabilities that its
// apps may have.
func (p *Plan) forLater(in Input) {
	if in.Run.Mutable && in.Run.DisableCaps {
		p.podCalls = append(p.podCalls, filtergen.CallsOf(launch.CapNames(launch.AllCaps&^launch.DefaultCaps()))...)
	}
}

// list writes the names of the pod's apps.
func (p *Plan) list(names []string) {
	f := List(names)
	p.file(f.Path, f.Mode, f.Data)
}

// List is the file with the names of the pod's apps.
func List(names []string) File {
	text := strings.Join(names, "\n")
	if text != "" {
		text += "\n"
	}
	return File{strings.TrimPrefix(launch.Dir, "/") + ".list", []byte(text), 0o644}
}

// Unit is the unit of an app, Units are all that belong to it alone.
func Unit(app string) string { return app + ".service" }

// Units are all units that belong to an app alone.
func Units(app string) []string {
	return []string{Unit(app), app + ".socket", "out@" + app + ".socket", logSocket(app), "log@" + app + ".service", "out@" + app + ".service", "hold@" + app + ".service",
		"iomux@" + app + ".service", "ttymux@" + app + ".service"}
}

// AppFiles are the files and directories of the pod's root that belong to an
// app alone, apart from its root and its status; its record is the last.
func AppFiles(app string) []string {
	return []string{podfs.UnitDir + "/" + app + ".service", podfs.UnitDir + "/" + app + ".socket", podfs.UnitDir + "/-.slice.d/" + app + ".conf",
		podfs.UnitDir + "/" + logSocket(app), strings.TrimPrefix(LogDir, "/") + "/" + app,
		podfs.EnvDir + "/" + app, strings.TrimPrefix(stdio.Dir(app), "/"),
		"run/rkt/main/" + app, "run/rkt/hold/" + app, strings.TrimPrefix(OutDir, "/") + "/" + app, podfs.AppRecordDir + "/" + app + ".json"}
}

// CheckAppName refuses a name that other files or units of the pod have:
// units are those of the stage1 image.
func CheckAppName(app string, units []string) error {
	if slices.Contains(units, Unit(app)) {
		return errors.New("the pod itself has a unit of that name; give the app another")
	}
	return nil
}

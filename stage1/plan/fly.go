package plan

import (
	"fmt"
	"path"

	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/podlog"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// Fly plans a pod of the fly flavour: one app, on the host but for its root.
func Fly(in Input) (*Plan, error) {
	if len(in.Pod.Apps) != 1 {
		return nil, fmt.Errorf("fly only supports 1 application per Pod for now, and this pod has %d", len(in.Pod.Apps))
	}
	if err := checkJournal(in); err != nil {
		return nil, err
	}
	if GuestJournal(in.Pod) {
		return nil, fmt.Errorf("fly has no journal of its own: \"journal\" is to be \"host\"")
	}
	p := &Plan{}
	ra := &in.Pod.Apps[0]
	name := ra.Name.String()
	img := in.Images[name]
	if img == nil {
		return nil, fmt.Errorf("app %q: its image manifest is missing", name)
	}
	app, s, err := appRecord(in, ra, img)
	if err != nil {
		return nil, fmt.Errorf("app %q: %w", name, err)
	}
	s.JournalFrom = podlog.Sockets(LogNamespace(in.Pod))
	s.Fly, s.Journal, s.Root = true, true, path.Join(in.Facts.PodDir, podfs.AppRootfs(name))
	for _, port := range app.Ports {
		s.Sockets = s.Sockets || port.SocketActivated && len(in.Facts.Listeners) > 0
	}
	p.flyIgnores(in, app, ra.ReadOnlyRootFS)
	if c, err := checkOf(ra, img); err == nil && c != nil {
		p.warn("app %q: fly does not look after its health", name)
	}
	if _, err := directives(ra, &s); err != nil {
		return nil, err
	}
	if err := p.flyVolumes(in, name, app); err != nil {
		return nil, err
	}
	if err := credentials(ra, &s, path.Join(in.Facts.PodDir, podfs.Stage1Rootfs)); err != nil {
		return nil, err
	}
	nameFiles(&s, in)
	for i := range s.Binds {
		s.Binds[i].Source = flySource(in.Facts.PodDir, s.Binds[i].Source)
	}
	p.Apps = []launch.Spec{s}
	return p, nil
}

// flySource is where a file of the pod's root is on the host.
func flySource(podDir, source string) string {
	switch source {
	case HostHosts:
		return "/etc/hosts"
	case HostResolvConf:
		return "/etc/resolv.conf"
	case "/proc/sys/kernel/hostname":
		return source
	}
	return path.Join(podDir, podfs.Stage1Rootfs, source)
}

// flyIgnores tells the user what has no effect without isolation.
func (p *Plan) flyIgnores(in Input, app *types.App, readOnly bool) {
	name := in.Pod.Apps[0].Name
	for _, i := range app.Isolators {
		p.warn("app %q: isolator %q is not applied by fly, which does not isolate", name, i.Name)
	}
	for _, i := range in.Pod.Isolators {
		p.warn("isolator %q of the pod is not applied by fly, which does not isolate", i.Name)
	}
	for _, h := range app.EventHandlers {
		p.warn("app %q: the event handler %q is not run by fly", name, h.Name)
	}
	if readOnly {
		p.warn("app %q: fly does not make its root read-only", name)
	}
	if in.Run.Hostname != "" && in.Run.Hostname != in.Facts.Machine { // the machine's name is what rkt gives by itself
		p.warn("--hostname has no effect in fly: the app has the host's name")
	}
	if in.Run.IPC == "private" {
		p.warn("--ipc=private has no effect in fly: the app shares the host's")
	}
	if len(in.Pod.Ports) > 0 {
		p.warn("fly uses the host's network: its ports need no forwarding, and none is done")
	}
}

// flyVolumes are those of the host only: there is no pod that an empty one
// could be shared in, and nothing is made up for a mount point without volume.
func (p *Plan) flyVolumes(in Input, name string, app *types.App) error {
	ra := &in.Pod.Apps[0]
	taken := map[string]bool{}
	used := map[types.ACName]bool{}
	add := func(v *types.Volume, volume types.ACName, at string, mp *types.MountPoint) error {
		target := path.Clean("/" + at)
		if taken[target] {
			return nil
		}
		taken[target] = true
		switch {
		case v == nil:
			return fmt.Errorf("app %q: no volume for the mount point %q (%s), and fly makes no empty ones", name, volume, target)
		case v.Kind != "host":
			return fmt.Errorf("volume %q: fly has volumes of kind host only, not %q", v.Name, v.Kind)
		case target == "/":
			return fmt.Errorf("volume %q cannot be mounted on the root", v.Name)
		case used[v.Name]:
			return fmt.Errorf("volume %q: fly mounts a volume once only", v.Name)
		}
		used[v.Name] = true
		m := Mount{App: name, Volume: v.Name.String(), Source: v.Source, Target: target, Recursive: v.Recursive != nil && *v.Recursive}
		switch {
		case v.ReadOnly != nil:
			m.ReadOnly = *v.ReadOnly
		case mp != nil:
			m.ReadOnly = mp.ReadOnly
		}
		p.Mounts = append(p.Mounts, m)
		return nil
	}
	for _, m := range ra.Mounts {
		v := m.AppVolume
		if v == nil {
			v = volume(in.Pod, m.Volume)
		}
		if err := add(v, m.Volume, m.Path, point(app, path.Clean("/"+m.Path))); err != nil {
			return err
		}
	}
	for i := range app.MountPoints {
		mp := &app.MountPoints[i]
		if err := add(volume(in.Pod, mp.Name), mp.Name, mp.Path, mp); err != nil {
			return err
		}
	}
	return nil
}

package plan

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// volumes decides what is mounted where in an app. The first mount of a target
// wins: those of the pod manifest, in their order, then the mount points of
// the image. A mount point nobody serves gets an empty volume of its own.
func (p *Plan) volumes(in Input, ra *schema.RuntimeApp, app *types.App, s *launch.Spec) error {
	taken := map[string]bool{}
	owners, own, err := volumeOwners(in.Pod, ra)
	if err != nil {
		return err
	}
	for _, m := range ra.Mounts {
		target := path.Clean("/" + m.Path)
		if taken[target] {
			continue
		}
		taken[target] = true
		v := m.AppVolume
		owner := own[m.Volume.String()]
		if v == nil {
			v = volume(in.Pod, m.Volume)
			owner = owners[m.Volume.String()]
		}
		if v == nil {
			return fmt.Errorf("dangling mount point %q: volume %q is not declared", m.Path, m.Volume)
		}
		if err := p.mount(in, s, v, target, point(app, target), owner); err != nil {
			return err
		}
	}
	for i := range app.MountPoints {
		mp := &app.MountPoints[i]
		target := path.Clean("/" + mp.Path)
		if taken[target] {
			continue
		}
		taken[target] = true
		v := volume(in.Pod, mp.Name)
		if v == nil {
			name, err := types.NewACName(s.Name + "-" + mp.Name.String())
			if err != nil {
				return fmt.Errorf("mount point %q: %w", mp.Name, err)
			}
			p.warn("app %q: no volume for mount point %q (%s); an empty one is used and goes with the pod", s.Name, mp.Name, target)
			v = &types.Volume{Name: *name, Kind: "empty"}
		}
		if err := p.mount(in, s, v, target, mp, owners[v.Name.String()]); err != nil {
			return err
		}
	}
	return nil
}

// volumeOwners are whose files are in volumes of the pod, and of the app alone.
func volumeOwners(pod *schema.PodManifest, ra *schema.RuntimeApp) (all, own map[string]string, err error) {
	text, _ := pod.Annotations.Get(abi.AnnotationVolumeOwner)
	if all, err = abi.ParseVolumeOwners(text); err != nil {
		return nil, nil, err
	}
	text, _ = ra.Annotations.Get(abi.AnnotationVolumeOwner)
	own, err = abi.ParseVolumeOwners(text)
	return all, own, err
}

func volume(pod *schema.PodManifest, name types.ACName) *types.Volume {
	for i := range pod.Volumes {
		if pod.Volumes[i].Name == name {
			return &pod.Volumes[i]
		}
	}
	return nil
}

func point(app *types.App, target string) *types.MountPoint {
	for i := range app.MountPoints {
		if path.Clean("/"+app.MountPoints[i].Path) == target {
			return &app.MountPoints[i]
		}
	}
	return nil
}

func (p *Plan) mount(in Input, s *launch.Spec, v *types.Volume, target string, mp *types.MountPoint, owner string) error {
	if target == "/" {
		return fmt.Errorf("volume %q cannot be mounted on the root", v.Name)
	}
	m := Mount{App: s.Name, Volume: v.Name.String(), Target: target, Recursive: v.Recursive == nil || *v.Recursive}
	switch {
	case v.ReadOnly != nil:
		m.ReadOnly = *v.ReadOnly
	case mp != nil:
		m.ReadOnly = mp.ReadOnly
	}
	switch v.Kind {
	case "host":
		if !path.IsAbs(v.Source) {
			return fmt.Errorf("volume %q: the source %q must be an absolute path", v.Name, v.Source)
		}
		m.Source, m.Owner = v.Source, owner
		m.UID, _ = in.Facts.IDs.Outside(s.UID)
		m.GID, _ = in.Facts.IDs.Outside(s.GID)
	case "empty":
		if owner != "" {
			return fmt.Errorf("volume %q: only a volume of kind host has an owner; an empty one has uid and gid", v.Name)
		}
		e := EmptyVolume{Name: v.Name.String(), Mode: 0o755}
		if v.Mode != nil {
			n, err := strconv.ParseUint(*v.Mode, 8, 32)
			if err != nil || n > 0o7777 {
				return fmt.Errorf("volume %q: mode %q is not octal", v.Name, *v.Mode)
			}
			e.Mode = uint32(n)
		}
		ids := [2]int{}
		for i, id := range []*int{v.UID, v.GID} {
			if id == nil {
				id = new(int)
			}
			if *id < 0 || int64(*id) >= 1<<32-1 {
				return fmt.Errorf("volume %q: %d is no user or group id", v.Name, *id)
			}
			out, ok := in.Facts.IDs.Outside(uint32(*id))
			if !ok {
				return fmt.Errorf("volume %q: its owner %d is outside of the pod's private users, which are 0 to %d", v.Name, *id, in.Facts.IDs.Count-1)
			}
			ids[i] = int(out)
		}
		e.UID, e.GID = ids[0], ids[1]
		m.Owner = abi.OwnerHost // it belongs to the pod's ids already
		m.Source = path.Join(in.Facts.PodDir, podfs.SharedVolumes, e.Name)
		p.Empty = append(p.Empty, e)
	default:
		return fmt.Errorf("volume %q: kind %q is not known", v.Name, v.Kind)
	}
	switch {
	case target == "/sys" || strings.HasPrefix(target, "/sys/"):
		s.OwnSys = true
	case target == "/dev" || strings.HasPrefix(target, "/dev/"):
		s.DevVolumes = append(s.DevVolumes, target)
	case target == "/proc" || strings.HasPrefix(target, "/proc/"):
		return fmt.Errorf("volume %q cannot be mounted on or below /proc", v.Name)
	}
	p.Mounts = append(p.Mounts, m)
	return nil
}

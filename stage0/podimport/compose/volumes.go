package compose

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/internal/appcred"
	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// mount gives the app a volume at a path.
func (s *service) mount(target, want string, v map[string]any, readOnly bool) {
	if !path.IsAbs(target) {
		target = "/" + target
	}
	target = path.Clean(target)
	for _, m := range s.app.Mounts {
		if m.(map[string]string)["path"] == target {
			s.note(podimport.Dropped, "volumes", "something else is mounted at %s already", target)
			return
		}
	}
	if readOnly {
		v["readOnly"] = true
	}
	id := fmt.Sprint(v)
	if v["kind"] == "empty" {
		id = s.name + " " + target
	}
	s.app.Mounts = append(s.app.Mounts, map[string]string{"volume": s.volume(want, v, id), "path": target})
}

func (s *service) mounts() error {
	for _, v := range s.conf.Volumes {
		if err := s.oneMount(v, "volumes"); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) oneMount(v types.ServiceVolumeConfig, key string) error {
	if v.Target == "" {
		return fmt.Errorf("a volume has no path in the container")
	}
	if v.Consistency != "" && v.Consistency != "consistent" && v.Consistency != "default" {
		s.note(podimport.Changed, key, "%s: what is mounted is always consistent", v.Target)
	}
	switch v.Type {
	case types.VolumeTypeBind, "":
		return s.bind(v, key)
	case types.VolumeTypeVolume:
		return s.named(v, key)
	case types.VolumeTypeTmpfs:
		mode := ""
		if v.Tmpfs != nil {
			if v.Tmpfs.Mode != 0 {
				mode = fmt.Sprintf("%04o", v.Tmpfs.Mode&0o7777)
			}
			if v.Tmpfs.Size > 0 {
				s.note(podimport.Dropped, key, "%s: the directory has no size of its own", v.Target)
			}
		}
		s.empty(key, v.Target, mode, nil, nil, v.ReadOnly)
	default:
		s.note(podimport.Dropped, key, "%s: volumes of the type %q are not known to rkt; use a directory of the host", v.Target, v.Type)
	}
	return nil
}

func (s *service) bind(v types.ServiceVolumeConfig, key string) error {
	src := path.Clean(v.Source)
	if !path.IsAbs(src) || strings.ContainsAny(src, "\n\x00") {
		return fmt.Errorf("the source %q of %s is no absolute path", v.Source, v.Target)
	}
	switch src {
	case "/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/var/run/podman/podman.sock":
		s.note(podimport.Dropped, key, "%s: there is no Docker to talk to; the program has to do without, or is not needed", src)
		return nil
	}
	vol := map[string]any{"kind": "host", "source": src}
	if b := v.Bind; b != nil {
		if b.Propagation != "" && b.Propagation != types.PropagationRPrivate {
			s.note(podimport.Dropped, key, "%s: mounts of the host that come later are not seen in the pod (%s)", v.Target, b.Propagation)
		}
		if b.SELinux != "" {
			s.note(podimport.Dropped, key, "%s: files keep their labels (%s): use chcon or semanage fcontext", v.Target, b.SELinux)
		}
		switch b.Recursive {
		case "disabled":
			vol["recursive"] = false
		case "", "enabled":
		default:
			s.note(podimport.Changed, key, "%s: %q is as \"enabled\"", v.Target, b.Recursive)
		}
	}
	s.mount(v.Target, volumeName(v.Target), vol, v.ReadOnly)
	s.c.once("bind", podimport.Changed, "services."+s.name+"."+key, "directories of the host that are mounted, like %s, have to be there before a pod starts: rkt makes none", src)
	return nil
}

// volumeName is what to call the volume at a path.
func volumeName(target string) string {
	base := path.Base(target)
	if parent := path.Base(path.Dir(target)); (base == "data" || base == "config" || base == "conf") && parent != "/" && parent != "." {
		base = parent + "-" + base
	}
	return base
}

func (s *service) named(v types.ServiceVolumeConfig, key string) error {
	sub := ""
	if v.Volume != nil {
		sub = path.Clean("/" + v.Volume.Subpath)
		if len(v.Volume.Labels) > 0 {
			s.note(podimport.Dropped, key, "%s: volumes have no labels", v.Target)
		}
	}
	if v.Source == "" {
		s.note(podimport.Changed, key, "%s: a volume without a name goes with each run of the pod; give it a name to keep it", v.Target)
		s.mount(v.Target, volumeName(v.Target), map[string]any{"kind": "empty"}, v.ReadOnly)
		return nil
	}
	conf := s.c.p.Volumes[v.Source]
	vol := map[string]any{"kind": "host"}
	dir, kept := s.c.directory(v.Source, conf)
	if kept {
		dir = podimport.Keep(s.file, s.c.volume(v.Source, conf))
	}
	vol["source"] = dir
	if sub != "" && sub != "/" {
		vol["source"] = dir + sub
		s.note(podimport.Todo, key, "make the directory %s%s: of a volume only its top is made", dir, sub)
	}
	if kept {
		owner, advice := "root", ""
		if u := s.conf.User; u != "" && u != "0" && u != "root" && !strings.HasPrefix(u, "0:") && !strings.HasPrefix(u, "root:") {
			vol["owner"], owner = "app", "the app's user"
		} else {
			advice = "; if the image runs as another user, give the app its user and the volume \"owner\": \"app\""
		}
		s.c.once("volume "+v.Source, podimport.Changed, "volumes."+v.Source, "it is the directory %s, made now and at boot by tmpfiles.d, and belongs to %s in the pod%s; copy the data of the old volume into it", dir, owner, advice)
	}
	if v.Volume == nil || !v.Volume.NoCopy {
		s.c.once("copy", podimport.Changed, "services."+s.name+"."+key, "named volumes begin empty: what the image has at %s is not copied there, as Docker does", v.Target)
	}
	s.mount(v.Target, v.Source, vol, v.ReadOnly)
	return nil
}

// volume is the name of a named volume on the host.
func (c *converter) volume(key string, conf types.VolumeConfig) string {
	if conf.Name != "" {
		return podimport.FileName(conf.Name)
	}
	return podimport.FileName(c.p.Name + "_" + key)
}

// directory is where a named volume lies, and whether the pod's unit makes it.
func (c *converter) directory(key string, conf types.VolumeConfig) (dir string, kept bool) {
	at := "volumes." + key
	report := !c.said["directory "+key]
	c.said["directory "+key] = true
	dir, kept = podimport.VolumesDir+"/"+c.volume(key, conf), true
	opts := conf.DriverOpts
	if device := opts["device"]; device != "" {
		if strings.Contains(opts["o"], "bind") && path.IsAbs(device) && !strings.ContainsAny(device, "\n\x00") {
			dir, kept = path.Clean(device), false
		} else if report {
			c.note(podimport.Todo, at+".driver_opts", "mount %s (type %s, options %q) at %s: a line in /etc/fstab will do, the pod waits for it", device, opts["type"], opts["o"], dir)
		}
	}
	if !report {
		return dir, kept
	}
	if conf.Driver != "" && conf.Driver != "local" {
		c.note(podimport.Todo, at+".driver", "rkt has no drivers of volumes: mount what %q gave at %s", conf.Driver, dir)
	}
	if bool(conf.External) {
		c.note(podimport.Todo, at+".external", "copy the data of the volume %q to %s", conf.Name, dir)
	}
	for _, k := range sortedKeys(opts) {
		if k != "device" && k != "o" && k != "type" {
			c.note(podimport.Dropped, at+".driver_opts", "the option %q is Docker's own", k)
		}
	}
	if len(conf.Labels) > 0 {
		c.note(podimport.Dropped, at+".labels", "volumes have no labels")
	}
	return dir, kept
}

// empty is a directory that goes with the pod; docker has it in memory.
func (s *service) empty(key, target, mode string, uid, gid *int, readOnly bool) {
	if mode == "" {
		mode = "1777"
	}
	v := map[string]any{"kind": "empty", "mode": mode}
	if uid != nil {
		v["uid"] = *uid
	}
	if gid != nil {
		v["gid"] = *gid
	}
	s.mount(target, volumeName(target), v, readOnly)
	s.c.once("tmpfs", podimport.Changed, "services."+s.name+"."+key, "a tmpfs, like %s, is a directory that goes with the pod: on disk, and of no size of its own", target)
}

func (s *service) tmpfs() error {
	for _, t := range s.conf.Tmpfs {
		target, opts, _ := strings.Cut(t, ":")
		if !path.IsAbs(target) {
			return fmt.Errorf("%q is no absolute path", target)
		}
		mode, readOnly := "", false
		var uid, gid *int
		number := func(v string) *int {
			if n, err := strconv.ParseUint(v, 10, 31); err == nil {
				i := int(n)
				return &i
			}
			s.note(podimport.Dropped, "tmpfs", "%s: %q is no number", target, v)
			return nil
		}
		for _, o := range strings.Split(opts, ",") {
			switch k, v, _ := strings.Cut(o, "="); k {
			case "mode":
				if n, err := strconv.ParseUint(v, 8, 12); err == nil {
					mode = fmt.Sprintf("%04o", n)
				}
			case "uid":
				uid = number(v)
			case "gid":
				gid = number(v)
			case "ro":
				readOnly = true
			case "size", "nr_inodes":
				s.note(podimport.Dropped, "tmpfs", "%s: the directory has no size of its own", target)
			case "", "rw", "exec", "nosuid", "nodev", "noatime":
			default:
				s.note(podimport.Dropped, "tmpfs", "%s: the option %q has no counterpart", target, o)
			}
		}
		s.empty("tmpfs", target, mode, uid, gid, readOnly)
	}
	return nil
}

// volumesFrom takes the volumes of another service.
func (s *service) volumesFrom() error {
	for _, from := range s.conf.VolumesFrom {
		name, access, _ := strings.Cut(from, ":")
		other, ok := s.c.p.Services[name]
		if !ok || name == "container" {
			s.note(podimport.Dropped, "volumes_from", "%q is no service of this project: name its directories under volumes", from)
			continue
		}
		for _, v := range other.Volumes {
			if v.Type == types.VolumeTypeVolume && v.Source == "" || v.Type == types.VolumeTypeTmpfs {
				s.note(podimport.Dropped, "volumes_from", "%s of %q is that pod's own; give the volume a name", v.Target, name)
				continue
			}
			v.ReadOnly = v.ReadOnly || access == "ro"
			if err := s.oneMount(v, "volumes_from"); err != nil {
				return err
			}
		}
	}
	return nil
}

// configs are files of the host, mounted to be read.
func (s *service) configs() error {
	for _, use := range s.conf.Configs {
		conf := s.c.p.Configs[use.Source]
		at := "configs." + use.Source
		target := use.Target
		if target == "" {
			target = "/" + use.Source
		}
		mode := uint32(0o644)
		if use.Mode != nil {
			mode = uint32(*use.Mode) & 0o777
		}
		src := s.c.path("configs", podimport.FileName(use.Source))
		switch {
		case bool(conf.External):
			s.c.once(at, podimport.Todo, at+".external", "put its content into %s", src)
		case conf.Content != "":
			s.c.file(src, conf.Content, mode)
		case conf.Environment != "":
			s.c.once(at, podimport.Todo, at+".environment", "%s is not set: put the content into %s", conf.Environment, src)
		case path.IsAbs(conf.File):
			src = path.Clean(conf.File)
			if use.Mode != nil {
				s.note(podimport.Dropped, "configs", "%s: the mode is that of %s", target, src)
			}
		default:
			return fmt.Errorf("the file %q of config %q has no absolute path", conf.File, use.Source)
		}
		if use.UID != "" && use.UID != "0" || use.GID != "" && use.GID != "0" {
			s.note(podimport.Dropped, "configs", "%s: the owner is that of %s: change it there", target, src)
		}
		s.c.objectNotes(at, types.FileObjectConfig(conf))
		s.mount(target, use.Source, map[string]any{"kind": "host", "source": src}, true)
	}
	return nil
}

// secrets are credentials: the host's systemd hands them to the pod.
func (s *service) secrets() error {
	for _, use := range s.conf.Secrets {
		conf := s.c.p.Secrets[use.Source]
		at := "secrets." + use.Source
		name := podimport.FileName(use.Source)
		target := use.Target
		switch {
		case target == "":
			target = "/run/secrets/" + use.Source
		case !path.IsAbs(target):
			target = "/run/secrets/" + target
		}
		if msg := appcred.CheckFile(target); msg != "" {
			return fmt.Errorf("%s", msg)
		}
		src := s.c.path("secrets", name)
		switch {
		case bool(conf.External):
			s.c.once(at, podimport.Todo, at+".external", "put the secret into %s, readable by root alone, or give rkt.credentials.%s what systemd-creds encrypt makes", src, name)
		case conf.Environment != "" && conf.Content != "":
			s.c.file(src, conf.Content, 0o600)
			s.c.once(at, podimport.Changed, at+".environment", "the secret is in %s, which only root can read; see docs/credentials.md for encrypting it", src)
		case conf.Environment != "":
			s.c.once(at, podimport.Todo, at+".environment", "%s is not set: put the secret into %s, readable by root alone", conf.Environment, src)
		case path.IsAbs(conf.File):
			src = path.Clean(conf.File)
		default:
			return fmt.Errorf("the file %q of secret %q has no absolute path", conf.File, use.Source)
		}
		if s.file.Rkt.Credentials == nil {
			s.file.Rkt.Credentials = map[string]podjson.Credential{}
		}
		s.file.Rkt.Credentials[name] = podjson.Credential{Load: src}
		s.app.Credentials = append(s.app.Credentials, podjson.AppCredential{Name: name, File: target})
		if use.UID != "" || use.GID != "" || use.Mode != nil {
			s.note(podimport.Changed, "secrets", "%s can be read by the app's user alone (mode 0400)", target)
		}
		s.c.once("secrets", podimport.Changed, "services."+s.name+".secrets", "secrets are credentials, which a program that becomes another user by itself has to read before it does; see docs/credentials.md")
		s.c.objectNotes(at, types.FileObjectConfig(conf))
	}
	return nil
}

func (c *converter) objectNotes(at string, conf types.FileObjectConfig) {
	if len(conf.Labels) > 0 {
		c.once(at+" labels", podimport.Dropped, at+".labels", "has no labels in rkt")
	}
	if conf.Driver != "" || len(conf.DriverOpts) > 0 {
		c.once(at+" driver", podimport.Dropped, at+".driver", "of Docker's swarm")
	}
	if conf.TemplateDriver != "" {
		c.once(at+" template", podimport.Dropped, at+".template_driver", "of Docker's swarm: write the file as it shall be")
	}
}

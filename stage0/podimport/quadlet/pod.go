package quadlet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podimport/kube"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// podUnit handles a .pod: what all its apps have.
func (c *converter) podUnit(u *unit) error {
	t := c.pods[u.stem]
	k := &container{c: c, u: u, t: t, health: map[string]any{}}
	var volumes []entry
	for _, e := range u.entries {
		if e.section != "Pod" {
			continue
		}
		e.value = c.text(u, e)
		done, err := true, error(nil)
		switch e.key {
		case "Volume":
			volumes = append(volumes, e)
		case "PodName":
			k.name(e, e.value)
		case "ExitPolicy":
			if e.value != "stop" {
				c.note(podimport.Dropped, e, "a pod ends when all its apps have ended")
			}
		case "StopTimeout":
			var d time.Duration
			if d, err = grace(e.value); err == nil {
				t.grace = &d
			}
		case "Network", "PublishPort", "IP", "IP6", "NetworkAlias", "HostName", "DNS", "DNSOption", "DNSSearch", "AddHost":
			done, err = k.network(e)
		case "UserNS", "UIDMap", "GIDMap", "SubUIDMap", "SubGIDMap", "RemapUid", "RemapGid", "RemapUidSize", "RemapUsers", "Sysctl":
			done, err = k.confinement(e)
		case "Label", "ServiceName", "GlobalArgs", "ContainersConfModule":
			done, err = k.options(e)
		case "ShmSize":
			done, err = k.bound(e)
		case "PodmanArgs":
			c.note(podimport.Dropped, e, "options of podman pod create: write what they are for into the pod file")
		default:
			done = false
		}
		if err != nil {
			c.note(podimport.Dropped, e, "it cannot be read: %v", err)
		} else if !done {
			c.note(podimport.Dropped, e, "the key is not known")
		}
	}
	k.later(func() error {
		for _, e := range volumes {
			for i, app := range t.apps {
				notes := len(c.r.Notes)
				if err := app.volume(e); err != nil {
					return err
				}
				if i > 0 { // the same for each app
					c.r.Notes = c.r.Notes[:notes]
				}
			}
		}
		return nil
	})
	return nil
}

// finish completes a pod when all that belongs to it was read.
func (c *converter) finish(t *target) error {
	u := t.unit
	if t.group && len(t.apps) == 0 {
		c.r.Note(podimport.Dropped, u.path, 0, u.file, "no container is in it: nothing is made of it")
		return nil
	}
	for _, f := range t.later {
		if err := f(); err != nil {
			c.r.Note(podimport.Dropped, u.path, 0, u.file, "it cannot be read: %v", err)
		}
	}
	for _, k := range t.apps {
		if t.grace != nil && !(k.app.Systemd != nil && has(k.app.Systemd.Service, "TimeoutStopSec")) {
			podimport.StopGrace(&t.pod.Systemd.Service, &podimport.Systemd(&k.app.Systemd).Service, *t.grace)
		}
		var app *podjson.App
		if t.group {
			app = &k.app
		}
		for _, e := range k.u.entries {
			if e.section != "Container" {
				c.systemSection(t, k.u, app, e)
			}
		}
	}
	if t.group {
		for _, e := range u.entries {
			if e.section != "Pod" {
				c.systemSection(t, u, nil, e)
			}
		}
		if !has(t.pod.Systemd.Service, "Restart") {
			t.pod.Systemd.Service.Add("Restart", "on-failure") // as Quadlet has it
		}
		for _, k := range t.apps {
			if len(t.apps) > 1 && (k.app.Systemd == nil || !has(k.app.Systemd.Service, "Restart")) {
				c.r.Note(podimport.Changed, k.u.path, 0, "Service.Restart", "the pod ends when this app fails, since it has no Restart= of its own; podman's other containers would go on")
			}
		}
	}
	for _, k := range t.apps {
		t.pod.Apps = append(t.pod.Apps, k.app)
	}
	podimport.Trim(t.pod)
	slices.SortStableFunc(t.pod.Apps, func(a, b podjson.App) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func has(values podjson.Values, key string) bool {
	return slices.ContainsFunc(values, func(v podjson.Value) bool { return v.Key == key })
}

// volumeUnit notes what is not carried over of a .volume.
func (c *converter) volumeUnit(u *unit) {
	for _, e := range u.entries {
		if e.section != "Volume" {
			if e.section == "Service" {
				c.note(podimport.Dropped, e, "a volume has no unit: tmpfiles.d makes its directory")
			}
			continue
		}
		switch e.key {
		case "VolumeName", "ServiceName":
		case "Device", "Options", "Type":
			if device := u.get("Volume", "Device"); device == "" || !strings.Contains(u.get("Volume", "Options")+u.get("Volume", "Type"), "bind") {
				c.note(podimport.Todo, e, "the file system has to be mounted by a mount unit or /etc/fstab; the pod waits for it")
			}
		case "User", "Group":
			c.note(podimport.Todo, e, "chown the directory (%s/…), or use \"owner\": \"app\" of the pod's volume", podimport.VolumesDir)
		case "Copy":
			if isTrue(e.value) {
				c.note(podimport.Dropped, e, "what the image has at the volume's place is not copied to it")
			} else {
				c.note(podimport.Changed, e, "nothing is ever copied from the image")
			}
		case "Driver":
			if e.value != "local" {
				c.note(podimport.Dropped, e, "the volume is a directory of the host, whatever the driver")
			}
			if e.value == "local" {
				c.note(podimport.Changed, e, "the volume is a directory of the host")
			}
		case "Image":
			c.note(podimport.Dropped, e, "a volume with an image's files: extract them (rkt image extract), and make it a volume of the host")
		case "Label", "GlobalArgs", "PodmanArgs", "ContainersConfModule":
			c.note(podimport.Dropped, e, "a directory has no place for it")
		default:
			c.note(podimport.Dropped, e, "the key is not known")
		}
	}
}

// imageUnit notes what is not carried over of a .image.
func (c *converter) imageUnit(u *unit) {
	for _, e := range u.entries {
		if e.section != "Image" {
			continue
		}
		switch e.key {
		case "Image", "ServiceName":
			// where containers name it
		case "AuthFile", "Creds":
			c.note(podimport.Todo, e, "rkt uses the logins of podman login and those in /etc/rkt/auth.d; see docs/registries.md")
		case "CertDir", "TLSVerify":
			c.note(podimport.Todo, e, "see docs/registries.md: /etc/containers/certs.d, or \"insecure\" in /etc/rkt/registries.d")
		case "Policy":
			c.note(podimport.Todo, e, "\"pullPolicy\" of the pod is for that")
		case "ImageTag", "AllTags", "Arch", "OS", "Variant", "DecryptionKey", "Retry", "RetryDelay", "GlobalArgs", "PodmanArgs", "ContainersConfModule":
			c.note(podimport.Dropped, e, "rkt fetches the image of the host's platform that the pod names, when the pod is fetched or started")
		default:
			c.note(podimport.Dropped, e, "the key is not known")
		}
	}
}

// buildUnit says that nothing is built.
func (c *converter) buildUnit(u *unit) {
	tag := u.get("Build", "ImageTag")
	c.r.Note(podimport.Todo, u.path, 0, u.file, "rkt builds no images: build %s elsewhere (buildah, podman build) and push it to a registry, or write it to an OCI archive", tag)
	for _, e := range u.entries {
		if e.section == "Build" && e.key != "ImageTag" && e.key != "ServiceName" {
			c.note(podimport.Dropped, e, "it is for the build")
		}
	}
}

// kubeUnit handles a .kube: YAML for Kubernetes, and what is said beside it.
func (c *converter) kubeUnit(u *unit) error {
	var sources []podimport.Source
	o := kube.Options{Name: u.stem, Unit: true}
	service := &podjson.Pod{Systemd: &podjson.Systemd{}, Rkt: &podjson.Options{}}
	t := &target{name: u.stem, pod: service, unit: u}
	k := &container{c: c, u: u, t: t, health: map[string]any{}}
	c.services[u.service()] = u.stem
	for _, e := range u.entries {
		if e.section != "Kube" {
			continue
		}
		e.value = c.text(u, e)
		switch e.key {
		case "Yaml", "ConfigMap":
			p := e.value
			if !strings.HasPrefix(p, "/") {
				p = k.beside(e, p)
			}
			s, err := c.read(p)
			if err != nil {
				return fmt.Errorf("%s:%d: reading what it refers to: %w", e.path, e.line, err)
			}
			sources = append(sources, s)
		case "Network", "PublishPort":
			if _, err := k.network(e); err != nil {
				c.note(podimport.Dropped, e, "it cannot be read: %v", err)
			}
		case "UserNS", "RemapUid", "RemapGid", "RemapUidSize", "RemapUsers":
			if _, err := k.confinement(e); err != nil {
				c.note(podimport.Dropped, e, "it cannot be read: %v", err)
			}
		case "AutoUpdate":
			policy := e.value
			if _, p, ok := strings.Cut(policy, "/"); ok {
				policy = p
			}
			e.value = policy
			if _, err := k.options(e); err != nil {
				return err
			}
		case "ServiceName":
		case "LogDriver", "LogOpt", "GlobalArgs", "ContainersConfModule":
			c.note(podimport.Dropped, e, "the apps' lines go to the journal; options of podman have no counterpart")
		case "ExitCodePropagation":
			c.note(podimport.Changed, e, "the unit's status is that of the first app that fails")
		case "KubeDownForce":
			c.note(podimport.Changed, e, "volumes are never removed")
		case "SetWorkingDirectory":
			c.note(podimport.Dropped, e, "paths in the YAML have to be absolute")
		case "PodmanArgs":
			c.note(podimport.Dropped, e, "options of podman kube play: write what they are for into the pod file")
		default:
			c.note(podimport.Dropped, e, "the key is not known")
		}
	}
	if len(sources) == 0 {
		return fmt.Errorf("%s: [Kube] has no Yaml=", u.path)
	}
	r, err := kube.Convert(sources, o)
	if err != nil {
		return err
	}
	for i := range r.Pods {
		if err := c.applyKube(k, r.Pods[i].File); err != nil {
			return err
		}
	}
	c.r.Join(r)
	return nil
}

// applyKube lays what the .kube says over a pod of its YAML.
func (c *converter) applyKube(k *container, p *podjson.Pod) error {
	podimport.Rkt(p)
	podimport.Systemd(&p.Systemd)
	from := *k.t.pod.Rkt
	if len(from.Net) > 0 {
		p.Rkt.Net = from.Net
	}
	if from.PrivateUsers != nil {
		p.Rkt.PrivateUsers = from.PrivateUsers
	}
	if from.Update != nil {
		p.Rkt.Update = from.Update
	}
	t := &target{name: k.t.name, pod: p, unit: k.u, apps: nil}
	inner := *k
	inner.t = t
	for _, e := range k.u.entries {
		switch {
		case e.section == "Kube" && e.key == "PublishPort" && len(p.Apps) > 0:
			inner.app = p.Apps[0]
			if err := inner.publish(e); err != nil {
				c.note(podimport.Dropped, e, "it cannot be read: %v", err)
			}
			p.Apps[0] = inner.app
		case e.section != "Kube":
			c.systemSection(t, k.u, nil, e)
		}
	}
	return nil
}

package kube

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// mount gives an app one of the pod's volumes.
func (p *pod) mount(m *object, a *podjson.App) {
	name, target := m.str("name"), path.Clean("/"+m.str("mountPath"))
	sub := m.str("subPath")
	if sub != "" && (path.Clean("/"+sub) != "/"+strings.TrimSuffix(sub, "/") || strings.Contains(sub, "$(")) {
		m.note(podimport.Dropped, "subPath", "%q leads out of its volume, or is not known yet", sub)
		return
	}
	if m.has("subPathExpr") || m.has("mountPropagation") && m.str("mountPropagation") != "None" {
		m.ignore("mountPropagation")
		m.note(podimport.Dropped, "subPathExpr", "the volume is mounted whole, without propagation")
	}
	v := p.volumes[name]
	if v == nil { // of a claim's template
		p.host(a, name, podjson.Volume{Source: podimport.Keep(p.p, p.name+"-"+name)}, m, target, sub)
		return
	}
	for _, k := range v.keys {
		switch k {
		case "name":
		case "emptyDir":
			if e := v.sub(k); e != nil && (e.has("medium") || e.has("sizeLimit")) {
				e.ignore("medium", "sizeLimit")
				v.note(podimport.Changed, k, "an empty volume on disk, without a limit")
			}
			if sub != "" {
				m.note(podimport.Dropped, "subPath", "an empty volume is mounted whole")
			}
			podimport.Mount(a, podimport.Volume(p.p, name, podjson.Volume{Kind: "empty", Mode: "0777"}), target)
			return
		case "hostPath":
			h := v.sub(k)
			if t := h.str("type"); strings.HasSuffix(t, "OrCreate") {
				h.note(podimport.Todo, "type", "make %s before the first start", h.str("path"))
			}
			p.host(a, name, podjson.Volume{Source: path.Clean("/" + h.str("path"))}, m, target, sub)
			return
		case "persistentVolumeClaim":
			claim := v.sub(k)
			ro := claim.boolean("readOnly")
			vol := podjson.Volume{Source: podimport.Keep(p.p, claim.str("claimName"))}
			if ro {
				vol.ReadOnly = &ro
			}
			p.host(a, name, vol, m, target, sub)
			return
		case "configMap":
			p.files(a, v.sub(k), name, m, target, sub)
			return
		case "secret":
			p.secretFiles(a, v.sub(k), name, m, target, sub)
			return
		}
	}
	for _, k := range v.keys {
		v.used[k] = true
	}
	m.note(podimport.Dropped, "name", "volumes are emptyDir, hostPath, configMap, secret and persistentVolumeClaim; %s is another: mount it on the host", name)
}

// host mounts a directory of the host.
func (p *pod) host(a *podjson.App, name string, v podjson.Volume, m *object, target, sub string) {
	v.Kind = "host"
	if sub != "" {
		v.Source = path.Join(v.Source, sub)
		name += "-" + path.Base(sub)
		m.note(podimport.Todo, "subPath", "make %s before the first start, if it is not there", v.Source)
	}
	if m.boolean("readOnly") {
		yes := true
		v.ReadOnly = &yes
	}
	podimport.Mount(a, podimport.Volume(p.p, name, v), target)
}

// items are the files of a ConfigMap or a Secret: paths by keys.
func items(o *object, data map[string]string) map[string]string {
	out := map[string]string{}
	for _, i := range o.list("items") {
		out[i.str("key")] = i.str("path")
		i.ignore("mode")
	}
	if len(out) == 0 {
		for k := range data {
			out[k] = k
		}
	}
	return out
}

// files are those of a ConfigMap, in a directory of the host.
func (p *pod) files(a *podjson.App, o *object, volume string, m *object, target, sub string) {
	name := o.str("name")
	o.ignore("defaultMode", "optional")
	data, ok := p.c.configs[name]
	dir := "/etc/rkt/files/" + p.name + "/" + podimport.FileName(volume)
	if !ok {
		o.note(podimport.Todo, "name", "%q is not among the files: write its files to %s", name, dir)
	}
	paths := items(o, data)
	for _, key := range slices.Sorted(maps.Keys(paths)) {
		rel := paths[key]
		if path.Clean("/"+rel) != "/"+rel {
			o.note(podimport.Dropped, "items", "%q leads out of its volume", rel)
			continue
		}
		if text, ok := data[key]; ok {
			p.c.file(podimport.File{Path: path.Join(dir, rel), Text: text, Mode: 0o644, From: o.r.path})
		}
	}
	yes := true
	v := podjson.Volume{Kind: "host", Source: path.Join(dir, sub), ReadOnly: &yes}
	if sub != "" {
		volume += "-" + path.Base(sub)
	}
	m.boolean("readOnly")
	podimport.Mount(a, podimport.Volume(p.p, volume, v), target)
}

// file adds a file once.
func (c *converter) file(f podimport.File) {
	for _, have := range c.r.Files {
		if have.Path == f.Path {
			return
		}
	}
	c.r.Files = append(c.r.Files, f)
}

// secretFiles are credentials, each at its place.
func (p *pod) secretFiles(a *podjson.App, o *object, volume string, m *object, target, sub string) {
	name := o.str("secretName")
	o.ignore("optional")
	if o.has("defaultMode") {
		o.note(podimport.Changed, "defaultMode", "a credential can be read by the app's user alone (mode 0400)")
	}
	m.boolean("readOnly")
	data, ok := p.c.secrets[name]
	paths := items(o, data)
	if !ok && len(paths) == 0 {
		o.note(podimport.Todo, "secretName", "%q is not among the files: name its keys as credentials (docs/credentials.md)", name)
		return
	}
	if p.p.Rkt.Credentials == nil {
		p.p.Rkt.Credentials = map[string]podjson.Credential{}
	}
	for _, key := range slices.Sorted(maps.Keys(paths)) {
		if sub != "" && paths[key] != sub {
			continue
		}
		id := podimport.FileName(name + "." + key)
		file := "/etc/rkt/secrets/" + p.name + "/" + id
		if text, ok := data[key]; ok {
			p.c.file(podimport.File{Path: file, Text: text, Mode: 0o600, From: o.r.path})
		} else {
			o.note(podimport.Todo, "secretName", "write %s of %q to %s (mode 0600)", key, name, file)
		}
		p.p.Rkt.Credentials[id] = podjson.Credential{Load: file}
		at := path.Join(target, path.Clean("/"+paths[key]))
		if sub != "" {
			at = target
		}
		a.Credentials = append(a.Credentials, podjson.AppCredential{Name: id, File: at})
	}
	if ok {
		p.c.r.Note(podimport.Changed, o.r.path, 0, fmt.Sprintf("%s.secretName", o.path), "its files are credentials, loaded from /etc/rkt/secrets/%s (mode 0600); encrypt them: docs/credentials.md", p.name)
	}
}

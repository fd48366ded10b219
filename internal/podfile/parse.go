package podfile

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// Parse checks a pod file and its drop-ins. files[0] is the pod file, the
// others are merged over it in order (RFC 7396). The pod is nil when an error
// is among the problems.
func Parse(name string, files []File) (*Pod, []Problem) {
	p := &parser{}
	root := p.pod0(name, files)
	if Failed(p.problems) {
		return nil, p.problems
	}
	p.document(root)
	if Failed(p.problems) {
		return nil, p.problems
	}
	return p.pod, p.problems
}

// ParseInstall reads only what says how the pod is started: its unit name and
// the [Install] directives that are in order. The generator uses it for files
// that Parse refuses, so that a broken pod still fails where it would start.
func ParseInstall(name string, files []File) *Pod {
	p := &parser{}
	root := p.pod0(name, files)
	if root == nil || root.Kind != jsonpos.Object {
		return p.pod
	}
	if install := root.Member("systemd").Member("install"); install != nil {
		p.pod.Install = p.directives(install, "systemd.install", "install")
	}
	return p.pod
}

// pod0 makes the pod without content and the tree it is to be read from: all
// files merged, specifiers resolved.
func (p *parser) pod0(name string, files []File) *jsonpos.Value {
	prefix, instance, hasAt := strings.Cut(name, "@")
	p.pod = &Pod{Name: name, Prefix: prefix, Instance: instance}
	if err := CheckName(name); err != nil {
		p.report(Error, jsonpos.Pos{File: name + ".json"}, "", err.Error(), "")
		return nil
	}
	var docs []*jsonpos.Value
	for i, f := range files {
		p.pod.Files = append(p.pod.Files, f.Path)
		v, errs := jsonpos.Decode(f.Path, f.Data)
		for _, e := range errs {
			p.report(Error, e.Pos, "", e.Msg, "")
		}
		switch {
		case v == nil:
		case v.Kind != jsonpos.Object:
			p.wrongType(v, "", "an object")
		case i == 0 || docs != nil:
			docs = append(docs, v)
		}
	}
	if len(files) == 0 {
		p.report(Error, jsonpos.Pos{File: name + ".json"}, "", "no file to read", "")
	}
	var root *jsonpos.Value
	if docs != nil {
		root = jsonpos.Merge(docs)
		keepNullHealth(root)
		dropNulls(root)
		if hasAt {
			p.specifiers(root)
		}
	}
	return root
}

// dropNulls removes members that are null: a null means an absent member, as
// it does to encoding/json, which writes an appc manifest's empty lists so.
// Merge did it for all objects but those in lists.
func dropNulls(v *jsonpos.Value) {
	for _, it := range v.Items {
		dropNulls(it)
	}
	kept := v.Members[:0]
	for _, m := range v.Members {
		if m.Value.Kind != jsonpos.Null {
			dropNulls(m.Value)
			kept = append(kept, m)
		}
	}
	v.Members = kept
}

// document reads the whole tree.
func (p *parser) document(root *jsonpos.Value) {
	pod := p.pod
	// Volumes come first, since mounts name them.
	if v := root.Member("volumes"); v != nil {
		p.volumes(v)
	}
	for _, m := range root.Members {
		v := m.Value
		switch m.Key {
		case "$schema": // for editors
		case "acVersion":
			p.word(v, m.Key)
		case "acKind":
			if s, ok := p.word(v, m.Key); ok && s != "PodManifest" {
				p.errorf(v, m.Key, "is ", quote(s), ", want \"PodManifest\"")
			}
		case "apps":
			p.apps(v)
		case "volumes":
		case "isolators":
			pod.Isolators = p.isolators(v, m.Key)
		case "annotations":
			pod.Annotations = p.nameValues(v, m.Key, checkIdentifier)
		case "ports":
			p.ports(v)
		case "userAnnotations":
			pod.UserAnnotations = p.stringMap(v, m.Key)
		case "userLabels":
			pod.UserLabels = p.stringMap(v, m.Key)
		case "systemd":
			p.systemd(v)
		case "rkt":
			p.rkt(v)
		default:
			p.unknown(m, "", podKeys)
		}
	}
	if !Failed(p.problems) {
		p.applyProfile(root)
	}
	if v := root.Member("ports"); v != nil {
		p.checkActivated(v)
	}
	p.checkCredentials(root)
	p.checkReady(root.Member("rkt"))
	p.checkJournal(root.Member("rkt"))
	if len(pod.Apps) == 0 && !Failed(p.problems) {
		p.errorf(root, "apps", "pod must contain at least one app")
	}
}

// isolators checks the form of an isolator list; stage0 checks the values.
func (p *parser) isolators(v *jsonpos.Value, path string) Raw {
	if !p.list(v, path) {
		return nil
	}
	for i, it := range v.Items {
		at := index(path, i)
		if !p.object(it, at) {
			continue
		}
		if name := it.Member("name"); name == nil {
			p.errorf(it, at, "lacks \"name\"")
		} else if s, ok := p.word(name, at+".name"); ok && !isACIdentifier(s) {
			p.errorf(name, at+".name", checkIdentifier(s))
		}
		if it.Member("value") == nil {
			p.errorf(it, at, "lacks \"value\"")
		}
		for _, m := range it.Members {
			if m.Key != "name" && m.Key != "value" {
				p.unknown(m, at, pairKeys)
			}
		}
	}
	return v.AppendJSON(nil)
}

func (p *parser) volumes(v *jsonpos.Value) {
	if !p.list(v, "volumes") {
		return
	}
	seen := make(map[string]bool, len(v.Items))
	p.hasVolume = make(map[string]bool, len(v.Items))
	for i, it := range v.Items {
		at := index("volumes", i)
		vol, ok := p.volume(it, at)
		if vol.Name != "" && seen[vol.Name] {
			p.errorf(it, at, "duplicate volume name ", quote(vol.Name))
			ok = false
		}
		seen[vol.Name] = true
		if ok {
			p.pod.Volumes = append(p.pod.Volumes, vol)
			p.volumeNames = append(p.volumeNames, vol.Name)
			p.hasVolume[vol.Name] = true
		}
	}
}

func (p *parser) volume(v *jsonpos.Value, path string) (Volume, bool) {
	if v.Kind == jsonpos.String {
		return p.shortVolume(v, path)
	}
	var vol Volume
	if v.Kind != jsonpos.Object {
		p.wrongType(v, path, "an object or \"NAME,kind=…\"")
		return vol, false
	}
	before := len(p.problems)
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "name":
			vol.Name, _ = p.acName(m.Value, at)
		case "kind":
			vol.Kind, _ = p.word(m.Value, at)
		case "source":
			vol.Source, _ = p.str(m.Value, at)
		case "readOnly":
			if b, ok := p.boolean(m.Value, at); ok {
				vol.ReadOnly = &b
			}
		case "recursive":
			if b, ok := p.boolean(m.Value, at); ok {
				vol.Recursive = &b
			}
		case "owner":
			vol.Owner = p.oneOf(m.Value, at, volumeOwners)
		case "mode":
			vol.Mode, _ = p.word(m.Value, at)
		case "uid":
			if n, ok := p.integer(m.Value, at, 0, maxID); ok {
				id := int(n)
				vol.UID = &id
			}
		case "gid":
			if n, ok := p.integer(m.Value, at, 0, maxID); ok {
				id := int(n)
				vol.GID = &id
			}
		default:
			p.unknown(m, path, volumeKeys)
		}
	}
	if Failed(p.problems[before:]) {
		return vol, false
	}
	return vol, p.checkVolume(v, path, vol)
}

// volumeOwners are whose the files of a host volume can be.
const volumeOwners = " idmap app host "

// maxID is the largest user or group ID; the one above means "none".
const maxID = 1<<32 - 2

func (p *parser) checkVolume(v *jsonpos.Value, path string, vol Volume) bool {
	var msg string
	switch {
	case vol.Name == "":
		msg = "volume lacks \"name\""
	case vol.Kind == "":
		msg = "volume lacks \"kind\", want \"host\" or \"empty\""
	case vol.Kind != "host" && vol.Kind != "empty":
		msg = "volume is of kind " + quote(vol.Kind) + ", want \"host\" or \"empty\""
	case vol.Kind == "empty" && vol.Source != "":
		msg = "volume of kind \"empty\" has a \"source\""
	case vol.Kind == "host" && vol.Source == "":
		msg = "volume of kind \"host\" lacks \"source\""
	case vol.Kind == "host" && !strings.HasPrefix(vol.Source, "/"):
		msg = "source " + quote(vol.Source) + " is no absolute path"
	case vol.Kind == "host" && (vol.Mode != "" || vol.UID != nil || vol.GID != nil):
		msg = "volume of kind \"host\" cannot have \"mode\", \"uid\" or \"gid\""
	case vol.Kind == "empty" && vol.Owner != "":
		msg = "volume of kind \"empty\" has an \"owner\"; it has \"uid\" and \"gid\""
	case vol.Owner != "" && !strings.Contains(volumeOwners, " "+vol.Owner+" "):
		msg = "owner is " + quote(vol.Owner) + ", want" + strings.TrimRight(volumeOwners, " ")
	case vol.Mode != "" && !isMode(vol.Mode):
		msg = "mode " + quote(vol.Mode) + " is no octal number up to 7777"
	default:
		return true
	}
	p.errorf(v, path, msg)
	return false
}

func isMode(s string) bool {
	s = strings.TrimLeft(s, "0")
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '7' {
			return false
		}
	}
	return len(s) <= 4
}

func (p *parser) ports(v *jsonpos.Value) {
	if !p.list(v, "ports") {
		return
	}
	for i, it := range v.Items {
		if port, ok := p.port(it, index("ports", i)); ok {
			p.pod.Ports = append(p.pod.Ports, port)
		}
	}
}

func (p *parser) port(v *jsonpos.Value, path string) (Port, bool) {
	var port Port
	if v.Kind == jsonpos.String {
		return p.shortPort(v, path)
	}
	if v.Kind != jsonpos.Object {
		p.wrongType(v, path, "an object or \"NAME:HOSTPORT\"")
		return port, false
	}
	before := len(p.problems)
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "name":
			port.Name, _ = p.acName(m.Value, at)
		case "hostPort":
			n, _ := p.integer(m.Value, at, 0, 65535)
			port.HostPort = uint16(n)
		case "hostIP":
			port.HostIP, _ = p.str(m.Value, at)
			if port.HostIP != "" && !isIP(port.HostIP) {
				p.errorf(m.Value, at, quote(port.HostIP), " is no IP address")
			}
		case "podPort":
			if p.object(m.Value, at) {
				port.PodPort = m.Value.AppendJSON(nil)
			}
		case "activate":
			port.Activate, _ = p.boolean(m.Value, at)
		case "idleTime":
			port.IdleTime = p.idleTime(m.Value, at)
		default:
			p.unknown(m, path, portKeys)
		}
	}
	if !Failed(p.problems[before:]) {
		p.activated(v, path, &port)
	}
	if Failed(p.problems[before:]) {
		return port, false
	}
	if port.Name == "" {
		p.errorf(v, path, "port lacks \"name\"")
		return port, false
	}
	return port, true
}

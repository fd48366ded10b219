package podfile

import (
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/stdio"
)

// maxApps bounds a pod.
const maxApps = 512

func (p *parser) apps(v *jsonpos.Value) {
	if !p.list(v, "apps") {
		return
	}
	if len(v.Items) > maxApps {
		p.errorf(v, "apps", "pod has more than ", strconv.Itoa(maxApps), " apps")
		return
	}
	seen := map[string]bool{}
	for i, it := range v.Items {
		at := index("apps", i)
		if !p.object(it, at) {
			continue
		}
		app := p.app(it, at)
		if app.Name != "" && seen[app.Name] {
			msg := "duplicate app name " + quote(app.Name)
			if it.Member("name") == nil {
				msg += ", derived from the image; give the app a \"name\""
			}
			p.errorf(it, at, msg)
		}
		seen[app.Name] = true
		p.pod.Apps = append(p.pod.Apps, app)
	}
	p.checkOrder()
}

func (p *parser) app(v *jsonpos.Value, path string) App {
	app := App{Pos: v.Pos}
	o := &app.Override
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "name":
			app.Name, _ = p.acName(m.Value, at)
		case "image":
			app.Image = p.image(m.Value, at)
		case "app":
			app.App = p.section(m.Value, at)
		case "readOnlyRootFS":
			app.ReadOnlyRootFS, _ = p.boolean(m.Value, at)
		case "mounts":
			app.Mounts = p.mounts(m.Value, at)
		case "annotations":
			app.Annotations = p.nameValues(m.Value, at, checkIdentifier)
		case "systemd":
			app.Order, app.Systemd = p.appSystemd(m.Value, at)
		case "exec":
			if o.Exec, _ = p.strings(m.Value, at); len(o.Exec) == 0 || o.Exec[0] == "" {
				p.errorf(m.Value, at, "names no program")
			}
		case "args":
			o.Args, _ = p.strings(m.Value, at)
		case "user":
			o.User = p.account(m.Value, at)
		case "group":
			o.Group = p.account(m.Value, at)
		case "supplementaryGIDs":
			o.SupplementaryGIDs = p.gids(m.Value, at)
		case "workingDirectory":
			o.WorkingDirectory = p.absolute(m.Value, at)
		case "environment":
			o.Environment = p.nameValues(m.Value, at, checkEnvName)
		case "isolators":
			o.Isolators = p.isolators(m.Value, at)
		case "ports":
			o.Ports = p.appPorts(m.Value, at)
		case "health":
			app.Health = p.health(m.Value, at)
		case "credentials":
			app.Credentials = p.appCredentials(m.Value, at)
		case "stdin":
			app.Stdio.In = p.stream(m.Value, at, m.Key)
		case "stdout":
			app.Stdio.Out = p.stream(m.Value, at, m.Key)
		case "update":
			app.Update = p.oneOf(m.Value, at, updatePolicies)
		case "stderr":
			app.Stdio.Err = p.stream(m.Value, at, m.Key)
		default:
			p.unknown(m, path, appKeys)
		}
	}
	if v.Member("image") == nil {
		p.errorf(v, path, "app lacks \"image\"")
	}
	if app.Name == "" && v.Member("name") == nil {
		app.Name = deriveName(app.Image)
	}
	return app
}

// stream returns the mode of a standard stream.
func (p *parser) stream(v *jsonpos.Value, path, name string) string {
	s, ok := p.word(v, path)
	if !ok {
		return ""
	}
	if msg := stdio.Check(name, s); msg != "" {
		p.errorf(v, path, msg)
		return ""
	}
	return s
}

func deriveName(img Image) string {
	if img.Ref != "" {
		return AppName(img.Ref)
	}
	return AppName(img.Name)
}

// account returns a user or group: a name, a path or a number.
func (p *parser) account(v *jsonpos.Value, path string) string {
	if v.Kind == jsonpos.Number {
		n, _ := p.integer(v, path, 0, maxID)
		return strconv.FormatInt(n, 10)
	}
	s, _ := p.word(v, path)
	return s
}

func (p *parser) absolute(v *jsonpos.Value, path string) string {
	s, ok := p.nonEmpty(v, path)
	if ok && !strings.HasPrefix(s, "/") {
		p.errorf(v, path, quote(s), " is no absolute path")
	}
	return s
}

func (p *parser) gids(v *jsonpos.Value, path string) []int {
	if !p.list(v, path) {
		return nil
	}
	out := make([]int, 0, len(v.Items))
	for i, it := range v.Items {
		if n, ok := p.integer(it, index(path, i), 0, maxID); ok {
			out = append(out, int(n))
		}
	}
	return out
}

func (p *parser) image(v *jsonpos.Value, path string) Image {
	var img Image
	if v.Kind == jsonpos.String {
		img.Ref, _ = p.word(v, path)
		if strings.HasPrefix(img.Ref, "-") {
			p.errorf(v, path, "reference ", quote(img.Ref), " begins with \"-\"")
		}
		return img
	}
	if v.Kind != jsonpos.Object {
		p.wrongType(v, path, "a reference string or an object")
		return img
	}
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "name":
			if img.Name, _ = p.word(m.Value, at); img.Name != "" {
				if msg := checkIdentifier(img.Name); msg != "" {
					p.errorf(m.Value, at, msg)
				}
			}
		case "id":
			if img.ID, _ = p.word(m.Value, at); img.ID != "" && !isHash(img.ID) {
				p.errorf(m.Value, at, quote(img.ID), " is no image ID, want sha512- and hexadecimal digits")
			}
		case "labels":
			img.Labels = p.nameValues(m.Value, at, checkIdentifier)
		default:
			p.unknown(m, path, appImageKeys)
		}
	}
	if v.Member("name") == nil && v.Member("id") == nil {
		p.errorf(v, path, "image has neither \"name\" nor \"id\"")
	}
	return img
}

func isHash(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha512-")
	for i := 0; i < len(hex); i++ {
		if c := hex[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return ok && len(hex) >= 2 && len(hex) <= 128
}

func (p *parser) mounts(v *jsonpos.Value, path string) []Mount {
	if !p.list(v, path) {
		return nil
	}
	var out []Mount
	for i, it := range v.Items {
		at := index(path, i)
		mount, ok := p.mount(it, at)
		if ok && mount.AppVolume == nil && !p.hasVolume[mount.Volume] {
			p.reportNear(Error, it.Pos, at, "no volume "+quote(mount.Volume)+" in this pod", mount.Volume, p.volumeNames)
			ok = false
		}
		if ok {
			out = append(out, mount)
		}
	}
	return out
}

func (p *parser) mount(v *jsonpos.Value, path string) (Mount, bool) {
	var mount Mount
	if v.Kind == jsonpos.String {
		return p.shortMount(v, path)
	}
	if v.Kind != jsonpos.Object {
		p.wrongType(v, path, "an object or \"volume=VOLUME,target=PATH\"")
		return mount, false
	}
	before := len(p.problems)
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "volume":
			// appc wants the field even beside appVolume, then empty.
			if mount.Volume, _ = p.str(m.Value, at); mount.Volume != "" {
				p.acName(m.Value, at)
			}
		case "path":
			mount.Path, _ = p.nonEmpty(m.Value, at)
		case "appVolume":
			if vol, ok := p.volume(m.Value, at); ok {
				mount.AppVolume = &vol
			}
		default:
			p.unknown(m, path, appMountKeys)
		}
	}
	if Failed(p.problems[before:]) {
		return mount, false
	}
	if mount.Path == "" || mount.Volume == "" && mount.AppVolume == nil {
		p.errorf(v, path, "mount lacks \"volume\" or \"path\"")
		return mount, false
	}
	return mount, true
}

// section checks the form of an appc App section, which stage0 hands on.
func (p *parser) section(v *jsonpos.Value, path string) Raw {
	if !p.object(v, path) {
		return nil
	}
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "exec":
			p.strings(m.Value, at)
		case "user", "group":
			p.word(m.Value, at)
		case "supplementaryGIDs":
			p.gids(m.Value, at)
		case "workingDirectory":
			if s, ok := p.str(m.Value, at); ok && s != "" {
				p.absolute(m.Value, at)
			}
		case "environment":
			if p.list(m.Value, at) {
				p.nameValues(m.Value, at, checkEnvName)
			}
		case "eventHandlers", "mountPoints", "ports":
			if p.list(m.Value, at) {
				for i, it := range m.Value.Items {
					p.object(it, index(at, i))
				}
			}
		case "isolators":
			p.isolators(m.Value, at)
		case "userAnnotations", "userLabels":
			p.stringMap(m.Value, at)
		default:
			p.unknown(m, path, sectionKeys)
		}
	}
	for _, key := range []string{"user", "group"} {
		if v.Member(key) == nil {
			p.errorf(v, path, "lacks \"", key, "\": an app section replaces the image's whole; ",
				"to change parts of it put them beside \"image\"")
		}
	}
	return v.AppendJSON(nil)
}

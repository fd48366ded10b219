package podfile

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/appcred"
	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// Credential is an entry of rkt.credentials: one of Load, Set and Encrypted.
type Credential struct {
	Name string
	// Load is a path of the host that systemd reads when the pod starts.
	Load string
	// Set is the secret itself; it must go nowhere but into a file that only root
	// can read.
	Set    string
	HasSet bool
	// Encrypted is what systemd-creds made: the path of a file, or text in base64.
	Encrypted string
	Pos       jsonpos.Pos
}

// credentials reads rkt.credentials.
func (p *parser) credentials(v *jsonpos.Value, path string) []Credential {
	if !p.object(v, path) {
		return nil
	}
	var out []Credential
	for _, m := range v.Members {
		at := join(path, m.Key)
		if msg := appcred.CheckName(m.Key); msg != "" {
			p.report(Error, m.Pos, at, msg, "")
			continue
		}
		if p.object(m.Value, at) {
			out = append(out, p.credential(m, at))
		}
	}
	if len(out) > appcred.MaxCredentials {
		p.errorf(v, path, "a pod can have 128 credentials")
	}
	return out
}

func (p *parser) credential(m jsonpos.Member, path string) Credential {
	c := Credential{Name: m.Key, Pos: m.Pos}
	given := 0
	for _, k := range m.Value.Members {
		at := join(path, k.Key)
		switch k.Key {
		case "load":
			if c.Load = p.absolute(k.Value, at); unitfile.CheckValue(c.Load) != nil {
				p.errorf(k.Value, at, "is a path that no unit can name")
			}
		case "set":
			// no message may repeat it
			c.Set, c.HasSet = p.str(k.Value, at)
		case "encrypted":
			c.Encrypted = p.encrypted(k.Value, at)
		default:
			p.unknown(k, path, rktCredentialKeys)
			continue
		}
		given++
	}
	if given != 1 {
		p.errorf(m.Value, path, "wants one of \"load\" (a path), \"set\" (the text itself) and \"encrypted\" (see systemd-creds(1))")
	}
	return c
}

// encrypted returns a path, or the text without white space.
func (p *parser) encrypted(v *jsonpos.Value, path string) string {
	s, ok := p.nonEmpty(v, path)
	if !ok {
		return ""
	}
	if strings.HasPrefix(s, "/") {
		if unitfile.CheckValue(s) != nil {
			p.errorf(v, path, "is a path that no unit can name")
		}
		return s
	}
	s = strings.Join(strings.Fields(s), "")
	const base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	if strings.Trim(strings.TrimRight(s, "="), base64) != "" || len(s)%4 != 0 {
		p.errorf(v, path, "is neither an absolute path nor what systemd-creds encrypt prints (base64)")
		return ""
	}
	return s
}

// appCredentials reads the credentials of an app; names are looked up when all of
// the file is known, see checkCredentials.
func (p *parser) appCredentials(v *jsonpos.Value, path string) []appcred.Credential {
	if !p.list(v, path) {
		return nil
	}
	var out []appcred.Credential
	for i, it := range v.Items {
		at := index(path, i)
		var c appcred.Credential
		switch it.Kind {
		case jsonpos.String:
			c.Name, _ = p.word(it, at)
		case jsonpos.Object:
			for _, m := range it.Members {
				at := join(at, m.Key)
				switch m.Key {
				case "name":
					c.Name, _ = p.word(m.Value, at)
				case "file":
					c.File, _ = p.word(m.Value, at)
				case "env":
					c.Env, _ = p.word(m.Value, at)
				default:
					p.unknown(m, index(path, i), appCredentialKeys)
				}
			}
		default:
			p.wrongType(it, at, "the name of a credential or {\"name\", \"file\", \"env\"}")
			continue
		}
		if msg := appcred.Check([]appcred.Credential{c}); msg != "" {
			p.errorf(it, at, msg)
			continue
		}
		out = append(out, c)
	}
	if msg := appcred.Check(out); msg != "" {
		p.errorf(v, path, msg)
	}
	return out
}

// checkCredentials looks up what the apps want. root is the whole file.
func (p *parser) checkCredentials(root *jsonpos.Value) {
	var names []string
	known, wanted := map[string]bool{}, map[string]bool{}
	for _, c := range p.pod.Rkt.Credentials {
		names = append(names, c.Name)
		known[c.Name] = true
	}
	apps := root.Member("apps")
	if apps == nil {
		return
	}
	for i, app := range apps.Items {
		list := app.Member("credentials")
		if list == nil {
			continue
		}
		for j, it := range list.Items {
			at := index(join(index("apps", i), "credentials"), j)
			name := it
			if it.Kind == jsonpos.Object {
				name = it.Member("name")
			}
			if name == nil || name.Kind != jsonpos.String || wanted[name.Text] {
				continue
			}
			if wanted[name.Text] = true; !known[name.Text] {
				p.reportNear(Error, name.Pos, at, "no credential "+quote(name.Text)+" in rkt.credentials", name.Text, names)
			}
		}
	}
	for _, c := range p.pod.Rkt.Credentials {
		if !wanted[c.Name] {
			p.warnf(c.Pos, "rkt.credentials."+c.Name, "no app gets this credential; name it in an app's \"credentials\"")
		}
	}
}

// isSecret says that a string of the file must not be touched nor repeated: a
// "set" below rkt.credentials. at is the object that holds the key.
func isSecret(at *place, key string) bool {
	if key != "set" || at.up == nil {
		return false
	}
	for at.up.up != nil {
		at = at.up
	}
	return at.up.key == "rkt" && at.key == "credentials"
}

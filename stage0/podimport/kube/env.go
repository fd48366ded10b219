package kube

import (
	"maps"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// Limits of what variables grow to, each made of others.
const (
	maxValue  = 128 << 10 // of one: the longest string that execve(2) takes
	maxValues = 16 << 20  // of all together
)

// variables are those of a container.
type variables struct {
	names []string // in the order they were set in
	of    map[string]variable
}

type variable struct {
	value string
	// secret is where a secret was named that is in the value, nil if none is.
	secret *object
	key    string
}

func (v *variables) set(name string, to variable) {
	if _, ok := v.of[name]; !ok {
		v.names = append(v.names, name)
	}
	v.of[name] = to
}

// environment sets variables. Secrets go to a file that only root can read, and
// so does what is made of them.
func (p *pod) environment(c *object, a *podjson.App) *variables {
	vars := &variables{of: map[string]variable{}}
	for _, from := range c.list("envFrom") {
		prefix := from.str("prefix")
		for _, kind := range []string{"configMapRef", "secretRef"} {
			ref := from.sub(kind)
			if ref == nil {
				continue
			}
			name := ref.str("name")
			data, ok := p.c.configs[name]
			v := variable{}
			if kind == "secretRef" {
				data, ok = p.c.secrets[name]
				v = variable{secret: from, key: kind}
			}
			if !ok && !ref.boolean("optional") {
				ref.note(podimport.Todo, "name", "%q is not among the files: import it together, or write its variables into \"environment\"", name)
			}
			for _, k := range slices.Sorted(maps.Keys(data)) {
				v.value = data[k]
				vars.set(prefix+k, v)
			}
		}
	}
	for _, e := range c.list("env") {
		p.variable(e, vars)
	}
	var secrets []string
	for _, name := range vars.names {
		v := vars.of[name]
		have, taken := p.env[name]
		switch {
		case v.secret == nil:
			a.Environment.Set(name, v.value)
			if podimport.Secret(name, v.value) {
				secrets = append(secrets, name)
			}
		case taken && have != v.value || strings.ContainsAny(v.value, "\n\r"):
			a.Environment.Set(name, v.value)
			p.secret = true
			v.secret.note(podimport.Changed, v.key, "%s", podimport.InFile([]string{name}))
		default:
			p.env[name] = v.value
		}
	}
	if len(secrets) > 0 {
		p.secret = true
		c.note(podimport.Changed, "env", "%s", podimport.InFile(secrets))
	}
	return vars
}

// variable sets what an entry of env says.
func (p *pod) variable(e *object, vars *variables) {
	name := e.str("name")
	from := e.sub("valueFrom")
	if from == nil {
		v := variable{}
		v.value = p.expand(e, "value", e.str("value"), func(name string) (string, bool) {
			other, ok := vars.of[name]
			if other.secret != nil {
				v.secret, v.key = e, "value"
			}
			return other.value, ok
		})
		vars.set(name, v)
		return
	}
	for kind, data := range map[string]map[string]map[string]string{"configMapKeyRef": p.c.configs, "secretKeyRef": p.c.secrets} {
		ref := from.sub(kind)
		if ref == nil {
			continue
		}
		value, ok := data[ref.str("name")][ref.str("key")]
		switch {
		case !ok && ref.boolean("optional"):
		case !ok:
			ref.note(podimport.Todo, "name", "%s of %q is not among the files: import it together, or set %s", ref.str("key"), ref.str("name"), name)
		case kind == "secretKeyRef":
			vars.set(name, variable{value, ref, "key"})
		default:
			vars.set(name, variable{value: value})
		}
	}
	if ref := from.sub("fieldRef"); ref != nil {
		ref.ignore("apiVersion")
		switch field := ref.str("fieldPath"); field {
		case "metadata.name":
			vars.set(name, variable{value: p.name})
		case "metadata.namespace":
			vars.set(name, variable{value: "default"})
		default:
			ref.note(podimport.Todo, "fieldPath", "%s is known when the pod runs: set %s by hand, or find it out in the app", field, name)
		}
	}
}

// words are those of a command, with variables. Secrets are left out: others can
// read what a process was started with.
func (p *pod) words(c *object, key string, vars *variables) []string {
	var out, secrets []string
	for _, w := range c.strs(key) {
		out = append(out, p.expand(c, key, w, func(name string) (string, bool) {
			v, ok := vars.of[name]
			if v.secret == nil {
				return v.value, ok
			}
			if ref := "$(" + name + ")"; !slices.Contains(secrets, ref) {
				secrets = append(secrets, ref)
			}
			return "", false
		}))
	}
	if len(secrets) > 0 {
		c.note(podimport.Todo, key, "%s is a secret, and is not replaced: have the app take the variable itself (sh -c …), or read a file (docs/credentials.md)", strings.Join(secrets, ", "))
	}
	return out
}

// expand replaces $(NAME) as Kubernetes does: from left to right, not again in
// what was put in; $$ is $, and what nobody knows stays.
func (p *pod) expand(o *object, key, s string, lookup func(name string) (string, bool)) string {
	var b strings.Builder
	last := strings.LastIndexByte(s, ')')
	for i := 0; i < len(s); i++ {
		rest := s[i:]
		end := -1
		if i < last && strings.HasPrefix(rest, "$(") {
			end = strings.IndexByte(rest, ')')
		}
		switch {
		case strings.HasPrefix(rest, "$$"):
			b.WriteByte('$')
			i++
		case end > 0:
			if value, ok := lookup(rest[2:end]); ok {
				b.WriteString(value)
			} else {
				b.WriteString(rest[:end+1])
			}
			i += end
		default:
			b.WriteByte(s[i])
		}
		if b.Len() > maxValue {
			o.r.fail("%s:%d: %s becomes more than %d bytes", o.r.path, o.line[key], o.at(key), maxValue)
			return ""
		}
	}
	if p.c.grown += b.Len(); p.c.grown > maxValues {
		o.r.fail("%s:%d: variables become more than %d bytes", o.r.path, o.line[key], maxValues)
		return ""
	}
	return b.String()
}

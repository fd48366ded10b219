package podfile

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

var orderKeys = []string{"After", "Before", "Requires", "Wants", "BindsTo", "PartOf"}

// AppOrder are the dependencies that an app can have on other apps.
func AppOrder() []string { return append([]string(nil), orderKeys...) }

// appSystemd reads the "systemd" section of an app: dependencies on other
// apps, and directives of the app's own unit.
func (p *parser) appSystemd(v *jsonpos.Value, path string) (o Order, ds []appunit.Directive) {
	if !p.object(v, path) {
		return o, nil
	}
	for _, m := range v.Members {
		at := join(path, m.Key)
		if m.Key != "unit" && m.Key != "service" {
			p.unknown(m, path, appSystemdKeys)
			continue
		}
		if !p.object(m.Value, at) {
			continue
		}
		for _, d := range m.Value.Members {
			at := join(at, d.Key)
			if m.Key == "unit" {
				if dst := o.list(d.Key); dst != nil {
					*dst, _ = p.oneOrMore(d.Value, at)
					continue
				}
			}
			ds = append(ds, p.appDirective(m.Key, d, at)...)
		}
	}
	return o, ds
}

// appDirective reads one directive; a list becomes one line each.
func (p *parser) appDirective(section string, m jsonpos.Member, path string) []appunit.Directive {
	values := []*jsonpos.Value{m.Value}
	if m.Value.Kind == jsonpos.Array {
		values = m.Value.Items
	}
	var out []appunit.Directive
	for _, v := range values {
		s, ok := p.systemdValue(v, path)
		if !ok {
			continue
		}
		if msg := appunit.Check(section, m.Key, s); msg != "" {
			if p.full() {
				p.report(Error, m.Pos, path, msg, "")
				return nil // nobody hears of the others
			}
			known := appunit.Known(section)
			if section == "unit" {
				known = append(known, orderKeys...)
			}
			p.reportNear(Error, m.Pos, path, msg, m.Key, known)
			continue
		}
		name := "Service"
		if section == "unit" {
			name = "Unit"
		}
		out = append(out, appunit.Directive{Section: name, Key: m.Key, Value: s})
	}
	return out
}

func (o *Order) list(key string) *[]string {
	switch key {
	case "After":
		return &o.After
	case "Before":
		return &o.Before
	case "Requires":
		return &o.Requires
	case "Wants":
		return &o.Wants
	case "BindsTo":
		return &o.BindsTo
	case "PartOf":
		return &o.PartOf
	}
	return nil
}

// checkOrder checks that every name is an app of the pod and that the apps
// can be started in some order.
func (p *parser) checkOrder() {
	apps := p.pod.Apps
	byName := make(map[string]int, len(apps))
	var names []string
	for i, a := range apps {
		byName[a.Name] = i
		names = append(names, a.Name)
	}
	// after[i] are the apps that start before app i.
	after := make([][]int, len(apps))
	for i := range apps {
		for _, key := range orderKeys {
			at := index("apps", i) + ".systemd.unit." + key
			for _, n := range *apps[i].Order.list(key) {
				j, ok := byName[n]
				switch {
				case !ok || n == "":
					p.reportNear(Error, apps[i].Pos, at, "no app "+quote(n)+" in this pod", n, names)
				case i == j:
					p.report(Error, apps[i].Pos, at, "app "+quote(n)+" depends on itself", "")
				case key == "After":
					after[i] = append(after[i], j)
				case key == "Before":
					after[j] = append(after[j], i)
				}
			}
		}
	}
	if cycle := findCycle(after); cycle != nil {
		var b strings.Builder
		for _, i := range cycle {
			b.WriteString(apps[i].Name + " → ")
		}
		b.WriteString(apps[cycle[0]].Name)
		p.report(Error, apps[cycle[0]].Pos, index("apps", cycle[0])+".systemd.unit",
			"apps wait for each other: "+b.String(), "")
	}
}

// findCycle returns the nodes of a cycle, or nil.
func findCycle(edges [][]int) []int {
	const visiting, done = 1, 2
	state := make([]uint8, len(edges))
	var path []int
	var visit func(int) []int
	visit = func(i int) []int {
		state[i] = visiting
		path = append(path, i)
		for _, j := range edges[i] {
			if state[j] == visiting {
				for k, n := range path {
					if n == j {
						return path[k:]
					}
				}
			}
			if state[j] == 0 {
				if c := visit(j); c != nil {
					return c
				}
			}
		}
		path = path[:len(path)-1]
		state[i] = done
		return nil
	}
	for i := range edges {
		if state[i] == 0 {
			if c := visit(i); c != nil {
				return c
			}
		}
	}
	return nil
}

// specifiers resolves the specifiers in every string of a template: those of
// the pod everywhere; in the host unit's directives the others stay, for
// systemd to resolve.
func (p *parser) specifiers(root *jsonpos.Value) {
	for _, m := range root.Members {
		p.expandTree(m.Value, &place{key: m.Key}, m.Key == "systemd")
	}
}

// place is where a value is in the tree. A path is made of it when one is needed:
// under a long key the paths of all values would cost more than everything else.
type place struct {
	up     *place
	key    string
	inList bool
	i      int
}

func (at *place) path() string {
	switch {
	case at.up == nil:
		return at.key
	case at.inList:
		return index(at.up.path(), at.i)
	}
	return join(at.up.path(), at.key)
}

// expandTree changes v in place: the tree is this parser's own after Merge,
// except for lists and scalars, which it shares with the decoded documents,
// also only ours.
func (p *parser) expandTree(v *jsonpos.Value, at *place, directive bool) {
	switch v.Kind {
	case jsonpos.String:
		v.Text = p.expand(v, at, directive)
	case jsonpos.Array:
		in := place{up: at, inList: true}
		for i, it := range v.Items {
			in.i = i
			p.expandTree(it, &in, directive)
		}
	case jsonpos.Object:
		in := place{up: at}
		for _, m := range v.Members {
			if !isSecret(at, m.Key) {
				in.key = m.Key
				p.expandTree(m.Value, &in, directive)
			}
		}
	}
}

func (p *parser) expand(v *jsonpos.Value, at *place, directive bool) string {
	s := v.Text
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		c := byte(0)
		if i+1 < len(s) {
			c = s[i+1]
			i++
		}
		text, ok := p.specifier(c)
		switch {
		case ok && directive:
			b.WriteString(strings.ReplaceAll(text, "%", "%%"))
		case ok:
			b.WriteString(text)
		case directive && c != 0:
			b.WriteByte('%')
			b.WriteByte(c)
		case c == '%':
			b.WriteByte('%')
		default:
			if !p.full() {
				p.errorf(v, at.path(), "unknown specifier in ", quote(s), ", want %i, %I, %p, %P, %n, %N or %%")
			}
			return s
		}
	}
	return b.String()
}

// specifier resolves one of systemd's specifiers for the instance of a
// template. While a template as such is checked its instance is "instance".
func (p *parser) specifier(c byte) (string, bool) {
	instance := p.pod.Instance
	if instance == "" {
		instance = "instance"
	}
	switch c {
	case 'i':
		return instance, true
	case 'I':
		return unescape(instance), true
	case 'p':
		return p.pod.Prefix, true
	case 'P':
		return unescape(p.pod.Prefix), true
	case 'n':
		return UnitName(p.pod.Prefix + "@" + instance), true
	case 'N':
		return strings.TrimSuffix(UnitName(p.pod.Prefix+"@"+instance), ".service"), true
	}
	return "", false
}

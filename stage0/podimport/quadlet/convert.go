package quadlet

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// Reader reads another file that a unit refers to: a drop-in, YAML.
type Reader func(path string) (podimport.Source, error)

// converter holds all units that are converted together.
type converter struct {
	r     *podimport.Result
	read  Reader
	units map[string]*unit // by file name
	// services are the pods by the names of the services that Quadlet makes.
	services map[string]string
	pods     map[string]*target         // by the pod's name
	nets     map[string]*networkOptions // by the network's name
}

// target is a pod that is being made.
type target struct {
	name string
	pod  *podjson.Pod
	unit *unit // the .pod, or the only .container
	apps []*container
	// group says that it is made of a .pod.
	group bool
	// grace is what apps of a .pod have to stop in that say nothing themselves.
	grace   *time.Duration
	sysctls map[string]string
	secret  bool // one is in the pod file
	// later is what needs all apps and networks to be known.
	later []func() error
}

// Convert turns units into pods. They may refer to each other.
func Convert(sources []podimport.Source, read Reader) (*podimport.Result, error) {
	c := &converter{r: &podimport.Result{}, read: read, units: map[string]*unit{}, services: map[string]string{}, pods: map[string]*target{},
		nets: map[string]*networkOptions{}}
	for _, s := range sources {
		if err := c.load(s); err != nil {
			return nil, err
		}
	}
	names := slices.Sorted(maps.Keys(c.units))
	if err := c.plan(names); err != nil {
		return nil, err
	}
	for _, name := range names {
		if u := c.units[name]; u.kind == "network" {
			c.network(u)
		}
	}
	for _, name := range names {
		u := c.units[name]
		var err error
		switch u.kind {
		case "container":
			err = c.container(u)
		case "pod":
			err = c.podUnit(u)
		case "kube":
			err = c.kubeUnit(u)
		case "volume":
			c.volumeUnit(u)
		case "image":
			c.imageUnit(u)
		case "build":
			c.buildUnit(u)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if u := c.units[name]; u.kind == "timer" || u.kind == "path" {
			c.trigger(u)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.pods)) {
		t := c.pods[name]
		if err := c.finish(t); err != nil {
			return nil, err
		}
		if len(t.pod.Apps) > 0 {
			c.r.Pods = append(c.r.Pods, podimport.Pod{Name: t.name, File: t.pod, From: t.unit.path, Private: t.secret})
		}
	}
	c.networks()
	return c.r, nil
}

// load parses a unit and its drop-ins.
func (c *converter) load(s podimport.Source) error {
	file := filepath.Base(s.Path)
	kind := strings.TrimPrefix(filepath.Ext(file), ".")
	u := &unit{path: s.Path, file: file, stem: strings.TrimSuffix(file, "."+kind), kind: kind}
	if other := c.units[file]; other != nil {
		return fmt.Errorf("%s and %s are one unit", other.path, s.Path)
	}
	if err := u.parse(s); err != nil {
		return err
	}
	for _, path := range dropIns(s.Path, u) {
		d, err := c.read(path)
		if err != nil {
			return fmt.Errorf("reading a drop-in: %w", err)
		}
		if err := u.parse(d); err != nil {
			return err
		}
	}
	c.units[file] = u
	return nil
}

// dropIns lists the drop-ins of a unit: those of its own directory, of the
// template's, of a prefix ("a-" for "a-b") and of all units of the kind.
func dropIns(path string, u *unit) []string {
	dir := filepath.Dir(path)
	dirs := []string{u.file + ".d"}
	if prefix, instance, ok := strings.Cut(u.stem, "@"); ok && instance != "" {
		dirs = append(dirs, prefix+"@."+u.kind+".d")
	}
	for p := strings.TrimRight(u.stem, "-"); ; {
		i := strings.LastIndexByte(p, '-')
		if i <= 0 {
			break
		}
		dirs = append(dirs, p[:i+1]+"."+u.kind+".d")
		p = strings.TrimRight(p[:i], "-")
	}
	dirs = append(dirs, u.kind+".d")
	found := map[string]string{} // the first directory wins
	for _, d := range dirs {
		entries, err := os.ReadDir(filepath.Join(dir, d))
		if errors.Is(err, fs.ErrNotExist) || err != nil {
			continue
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".conf") && found[e.Name()] == "" {
				found[e.Name()] = filepath.Join(dir, d, e.Name())
			}
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[name])
	}
	return out
}

// plan decides which pods there are, so that references can be followed.
func (c *converter) plan(names []string) error {
	for _, name := range names {
		u := c.units[name]
		if u.kind != "pod" && u.kind != "container" {
			continue
		}
		if u.kind == "container" && u.get("Container", "Pod") != "" {
			continue
		}
		if err := podfile.CheckName(u.stem); err != nil {
			return fmt.Errorf("%s: %w; rename the file", u.path, err)
		}
		if other := c.pods[u.stem]; other != nil {
			return fmt.Errorf("%s and %s both become the pod %q; rename one", other.unit.path, u.path, u.stem)
		}
		c.pods[u.stem] = &target{name: u.stem, pod: &podjson.Pod{Systemd: &podjson.Systemd{}, Rkt: &podjson.Options{}}, unit: u, group: u.kind == "pod"}
		c.services[u.service()] = u.stem
	}
	for _, name := range names {
		u := c.units[name]
		if pod := u.get("Container", "Pod"); u.kind == "container" && pod != "" {
			p := c.units[pod]
			if p == nil || p.kind != "pod" {
				return fmt.Errorf("%s: Pod=%s is not among the files; import them together", u.path, pod)
			}
			c.services[u.service()] = p.stem
		}
	}
	return nil
}

// unitName is what a unit is called under rkt: a name of systemd or of a file of
// Quadlet. It is "" for units that nothing becomes of.
func (c *converter) unitName(s string) (name string, ours bool) {
	service := s
	if u := c.units[s]; u != nil {
		service = u.service()
		if u.kind == "timer" || u.kind == "path" {
			if c.pods[u.stem] != nil {
				return "rkt@" + u.stem + "." + u.kind, true
			}
			return s, false
		}
	} else if Is(s) && !strings.HasSuffix(s, ".timer") && !strings.HasSuffix(s, ".path") {
		return s, false
	}
	if pod, ok := c.services[service]; ok {
		return podfile.UnitName(pod), true
	}
	// an instance of a template
	if prefix, rest, ok := strings.Cut(service, "@"); ok && rest != ".service" {
		if pod, ok := c.services[prefix+"@.service"]; ok {
			return podfile.UnitName(strings.TrimSuffix(pod, "@") + "@" + strings.TrimSuffix(rest, ".service")), true
		}
	}
	for _, u := range c.units {
		switch u.kind {
		case "volume", "network", "image", "build":
			if u.service() == service {
				return "", true
			}
		}
	}
	return s, false
}

// note adds a line of the report about an entry.
func (c *converter) note(level podimport.Level, e entry, format string, args ...any) {
	c.r.Note(level, e.path, e.line, e.name(), format, args...)
}

// text expands the specifiers of a value.
func (c *converter) text(u *unit, e entry) string {
	s, unknown := u.expand(e.value)
	if len(unknown) > 0 {
		c.note(podimport.Todo, e, "the specifiers %s are known when a unit runs, not in a pod file: write what they stand for", strings.Join(unknown, " "))
	}
	return s
}

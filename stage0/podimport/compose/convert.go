package compose

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// filesDir holds what the pods of a project need on the host beside their pod
// files and networks.
const filesDir = "/etc/rkt/compose"

// converter turns one project into pods.
type converter struct {
	in  *input
	p   *types.Project
	res *podimport.Result
	// pods are those of each service: none if it is left out, several with replicas.
	pods map[string][]string
	// host is the service whose pod a service is an app of, often its own.
	host    map[string]string
	healthy map[string]bool // services that others wait for to be healthy
	done    map[string]bool // services that others wait for to end
	nets    map[string]*network
	said    map[string]bool // notes and files that are given once
	// quiet: the second and later replicas of a service have no notes of their own
	quiet bool
}

func convert(in *input, p *types.Project) (*podimport.Result, error) {
	c := &converter{in: in, p: p, res: &podimport.Result{Notes: []podimport.Note{}}, pods: map[string][]string{}, host: map[string]string{},
		healthy: map[string]bool{}, done: map[string]bool{}, nets: map[string]*network{}, said: map[string]bool{}}
	for _, name := range sortedKeys(in.unset) {
		c.note(podimport.Todo, "$"+name, "the variable is not set and was taken as empty; set it in .env or with --env-file, and import again")
	}
	c.topLevel()
	c.hosts()
	if err := c.names(); err != nil {
		return nil, err
	}
	if err := c.networks(); err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(p.Services) {
		if c.host[name] != name {
			continue
		}
		for i := range c.pods[name] {
			c.quiet = i > 0
			if err := c.pod(name, i); err != nil {
				return nil, err
			}
		}
	}
	c.quiet = false
	c.trust()
	if len(c.res.Pods) == 0 {
		return nil, fmt.Errorf("no service of it can be a pod: %s", reasons(c.res))
	}
	return c.res, nil
}

func reasons(r *podimport.Result) string {
	var out []string
	for _, n := range r.Notes {
		out = append(out, n.Key+": "+n.Text)
	}
	if len(out) > 5 {
		out = out[:5]
	}
	return strings.Join(out, "; ")
}

// note reports what became of a key.
func (c *converter) note(level podimport.Level, key, format string, args ...any) {
	if c.quiet {
		return
	}
	at := c.in.lines.find(key)
	if at.path == "" {
		at.path = c.in.main().Path
	}
	c.res.Note(level, at.path, at.line, plain(key), "%s", plain(fmt.Sprintf(format, args...)))
}

// plain keeps what files say from driving a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// once reports something that is the same for many services.
func (c *converter) once(id string, level podimport.Level, key, format string, args ...any) {
	if !c.said[id] {
		c.said[id] = true
		c.note(level, key, format, args...)
	}
}

// file adds a file of the host.
func (c *converter) file(path, text string, mode uint32) {
	if c.said["file "+path] {
		return
	}
	c.said["file "+path] = true
	c.res.Files = append(c.res.Files, podimport.File{Path: path, Text: text, Mode: mode, From: c.in.main().Path})
}

// topLevel reports what of the project itself has no counterpart.
func (c *converter) topLevel() {
	for _, name := range sortedKeys(c.p.DisabledServices) {
		s := c.p.DisabledServices[name]
		c.note(podimport.Dropped, "services."+name+".profiles", "left out: none of its profiles (%s) is on; import again with COMPOSE_PROFILES=%s to have it",
			strings.Join(s.Profiles, ", "), strings.Join(s.Profiles, ","))
	}
	for _, name := range sortedKeys(c.p.Models) {
		c.note(podimport.Dropped, "models."+name, "models are run by Docker itself; run a pod that serves the model")
	}
	for _, name := range sortedKeys(c.p.AllJobs()) {
		c.note(podimport.Dropped, "jobs."+name, "jobs are run by hand; run the image with rkt run, or make a pod of it with a timer")
	}
	for _, name := range sortedKeys(c.p.Extensions) {
		if name != "x-#extensions" && !strings.HasPrefix(name, "x-") {
			c.note(podimport.Dropped, name, "not known")
		}
	}
}

// hosts finds whose pod each service is in.
func (c *converter) hosts() {
	for _, name := range sortedKeys(c.p.Services) {
		at := name
		for range c.p.Services {
			s, ok := c.p.Services[at]
			next, shares := strings.CutPrefix(s.NetworkMode, types.ServicePrefix)
			if _, there := c.p.Services[next]; !ok || !shares || !there {
				break
			}
			at = next
		}
		c.host[name] = at
	}
}

// names chooses the pods' names: that of the container, else the project's and
// the service's; several replicas are numbered.
func (c *converter) names() error {
	taken := map[string]string{}
	for _, name := range sortedKeys(c.p.Services) {
		s := c.p.Services[name]
		for d, dep := range s.DependsOn {
			switch dep.Condition {
			case types.ServiceConditionHealthy:
				c.healthy[d] = true
			case types.ServiceConditionCompletedSuccessfully:
				c.done[d] = true
			}
		}
		if s.Provider != nil {
			c.note(podimport.Dropped, "services."+name+".provider", "the service is run by the program %q and is no container; it is left out", s.Provider.Type)
			c.host[name] = ""
			continue
		}
		if c.host[name] != name {
			continue
		}
		pod := c.p.Name + "-" + name
		switch {
		case s.ContainerName != "":
			pod = s.ContainerName
		case name == c.p.Name || strings.HasPrefix(name, c.p.Name+"-"):
			pod = name
		}
		pod = podimport.FileName(pod)
		n := s.GetScale()
		key := "services." + name + ".deploy.replicas"
		if s.Scale != nil {
			key = "services." + name + ".scale"
		}
		if n > maxReplicas {
			c.note(podimport.Changed, key, "%d replicas were asked for, %d are made", n, maxReplicas)
			n = maxReplicas
		}
		if n == 0 {
			c.note(podimport.Dropped, key, "no replica is wanted: the service is left out")
			continue
		}
		var all []string
		for i := range n {
			one := pod
			if n > 1 {
				one = podimport.FileName(pod + "-" + strconv.Itoa(i+1))
			}
			if err := podfile.CheckName(one); err != nil {
				return fmt.Errorf("service %q: %w; give it a container_name", name, err)
			}
			if other, ok := taken[one]; ok {
				return fmt.Errorf("services %q and %q would both be the pod %q; give one a container_name", other, name, one)
			}
			taken[one] = name
			all = append(all, one)
		}
		if n > 1 {
			c.note(podimport.Changed, key, "the replicas are the pods %s to %s; who asks for the name %q gets the first of them", all[0], all[n-1], name)
		}
		c.pods[name] = all
	}
	for name, host := range c.host {
		if host != name && host != "" {
			c.pods[name] = c.pods[host]
		}
	}
	return nil
}

func isAlnum(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// unit is a pod that is being made.
type unit struct {
	c        *converter
	name     string
	services []string // the first one's is the pod
	replica  int
	file     *podjson.Pod
	unit     map[string][]string // dependencies of the host's unit
	volumes  map[string]string   // what is behind the names of volumes
	ports    map[string]bool
	isolator []isolator
	private  *bool // private users
	secret   bool  // a secret is in the pod file
}

type isolator struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
}

func isolators(all []isolator) (json.RawMessage, error) {
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(all)
}

// pod makes a replica of the pod of a service, with the services that share its
// network.
func (c *converter) pod(name string, replica int) error {
	u := &unit{c: c, name: c.pods[name][replica], services: []string{name}, replica: replica, unit: map[string][]string{}, volumes: map[string]string{}, ports: map[string]bool{},
		file: &podjson.Pod{Systemd: &podjson.Systemd{}, Rkt: &podjson.Options{}}}
	for _, other := range sortedKeys(c.p.Services) {
		if other != name && c.host[other] == name {
			u.services = append(u.services, other)
		}
	}
	what := name
	if len(u.services) > 1 {
		what = strings.Join(u.services, ", ")
	}
	u.file.Systemd.Unit.Add("Description", escape("Pod "+u.name+": "+what+" of the compose project "+c.p.Name))
	for i, n := range u.services {
		s := &service{unit: u, c: c, name: n, first: i == 0}
		conf := c.p.Services[n]
		s.conf = &conf
		if err := s.convert(); err != nil {
			return fmt.Errorf("service %q: %w", n, err)
		}
		u.file.Apps = append(u.file.Apps, s.app)
	}
	return u.finish()
}

// finish writes what all apps of the pod have said.
func (u *unit) finish() error {
	sys := u.file.Systemd
	for _, key := range []string{"Requires", "Wants", "After", "PartOf"} {
		list := u.unit[key]
		slices.Sort(list)
		for _, other := range slices.Compact(list) {
			if other != "rkt@"+u.name+".service" {
				sys.Unit.Add(key, other)
			}
		}
	}
	u.file.Rkt.PrivateUsers = u.private
	var err error
	if u.file.Isolators, err = isolators(u.isolator); err != nil {
		return err
	}
	if _, _, err := u.file.Bytes(u.name); err != nil {
		return fmt.Errorf("pod %q: what it has become is no valid pod file: %w", u.name, err)
	}
	u.c.res.Pods = append(u.c.res.Pods, podimport.Pod{Name: u.name, File: u.file, From: u.c.in.main().Path, Private: u.secret})
	return nil
}

// depend adds a dependency of the host's unit.
func (u *unit) depend(key, other string) { u.unit[key] = append(u.unit[key], other) }

// volume adds a volume and returns its name; the same one for the same thing.
func (u *unit) volume(want string, v map[string]any, id string) string {
	want = podimport.ACName(want)
	for n := 1; ; n++ {
		name := want
		if n > 1 {
			name = want + "-" + strconv.Itoa(n)
		}
		switch u.volumes[name] {
		case id:
			return name
		case "":
			u.volumes[name] = id
			v["name"] = name
			u.file.Volumes = append(u.file.Volumes, v)
			return name
		}
	}
}

// hostUsers turns private users off, which some settings need.
func (u *unit) hostUsers() {
	no := false
	u.private = &no
}

// escape keeps systemd from reading specifiers.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// path is a file of the host for this project.
func (c *converter) path(parts ...string) string {
	return filepath.Join(append([]string{filesDir, c.p.Name}, parts...)...)
}

// trust reports once which registries need a word about trust.
func (c *converter) trust() {
	var all []string
	for _, name := range sortedKeys(c.p.Services) {
		s := c.p.Services[name]
		ref, ok := reference(s.Image)
		if len(c.pods[name]) == 0 || !ok || strings.Contains(ref, "@sha256:") {
			continue
		}
		host, _, _ := strings.Cut(strings.TrimPrefix(ref, "docker://"), "/")
		all = append(all, host)
	}
	slices.Sort(all)
	for _, host := range slices.Compact(all) {
		c.note(podimport.Todo, "services", "images of %s are named by tags, which nothing vouches for: pin them (IMAGE:TAG@sha256:…), trust who signs them (rkt trust), or accept them in /etc/rkt/registries.d; see docs/registries.md", host)
	}
}

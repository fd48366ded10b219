// Package podunit says which files systemd needs for a declared pod: a drop-in
// for its instance of rkt@.service, the links its "install" section asks for,
// and the sockets that start it, or, for a broken file, a unit that fails and tells why. It is pure:
// the generator writes the result, `rkt pod show` prints it.
//
// The generator and stage0 import it; it imports podfile and unitfile.
package podunit

import (
	"sort"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// Where the package manager put things.
const (
	DefaultUnitDir = "/usr/lib/systemd/system"
	DefaultRkt     = "/usr/bin/rkt"
	// DefaultOutputDir is what systemd gives to generators first.
	DefaultOutputDir = "/run/systemd/generator"
)

// DropIn is the name of the drop-in in rkt@NAME.service.d.
const DropIn = "50-rkt.conf"

const generator = "rkt-generator"

// Options of a conversion; a zero field means the default.
type Options struct {
	// UnitDir is where rkt@.service is.
	UnitDir string
	// Rkt is the rkt program, for units that run it.
	Rkt string
	// OutputDir is where systemd finds the generator's output.
	OutputDir string
}

func (o Options) rkt() string {
	if o.Rkt == "" {
		return DefaultRkt
	}
	return o.Rkt
}

// File is a file to write, its path relative to the output directory. A Secret
// one is for root alone, as is its directory; nobody may print it.
type File struct {
	Path   string
	Data   []byte
	Secret bool
}

// Link is a symbolic link to make, its path relative to the output directory.
type Link struct {
	Path   string
	Target string
}

// Output is what one pod adds to the output directory.
type Output struct {
	Files []File
	Links []Link
}

// Pod converts a pod. A template as such ("web@") yields nothing; see
// Instances.
func Pod(p *podfile.Pod, opts Options) (Output, error) {
	var out Output
	if strings.HasSuffix(p.Name, "@") {
		return out, nil
	}
	u := unitfile.New(generator + " from " + strings.Join(p.Files, ", "))
	if len(p.Files) > 0 {
		u.Set("Unit", "SourcePath", p.Files[0])
	}
	if sources := hostSources(p); len(sources) > 0 {
		u.Words("Unit", "RequiresMountsFor", sources...)
	}
	waiting, err := sockets(p, opts)
	if err != nil {
		return out, err
	}
	idle := false
	for i := range p.Ports {
		if p.Ports[i].IdleTime != "" {
			// A pod that was started by hand ends like one that a connection
			// started: with its proxies, after their idle time.
			u.Set("Unit", "Wants", podfile.ProxyUnit(p.Name, p.Ports[i].Name)+".service")
			idle = true
		}
	}
	if idle {
		u.Add("Unit", "StopWhenUnneeded", "yes")
	}
	logNamespace(u, p)
	addDirectives(u, "Unit", p.Unit)
	if len(p.Socket) > 0 {
		// a pod that is started by hand has its sockets, too
		u.Set("Service", "Sockets", p.SocketName())
	}
	addDirectives(u, "Service", profile(p))
	addDirectives(u, "Service", limits(p.Isolators))
	addDirectives(u, "Service", devices(p))
	secrets := credentials(u, p, opts)
	addDirectives(u, "Service", p.Service)
	data, err := u.Bytes()
	if err != nil {
		return out, err
	}
	starting, err := triggers(p)
	if err != nil {
		return out, err
	}
	out.Files = append(append([]File{{Path: p.UnitName() + ".d/" + DropIn, Data: data}}, waiting.Files...), starting.Files...)
	out.Files = append(out.Files, secrets...)
	out.Links = append(append(links(p, opts), waiting.Links...), starting.Links...)
	return out, nil
}

func addDirectives(u *unitfile.File, section string, ds []podfile.Directive) {
	for _, d := range ds {
		for _, v := range d.Values {
			u.Add(section, d.Key, v)
		}
	}
}

// hostSources lists the host directories the pod mounts, sorted: its start
// waits for their mounts.
func hostSources(p *podfile.Pod) []string {
	var out []string
	add := func(v *podfile.Volume) {
		// A source with control characters or backslashes is legal, and rare
		// enough to go without the dependency.
		if v.Kind == "host" && strings.IndexFunc(v.Source, isOdd) < 0 {
			out = append(out, v.Source)
		}
	}
	for i := range p.Volumes {
		add(&p.Volumes[i])
	}
	for i := range p.Apps {
		for j := range p.Apps[i].Mounts {
			if v := p.Apps[i].Mounts[j].AppVolume; v != nil {
				add(v)
			}
		}
	}
	sort.Strings(out)
	uniq := out[:0]
	for i, s := range out {
		if i == 0 || s != out[i-1] {
			uniq = append(uniq, s)
		}
	}
	return uniq
}

func isOdd(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' || r == '\uFFFD' }

// links carries out the [Install] directives, as `systemctl enable` would.
func links(p *podfile.Pod, opts Options) []Link {
	dir := opts.UnitDir
	if dir == "" {
		dir = DefaultUnitDir
	}
	target := dir + "/rkt@.service"
	var out []Link
	seen := map[string]bool{}
	add := func(path string) {
		if !seen[path] {
			seen[path] = true
			out = append(out, Link{path, target})
		}
	}
	suffixes := map[string]string{"WantedBy": ".wants", "RequiredBy": ".requires", "UpheldBy": ".upholds"}
	for _, d := range p.Install {
		for _, v := range d.Values {
			for _, w := range strings.Fields(v) {
				name := podfile.InstallName(p.Name, w)
				if !unitfile.IsUnitName(name) {
					continue // podfile said so
				}
				if s, ok := suffixes[d.Key]; ok {
					add(name + s + "/" + p.UnitName())
				} else if d.Key == "Alias" && name != p.UnitName() {
					add(name)
				}
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

// DefaultInstance returns the instance that a template is to be started as
// with its install section, or "".
func DefaultInstance(p *podfile.Pod) string {
	s := ""
	for _, d := range p.Install {
		if d.Key == "DefaultInstance" && len(d.Values) > 0 {
			s = d.Values[len(d.Values)-1]
		}
	}
	return s
}

// Broken makes the unit for a pod whose file has errors. It takes the place of
// the template's instance and fails with the reasons, so that whoever starts
// the pod, looks at its status or reads the journal finds them. p holds what
// could be read of the install section; see podfile.ParseInstall.
func Broken(p *podfile.Pod, problems []podfile.Problem, opts Options) (Output, error) {
	var out Output
	if strings.HasSuffix(p.Name, "@") {
		return out, nil
	}
	const maxLines = 20
	comment := []string{"The pod file has errors; correct it, then run systemctl daemon-reload."}
	first := ""
	for _, pr := range problems {
		if pr.Severity != podfile.Error {
			continue
		}
		if first == "" {
			first = pr.Error()
		}
		if len(comment) <= maxLines {
			comment = append(comment, pr.Error())
		}
	}
	u := unitfile.New(generator, comment...)
	if len(p.Files) > 0 {
		u.Set("Unit", "SourcePath", p.Files[0])
	} else if len(problems) > 0 && strings.HasPrefix(problems[0].File, "/") {
		u.Set("Unit", "SourcePath", problems[0].File) // it could not be read
	}
	u.Set("Unit", "Description", oneLine("Pod "+p.Name+" (cannot start: "+first+")"))
	u.Add("Unit", "Documentation", "man:rkt.pod(5)")
	u.Add("Service", "Type", "oneshot")
	u.Command("Service", "ExecStart", opts.rkt(), "pod", "check", "--fail", p.Name)
	u.Add("Service", "SyslogIdentifier", "rkt")
	u.Set("Service", "LogExtraFields", "RKT_POD_NAME="+p.Name)
	data, err := u.Bytes()
	if err != nil {
		return out, err
	}
	unit := p.UnitName()
	out.Files = []File{{Path: unit, Data: data}}
	out.Links = links(p, opts)
	for i := range out.Links {
		// The link leads to the unit that is meant, not to the template.
		out.Links[i].Target = strings.Repeat("../", strings.Count(out.Links[i].Path, "/")) + unit
	}
	return out, nil
}

// oneLine makes text fit for a Description=: systemd shows it in status and in
// every line about the unit.
func oneLine(s string) string {
	const limit = 300
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…)"
	}
	return strings.TrimRight(strings.TrimSpace(s), `\`)
}

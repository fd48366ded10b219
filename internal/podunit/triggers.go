package podunit

import "github.com/rkt-systemd/rkt/internal/podfile"

// triggers makes the units of the sections timer and path, which start the pod.
func triggers(p *podfile.Pod) (Output, error) {
	var out Output
	for _, t := range []struct {
		section, name, description, target string
		directives                         []podfile.Directive
	}{
		{"Timer", p.TimerName(), "Timer of Pod " + p.Name, "timers.target", p.Timer},
		{"Path", p.PathName(), "Paths of Pod " + p.Name, "paths.target", p.Path},
	} {
		if len(t.directives) == 0 {
			continue
		}
		u := begin(p, t.description)
		u.Set(t.section, "Unit", p.UnitName())
		addDirectives(u, t.section, t.directives)
		data, err := u.Bytes()
		if err != nil {
			return out, err
		}
		out.Files = append(out.Files, File{Path: t.name, Data: data})
		out.Links = append(out.Links, Link{t.target + ".wants/" + t.name, "../" + t.name})
	}
	return out, nil
}

// Package units holds what others need to know of the unit files in this
// folder: a pod that is started without a pod file gets the settings of
// rkt@.service from here, so that there is one contract between rkt and systemd.
package units

import (
	_ "embed"
	"strings"
)

//go:embed rkt@.service.in
var pod string

// Setting is a line of a unit file.
type Setting struct{ Section, Key, Value string }

// Pod returns the settings of rkt@.service that do not name a pod or a program.
func Pod() []Setting {
	var out []Setting
	section := ""
	for line := range strings.Lines(pod) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]")
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok || line[0] == '#' || section == "Install" || strings.ContainsAny(v, "%@") || k == "Documentation" {
			continue
		}
		out = append(out, Setting{section, k, v})
	}
	return out
}

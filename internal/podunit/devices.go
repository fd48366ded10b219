package podunit

import (
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

// devices let the unit open the device nodes that volumes show to apps: rkt@'s
// own rules have only those that every app gets. Whether a source below /dev is
// a node is seen when the unit starts; systemd leaves out what is none.
func devices(p *podfile.Pod) []podfile.Directive {
	var values []string
	add := func(v *podfile.Volume) {
		if v.Kind != "host" || !strings.HasPrefix(v.Source, "/dev/") || strings.IndexFunc(v.Source, isOdd) >= 0 || strings.ContainsAny(v.Source, " \t\"'") {
			return
		}
		access := " rw"
		if v.ReadOnly != nil && *v.ReadOnly {
			access = " r"
		}
		values = append(values, strings.ReplaceAll(v.Source, "%", "%%")+access)
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
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	return []podfile.Directive{{Key: "DeviceAllow", Values: slices.Compact(values)}}
}

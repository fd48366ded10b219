package podfile

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/timespan"
)

// Directives of [Timer] and [Path] known to systemd 252 and those added up to 258.
const (
	knownTimer = " AccuracySec DeferReactivation FixedRandomDelay OnActiveSec OnBootSec OnCalendar OnClockChange OnStartupSec OnTimezoneChange " +
		"OnUnitActiveSec OnUnitInactiveSec Persistent RandomizedDelaySec RandomizedOffsetSec RemainAfterElapse Unit WakeSystem "
	knownPath = " DirectoryMode DirectoryNotEmpty MakeDirectory PathChanged PathExists PathExistsGlob PathModified TriggerLimitBurst TriggerLimitIntervalSec Unit "

	// elapses and watches are those without which systemd refuses the unit.
	elapses = " OnActiveSec OnBootSec OnCalendar OnClockChange OnStartupSec OnTimezoneChange OnUnitActiveSec OnUnitInactiveSec "
	watches = " DirectoryNotEmpty PathChanged PathExists PathExistsGlob PathModified "
)

// trigger reads the section of a unit that starts the pod. needed are the
// directives of which it must have one.
func (p *parser) trigger(v *jsonpos.Value, path, section, needed, why string) []Directive {
	ds := p.directives(v, path, section)
	have := 0
	for _, d := range ds {
		if !strings.Contains(needed, " "+d.Key+" ") {
			continue
		}
		for _, s := range d.Values {
			switch {
			case s == "":
				have = 0
			case s != "no":
				have++
			}
		}
	}
	if have == 0 && v.Kind == jsonpos.Object && !Failed(p.problems) {
		p.errorf(v, path, "has none of", strings.TrimRight(needed, " "), ": ", why)
	}
	return ds
}

// triggerValue checks what would make a unit that never starts anything, for
// systemd only logs it. Calendars are systemd's to judge.
func (p *parser) triggerValue(section, key string, v *jsonpos.Value, path, s string) bool {
	switch {
	case s == "" || strings.Contains(s, "%"):
	case section == "path" && strings.Contains(watches, " "+key+" ") && !strings.HasPrefix(s, "/"):
		p.errorf(v, path, quote(s), " is no absolute path")
		return false
	case section == "timer" && strings.HasSuffix(key, "Sec") && s != "infinity":
		if _, ok := timespan.Parse(s); !ok {
			p.errorf(v, path, quote(s), " is no time span like \"5min\" or \"1h 30min\" (see systemd.time(7))")
			return false
		}
	}
	return true
}

// TimerName and PathName are the names of the units that start the pod.
func (p *Pod) TimerName() string { return "rkt@" + p.Name + ".timer" }

// PathName is the name of the pod's path unit.
func (p *Pod) PathName() string { return "rkt@" + p.Name + ".path" }

package quadlet

import (
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/timespan"
	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// dependencies are directives whose values are names of units.
const dependencies = " After Before BindsTo Conflicts OnFailure OnSuccess PartOf PropagatesReloadTo PropagatesStopTo ReloadPropagatedFrom Requires Requisite " +
	"StopPropagatedFrom Upholds Wants JoinsNamespaceOf "

// systemSection handles what is not Quadlet's own: [Unit], [Service], [Install].
// It reports whether the entry was of one of them. app is set for a container
// of a pod with others.
func (c *converter) systemSection(t *target, u *unit, app *podjson.App, e entry) bool {
	switch e.section {
	case "Unit":
		c.unitDirective(t, u, app, e)
	case "Service":
		c.serviceDirective(t, u, app, e)
	case "Install":
		c.installDirective(t, u, app, e)
	case "Quadlet":
		if e.key != "DefaultDependencies" {
			c.note(podimport.Dropped, e, "not known")
			break
		}
		c.note(podimport.Changed, e, "pods are not ordered after network-online.target by themselves; see [Unit] for an order of your own")
	default:
		if !strings.HasPrefix(e.section, "X-") { // systemd passes over those
			c.note(podimport.Dropped, e, "no such section is known")
		}
	}
	return true
}

func (c *converter) unitDirective(t *target, u *unit, app *podjson.App, e entry) {
	if !strings.Contains(dependencies, " "+e.key+" ") {
		switch {
		case app != nil && e.key == "Description":
			c.note(podimport.Dropped, e, "apps of a pod have no description; the pod has that of %s", t.unit.file)
		case app != nil && appunit.Check("unit", e.key, e.value) == "":
			podimport.Systemd(&app.Systemd).Unit.Add(e.key, c.text(u, e))
		case app != nil && e.key != "RequiresMountsFor" && e.key != "Documentation" && !strings.HasPrefix(e.key, "X-"):
			c.note(podimport.Changed, e, "it holds for the whole pod")
			fallthrough
		default:
			c.direct(&t.pod.Systemd.Unit, "unit", u, e)
		}
		return
	}
	words, err := e.words()
	if err != nil {
		c.note(podimport.Dropped, e, "it cannot be read: %v", err)
		return
	}
	var outer, inner []string
	for _, w := range words {
		w = u.expandUnit(w)
		name, ours := c.unitName(w)
		other := c.appOf(t, w)
		switch {
		case ours && name == "":
			// a volume or a network, which need no unit
		case app != nil && other != "" && other != app.Name && strings.Contains(" After Before Requires Wants BindsTo PartOf ", " "+e.key+" "):
			inner = append(inner, other)
		case ours && name == podfile.UnitName(t.name):
			// of a container on its own pod
		case strings.HasPrefix(w, "podman") && strings.HasSuffix(w, ".service") || w == "podman.socket":
			c.note(podimport.Dropped, e, "%s: rkt has no daemon", w)
		default:
			if !ours && Is(w) && !strings.HasSuffix(w, ".timer") && !strings.HasSuffix(w, ".path") {
				c.note(podimport.Todo, e, "%s is not among the files; import them together, or write the name of its unit", w)
				continue
			}
			outer = append(outer, name)
		}
	}
	if len(inner) > 0 {
		for _, i := range inner {
			podimport.Systemd(&app.Systemd).Unit.Add(e.key, i)
		}
	}
	if len(outer) == 0 {
		return
	}
	e.value = strings.Join(outer, " ")
	if reason := podfile.Refused("unit", e.key); reason != "" {
		c.note(podimport.Dropped, e, "%s", reason)
		return
	}
	if !slices.Contains(t.pod.Systemd.Unit, podjson.Value{Key: e.key, Value: e.value}) {
		t.pod.Systemd.Unit.Add(e.key, e.value)
	}
}

// appOf is the app of a pod whose service has a name.
func (c *converter) appOf(t *target, service string) string {
	for _, u := range c.units {
		if u.kind == "container" && u.get("Container", "Pod") == t.unit.file && (u.service() == service || u.file == service) {
			return podimport.ACName(u.stem)
		}
	}
	return ""
}

// direct hands a directive on as it is, if a pod can have it.
func (c *converter) direct(to *podjson.Values, section string, u *unit, e entry) {
	if reason := podfile.Refused(section, e.key); reason != "" {
		c.note(podimport.Dropped, e, "%s", reason)
		return
	}
	v := podjson.Value{Key: e.key, Value: u.expandUnit(e.value)}
	switch {
	case section == "service" && !strings.Contains(lists, " "+e.key+" "):
		to.Set(v.Key, v.Value)
	case !slices.Contains(*to, v):
		*to = append(*to, v)
	}
}

// lists are directives of [Service] of which each line adds something.
const lists = " StateDirectory RuntimeDirectory CacheDirectory LogsDirectory ConfigurationDirectory DeviceAllow IPAddressAllow IPAddressDeny SuccessExitStatus " +
	"RestartForceExitStatus RestartPreventExitStatus LogExtraFields IODeviceWeight IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax " +
	"IODeviceLatencyTargetSec LoadCredential LoadCredentialEncrypted SocketBindAllow SocketBindDeny RestrictNetworkInterfaces "

func (c *converter) serviceDirective(t *target, u *unit, app *podjson.App, e entry) {
	switch e.key {
	case "Type":
		switch e.value {
		case "oneshot":
			c.note(podimport.Changed, e, "the unit is active as soon as the app runs, and ends with its status; what waits for the end needs OnSuccess= or a timer")
		case "notify":
		default:
			c.note(podimport.Changed, e, "the unit is ready when the apps have started, or say so")
		}
		return
	case "RemainAfterExit":
		c.note(podimport.Dropped, e, "the unit ends when all apps have ended")
		return
	case "Environment", "EnvironmentFile", "PassEnvironment", "UnsetEnvironment":
		if e.key == "Environment" && strings.Contains(u.get("Container", "Exec")+u.get("Container", "Image"), "$") {
			c.note(podimport.Changed, e, "it is not in the app's environment either way; its variables are replaced in the unit's values")
			return
		}
		c.note(podimport.Dropped, e, "it is the environment of podman, not of the app; see Environment= in [Container]")
		return
	case "WatchdogSec", "ReloadSignal":
		if app == nil && len(t.apps) == 1 && !t.group {
			app = &t.apps[0].app
		}
		if app != nil {
			podimport.Systemd(&app.Systemd).Service.Add(e.key, u.expandUnit(e.value))
			return
		}
	case "TimeoutStopSec":
		if app != nil {
			stopSec(t, app, u.expandUnit(e.value))
			return
		}
	case "Sockets":
		c.note(podimport.Todo, e, "a pod file has its sockets itself: \"systemd\": {\"socket\": {\"ListenStream\": …}}, and \"socketActivated\" for the app's port")
		return
	case "SyslogIdentifier", "StandardOutput", "StandardError":
		c.note(podimport.Dropped, e, "apps' lines go to the journal under their own names")
		return
	}
	if app == nil {
		c.direct(&t.pod.Systemd.Service, "service", u, e)
		return
	}
	if appunit.Check("service", e.key, e.value) == "" {
		podimport.Systemd(&app.Systemd).Service.Add(e.key, u.expandUnit(e.value))
		return
	}
	if reason := podfile.Refused("service", e.key); reason != "" {
		c.note(podimport.Dropped, e, "%s", reason)
		return
	}
	c.note(podimport.Dropped, e, "an app of a pod with others cannot have it: %s", appunit.Check("service", e.key, e.value))
}

// stopSec is what [Service] of an app of a pod with others says of its stop. Of
// that and StopTimeout= the shorter counts, as with podman.
func stopSec(t *target, app *podjson.App, value string) {
	service := &podimport.Systemd(&app.Systemd).Service
	d, ok := timespan.Parse(value)
	limited := ok && d > 0
	for _, v := range *service {
		if have, ok := timespan.Parse(v.Value); v.Key == "TimeoutStopSec" && ok && (!limited || have <= d) {
			return
		}
	}
	service.Set("TimeoutStopSec", value)
	switch {
	case limited:
		podimport.Outlast(&t.pod.Systemd.Service, d)
	case ok || value == "infinity":
		t.pod.Systemd.Service.Set("TimeoutStopSec", "infinity")
	}
}

func (c *converter) installDirective(t *target, u *unit, app *podjson.App, e entry) {
	switch e.key {
	case "WantedBy", "RequiredBy", "UpheldBy":
		words, err := e.words()
		if err != nil {
			c.note(podimport.Dropped, e, "it cannot be read: %v", err)
			return
		}
		var names []string
		for _, w := range words {
			name, ours := c.unitName(u.expandUnit(w))
			if ours && (name == "" || name == podfile.UnitName(t.name)) {
				continue // of a container to its own pod
			}
			names = append(names, name)
		}
		if len(names) == 0 {
			return
		}
		if app != nil && !hasInstall(t.unit) && len(t.pod.Systemd.Install) == 0 {
			c.note(podimport.Changed, e, "an app starts with its pod: the pod is started instead")
		}
		for _, name := range names {
			if v := (podjson.Value{Key: e.key, Value: name}); !slices.Contains(t.pod.Systemd.Install, v) {
				t.pod.Systemd.Install = append(t.pod.Systemd.Install, v)
			}
		}
	case "DefaultInstance":
		if u.template() && app == nil {
			t.pod.Systemd.Install.Set(e.key, u.expandUnit(e.value))
			return
		}
		c.note(podimport.Dropped, e, "only templates have it")
	case "Alias":
		c.note(podimport.Dropped, e, "systemd allows an instance of rkt@.service no other names; units that use it have to name rkt@%s.service", t.name)
	default:
		c.note(podimport.Dropped, e, "it has no effect on units that a generator makes")
	}
}

func hasInstall(u *unit) bool {
	return slices.ContainsFunc(u.entries, func(e entry) bool { return e.section == "Install" })
}

// trigger carries over a timer or path unit that starts a pod.
func (c *converter) trigger(u *unit) {
	section := strings.ToUpper(u.kind[:1]) + u.kind[1:]
	service := u.stem + ".service"
	if s := u.get(section, "Unit"); s != "" {
		service = u.expandUnit(s)
	}
	name, ours := c.unitName(service)
	pod := strings.TrimSuffix(strings.TrimPrefix(name, "rkt@"), ".service")
	t := c.pods[pod]
	if !ours || t == nil {
		c.r.Note(podimport.Todo, u.path, 0, u.file, "it starts %s, which is not among the files: keep it as a unit", service)
		return
	}
	for _, e := range u.entries {
		switch {
		case e.section == section && e.key == "Unit" || e.section == "Install": // both go without saying
		case e.section == section && u.kind == "timer":
			t.pod.Systemd.Timer.Add(e.key, u.expandUnit(e.value))
		case e.section == section:
			t.pod.Systemd.Path.Add(e.key, u.expandUnit(e.value))
		case e.section == "Unit" && e.key == "Description":
		default:
			c.note(podimport.Dropped, e, "write a drop-in for rkt@%s.%s", pod, u.kind)
		}
	}
	if hasInstall(t.unit) {
		c.r.Note(podimport.Changed, u.path, 0, "Install", "the pod is started at boot, too, because %s has [Install]", t.unit.file)
	}
}

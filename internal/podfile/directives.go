package podfile

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

func unescape(s string) string {
	if u, err := unitfile.Unescape(s); err == nil {
		return u
	}
	return s
}

// systemd reads the directives for the host's units.
func (p *parser) systemd(v *jsonpos.Value) {
	if !p.object(v, "systemd") {
		return
	}
	for _, m := range v.Members {
		at := join("systemd", m.Key)
		switch m.Key {
		case "unit":
			p.pod.Unit = p.directives(m.Value, at, m.Key)
		case "service":
			p.pod.Service = p.directives(m.Value, at, m.Key)
		case "install":
			p.pod.Install = p.directives(m.Value, at, m.Key)
		case "socket":
			p.socket(m.Value, at)
		case "timer":
			p.pod.Timer = p.trigger(m.Value, at, m.Key, elapses, "the timer would never elapse")
		case "path":
			p.pod.Path = p.trigger(m.Value, at, m.Key, watches, "there is nothing to watch")
		default:
			p.unknown(m, "systemd", systemdKeys)
		}
	}
}

func (p *parser) directives(v *jsonpos.Value, path, section string) []Directive {
	if !p.object(v, path) {
		return nil
	}
	var out []Directive
	for _, m := range v.Members {
		at := join(path, m.Key)
		if err := unitfile.CheckKey(m.Key); err != nil {
			p.report(Error, m.Pos, at, err.Error(), "")
			continue
		}
		if reason := refused(section, m.Key); reason != "" {
			p.report(Error, m.Pos, at, m.Key+"= cannot be set: "+reason, "")
			continue
		}
		// The long search is only for those of which something can be said yet.
		if known := known(section); !strings.HasPrefix(m.Key, "X-") && !p.full() && !strings.Contains(known, " "+m.Key+" ") {
			var names []string
			if !p.tired() {
				names = strings.Fields(known)
			}
			p.reportNear(Warning, m.Pos, at, "systemd may not know the directive "+m.Key+"=", m.Key, names)
		}
		if section == "service" && (m.Key == "Environment" || m.Key == "EnvironmentFile" || m.Key == "PassEnvironment") {
			p.warnf(m.Pos, at, "sets the environment of rkt itself, not of the apps; see apps[].environment")
		}
		d := Directive{Key: m.Key, Pos: m.Pos}
		if m.Value.Kind == jsonpos.Array {
			for i, it := range m.Value.Items {
				p.directiveValue(&d, section, it, index(at, i))
			}
		} else {
			p.directiveValue(&d, section, m.Value, at)
		}
		out = append(out, d)
	}
	return out
}

func (p *parser) directiveValue(d *Directive, section string, v *jsonpos.Value, path string) {
	s, ok := p.systemdValue(v, path)
	if !ok {
		return
	}
	if err := unitfile.CheckValue(s); err != nil {
		p.errorf(v, path, err.Error())
		return
	}
	if section == "service" && s == "" && strings.Contains(ownLists, " "+d.Key+" ") {
		p.errorf(v, path, "an empty value would drop rkt's own ", d.Key, "= lines")
		return
	}
	if section == "install" && !p.installValue(d.Key, v, path, s) || section == "socket" && !p.socketValue(d.Key, v, path, s) ||
		!p.triggerValue(section, d.Key, v, path, s) {
		return
	}
	d.Values = append(d.Values, s)
}

// systemdValue is a value as a unit file has it.
func (p *parser) systemdValue(v *jsonpos.Value, path string) (string, bool) {
	switch v.Kind {
	case jsonpos.String:
		return strings.Trim(v.Text, " \t"), true
	case jsonpos.Number:
		return v.Text, true
	case jsonpos.Bool:
		if v.Bool {
			return "yes", true
		}
		return "no", true
	}
	p.wrongType(v, path, "a string, number, boolean or a list of them")
	return "", false
}

// ownLists are the lists that rkt@.service fills; a pod file may add to them.
const ownLists = " DeviceAllow LogExtraFields RestartForceExitStatus SuccessExitStatus "

// installValue checks a value of [Install], which the generator carries out.
func (p *parser) installValue(key string, v *jsonpos.Value, path, s string) bool {
	switch key {
	case "WantedBy", "RequiredBy", "UpheldBy":
		for _, w := range strings.Fields(s) {
			if !unitfile.IsUnitName(InstallName(p.pod.Name, w)) {
				p.errorf(v, path, quote(w), " is no unit name")
				return false
			}
		}
	case "Alias":
		for _, w := range strings.Fields(s) {
			name := InstallName(p.pod.Name, w)
			if !unitfile.IsUnitName(name) || !strings.HasSuffix(name, "@"+p.pod.Name+".service") {
				p.errorf(v, path, quote(w), ": systemd allows a template's instance only aliases like OTHER@", p.pod.Name, ".service")
				return false
			}
		}
	case "Also":
		p.warnf(v.Pos, path, "Also= has no effect on generated units")
		return false
	case "DefaultInstance":
		if p.pod.Prefix == p.pod.Name {
			p.errorf(v, path, "DefaultInstance= needs a template, ", quote(p.pod.Name+"@.json"))
			return false
		}
		if s == "" || CheckName(p.pod.Prefix+"@"+s) != nil {
			p.errorf(v, path, quote(s), " is no instance name")
			return false
		}
	}
	return true
}

// InstallName resolves the specifiers of a unit name in [Install] for the pod
// called name; others than those stay and make the name invalid.
func InstallName(name, s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	return strings.NewReplacer("%%", "%", "%i", name, "%n", UnitName(name), "%N", "rkt@"+name, "%p", "rkt").Replace(s)
}

// known are the names of a section that systemd is known to have, between spaces.
func known(section string) string {
	switch section {
	case "unit":
		return knownUnit
	case "service":
		return knownService
	case "install":
		return knownInstall
	case "socket":
		return knownSocket
	case "timer":
		return knownTimer
	case "path":
		return knownPath
	}
	return ""
}

// Directives are the names of a section that systemd is known to have.
func Directives(section string) []string { return strings.Fields(known(section)) }

// Refused returns the reason why a pod file cannot set a directive, or "".
func Refused(section, key string) string { return refused(section, key) }

// refused returns the reason why a pod file cannot set a directive.
func refused(section, key string) string {
	switch section {
	case "unit":
		switch key {
		case "SourcePath":
			return "the generator sets it to the pod file"
		case "JoinsNamespaceOf":
			return "the pod makes its own namespaces"
		}
	case "service":
		return refusedService(key)
	case "socket":
		return refusedSocket(key)
	case "timer", "path":
		if key == "Unit" {
			return "it starts this pod and nothing else"
		}
	}
	return ""
}

func refusedService(key string) string {
	switch key {
	case "ExecStart":
		return "it is rkt's own; what the apps run is apps[].exec"
	case "ExecStartPre", "ExecStartPost":
		return "the unit runs nothing but the pod; use a unit of your own with Requires= and After="
	case "ExecReload":
		return "a reload is passed on to the apps; see apps[].systemd.service"
	case "WatchdogSec", "WatchdogSignal":
		return "the pod's main process sends no keep-alives, its apps may; see apps[].systemd.service"
	case "ExecStop", "KillSignal", "RestartKillSignal", "SendSIGHUP", "SendSIGKILL", "FinalKillSignal":
		return "a pod is shut down by SIGTERM to its main process"
	case "ExecStopPost":
		return "it is rkt's own, which records the pod's end"
	case "KillMode":
		return "mixed is what lets the pod shut its apps down in order"
	case "Type", "NotifyAccess", "PIDFile", "BusName", "GuessMainPID", "RemainAfterExit", "ExitType":
		return "systemd learns from the pod itself when it is ready and when it ended"
	case "Delegate", "DelegateSubgroup", "DisableControllers":
		return "the pod manages its own control group"
	case "User", "Group", "DynamicUser", "SupplementaryGroups", "PAMName", "SetLoginEnvironment":
		return "rkt needs root; who an app runs as is apps[].user"
	case "RootDirectory", "RootDirectoryStartOnly", "RootImage", "RootImageOptions", "RootHash", "RootHashSignature",
		"RootVerity", "RootEphemeral", "RootMStack", "MountAPIVFS", "MountImages", "ExtensionImages", "ExtensionDirectories":
		return "the pod's file systems come from its images; see apps[].mounts"
	case "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "MountFlags", "PrivateMounts", "PrivateTmp",
		"InaccessiblePaths", "InaccessibleDirectories", "ReadOnlyPaths", "ReadOnlyDirectories", "ReadWritePaths",
		"ReadWriteDirectories", "ExecPaths", "NoExecPaths", "ProtectSystem", "ProtectHome", "ProtectKernelTunables",
		"ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset", "PrivateDevices":
		return "it changes the file systems that rkt itself sees; see apps[].mounts and volumes"
	case "PrivateUsers", "PrivateNetwork", "NetworkNamespacePath", "PrivateIPC", "IPCNamespacePath", "PrivatePIDs",
		"RestrictNamespaces", "ProtectHostname":
		return "the pod makes its own namespaces; see rkt.net and rkt.hostname"
	case "CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "SecureBits", "SystemCallFilter",
		"SystemCallArchitectures", "SystemCallErrorNumber", "RestrictAddressFamilies", "RestrictRealtime",
		"RestrictSUIDSGID", "RestrictFileSystems", "MemoryDenyWriteExecute", "LockPersonality", "Personality",
		"ProtectClock", "KeyringMode":
		return "it would confine rkt rather than the apps; use apps[].isolators"
	case "LogNamespace":
		return "see rkt.logNamespace"
	case "StandardInput", "StandardInputText", "StandardInputData", "TTYPath":
		return "a declared pod has no input"
	}
	return ""
}

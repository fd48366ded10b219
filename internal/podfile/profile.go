package podfile

import (
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// Profiles of isolation, in the manner of portablectl's.
const (
	ProfileDefault   = "default"
	ProfileStrict    = "strict"
	ProfileTrusted   = "trusted"
	ProfileNoNetwork = "nonetwork"

	profiles = " default strict trusted nonetwork "
)

// profileIsolators are what a profile gives to every app, unless the file gives
// the app an isolator of the same kind.
func profileIsolators(profile string) string {
	switch profile {
	case ProfileStrict:
		return `[{"name":"os/linux/no-new-privileges","value":true},` +
			`{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_NET_BIND_SERVICE"]}},` +
			`{"name":"os/linux/seccomp-retain-set","value":{"set":["@rkt/default-whitelist"],"errno":"EPERM"}}]`
	case ProfileTrusted:
		caps := `"CAP_` + strings.Join(strings.Fields("AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE "+
			"DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST "+
			"NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE SYS_PACCT SYS_PTRACE SYS_RESOURCE "+
			"SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"), `","CAP_`) + `"`
		return `[{"name":"os/linux/capabilities-retain-set","value":{"set":[` + caps + `]}},` +
			`{"name":"os/linux/seccomp-retain-set","value":{"set":["@appc.io/all"]}}]`
	}
	return ""
}

// applyProfile gives the pod what its profile says and its file does not.
func (p *parser) applyProfile(root *jsonpos.Value) {
	pod := p.pod
	profile := pod.Rkt.Profile
	if profile == "" || profile == ProfileDefault {
		return
	}
	options := root.Member("rkt")
	forwards := false
	for i := range pod.Ports {
		forwards = forwards || !pod.Ports[i].Activate
	}
	switch profile {
	case ProfileTrusted:
		if pod.Rkt.PrivateUsers == nil {
			pod.Rkt.PrivateUsers = new(bool)
		}
	case ProfileStrict:
		// a port that is forwarded needs a network
		if len(pod.Rkt.Net) == 0 && forwards {
			pod.Rkt.Net = []string{"default-restricted"}
		}
		fallthrough
	case ProfileNoNetwork:
		if len(pod.Rkt.Net) == 0 {
			pod.Rkt.Net = []string{"none"}
			if forwards {
				p.errorf(options, "rkt.profile", "nonetwork has no network that ports could be forwarded to; give \"net\", or ports \"activate\"")
			}
		} else if profile == ProfileNoNetwork && (len(pod.Rkt.Net) != 1 || pod.Rkt.Net[0] != "none") {
			p.warnf(options.Pos, "rkt.profile", "is nonetwork, but \"net\" gives a network, and counts")
		}
	}
	defaults, _ := jsonpos.Decode("", []byte(profileIsolators(profile)))
	apps := root.Member("apps") // not for each app: the file may have many keys
	for i := range pod.Apps {
		app := &pod.Apps[i]
		if profile == ProfileStrict && apps.Items[i].Member("readOnlyRootFS") == nil {
			app.ReadOnlyRootFS = true
		}
		if defaults != nil {
			app.Override.Isolators = under(app.Override.Isolators, defaults)
		}
	}
}

// under adds the isolators whose kind the list lacks.
func under(list Raw, defaults *jsonpos.Value) Raw {
	have := &jsonpos.Value{Kind: jsonpos.Array}
	if v, _ := jsonpos.Decode("", list); v != nil {
		have = v
	}
	kinds := map[string]bool{}
	for _, i := range have.Items {
		kinds[isolatorKind(textOf(i.Member("name")))] = true
	}
	for _, d := range defaults.Items {
		if !kinds[isolatorKind(textOf(d.Member("name")))] {
			have.Items = append(have.Items, d)
		}
	}
	return have.AppendJSON(nil)
}

// isolatorKind groups the isolators that take each other's place, as stage0 does.
func isolatorKind(name string) string {
	for _, k := range []string{"os/linux/capabilities", "os/linux/seccomp"} {
		if strings.HasPrefix(name, k) {
			return k
		}
	}
	return name
}

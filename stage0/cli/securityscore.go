package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/abi"
)

// finding is one line of the score of an app, as systemd-analyze security has
// them: how bad it is from 0 to 10, and how much that counts.
type finding struct {
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Good        bool    `json:"good"`
	Weight      int     `json:"weight"`
	Badness     int     `json:"badness"`
	Exposure    float64 `json:"exposure"`
}

// scoreJSON is the score of a unit or an app.
type scoreJSON struct {
	Name     string    `json:"name"`
	Exposure float64   `json:"exposure"`
	Rating   string    `json:"rating"`
	Findings []finding `json:"findings"`
	Missing  string    `json:"missing,omitempty"`
}

// podTraits are what all apps of a pod share.
type podTraits struct {
	privateUsers bool
	network      string // "host", "none", or names
	hostIPC      bool
}

// capabilityGroups are judged together, with systemd's own weights.
func capabilityGroups() []struct {
	weight int
	caps   string
	what   string
} {
	return []struct {
		weight int
		caps   string
		what   string
	}{
		{1500, "SYS_ADMIN", "administer the system"},
		{1500, "SETUID SETGID SETPCAP", "become other users"},
		{1500, "SYS_PTRACE", "look into other processes"},
		{1000, "SYS_TIME", "change the clock"},
		{1000, "NET_ADMIN", "configure networks"},
		{1000, "SYS_RAWIO", "use raw input and output"},
		{1000, "SYS_MODULE", "load kernel modules"},
		{1000, "BPF PERFMON", "load programs into the kernel"},
		{1000, "CHOWN FSETID SETFCAP", "change owners and modes of files"},
		{1000, "DAC_OVERRIDE DAC_READ_SEARCH FOWNER IPC_OWNER", "override permissions of files"},
		{500, "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE", "use the audit subsystem"},
		{500, "KILL", "send signals to any process of the pod"},
		{500, "NET_BIND_SERVICE NET_BROADCAST NET_RAW", "use low ports and raw packets"},
		{500, "SYSLOG", "read the kernel's log"},
		{500, "SYS_NICE SYS_RESOURCE", "override limits and priorities"},
		{500, "MKNOD", "make device nodes"},
		{500, "MAC_ADMIN MAC_OVERRIDE", "change mandatory access control"},
		{100, "SYS_BOOT", "reboot"},
		{75, "LINUX_IMMUTABLE", "mark files immutable"},
		{50, "IPC_LOCK CHECKPOINT_RESTORE", "lock memory"},
		{50, "SYS_CHROOT", "change its root"},
		{25, "LEASE BLOCK_SUSPEND WAKE_ALARM SYS_PACCT SYS_TTY_CONFIG", "use leases, wake-ups, accounting, terminals"},
	}
}

// scoreApp judges how an app would be confined. docs/profiles.md has the weights.
func scoreApp(s *abi.PlanSpec, pod podTraits) scoreJSON {
	out := scoreJSON{Name: s.Name}
	add := func(name string, weight, badness int, text string) {
		out.Findings = append(out.Findings, finding{Name: name, Description: text, Good: badness == 0, Weight: weight, Badness: badness})
	}
	when := func(bad bool, badness int) int {
		if bad {
			return badness
		}
		return 0
	}
	switch {
	case s.UID != 0:
		add("user", 2000, 0, fmt.Sprintf("runs as user %d", s.UID))
	case pod.privateUsers:
		add("user", 2000, 4, "runs as the pod's root, who is nobody on the host")
	default:
		add("user", 2000, 10, "runs as root")
	}
	if pod.privateUsers {
		add("privateUsers", 1500, 0, "the pod has user ids of its own")
	} else {
		add("privateUsers", 1500, 10, "ids of the pod are those of the host")
	}
	switch pod.network {
	case "none":
		add("net", 2500, 0, "has no network")
	case "host":
		add("net", 2500, 10, "has the host's network")
	default:
		add("net", 2500, 5, "has networks: "+pod.network)
	}
	add("ipc", 800, when(pod.hostIPC, 10), map[bool]string{true: "shares IPC with the host", false: "has IPC of its own"}[pod.hostIPC])
	add("readOnlyRootFS", 500, when(!s.ReadOnlyRoot, 10), map[bool]string{true: "its root can only be read", false: "can change its root"}[s.ReadOnlyRoot])
	add("no-new-privileges", 1000, when(!s.NoNewPrivileges, 10), map[bool]string{true: "cannot gain privileges", false: "can gain privileges by programs that have them"}[s.NoNewPrivileges])
	switch s.Filter {
	case "none":
		add("seccomp", 2000, 10, "no system calls are filtered but those of the pod")
	case "default":
		add("seccomp", 2000, 2, "rkt's list of system calls")
	default:
		add("seccomp", 2000, 2, "a list of system calls of its own")
	}
	add("paths", 1000, when(!s.MaskedPaths, 10), map[bool]string{true: "interfaces of the kernel are hidden or read-only", false: "can write to interfaces of the kernel"}[s.MaskedPaths])
	mac := s.SELinux != "" || s.AppArmor != ""
	add("mac", 300, when(!mac, 10), map[bool]string{true: "has an SELinux context or AppArmor profile", false: "has no SELinux context or AppArmor profile"}[mac])
	badness, text := mountsBadness(s.Mounts)
	add("mounts", 1500, badness, text)
	for _, g := range capabilityGroups() {
		var have []string
		for c := range strings.FieldsSeq(g.caps) {
			if slices.Contains(s.Capabilities, "CAP_"+c) {
				have = append(have, "CAP_"+c)
			}
		}
		bad := 0
		if len(have) > 0 {
			bad = 10
			if pod.privateUsers || s.UID != 0 {
				bad = 4 // over what is the pod's own; or only for programs that bring them
			}
			add(have[0], g.weight, bad, fmt.Sprintf("may %s (%s)", g.what, strings.Join(have, " ")))
		} else {
			add("CAP_"+strings.Fields(g.caps)[0], g.weight, 0, "may not "+g.what)
		}
	}
	out.total()
	return out
}

func mountsBadness(mounts []abi.PlanMount) (int, string) {
	worst, text := 0, "sees no files of the host"
	for _, m := range mounts {
		b := 2
		if !m.ReadOnly {
			b = 6
		}
		for _, dir := range []string{"/etc", "/usr", "/boot", "/proc", "/sys", "/dev", "/root", "/var/lib/rkt", "/run/systemd", "/run/dbus", "/run/docker.sock", "/run/podman"} {
			if m.Source == "/" || m.Source == "/run" || m.Source == "/var" || m.Source == dir || strings.HasPrefix(m.Source, dir+"/") && !strings.HasPrefix(m.Source, "/dev/") {
				b = map[bool]int{true: 6, false: 10}[m.ReadOnly]
			}
		}
		if b > worst {
			worst, text = b, fmt.Sprintf("sees %s of the host, %s", m.Source, map[bool]string{true: "read-only", false: "and can change it"}[m.ReadOnly])
		}
	}
	return worst, text
}

// total weighs the findings against each other, as systemd-analyze does.
func (s *scoreJSON) total() {
	weights, sum := 0, 0
	for _, f := range s.Findings {
		weights += f.Weight
		sum += f.Weight * f.Badness
	}
	for i := range s.Findings {
		f := &s.Findings[i]
		f.Exposure = tenth(float64(f.Weight*f.Badness) / float64(weights))
	}
	s.Exposure = tenth(float64(sum) / float64(weights))
	s.Rating = rating(s.Exposure)
}

// tenth rounds to one place.
func tenth(x float64) float64 { return float64(int(x*10+0.5)) / 10 }

// rating is systemd's word for an exposure.
func rating(x float64) string {
	for _, r := range []struct {
		from float64
		word string
	}{{10, "DANGEROUS"}, {9, "UNSAFE"}, {7.5, "EXPOSED"}, {5, "MEDIUM"}, {1, "OK"}, {0.1, "SAFE"}} {
		if x >= r.from {
			return r.word
		}
	}
	return "PERFECT"
}

package cli

import (
	"testing"

	"github.com/rkt-systemd/rkt/internal/abi"
)

// TestScoreApp: whatever confines an app more makes its score better.
func TestScoreApp(t *testing.T) {
	worst := abi.PlanSpec{Name: "a", Filter: "none", Mounts: []abi.PlanMount{{Source: "/", Target: "/host"}}}
	worst.Capabilities = []string{"CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_NET_ADMIN", "CAP_SYS_RAWIO", "CAP_SYS_MODULE", "CAP_BPF",
		"CAP_CHOWN", "CAP_FOWNER", "CAP_AUDIT_READ", "CAP_KILL", "CAP_NET_RAW", "CAP_SYSLOG", "CAP_SYS_NICE", "CAP_MKNOD", "CAP_MAC_ADMIN", "CAP_SYS_BOOT",
		"CAP_LINUX_IMMUTABLE", "CAP_IPC_LOCK", "CAP_SYS_CHROOT", "CAP_LEASE"}
	pod := podTraits{network: "host", hostIPC: true}
	if s := scoreApp(&worst, pod); s.Exposure != 10 || s.Rating != "DANGEROUS" {
		t.Errorf("the worst is %v %s: %+v", s.Exposure, s.Rating, s.Findings)
	}
	best := abi.PlanSpec{Name: "a", UID: 5, Filter: "default", NoNewPrivileges: true, ReadOnlyRoot: true, MaskedPaths: true, AppArmor: "x"}
	if s := scoreApp(&best, podTraits{network: "none", privateUsers: true}); s.Exposure > 0.2 || s.Rating != "SAFE" && s.Rating != "PERFECT" {
		t.Errorf("the best is %v %s", s.Exposure, s.Rating)
	}
	last := scoreApp(&worst, pod).sum()
	better := func(what string) {
		t.Helper()
		now := scoreApp(&worst, pod).sum()
		if now >= last {
			t.Errorf("%s: %d is no better than %d", what, now, last)
		}
		last = now
	}
	pod.hostIPC = false
	better("an own IPC namespace")
	pod.network = "default"
	better("an own network")
	pod.network = "none"
	better("no network")
	worst.ReadOnlyRoot = true
	better("a read-only root")
	worst.NoNewPrivileges = true
	better("no new privileges")
	worst.Filter = "own"
	better("a filter")
	worst.MaskedPaths = true
	better("masked paths")
	worst.Mounts[0].ReadOnly = true
	better("the host read-only")
	worst.Mounts[0] = abi.PlanMount{Source: "/srv", ReadOnly: true}
	better("a harmless directory")
	worst.Mounts = nil
	better("no directory")
	worst.SELinux = "a:b:c:d"
	better("a context")
	pod.privateUsers = true
	better("private users")
	worst.UID = 1
	better("a user")
	for len(worst.Capabilities) > 0 {
		worst.Capabilities = worst.Capabilities[1:]
		better("a capability less")
	}
	if b, _ := mountsBadness([]abi.PlanMount{{Source: "/dev/kvm"}, {Source: "/run/dbus/system_bus_socket"}}); b != 10 {
		t.Errorf("the bus of the host is %d bad", b)
	}
}

// sum is the exposure before it is rounded.
func (s scoreJSON) sum() int {
	n := 0
	for _, f := range s.Findings {
		n += f.Weight * f.Badness
	}
	return n
}

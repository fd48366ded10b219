package plan

import (
	"fmt"
	"strings"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/hostsfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

func (p *Plan) identity(in Input) {
	p.file("etc/machine-id", 0o444, []byte(strings.ReplaceAll(in.Run.UUID, "-", "")+"\n"))
	p.file("etc/hostname", 0o644, []byte(Hostname(in.Run)+"\n"))
	if in.Run.HostsMode == "default" {
		p.file("etc/hosts-fallback", 0o644, []byte(hostsfile.Fallback(Hostname(in.Run))))
	}
}

// Hostname is the host name of the pod.
func Hostname(run abi.Run) string {
	if run.Hostname != "" {
		return run.Hostname
	}
	return "rkt-" + run.UUID
}

// checkHostname refuses what systemd-nspawn would not take for a host name.
func checkHostname(name string) error {
	if name == "" {
		return nil
	}
	for _, label := range strings.Split(name, ".") {
		if len(name) > 64 || label == "" || strings.Trim(label, "-") != label ||
			strings.TrimLeft(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return fmt.Errorf("%q is no hostname: up to 64 letters, digits, hyphens and dots are", name)
		}
	}
	return nil
}

// nameFiles shows the host name, hosts and resolv.conf in an app, each
// unless a volume is mounted there.
func nameFiles(s *launch.Spec, in Input) {
	s.Binds = append(s.Binds, launch.Bind{Source: "/proc/sys/kernel/hostname", Target: "/etc/hostname", ReadOnly: true})
	switch {
	case in.Facts.Hosts:
		// an image's own file stays, unless entries were asked for
		s.Binds = append(s.Binds, launch.Bind{Source: "/" + podfs.PeerHosts, Target: "/etc/hosts", ReadOnly: true, IfAbsent: in.Run.HostsMode != "stage0"})
	case in.Run.HostsMode == "stage0":
		s.Binds = append(s.Binds, launch.Bind{Source: "/" + podfs.Hosts, Target: "/etc/hosts"})
	case in.Run.HostsMode == "host":
		s.Binds = append(s.Binds, launch.Bind{Source: HostHosts, Target: "/etc/hosts", ReadOnly: true})
	default:
		s.Binds = append(s.Binds, launch.Bind{Source: "/etc/hosts-fallback", Target: "/etc/hosts", IfAbsent: true})
	}
	switch {
	case in.Run.ResolvMode == "host":
		s.Binds = append(s.Binds, launch.Bind{Source: HostResolvConf, Target: "/etc/resolv.conf", ReadOnly: true})
	case in.Facts.ResolvConf && in.Run.ResolvMode != "none":
		s.Binds = append(s.Binds, launch.Bind{Source: "/" + podfs.ResolvConf, Target: "/etc/resolv.conf", IfContent: true})
	}
}

// Where nspawn binds the host's own files for the modes that ask for them.
const (
	HostHosts      = "/rkt/host-hosts"
	HostResolvConf = "/rkt/host-resolv.conf"
)

package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// nspawn builds the command line. --settings=no: a .nspawn file lying about
// must not add to it.
func (p *Plan) nspawn(in Input) {
	f := in.Facts
	s1 := path.Join(f.PodDir, podfs.Stage1Rootfs)
	args := []string{f.Nspawn, "--quiet", "--settings=no", "--directory=" + s1, "--machine=" + f.Machine,
		"--uuid=" + in.Run.UUID, "--hostname=" + Hostname(in.Run), "--notify-ready=yes", "--link-journal=no",
		"--resolv-conf=off", "--timezone=off", "--kill-signal=SIGRTMIN+3"}
	if f.InUnit {
		args = append(args, "--keep-unit")
	}
	if f.IDs.Count > 0 {
		args = append(args, "--private-users="+f.IDs.String(),
			// all mounts of the pod show its ids already
			"--private-users-ownership=off",
			// what nspawn (252) makes for a bind mount to lie in belongs to the host's root, and PID 1 could not write there
			"--tmpfs=/run/systemd")
	}
	if !f.Register {
		args = append(args, "--register=no", "--keep-unit")
	}
	if !f.InUnit && f.Register {
		for _, v := range p.properties {
			args = append(args, "--property="+v)
		}
	}
	caps := extraCaps(p.Apps)
	if in.Run.Mutable && in.Run.DisableCaps {
		caps = []string{"all"}
	}
	if len(caps) > 0 {
		args = append(args, "--capability="+strings.Join(caps, ","))
	}
	args = append(args, "--bind-ro=/usr",
		// over itself: an app that gets hold of the launcher, by /proc/PID/exe, cannot write it
		"--bind-ro=+/rkt-stage2:/rkt-stage2", p.journalArgs(in))
	bind := func(arg, target string) {
		args = append(args, "--bind-ro="+arg)
		if f.IDs.Count > 0 {
			p.file(target[1:], 0o644, nil) // to be mounted on: nspawn cannot make it where ids are mapped
		}
	}
	if f.LdSoCache {
		bind("/etc/ld.so.cache", "/etc/ld.so.cache")
	}
	if in.Run.HostsMode == "host" {
		bind("/etc/hosts:"+HostHosts, HostHosts)
	}
	if f.Hosts {
		bind(escaped(path.Join(f.PodDir, podfs.NetDir, podfs.NetHosts))+":/"+podfs.PeerHosts, "/"+podfs.PeerHosts)
	}
	if in.Run.ResolvMode == "host" {
		bind("/etc/resolv.conf:"+HostResolvConf, HostResolvConf)
	}
	if p.logDir != "" {
		// the helper that writes is the pod's root
		b := "--bind=" + escaped(p.logDir) + ":" + launch.LogFileDir
		if f.IDs.Count > 0 {
			b += ":idmap"
		}
		args = append(args, b)
	}
	init := "init"
	if c := p.console(in.Run.Mutable); c != "" {
		args = append(args, "--console="+c)
		if c == "pipe" {
			init = "initpipe"
		}
	}
	level := "warning"
	switch {
	case in.Run.Debug:
		level = "debug"
	case in.Run.Interactive:
		level = "err" // the terminal is the app's: that it failed shows in rkt's exit status
	}
	args = append(args,
		// only our units, no generators: see ARCHITECTURE.md
		"--setenv=SYSTEMD_UNIT_PATH=/"+podfs.UnitDir, "--setenv=SYSTEMD_GENERATOR_PATH=/rkt/no-generators",
		"--setenv=SYSTEMD_LOG_TARGET=console", "--setenv=SYSTEMD_LOG_COLOR=0", "--setenv=SYSTEMD_LOG_LEVEL="+level)
	filter := p.podFilter
	if in.Run.DisableSeccomp {
		filter = "-"
	}
	p.Args = append(args, "/rkt-stage2", init, filter, "/usr/lib/systemd/systemd", "--unit=default.target", "--show-status=false")
	p.Env = []string{"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_CONTAINER_SERVICE=rkt", "SYSTEMD_NSPAWN_TMPFS_TMP=0",
		"SYSTEMD_NSPAWN_CHECK_OS_RELEASE=0",
		// machined may have a hundred machines to register before ours; the default is 25 s
		"SYSTEMD_BUS_TIMEOUT=180",
		// our filter takes the place of the one nspawn would compile
		"SYSTEMD_SECCOMP=0",
		// nspawn 257 asks the terminal for its colour, which stops a pod in a shell's background
		"SYSTEMD_TINT_BACKGROUND=0"}
	if in.Run.IPC == "parent" {
		p.Env = append(p.Env, "SYSTEMD_NSPAWN_SHARE_NS_IPC=1")
	}
}

// escaped is a path for nspawn's --bind=.
func escaped(path string) string { return strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(path) }

// extraCaps are those the apps retain beyond what nspawn gives PID 1.
func extraCaps(apps []launch.Spec) []string {
	var all uint64
	for _, a := range apps {
		all |= a.Caps
	}
	given := uint64(0)
	for _, n := range []string{"CAP_AUDIT_CONTROL", "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH",
		"CAP_FOWNER", "CAP_FSETID", "CAP_IPC_OWNER", "CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
		"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE", "CAP_SYS_TTY_CONFIG"} {
		b, _ := launch.CapByName(n)
		given |= b
	}
	if all&launch.AllCaps == launch.AllCaps {
		return []string{"all"}
	}
	caps := launch.CapNames(all &^ given)
	slices.Sort(caps)
	return caps
}

// Package abi is the contract between stage0 and a stage1 image: the names of
// the entrypoints, their arguments for every interface version, and the
// environment they get. docs/stage1-abi.md describes it for implementors.
// stage0 builds arguments with it, our own stage1 parses them with it.
package abi

import (
	"fmt"
	"strconv"
	"strings"
)

// Annotations of a stage1 image manifest that name its entrypoints.
const (
	prefix            = "coreos.com/rkt/stage1/"
	AnnotationRun     = prefix + "run"
	AnnotationEnter   = prefix + "enter"
	AnnotationGC      = prefix + "gc"
	AnnotationStop    = prefix + "stop"
	AnnotationVer     = prefix + "interface-version"
	AnnotationMutable = prefix + "mutable"
)

// Annotations of an app in a pod manifest that order its unit among those of
// the pod: app names, separated by commas.
const (
	AnnotationAfter    = "coreos.com/rkt/stage2/after"
	AnnotationBefore   = "coreos.com/rkt/stage2/before"
	AnnotationRequires = "coreos.com/rkt/stage2/requires"
	AnnotationWants    = "coreos.com/rkt/stage2/wants"
	AnnotationBindsTo  = "coreos.com/rkt/stage2/binds-to"
	AnnotationPartOf   = "coreos.com/rkt/stage2/part-of"
)

// OrderAnnotations maps the systemd directives an app may give in a pod file
// to the annotations that carry them.
func OrderAnnotations() map[string]string {
	return map[string]string{"After": AnnotationAfter, "Before": AnnotationBefore, "Requires": AnnotationRequires,
		"Wants": AnnotationWants, "BindsTo": AnnotationBindsTo, "PartOf": AnnotationPartOf}
}

// AnnotationNotify of an image says that its app speaks sd_notify.
const AnnotationNotify = "appc.io/executor/supports-systemd-notify"

// Annotations for logs in files, as orchestrators of containers read them. With
// the mode k8s-plain of a pod, LogDir names a directory of the host, and
// AnnotationLogPath of each app a file in it; every line there is a time
// (RFC 3339), the stream's name and the text.
const (
	AnnotationLogMode = "coreos.com/rkt/experiment/logmode"
	AnnotationLogDir  = "coreos.com/rkt/experiment/kubernetes-log-dir"
	AnnotationLogPath = "coreos.com/rkt/experiment/kubernetes-log-path"
	LogModeK8sPlain   = "k8s-plain"
)

// Environment of the entrypoints.
const (
	EnvLockFD              = "RKT_LOCK_FD"
	EnvSELinuxContext      = "RKT_SELINUX_CONTEXT"
	EnvSELinuxMountContext = "RKT_SELINUX_MOUNT_CONTEXT"
)

// Version is the newest interface version; images without the annotation have 1.
const Version = 7

// Exit statuses of rkt: Failure is every failure rkt itself detects.
const (
	ExitFailure = 254
	ExitNoArgs  = 2
)

// Run holds the arguments of the run entrypoint.
type Run struct {
	Debug        bool
	Net          []string // empty: the default network
	Interactive  bool
	PrivateUsers string // SHIFT:COUNT
	MDSToken     string
	LocalConfig  string
	// Hostname since version 2.
	Hostname string
	// DisableCaps, DisablePaths, DisableSeccomp since version 3.
	DisableCaps, DisablePaths, DisableSeccomp bool
	// ResolvMode (host, stage0, none, default) and HostsMode (host, stage0,
	// default) since version 4; empty is default.
	ResolvMode, HostsMode string
	// Mutable since version 5.
	Mutable bool
	// IPC (auto, private, parent) since version 6; empty is auto.
	IPC  string
	UUID string
}

// Args builds the command line, without the program, for an image of the given
// interface version. withheld names the options the image is too old for and
// whose absence a user would notice.
func (r Run) Args(version int) (args, withheld []string) {
	add := func(a string) { args = append(args, a) }
	if r.Debug {
		add("--debug")
	}
	net := strings.Join(r.Net, ",")
	if net == "" {
		net = "default"
	}
	add("--net=" + net)
	if r.Interactive {
		add("--interactive")
	}
	if r.PrivateUsers != "" {
		add("--private-users=" + r.PrivateUsers)
	}
	if r.MDSToken != "" {
		add("--mds-token=" + r.MDSToken)
	}
	if r.LocalConfig != "" {
		add("--local-config=" + r.LocalConfig)
	}
	if r.Hostname != "" {
		if version >= 2 {
			add("--hostname=" + r.Hostname)
		} else {
			withheld = append(withheld, "--hostname")
		}
	}
	if version >= 3 {
		for _, f := range []struct {
			on   bool
			name string
		}{{r.DisableCaps, "--disable-capabilities-restriction"}, {r.DisablePaths, "--disable-paths"}, {r.DisableSeccomp, "--disable-seccomp"}} {
			if f.on {
				add(f.name)
			}
		}
	}
	if resolv, hosts := orDefault(r.ResolvMode), orDefault(r.HostsMode); resolv != "default" || hosts != "default" {
		if version >= 4 {
			add("--dns-conf-mode=resolv=" + resolv + ",hosts=" + hosts)
		} else {
			withheld = append(withheld, "--dns-conf-mode")
		}
	}
	if r.Mutable {
		if version >= 5 {
			add("--mutable")
		} else {
			withheld = append(withheld, "--mutable")
		}
	}
	if r.IPC != "" && r.IPC != "auto" {
		if version >= 6 {
			add("--ipc=" + r.IPC)
		} else {
			withheld = append(withheld, "--ipc")
		}
	}
	add(r.UUID)
	return args, withheld
}

func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

// parseFlag reads an argument that is there, or is there with true or false.
func parseFlag(b *bool, name, value string, has bool) error {
	*b = true
	if !has {
		return nil
	}
	v, err := strconv.ParseBool(value)
	if err != nil {
		return fmt.Errorf("%s takes true or false, not %q", name, value)
	}
	*b = v
	return nil
}

// ParseRun is the inverse of Args. Unknown options are errors.
func ParseRun(args []string) (Run, error) {
	r := Run{ResolvMode: "default", HostsMode: "default", IPC: "auto"}
	for _, a := range args {
		name, value, has := strings.Cut(a, "=")
		flag := func(b *bool) error { return parseFlag(b, name, value, has) }
		var err error
		switch name {
		case "--debug":
			err = flag(&r.Debug)
		case "--interactive":
			err = flag(&r.Interactive)
		case "--mutable":
			err = flag(&r.Mutable)
		case "--disable-capabilities-restriction":
			err = flag(&r.DisableCaps)
		case "--disable-paths":
			err = flag(&r.DisablePaths)
		case "--disable-seccomp":
			err = flag(&r.DisableSeccomp)
		case "--net":
			r.Net = []string{"default"}
			if value != "" {
				r.Net = strings.Split(value, ",")
			}
		case "--private-users":
			r.PrivateUsers = value
		case "--mds-token":
			r.MDSToken = value
		case "--local-config":
			r.LocalConfig = value
		case "--hostname":
			r.Hostname = value
		case "--ipc":
			r.IPC = value
			if value != "auto" && value != "private" && value != "parent" {
				err = fmt.Errorf("--ipc takes auto, private or parent, not %q", value)
			}
		case "--dns-conf-mode":
			err = r.dnsMode(value)
		default:
			if strings.HasPrefix(a, "-") || r.UUID != "" {
				return r, fmt.Errorf("unknown argument %q", a)
			}
			r.UUID = a
		}
		if err != nil {
			return r, err
		}
	}
	if r.UUID == "" {
		return r, fmt.Errorf("the pod's UUID is missing")
	}
	if r.Net == nil {
		r.Net = []string{"host"} // a caller without --net wants the caller's network
	}
	return r, nil
}

func (r *Run) dnsMode(value string) error {
	for part := range strings.SplitSeq(value, ",") {
		k, v, _ := strings.Cut(part, "=")
		ok := v == "host" || v == "stage0" || v == "default" || (v == "none" && k == "resolv")
		switch {
		case k == "resolv" && ok:
			r.ResolvMode = v
		case k == "hosts" && ok:
			r.HostsMode = v
		default:
			return fmt.Errorf("--dns-conf-mode: %q is not known", part)
		}
	}
	return nil
}

// Enter holds the arguments of the enter entrypoint.
type Enter struct {
	PID int
	App string // empty: stage1 itself
	// User (USER[:GROUP]) takes the place of the app's. Cwd starts in the app's
	// working directory, not in /. Shell starts a shell of the image, whichever it
	// has. All since version 7.
	User       string
	Cwd, Shell bool
	Cmd        []string
}

// Args builds the command line, without the program, for an image of the given
// interface version. withheld names the options it is too old for.
func (e Enter) Args(version int) (args, withheld []string) {
	args = []string{"--pid=" + strconv.Itoa(e.PID)}
	if e.App != "" {
		args = append(args, "--appname="+e.App)
	}
	for _, o := range []struct {
		on   bool
		text string
	}{{e.User != "", "--user=" + e.User}, {e.Cwd, "--cwd"}, {e.Shell, "--shell"}} {
		name, _, _ := strings.Cut(o.text, "=")
		switch {
		case !o.on:
		case version >= 7:
			args = append(args, o.text)
		default:
			withheld = append(withheld, name)
		}
	}
	return append(append(args, "--"), e.Cmd...), withheld
}

// ParseEnter is the inverse of Args.
func ParseEnter(args []string) (Enter, error) {
	var e Enter
	for i, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "--pid":
			n, err := strconv.Atoi(value)
			if err != nil || n <= 0 {
				return e, fmt.Errorf("--pid: %q is not a process ID", value)
			}
			e.PID = n
		case "--appname":
			e.App = value
		case "--user":
			e.User = value
		case "--cwd":
			e.Cwd = true
		case "--shell":
			e.Shell = true
		case "--":
			e.Cmd = args[i+1:]
			if e.PID == 0 || len(e.Cmd) == 0 {
				return e, fmt.Errorf("--pid and a command are needed")
			}
			return e, nil
		default:
			return e, fmt.Errorf("unknown argument %q", a)
		}
	}
	return e, fmt.Errorf("the command after -- is missing")
}

// GC holds the arguments of the gc entrypoint.
type GC struct {
	Debug       bool
	LocalConfig string // since version 5
	UUID        string
}

// Args builds the command line without the program.
func (g GC) Args(version int) []string {
	var args []string
	if g.Debug {
		args = append(args, "--debug")
	}
	if g.LocalConfig != "" && version >= 5 {
		args = append(args, "--local-config="+g.LocalConfig)
	}
	return append(args, g.UUID)
}

// ParseGC is the inverse of Args; --local-config takes its value either way.
func ParseGC(args []string) (GC, error) {
	var g GC
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		switch {
		case name == "--debug":
			g.Debug = true
		case name == "--local-config" && has:
			g.LocalConfig = value
		case name == "--local-config" && i+1 < len(args):
			i++
			g.LocalConfig = args[i]
		case strings.HasPrefix(name, "-") || g.UUID != "":
			return g, fmt.Errorf("unknown argument %q", args[i])
		default:
			g.UUID = args[i]
		}
	}
	if g.UUID == "" {
		return g, fmt.Errorf("the pod's UUID is missing")
	}
	return g, nil
}

// Stop holds the arguments of the stop entrypoint.
type Stop struct {
	Force bool
	UUID  string
}

// Args builds the command line without the program.
func (s Stop) Args() []string {
	if s.Force {
		return []string{"--force", s.UUID}
	}
	return []string{s.UUID}
}

// ParseStop is the inverse of Args.
func ParseStop(args []string) (Stop, error) {
	var s Stop
	for _, a := range args {
		switch {
		case a == "--force":
			s.Force = true
		case strings.HasPrefix(a, "-") || s.UUID != "":
			return s, fmt.Errorf("unknown argument %q", a)
		default:
			s.UUID = a
		}
	}
	if s.UUID == "" {
		return s, fmt.Errorf("the pod's UUID is missing")
	}
	return s, nil
}

// Package plan decides, without touching anything, what starting a pod takes:
// from the pod's and the images' manifests and facts about the host to files,
// mounts and the command line of systemd-nspawn. The same input gives the same
// plan on every machine; carrying it out is the entrypoint's work.
package plan

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// IDs are an app's user and groups, looked up in its root.
type IDs struct {
	UID, GID uint32
	// Groups are those that list the user of a converted image.
	Groups []uint32
}

// Input is what a plan is made from.
type Input struct {
	Run    abi.Run
	Pod    *schema.PodManifest
	Images map[string]*schema.ImageManifest // by app name
	IDs    map[string]IDs
	Facts  Facts
}

// Facts are what a plan needs to know of the host and the pod's surroundings.
type Facts struct {
	PodDir  string // absolute
	Machine string // the name to register
	// InUnit says that the process is the main process of a systemd unit: the
	// machine stays in the unit's cgroup.
	InUnit bool
	// Declared says that the unit is that of a pod file.
	Declared bool
	Nspawn   string // absolute path
	// LogUnit is the unit of the host that the pod's processes are in.
	LogUnit string
	// Register says that machined is there.
	Register bool
	// ResolvConf says that resolv.conf was generated in the stage1 root; Hosts likewise.
	ResolvConf, Hosts bool
	// LdSoCache says that the host has /etc/ld.so.cache.
	LdSoCache bool
}

// Plan is the outcome.
type Plan struct {
	Apps   []launch.Spec
	Dirs   []Dir
	Files  []File
	Mounts []Mount
	// Empty are volumes to make below the pod directory.
	Empty []EmptyVolume
	// Args is the command line of systemd-nspawn, Env its environment.
	Args, Env []string
	// Warnings are for the user: what was left out or changed.
	Warnings []string
}

// File is written below the stage1 root; Path is relative to it.
type File struct {
	Path string
	Data []byte
	Mode uint32
}

// Mount shows Source, a path of the host, at Target in an app's root.
type Mount struct {
	App, Volume, Source, Target string
	ReadOnly, Recursive         bool
}

// EmptyVolume is a directory shared by the apps that name it.
type EmptyVolume struct {
	Name     string
	Mode     uint32
	UID, GID int
}

// Make makes the plan.
func Make(in Input) (*Plan, error) {
	if len(in.Pod.Apps) == 0 {
		return nil, fmt.Errorf("pod must contain at least one application")
	}
	if err := checkHostname(in.Run.Hostname); err != nil {
		return nil, err
	}
	p := &Plan{}
	var names []string
	for i := range in.Pod.Apps {
		app := &in.Pod.Apps[i]
		name := app.Name.String()
		img := in.Images[name]
		if img == nil {
			return nil, fmt.Errorf("app %q: its image manifest is missing", name)
		}
		if err := p.app(in, app, img); err != nil {
			return nil, fmt.Errorf("app %q: %w", name, err)
		}
		names = append(names, name)
	}
	for _, i := range in.Pod.Isolators {
		switch n := i.Name.String(); n {
		case "resource/memory", "resource/cpu", "os/linux/cpu-shares":
			if in.Facts.Declared {
				continue // the generator made directives of the unit of it
			}
			p.warn("isolator %q of the whole pod is not applied; limit the unit instead (systemctl set-property, systemd.resource-control(5))", n)
		default:
			p.warn("isolator %q of the whole pod is not applied", n)
		}
	}
	p.file(strings.TrimPrefix(launch.Dir, "/")+".list", 0o644, []byte(strings.Join(names, "\n")+"\n"))
	if err := p.target(names); err != nil {
		return nil, err
	}
	p.identity(in)
	p.nspawn(in)
	return p, nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

func (p *Plan) file(name string, mode uint32, data []byte) {
	p.Files = append(p.Files, File{name, data, mode})
}

func (p *Plan) app(in Input, ra *schema.RuntimeApp, img *schema.ImageManifest) error {
	app := ra.App
	if app == nil {
		app = img.App
	}
	if app == nil {
		return fmt.Errorf("its image has no app section; give a command (--exec)")
	}
	if len(app.Exec) == 0 {
		return fmt.Errorf(`image %q has an empty "exec" (try --exec=BINARY)`, img.Name)
	}
	name := ra.Name.String()
	ids, ok := in.IDs[name]
	if !ok {
		return fmt.Errorf("its user was not looked up")
	}
	s := launch.Spec{
		Name: name, Root: path.Join("/", podfs.Stage2Dir, name, podfs.RootfsDir), Exec: app.Exec, Dir: app.WorkingDirectory,
		UID: ids.UID, GID: ids.GID, ReadOnlyRoot: ra.ReadOnlyRootFS, MaskPaths: !in.Run.DisablePaths,
		LogUnit: in.Facts.LogUnit,
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	extra, err := appc.ExtraEnvironment(img)
	if err != nil {
		return err
	}
	s.Env = environment(name, app, extra)
	for _, g := range app.SupplementaryGIDs {
		s.Groups = append(s.Groups, uint32(g))
	}
	if app.SupplementaryGIDs == nil {
		s.Groups = append(s.Groups, ids.Groups...)
	}
	if appc.Converted(img) {
		s.Out = path.Join(OutDir, name)
		p.Dirs = append(p.Dirs, Dir{App: name, Path: s.Dir})
	}
	for _, h := range app.EventHandlers {
		if len(h.Exec) == 0 || !strings.HasPrefix(h.Exec[0], "/") {
			return fmt.Errorf("event handler %q must name an absolute path", h.Name)
		}
		switch {
		case h.Name == "pre-start" && s.PreStart == nil:
			s.PreStart = h.Exec
		case h.Name == "post-stop" && s.PostStop == nil:
			s.PostStop = h.Exec
		default:
			return fmt.Errorf("event handler %q is unknown or given twice", h.Name)
		}
	}
	if v, _ := img.Annotations.Get(abi.AnnotationNotify); v == "true" {
		s.Notify = true
	}
	limits, err := p.isolators(&s, app.Isolators, in.Run)
	if err != nil {
		return err
	}
	if err := p.volumes(in, ra, app, &s); err != nil {
		return err
	}
	nameFiles(&s, in)
	rec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	p.Apps = append(p.Apps, s)
	p.file(path.Join(podfs.AppRecordDir, name+".json"), 0o600, rec)
	// The contract's copy of the environment, for other programs that enter.
	p.file(path.Join(podfs.EnvDir, name), 0o600, []byte(strings.Join(s.Env, "\n")+"\n"))
	return p.unit(ra, img, &s, limits)
}

// environment applies the defaults below and the executor's names above what
// manifests and flags gave (appc spec, "Execution Environment").
func environment(name string, app *types.App, extra []string) []string {
	have := map[string]string{}
	var order []string
	set := func(k, v string) {
		if _, ok := have[k]; !ok {
			order = append(order, k)
		}
		have[k] = v
	}
	for _, d := range [][2]string{{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, {"SHELL", "/bin/sh"},
		{"USER", "root"}, {"LOGNAME", "root"}, {"HOME", "/root"}} {
		set(d[0], d[1])
	}
	for _, kv := range extra {
		k, v, _ := strings.Cut(kv, "=")
		set(k, v)
	}
	for _, e := range app.Environment {
		set(e.Name, e.Value)
	}
	set("AC_APP_NAME", name)
	set("container", "rkt")
	out := make([]string, len(order))
	for i, k := range order {
		out[i] = k + "=" + have[k]
	}
	return out
}

// limit is a directive for the app's unit.
type limit struct{ key, value string }

func (p *Plan) isolators(s *launch.Spec, isolators types.Isolators, run abi.Run) ([]limit, error) {
	var limits []limit
	var retain, remove []string
	noNew := false
	for _, i := range isolators {
		switch v := i.Value().(type) {
		case *types.ResourceMemory:
			if l := v.Limit(); l != nil {
				limits = append(limits, limit{"MemoryMax", fmt.Sprint(l.Value())})
			}
			if r := v.Request(); r != nil {
				limits = append(limits, limit{"MemoryLow", fmt.Sprint(r.Value())})
			}
		case *types.ResourceCPU:
			if l := v.Limit(); l != nil {
				if l.MilliValue() < 10 {
					return nil, fmt.Errorf("resource/cpu: a limit of %s is less than a hundredth of a processor", l.String())
				}
				limits = append(limits, limit{"CPUQuota", fmt.Sprintf("%d%%", l.MilliValue()/10)})
			}
		case *types.LinuxCPUShares:
			// systemd's own conversion of shares to weights (1024 shares are weight 100)
			limits = append(limits, limit{"CPUWeight", fmt.Sprint(min(max(int64(*v)*100/1024, 1), 10000))})
		case *types.LinuxOOMScoreAdj:
			limits = append(limits, limit{"OOMScoreAdjust", fmt.Sprint(int(*v))})
		case *types.LinuxCapabilitiesRetainSet:
			retain = append(retain, capNames(v.Set())...)
		case *types.LinuxCapabilitiesRevokeSet:
			remove = append(remove, capNames(v.Set())...)
		case *types.LinuxNoNewPrivileges:
			noNew = noNew || bool(*v)
		case *types.LinuxSeccompRetainSet, *types.LinuxSeccompRemoveSet:
			if !run.DisableSeccomp {
				return nil, fmt.Errorf("isolator %q is not supported yet; --insecure-options=seccomp runs the app without a filter of its own", i.Name)
			}
		default:
			p.warn("app %q: isolator %q is not applied", s.Name, i.Name)
		}
	}
	s.NoNewPrivileges = noNew
	if !run.DisableSeccomp {
		s.Filter = FilterDir + "/app.bpf"
	}
	var err error
	s.Caps, err = capabilities(retain, remove)
	if run.DisableCaps {
		s.Caps = launch.AllCaps
	}
	return limits, err
}

// OutDir holds the FIFOs of launch.Spec.Out in the pod's root; a socket unit
// makes each.
const OutDir = "/run/rkt/out"

// Dir is a directory to be made in an app's root if it is missing.
type Dir struct{ App, Path string }

// FilterDir holds the compiled filters in the pod's root.
const FilterDir = "/rkt/filters"

func capNames(set []types.LinuxCapability) []string {
	var out []string
	for _, c := range set {
		out = append(out, string(c))
	}
	return out
}

func capabilities(retain, remove []string) (uint64, error) {
	if len(retain) > 0 && len(remove) > 0 {
		return 0, fmt.Errorf("a capabilities retain set and a remove set exclude each other")
	}
	set := launch.DefaultCaps()
	if len(retain) > 0 {
		set = 0
	}
	for _, n := range retain {
		b, ok := launch.CapByName(n)
		if !ok {
			return 0, fmt.Errorf("capability %q is not known", n)
		}
		set |= b
	}
	for _, n := range remove {
		b, ok := launch.CapByName(n)
		if !ok {
			return 0, fmt.Errorf("capability %q is not known", n)
		}
		set &^= b
	}
	return set, nil
}

// unit writes the app's service. Everything the app itself sees is the
// launcher's; the unit has order, limits and outcome.
func (p *Plan) unit(ra *schema.RuntimeApp, img *schema.ImageManifest, s *launch.Spec, limits []limit) error {
	u := unitfile.New("rkt stage1")
	u.Set("Unit", "Description", fmt.Sprintf("App %s (%s)", s.Name, appc.DisplayName(img)))
	u.Add("Unit", "DefaultDependencies", "no")
	u.Add("Unit", "Wants", "pod.target")
	u.Add("Unit", "After", "pod.target")
	u.Add("Unit", "Conflicts", "shutdown.target")
	u.Add("Unit", "Before", "shutdown.target")
	// The first app that fails ends the pod with its status.
	u.Add("Unit", "FailureAction", "exit")
	keys := abi.OrderAnnotations()
	for _, key := range []string{"After", "Before", "Requires", "Wants", "BindsTo", "PartOf"} {
		v, ok := ra.Annotations.Get(keys[key])
		if !ok {
			continue
		}
		for other := range strings.SplitSeq(v, ",") {
			if _, err := types.NewACName(other); err != nil {
				return fmt.Errorf("annotation %s: %w", keys[key], err)
			}
			u.Add("Unit", key, other+".service")
		}
	}
	if s.Out != "" {
		out := "out@" + s.Name + ".socket"
		u.Add("Unit", "Requires", out)
		u.Add("Unit", "After", out)
	}
	u.Add("Service", "Type", "notify")
	if sig := appc.Annotation(img, appc.AnnotationDockerStopSignal); sig != "" && appc.Converted(img) {
		u.Add("Service", "KillSignal", sig)
	}
	access := "main"
	if s.Notify {
		access = "all" // a script may have systemd-notify speak for it
	}
	u.Add("Service", "NotifyAccess", access)
	if s.PreStart != nil {
		u.Command("Service", "ExecStartPre", "/rkt-stage2", "handler", s.Name, "pre-start")
	}
	u.Command("Service", "ExecStart", "/rkt-stage2", "app", s.Name)
	if s.PostStop != nil {
		u.Command("Service", "ExecStopPost", "/rkt-stage2", "handler", s.Name, "post-stop")
	}
	u.Command("Service", "ExecStopPost", "/rkt-stage2", "exited", s.Name)
	u.Add("Service", "Restart", "no")
	// An app's own start may take as long as it likes; the host unit has the limit.
	u.Add("Service", "TimeoutStartSec", "infinity")
	u.Add("Service", "SyslogIdentifier", s.Name)
	u.Add("Service", "StandardInput", "null")
	// for what goes wrong before the launcher has connected to the journal itself
	u.Add("Service", "StandardOutput", "journal")
	u.Add("Service", "StandardError", "journal")
	for _, l := range limits {
		u.Add("Service", l.key, l.value)
	}
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, s.Name+".service"), 0o644, b)
	return nil
}

// target is what PID 1 starts: it is reached, and the pod ready, when every
// app has started.
func (p *Plan) target(apps []string) error {
	u := unitfile.New("rkt stage1")
	u.Add("Unit", "Description", "Pod Started")
	u.Add("Unit", "DefaultDependencies", "no")
	u.Add("Unit", "Wants", "dbus.socket supervisor-ready.service")
	u.Add("Unit", "After", "dbus.socket")
	for _, a := range apps {
		u.Add("Unit", "Requires", a+".service")
		u.Add("Unit", "After", a+".service")
	}
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, "default.target"), 0o644, b)
	return nil
}

func (p *Plan) identity(in Input) {
	p.file("etc/machine-id", 0o444, []byte(strings.ReplaceAll(in.Run.UUID, "-", "")+"\n"))
	p.file("etc/hostname", 0o644, []byte(hostname(in.Run)+"\n"))
	if in.Run.HostsMode == "default" {
		p.file("etc/hosts-fallback", 0o644, []byte(HostsFallback(hostname(in.Run))))
	}
}

func hostname(run abi.Run) string {
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

// HostsFallback is the hosts file of an app whose image has none.
func HostsFallback(hostname string) string {
	return "127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 " + hostname + "\n" +
		"::1 ip6-localhost ip6-loopback localhost6 localhost6.localdomain6\n" +
		"fe00::0 ip6-localnet\nff00::0 ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\nff02::3 ip6-allhosts\n"
}

// nameFiles shows the host name, hosts and resolv.conf in an app, each
// unless a volume is mounted there.
func nameFiles(s *launch.Spec, in Input) {
	s.Binds = append(s.Binds, launch.Bind{Source: "/proc/sys/kernel/hostname", Target: "/etc/hostname", ReadOnly: true})
	switch in.Run.HostsMode {
	case "stage0":
		s.Binds = append(s.Binds, launch.Bind{Source: "/" + podfs.Hosts, Target: "/etc/hosts"})
	case "host":
		s.Binds = append(s.Binds, launch.Bind{Source: HostHosts, Target: "/etc/hosts", ReadOnly: true})
	default:
		s.Binds = append(s.Binds, launch.Bind{Source: "/etc/hosts-fallback", Target: "/etc/hosts", IfAbsent: true})
	}
	switch {
	case in.Run.ResolvMode == "host":
		s.Binds = append(s.Binds, launch.Bind{Source: HostResolvConf, Target: "/etc/resolv.conf", ReadOnly: true})
	case in.Facts.ResolvConf && in.Run.ResolvMode != "none":
		s.Binds = append(s.Binds, launch.Bind{Source: "/" + podfs.ResolvConf, Target: "/etc/resolv.conf"})
	}
}

// Where nspawn binds the host's own files for the modes that ask for them.
const (
	HostHosts      = "/rkt/host-hosts"
	HostResolvConf = "/rkt/host-resolv.conf"
)

// nspawn builds the command line. --settings=no: a .nspawn file lying about
// must not add to it.
func (p *Plan) nspawn(in Input) {
	f := in.Facts
	s1 := path.Join(f.PodDir, podfs.Stage1Rootfs)
	args := []string{f.Nspawn, "--quiet", "--settings=no", "--directory=" + s1, "--machine=" + f.Machine,
		"--uuid=" + in.Run.UUID, "--hostname=" + hostname(in.Run), "--notify-ready=yes", "--link-journal=no",
		"--resolv-conf=off", "--timezone=off", "--kill-signal=SIGRTMIN+3"}
	if f.InUnit {
		args = append(args, "--keep-unit")
	}
	if !f.Register {
		args = append(args, "--register=no", "--keep-unit")
	}
	if caps := extraCaps(p.Apps); len(caps) > 0 {
		args = append(args, "--capability="+strings.Join(caps, ","))
	}
	args = append(args, "--bind-ro=/usr",
		// read-only: sockets can be connected to, but the pod's root cannot remove them
		"--bind-ro=/run/systemd/journal")
	if f.LdSoCache {
		args = append(args, "--bind-ro=/etc/ld.so.cache")
	}
	if in.Run.HostsMode == "host" {
		args = append(args, "--bind-ro=/etc/hosts:"+HostHosts)
	}
	if in.Run.ResolvMode == "host" {
		args = append(args, "--bind-ro=/etc/resolv.conf:"+HostResolvConf)
	}
	level := "warning"
	if in.Run.Debug {
		level = "debug"
	}
	args = append(args,
		// only our units, no generators: see ARCHITECTURE.md
		"--setenv=SYSTEMD_UNIT_PATH=/"+podfs.UnitDir, "--setenv=SYSTEMD_GENERATOR_PATH=/rkt/no-generators",
		"--setenv=SYSTEMD_LOG_TARGET=console", "--setenv=SYSTEMD_LOG_COLOR=0", "--setenv=SYSTEMD_LOG_LEVEL="+level)
	filter := FilterDir + "/pod.bpf"
	if in.Run.DisableSeccomp {
		filter = "-"
	}
	p.Args = append(args, "/rkt-stage2", "init", filter, "/usr/lib/systemd/systemd", "--unit=default.target", "--show-status=false")
	p.Env = []string{"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_CONTAINER_SERVICE=rkt", "SYSTEMD_NSPAWN_TMPFS_TMP=0",
		"SYSTEMD_NSPAWN_CHECK_OS_RELEASE=0",
		// our filter takes the place of the one nspawn would compile
		"SYSTEMD_SECCOMP=0"}
	if in.Run.IPC == "parent" {
		p.Env = append(p.Env, "SYSTEMD_NSPAWN_SHARE_NS_IPC=1")
	}
}

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

// Package plan decides, without touching anything, what starting a pod takes:
// from the pod's and the images' manifests and facts about the host to files,
// mounts and the command line of systemd-nspawn. The same input gives the same
// plan on every machine; carrying it out is the entrypoint's work.
package plan

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
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
	// Terminal says that standard input and output are one.
	Terminal bool
	// ResolvConf says that resolv.conf was generated in the stage1 root, or may be
	// until the apps start.
	ResolvConf bool
	// Hosts says that there is a hosts file in the pod directory, which names other pods.
	Hosts bool
	// Joining says that networks are joined while the pod boots: see network.service.
	Joining bool
	// Controllers are the control group controllers the kernel has.
	Controllers []string
	// Disks are the host's disks as MAJOR:MINOR, for limits on all of them.
	Disks []string
	// SELinux and AppArmor say what the kernel has; AppArmorProfiles are loaded.
	SELinux, AppArmor bool
	AppArmorProfiles  []string
	// Devices are the sources of host volumes that are device nodes.
	Devices map[string]Device
	// Listeners are the sockets that were passed to rkt.
	Listeners []Listener
	// LdSoCache says that the host has /etc/ld.so.cache.
	LdSoCache bool
	// IDs are the ids that the pod has of the host; the zero value without a user
	// namespace. What is written into the pod's root belongs to IDs.Shift and up.
	IDs abi.IDRange
}

// Plan is the outcome.
type Plan struct {
	Apps   []launch.Spec
	Dirs   []Dir
	Files  []File
	Mounts []Mount
	// Empty are volumes to make below the pod directory.
	Empty []EmptyVolume
	// Filters are system call filters to compile, for files of FilterDir.
	Filters []Filter
	// NetParameters are to be set in the pod's network namespace.
	NetParameters []Parameter
	// properties are for the pod's scope; podCalls are calls that the pod's filter
	// has to allow for an app's.
	properties, podCalls []string
	podFilter            string
	// adopters are socket units for sockets that are passed to the pod.
	adopters []string
	// taken are the sockets among them that apps take.
	taken  []Listener
	logDir string
	// logNamespace is the journald of the host that takes the lines.
	logNamespace string
	// Logs are streams to the journal that the host's side opens.
	Logs []Log
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
	// Owner is whose the files of a volume of the host are (abi.OwnerIDMap …); the
	// app has UID and GID on the host.
	Owner    string
	UID, GID uint32
}

// EmptyVolume is a directory shared by the apps that name it.
type EmptyVolume struct {
	Name     string
	Mode     uint32
	UID, GID int // of the host
}

// Make makes the plan.
func Make(in Input) (_ *Plan, err error) {
	defer appc.Fit(&err)
	if len(in.Pod.Apps) == 0 && !in.Run.Mutable {
		return nil, fmt.Errorf("pod must contain at least one application")
	}
	if err := checkHostname(in.Run.Hostname); err != nil {
		return nil, err
	}
	if err := checkJournal(in); err != nil {
		return nil, err
	}
	p := &Plan{logNamespace: LogNamespace(in.Pod)}
	if p.logDir, err = logDir(in.Pod); err != nil {
		return nil, err
	}
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
	if err := p.podIsolators(in); err != nil {
		return nil, err
	}
	p.warnBandwidth(in)
	p.list(names)
	p.forLater(in)
	if err := p.target(in.Facts.Joining, p.healths(in)); err != nil {
		return nil, err
	}
	if err := p.choosePodFilter(); err != nil {
		return nil, err
	}
	if err := p.records(in); err != nil {
		return nil, err
	}
	p.identity(in)
	p.devices(in)
	if err := p.logs(in); err != nil {
		return nil, err
	}
	p.unclaimed(in)
	if err := p.adopt(); err != nil {
		return nil, err
	}
	p.nspawn(in)
	return p, nil
}

// records writes what the launcher reads, when all of the pod is known.
func (p *Plan) records(in Input) error {
	for i := range p.Apps {
		s := &p.Apps[i]
		if !in.Run.DisableSeccomp {
			s.PodFilter = p.podFilter
		}
		rec, err := json.Marshal(s)
		if err != nil {
			return err
		}
		p.file(path.Join(podfs.AppRecordDir, s.Name+".json"), 0o600, rec)
	}
	return nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

func (p *Plan) file(name string, mode uint32, data []byte) {
	p.Files = append(p.Files, File{name, data, mode})
}

func (p *Plan) app(in Input, ra *schema.RuntimeApp, img *schema.ImageManifest) error {
	app, s, err := appRecord(in, ra, img)
	if err != nil {
		return err
	}
	name := s.Name
	s.Root = path.Join("/", podfs.Stage2Dir, name, podfs.RootfsDir)
	s.ReadOnlyRoot, s.MaskPaths = ra.ReadOnlyRootFS, !in.Run.DisablePaths
	s.LogPassed, s.Mutable = in.Facts.IDs.Count > 0, in.Run.Mutable
	if GuestJournal(in.Pod) {
		// the pod's systemd connects the app, under its own unit
		s.LogPassed, s.LogUnit, s.GuestJournal = false, "", true
	}
	if err := checkIDs(in.Facts.IDs, &s); err != nil {
		return err
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
	limits, err := p.isolators(&s, app.Isolators, in)
	if err != nil {
		return err
	}
	if in.Facts.IDs.Count > 0 {
		// nspawn takes it from a pod with private users, and what enters shall have no more than the app
		low, _ := launch.CapByName("CAP_NET_BIND_SERVICE")
		s.Caps &^= low
	}
	if err := p.volumes(in, ra, app, &s); err != nil {
		return err
	}
	if err := p.streams(in, ra, &s); err != nil {
		return err
	}
	if err := p.sockets(in, app, &s); err != nil {
		return err
	}
	own, err := directives(ra, &s)
	if err != nil {
		return err
	}
	if err := credentials(ra, &s, "/"); err != nil {
		return err
	}
	if err := p.health(in, ra, img, &s); err != nil {
		return err
	}
	nameFiles(&s, in)
	p.Apps = append(p.Apps, s)
	// The contract's copy of the environment, for other programs that enter.
	p.file(path.Join(podfs.EnvDir, name), 0o600, []byte(strings.Join(s.Env, "\n")+"\n"))
	return p.unit(in.Facts.Joining, ra, img, &s, limits, own)
}

// appRecord begins the launcher's record of an app: what it is, whatever the flavour.
func appRecord(in Input, ra *schema.RuntimeApp, img *schema.ImageManifest) (*types.App, launch.Spec, error) {
	s := launch.Spec{Name: ra.Name.String(), LogUnit: in.Facts.LogUnit}
	app := ra.App
	if app == nil {
		app = img.App
	}
	if app == nil {
		return nil, s, fmt.Errorf("its image has no app section; give a command (--exec)")
	}
	if len(app.Exec) == 0 {
		return nil, s, fmt.Errorf(`image %q has an empty "exec" (try --exec=BINARY)`, img.Name)
	}
	ids, ok := in.IDs[s.Name]
	if !ok {
		return nil, s, fmt.Errorf("its user was not looked up")
	}
	s.Exec, s.Dir, s.UID, s.GID = app.Exec, app.WorkingDirectory, ids.UID, ids.GID
	if s.Dir == "" {
		s.Dir = "/"
	}
	extra, err := appc.ExtraEnvironment(img)
	if err != nil {
		return nil, s, err
	}
	s.Env = environment(s.Name, app, extra)
	for _, g := range app.SupplementaryGIDs {
		if g < 0 || int64(g) >= 1<<32-1 {
			return nil, s, fmt.Errorf("supplementary group %d is out of range", g)
		}
		s.Groups = append(s.Groups, uint32(g))
	}
	if app.SupplementaryGIDs == nil {
		s.Groups = append(s.Groups, ids.Groups...)
	}
	v, _ := img.Annotations.Get(abi.AnnotationNotify)
	s.Notify = v == "true"
	return app, s, nil
}

// checkIDs refuses users and groups that a pod with private users has not got.
func checkIDs(r abi.IDRange, s *launch.Spec) error {
	check := func(what string, id uint32) error {
		if _, ok := r.Outside(id); !ok {
			return fmt.Errorf("the %s %d is outside of the pod's private users, which are 0 to %d; run it as another, or without private users",
				what, id, r.Count-1)
		}
		return nil
	}
	if err := check("user", s.UID); err != nil {
		return err
	}
	for _, g := range append([]uint32{s.GID}, s.Groups...) {
		if err := check("group", g); err != nil {
			return err
		}
	}
	return nil
}

// OutDir holds the FIFOs of launch.Spec.Out in the pod's root; a socket unit
// makes each.
const OutDir = "/run/rkt/out"

// Dir is a directory to be made in an app's root if it is missing.
type Dir struct{ App, Path string }

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

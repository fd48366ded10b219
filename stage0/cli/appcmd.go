package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/handoff"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/prepare"
)

func (a *app) appCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "app", Short: "Work with mutable pods: add, start, stop and remove apps of a running pod",
		Long: `rkt app sandbox starts a pod without apps that stays up. Apps are added to it, started, stopped and removed while it runs.
However an app ends, the pod goes on; rkt stop ends it.`,
	}
	a.group(cmd)
	cmd.AddCommand(a.appSandboxCmd(), a.appAddCmd(), a.appStartCmd(), a.appStopCmd(), a.appRmCmd(), a.appListCmd(), a.appStatusCmd(), a.appExecCmd())
	return cmd
}

func (a *app) appSandboxCmd() *cobra.Command {
	var po podOptions
	var so startOptions
	var annotations, userAnnotations, userLabels []string
	cmd := &cobra.Command{
		Use: "sandbox", Short: "Start a pod without apps that stays up",
		Long: `Start a pod to which apps are added by rkt app add. rkt becomes the pod, as with rkt run: in the foreground, in the background of a shell, or as
a unit: systemd-run rkt app sandbox --uuid-file-save=FILE. rkt status --wait-ready waits until apps can be added.

Isolation that belongs to the pod is settled when it starts: an app that retains more capabilities, makes other system calls or opens other devices
than apps usually do is refused, unless the sandbox was started with --insecure-options=capabilities,seccomp,paths.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(0, "no arguments")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.sandbox(cmd.Context(), &po, &so, annotations, userAnnotations, userLabels)
			if err != nil {
				return err
			}
			return a.launch(cmd.Context(), r, so)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&so.net, "net", nil, "networks to join: `NAME[:ARGS],…`, or default, default-restricted, host, none, all")
	f.StringVar(&so.hostname, "hostname", "", "host `name` of the pod (default rkt-UUID)")
	so.names.flags(f)
	f.StringArrayVar(&po.ports, "port", nil, "forward a port of the host: `NAME:PROTO:PODPORT:HOSTIP:HOSTPORT`, PROTO tcp or udp")
	f.BoolVar(&po.noOverlay, "no-overlay", false, "copy images instead of mounting overlays")
	f.BoolVar(&po.private, "private-users", false, "give the pod user and group ids of its own: its root is nobody on the host")
	f.StringVar(&po.uuidFile, "uuid-file-save", "", "write the pod's UUID to this `FILE`")
	f.StringArrayVar(&annotations, "annotation", nil, "annotation `NAME=VALUE` of the pod")
	f.StringArrayVar(&userAnnotations, "user-annotation", nil, "user annotation `NAME=VALUE` of the pod")
	f.StringArrayVar(&userLabels, "user-label", nil, "user label `NAME=VALUE` of the pod")
	stage1Flags(f, &po.stage1)
	return cmd
}

// sandbox resolves what the command line asks for.
func (a *app) sandbox(ctx context.Context, po *podOptions, so *startOptions, annotations, userAnnotations, userLabels []string) (*request, error) {
	if _, err := so.check(); err != nil {
		return nil, err
	}
	if err := oneStage1(po.stage1); err != nil {
		return nil, err
	}
	spec := prepare.PodSpec{Mutable: true}
	for _, p := range po.ports {
		port, err := parseMapping(p)
		if err != nil {
			return nil, fmt.Errorf("--port: %w", err)
		}
		spec.Ports = append(spec.Ports, port)
	}
	err := so.forwards(po.ports)
	if err != nil {
		return nil, err
	}
	if spec.Annotations, err = pairs("annotation", annotations); err != nil {
		return nil, err
	}
	for _, kv := range spec.Annotations {
		if kv[0] == abi.AnnotationMutable {
			return nil, fmt.Errorf("--annotation: %q is set by rkt itself", kv[0])
		}
	}
	if spec.UserAnnotations, err = pairMap("user-annotation", userAnnotations); err != nil {
		return nil, err
	}
	if spec.UserLabels, err = pairMap("user-label", userLabels); err != nil {
		return nil, err
	}
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	f, err := a.fetcher(st, image.PullNew)
	if err != nil {
		return nil, err
	}
	r := &request{stores: st, insecure: f.Insecure, uuidFile: po.uuidFile}
	r.NoOverlay = po.noOverlay
	if po.private {
		r.PrivateUsers = prepare.WantPrivateUsers
	}
	if r.Stage1, err = f.FindStage1(ctx, po.stage1); err != nil {
		return nil, fmt.Errorf("finding the stage1 image: %w", err)
	}
	if err := handoff.Mutable(r.Stage1.Manifest); err != nil {
		return nil, err
	}
	r.Manifest, r.Apps, err = spec.Manifest(nil)
	return r, err
}

func pairs(flag string, values []string) ([][2]string, error) {
	var out [][2]string
	for _, v := range values {
		kv, err := parsePair(v)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		out = append(out, kv)
	}
	return out, nil
}

func pairMap(flag string, values []string) (map[string]string, error) {
	list, err := pairs(flag, values)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	out := map[string]string{}
	for _, kv := range list {
		out[kv[0]] = kv[1]
	}
	return out, nil
}

// parseMapping reads NAME:PROTO:PODPORT:HOSTIP:HOSTPORT.
func parseMapping(s string) (types.ExposedPort, error) {
	var p types.ExposedPort
	part := strings.Split(s, ":")
	if len(part) < 5 {
		return p, fmt.Errorf("%q is not in name:proto:podPort:hostIP:hostPort format", s)
	}
	name, err := types.NewACName(part[0])
	if err != nil {
		return p, fmt.Errorf("%q is not a valid port name", part[0])
	}
	if part[1] != "tcp" && part[1] != "udp" {
		return p, fmt.Errorf("protocol %q is neither tcp nor udp", part[1])
	}
	number := func(text string) (uint, error) {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%q is not a valid port number", text)
		}
		return uint(n), nil
	}
	last := len(part) - 1
	p.Name, p.PodPort = *name, &types.Port{Name: *name, Protocol: part[1], Count: 1}
	if p.PodPort.Port, err = number(part[2]); err != nil {
		return p, err
	}
	if p.HostPort, err = number(part[last]); err != nil {
		return p, err
	}
	ip := strings.Join(part[3:last], ":") // of IPv6, too
	if p.HostIP = net.ParseIP(ip); p.HostIP == nil {
		return p, fmt.Errorf("%q is not a valid IP", ip)
	}
	return p, nil
}

// addFlags are the flags of rkt app add, which belong to its one image.
func addFlags() []appFlag {
	var out []appFlag
	for _, f := range appFlags() {
		if f.name != "signature" { // nothing is fetched
			out = append(out, f)
		}
	}
	return append(out, appFlag{"mnt-volume", "name=NAME,kind=…,target=PATH", "a volume of the app alone and where it is mounted; the rest as of rkt run --volume",
		func(a *appArgs, v string) error {
			m, owner, err := parseMntVolume(v)
			if err != nil {
				return err
			}
			for _, have := range a.mounts {
				if have.AppVolume != nil && have.Volume == m.Volume {
					return fmt.Errorf("duplicate volume name %q", m.Volume)
				}
			}
			a.mounts = append(a.mounts, m)
			if owner != "" {
				if a.owners == nil {
					a.owners = map[string]string{}
				}
				a.owners[m.Volume.String()] = owner
			}
			return nil
		}, true})
}

// parseMntVolume reads --mnt-volume.
func parseMntVolume(text string) (schema.Mount, string, error) {
	var m schema.Mount
	name := ""
	var rest []string
	for part := range strings.SplitSeq(text, ",") {
		k, v, _ := strings.Cut(part, "=")
		switch {
		case k == "name" && name == "" && v != "":
			name = v
		case k == "target" && m.Path == "" && v != "":
			m.Path = v
		case k == "name" || k == "target":
			return m, "", fmt.Errorf("%s is empty or given twice in %q", k, text)
		default:
			rest = append(rest, part)
		}
	}
	if name == "" || m.Path == "" {
		return m, "", fmt.Errorf("%q needs both name= and target=", text)
	}
	vol, owner, err := parseVolume(strings.Join(append([]string{name}, rest...), ","))
	if err != nil {
		return m, "", fmt.Errorf("%q: %w", text, err)
	}
	m.Volume, m.AppVolume = vol.Name, vol
	return m, owner, nil
}

func (a *app) appAddCmd() *cobra.Command {
	own := addFlags()
	cmd := &cobra.Command{
		Use: "add UUID|NAME IMAGE [APP FLAGS] [-- ARG…]", Short: "Add an app to a mutable pod that is running",
		Long: "Add an app to a running pod that rkt app sandbox has started. The image must be in the store: rkt fetch IMAGE. The app is not started: rkt app start.",
	}
	imagesUsage(cmd, own)
	run := parsed(own, true, func(cmd *cobra.Command, g *grammar) error {
		if len(g.apps) != 2 {
			return errors.New("app add takes a pod and one image; see rkt help app add")
		}
		if len(g.apps[0].set) > 0 || g.apps[0].dash {
			return errors.New("the flags of the app follow its image")
		}
		arg := g.apps[0].image
		g.apps = g.apps[1:]
		return a.appAdd(cmd.Context(), arg, g)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.rootUnlessHelp(args); err != nil {
			return err
		}
		return run(cmd, args)
	}
	return cmd
}

func (a *app) appAdd(ctx context.Context, arg string, g *grammar) error {
	spec, err := a.spec(g, &podOptions{})
	if err != nil {
		return err
	}
	if owners := g.apps[0].owners; len(owners) > 0 {
		spec.Apps[0].Annotations = append(spec.Apps[0].Annotations, [2]string{abi.AnnotationVolumeOwner, abi.FormatVolumeOwners(owners)})
	}
	d, err := a.mutablePod(arg)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.State != pod.Running {
		return fmt.Errorf("pod %s is not running but %s", d.UUID, d.State)
	}
	if !d.Ready() {
		return fmt.Errorf("pod %s is not ready yet; rkt status --wait-ready %s waits until it is", d.UUID, d.UUID)
	}
	st, err := a.stores()
	if err != nil {
		return err
	}
	f, err := a.fetcher(st, image.PullNever)
	if err != nil {
		return err
	}
	ref, err := image.ParseRef(g.apps[0].image)
	if err != nil {
		return err
	}
	img, err := f.Lookup(ref)
	if err != nil {
		return err
	}
	t, err := st.trees.Render(ctx, img.Key)
	if err != nil {
		return fmt.Errorf("unpacking image %q: %w", ref.Text, err)
	}
	// of the tree, not of the store, where members of group rkt may write
	if img.Manifest, err = t.Manifest(); err != nil {
		return err
	}
	ra, err := spec.RuntimeApp(img)
	if err != nil {
		return err
	}
	err = a.change(ctx, d, true, func(c *prepare.Change) error {
		return c.AddApp(ctx, ra, prepare.App{Name: ra.Name.String(), Image: img})
	})
	return appError("adding", ra.Name.String(), d, err)
}

// appError says what failed, unless stage1 has said all there is.
func appError(verb, name string, d *pod.Pod, err error) error {
	if err == nil || err == handoff.ErrReported { //nolint:errorlint // joined with others it is to be said
		if err != nil {
			return errSilent
		}
		return nil
	}
	return fmt.Errorf("%s app %q, pod %s: %w", verb, name, d.UUID, err)
}

// mutablePod finds a pod whose apps can be changed.
func (a *app) mutablePod(arg string) (*pod.Pod, error) {
	pods, _, err := a.pods()
	if err != nil {
		return nil, err
	}
	d, err := a.findPod(pods, arg)
	if err != nil {
		return nil, err
	}
	m, err := d.Manifest()
	if err == nil && !prepare.Mutable(m) {
		err = fmt.Errorf("pod %s is immutable: its apps are those it was started with; rkt app sandbox starts a mutable pod", d.UUID)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// change calls f with the means to change the apps of the pod; with locked,
// while nobody else does.
func (a *app) change(ctx context.Context, d *pod.Pod, locked bool, f func(*prepare.Change) error) error {
	var held *os.File
	if locked {
		var err error
		if held, err = prepare.LockApps(d.Dir()); err != nil {
			return fmt.Errorf("locking the apps of pod %s: %w", d.UUID, err)
		}
		defer held.Close()
		if err := d.Refresh(); err != nil {
			return err
		}
	}
	st, err := a.stores()
	if err != nil {
		return err
	}
	c := &prepare.Change{Preparer: a.preparer(st), Dir: d.Dir()}
	if d.State == pod.Running {
		t, s1, err := a.stage1Of(d)
		if err != nil {
			return err
		}
		pid, err := waitPID(ctx, d)
		if err != nil {
			return err
		}
		if c.Live, err = sys.OpenMountNS(pid); err != nil {
			return err
		}
		defer c.Live.Close()
		// the process is the pod's first one as long as the pod runs
		if again, err := waitPID(ctx, d); err != nil || again != pid {
			return errors.Join(err, fmt.Errorf("pod %s is ending", d.UUID))
		}
		c.Stage1 = func(annotation, app string) error {
			call := abi.App{Debug: a.debug, App: app}
			if annotation == abi.AnnotationAppAdd {
				call.UUID = d.UUID
			}
			return handoff.App(ctx, d.Dir(), t.Rootfs(), s1, annotation, pid, call, a.Getenv("PATH"), held)
		}
	}
	return f(c)
}

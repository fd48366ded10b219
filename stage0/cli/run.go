package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/idrange"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/prepare"
)

// startOptions are those of running a prepared pod.
type startOptions struct {
	net         []string
	hostname    string
	interactive bool
	names       nameOptions
	ipc         string
}

func (o *startOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.net, "net", nil, "networks to join: `NAME[:ARGS],…`, or default, default-restricted, host, none, all")
	f.Lookup("net").NoOptDefVal = "default"
	f.StringVar(&o.hostname, "hostname", "", "host `name` of the pod (default rkt-UUID)")
	f.BoolVar(&o.interactive, "interactive", false, "run the pod's one app on this terminal")
	o.names.flags(f)
	f.StringVar(&o.ipc, "ipc", "", "`auto`, private (System V IPC and POSIX queues of its own, the default), or parent (the host's)")
}

// forwards refuses ports of the host for a pod that has no network of its own.
func (o *startOptions) forwards(ports []string) error {
	for _, n := range splitNet(o.net) {
		if len(ports) > 0 && (n == "none" || n == "host") {
			return fmt.Errorf("--port flag does not work with '%s' networking", n)
		}
	}
	return nil
}

// podOptions are those of preparing a pod.
type podOptions struct {
	manifest   string
	volumes    []string
	ports      []string
	inheritEnv bool
	setEnv     []string
	setEnvFile []string
	noOverlay  bool
	private    bool
	policy     string
	storeOnly  bool
	noStore    bool
	uuidFile   string
	quiet      bool
	stage1     image.Stage1Options
}

func (o *podOptions) flags(cmd *cobra.Command, running bool) {
	f := cmd.Flags()
	f.StringVar(&o.manifest, "pod-manifest", "", "run the pod of this manifest `FILE`")
	f.StringArrayVar(&o.volumes, "volume", nil, "`NAME,kind=host,source=/DIR[,readOnly=BOOL][,recursive=BOOL][,owner=idmap|app|host]` or NAME,kind=empty[,mode=0755][,uid=0][,gid=0]")
	f.StringArrayVar(&o.ports, "port", nil, "forward a port of the host: `NAME:[HOSTIP:]HOSTPORT`")
	f.BoolVar(&o.inheritEnv, "inherit-env", false, "give apps the variables of this environment that nothing else sets")
	f.StringArrayVar(&o.setEnv, "set-env", nil, "environment variable `NAME=VALUE` of all apps")
	f.StringArrayVar(&o.setEnvFile, "set-env-file", nil, "`FILE` of environment variables for all apps")
	f.BoolVar(&o.noOverlay, "no-overlay", false, "copy images instead of mounting overlays")
	f.BoolVar(&o.private, "private-users", false, "give the pod user and group ids of its own: its root is nobody on the host")
	policyFlags(cmd, &o.policy, &o.storeOnly, &o.noStore, string(image.PullNew))
	stage1Flags(f, &o.stage1)
	if running {
		f.StringVar(&o.uuidFile, "uuid-file-save", "", "write the pod's UUID to this `FILE`")
	} else {
		f.BoolVar(&o.quiet, "quiet", false, "print only the UUID")
	}
}

func stage1Flags(f *pflag.FlagSet, o *image.Stage1Options) {
	f.StringVar(&o.Path, "stage1-path", "", "stage1 image `FILE`")
	f.StringVar(&o.URL, "stage1-url", "", "stage1 image `URL`")
	f.StringVar(&o.Name, "stage1-name", "", "stage1 image `NAME[:VERSION]`")
	f.StringVar(&o.Hash, "stage1-hash", "", "stage1 image `HASH` in the store")
	f.StringVar(&o.FromDir, "stage1-from-dir", "", "stage1 image `FILE` in the directory of stage1 images")
}

func policyFlags(cmd *cobra.Command, policy *string, storeOnly, noStore *bool, def string) {
	f := cmd.Flags()
	f.StringVar(policy, "pull-policy", def, "when to contact an image's source: `new`, update or never")
	f.BoolVar(storeOnly, "store-only", false, "same as --pull-policy=never")
	f.BoolVar(noStore, "no-store", false, "same as --pull-policy=update")
	_ = f.MarkDeprecated("store-only", "use --pull-policy=never")
	_ = f.MarkDeprecated("no-store", "use --pull-policy=update")
}

func pullPolicy(policy string, storeOnly, noStore bool) (image.PullPolicy, error) {
	switch {
	case storeOnly && noStore:
		return "", errors.New("--store-only and --no-store exclude each other")
	case storeOnly:
		return image.PullNever, nil
	case noStore:
		return image.PullUpdate, nil
	}
	return image.ParsePullPolicy(policy)
}

func (a *app) runCmd() *cobra.Command {
	var po podOptions
	var so startOptions
	var do detachOptions
	cmd := &cobra.Command{
		Use:   "run [FLAGS] IMAGE [APP FLAGS] [-- ARG… [---]] [IMAGE …]",
		Short: "Run image(s) in a pod in the foreground",
		Long: `Run image(s) in a pod. rkt becomes the pod: it ends when the pod does, with the pod's exit status.
With --interactive the pod's one app is on this terminal, and its output is not in the journal; ^] three times within a second kills the pod.
Without a terminal the app gets the standard streams of rkt itself: echo x | rkt run --interactive IMAGE --exec /bin/cat.

Started by systemd as a service's main process, the pod is that service; otherwise machined gives it a scope. With --detach
the images are fetched, then systemd runs the pod as a transient service with the settings of rkt@.service.`,
	}
	po.flags(cmd, true)
	so.flags(cmd)
	do.flags(cmd)
	own := appFlags()
	imagesUsage(cmd, own)
	run := parsed(own, true, func(cmd *cobra.Command, g *grammar) error {
		if err := do.check(&po, &so); err != nil {
			return err
		}
		r, err := a.request(cmd, g, &po, &so)
		if err != nil {
			return err
		}
		if do.detach {
			return a.detach(cmd.Context(), &do, "Pod of "+r.images())
		}
		return a.launch(cmd.Context(), r, so)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.rootUnlessHelp(args); err != nil {
			return err
		}
		return run(cmd, args)
	}
	return cmd
}

// rootUnlessHelp is needRoot for commands that parse their own flags.
func (a *app) rootUnlessHelp(args []string) error {
	for _, w := range args {
		if w == "--" {
			break
		}
		if w == "--help" {
			return nil
		}
	}
	return a.needRoot()
}

func (a *app) prepareCmd() *cobra.Command {
	var po podOptions
	cmd := &cobra.Command{
		Use:   "prepare [FLAGS] IMAGE [APP FLAGS] [-- ARG… [---]] [IMAGE …]",
		Short: "Prepare to run image(s) in a pod; run-prepared runs it",
		Long:  "Prepare a pod. The last line of output is its UUID, for rkt run-prepared.",
	}
	po.flags(cmd, false)
	own := appFlags()
	imagesUsage(cmd, own)
	run := parsed(own, true, func(cmd *cobra.Command, g *grammar) error {
		r, err := a.request(cmd, g, &po, nil)
		if err != nil {
			return err
		}
		h, err := a.prepare(cmd.Context(), r)
		if err != nil {
			return err
		}
		if err := h.ToPrepared(); err != nil {
			return err
		}
		fmt.Fprintln(a.Stdout, h.UUID)
		return nil
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.rootUnlessHelp(args); err != nil {
			return err
		}
		return run(cmd, args)
	}
	return cmd
}

func (a *app) runPreparedCmd() *cobra.Command {
	var so startOptions
	cmd := &cobra.Command{
		Use: "run-prepared [FLAGS] UUID", Short: "Run a prepared pod",
		Long: "Run a pod that rkt prepare has prepared. Of several callers one runs it, the others fail at once.",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(1, "one UUID")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			pods, _, err := a.pods()
			if err != nil {
				return err
			}
			d, err := a.findPod(pods, args[0])
			if err != nil {
				return err
			}
			d.Close()
			if _, err := so.check(); err != nil {
				return err
			}
			if d.State != pod.Prepared {
				return fmt.Errorf("pod %s is not prepared but %s", d.UUID, d.State)
			}
			insecure, err := a.insecure()
			if err != nil {
				return err
			}
			st, err := a.stores()
			if err != nil {
				return err
			}
			h, err := pods.TakePrepared(d.UUID)
			if err != nil {
				return err
			}
			return a.start(h, a.preparer(st), so, insecure)
		},
	}
	so.flags(cmd)
	return cmd
}

// request is a pod ready to be made: images in the store, manifest written.
type request struct {
	prepare.Request
	stores   *stores
	insecure image.Insecure
	uuid     string
	uuidFile string
}

// images names the images of the pod, for people.
func (r *request) images() string {
	var names []string
	for _, ap := range r.Apps {
		names = append(names, ap.Image.Name)
	}
	return strings.Join(names, ", ")
}

// unitUUID is the invocation ID of the unit whose main process this is: then
// journalctl _SYSTEMD_INVOCATION_ID=… is the pod's log. $INVOCATION_ID alone
// proves nothing, since shells inherit it from the unit of their login.
func (a *app) unitUUID() (string, bool) {
	if a.Getenv("SYSTEMD_EXEC_PID") != fmt.Sprint(a.PID) {
		return "", false
	}
	return pod.FromInvocation(a.Getenv("INVOCATION_ID"))
}

// request resolves what the command line asks for.
func (a *app) request(cmd *cobra.Command, g *grammar, po *podOptions, so *startOptions) (*request, error) {
	if so != nil {
		if _, err := so.check(); err != nil {
			return nil, err
		}
		if err := so.forwards(po.ports); err != nil {
			return nil, err
		}
	}
	if so != nil && so.interactive {
		if err := g.interactive(); err != nil {
			return nil, err
		}
	}
	policy, err := pullPolicy(po.policy, po.storeOnly, po.noStore)
	if err != nil {
		return nil, err
	}
	if err := oneStage1(po.stage1); err != nil {
		return nil, err
	}
	if po.manifest != "" {
		conflict := len(g.apps) > 0 || len(g.all.mounts) > 0 || policy != image.PullNew
		for _, f := range []string{"volume", "port", "inherit-env", "set-env", "set-env-file"} {
			conflict = conflict || cmd.Flags().Changed(f)
		}
		if conflict {
			return nil, errors.New("conflicting flags set with --pod-manifest (see --help)")
		}
	} else if len(g.apps) == 0 {
		return nil, fmt.Errorf("%s needs at least one image; see rkt help %s", cmd.Name(), cmd.Name())
	}
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	f, err := a.fetcher(st, policy)
	if err != nil {
		return nil, err
	}
	r := &request{stores: st, insecure: f.Insecure, uuidFile: po.uuidFile}
	r.NoOverlay = po.noOverlay
	if po.private {
		r.PrivateUsers = prepare.WantPrivateUsers
	}
	if r.Stage1, err = f.FindStage1(cmd.Context(), po.stage1); err != nil {
		return nil, fmt.Errorf("finding the stage1 image: %w", err)
	}
	if po.manifest != "" {
		return r, a.fromManifest(cmd.Context(), f, po.manifest, r)
	}
	spec, err := a.spec(g, po)
	if err != nil {
		return nil, err
	}
	var images []image.Image
	for _, ia := range g.apps {
		ref, err := image.ParseRef(ia.image)
		if err != nil {
			return nil, err
		}
		img, err := fetchRendered(cmd.Context(), st, f, ref, ia.signature)
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	r.Manifest, r.Apps, err = spec.Manifest(images)
	return r, err
}

// fetchRendered fetches an image and unpacks it. The manifest it returns is the
// one of the unpacked tree, which only root can write, not the store's, where
// members of group rkt may.
func fetchRendered(ctx context.Context, st *stores, f *image.Fetcher, ref image.Ref, signature string) (image.Image, error) {
	img, err := f.Fetch(ctx, ref, image.FetchOptions{Signature: signature})
	if err != nil {
		return img, err
	}
	return rendered(ctx, st, img, ref.Text)
}

// rendered unpacks an image of the store; see fetchRendered.
func rendered(ctx context.Context, st *stores, img image.Image, text string) (image.Image, error) {
	t, err := st.trees.Render(ctx, img.Key)
	if err != nil {
		return img, fmt.Errorf("unpacking image %q: %w", text, err)
	}
	img.Manifest, err = t.Manifest()
	return img, err
}

func oneStage1(o image.Stage1Options) error {
	var given []string
	for name, v := range map[string]string{"--stage1-path": o.Path, "--stage1-url": o.URL, "--stage1-name": o.Name,
		"--stage1-hash": o.Hash, "--stage1-from-dir": o.FromDir} {
		if v != "" {
			given = append(given, name)
		}
	}
	if len(given) > 1 {
		return fmt.Errorf("only one stage1 image can be given, not %s", strings.Join(given, " and "))
	}
	return nil
}

// fromManifest takes a whole pod manifest; its images must be in the store.
func (a *app) fromManifest(ctx context.Context, f *image.Fetcher, file string, r *request) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading the pod manifest: %w", err)
	}
	m, warnings, err := appc.ParsePodManifest(b)
	if err != nil {
		return fmt.Errorf("reading the pod manifest %q: %w", file, err)
	}
	for _, w := range warnings {
		a.log.Warn(w.String())
	}
	if len(m.Apps) == 0 {
		return errors.New("pod must contain at least one application")
	}
	for i := range m.Apps {
		ra := &m.Apps[i]
		ref, err := image.ParseRef(ra.Image.ID.String())
		if err != nil {
			return fmt.Errorf("app %q: %w", ra.Name, err)
		}
		img, err := f.Lookup(ref)
		if err != nil {
			return fmt.Errorf("app %q: %w", ra.Name, err)
		}
		if err := appc.CheckRunnable(img.Manifest); err != nil {
			return fmt.Errorf("app %q: %w", ra.Name, err)
		}
		r.Apps = append(r.Apps, prepare.App{Name: ra.Name.String(), Image: img})
	}
	r.Manifest, err = json.Marshal(m)
	return err
}

func (a *app) preparer(st *stores) *prepare.Preparer {
	return &prepare.Preparer{DataDir: st.dir, Store: st.store, Trees: st.trees, Warn: func(t string) { a.log.Warn(t) }}
}

// prepare makes the pod's directory and fills it. A pod that cannot be
// prepared stays as an aborted one, which gc takes.
func (a *app) prepare(ctx context.Context, r *request) (*pod.Handle, error) {
	uuid := r.uuid
	if uuid == "" {
		uuid = pod.NewUUID()
	}
	journal.SetField(a.log, journal.KeyPodUUID, uuid)
	h, err := pod.Open(r.stores.dir).Create(uuid)
	if err != nil {
		return nil, err
	}
	if r.uuidFile != "" {
		if err := os.WriteFile(r.uuidFile, []byte(uuid), 0o644); err != nil {
			return nil, errors.Join(fmt.Errorf("--uuid-file-save: %w", err), h.Close())
		}
	}
	if err := a.preparer(r.stores).Prepare(ctx, h, r.Request); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the pod: %w", err), h.Close())
	}
	return h, nil
}

// launch prepares a pod and becomes it.
func (a *app) launch(ctx context.Context, r *request, so startOptions) error {
	if id, ok := a.unitUUID(); ok {
		r.uuid = id
		if r.Unit == "" {
			r.Unit = ownUnit()
		}
	}
	h, err := a.prepare(ctx, r)
	if err != nil {
		return err
	}
	return a.start(h, a.preparer(r.stores), so, r.insecure)
}

// start moves a pod to running and becomes it; it returns only on failure.
func (a *app) start(h *pod.Handle, p *prepare.Preparer, so startOptions, insecure image.Insecure) error {
	m, stage1, err := manifests(h.Dir())
	if err != nil {
		return errors.Join(err, h.Close())
	}
	if so.interactive && len(m.Apps) != 1 {
		return errors.Join(fmt.Errorf("--interactive needs a pod of one app, and this one has %d", len(m.Apps)), h.Close())
	}
	names, err := so.check()
	if err != nil {
		return errors.Join(err, h.Close())
	}
	if err := h.ToRun(); err != nil {
		return errors.Join(err, h.Close())
	}
	if _, inUnit := a.unitUUID(); !inUnit && !so.interactive {
		if err := a.follow(h.UUID); err != nil {
			a.log.Warnf("the apps' output is only in the journal: %v", err)
		}
	}
	if err := p.Mount(h, m); err != nil {
		return errors.Join(err, h.Close())
	}
	failpoint.Hit("run/mounted")
	ids, err := idrange.Of(h.Dir())
	if err == nil {
		err = a.record(h.Dir(), &so, ids.Count > 0)
	}
	if err != nil {
		return errors.Join(err, h.Close())
	}
	if err := prepare.AsRoot(ids, func() error {
		return names.write(filepath.Join(h.Dir(), podfs.Stage1Rootfs), orElse(so.hostname, podfs.DefaultMachine(h.UUID)))
	}); err != nil {
		return errors.Join(err, h.Close())
	}
	return a.handoff(h, stage1, a.runArguments(&so, names, insecure, ids, prepare.Mutable(m), h.UUID))
}

// runArguments are those of stage1's run entrypoint.
func (a *app) runArguments(so *startOptions, names *nameFiles, insecure image.Insecure, ids abi.IDRange, mutable bool, uuid string) abi.Run {
	run := abi.Run{Debug: a.debug, Net: splitNet(so.net), LocalConfig: a.localConfig, Hostname: so.hostname, Interactive: so.interactive,
		DisableCaps: insecure.Has(image.InsecureCapabilities), DisablePaths: insecure.Has(image.InsecurePaths),
		DisableSeccomp: insecure.Has(image.InsecureSeccomp), ResolvMode: names.resolvMode, HostsMode: names.hostsMode, IPC: so.ipc, Mutable: mutable,
		UUID: uuid}
	if ids.Count > 0 {
		run.PrivateUsers = ids.String()
	}
	return run
}

func splitNet(values []string) []string {
	var out []string
	for _, v := range values {
		out = append(out, strings.Split(v, ",")...)
	}
	return out
}

func manifests(dir string) (*schema.PodManifest, *schema.ImageManifest, error) {
	b, err := os.ReadFile(filepath.Join(dir, podfs.PodManifest))
	if err != nil {
		return nil, nil, err
	}
	m, _, err := appc.ParsePodManifest(b)
	if err != nil {
		return nil, nil, err
	}
	if b, err = os.ReadFile(filepath.Join(dir, podfs.Stage1Manifest)); err != nil {
		return nil, nil, err
	}
	s, _, err := appc.ParseImageManifest(b)
	return m, s, err
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/bus"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// writeOptions are those of commands that write a pod file.
type writeOptions struct {
	replace, dryRun   bool
	noReload, runtime bool
	private           bool // the file is for root alone
}

func (o *writeOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "print the file instead of writing it")
	f.BoolVar(&o.replace, "force", false, "replace a pod file that is there")
	f.BoolVar(&o.runtime, "runtime", false, "write to /run/rkt/pods: until the next boot")
	f.BoolVar(&o.noReload, "no-reload", false, "do not run systemctl daemon-reload afterwards")
}

// write writes a pod file and has systemd read it, or prints it.
func (a *app) write(ctx context.Context, o *writeOptions, name string, p *podjson.Pod) error {
	text, problems, err := p.Bytes(name)
	if err != nil {
		return fmt.Errorf("pod %q cannot be declared: %w", name, err)
	}
	for _, pr := range problems {
		a.log.Warn(pr.Error())
	}
	if o.dryRun {
		_, err := a.Stdout.Write(text)
		return err
	}
	dir := podfile.DefaultDirs()[0]
	if o.runtime {
		dir = podfile.DefaultDirs()[1]
	}
	path, err := podjson.Install(dir, name, text, o.private, o.replace)
	if errors.Is(err, podjson.ErrExists) {
		return hint(err, "--force replaces it")
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.Stdout, path)
	if o.noReload {
		return nil
	}
	return a.daemonReload(ctx, podfile.UnitName(name))
}

// daemonReload has systemd run the generator, as systemctl edit does.
func (a *app) daemonReload(ctx context.Context, unit string) error {
	m, err := systemd.Connect(ctx)
	if err == nil {
		defer m.Close()
		err = m.Reload(ctx)
	}
	if errors.Is(err, bus.ErrUnavailable) {
		fmt.Fprintf(a.Stderr, "systemd is not running here; there, run systemctl daemon-reload, then systemctl start %s\n", unit)
		return nil
	}
	if err == nil {
		fmt.Fprintf(a.Stderr, "systemctl start %s runs it; systemctl enable %[1]s has it run at boot\n", unit)
	}
	return err
}

func (a *app) podCreateCmd() *cobra.Command {
	var po podOptions
	var so startOptions
	var wo writeOptions
	var properties []string
	cmd := &cobra.Command{
		Use:   "create [FLAGS] NAME IMAGE [APP FLAGS] [-- ARG… [---]] [IMAGE …]",
		Short: "Write a pod file from the flags of rkt run",
		Long: `Write /etc/rkt/pods/NAME.json from what rkt run takes, and have systemd read it. Nothing is fetched and nothing is started. With
--property the service gets settings: --property=Restart=always --property=MemoryMax=1G.`,
	}
	f := cmd.Flags()
	f.StringArrayVar(&po.volumes, "volume", nil, "`NAME,kind=host,source=/DIR[,readOnly=BOOL]…` or NAME,kind=empty…; see rkt help run")
	f.StringArrayVar(&po.ports, "port", nil, "forward a port of the host: `NAME:[HOSTIP:]HOSTPORT`")
	f.StringArrayVar(&po.setEnv, "set-env", nil, "environment variable `NAME=VALUE` of all apps")
	f.StringArrayVar(&po.setEnvFile, "set-env-file", nil, "`FILE` of environment variables for all apps")
	f.BoolVar(&po.noOverlay, "no-overlay", false, "copy images instead of mounting overlays")
	f.BoolVar(&po.private, "private-users", false, "user and group ids of its own, even where they are not the default")
	f.StringVar(&po.policy, "pull-policy", "", "when to contact an image's source: `new`, update or never")
	f.StringVar(&po.stage1.Name, "stage1-name", "", "stage1 image `NAME[:VERSION]`")
	f.StringVar(&po.stage1.Path, "stage1-path", "", "stage1 image `FILE`")
	f.StringArrayVar(&properties, "property", nil, "`KEY=VALUE`: a setting of the pod's service, as in a unit file")
	so.flags(cmd)
	_ = f.MarkHidden("interactive") // a declared pod has no terminal
	wo.flags(cmd)
	own := appFlags()
	imagesUsage(cmd, own)
	run := parsed(own, true, func(cmd *cobra.Command, g *grammar) error {
		if so.interactive {
			return errors.New("--interactive is for rkt run: a declared pod has no terminal")
		}
		name, err := g.takeName()
		if err != nil {
			return err
		}
		p, err := a.created(g, &po, &so, properties)
		if err != nil {
			return err
		}
		return a.write(cmd.Context(), &wo, name, p)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !hasWord(args, "--dry-run") {
			if err := a.rootUnlessHelp(args); err != nil {
				return err
			}
		}
		return run(cmd, args)
	}
	return cmd
}

func hasWord(args []string, word string) bool {
	for _, w := range args {
		if w == "--" {
			break
		}
		if w == word {
			return true
		}
	}
	return false
}

// takeName takes the name of the pod off the list of images.
func (g *grammar) takeName() (string, error) {
	if len(g.apps) == 0 {
		return "", errors.New("the name of the pod and an image are missing; see rkt pod create --help")
	}
	first := g.apps[0]
	if len(first.set) > 0 || first.dash {
		return "", fmt.Errorf("flags of an app follow %q, which is the pod's name; its images come after it", first.image)
	}
	if err := podfile.CheckName(first.image); err != nil {
		return "", err
	}
	if len(g.apps) == 1 {
		return "", fmt.Errorf("no image for pod %q; see rkt pod create --help", first.image)
	}
	g.apps = g.apps[1:]
	return first.image, nil
}

// created makes the pod file of a command line.
func (a *app) created(g *grammar, po *podOptions, so *startOptions, properties []string) (*podjson.Pod, error) {
	if _, err := so.check(); err != nil {
		return nil, err
	}
	if err := so.forwards(po.ports); err != nil {
		return nil, err
	}
	if err := oneStage1(po.stage1); err != nil {
		return nil, err
	}
	p := &podjson.Pod{Rkt: so.section()}
	o := p.Rkt
	o.NoOverlay, o.PullPolicy, o.Stage1 = po.noOverlay, po.policy, po.stage1.Name
	if po.stage1.Path != "" {
		abs, err := filepath.Abs(po.stage1.Path)
		if err != nil {
			return nil, err
		}
		o.Stage1 = abs
	}
	if po.private {
		o.PrivateUsers = &po.private
	}
	o.InsecureOptions = a.insecureWords()
	for _, file := range po.setEnvFile {
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		o.EnvironmentFiles = append(o.EnvironmentFiles, abs)
	}
	for _, kv := range po.setEnv {
		pair, err := parsePair(kv)
		if err != nil {
			return nil, fmt.Errorf("--set-env: %w", err)
		}
		o.Environment.Set(pair[0], pair[1])
	}
	for _, v := range po.volumes {
		if _, _, err := parseVolume(v); err != nil {
			return nil, fmt.Errorf("--volume %q: %w", v, err)
		}
		p.Volumes = append(p.Volumes, v)
	}
	for _, v := range po.ports {
		port, err := parsePort(v)
		if err != nil {
			return nil, err
		}
		p.Ports = append(p.Ports, shortPort(port.Name.String(), port.HostIP.String(), port.HostPort))
	}
	if len(properties) > 0 {
		p.Systemd = &podjson.Systemd{}
	}
	for _, kv := range properties {
		pair, err := parsePair(kv)
		if err != nil {
			return nil, fmt.Errorf("--property: %w", err)
		}
		p.Systemd.Service.Add(pair[0], pair[1])
	}
	for _, ia := range g.apps {
		app, err := ia.declared()
		if err != nil {
			return nil, err
		}
		p.Apps = append(p.Apps, *app)
	}
	return p, nil
}

// shortPort is a port as people write it; an IPv6 address has no short form.
func shortPort(name, ip string, port uint) any {
	switch {
	case strings.Contains(ip, ":"):
		return map[string]any{"name": name, "hostIP": ip, "hostPort": port}
	case ip != "" && ip != "<nil>":
		return fmt.Sprintf("%s:%s:%d", name, ip, port)
	}
	return fmt.Sprintf("%s:%d", name, port)
}

// section is the "rkt" section that has the same effect.
func (o *startOptions) section() *podjson.Options {
	return &podjson.Options{Net: o.net, Hostname: o.hostname, IPC: o.ipc, DNS: o.names.dns, DNSSearch: o.names.search,
		DNSOptions: o.names.options, DNSDomain: o.names.domain, HostsEntries: o.names.hosts}
}

// declared is the app of a pod file for an image on the command line.
func (ia *appArgs) declared() (*podjson.App, error) {
	ref, err := image.ParseRef(ia.image)
	if err != nil {
		return nil, err
	}
	if ia.signature != "" {
		return nil, fmt.Errorf("image %q: --signature is for one fetch, not for a pod file; fetch the image with it first", ia.image)
	}
	if len(ia.userAnnotations)+len(ia.userLabels) > 0 {
		return nil, fmt.Errorf("image %q: a pod file has user annotations and labels for the pod, not for an app; use \"annotations\"", ia.image)
	}
	app := &podjson.App{Name: ia.name, Image: reference(ref), Args: ia.args, User: ia.user, Group: ia.group, SupplementaryGIDs: ia.groups,
		WorkingDirectory: ia.workingDir, ReadOnlyRootFS: ia.readOnly}
	if ia.exec != "" {
		app.Exec = []string{ia.exec}
	}
	for _, e := range ia.environment {
		app.Environment.Set(e[0], e[1])
	}
	for _, m := range ia.mounts {
		app.Mounts = append(app.Mounts, "volume="+m.Volume.String()+",target="+m.Path)
	}
	streams := map[string]*string{"stdin": &app.Stdin, "stdout": &app.Stdout, "stderr": &app.Stderr}
	for _, an := range ia.annotations {
		isStream := false
		for name, to := range streams {
			if an[0] == stdio.Annotation(name) {
				*to, isStream = an[1], true
			}
		}
		if isStream {
			continue
		}
		if app.Annotations == nil {
			app.Annotations = map[string]string{}
		}
		app.Annotations[an[0]] = an[1]
	}
	isolators, err := ia.isolators()
	if err == nil && len(isolators) > 0 {
		app.Isolators, err = isolatorsJSON(isolators)
	}
	return app, err
}

// reference is how a pod file, which is read from anywhere, names an image.
func reference(ref image.Ref) string {
	switch ref.Kind {
	case image.KindPath:
		return ref.Path
	case image.KindOCI, image.KindOCIArchive, image.KindDockerArchive:
		scheme, rest, _ := strings.Cut(ref.Text, ":")
		if cwd, err := os.Getwd(); err == nil && !filepath.IsAbs(rest) {
			rest = filepath.Join(cwd, rest)
		}
		return scheme + ":" + rest
	}
	return ref.Text
}

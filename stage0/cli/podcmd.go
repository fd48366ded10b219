package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appcred"
	"github.com/rkt-systemd/rkt/internal/apphealth"
	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podlog"
	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/prepare"
)

func (a *app) podCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pod", Short: "Work with declared pods (/etc/rkt/pods/NAME.json)",
		Long: `A file NAME.json in ` + strings.Join(podfile.DefaultDirs(), ", ") + ` declares a pod.
It is the unit rkt@NAME.service: systemctl daemon-reload, then systemctl start rkt@NAME.`,
	}
	a.group(cmd)
	cmd.AddCommand(a.podListCmd(), a.podCheckCmd(), a.podShowCmd(), a.podDiffCmd(), a.podSecurityCmd(), a.podRunCmd(), a.podReloadCmd(), a.podProxyCmd(),
		a.podApplyCmd(), a.podFetchCmd(), a.podUpdateCmd(), a.podRollbackCmd(), a.podHistoryCmd(),
		a.podCreateCmd(), a.podImportCmd(), a.podSaveCmd(),
	)
	return cmd
}

type podListJSON struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Unit     string `json:"unit"`
	Masked   bool   `json:"masked,omitempty"`
	Template bool   `json:"template,omitempty"`
	UUID     string `json:"uuid,omitempty"`
	State    string `json:"state"`
	// Generation is the one that counts, Update its state, Images what its references stand for.
	Generation int            `json:"generation,omitempty"`
	Update     declared.State `json:"generationState,omitempty"`
	Images     []podListImage `json:"images,omitempty"`
}

type podListImage struct {
	App    string `json:"app"`
	Ref    string `json:"ref"`
	ID     string `json:"id"`
	Digest string `json:"digest,omitempty"`
}

// recordedImages adds what is recorded of a pod's images. Who may not read that
// is told the rest.
func (a *app) recordedImages(dir string, j *podListJSON) {
	d, err := declared.Open(dir, j.Name)
	if err != nil {
		return // no name of a pod
	}
	c, err := d.Current()
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		a.log.Warn(err)
	}
	if err != nil || c == nil {
		return
	}
	j.Generation, j.Update = c.Generation, c.State
	for _, ap := range c.Apps {
		j.Images = append(j.Images, podListImage{ap.Name, ap.Ref, ap.ID, ap.Digest})
	}
}

// generationText is a generation with its state, where that is not "good".
func (j *podListJSON) generationText() string {
	switch {
	case j.Generation == 0:
		return "-"
	case j.Update == declared.Good:
		return strconv.Itoa(j.Generation)
	}
	return strconv.Itoa(j.Generation) + " (" + string(j.Update) + ")"
}

func (j *podListJSON) imagesText(full bool) string {
	var out []string
	for _, i := range j.Images {
		t := i.App + "=" + shortID(i.ID, 12, full)
		if full && i.Digest != "" {
			t += "@" + i.Digest
		}
		out = append(out, t)
	}
	return orDash(strings.Join(out, ","))
}

func (a *app) podListCmd() *cobra.Command {
	var format string
	var noLegend, full bool
	cmd := &cobra.Command{
		Use: "list", Short: "List declared pods and the state of their newest run", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			entries, err := podfile.List(podfile.SearchOptions{})
			if err != nil {
				a.log.Warn(err)
			}
			newest, err := a.newestRuns()
			if err != nil {
				return err
			}
			dir, err := a.dataDir()
			if err != nil {
				return err
			}
			out := []podListJSON{}
			for _, e := range entries {
				j := podListJSON{Name: e.Name, Path: e.Path, Unit: podfile.UnitName(e.Name), Masked: e.Masked, Template: e.Template, State: "never run"}
				switch r, ok := newest[e.Name]; {
				case e.Masked:
					j.State = "masked"
				case e.Bad != "":
					j.State, j.Unit = "bad name", ""
				case e.Template:
					j.State = "template"
				case ok:
					j.UUID, j.State = r.uuid, r.state
				}
				if e.Bad == "" && !e.Template && (full || format != "") {
					a.recordedImages(dir, &j)
				}
				out = append(out, j)
			}
			if format != "" {
				return printJSON(a.Stdout, format, out)
			}
			w, columns := table(a.Stdout), ""
			if full {
				columns = "\tGENERATION\tIMAGES"
			}
			if !noLegend {
				fmt.Fprintln(w, "NAME\tSTATE\tUUID"+columns+"\tFILE")
			}
			for _, j := range out {
				u := j.UUID
				if len(u) > 8 && !full {
					u = u[:8]
				}
				if full {
					columns = "\t" + j.generationText() + "\t" + j.imagesText(full)
				}
				fmt.Fprintf(w, "%s\t%s\t%s%s\t%s\n", j.Name, j.State, u, columns, j.Path)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	cmd.Flags().BoolVar(&noLegend, "no-legend", false, "no header line")
	cmd.Flags().BoolVar(&full, "full", false, "whole UUIDs, and the generation and images that the next start runs")
	return cmd
}

type runOf struct {
	uuid, state string
	rank        int64
}

// newestRuns finds the newest run of every declared pod, running ones first.
func (a *app) newestRuns() (map[string]runOf, error) {
	pods, _, err := a.pods()
	if err != nil {
		return nil, err
	}
	all, err := pods.List()
	out := map[string]runOf{}
	for _, d := range all {
		if n := d.DeclaredName(); n != "" {
			r := runOf{d.UUID, string(d.State), d.Created().UnixNano()}
			if d.State == pod.Running {
				r.rank = 1<<63 - 1
			}
			if have, ok := out[n]; !ok || r.rank > have.rank {
				out[n] = r
			}
		}
		d.Close()
	}
	return out, err
}

// isDeclared reports whether a pod file has the name.
func isDeclared(name string) bool {
	x, err := podfile.Scan(podfile.SearchOptions{})
	return err == nil && x.Has(name)
}

// loadPod reads a declared pod, reporting all its problems.
func (a *app) loadPod(name string) (*podfile.Pod, error) {
	p, problems := podfile.Load(podfile.SearchOptions{}, name)
	for _, pr := range problems {
		if pr.Severity == podfile.Warning {
			a.log.Warn(pr.Error())
		}
	}
	if p != nil {
		return p, nil
	}
	first := podfile.FirstError(problems)
	if first == nil {
		return nil, fmt.Errorf("pod %q is masked", name)
	}
	if podfile.IsNotFound(problems) {
		return nil, hint(fmt.Errorf("pod %q: %w", name, first), "rkt pod list shows the declared pods")
	}
	n := 0
	for _, pr := range problems {
		if pr.Severity == podfile.Error {
			if n++; n > 1 {
				a.log.Error(pr.Error())
			}
		}
	}
	return nil, hint(first, "rkt pod check %s", name)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func imageText(i podfile.Image) string {
	switch {
	case i.Ref != "":
		return i.Ref
	case i.ID != "":
		return i.ID
	}
	s := i.Name
	for _, l := range i.Labels {
		s += "," + l.Name + "=" + l.Value
	}
	return s
}

func (a *app) podRunCmd() *cobra.Command {
	return &cobra.Command{
		Use: "run NAME", Short: "Run a declared pod; what rkt@NAME.service does",
		Long: "Run a declared pod in the foreground. Use systemctl start rkt@NAME to run it as a service.",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(1, "the name of a declared pod")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a.insecureGiven = cmd.Flags().Changed("insecure-options")
			journal.SetField(a.log, journal.KeyPodName, args[0])
			p, err := a.loadPod(args[0])
			if err != nil {
				return err
			}
			r, err := a.declared(cmd.Context(), p)
			if err != nil {
				return fmt.Errorf("pod %q: %w", p.Name, err)
			}
			return a.launch(cmd.Context(), r, declaredOptions(p))
		},
	}
}

// declaredOptions is how a declared pod is started.
func declaredOptions(p *podfile.Pod) startOptions {
	return startOptions{net: p.Rkt.Net, hostname: orElse(p.Rkt.Hostname, p.MachineName()), ipc: p.Rkt.IPC,
		names: nameOptions{dns: p.Rkt.DNS, search: p.Rkt.DNSSearch, options: p.Rkt.DNSOptions, domain: p.Rkt.DNSDomain, hosts: p.Rkt.HostsEntries}}
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// declared resolves a pod file: its images are found or fetched, its manifest
// is written.
func (a *app) declared(ctx context.Context, p *podfile.Pod) (*request, error) {
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	f, err := a.podFetcher(st, p)
	if err != nil {
		return nil, err
	}
	rec, err := a.records(st, p.Name, true)
	if err != nil {
		return nil, err
	}
	r := &request{stores: st, insecure: f.Insecure}
	r.Declared, r.Machine, r.NoOverlay = p.Name, p.MachineName(), p.Rkt.NoOverlay
	if _, ok := a.unitUUID(); ok {
		r.Unit = p.UnitName()
	}
	if r.Stage1, err = f.FindStage1(ctx, declaredStage1(p)); err != nil {
		return nil, fmt.Errorf("finding the stage1 image: %w", err)
	}
	r.PrivateUsers = privateUsers(p, r.Stage1.Manifest)
	spec, err := declaredSpec(p)
	if err != nil {
		return nil, err
	}
	found, err := rec.resolve(ctx, st, f, p)
	if err != nil {
		return nil, err
	}
	if r.Manifest, r.Apps, err = spec.Manifest(found.images); err != nil {
		return nil, err
	}
	rec.note(found, p)
	rec.started()
	return r, nil
}

func declaredStage1(p *podfile.Pod) image.Stage1Options {
	if s := p.Rkt.Stage1; strings.HasPrefix(s, "/") {
		return image.Stage1Options{Path: s}
	}
	return image.Stage1Options{Name: p.Rkt.Stage1}
}

// privateUsers says whether a declared pod gets private users when its file does
// not: with a stage1 made for it, unless it uses the host's network, which
// belongs to others.
func privateUsers(p *podfile.Pod, stage1 *schema.ImageManifest) prepare.PrivateUsers {
	switch {
	case p.Rkt.PrivateUsers != nil && *p.Rkt.PrivateUsers:
		return prepare.WantPrivateUsers
	case p.Rkt.PrivateUsers != nil || hostNetwork(p):
		return prepare.NoPrivateUsers
	}
	if v, _ := stage1.Annotations.Get(abi.AnnotationPrivateUsers); v != "true" {
		return prepare.NoPrivateUsers
	}
	return prepare.DefaultPrivateUsers
}

func hostNetwork(p *podfile.Pod) bool { return slices.Contains(splitNet(p.Rkt.Net), "host") }

// privateUsersText is what a pod's file leads to.
func privateUsersText(p *podfile.Pod) string {
	switch {
	case p.Rkt.PrivateUsers == nil && hostNetwork(p):
		return "none (it uses the host's network)"
	case p.Rkt.PrivateUsers == nil:
		return "an own range"
	case *p.Rkt.PrivateUsers:
		return `an own range ("privateUsers": true)`
	}
	return `none ("privateUsers": false)`
}

func declaredSpec(p *podfile.Pod) (*prepare.PodSpec, error) {
	s := &prepare.PodSpec{UserAnnotations: p.UserAnnotations, UserLabels: p.UserLabels}
	var err error
	if s.Isolators, err = prepare.ParseIsolators(p.Isolators); err != nil {
		return nil, fmt.Errorf("isolators: %w", err)
	}
	for _, v := range p.Volumes {
		vol, err := volumeOf(&v)
		if err != nil {
			return nil, err
		}
		s.Volumes = append(s.Volumes, *vol)
		if v.Owner != "" {
			if s.Owners == nil {
				s.Owners = map[string]string{}
			}
			s.Owners[v.Name] = v.Owner
		}
	}
	for _, po := range p.Ports {
		ep := types.ExposedPort{Name: types.ACName(po.Name), HostPort: uint(po.HostPort)}
		if po.HostIP != "" {
			if err := ep.HostIP.UnmarshalText([]byte(po.HostIP)); err != nil {
				return nil, fmt.Errorf("port %q: %w", po.Name, err)
			}
		}
		if len(po.PodPort) > 0 {
			ep.PodPort = &types.Port{}
			if err := json.Unmarshal(po.PodPort, ep.PodPort); err != nil {
				return nil, fmt.Errorf("port %q: podPort: %w", po.Name, err)
			}
		}
		if po.Activate {
			s.Activated = append(s.Activated, ep)
		} else {
			s.Ports = append(s.Ports, ep)
		}
	}
	s.HostNetwork = hostNetwork(p)
	if s.Environment, err = declaredEnvironment(&p.Rkt); err != nil {
		return nil, err
	}
	for _, n := range p.Annotations {
		s.Annotations = append(s.Annotations, [2]string{n.Name, n.Value})
	}
	if p.Rkt.Journal != "" {
		s.Annotations = append(s.Annotations, [2]string{podlog.AnnotationJournal, p.Rkt.Journal})
	}
	if p.Rkt.LogNamespace != "" {
		s.Annotations = append(s.Annotations, [2]string{podlog.AnnotationNamespace, p.Rkt.LogNamespace})
	}
	if p.Rkt.Ready != "" {
		s.Annotations = append(s.Annotations, [2]string{apphealth.AnnotationReady, p.Rkt.Ready})
	}
	for i := range p.Apps {
		as, err := declaredApp(&p.Apps[i])
		if err != nil {
			return nil, fmt.Errorf("app %d (%s): %w", i+1, orDash(p.Apps[i].Name), err)
		}
		s.Apps = append(s.Apps, *as)
	}
	return s, nil
}

func volumeOf(v *podfile.Volume) (*types.Volume, error) {
	name, err := types.NewACName(v.Name)
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", v.Name, err)
	}
	out := &types.Volume{Name: *name, Kind: v.Kind, Source: v.Source, ReadOnly: v.ReadOnly, Recursive: v.Recursive, UID: v.UID, GID: v.GID}
	if v.Mode != "" {
		out.Mode = &v.Mode
	}
	// Reading JSON is where the library sets the defaults and checks; writing it
	// refuses an empty volume that lacks what has a default.
	type incomplete types.Volume
	b, err := json.Marshal((*incomplete)(out))
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", v.Name, err)
	}
	return out, nil
}

func declaredApp(ap *podfile.App) (*prepare.AppSpec, error) {
	s := &prepare.AppSpec{Name: ap.Name, Exec: ap.Override.Exec, Args: ap.Override.Args, User: ap.Override.User, Group: ap.Override.Group,
		SupplementaryGIDs: ap.Override.SupplementaryGIDs, WorkingDirectory: ap.Override.WorkingDirectory, ReadOnlyRootFS: ap.ReadOnlyRootFS}
	var err error
	if s.App, err = prepare.ParseApp(ap.App); err != nil {
		return nil, err
	}
	if s.Isolators, err = prepare.ParseIsolators(ap.Override.Isolators); err != nil {
		return nil, fmt.Errorf("isolators: %w", err)
	}
	for _, po := range ap.Override.Ports {
		s.Ports = append(s.Ports, prepare.AppPort{Name: po.Name, Port: uint(po.Port), Count: uint(po.Count), Protocol: po.Protocol, SocketActivated: po.SocketActivated})
	}
	for _, e := range ap.Override.Environment {
		s.Environment = append(s.Environment, [2]string{e.Name, e.Value})
	}
	for _, n := range ap.Annotations {
		s.Annotations = append(s.Annotations, [2]string{n.Name, n.Value})
	}
	for stream, mode := range map[string]string{"stdin": ap.Stdio.In, "stdout": ap.Stdio.Out, "stderr": ap.Stdio.Err} {
		if mode != "" {
			s.Annotations = append(s.Annotations, [2]string{stdio.Annotation(stream), mode})
		}
	}
	for key, apps := range map[string][]string{abi.AnnotationAfter: ap.Order.After, abi.AnnotationBefore: ap.Order.Before,
		abi.AnnotationRequires: ap.Order.Requires, abi.AnnotationWants: ap.Order.Wants, abi.AnnotationBindsTo: ap.Order.BindsTo,
		abi.AnnotationPartOf: ap.Order.PartOf} {
		if len(apps) > 0 {
			s.Annotations = append(s.Annotations, [2]string{key, strings.Join(apps, ",")})
		}
	}
	owners := map[string]string{}
	if len(ap.Systemd) > 0 {
		s.Annotations = append(s.Annotations, [2]string{appunit.Annotation, appunit.Encode(ap.Systemd)})
	}
	if ap.Health != nil {
		s.Annotations = append(s.Annotations, [2]string{apphealth.Annotation, apphealth.Encode(ap.Health)})
	}
	if len(ap.Credentials) > 0 {
		s.Annotations = append(s.Annotations, [2]string{appcred.Annotation, appcred.Encode(ap.Credentials)})
	}
	for _, m := range ap.Mounts {
		sm := schema.Mount{Volume: types.ACName(m.Volume), Path: m.Path}
		if m.AppVolume != nil {
			if sm.AppVolume, err = volumeOf(m.AppVolume); err != nil {
				return nil, err
			}
			sm.Volume = sm.AppVolume.Name
			if m.AppVolume.Owner != "" {
				owners[m.AppVolume.Name] = m.AppVolume.Owner
			}
		}
		if sm.Volume == "" {
			return nil, errors.New("a mount names no volume")
		}
		s.Mounts = append(s.Mounts, sm)
	}
	if len(owners) > 0 {
		s.Annotations = append(s.Annotations, [2]string{abi.AnnotationVolumeOwner, abi.FormatVolumeOwners(owners)})
	}
	return s, nil
}

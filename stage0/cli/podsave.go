package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

func (a *app) podSaveCmd() *cobra.Command {
	var wo writeOptions
	var ids bool
	cmd := &cobra.Command{
		Use: "save [FLAGS] UUID NAME", Short: "Declare a pod that was started by hand",
		Long: `Write /etc/rkt/pods/NAME.json from a pod that rkt run has started: its images, what its apps run, its volumes, ports and options.
The pod itself goes on. What cannot be part of a pod file is told. With variables that the pod was given, which may be secrets, only root
can read the file; credentials are for secrets (docs/credentials.md).`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(2, "a pod's UUID and a name for the pod file")(cmd, args)
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
			defer d.Close()
			if n := d.DeclaredName(); n != "" {
				return hint(fmt.Errorf("pod %s is declared already, as %q", d.UUID, n), "its file is what rkt pod list shows")
			}
			p, private, err := a.saved(d, ids)
			if err != nil {
				return fmt.Errorf("pod %s: %w", d.UUID, err)
			}
			if wo.private = private; private && !wo.dryRun {
				fmt.Fprintln(a.Stderr, "variables that the pod was given are in the file: only root can read it (mode 0600)")
			}
			return a.write(cmd.Context(), &wo, args[1], p)
		},
	}
	wo.flags(cmd)
	cmd.Flags().BoolVar(&ids, "ids", false, "name images by their ids: exactly those, never newer ones")
	return cmd
}

// record keeps what a pod file would need to start the pod in the same way, for
// rkt pod save.
func (a *app) record(dir string, so *startOptions, privateUsers bool) error {
	if _, err := os.Lstat(filepath.Join(dir, podfs.DeclaredName)); err == nil {
		return nil // it has a file
	}
	o := so.section()
	o.PrivateUsers = &privateUsers
	o.InsecureOptions = a.insecureWords()
	text, err := json.Marshal(o)
	if err == nil {
		err = atomicfile.WriteFileNoSync(filepath.Join(dir, podfs.StartOptions), text, 0o640)
	}
	if err != nil {
		return fmt.Errorf("recording the options of the pod: %w", err)
	}
	return nil
}

// insecureWords are the insecure options that were asked for.
func (a *app) insecureWords() []string {
	if a.insecureOptions == "" || a.insecureOptions == "none" {
		return nil
	}
	return strings.Split(a.insecureOptions, ",")
}

// saved makes a pod file of a pod. It is private when variables of the pod are in
// it: others cannot read them in the pod's directory either.
func (a *app) saved(d *pod.Pod, ids bool) (_ *podjson.Pod, private bool, _ error) {
	m, err := d.Manifest()
	if err != nil {
		return nil, false, err
	}
	p := &podjson.Pod{Rkt: &podjson.Options{}, UserAnnotations: m.UserAnnotations, UserLabels: m.UserLabels}
	b, err := os.ReadFile(filepath.Join(d.Dir(), podfs.StartOptions))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.log.Warn("the pod was started by an older rkt, or was never started: its network, host name and name service options are not known")
	case err == nil:
		err = json.Unmarshal(b, p.Rkt)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	for _, v := range m.Volumes {
		p.Volumes = append(p.Volumes, v)
	}
	for _, e := range m.Ports {
		if e.PodPort != nil {
			p.Ports = append(p.Ports, e)
			continue
		}
		p.Ports = append(p.Ports, shortPort(e.Name.String(), e.HostIP.String(), e.HostPort))
	}
	if p.Isolators, err = isolatorsJSON(m.Isolators); err != nil {
		return nil, false, err
	}
	private = len(p.Rkt.Environment) > 0
	for i := range m.Apps {
		app, given, err := savedApp(d, &m.Apps[i], ids)
		if err != nil {
			return nil, false, fmt.Errorf("app %q: %w", m.Apps[i].Name, err)
		}
		p.Apps = append(p.Apps, *app)
		private = private || given
	}
	return p, private, nil
}

// savedApp also says whether the app has variables that are not its image's.
func savedApp(d *pod.Pod, ra *schema.RuntimeApp, ids bool) (_ *podjson.App, given bool, _ error) {
	b, err := os.ReadFile(filepath.Join(d.Dir(), podfs.AppInfo(ra.Name.String()), podfs.ManifestFile))
	if err != nil {
		return nil, false, err
	}
	im, _, err := appc.ParseImageManifest(b)
	if err != nil {
		return nil, false, err
	}
	img := podjson.Image{Name: im.Name.String(), Labels: map[string]string{}}
	for _, l := range im.Labels {
		img.Labels[l.Name.String()] = l.Value
	}
	if ids {
		img.ID = ra.Image.ID.String()
	}
	app := &podjson.App{Name: ra.Name.String(), Image: img, ReadOnlyRootFS: ra.ReadOnlyRootFS}
	if err := changed(app, im.App, ra.App); err != nil {
		return nil, false, err
	}
	for _, m := range ra.Mounts {
		if m.AppVolume != nil {
			app.Mounts = append(app.Mounts, m)
			continue
		}
		app.Mounts = append(app.Mounts, "volume="+m.Volume.String()+",target="+m.Path)
	}
	for _, an := range ra.Annotations {
		switch an.Name.String() {
		case stdio.Annotation("stdin"):
			app.Stdin = an.Value
		case stdio.Annotation("stdout"):
			app.Stdout = an.Value
		case stdio.Annotation("stderr"):
			app.Stderr = an.Value
		default:
			if v, ok := im.Annotations.Get(an.Name.String()); ok && v == an.Value {
				continue
			}
			if app.Annotations == nil {
				app.Annotations = map[string]string{}
			}
			app.Annotations[an.Name.String()] = an.Value
		}
	}
	return app, givenVariables(im.App, ra.App), nil
}

// givenVariables reports whether a running app has variables other than its image.
func givenVariables(image, running *types.App) bool {
	if running == nil {
		return false
	}
	var own types.Environment
	if image != nil {
		own = image.Environment
	}
	return slices.ContainsFunc(running.Environment, func(e types.EnvironmentVariable) bool { return !slices.Contains(own, e) })
}

// changed sets what the running app has other than its image.
func changed(app *podjson.App, image, running *types.App) error {
	if running == nil {
		return nil
	}
	was, err := json.Marshal(image)
	if err != nil {
		return err
	}
	is, err := json.Marshal(running)
	if err != nil || bytes.Equal(was, is) {
		return err
	}
	if image != nil {
		command := *running
		command.Exec = image.Exec
		if same, err := json.Marshal(&command); err == nil && bytes.Equal(was, same) {
			app.Exec = running.Exec
			return nil
		}
	}
	app.App = is
	return nil
}

// isolatorsJSON is an isolator list of a pod file, nil when it is empty.
func isolatorsJSON(list []types.Isolator) (json.RawMessage, error) {
	if len(list) == 0 {
		return nil, nil
	}
	type entry struct {
		Name  types.ACIdentifier `json:"name"`
		Value *json.RawMessage   `json:"value"`
	}
	var out []entry
	for _, i := range list {
		out = append(out, entry{i.Name, i.ValueRaw})
	}
	return json.Marshal(out)
}

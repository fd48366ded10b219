package prepare

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

// AppSpec is an app as a command line or a pod file describes it: changes to
// what its image says.
type AppSpec struct {
	Name string // derived from the image's name when empty
	// App takes the place of the image's app section.
	App *types.App
	// Exec replaces the exec vector, Args are appended to it; see oci.Command for
	// images that were converted.
	Exec, Args []string
	User       string
	Group      string
	// SupplementaryGIDs replaces the list when not nil.
	SupplementaryGIDs []int
	WorkingDirectory  string
	// Environment is set over what the image and PodSpec.Environment set.
	Environment [][2]string
	// Isolators replace those of the image with the same name or, of the kinds
	// that exclude each other, of the same kind.
	Isolators types.Isolators
	// Ports are laid over the image's by name.
	Ports []AppPort

	ReadOnlyRootFS              bool
	Mounts                      []schema.Mount
	Annotations                 [][2]string
	UserAnnotations, UserLabels [][2]string
}

// PodSpec is a pod to make a manifest of.
type PodSpec struct {
	Apps    []AppSpec
	Volumes []types.Volume
	Ports   []types.ExposedPort
	// Activated are ports that a proxy answers; HostNetwork has it live in the
	// same network as the pod.
	Activated   []types.ExposedPort
	HostNetwork bool
	// Inherited is set where neither image nor flags set a variable,
	// Environment over the image.
	Inherited, Environment [][2]string
	Isolators              types.Isolators
	Annotations            [][2]string
	// Mutable is a pod to which apps are added when it runs.
	Mutable bool
	// Owners say whose the files of host volumes are, by the volumes' names.
	Owners          map[string]string
	UserAnnotations map[string]string
	UserLabels      map[string]string
	// UID and GID run an app whose image says nothing about users.
	UID, GID int
}

// Manifest makes the pod manifest for the images, one per app in order.
func (p *PodSpec) Manifest(images []image.Image) ([]byte, []App, error) {
	m := schema.BlankPodManifest()
	m.Volumes, m.Ports = p.Volumes, p.Ports
	m.Isolators = []types.Isolator(p.Isolators)
	m.UserAnnotations, m.UserLabels = p.UserAnnotations, p.UserLabels
	var apps []App
	for i := range p.Apps {
		ra, err := p.app(&p.Apps[i], images[i])
		if err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(apps, func(a App) bool { return a.Name == ra.Name.String() }) {
			return nil, nil, fmt.Errorf("two apps are named %q; give one another name", ra.Name)
		}
		m.Apps = append(m.Apps, *ra)
		apps = append(apps, App{Name: ra.Name.String(), Image: images[i]})
	}
	if len(apps) == 0 && !p.Mutable {
		return nil, nil, errors.New("pod must contain at least one application")
	}
	if len(p.Owners) > 0 {
		p.Annotations = append(p.Annotations, [2]string{abi.AnnotationVolumeOwner, abi.FormatVolumeOwners(p.Owners)})
	}
	annotations, err := annotate(nil, append([][2]string{{abi.AnnotationMutable, strconv.FormatBool(p.Mutable)}}, p.Annotations...))
	if err != nil {
		return nil, nil, err
	}
	m.Annotations = annotations
	if err := p.annotateActivated(m); err != nil {
		return nil, nil, err
	}
	if err := allText(m); err != nil {
		return nil, nil, err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, nil, fmt.Errorf("making the pod manifest: %w", err)
	}
	// what stage1 reads is what was checked here
	if _, _, err := appc.ParsePodManifest(b); err != nil {
		return nil, nil, err
	}
	return b, apps, nil
}

// allText refuses what JSON cannot carry: it would arrive as something else.
func allText(m *schema.PodManifest) error {
	check := func(app, what, s string) error {
		if utf8.ValidString(s) {
			return nil
		}
		return fmt.Errorf("app %q: %s %q is not UTF-8, which manifests are", app, what, s)
	}
	var errs []error
	for i := range m.Apps {
		ra := &m.Apps[i]
		name := ra.Name.String()
		for _, s := range ra.App.Exec {
			errs = append(errs, check(name, "the argument", s))
		}
		for _, e := range ra.App.Environment {
			errs = append(errs, check(name, "the environment variable", e.Name+"="+e.Value))
		}
		for _, mount := range ra.Mounts {
			errs = append(errs, check(name, "the mount", mount.Path))
		}
		for _, a := range ra.Annotations {
			errs = append(errs, check(name, "the annotation", a.Value))
		}
		for k, v := range ra.App.UserAnnotations {
			errs = append(errs, check(name, "the user annotation", k+"="+v))
		}
		for k, v := range ra.App.UserLabels {
			errs = append(errs, check(name, "the user label", k+"="+v))
		}
		errs = append(errs, check(name, "the user", ra.App.User), check(name, "the group", ra.App.Group), check(name, "the working directory", ra.App.WorkingDirectory))
	}
	for _, v := range m.Volumes {
		if !utf8.ValidString(v.Source) {
			errs = append(errs, fmt.Errorf("volume %q: the source %q is not UTF-8, which manifests are", v.Name, v.Source))
		}
	}
	return errors.Join(errs...)
}

func annotate(list types.Annotations, pairs [][2]string) (types.Annotations, error) {
	for _, kv := range pairs {
		n, err := types.NewACIdentifier(kv[0])
		if err != nil {
			return nil, fmt.Errorf("annotation %q: %w", kv[0], err)
		}
		list.Set(*n, kv[1])
	}
	return list, nil
}

func (p *PodSpec) app(a *AppSpec, img image.Image) (*schema.RuntimeApp, error) {
	name := a.Name
	if name == "" {
		var err error
		if name, err = types.SanitizeACName(path.Base(img.Name)); err != nil {
			return nil, fmt.Errorf("no app name can be made of image name %q; give one", img.Name)
		}
	}
	acName, err := types.NewACName(name)
	if err != nil {
		return nil, fmt.Errorf("app name %q: %w", name, err)
	}
	if err := appc.CheckRunnable(img.Manifest); err != nil {
		return nil, fmt.Errorf("image %q: %w", img.Name, err)
	}
	id, err := types.NewHash(img.Key)
	if err != nil {
		return nil, err
	}
	imgName, err := types.NewACIdentifier(img.Name)
	if err != nil {
		return nil, err
	}
	section, err := p.section(a, img.Manifest)
	if err != nil {
		return nil, fmt.Errorf("app %q: %w", name, err)
	}
	ra := &schema.RuntimeApp{Name: *acName, Image: schema.RuntimeImage{Name: imgName, ID: *id, Labels: img.Manifest.Labels},
		App: section, ReadOnlyRootFS: a.ReadOnlyRootFS, Mounts: a.Mounts}
	if ra.Annotations, err = annotate(nil, a.Annotations); err != nil {
		return nil, fmt.Errorf("app %q: %w", name, err)
	}
	for _, m := range a.Mounts {
		if m.AppVolume == nil && !slices.ContainsFunc(p.Volumes, func(v types.Volume) bool { return v.Name == m.Volume }) {
			return nil, fmt.Errorf("app %q: the mount at %q names volume %q, which is not declared", name, m.Path, m.Volume)
		}
	}
	return ra, nil
}

// RuntimeApp makes the entry of the one app for a manifest that exists.
func (p *PodSpec) RuntimeApp(img image.Image) (*schema.RuntimeApp, error) {
	return p.app(&p.Apps[0], img)
}

func (p *PodSpec) section(a *AppSpec, m *schema.ImageManifest) (*types.App, error) {
	base := a.App
	if base == nil {
		base = m.App
	}
	var s types.App
	if base != nil {
		// copied by way of JSON: isolators hold their values there
		b, err := json.Marshal(base)
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the app section: %w", err)
		}
	} else {
		if len(a.Exec) == 0 {
			return nil, fmt.Errorf("image %q has no app section; say what to run (--exec)", m.Name)
		}
		s.User, s.Group = fmt.Sprint(p.UID), fmt.Sprint(p.GID)
	}
	if a.App != nil { // it says what to run, whatever the image is
		if len(a.Exec) > 0 {
			s.Exec = slices.Clone(a.Exec)
		}
		s.Exec = append(s.Exec, a.Args...)
	} else {
		var err error
		if s.Exec, err = oci.Command(m, a.Exec, a.Args); err != nil {
			return nil, err
		}
	}
	if len(s.Exec) == 0 {
		return nil, fmt.Errorf(`image %q has an empty "exec" (try --exec=BINARY)`, m.Name)
	}
	if a.User != "" {
		s.User = a.User
	}
	if a.Group != "" {
		s.Group = a.Group
	}
	if a.SupplementaryGIDs != nil {
		s.SupplementaryGIDs = a.SupplementaryGIDs
	}
	if a.WorkingDirectory != "" {
		s.WorkingDirectory = a.WorkingDirectory
	}
	for _, kv := range p.Inherited {
		if _, ok := s.Environment.Get(kv[0]); !ok && validEnvName(kv[0]) {
			s.Environment.Set(kv[0], kv[1])
		}
	}
	for _, kv := range slices.Concat(p.Environment, a.Environment) {
		if !validEnvName(kv[0]) {
			return nil, fmt.Errorf("%q cannot be the name of an environment variable", kv[0])
		}
		s.Environment.Set(kv[0], kv[1])
	}
	s.Isolators = merge(s.Isolators, a.Isolators)
	if len(a.Ports) > 0 {
		ports, err := layPorts(s.Ports, a.Ports)
		if err != nil {
			return nil, err
		}
		s.Ports = ports
	}
	for _, kv := range a.UserAnnotations {
		if s.UserAnnotations == nil {
			s.UserAnnotations = types.UserAnnotations{}
		}
		s.UserAnnotations[kv[0]] = kv[1]
	}
	for _, kv := range a.UserLabels {
		if s.UserLabels == nil {
			s.UserLabels = types.UserLabels{}
		}
		s.UserLabels[kv[0]] = kv[1]
	}
	return &s, nil
}

// validEnvName follows the appc spec's rule for names.
func validEnvName(n string) bool {
	for i, c := range n {
		letter := c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '.' || c == '-')) {
			return false
		}
	}
	return n != ""
}

// kind groups the isolators that take each other's place.
func kind(name types.ACIdentifier) string {
	s := name.String()
	for _, k := range []string{"os/linux/capabilities", "os/linux/seccomp"} {
		if strings.HasPrefix(s, k) {
			return k
		}
	}
	return s
}

func merge(base, over types.Isolators) types.Isolators {
	var out types.Isolators
	for _, i := range base {
		if !slices.ContainsFunc(over, func(o types.Isolator) bool { return kind(o.Name) == kind(i.Name) }) {
			out = append(out, i)
		}
	}
	return append(out, over...)
}

// ParseIsolators reads isolators given as JSON; those the library does not
// know are an error, since nobody would apply them.
func ParseIsolators(raw []byte) (types.Isolators, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	// the checks for hostile input live in the manifest parser: wrap and parse
	doc := fmt.Appendf(nil, `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[],"isolators":%s}`, raw)
	m, warnings, err := appc.ParsePodManifest(doc)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		return nil, fmt.Errorf("%s", w)
	}
	return m.Isolators, nil
}

// ParseApp reads an app section given as JSON.
func ParseApp(raw []byte) (*types.App, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	doc := fmt.Appendf(nil, `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"x","app":%s}`, raw)
	m, _, err := appc.ParseImageManifest(doc)
	if err != nil {
		return nil, err
	}
	return m.App, nil
}

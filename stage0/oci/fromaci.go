package oci

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/appc"
)

// configFile is a configuration as it is written.
type configFile struct {
	Created      string      `json:"created,omitempty"`
	Author       string      `json:"author,omitempty"`
	Architecture string      `json:"architecture"`
	Variant      string      `json:"variant,omitempty"`
	OS           string      `json:"os"`
	Config       *runFile    `json:"config,omitempty"`
	RootFS       configRoot  `json:"rootfs"`
	History      []historyIn `json:"history"`
}

type configRoot struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type historyIn struct {
	Created   string `json:"created,omitempty"`
	CreatedBy string `json:"created_by"`
}

type runFile struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	Healthcheck  json.RawMessage     `json:"Healthcheck,omitempty"`
}

// FromACI makes a configuration of an App Container image whose root file
// system is the layers with these diff IDs. What an OCI image cannot say
// (isolators, event handlers, supplementary groups, dependencies) is told in
// warnings. Assemble makes an image of it.
func FromACI(m *schema.ImageManifest, diffIDs ...string) ([]byte, []appc.Warning, error) {
	c := &converter{}
	out := configFile{RootFS: configRoot{"layers", append([]string{}, diffIDs...)}, Author: appc.Annotation(m, "authors"), Created: appc.Annotation(m, "created")}
	platform, err := platformOf(m)
	if err != nil {
		return nil, nil, fmt.Errorf("converting image %q: %w", m.Name, err)
	}
	out.OS, out.Architecture, out.Variant = platform.OS, platform.Architecture, platform.Variant
	for range diffIDs {
		out.History = append(out.History, historyIn{Created: out.Created, CreatedBy: "App Container image " + appc.DisplayName(m)})
	}
	if m.App != nil {
		if out.Config, err = c.runOf(m); err != nil {
			return nil, nil, fmt.Errorf("converting image %q: %w", m.Name, err)
		}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, nil, fmt.Errorf("converting image %q: %w", m.Name, err)
	}
	// What goes out is held to the rules for what comes in.
	if _, err := ParseConfig(data); err != nil {
		return nil, nil, fmt.Errorf("converting image %q: %w", m.Name, err)
	}
	return data, c.warnings, nil
}

// platformOf translates the labels os and arch.
func platformOf(m *schema.ImageManifest) (Platform, error) {
	if err := appc.CheckRunnable(m); err != nil {
		return Platform{}, err
	}
	p := Platform{OS: "linux", Architecture: appc.Label(m, "arch")}
	switch p.Architecture {
	case "i386":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture, p.Variant = "arm64", "v8"
	case "armv6l":
		p.Architecture, p.Variant = "arm", "v6"
	case "armv7l":
		p.Architecture, p.Variant = "arm", "v7"
	case "aarch64_be", "armv7b":
		return p, fmt.Errorf("OCI has no word for the architecture %q", p.Architecture)
	}
	return p, nil
}

func (c *converter) runOf(m *schema.ImageManifest) (*runFile, error) {
	a := m.App
	run := &runFile{WorkingDir: a.WorkingDirectory, StopSignal: appc.Annotation(m, AnnotationStopSignal)}
	if h := appc.Annotation(m, AnnotationHealthcheck); h != "" && json.Valid([]byte(h)) {
		run.Healthcheck = json.RawMessage(h)
	}
	if err := run.command(m); err != nil {
		return nil, err
	}
	if strings.HasPrefix(a.User, "/") || strings.HasPrefix(a.Group, "/") {
		return nil, fmt.Errorf("user %q, group %q: an OCI image cannot say \"the owner of a file\"", a.User, a.Group)
	}
	run.User = appc.Annotation(m, AnnotationUser)
	if user, group, err := splitUser(run.User); err != nil || user != a.User || group != a.Group {
		run.User = a.User + ":" + a.Group // it was changed since
	}
	for _, e := range a.Environment {
		run.Env = append(run.Env, e.Name+"="+e.Value)
	}
	extra, err := appc.ExtraEnvironment(m)
	if err != nil {
		return nil, err
	}
	run.Env = append(run.Env, extra...)
	for _, p := range a.Ports {
		if run.ExposedPorts == nil {
			run.ExposedPorts = map[string]struct{}{}
		}
		run.ExposedPorts[portText(p)] = struct{}{}
	}
	for _, p := range a.MountPoints {
		if run.Volumes == nil {
			run.Volumes = map[string]struct{}{}
		}
		run.Volumes[p.Path] = struct{}{}
	}
	run.labels(m)
	for what, lost := range map[string]bool{
		"isolators": len(a.Isolators) > 0, "eventHandlers": len(a.EventHandlers) > 0,
		"supplementaryGIDs": len(a.SupplementaryGIDs) > 0, "userAnnotations": len(a.UserAnnotations) > 0,
	} {
		if lost {
			c.warn("app."+what, "an OCI image cannot say this")
		}
	}
	slices.SortFunc(c.warnings, func(x, y appc.Warning) int { return strings.Compare(x.Path, y.Path) })
	return run, nil
}

// command gives back what a converted image came with; an App Container image's
// exec becomes Cmd, which is what other tools let their users replace.
func (run *runFile) command(m *schema.ImageManifest) error {
	var entrypoint, cmd []string
	for name, list := range map[string]*[]string{AnnotationEntrypoint: &entrypoint, AnnotationCmd: &cmd} {
		text := appc.Annotation(m, name)
		if text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(text), list); err != nil {
			return fmt.Errorf("annotation %q: %w", name, err)
		}
	}
	if slices.Equal(slices.Concat(entrypoint, cmd), m.App.Exec) {
		run.Entrypoint, run.Cmd = entrypoint, cmd
	} else {
		run.Cmd = m.App.Exec
	}
	return nil
}

// labels carries the user's labels, and what App Container has its own words for.
func (run *runFile) labels(m *schema.ImageManifest) {
	run.Labels = map[string]string{}
	for k, v := range m.App.UserLabels {
		run.Labels[k] = v
	}
	for key, value := range map[string]string{
		"title": m.Name.String(), "version": appc.Version(m), "authors": appc.Annotation(m, "authors"),
		"documentation": appc.Annotation(m, "documentation"), "url": appc.Annotation(m, "homepage"),
	} {
		key = annotationPrefix + key
		if _, ok := run.Labels[key]; !ok && value != "" && !appc.Converted(m) {
			run.Labels[key] = value
		}
	}
}

func portText(p types.Port) string {
	protocol := p.Protocol
	if protocol == "" {
		protocol = "tcp"
	}
	if p.Count > 1 {
		return fmt.Sprintf("%d-%d/%s", p.Port, p.Port+p.Count-1, protocol)
	}
	return fmt.Sprintf("%d/%s", p.Port, protocol)
}

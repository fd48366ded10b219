// Package appc reads image and pod manifests of the App Container
// specification. It wraps github.com/appc/spec, whose types the rest of rkt
// uses, and stands between that library and hostile input: what would make the
// library panic is refused, what it would refuse for no good reason (unknown
// isolators, newer architectures) is put aside with a warning, and names that
// become paths are checked strictly. Manifests are parsed here and nowhere
// else.
//
// Exported:
//
//	ParseImageManifest(data []byte) (*schema.ImageManifest, []Warning, error)
//	ParsePodManifest(data []byte) (*schema.PodManifest, []Warning, error)
//	CheckRunnable(m) error; Label(m, name), Labels(m), Annotation(m, name), Version(m), DisplayName(m)
//	CheckName(s), CheckHash(s) (string, error); HostOSArch(); ToAppcArch(goarch, variant)
//	Fit(*error) makes an error about a manifest fit to be shown
//
// Every package may import it.
package appc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
)

// MaxManifest is the largest manifest accepted.
const MaxManifest = 4 << 20

// Limits on what one manifest may hold.
const (
	maxDependencies = 1024
	maxListed       = 1 << 16
)

// Warning is something in a manifest that has no effect.
type Warning struct {
	Path string // where: "app.isolators[2]"
	Text string
}

func (w Warning) String() string { return w.Path + ": " + w.Text }

// ParseImageManifest parses and validates an image manifest.
func ParseImageManifest(data []byte) (m *schema.ImageManifest, warnings []Warning, err error) {
	defer Fit(&err)
	defer rescue("image manifest", &err)
	registerArchs()
	c := cleaner{}
	doc, err := c.imageManifest(data)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing image manifest: %w", err)
	}
	m = &schema.ImageManifest{}
	if err := json.Unmarshal(doc, m); err != nil {
		return nil, nil, fmt.Errorf("parsing image manifest: %w", err)
	}
	if err := checkImage(m); err != nil {
		return nil, nil, fmt.Errorf("image manifest of %q: %w", m.Name, err)
	}
	return m, c.warnings, nil
}

// ParsePodManifest parses and validates a pod manifest.
func ParsePodManifest(data []byte) (m *schema.PodManifest, warnings []Warning, err error) {
	defer Fit(&err)
	defer rescue("pod manifest", &err)
	registerArchs()
	c := cleaner{}
	doc, err := c.podManifest(data)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing pod manifest: %w", err)
	}
	m = &schema.PodManifest{}
	if err := json.Unmarshal(doc, m); err != nil {
		return nil, nil, fmt.Errorf("parsing pod manifest: %w", err)
	}
	for i := range m.Apps {
		a := &m.Apps[i]
		if a.App != nil {
			if err := checkApp(a.App); err != nil {
				return nil, nil, fmt.Errorf("pod manifest: app %q: %w", a.Name, err)
			}
		}
		if a.Image.Name != nil {
			if err := CheckName(a.Image.Name.String()); err != nil {
				return nil, nil, fmt.Errorf("pod manifest: app %q: image: %w", a.Name, err)
			}
		}
		if !a.Image.ID.Empty() {
			if _, err := CheckHash(a.Image.ID.String()); err != nil {
				return nil, nil, fmt.Errorf("pod manifest: app %q: image: %w", a.Name, err)
			}
		}
	}
	return m, c.warnings, nil
}

// rescue turns a panic of the library into an error: it has known ones, and
// nobody repairs it.
func rescue(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("parsing %s: the manifest is malformed (%v)", what, p)
	}
}

// unfit is an error that would print what a manifest says as it is.
type unfit struct{ error }

func (u unfit) Unwrap() error { return u.error }

func (u unfit) Error() string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(u.error.Error(), "\ufffd") {
		if b.Len() > 4096 {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// Fit makes an error about a manifest fit for terminals and of bearable length:
// some repeat what they refuse as it is.
func Fit(err *error) {
	if *err == nil {
		return
	}
	if text := (*err).Error(); len(text) > 4096 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		*err = unfit{*err}
	}
}

func checkImage(m *schema.ImageManifest) error {
	if err := CheckName(m.Name.String()); err != nil {
		return err
	}
	if err := checkLabels(m.Labels); err != nil {
		return err
	}
	if len(m.Dependencies) > maxDependencies {
		return fmt.Errorf("%d dependencies, more than %d", len(m.Dependencies), maxDependencies)
	}
	for _, d := range m.Dependencies {
		if err := CheckName(d.ImageName.String()); err != nil {
			return fmt.Errorf("dependency: %w", err)
		}
		if err := checkLabels(d.Labels); err != nil {
			return fmt.Errorf("dependency %q: %w", d.ImageName, err)
		}
		if d.ImageID == nil {
			continue
		}
		digits, err := CheckHash(d.ImageID.String())
		if err != nil {
			return fmt.Errorf("dependency %q: %w", d.ImageName, err)
		}
		if len(digits) < KeyDigits {
			return fmt.Errorf("dependency %q: image ID %q is a prefix, the whole ID is needed", d.ImageName, d.ImageID)
		}
	}
	for _, p := range m.PathWhitelist {
		if !path.IsAbs(p) {
			return fmt.Errorf("pathWhitelist: %q is not an absolute path", p)
		}
	}
	if m.App != nil {
		return checkApp(m.App)
	}
	return nil
}

func checkLabels(labels types.Labels) error {
	for _, l := range labels {
		if err := CheckName(l.Name.String()); err != nil {
			return fmt.Errorf("label: %w", err)
		}
		if strings.ContainsFunc(l.Value, control) {
			return fmt.Errorf("label %q: value %q holds control characters", l.Name, l.Value)
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

func checkApp(a *types.App) error {
	for _, p := range a.MountPoints {
		if p.Name.Empty() {
			return fmt.Errorf("mount point %q has no name", p.Path)
		}
		if !path.IsAbs(p.Path) {
			return fmt.Errorf("mount point %q: path %q is not absolute", p.Name, p.Path)
		}
	}
	for _, p := range a.Ports {
		if p.Name.Empty() {
			return fmt.Errorf("port %d has no name", p.Port)
		}
	}
	if len(a.Environment) > maxListed || len(a.Exec) > maxListed || len(a.MountPoints) > maxListed {
		return errors.New("app has too many elements")
	}
	for _, e := range a.Environment {
		if strings.ContainsRune(e.Value, 0) {
			return fmt.Errorf("environment variable %q holds a NUL", e.Name)
		}
	}
	for _, arg := range a.Exec {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("exec: argument %q holds a NUL", arg)
		}
	}
	return nil
}

// cleaner rebuilds a manifest from the members the library knows, so that
// nothing reaches it under another spelling (Go matches member names in any
// case) or in a shape it cannot bear.
type cleaner struct {
	warnings []Warning
}

func (c *cleaner) imageManifest(data []byte) ([]byte, error) {
	top, err := object(data, "acKind", "acVersion", "name", "labels", "app", "annotations", "dependencies", "pathWhitelist")
	if err != nil {
		return nil, err
	}
	if err := c.app(top, "app", "app"); err != nil {
		return nil, err
	}
	return json.Marshal(top)
}

func (c *cleaner) podManifest(data []byte) ([]byte, error) {
	top, err := object(data, "acKind", "acVersion", "apps", "volumes", "isolators", "annotations", "ports", "userAnnotations", "userLabels")
	if err != nil {
		return nil, err
	}
	if raw, ok := top["isolators"]; ok {
		if top["isolators"], err = c.isolators(raw, "isolators"); err != nil {
			return nil, err
		}
	}
	if raw, ok := top["apps"]; ok {
		var apps []json.RawMessage
		if err := json.Unmarshal(raw, &apps); err != nil {
			return nil, fmt.Errorf("apps: %w", err)
		}
		for i, raw := range apps {
			where := fmt.Sprintf("apps[%d]", i)
			app, err := object(raw, "name", "image", "app", "readOnlyRootFS", "mounts", "annotations")
			if err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			if err := c.app(app, "app", where+".app"); err != nil {
				return nil, err
			}
			if apps[i], err = json.Marshal(app); err != nil {
				return nil, err
			}
		}
		if top["apps"], err = json.Marshal(apps); err != nil {
			return nil, err
		}
	}
	return json.Marshal(top)
}

func (c *cleaner) app(parent map[string]json.RawMessage, member, where string) error {
	raw, ok := parent[member]
	if !ok || isNull(raw) {
		return nil
	}
	app, err := object(raw, "exec", "eventHandlers", "user", "group", "supplementaryGIDs", "workingDirectory",
		"environment", "mountPoints", "ports", "isolators", "userAnnotations", "userLabels")
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if raw, ok := app["isolators"]; ok {
		if app["isolators"], err = c.isolators(raw, where+".isolators"); err != nil {
			return err
		}
	}
	parent[member], err = json.Marshal(app)
	return err
}

func (c *cleaner) isolators(raw json.RawMessage, where string) (json.RawMessage, error) {
	if isNull(raw) {
		return raw, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if len(list) > maxListed {
		return nil, fmt.Errorf("%s: too many", where)
	}
	kept := []json.RawMessage{}
	for i, raw := range list {
		at := fmt.Sprintf("%s[%d]", where, i)
		item, err := object(raw, "name", "value")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		if v, ok := item["value"]; !ok || isNull(v) {
			return nil, fmt.Errorf("%s: isolator %s has no value", at, item["name"])
		}
		doc, err := json.Marshal(item)
		if err != nil {
			return nil, err
		}
		var iso types.Isolator
		if err := iso.UnmarshalJSON(doc); err != nil {
			return nil, fmt.Errorf("%s: isolator %s: %w", at, item["name"], err)
		}
		if iso.Value() == nil {
			c.warnings = append(c.warnings, Warning{Path: at, Text: fmt.Sprintf("unknown isolator %q has no effect", iso.Name)})
			continue
		}
		kept = append(kept, doc)
	}
	return json.Marshal(kept)
}

// object decodes a JSON object and keeps the named members, spelt exactly so.
func object(data []byte, members ...string) (map[string]json.RawMessage, error) {
	if len(data) > MaxManifest {
		return nil, fmt.Errorf("larger than %d bytes", MaxManifest)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8, as JSON must be")
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			before := data[:min(int64(len(data)), syntax.Offset)]
			return nil, fmt.Errorf("line %d: %w", 1+bytes.Count(before, []byte("\n")), err)
		}
		return nil, err
	}
	if all == nil {
		return nil, errors.New("not a JSON object")
	}
	kept := make(map[string]json.RawMessage, len(members))
	for _, m := range members {
		if v, ok := all[m]; ok {
			kept[m] = v
		}
	}
	return kept, nil
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

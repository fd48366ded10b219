package image

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

// Kind is the form of a reference.
type Kind string

const (
	KindHash          Kind = "hash"
	KindPath          Kind = "path" // also file://
	KindURL           Kind = "url"  // http, https
	KindName          Kind = "name"
	KindDocker        Kind = "docker"
	KindOCI           Kind = "oci"
	KindOCIArchive    Kind = "oci-archive"
	KindDockerArchive Kind = "docker-archive"
)

// Ref is a parsed image reference.
type Ref struct {
	Kind   Kind
	Text   string            // as typed
	Hash   string            // KindHash: "sha512-" and lower-case digits
	Path   string            // KindPath: absolute
	URL    string            // KindURL
	Name   string            // KindName
	Labels map[string]string // KindName
	Docker oci.Reference     // KindDocker
	Layout oci.LayoutRef     // KindOCI, KindOCIArchive, KindDockerArchive
}

// UnsupportedError means that a reference is understood but its transport is not built in.
type UnsupportedError struct {
	Kind Kind
	Ref  string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("image %q: %s images are not supported by this build yet", e.Ref, e.Kind)
}

// ParseRef tells the forms of image references apart; only paths are looked up
// on disk: an existing regular file wins over a name.
func ParseRef(text string) (Ref, error) {
	return parseRef(text, func(path string) bool {
		st, err := os.Stat(path)
		return err == nil && st.Mode().IsRegular()
	})
}

// ParseStored parses what the image commands take: a hash or a name, with
// labels exactly as given.
func ParseStored(text string) (Ref, error) {
	ref, err := parseRef(text, func(string) bool { return false })
	if err == nil && ref.Kind != KindHash && ref.Kind != KindName {
		err = fmt.Errorf("image %q: want an image ID or a name", text)
	}
	return ref, err
}

func parseRef(text string, isFile func(string) bool) (Ref, error) {
	ref := Ref{Text: text}
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return ref, fmt.Errorf("bad image reference %q", text)
	}
	if strings.HasPrefix(text, appc.HashPrefix) {
		digits, err := appc.CheckHash(text)
		ref.Kind, ref.Hash = KindHash, appc.HashPrefix+digits
		return ref, err
	}
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		scheme = ""
	}
	switch strings.ToLower(scheme) {
	case "docker":
		return registryRef(ref, rest)
	case "oci", "oci-archive", "docker-archive":
		return layoutRef(ref, Kind(strings.ToLower(scheme)), rest)
	case "file":
		return fileURL(ref)
	case "http", "https":
		return webURL(ref)
	case "cimd":
		return internalURI(ref, rest)
	case "appc", "aci":
		return parseName(ref, rest)
	}
	switch {
	case filepath.IsAbs(text), isFile(text):
		return pathRef(ref, text)
	case !ok && (strings.Contains(text, "./") || filepath.Ext(text) == ".aci"):
		return pathRef(ref, text)
	}
	named, err := parseName(ref, text)
	host, _, _ := strings.Cut(text, "/")
	switch {
	case err != nil && strings.Contains(text, "/"):
		err = withCandidates(text, err)
	case err == nil && (host == "docker.io" || host == "index.docker.io"):
		// Docker Hub answers no discovery, and stored images carry its other name.
		err = withCandidates(text, fmt.Errorf("image %q: a reference to a registry needs its scheme", text))
	}
	return named, err
}

// CandidatesError means that a text is no reference, or not one that can be
// found, but would be with a scheme.
type CandidatesError struct {
	Candidates []string
	Err        error
}

func (e *CandidatesError) Error() string { return e.Err.Error() }
func (e *CandidatesError) Unwrap() error { return e.Err }

// Hint is what to type.
func (e *CandidatesError) Hint() string {
	return "for an image of a registry type " + strings.Join(e.Candidates, " or ")
}

// withCandidates adds to an error what the text could stand for.
func withCandidates(text string, err error) error {
	list := candidates(text)
	if len(list) == 0 {
		return err
	}
	return &CandidatesError{list, fmt.Errorf("%w (images of a registry are written %s)", err, strings.Join(list, " or "))}
}

// Candidates are the registry references that a name could have been meant as:
// rkt guesses at none, it prints them when the name cannot be found.
func (r Ref) Candidates() []string {
	if r.Kind != KindName {
		return nil
	}
	return candidates(r.Text)
}

func candidates(text string) []string {
	docker, err := oci.ParseReference(text)
	if err != nil {
		return nil
	}
	return []string{"docker://" + docker.Display()}
}

func registryRef(ref Ref, rest string) (Ref, error) {
	docker, err := oci.ParseReference(rest)
	if err != nil {
		return ref, fmt.Errorf("image %q: %w", ref.Text, err)
	}
	ref.Kind, ref.Docker = KindDocker, docker
	return ref, nil
}

// layoutRef parses a reference to images on disk.
func layoutRef(ref Ref, kind Kind, rest string) (Ref, error) {
	if strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///") {
		err := fmt.Errorf("image %q: a path has no host (%s:PATH); images of a registry are written docker:%s", ref.Text, kind, rest)
		return ref, &CandidatesError{[]string{"docker:" + rest}, err}
	}
	parse := oci.ParseLayoutRef
	if kind == KindDockerArchive {
		parse = oci.ParseDockerArchiveRef
	}
	layout, err := parse(rest)
	if err != nil {
		return ref, fmt.Errorf("image %q: %w", ref.Text, err)
	}
	ref.Kind, ref.Layout = kind, layout
	return ref, nil
}

func pathRef(ref Ref, path string) (Ref, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return ref, fmt.Errorf("image %q: %w", ref.Text, err)
	}
	ref.Kind, ref.Path = KindPath, abs
	return ref, nil
}

func fileURL(ref Ref) (Ref, error) {
	u, err := url.Parse(ref.Text)
	switch {
	case err != nil:
		return ref, fmt.Errorf("image %q: %w", ref.Text, err)
	case u.Host != "" && u.Host != "localhost":
		return ref, fmt.Errorf("image %q: a file URL names no host (file:///path)", ref.Text)
	case !filepath.IsAbs(u.Path):
		return ref, fmt.Errorf("image %q: the path of a file URL is absolute", ref.Text)
	}
	return pathRef(ref, u.Path)
}

func webURL(ref Ref) (Ref, error) {
	u, err := url.Parse(ref.Text)
	switch {
	case err != nil:
		return ref, fmt.Errorf("image %q: %w", ref.Text, err)
	case u.Host == "":
		return ref, fmt.Errorf("image %q: the URL names no host", ref.Text)
	case u.User != nil:
		return ref, fmt.Errorf("image %q: credentials belong into auth.d, not into the URL", u.Redacted())
	}
	ref.Kind, ref.URL = KindURL, ref.Text
	return ref, nil
}

// internalURI parses "TYPE:v=N:DATA", the form in which references are recorded.
func internalURI(ref Ref, rest string) (Ref, error) {
	typ, rest, _ := strings.Cut(rest, ":")
	version, data, ok := strings.Cut(rest, ":")
	if !ok || version != "v=0" {
		return ref, fmt.Errorf("image %q: want cimd:TYPE:v=0:DATA", ref.Text)
	}
	switch typ {
	case "docker":
		return registryRef(ref, data)
	case "aci-archive":
		target, err := url.QueryUnescape(data)
		if err != nil || !strings.Contains(target, "://") {
			return ref, fmt.Errorf("image %q: want an escaped URL", ref.Text)
		}
		inner, err := parseRef(target, func(string) bool { return false })
		if err == nil && inner.Kind != KindPath && inner.Kind != KindURL {
			err = fmt.Errorf("image %q: want an escaped file, http or https URL", ref.Text)
		}
		inner.Text = ref.Text
		return inner, err
	case "appc":
		name, query, _ := strings.Cut(data, "?")
		labels, err := url.ParseQuery(query)
		if err != nil {
			return ref, fmt.Errorf("image %q: %w", ref.Text, err)
		}
		ref.Kind, ref.Name, ref.Labels = KindName, name, map[string]string{}
		for k, v := range labels {
			if len(v) != 1 {
				return ref, fmt.Errorf("image %q: label %q given twice", ref.Text, k)
			}
			ref.Labels[k] = v[0]
		}
		return ref, ref.checkName()
	}
	return ref, fmt.Errorf("image %q: unknown type %q: must be one of appc, aci-archive, docker", ref.Text, typ)
}

// parseName parses NAME[:VERSION][,LABEL=VALUE]….
func parseName(ref Ref, text string) (Ref, error) {
	ref.Kind, ref.Labels = KindName, map[string]string{}
	parts := strings.Split(text, ",")
	name, version, versioned := strings.Cut(parts[0], ":")
	ref.Name = name
	if versioned {
		if strings.Contains(version, "/") {
			return ref, fmt.Errorf("image %q: %q cannot be a version", ref.Text, version)
		}
		if strings.Contains(version, ":") {
			return ref, fmt.Errorf("image %q: more than one colon", ref.Text)
		}
		ref.Labels["version"] = version
	}
	for _, p := range parts[1:] {
		k, v, ok := strings.Cut(p, "=")
		if !ok {
			return ref, fmt.Errorf("image %q: label %q has no value (LABEL=VALUE)", ref.Text, p)
		}
		if _, twice := ref.Labels[k]; twice {
			return ref, fmt.Errorf("image %q: label %q given twice", ref.Text, k)
		}
		ref.Labels[k] = v
	}
	return ref, ref.checkName()
}

func (r Ref) checkName() error {
	if err := appc.CheckName(r.Name); err != nil {
		return fmt.Errorf("image %q: %w", r.Text, err)
	}
	for k, v := range r.Labels {
		if k == "name" {
			return fmt.Errorf("image %q: no label is named %q", r.Text, k)
		}
		if err := appc.CheckName(k); err != nil {
			return fmt.Errorf("image %q: label: %w", r.Text, err)
		}
		if v == "" && slices.Contains([]string{"version", "os", "arch"}, k) {
			return fmt.Errorf("image %q: label %q is empty", r.Text, k)
		}
	}
	return nil
}

// String is the canonical form: equal references have equal strings, and
// ParseRef understands it.
func (r Ref) String() string {
	switch r.Kind {
	case KindHash:
		return r.Hash
	case KindPath:
		return "cimd:aci-archive:v=0:" + url.QueryEscape("file://"+(&url.URL{Path: r.Path}).EscapedPath())
	case KindURL:
		return "cimd:aci-archive:v=0:" + url.QueryEscape(r.URL)
	case KindName:
		q := url.Values{}
		for k, v := range r.Labels {
			q.Set(k, v)
		}
		return "cimd:appc:v=0:" + r.Name + "?" + q.Encode()
	case KindDocker:
		return "cimd:docker:v=0:" + r.Docker.String()
	}
	return string(r.Kind) + ":" + r.Layout.String()
}

// display is NAME[:VERSION][,LABEL=VALUE]….
func (r Ref) display() string {
	out := r.Name
	if v, ok := r.Labels["version"]; ok {
		out += ":" + v
	}
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		if k != "version" {
			out += "," + k + "=" + r.Labels[k]
		}
	}
	return out
}

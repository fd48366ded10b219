package config

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Registry is how images below a prefix are fetched.
type Registry struct {
	Prefix   string           `json:"prefix"`             // host[:port][/path], the hub's host as HubHost
	Location string           `json:"location,omitempty"` // fetched instead of Prefix
	Mirrors  []Mirror         `json:"mirrors,omitempty"`  // asked first, in this order
	Insecure bool             `json:"insecure,omitempty"` // any certificate, or plain http
	Blocked  bool             `json:"blocked,omitempty"`
	CA       string           `json:"ca,omitempty"` // absolute path of a PEM file
	Verify   Verify           `json:"verify,omitempty"`
	Timeouts RegistryTimeouts `json:"timeouts,omitzero"`
}

// Mirror is another place with the same images.
type Mirror struct {
	Location string `json:"location"`
	Insecure bool   `json:"insecure,omitempty"`
	Pull     Pull   `json:"pull,omitempty"`
}

// Pull says for which references a mirror is asked.
type Pull string

// Pull rules; empty means PullAll.
const (
	PullAll    Pull = "all"
	PullDigest Pull = "digest-only"
	PullTag    Pull = "tag-only"
)

// Verify is what admits an image.
type Verify string

// Policies of verification.
const (
	VerifyDefault   Verify = ""          // a digest in the reference, a signature or the insecure option
	VerifySignature Verify = "signature" // a signature, even with a digest
	VerifyDigest    Verify = "digest"    // a digest in the reference
	VerifyNone      Verify = "none"      // nothing is asked for
)

// RegistryTimeouts are limits of waiting; zero means the default.
type RegistryTimeouts struct {
	Connect Duration `json:"connect,omitzero"`
	TLS     Duration `json:"tls,omitzero"`
	Header  Duration `json:"header,omitzero"`
	Stall   Duration `json:"stall,omitzero"`
}

// Duration is written as in Go: "90s", "1m30s".
type Duration time.Duration

// MarshalText writes the duration as text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a positive duration of at most an hour.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	switch {
	case err != nil:
		return err
	case v <= 0 || v > time.Hour:
		return fmt.Errorf("duration %q is not between 0 and 1h", text)
	}
	*d = Duration(v)
	return nil
}

// HubHost is the name under which the Docker Hub is kept.
const HubHost = "registry-1.docker.io"

// RegistryHost gives the one name of a registry's host: lower case, the hub's
// other names replaced.
func RegistryHost(host string) string {
	host = strings.ToLower(host)
	switch host {
	case "docker.io", "index.docker.io", HubHost:
		return HubHost
	}
	return host
}

// RegistryFor finds the settings of a repository: those of the longest prefix.
func (c *Config) RegistryFor(host, repository string) (Registry, bool) {
	if c == nil {
		return Registry{}, false
	}
	name := RegistryHost(host)
	if repository != "" {
		name += "/" + repository
	}
	for {
		if r, ok := c.Registries[name]; ok {
			return r, true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return Registry{}, false
		}
		name = name[:i]
	}
}

// DockerAuthFor finds the password for a registry.
func (c *Config) DockerAuthFor(host string) (BasicSecret, bool) {
	if c == nil {
		return BasicSecret{}, false
	}
	if s, ok := c.DockerAuth[host]; ok {
		return s, true
	}
	host = RegistryHost(host)
	if s, ok := c.DockerAuth[host]; ok || host != HubHost {
		return s, ok
	}
	for _, alias := range []string{"docker.io", "index.docker.io"} {
		if s, ok := c.DockerAuth[alias]; ok {
			return s, true
		}
	}
	return BasicSecret{}, false
}

const (
	maxMirrors  = 16
	maxLocation = 512
)

// locationRE is host[:port] and path components as repositories have them.
var locationRE = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)

// registryPlace checks a place and gives it its one spelling.
func registryPlace(what, s string) (string, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("%s is missing or empty", what)
	case strings.Contains(s, "://"):
		return "", fmt.Errorf("%s %q has a scheme: write HOST[:PORT][/PATH]", what, s)
	case len(s) > maxLocation || !locationRE.MatchString(s):
		return "", fmt.Errorf("%s %q is not of the form HOST[:PORT][/PATH]", what, s)
	}
	host, path, found := strings.Cut(s, "/")
	if host = RegistryHost(host); found {
		host += "/" + path
	}
	return host, nil
}

func (l *layer) parseRegistry(file string, data []byte) error {
	var r Registry
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if err := l.define(file, fmt.Sprintf("registry prefix %q", r.Prefix)); err != nil {
		return err
	}
	l.registries[r.Prefix] = r
	return nil
}

func (r *Registry) check() (err error) {
	if r.Prefix, err = registryPlace("prefix", r.Prefix); err != nil {
		return err
	}
	if r.Location != "" {
		if r.Location, err = registryPlace("location", r.Location); err != nil {
			return err
		}
	}
	if len(r.Mirrors) > maxMirrors {
		return fmt.Errorf("%d mirrors: at most %d are allowed", len(r.Mirrors), maxMirrors)
	}
	for i := range r.Mirrors {
		m := &r.Mirrors[i]
		if m.Location, err = registryPlace(fmt.Sprintf("location of mirror %d", i+1), m.Location); err != nil {
			return err
		}
		if !slices.Contains([]Pull{"", PullAll, PullDigest, PullTag}, m.Pull) {
			return fmt.Errorf("pull rule %q of mirror %q: must be one of all, digest-only, tag-only", m.Pull, m.Location)
		}
	}
	if !slices.Contains([]Verify{VerifyDefault, VerifySignature, VerifyDigest, VerifyNone}, r.Verify) {
		return fmt.Errorf("verify %q: must be one of signature, digest, none", r.Verify)
	}
	if r.CA == "" {
		return nil
	}
	if !filepath.IsAbs(r.CA) {
		return fmt.Errorf("path %q is not absolute: %q", "ca", r.CA)
	}
	return nil
}

// CAFile reads the certificates that CA names.
func (r Registry) CAFile() ([]byte, error) {
	data, err := readFile(r.CA)
	if err != nil {
		return nil, fmt.Errorf("reading certificates of registry %q: %w", r.Prefix, err)
	}
	if block, _ := pem.Decode(data); block == nil {
		return nil, fmt.Errorf("reading certificates of registry %q: %q: %w", r.Prefix, r.CA, errors.New("no PEM block"))
	}
	return data, nil
}

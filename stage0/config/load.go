package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/netsettings"
)

const maxFile = 1 << 20

// Kinds of configuration files.
const (
	kindAuth       = "auth"
	kindDockerAuth = "dockerAuth"
	kindPaths      = "paths"
	kindStage1     = "stage1"
	kindRegistry   = "registry"
	versionV1      = "v1"
)

// subdir is a layer's sub-directory and the kinds of files it may hold.
type subdir struct {
	name  string
	kinds []string
}

func subdirs() []subdir {
	return []subdir{
		{"auth.d", []string{kindAuth, kindDockerAuth}},
		{"paths.d", []string{kindPaths}},
		{"stage1.d", []string{kindStage1}},
		{"registries.d", []string{kindRegistry}},
		{netsettings.Subdir, []string{netsettings.Kind}},
	}
}

// Load reads and merges the layers.
func Load(d Dirs) (*Config, error) {
	merged := &Config{Auth: map[string]Auth{}, DockerAuth: map[string]BasicSecret{}, Registries: map[string]Registry{}}
	for _, dir := range []string{d.System, d.Local, d.User} {
		if dir == "" {
			continue
		}
		l, err := loadLayer(dir)
		if err != nil {
			return nil, fmt.Errorf("reading configuration: %w", err)
		}
		merged.overlay(l)
		if dir != d.User { // networks are the host's
			merged.Network = merged.Network.Overlay(l.network)
		}
	}
	return merged, nil
}

// overlay replaces the units that the stronger layer defines.
func (c *Config) overlay(l *layer) {
	maps.Copy(c.Auth, l.auth)
	maps.Copy(c.DockerAuth, l.dockerAuth)
	maps.Copy(c.Registries, l.registries)
	if l.paths.Data != "" {
		c.Paths.Data = l.paths.Data
	}
	if l.paths.Stage1Images != "" {
		c.Paths.Stage1Images = l.paths.Stage1Images
	}
	if l.stage1.Name != "" {
		c.Stage1.Name, c.Stage1.Version = l.stage1.Name, l.stage1.Version
	}
	if l.stage1.Location != "" {
		c.Stage1.Location = l.stage1.Location
	}
}

// layer is the union of one layer's files; origin tells which file defined what.
type layer struct {
	auth       map[string]Auth
	dockerAuth map[string]BasicSecret
	paths      Paths
	stage1     Stage1
	registries map[string]Registry
	network    netsettings.Settings
	origin     map[string]string
}

func newLayer() *layer {
	return &layer{
		auth: map[string]Auth{}, dockerAuth: map[string]BasicSecret{},
		registries: map[string]Registry{}, origin: map[string]string{},
	}
}

func loadLayer(dir string) (*layer, error) {
	l := newLayer()
	if ok, err := isDir(dir); !ok {
		return l, err
	}
	for _, sub := range subdirs() {
		files, err := jsonFiles(filepath.Join(dir, sub.name))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := l.load(file, sub); err != nil {
				return nil, fmt.Errorf("%q: %w", file, err)
			}
		}
	}
	return l, nil
}

func isDir(path string) (bool, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !st.IsDir():
		return false, fmt.Errorf("%q is not a directory", path)
	}
	return true, nil
}

// jsonFiles lists the regular *.json files directly in dir.
func jsonFiles(dir string) ([]string, error) {
	if ok, err := isDir(dir); !ok {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".json") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

func (l *layer) load(file string, sub subdir) error {
	data, err := readFile(file)
	if err != nil {
		return err
	}
	return l.parse(file, sub, data)
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return data, err
}

func (l *layer) parse(file string, sub subdir, data []byte) error {
	var head struct {
		Kind    string `json:"rktKind"`
		Version string `json:"rktVersion"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	switch {
	case head.Kind == "":
		return errors.New("no rktKind")
	case !slices.Contains(sub.kinds, head.Kind):
		return fmt.Errorf("the kind is %q; files in %s must be of kind %s", head.Kind, sub.name, strings.Join(sub.kinds, " or "))
	case head.Version == "":
		return errors.New("no rktVersion")
	case head.Version != versionV1:
		return fmt.Errorf("version %q of kind %q is not known; only %q is", head.Version, head.Kind, versionV1)
	}
	switch head.Kind {
	case kindAuth:
		return l.parseAuth(file, data)
	case kindDockerAuth:
		return l.parseDockerAuth(file, data)
	case kindPaths:
		return l.parsePaths(file, data)
	case kindRegistry:
		return l.parseRegistry(file, data)
	case netsettings.Kind:
		v, err := netsettings.Parse(data)
		l.network = l.network.Overlay(v)
		return err
	default:
		return l.parseStage1(file, data)
	}
}

// define notes which file defines a unit and refuses a second definition.
func (l *layer) define(file, unit string) error {
	if first, ok := l.origin[unit]; ok {
		return fmt.Errorf("%s is already defined in %q", unit, first)
	}
	l.origin[unit] = file
	return nil
}

func (l *layer) parseAuth(file string, data []byte) error {
	var v struct {
		Domains     []string        `json:"domains"`
		Type        string          `json:"type"`
		Credentials json.RawMessage `json:"credentials"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if len(v.Domains) == 0 {
		return errors.New("no domains")
	}
	a, err := parseCredentials(v.Type, v.Credentials)
	if err != nil {
		return err
	}
	for _, d := range v.Domains {
		if d == "" {
			return errors.New("a domain is empty")
		}
		if err := l.define(file, fmt.Sprintf("auth for domain %q", d)); err != nil {
			return err
		}
		l.auth[d] = a
	}
	return nil
}

func parseCredentials(typ string, raw json.RawMessage) (Auth, error) {
	a := Auth{Type: typ}
	var into any
	switch typ {
	case AuthBasic:
		into = &a.Basic
	case AuthOAuth:
		into = &a.OAuth
	case AuthAWS:
		into = &a.AWS
	case "":
		return a, errors.New("no auth type")
	default:
		return a, fmt.Errorf("unknown auth type %q: must be one of basic, oauth, aws", typ)
	}
	if len(raw) == 0 {
		return a, errors.New("no credentials")
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return a, fmt.Errorf("credentials: %w", err)
	}
	switch typ {
	case AuthBasic:
		return a, a.Basic.check()
	case AuthOAuth:
		return a, required("token", a.OAuth.Token)
	default:
		return a, errors.Join(required("accessKeyID", a.AWS.AccessKeyID), required("secretAccessKey", a.AWS.SecretAccessKey))
	}
}

func (s BasicSecret) check() error {
	return errors.Join(required("user", s.User), required("password", s.Password))
}

func required(field, value string) error {
	if value == "" {
		return fmt.Errorf("credentials: %s is missing or empty", field)
	}
	return nil
}

func (l *layer) parseDockerAuth(file string, data []byte) error {
	var v struct {
		Registries  []string    `json:"registries"`
		Credentials BasicSecret `json:"credentials"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if len(v.Registries) == 0 {
		return errors.New("no registries")
	}
	if err := v.Credentials.check(); err != nil {
		return err
	}
	for _, r := range v.Registries {
		if r == "" {
			return errors.New("a registry is empty")
		}
		if err := l.define(file, fmt.Sprintf("auth for registry %q", r)); err != nil {
			return err
		}
		l.dockerAuth[r] = v.Credentials
	}
	return nil
}

func (l *layer) parsePaths(file string, data []byte) error {
	var v Paths
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	set := func(field, value string, into *string) error {
		if value == "" {
			return nil
		}
		if !filepath.IsAbs(value) {
			return fmt.Errorf("path %q is not absolute: %q", field, value)
		}
		*into = value
		return l.define(file, fmt.Sprintf("path %q", field))
	}
	if err := set("data", v.Data, &l.paths.Data); err != nil {
		return err
	}
	return set("stage1-images", v.Stage1Images, &l.paths.Stage1Images)
}

func (l *layer) parseStage1(file string, data []byte) error {
	var v Stage1
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if (v.Name == "") != (v.Version == "") {
		return errors.New("the default stage1 image needs both name and version, or neither")
	}
	if v.Name != "" {
		if err := l.define(file, "name and version of the default stage1 image"); err != nil {
			return err
		}
		l.stage1.Name, l.stage1.Version = v.Name, v.Version
	}
	if v.Location == "" {
		return nil
	}
	if err := checkLocation(v.Location); err != nil {
		return err
	}
	l.stage1.Location = v.Location
	return l.define(file, "location of the default stage1 image")
}

func checkLocation(loc string) error {
	if filepath.IsAbs(loc) {
		return nil
	}
	u, err := url.Parse(loc)
	if err != nil {
		return fmt.Errorf("default stage1 image location: %w", err)
	}
	switch u.Scheme {
	case "file", "docker", "http", "https":
		return nil
	case "":
		return fmt.Errorf("default stage1 image location is either a relative path or a URL without scheme: %q", loc)
	}
	return fmt.Errorf("default stage1 image location %q has scheme %q: must be one of file, docker, http, https", loc, u.Scheme)
}

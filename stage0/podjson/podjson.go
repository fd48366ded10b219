// Package podjson writes pod files: plain JSON in the order and the short forms
// that a person would write. What is written is read back by internal/podfile
// before it is used, so the two never disagree.
package podjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/podfile"
)

// Pod is a pod file.
type Pod struct {
	Apps            []App             `json:"apps"`
	Volumes         []any             `json:"volumes,omitempty"`
	Ports           []any             `json:"ports,omitempty"`
	Isolators       json.RawMessage   `json:"isolators,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	UserAnnotations map[string]string `json:"userAnnotations,omitempty"`
	UserLabels      map[string]string `json:"userLabels,omitempty"`
	Systemd         *Systemd          `json:"systemd,omitempty"`
	Rkt             *Options          `json:"rkt,omitempty"`
}

// App is one of its apps.
type App struct {
	Name              string            `json:"name,omitempty"`
	Image             any               `json:"image"` // a reference, or an Image
	App               json.RawMessage   `json:"app,omitempty"`
	Exec              []string          `json:"exec,omitempty"`
	Args              []string          `json:"args,omitempty"`
	User              string            `json:"user,omitempty"`
	Group             string            `json:"group,omitempty"`
	SupplementaryGIDs []int             `json:"supplementaryGIDs,omitempty"`
	WorkingDirectory  string            `json:"workingDirectory,omitempty"`
	Environment       Values            `json:"environment,omitempty"`
	ReadOnlyRootFS    bool              `json:"readOnlyRootFS,omitempty"`
	Mounts            []any             `json:"mounts,omitempty"`
	Ports             []AppPort         `json:"ports,omitempty"`
	Isolators         json.RawMessage   `json:"isolators,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	Stdin             string            `json:"stdin,omitempty"`
	Stdout            string            `json:"stdout,omitempty"`
	Stderr            string            `json:"stderr,omitempty"`
	Health            json.RawMessage   `json:"health,omitempty"`
	Credentials       []AppCredential   `json:"credentials,omitempty"`
	Update            string            `json:"update,omitempty"`
	Systemd           *Systemd          `json:"systemd,omitempty"`
}

// Image names an image without a reference string.
type Image struct {
	Name   string            `json:"name,omitempty"`
	ID     string            `json:"id,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// AppCredential is a credential that an app gets.
type AppCredential struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Env  string `json:"env,omitempty"`
}

// Credential says where a credential comes from.
type Credential struct {
	Load      string `json:"load,omitempty"`
	Encrypted string `json:"encrypted,omitempty"`
	Set       string `json:"set,omitempty"`
}

// AppPort is a port that an app listens on.
type AppPort struct {
	Name     string `json:"name"`
	Port     uint   `json:"port"`
	Protocol string `json:"protocol,omitempty"`
	Count    uint   `json:"count,omitempty"`
}

// Systemd are sections of units.
type Systemd struct {
	Unit    Values `json:"unit,omitempty"`
	Service Values `json:"service,omitempty"`
	Install Values `json:"install,omitempty"`
	Socket  Values `json:"socket,omitempty"`
	Timer   Values `json:"timer,omitempty"`
	Path    Values `json:"path,omitempty"`
}

// Empty reports whether nothing is set.
func (s *Systemd) Empty() bool {
	return s == nil || len(s.Unit)+len(s.Service)+len(s.Install)+len(s.Socket)+len(s.Timer)+len(s.Path) == 0
}

// Options are the "rkt" section.
type Options struct {
	Net              []string `json:"net,omitempty"`
	Hostname         string   `json:"hostname,omitempty"`
	Stage1           string   `json:"stage1,omitempty"`
	PullPolicy       string   `json:"pullPolicy,omitempty"`
	InsecureOptions  []string `json:"insecureOptions,omitempty"`
	NoOverlay        bool     `json:"noOverlay,omitempty"`
	PrivateUsers     *bool    `json:"privateUsers,omitempty"`
	DNS              []string `json:"dns,omitempty"`
	DNSSearch        []string `json:"dnsSearch,omitempty"`
	DNSOptions       []string `json:"dnsOptions,omitempty"`
	DNSDomain        string   `json:"dnsDomain,omitempty"`
	HostsEntries     []string `json:"hostsEntries,omitempty"`
	IPC              string   `json:"ipc,omitempty"`
	Environment      Values   `json:"environment,omitempty"`
	EnvironmentFiles []string `json:"environmentFiles,omitempty"`

	Profile      string                `json:"profile,omitempty"`
	Update       any                   `json:"update,omitempty"` // a policy, or an object
	Ready        string                `json:"ready,omitempty"`
	Journal      string                `json:"journal,omitempty"`
	LogNamespace string                `json:"logNamespace,omitempty"`
	Credentials  map[string]Credential `json:"credentials,omitempty"`
}

// Values are an object whose keys keep their order; a key that comes again makes
// its value a list.
type Values []Value

// Value is a key and its value.
type Value struct{ Key, Value string }

// Add appends a value.
func (v *Values) Add(key, value string) { *v = append(*v, Value{key, value}) }

// Set replaces the values of a key.
func (v *Values) Set(key, value string) {
	for i := range *v {
		if (*v)[i].Key == key {
			(*v)[i].Value = value
			return
		}
	}
	v.Add(key, value)
}

// MarshalJSON writes the object.
func (v Values) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	done := map[string]bool{}
	for _, kv := range v {
		if done[kv.Key] {
			continue
		}
		done[kv.Key] = true
		var all []string
		for _, other := range v {
			if other.Key == kv.Key {
				all = append(all, other.Value)
			}
		}
		var value any = all
		if len(all) == 1 {
			value = all[0]
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		for i, x := range []any{kv.Key, value} {
			text, err := encode(x)
			if err != nil {
				return nil, err
			}
			if i == 1 {
				b.WriteByte(':')
			}
			b.Write(text)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *Values) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return errors.New("podjson: want an object")
	}
	*v = nil
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		name, _ := key.(string)
		var all []string
		if bytes.HasPrefix(raw, []byte("[")) {
			err = json.Unmarshal(raw, &all)
		} else {
			all = make([]string, 1)
			err = json.Unmarshal(raw, &all[0])
		}
		if err != nil {
			return err
		}
		for _, s := range all {
			v.Add(name, s)
		}
	}
	return nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// Bytes is the file's text. It is read back: a pod that could not be run is an
// error, which lists all problems.
func (p *Pod) Bytes(name string) ([]byte, []podfile.Problem, error) {
	if p.Rkt != nil {
		if text, err := encode(p.Rkt); err == nil && string(text) == "{}" {
			p.Rkt = nil
		}
	}
	if p.Systemd.Empty() {
		p.Systemd = nil
	}
	raw, err := encode(p)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return nil, nil, err
	}
	b.WriteByte('\n')
	_, problems := podfile.Parse(name, []podfile.File{{Path: name + ".json", Data: b.Bytes()}})
	if podfile.Failed(problems) {
		var errs []error
		for _, pr := range problems {
			if pr.Severity == podfile.Error {
				errs = append(errs, pr)
			}
		}
		return b.Bytes(), problems, errors.Join(errs...)
	}
	return b.Bytes(), problems, nil
}

// ErrExists means that there is a pod file already.
var ErrExists = errors.New("pod file exists")

// Mode is that of a pod file to be written: for root alone if it is private, and
// never for more readers than a file has that it replaces.
func Mode(path string, private bool) os.FileMode {
	mode := os.FileMode(0o644)
	if private {
		mode = 0o600
	}
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		mode &= st.Mode().Perm() | 0o600
	}
	return mode
}

// Install writes a pod file into dir, whole or not at all. One that is there is
// only replaced if that is asked for; see Mode.
func Install(dir, name string, text []byte, private, replace bool) (string, error) {
	if err := podfile.CheckName(name); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".json")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); err == nil && !replace {
		return "", fmt.Errorf("%w: %s", ErrExists, path)
	}
	if err := atomicfile.WriteFile(path, text, Mode(path, private)); err != nil {
		return "", fmt.Errorf("writing %q: %w", path, err)
	}
	return path, nil
}

// Volume is a volume of a pod; it is written as the command line has it, if that
// can be.
type Volume struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Source    string `json:"source,omitempty"`
	ReadOnly  *bool  `json:"readOnly,omitempty"`
	Recursive *bool  `json:"recursive,omitempty"`
	Mode      string `json:"mode,omitempty"`
	UID       *int   `json:"uid,omitempty"`
	GID       *int   `json:"gid,omitempty"`
	Owner     string `json:"owner,omitempty"`
}

// MarshalJSON writes the volume.
func (v Volume) MarshalJSON() ([]byte, error) {
	if strings.ContainsAny(v.Source, ",=") {
		type long Volume
		return encode(long(v))
	}
	s := v.Name + ",kind=" + v.Kind
	add := func(key, value string) {
		if value != "" {
			s += "," + key + "=" + value
		}
	}
	add("source", v.Source)
	for _, b := range []struct {
		key string
		v   *bool
	}{{"readOnly", v.ReadOnly}, {"recursive", v.Recursive}} {
		if b.v != nil {
			add(b.key, strconv.FormatBool(*b.v))
		}
	}
	add("mode", v.Mode)
	for _, n := range []struct {
		key string
		v   *int
	}{{"uid", v.UID}, {"gid", v.GID}} {
		if n.v != nil {
			add(n.key, strconv.Itoa(*n.v))
		}
	}
	add("owner", v.Owner)
	return encode(s)
}

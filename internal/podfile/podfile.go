// Package podfile reads declared pods: /etc/rkt/pods/NAME.json, an appc
// PodManifest with extensions, its drop-ins and its templates. It is the one
// parser behind the generator, `rkt pod check` and `rkt pod run`, so that the
// three never disagree.
//
// A file is hostile until checked: sizes and depths are limited, only regular
// files are read, names and values are checked here. All problems of a file
// are reported, each with file, line, column and JSON path. What only stage0
// can know (images, users, isolator values) is left to it; those parts are
// handed on as raw JSON.
//
// The generator links this package at every boot: it imports neither
// encoding/json nor appc/spec, only the standard library's leaves, jsonpos, stdio
// and unitfile. docs/pod-file.md describes the format for its users.
package podfile

import (
	"strconv"

	"github.com/rkt-systemd/rkt/internal/appcred"
	"github.com/rkt-systemd/rkt/internal/apphealth"
	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// Raw is a piece of JSON handed on as it is. It is a json.Marshaler and
// json.Unmarshaler like json.RawMessage, without linking encoding/json.
type Raw []byte

// MarshalJSON returns r, or null when r is empty.
func (r Raw) MarshalJSON() ([]byte, error) {
	if len(r) == 0 {
		return []byte("null"), nil
	}
	return r, nil
}

// UnmarshalJSON keeps a copy of data.
func (r *Raw) UnmarshalJSON(data []byte) error {
	*r = append((*r)[:0], data...)
	return nil
}

// Pod is a declared pod, checked and with drop-ins merged and specifiers
// resolved.
type Pod struct {
	// Name is the pod's name: the instance of rkt@NAME.service, "web" or
	// "web@x" for an instance of the template web@.json, "web@" for the
	// template itself.
	Name string
	// Prefix and Instance are the parts of Name around "@". Instance is empty
	// and Prefix is Name when the file is no template.
	Prefix   string
	Instance string
	// Files are the paths that were read: the pod file, then its drop-ins.
	Files []string

	Apps    []App
	Volumes []Volume
	Ports   []Port
	// Isolators is the pod's isolator list, nil when absent.
	Isolators       Raw
	Annotations     []NameValue
	UserAnnotations map[string]string
	UserLabels      map[string]string

	// Unit, Service, Install, Socket, Timer and Path are the "systemd" section: directives for the
	// host's units, in the order of the file.
	Unit    []Directive
	Service []Directive
	Install []Directive
	// Socket are the directives of rkt@NAME.socket; empty when there is none.
	Socket []Directive
	// Timer and Path are those of rkt@NAME.timer and rkt@NAME.path.
	Timer []Directive
	Path  []Directive

	Rkt Options
}

// App is one app of a pod.
type App struct {
	// Name is an AC name. It is empty when it is to be derived from the
	// image's name, which only stage0 knows once it has found the image.
	Name  string
	Pos   jsonpos.Pos
	Image Image
	// App is an appc App section that takes the place of the image's; nil
	// when absent.
	App Raw
	// Override holds what is laid over the app section, be that the image's
	// or App.
	Override       Override
	ReadOnlyRootFS bool
	Mounts         []Mount
	Annotations    []NameValue
	// Stdio are modes of the standard streams, "" for the default.
	Stdio stdio.Modes
	// Order tells how the app's unit relates to other apps of the pod.
	Order Order
	// Health is how its health is found out; nil if the file says nothing of it.
	Health *apphealth.Check
	// Credentials are those of the pod's that the app gets.
	Credentials []appcred.Credential
	// Systemd are directives of the app's own unit.
	Systemd []appunit.Directive
	// Update is the app's own policy of updates, "" for the pod's.
	Update string
}

// Image says which image an app runs: Ref alone, or ID, or Name with Labels
// (ID may accompany a name, as in any PodManifest).
type Image struct {
	// Ref is a reference as the command line takes it: a name, a URL, a
	// path, a hash.
	Ref    string
	ID     string
	Name   string
	Labels []NameValue
}

// Override is the short form of an app section: every field that is set
// replaces that of the image, the environment is merged by name. A nil field
// is not set.
type Override struct {
	// Exec replaces the image's exec vector.
	Exec []string
	// Args are appended to the image's exec vector, or to Exec.
	Args              []string
	User              string
	Group             string
	SupplementaryGIDs []int
	WorkingDirectory  string
	Environment       []NameValue
	Isolators         Raw
	// Ports are laid over the image's by name.
	Ports []AppPort
}

// AppPort is a port of an app. What is zero or nil is as the image has it, or
// the default.
type AppPort struct {
	Name            string
	Port            uint16
	Protocol        string // "", "tcp", "udp" or "sctp"
	Count           uint16
	SocketActivated *bool
}

// Mount puts a volume at a path of the app.
type Mount struct {
	// Volume names a volume of the pod, empty when AppVolume is set.
	Volume string
	Path   string
	// AppVolume is a volume of this mount alone.
	AppVolume *Volume
}

// Volume is an appc volume. Kind is "host" or "empty".
type Volume struct {
	Name      string
	Kind      string
	Source    string
	ReadOnly  *bool
	Recursive *bool
	// Mode, UID and GID are those of an empty volume; Mode is empty and the
	// others are nil when absent.
	Mode string
	UID  *int
	GID  *int
	// Owner is whose the files of a host volume are: "", "idmap", "app" or "host".
	Owner string
}

// Port exposes a port of an app on the host.
type Port struct {
	Name     string
	HostIP   string
	HostPort uint16
	// PodPort is appc's direct mapping, as raw JSON; nil when absent.
	PodPort Raw
	// Activate has a proxy answer, which starts the pod with the first
	// connection and, with an IdleTime (a time span of systemd), ends after it.
	Activate bool
	IdleTime string
}

// NameValue is an entry of appc's annotation, label and environment lists.
type NameValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Directive is a systemd directive. Each value becomes a line KEY=VALUE; an
// empty value resets the list, as in a unit file.
type Directive struct {
	Key    string
	Values []string
	Pos    jsonpos.Pos
}

// Order lists apps of the same pod by the systemd dependency they have to
// this app.
type Order struct {
	After    []string `json:"after,omitempty"`
	Before   []string `json:"before,omitempty"`
	Requires []string `json:"requires,omitempty"`
	Wants    []string `json:"wants,omitempty"`
	BindsTo  []string `json:"bindsTo,omitempty"`
	PartOf   []string `json:"partOf,omitempty"`
}

// Empty reports whether nothing is ordered.
func (o Order) Empty() bool {
	return len(o.After)+len(o.Before)+len(o.Requires)+len(o.Wants)+len(o.BindsTo)+len(o.PartOf) == 0
}

// Options are the "rkt" section. A zero field means the default of `rkt run`.
type Options struct {
	// Net has one element per --net flag.
	Net             []string
	Hostname        string
	Stage1          string
	PullPolicy      string // "", "new", "update" or "never"
	InsecureOptions []string
	NoOverlay       bool
	// DNS are IP addresses, or one of host and none; see --dns.
	DNS, DNSSearch, DNSOptions []string
	DNSDomain                  string
	// HostsEntries are IP=NAME, or the word host.
	HostsEntries []string
	IPC          string // "", "auto", "private" or "parent"
	PrivateUsers *bool  // nil: where the pod can have them
	Update       Update
	Profile      string // "", or one of the profiles of profile.go
	// Environment is set over the images' and under the apps' own; that of the
	// files, of which one with a "-" before its path may be missing, under it.
	Environment      []NameValue
	EnvironmentFiles []string
	// Journal is "", "host" or "guest"; LogNamespace names one of the host's.
	Journal, LogNamespace string
	Ready                 string // "", "started" or "healthy"
	// Credentials are handed to those apps that name them.
	Credentials []Credential
}

// MachineName is the name under which machined knows the pod. Characters that
// no machine name can have, as the "@" of a template's instance, become "-".
func (p *Pod) MachineName() string {
	b := []byte(p.Name)
	for i, c := range b {
		if !isAlnum(c) && c != '-' && c != '.' && c != '_' {
			b[i] = '-'
		}
	}
	if len(b) > maxName {
		b = b[:maxName]
	}
	return string(b)
}

// UnitName is the name of the pod's unit on the host.
func (p *Pod) UnitName() string { return UnitName(p.Name) }

// SocketName is the name of the pod's socket unit.
func (p *Pod) SocketName() string { return "rkt@" + p.Name + ".socket" }

// ProxyUnit is the name, without its type, of the units that answer at a port
// of a pod. A "-" in the pod's name is escaped as systemd does it, so that no
// two pods can have units of one name.
func ProxyUnit(pod, port string) string { return "rkt-proxy-" + unitfile.Escape(pod) + "-" + port }

// UnitName is the name of the unit of the pod called name.
func UnitName(name string) string { return "rkt@" + name + ".service" }

// Severity tells an error from a warning.
type Severity uint8

// A file with an Error is not run; a Warning is only shown.
const (
	Error Severity = iota
	Warning
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// MarshalText makes the severity a word in JSON output.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Problem is one thing wrong with a pod file.
type Problem struct {
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`
	Column   int      `json:"column,omitempty"`
	// Path is the JSON path, "apps[0].image"; empty for the file as a whole.
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	// Suggestion is what was probably meant.
	Suggestion string `json:"suggestion,omitempty"`
}

// Error returns "file:line:col: path: message (did you mean "x"?)" on one line.
func (p Problem) Error() string {
	s := p.File
	if p.Line > 0 {
		s += ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
	}
	if p.Path != "" {
		s += ": " + p.Path
	}
	s += ": " + p.Message
	if p.Suggestion != "" {
		s += " (did you mean " + strconv.Quote(p.Suggestion) + "?)"
	}
	return s
}

// Failed reports whether any problem is an error.
func Failed(ps []Problem) bool {
	for _, p := range ps {
		if p.Severity == Error {
			return true
		}
	}
	return false
}

// FirstError returns the first error among the problems, or nil.
func FirstError(ps []Problem) error {
	for _, p := range ps {
		if p.Severity == Error {
			return p
		}
	}
	return nil
}

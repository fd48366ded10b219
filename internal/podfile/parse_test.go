package podfile

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

func parse(name, text string, dropIns ...string) (*Pod, []Problem) {
	files := []File{{"web.json", []byte(text)}}
	for i, d := range dropIns {
		files = append(files, File{string(rune('a'+i)) + ".json", []byte(d)})
	}
	return Parse(name, files)
}

func lines(ps []Problem) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Severity.String()+" "+p.Error())
	}
	return strings.Join(out, "\n")
}

var ignorePos = cmp.Comparer(func(a, b jsonpos.Pos) bool { return true })

func ptr[T any](v T) *T { return &v }

// TestParseManifest takes a PodManifest as appc's own examples write it.
func TestParseManifest(t *testing.T) {
	got, ps := parse("web", `{
  "acVersion": "0.8.11", "acKind": "PodManifest",
  "apps": [{
    "name": "reduce-worker",
    "image": {"name": "example.com/reduce-worker", "id": "sha512-8d3fffddf79e9a232ffd19f9ccaa4d6b37a6a243dbe0f23137b108a043d9da13",
      "labels": [{"name": "version", "value": "1.2.0"}]},
    "app": {"exec": ["/bin/reduce-worker", "--debug=true"], "group": "0", "user": "0",
      "mountPoints": [{"name": "work", "path": "/mnt/foo"}],
      "isolators": [{"name": "resource/cpu", "value": {"limit": "1"}}]},
    "readOnlyRootFS": true,
    "mounts": [{"volume": "work", "path": "/mnt/foo"},
      {"volume": "", "path": "/x", "appVolume": {"name": "own", "kind": "empty"}}],
    "annotations": [{"name": "foo", "value": "baz"}]
  }],
  "volumes": [{"name": "work", "kind": "host", "source": "/opt/tenant1/work", "readOnly": true, "recursive": false},
    {"name": "buildoutput", "kind": "empty", "mode": "0755", "uid": 0, "gid": 0}],
  "isolators": [{"name": "resource/memory", "value": {"limit": "4G"}}],
  "annotations": [{"name": "ip-address", "value": "10.1.2.3"}],
  "ports": [{"name": "ftp", "hostPort": 2121, "hostIP": "::1", "podPort": {"name": "x", "port": 21, "protocol": "tcp"}}],
  "userAnnotations": {"a": "b"}, "userLabels": {"c": "d"}
}`)
	if len(ps) > 0 {
		t.Fatal(lines(ps))
	}
	want := &Pod{
		Name: "web", Prefix: "web", Files: []string{"web.json"},
		Apps: []App{{
			Name: "reduce-worker",
			Image: Image{Name: "example.com/reduce-worker", ID: "sha512-8d3fffddf79e9a232ffd19f9ccaa4d6b37a6a243dbe0f23137b108a043d9da13",
				Labels: []NameValue{{"version", "1.2.0"}}},
			App: Raw(`{"exec":["/bin/reduce-worker","--debug=true"],"group":"0","user":"0",` +
				`"mountPoints":[{"name":"work","path":"/mnt/foo"}],"isolators":[{"name":"resource/cpu","value":{"limit":"1"}}]}`),
			ReadOnlyRootFS: true,
			Mounts:         []Mount{{Volume: "work", Path: "/mnt/foo"}, {Path: "/x", AppVolume: &Volume{Name: "own", Kind: "empty"}}},
			Annotations:    []NameValue{{"foo", "baz"}},
		}},
		Volumes: []Volume{
			{Name: "work", Kind: "host", Source: "/opt/tenant1/work", ReadOnly: ptr(true), Recursive: ptr(false)},
			{Name: "buildoutput", Kind: "empty", Mode: "0755", UID: ptr(0), GID: ptr(0)},
		},
		Isolators:       Raw(`[{"name":"resource/memory","value":{"limit":"4G"}}]`),
		Annotations:     []NameValue{{"ip-address", "10.1.2.3"}},
		Ports:           []Port{{Name: "ftp", HostPort: 2121, HostIP: "::1", PodPort: Raw(`{"name":"x","port":21,"protocol":"tcp"}`)}},
		UserAnnotations: map[string]string{"a": "b"},
		UserLabels:      map[string]string{"c": "d"},
	}
	if d := cmp.Diff(want, got, ignorePos); d != "" {
		t.Error(d)
	}
}

func TestParseExtensions(t *testing.T) {
	got, ps := parse("web", `{
  // comments and trailing commas are fine
  "apps": [
    {"image": "docker://docker.io/library/redis:7", "exec": ["/bin/r", "a"], "args": ["b"], "user": 1000, "group": "redis",
     "environment": {"A": "1", "N": 2}, "workingDirectory": "/x", "supplementaryGIDs": [1, 2],
     "isolators": [{"name": "os/linux/no-new-privileges", "value": true}],
     "mounts": ["volume=data,target=/data"]},
    {"name": "front", "image": {"name": "example.com/nginx"}, "environment": [{"name": "B", "value": "2"}],
     "systemd": {"unit": {"After": "redis", "Requires": ["redis"]}}},
    {"image": {"id": "sha512-abcdef"}},
  ],
  "volumes": ["data,kind=host,source=/srv/data,readOnly=true", "tmp,kind=empty,mode=0700,uid=5"],
  "ports": ["http:8080", "https:127.0.0.1:8443"],
  "systemd": {
    "unit": {"After": ["a.service", "b.service"], "Description": "Web"},
    "service": {"MemoryMax": "1G", "CPUWeight": 200, "Restart": "always", "MemoryAccounting": true},
    "install": {"WantedBy": "multi-user.target"}
  },
  "rkt": {"net": ["default:IP=10.1.1.1", "other"], "hostname": "web-1", "stage1": "/x.aci", "pullPolicy": "never",
    "insecureOptions": ["image", "http,tls"], "noOverlay": true}
}`)
	if len(ps) > 0 {
		t.Fatal(lines(ps))
	}
	want := &Pod{
		Name: "web", Prefix: "web", Files: []string{"web.json"},
		Apps: []App{
			{Name: "redis", Image: Image{Ref: "docker://docker.io/library/redis:7"},
				Override: Override{Exec: []string{"/bin/r", "a"}, Args: []string{"b"}, User: "1000", Group: "redis",
					Environment: []NameValue{{"A", "1"}, {"N", "2"}}, WorkingDirectory: "/x", SupplementaryGIDs: []int{1, 2},
					Isolators: Raw(`[{"name":"os/linux/no-new-privileges","value":true}]`)},
				Mounts: []Mount{{Volume: "data", Path: "/data"}}},
			{Name: "front", Image: Image{Name: "example.com/nginx"}, Override: Override{Environment: []NameValue{{"B", "2"}}},
				Order: Order{After: []string{"redis"}, Requires: []string{"redis"}}},
			{Image: Image{ID: "sha512-abcdef"}},
		},
		Volumes: []Volume{
			{Name: "data", Kind: "host", Source: "/srv/data", ReadOnly: ptr(true)},
			{Name: "tmp", Kind: "empty", Mode: "0700", UID: ptr(5)},
		},
		Ports: []Port{{Name: "http", HostPort: 8080}, {Name: "https", HostIP: "127.0.0.1", HostPort: 8443}},
		Unit:  []Directive{{Key: "After", Values: []string{"a.service", "b.service"}}, {Key: "Description", Values: []string{"Web"}}},
		Service: []Directive{{Key: "MemoryMax", Values: []string{"1G"}}, {Key: "CPUWeight", Values: []string{"200"}},
			{Key: "Restart", Values: []string{"always"}}, {Key: "MemoryAccounting", Values: []string{"yes"}}},
		Install: []Directive{{Key: "WantedBy", Values: []string{"multi-user.target"}}},
		Rkt: Options{Net: []string{"default:IP=10.1.1.1", "other"}, Hostname: "web-1", Stage1: "/x.aci", PullPolicy: "never",
			InsecureOptions: []string{"image", "http", "tls"}, NoOverlay: true},
	}
	if d := cmp.Diff(want, got, ignorePos); d != "" {
		t.Error(d)
	}
}

// TestAppcManifests takes what appc's own types write, nulls and all, and
// hands the app section back to them.
func TestAppcManifests(t *testing.T) {
	for name, text := range map[string]string{
		"bare": `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"id":"sha512-8d3fffddf79e9a232ffd19f9ccaa4d6b37a6a243dbe0f23137b108a043d9da13"}}]}`,
		"app": `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"name":"e.com/a","id":"sha512-8d3fffddf79e9a232ffd19f9ccaa4d6b37a6a243dbe0f23137b108a043d9da13"},
			"app":{"user":"0","group":"0","workingDirectory":"/","environment":[{"name":"A","value":"\u00e9\"\n<"}],
			"eventHandlers":[{"name":"pre-start","exec":["/x"]}],"ports":[{"name":"p","protocol":"tcp","port":80,"count":1,"socketActivated":true}]},
			"mounts":[{"volume":"v","path":"/v"}]}],"volumes":[{"name":"v","kind":"empty"}],"ports":[{"name":"p","hostPort":80,"hostIP":"10.0.0.1"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			var pm schema.PodManifest
			if err := json.Unmarshal([]byte(text), &pm); err != nil {
				t.Fatal(err)
			}
			canonical, err := json.Marshal(pm)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{text, string(canonical)} {
				p, ps := parse("web", text)
				if len(ps) > 0 {
					t.Fatalf("%s\n%s", text, lines(ps))
				}
				if pm.Apps[0].App == nil {
					continue
				}
				var app types.App
				if err := json.Unmarshal(p.Apps[0].App, &app); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(pm.Apps[0].App, &app); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// TestProblems checks the text of each problem: whole lines, with positions.
func TestProblems(t *testing.T) {
	const app = `"apps": [{"image": "a"}]`
	for _, c := range []struct {
		name, text string
		want       string // lines, or a part of the only line
	}{
		{"no JSON", "{\n  x", `error web.json:2:3: unexpected 'x', want a key in double quotes`},
		{"no object", "[]", `error web.json:1:1: is a list, want an object`},
		{"empty object", "{}", `error web.json:1:1: apps: pod must contain at least one app`},
		{"duplicate key", "{\n\"rkt\": {}, \"rkt\": {},\n" + app + "}", `error web.json:2:12: duplicate key "rkt", first seen on line 2`},
		{"unknown key", "{" + app + ",\n  \"volumse\": []}", `warning web.json:2:3: volumse: unknown key "volumse", ignoring (did you mean "volumes"?)`},
		{"case", "{" + app + ", \"Ports\": []}", `(did you mean "ports"?)`},
		{"image type", `{"apps": [{"image": 1}]}`, `error web.json:1:21: apps[0].image: is a number, want a reference string or an object`},
		{"no image", `{"apps": [{"name": "x"}]}`, `error web.json:1:11: apps[0]: app lacks "image"`},
		{"app name", `{"apps": [{"name": "My_App", "image": "a"}]}`, `apps[0].name: "My_App" is no AC name: lower case letters, digits and single "-" between them (did you mean "my-app"?)`},
		{"duplicate app", `{"apps": [{"image": "x/a:1"}, {"image": "y/a:2"}]}`, `apps[1]: duplicate app name "a", derived from the image; give the app a "name"`},
		{"several", `{"apps": [{"image": "a", "user": [], "exec": []}], "volumes": 1}`,
			"error web.json:1:63: volumes: is a number, want a list\n" +
				"error web.json:1:34: apps[0].user: is a list, want a string\n" +
				"error web.json:1:46: apps[0].exec: names no program"},
		{"mount", `{"apps": [{"image": "a", "mounts": ["volume=dta,target=/d"]}], "volumes": ["data,kind=empty"]}`,
			`apps[0].mounts[0]: no volume "dta" in this pod (did you mean "data"?)`},
		{"volume kind", `{` + app + `, "volumes": ["data,kind=hots,source=/d"]}`, `volumes[0]: volume is of kind "hots", want "host" or "empty"`},
		{"volume key", `{` + app + `, "volumes": ["data,kind=host,surce=/d"]}`, `volumes[0]: unknown key "surce" (did you mean "source"?)`},
		{"volume relative", `{` + app + `, "volumes": [{"name": "d", "kind": "host", "source": "d"}]}`, `source "d" is no absolute path`},
		{"volume twice", `{` + app + `, "volumes": ["d,kind=empty", "d,kind=empty"]}`, `volumes[1]: duplicate volume name "d"`},
		{"port", `{` + app + `, "ports": ["http:99999"]}`, `ports[0]: "99999" is no port number`},
		{"app section", `{"apps": [{"image": "a", "app": {"exec": ["/x"], "group": "0"}}]}`, `apps[0].app: lacks "user": an app section replaces the image's whole`},
		{"kind", `{"acKind": "ImageManifest", ` + app + `}`, `acKind: is "ImageManifest", want "PodManifest"`},
		{"contract", `{` + app + `, "systemd": {"service": {"ExecStart": "/bin/sh"}}}`,
			`error web.json:1:52: systemd.service.ExecStart: ExecStart= cannot be set: it is rkt's own; what the apps run is apps[].exec`},
		{"directive newline", `{` + app + `, "systemd": {"unit": {"Description": "a\nExecStart=/bin/sh"}}}`, `systemd.unit.Description: value has a line break`},
		{"directive name", `{` + app + `, "systemd": {"unit": {"A]\n[Service": "x"}}}`, `may only have letters, digits and "-"`},
		{"directive typo", `{` + app + `, "systemd": {"service": {"MemroyMax": "1G"}}}`, `warning web.json:1:52: systemd.service.MemroyMax: systemd may not know the directive MemroyMax= (did you mean "MemoryMax"?)`},
		{"directive reset", `{` + app + `, "systemd": {"service": {"DeviceAllow": ""}}}`, `would drop rkt's own DeviceAllow= lines`},
		{"directive object", `{` + app + `, "systemd": {"service": {"Nice": {}}}}`, `is an object, want a string, number, boolean or a list of them`},
		{"timer without times", `{` + app + `, "systemd": {"timer": {"Persistent": true}}}`, `systemd.timer: has none of OnActiveSec`},
		{"timer of another unit", `{` + app + `, "systemd": {"timer": {"OnBootSec": 5, "Unit": "x.service"}}}`, `systemd.timer.Unit: Unit= cannot be set: it starts this pod`},
		{"bad time span", `{` + app + `, "systemd": {"timer": {"OnBootSec": "soon"}}}`, `systemd.timer.OnBootSec: "soon" is no time span`},
		{"path without paths", `{` + app + `, "systemd": {"path": {"MakeDirectory": true}}}`, `systemd.path: has none of DirectoryNotEmpty`},
		{"relative path", `{` + app + `, "systemd": {"path": {"PathExists": "x"}}}`, `systemd.path.PathExists: "x" is no absolute path`},
		{"environment files", `{` + app + `, "rkt": {"environmentFiles": ["-x"]}}`, `rkt.environmentFiles: "-x" is no absolute path`},
		{"wanted by", `{` + app + `, "systemd": {"install": {"WantedBy": "../../x.target"}}}`, `"../../x.target" is no unit name`},
		{"alias", `{` + app + `, "systemd": {"install": {"Alias": "x.service"}}}`, `only aliases like OTHER@web.service`},
		{"default instance", `{` + app + `, "systemd": {"install": {"DefaultInstance": "x"}}}`, `DefaultInstance= needs a template, "web@.json"`},
		{"later", `{` + app + `, "rkt": {"mdsRegister": true}}`, `error web.json:1:36: rkt.mdsRegister: is not supported yet by this version`},
		{"a name server", `{` + app + `, "rkt": {"dns": ["ns.example"]}}`, `error web.json:1:35: rkt.dns: name server "ns.example" is no IP address`},
		{"a hosts entry", `{` + app + `, "rkt": {"hostsEntries": "x"}}`, `error web.json:1:35: rkt.hostsEntries: hosts entry "x" is neither IP=NAME nor host`},
		{"rkt typo", `{` + app + `, "rkt": {"hostnam": "x"}}`, `rkt.hostnam: unknown key "hostnam", ignoring (did you mean "hostname"?)`},
		{"stdin mode", `{"apps": [{"image": "a", "stdin": "log"}]}`, `apps[0].stdin: "log" is no mode of stdin: null, stream and tty are`},
		{"stdout mode", `{"apps": [{"image": "a", "stdout": "interactive"}]}`, `apps[0].stdout: "interactive" is no mode of stdout: log, null, stream and tty are`},
		{"stderr type", `{"apps": [{"image": "a", "stderr": 1}]}`, `apps[0].stderr`},
		{"a socket that listens to nothing", `{` + app + `, "systemd": {"socket": {"Backlog": 5}}}`, `systemd.socket: has neither ListenStream nor ListenDatagram`},
		{"a socket reset to nothing", `{` + app + `, "systemd": {"socket": {"ListenStream": ["80", ""]}}}`, `systemd.socket: has neither`},
		{"a socket per connection", `{` + app + `, "systemd": {"socket": {"ListenStream": 80, "Accept": true}}}`, `Accept=yes would start a pod for every connection`},
		{"another service's socket", `{` + app + `, "systemd": {"socket": {"ListenStream": 80, "Service": "x.service"}}}`, `the socket is this pod's and starts nothing else`},
		{"a FIFO", `{` + app + `, "systemd": {"socket": {"ListenStream": 80, "ListenFIFO": "/x"}}}`, `only ListenStream= and ListenDatagram= have one`},
		{"a socket typo", `{` + app + `, "systemd": {"socket": {"ListenStream": 80, "Baklog": 5}}}`, `warning web.json:1:71: systemd.socket.Baklog: systemd may not know the directive Baklog= (did you mean "Backlog"?)`},
		{"idle without activate", `{` + app + `, "ports": [{"name": "p", "hostPort": 80, "idleTime": "5min"}]}`, `ports[0].idleTime: needs "activate": true`},
		{"idle for ever", `{` + app + `, "ports": [{"name": "p", "hostPort": 80, "activate": true, "idleTime": "infinity"}]}`, `"infinity" is no time span`},
		{"activate without a place", `{` + app + `, "ports": [{"name": "p", "activate": true}]}`, `port lacks "hostPort", where to wait`},
		{"activate udp", `{` + app + `, "ports": [{"name": "p", "hostPort": 53, "activate": true, "podPort": {"name": "p", "port": 53, "protocol": "udp"}}]}`, `is for tcp only, not for udp`},
		{"activate twice", `{` + app + `, "ports": [{"name": "p", "hostPort": 80, "activate": true}, {"name": "p", "hostPort": 81, "activate": true}]}`, `ports[1]: port "p" is activated twice`},
		{"activate at one place", `{` + app + `, "ports": [{"name": "p", "hostPort": 80, "activate": true}, {"name": "q", "hostPort": 80, "activate": true}]}`, `port "p" is activated at 80 already`},
		{"activate on the host's network", `{` + app + `, "rkt": {"net": "host"}, "ports": [{"name": "p", "hostPort": 80, "activate": true, "podPort": {"name": "p", "port": 80, "protocol": "tcp"}}]}`,
			`the app itself listens on 80; "hostPort" must be another`},
		{"app port", `{"apps": [{"image": "a", "ports": [{"port": 80}]}]}`, `apps[0].ports[0]: port lacks "name"`},
		{"app port twice", `{"apps": [{"image": "a", "ports": [{"name": "p"}, {"name": "p"}]}]}`, `apps[0].ports[1]: duplicate port name "p"`},
		{"app port protocol", `{"apps": [{"image": "a", "ports": [{"name": "p", "protocol": "TCP"}]}]}`, `is "TCP", want tcp, udp, sctp`},
		{"pull policy", `{` + app + `, "rkt": {"pullPolicy": "always"}}`, `rkt.pullPolicy: is "always", want new, update, never`},
		{"hostname", `{` + app + `, "rkt": {"hostname": "a b"}}`, `rkt.hostname: "a b" is no host name`},
		{"net", `{` + app + `, "rkt": {"net": ["host", "x"]}}`, `network "host" cannot be combined with others`},
		{"insecure", `{` + app + `, "rkt": {"insecureOptions": "imag"}}`, `(did you mean "image"?)`},
		{"order unknown", `{"apps": [{"image": "a", "systemd": {"unit": {"After": ["bb"]}}}, {"image": "b"}]}`, `apps[0].systemd.unit.After: no app "bb" in this pod (did you mean "b"?)`},
		{"order cycle", `{"apps": [{"image": "a", "systemd": {"unit": {"After": "b"}}}, {"image": "b", "systemd": {"unit": {"After": "c"}}},
			{"image": "c", "systemd": {"unit": {"Before": "b", "After": "a"}}}]}`, `apps wait for each other: a → b → c → a`},
		{"order self", `{"apps": [{"image": "a", "systemd": {"unit": {"Wants": "a"}}}]}`, `app "a" depends on itself`},
		{"order key", `{"apps": [{"image": "a", "systemd": {"unit": {"Description": "a"}}}]}`, `an app's unit can have only dependencies on other apps and StartLimitIntervalSec StartLimitBurst here`},
		{"app service", `{"apps": [{"image": "a", "systemd": {"service": {"User": "x"}}}]}`, `apps[0].systemd.service.User: User= cannot be set for an app: see the app's user, group and supplementaryGIDs`},
		{"app service typo", `{"apps": [{"image": "a", "systemd": {"service": {"Restrat": "always"}}}]}`, `(did you mean "Restart"?)`},
		{"app type", `{"apps": [{"image": "a", "systemd": {"service": {"Type": "forking"}}}]}`, `exec (started when its program is executed) or notify`},
		{"app reload", `{"apps": [{"image": "a", "systemd": {"service": {"ExecReload": "kill -HUP"}}}]}`, `absolute path`},
		{"app section", `{"apps": [{"image": "a", "systemd": {"services": {}}}]}`, `(did you mean "service"?)`},
		{"host reload", `{` + app + `, "systemd": {"service": {"ExecReload": "/x"}}}`, `a reload is passed on to the apps`},
		{"NUL", `{"apps": [{"image": "a\u0000"}]}`, `has a NUL character`},
		{"argument-like", `{"apps": [{"image": "--net=host"}]}`, `begins with "-"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, ps := parse("web", c.text)
			if got := lines(ps); got != c.want && (len(ps) != 1 || !strings.Contains(got, c.want)) {
				t.Errorf("problems:\n%s\nwant:\n%s", got, c.want)
			}
			if (p == nil) != Failed(ps) {
				t.Errorf("pod %v beside problems %s", p, lines(ps))
			}
		})
	}
}

// TestErrorAfterManyWarnings: what is not reported any more still refuses the pod.
func TestErrorAfterManyWarnings(t *testing.T) {
	var b strings.Builder
	for i := range 2 * maxProblems {
		fmt.Fprintf(&b, `"x%d": 0, `, i)
	}
	p, ps := parse("web", `{`+b.String()+`"apps": 7}`)
	if p != nil || len(ps) != maxProblems || !strings.Contains(lines(ps), "apps: is a number, want a list") {
		t.Errorf("pod %v beside %d problems, the last of them %v", p, len(ps), ps[len(ps)-1])
	}
}

func TestDropIns(t *testing.T) {
	p, ps := parse("web", `{"apps": [{"image": "a"}], "rkt": {"hostname": "h", "net": "x"}, "userLabels": {"a": "1"}}`,
		`{"rkt": {"hostname": null, "net": ["y", "z"]}}`,
		"{\n \"userLabels\": {\"b\": \"2\"}, \"rkt\": {\"noOverlay\": true}}")
	if len(ps) > 0 {
		t.Fatal(lines(ps))
	}
	if d := cmp.Diff(Options{Net: []string{"y", "z"}, NoOverlay: true}, p.Rkt); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]string{"a": "1", "b": "2"}, p.UserLabels); d != "" {
		t.Error(d)
	}
	_, ps = parse("web", `{"apps": [{"image": "a"}], "rkt": {"hostname": "h"}}`, "{\n \"rkt\": {\n  \"hostname\": 5}}")
	if got, want := lines(ps), "error a.json:3:15: rkt.hostname: is a number, want a string"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSpecifiers(t *testing.T) {
	text := `{"apps": [{"image": "example.com/%p:%i", "environment": {"I": "%I", "P": "100%%"}}],
		"systemd": {"unit": {"Description": "%i %H %% %n"}}, "rkt": {"hostname": "%p-%i"}}`
	p, ps := parse(`web@a\x2db`, strings.Replace(text, "%p-%i", "x", 1))
	if len(ps) > 0 {
		t.Fatal(lines(ps))
	}
	a := p.Apps[0]
	if got, want := a.Image.Ref, `example.com/web:a\x2db`; got != want {
		t.Errorf("image %q, want %q", got, want)
	}
	if d := cmp.Diff([]NameValue{{"I", "a-b"}, {"P", "100%"}}, a.Override.Environment); d != "" {
		t.Error(d)
	}
	if got, want := p.Unit[0].Values[0], `a\x2db %H %% rkt@web@a\x2db.service`; got != want {
		t.Errorf("description %q, want %q", got, want)
	}
	if got, want := p.MachineName(), "web-a-x2db"; got != want {
		t.Errorf("machine %q, want %q", got, want)
	}
	if _, ps := parse("web@x", strings.Replace(text, "%I", "%z", 1)); !strings.Contains(lines(ps), `apps[0].environment.I: unknown specifier in "%z"`) {
		t.Error(lines(ps))
	}
	// A file that is no template is taken as it is.
	if p, ps := parse("web", `{"apps": [{"image": "a", "args": ["%i%%"]}]}`); len(ps) > 0 || p.Apps[0].Override.Args[0] != "%i%%" {
		t.Errorf("%v %s", p, lines(ps))
	}
}

func TestAppName(t *testing.T) {
	for in, want := range map[string]string{
		"docker://docker.io/library/redis:7": "redis", "example.com/redis:7.2,os=linux": "redis", "/srv/My_App-1.2.aci": "my-app-1-2",
		"./app.tar.gz": "app", "sha512-abc": "", "https://example.com/a/b.aci?x=y": "b", "oci:///x/y@sha256:abc": "y", "": "", "///": "", "a.b": "a-b",
		"localhost:5000/x": "x",
	} {
		if got := AppName(in); got != want {
			t.Errorf("AppName(%q) = %q, want %q", in, got, want)
		}
		if got := AppName(in); got != "" && !isACName(got) {
			t.Errorf("AppName(%q) = %q is no AC name", in, got)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "web-1.example": true, "web@": true, "web@x": true, `web@a\x2db`: true, "W_1": true,
		"": false, "@x": false, "-web": false, "web-": false, "a b": false, "a/b": false, "../a": false, ".web": false, "a..b": false,
		"web@a..b": true, "web@a-b.": true, "web@-etc": true, "web@..": false, "web@.": false, "web@..-..-etc": false, "web@a-..": false, `web@a-\x2e\x2e-b`: false,
		"web@x@y": false, "web@a/b": false, "wéb": false, strings.Repeat("a", 65): false, "a\nb": false,
		"8d3fffdd-f79e-4a23-8ffd-19f9ccaa4d6b": false, "rkt-8d3fffdd-f79e-4a23-8ffd-19f9ccaa4d6b": false,
	} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("CheckName(%q) = %v, want ok %v", name, err, want)
		}
	}
}

// TestRefusedKnown: a misspelt name among the refused directives would refuse nothing.
func TestRefusedKnown(t *testing.T) {
	src, err := os.ReadFile("directives.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(src), "func refusedService")
	for line := range strings.Lines(body) {
		if !strings.Contains(line, "case ") && !strings.HasPrefix(strings.TrimSpace(line), `"`) {
			continue
		}
		for i, w := range strings.Split(line, `"`) {
			if i%2 == 1 && !strings.Contains(knownService, " "+w+" ") {
				t.Errorf("%q is not known to systemd", w)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("web", `{"apps": [{"image": "a"}]}`, `{"rkt": {"net": "host"}}`)
	f.Add("web@x", `{"apps": [{"image": "%i", "mounts": ["volume=d,target=/d"]}], "volumes": ["d,kind=empty"]}`, ``)
	f.Add("web", `{"apps": [{"image": {"name": "a"}, "app": {"user": "0", "group": "0"}, "systemd": {"unit": {"After": "b"}}}],
		"systemd": {"unit": {"A": 1}, "install": {"WantedBy": "a.target"}}, "ports": ["a:1"]}`, `{"x":null}`)
	f.Fuzz(func(t *testing.T, name, text, dropIn string) {
		files := []File{{"a.json", []byte(text)}}
		if dropIn != "" {
			files = append(files, File{"b.json", []byte(dropIn)})
		}
		p, ps := Parse(name, files)
		if (p == nil) != Failed(ps) {
			t.Fatalf("pod %v beside problems %s", p, lines(ps))
		}
		for _, pr := range ps {
			if strings.ContainsAny(pr.Error(), "\n\x00") && !strings.ContainsAny(name, "\n\x00") {
				t.Fatalf("problem %q is not one line", pr.Error())
			}
		}
		if p == nil {
			ParseInstall(name, files)
			return
		}
		for _, a := range p.Apps {
			if a.App != nil && !json.Valid(a.App) {
				t.Fatalf("app section %q is no JSON", a.App)
			}
			if a.Name != "" && !isACName(a.Name) {
				t.Fatalf("app name %q", a.Name)
			}
		}
	})
}

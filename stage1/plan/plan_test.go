package plan

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata/*.txtar")

const uuid = "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69"

// input is the file in.json of a case. What it leaves out is what most pods have.
type input struct {
	Run    abi.Run
	Facts  Facts
	IDs    map[string]IDs
	Pod    json.RawMessage
	Images map[string]json.RawMessage
}

func parseInput(t *testing.T, b []byte) Input {
	t.Helper()
	i := input{Run: abi.Run{UUID: uuid, Net: []string{"host"}, ResolvMode: "default", HostsMode: "default", IPC: "auto"},
		Facts: Facts{PodDir: "/var/lib/rkt/pods/run/" + uuid, Machine: "web", InUnit: true, Declared: true, Nspawn: "/usr/bin/systemd-nspawn",
			LogUnit: "rkt@web.service", Register: true, LdSoCache: true, Controllers: []string{"cpu", "io", "memory", "pids"}}}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&i); err != nil {
		t.Fatal(err)
	}
	in := Input{Run: i.Run, Facts: i.Facts, IDs: i.IDs, Images: map[string]*schema.ImageManifest{}}
	var err error
	if in.Pod, _, err = appc.ParsePodManifest(i.Pod); err != nil {
		t.Fatal(err)
	}
	if in.IDs == nil {
		in.IDs = map[string]IDs{}
	}
	for name, raw := range i.Images {
		if in.Images[name], _, err = appc.ParseImageManifest(raw); err != nil {
			t.Fatalf("image of %s: %v", name, err)
		}
	}
	for i := range in.Pod.Apps {
		name := in.Pod.Apps[i].Name.String()
		if _, ok := in.IDs[name]; !ok {
			in.IDs[name] = IDs{}
		}
	}
	return in
}

// render turns a plan into the files of a case: what is written below the
// stage1 root under its own name, the rest as lists.
func render(p *Plan) []txtar.File {
	files := []txtar.File{{Name: "want/nspawn", Data: lines(append(slices.Clone(p.Env), p.Args...))}}
	if len(p.Mounts) > 0 || len(p.Empty) > 0 {
		var l []string
		for _, e := range p.Empty {
			l = append(l, fmt.Sprintf("empty %s mode=%04o uid=%d gid=%d", e.Name, e.Mode, e.UID, e.GID))
		}
		for _, m := range p.Mounts {
			l = append(l, fmt.Sprintf("mount %s %s -> %s:%s ro=%t rec=%t", m.Volume, m.Source, m.App, m.Target, m.ReadOnly, m.Recursive))
		}
		files = append(files, txtar.File{Name: "want/mounts", Data: lines(l)})
	}
	if len(p.Dirs) > 0 {
		var l []string
		for _, d := range p.Dirs {
			l = append(l, d.App+":"+d.Path)
		}
		files = append(files, txtar.File{Name: "want/dirs", Data: lines(l)})
	}
	for _, np := range p.NetParameters {
		files = append(files, txtar.File{Name: "want/sysctl/" + np.Path, Data: lines([]string{np.Value})})
	}
	for _, f := range p.Filters {
		// Of the long lists only what they add.
		if pod := filtergen.Pod().Allow; len(f.Policy.Allow) > len(pod)/2 {
			f.Policy.Allow = slices.DeleteFunc(slices.Clone(f.Policy.Allow), func(n string) bool { return slices.Contains(pod, n) })
			f.Policy.Allow = append([]string{"the pod's usual calls,"}, f.Policy.Allow...)
			f.Policy.Deny = []string{"others"}
		}
		files = append(files, txtar.File{Name: "want/" + f.Path, Data: lines([]string{"allow " + strings.Join(f.Policy.Allow, " "),
			"deny " + strings.Join(f.Policy.Deny, " "), fmt.Sprintf("deny with %#x, default %#x, unknown %#x", f.Policy.DenyWith, f.Policy.Default, f.Policy.Unknown)})})
	}
	if len(p.Warnings) > 0 {
		files = append(files, txtar.File{Name: "want/warnings", Data: lines(p.Warnings)})
	}
	for _, f := range p.Files {
		data := f.Data
		if strings.HasSuffix(f.Path, ".json") {
			var b bytes.Buffer
			if json.Indent(&b, data, "", "  ") == nil {
				data = append(b.Bytes(), '\n')
			}
		}
		files = append(files, txtar.File{Name: fmt.Sprintf("want/%04o/%s", f.Mode, f.Path), Data: data})
	}
	return files
}

func lines(l []string) []byte { return []byte(strings.Join(l, "\n") + "\n") }

// TestGolden plans the pods of testdata/*.txtar and compares everything the
// plan says with what is expected there.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(ar.Files) == 0 || ar.Files[0].Name != "in.json" {
				t.Fatal("the first file of a case is in.json")
			}
			p, err := Make(parseInput(t, ar.Files[0].Data))
			if err != nil {
				t.Fatal(err)
			}
			got := &txtar.Archive{Comment: ar.Comment, Files: append(ar.Files[:1:1], render(p)...)}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(txtar.Format(want)), string(txtar.Format(got))); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			verify(t, p)
		})
	}
}

// verify has systemd read the units that the pod would see: the plan's, and
// those of the stage1 image.
func verify(t *testing.T, p *Plan) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: the units are not verified")
		return
	}
	dir := t.TempDir()
	copyTree(t, "../rootfs/rkt/units", dir)
	var units []string
	for _, f := range p.Files {
		if path, ok := strings.CutPrefix(f.Path, podfs.UnitDir+"/"); ok {
			// the programs are the pod's: here any will do
			text := strings.ReplaceAll(string(f.Data), "/rkt-stage2", "/bin/true")
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(path, ".conf") {
				continue // a drop-in, read with its unit
			}
			units = append(units, filepath.Join(dir, path))
		}
	}
	cmd := exec.Command(tool, append([]string{"verify", "--man=no", "--generators=no", "--recursive-errors=no"}, units...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir, "SYSTEMD_LOG_LEVEL=warning")
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("systemd-analyze verify: %v", err)
	}
	for l := range strings.Lines(string(out)) {
		// Of the units under test; the tool also looks at what it needs of the host.
		for _, u := range units {
			if strings.Contains(l, filepath.Base(u)) {
				t.Errorf("systemd-analyze verify: %s", l)
				break
			}
		}
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// the verb would run them
	_ = filepath.WalkDir(to, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, e := os.ReadFile(p)
			if e == nil {
				_ = os.WriteFile(p, bytes.ReplaceAll(b, []byte("/rkt-stage2"), []byte("/bin/true")), 0o644)
			}
		}
		return nil
	})
}

const image1 = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a","labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]%s}`

// one makes the input of a pod with one app, "a".
func one(t *testing.T, app, pod string) Input {
	t.Helper()
	return parseInput(t, fmt.Appendf(nil, `{"Pod":{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"id":"sha512-%s"}%s}]%s},
"Images":{"a":%s}}`, strings.Repeat("0", 64), app, pod, fmt.Sprintf(image1, `,"app":{"exec":["/bin/a"],"user":"0","group":"0"}`)))
}

func TestErrors(t *testing.T) {
	app := func(fields string) string { return `,"app":{"exec":["/bin/a"],"user":"0","group":"0"` + fields + `}` }
	iso := func(list string) string { return app(`,"isolators":[` + list + `]`) }
	for _, c := range []struct {
		name, app, pod, want string
		change               func(in *Input)
	}{
		{name: "no apps", want: "at least one application", change: func(in *Input) { in.Pod.Apps = nil }},
		{name: "no image manifest", want: "image manifest is missing", change: func(in *Input) { in.Images = nil }},
		{name: "no app section", want: "no app section", change: func(in *Input) { in.Images["a"].App = nil }},
		{name: "empty exec", app: `,"app":{"exec":[],"user":"0","group":"0"}`, want: `empty "exec"`},
		{name: "users not looked up", want: "not looked up", change: func(in *Input) { in.IDs = nil }},
		{name: "dangling mount", app: `,"mounts":[{"volume":"v","path":"/x"}]`, want: `dangling mount point "/x": volume "v"`},
		{name: "bad mode of a stream", app: `,"annotations":[{"name":"coreos.com/rkt/stage2/stdin","value":"log"}]`, want: `"log" is no mode of stdin`},
		{name: "interactive without the flag", app: `,"annotations":[{"name":"coreos.com/rkt/stage2/stdout","value":"interactive"}]`, want: `"interactive" is no mode of stdout`},
		{name: "mount on the root", app: `,"mounts":[{"volume":"v","path":"/x/.."}]`, pod: `,"volumes":[{"name":"v","kind":"empty"}]`, want: "on the root"},
		{name: "mount on proc", app: `,"mounts":[{"volume":"v","path":"/proc"}]`, pod: `,"volumes":[{"name":"v","kind":"empty"}]`, want: "below /proc"},
		{name: "mount below proc", app: `,"mounts":[{"volume":"v","path":"//proc/./sys"}]`, pod: `,"volumes":[{"name":"v","kind":"empty"}]`, want: "below /proc"},
		{name: "bad mode", app: `,"mounts":[{"volume":"v","path":"/x"}]`, pod: `,"volumes":[{"name":"v","kind":"empty"}]`, want: `mode "9" is not octal`,
			change: func(in *Input) { m := "9"; in.Pod.Volumes[0].Mode = &m }},
		{name: "mode too large", app: `,"mounts":[{"volume":"v","path":"/x"}]`, pod: `,"volumes":[{"name":"v","kind":"empty"}]`, want: `mode "10000"`,
			change: func(in *Input) { m := "10000"; in.Pod.Volumes[0].Mode = &m }},
		{name: "relative source", app: `,"mounts":[{"volume":"v","path":"/x"}]`, pod: `,"volumes":[{"name":"v","kind":"host","source":"/a"}]`, want: "absolute path",
			change: func(in *Input) { in.Pod.Volumes[0].Source = "a/b" }},
		{name: "unknown kind", app: `,"mounts":[{"volume":"v","path":"/x"}]`, pod: `,"volumes":[{"name":"v","kind":"empty"}]`, want: `kind "nfs"`,
			change: func(in *Input) { in.Pod.Volumes[0].Kind = "nfs" }},
		{name: "capabilities in conflict", app: iso(`{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_KILL"]}},{"name":"os/linux/capabilities-remove-set","value":{"set":["CAP_CHOWN"]}}`),
			want: "exclude each other"},
		{name: "unknown capability", app: iso(`{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_TO_FLY"]}}`), want: `"CAP_TO_FLY" is not known`},
		{name: "unknown capability removed", app: iso(`{"name":"os/linux/capabilities-remove-set","value":{"set":["kill"]}}`), want: `"kill" is not known`},
		{name: "too little cpu", app: iso(`{"name":"resource/cpu","value":{"limit":"5m"}}`), want: "less than a hundredth"},
		{name: "too little memory", app: iso(`{"name":"resource/memory","value":{"limit":"16m"}}`), want: "less than a page"},
		{name: "too little memory for the pod", pod: `,"isolators":[{"name":"resource/memory","value":{"limit":"1"}}]`, want: "less than a page"},
		{name: "two seccomp isolators", app: iso(`{"name":"os/linux/seccomp-retain-set","value":{"set":["read"]}}`), want: "more than one isolator of system calls",
			change: func(in *Input) {
				a := in.Pod.Apps[0].App
				a.Isolators = append(a.Isolators, a.Isolators[0])
			}},
		{name: "seccomp errno", app: iso(`{"name":"os/linux/seccomp-remove-set","value":{"set":["read"],"errno":"ENOSUCH"}}`), want: `"ENOSUCH" is the name of no error`},
		{name: "seccomp removes all", app: iso(`{"name":"os/linux/seccomp-remove-set","value":{"set":["@appc.io/all"]}}`), want: "no call to start the app with"},
		{name: "no bandwidth", app: iso(`{"name":"resource/block-bandwidth","value":{"default":true}}`), want: "has no limit"},
		{name: "profile not loaded", app: iso(`{"name":"os/linux/apparmor-profile","value":{"profile":"web"}}`), want: `"web" is not loaded`,
			change: func(in *Input) { in.Facts.AppArmor, in.Facts.AppArmorProfiles = true, []string{"webs"} }},
		{name: "sysctl of the host", pod: sysctl("kernel.panic"), want: "belongs to the whole host"},
		{name: "sysctl that climbs", pod: sysctl("net/../kernel/panic"), want: "cannot be the name"},
		{name: "sysctl of a bad name", pod: sysctl("net.ipv4.a b"), want: "cannot be the name"},
		{name: "sysctl of the host's network", pod: sysctl("net.core.somaxconn"), want: "the host's network"},
		{name: "sysctl of the host's IPC", pod: sysctl("kernel.msgmax"), want: "the host's IPC", change: func(in *Input) { in.Run.IPC = "parent" }},
		{name: "sysctl of two lines", pod: `,"isolators":[{"name":"os/unix/sysctl","value":{"kernel.msgmax":"1\nx"}}]`, want: "not one line"},
		{name: "relative handler", app: app(`,"eventHandlers":[{"name":"pre-start","exec":["bin/x"]}]`), want: "must name an absolute path"},
		{name: "handler twice", app: app(`,"eventHandlers":[{"name":"pre-start","exec":["/x"]}]`), want: "given twice",
			change: func(in *Input) {
				a := in.Pod.Apps[0].App
				a.EventHandlers = append(a.EventHandlers, a.EventHandlers[0])
			}},
		{name: "order with a path", app: `,"annotations":[{"name":"coreos.com/rkt/stage2/after","value":"../../etc"}]`, want: "annotation coreos.com/rkt/stage2/after"},
		{name: "order with a newline", app: `,"annotations":[{"name":"coreos.com/rkt/stage2/wants","value":"b\nExecStart=/evil"}]`, want: "annotation coreos.com/rkt/stage2/wants"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := one(t, c.app, c.pod)
			if c.change != nil {
				c.change(&in)
			}
			p, err := Make(in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Make = %v, %v, want an error with %q", p, err, c.want)
			}
		})
	}
}

func sysctl(key string) string {
	return `,"isolators":[{"name":"os/unix/sysctl","value":{"` + key + `":"1"}}]`
}

// awkward are strings that would break a file format they are put into naively.
func awkward() []string {
	return []string{"a\nb", "\n[Service]\nExecStart=/evil", "%i %% %n", "$HOME ${HOME} $$", `"quoted" 'single' \x41 \n`, "a\\", "\t\r", "ü€\xff\xfe", " lead", "", ";", "#", "a\x1b[31m", "a\x00b"}
}

// TestHostileStrings: what manifests say reaches the app's record byte for
// byte, and never the text of a unit.
func TestHostileStrings(t *testing.T) {
	for _, h := range awkward() {
		in := one(t, `,"app":{"exec":["/bin/a"],"user":"0","group":"0"}`, "")
		a := in.Pod.Apps[0].App
		a.Exec = []string{"/bin/a" + h, h, "x"}
		a.WorkingDirectory = "/w" + h
		a.Environment.Set("V", h)
		p, err := Make(in)
		if err != nil {
			t.Errorf("%q: %v", h, err)
			continue
		}
		var s launch.Spec
		file(t, p, "rkt/apps/a.json", func(b []byte) {
			if err := json.Unmarshal(b, &s); err != nil {
				t.Fatal(err)
			}
		})
		// JSON holds text: bytes that are not UTF-8 cannot come out of a manifest either
		if want := []string{"/bin/a" + h, h, "x"}; !slices.Equal(s.Exec, clean(want)) {
			t.Errorf("exec %q, want %q", s.Exec, want)
		}
		if s.Dir != clean([]string{"/w" + h})[0] {
			t.Errorf("working directory %q, want %q", s.Dir, "/w"+h)
		}
		if !slices.Contains(s.Env, clean([]string{"V=" + h})[0]) {
			t.Errorf("environment %q lacks %q", s.Env, "V="+h)
		}
		file(t, p, "rkt/units/a.service", func(b []byte) {
			if h != "" && h != ";" && h != "#" && bytes.Contains(b, []byte(h)) {
				t.Errorf("the unit contains %q", h)
			}
			checkUnit(t, b)
		})
	}
}

func clean(in []string) []string {
	var out []string
	for _, s := range in {
		out = append(out, strings.ToValidUTF8(s, "\ufffd\ufffd"))
	}
	return out
}

// TestHostileNames: the one thing of an image that appears in a unit is its
// name in the description.
func TestHostileNames(t *testing.T) {
	for _, h := range awkward() {
		in := one(t, "", "")
		for i, l := range in.Images["a"].Labels {
			if l.Name == "os" {
				in.Images["a"].Labels[i].Name = "version"
				in.Images["a"].Labels[i].Value = h
			}
		}
		p, err := Make(in)
		if err != nil {
			continue // refused is as good
		}
		file(t, p, "rkt/units/a.service", func(b []byte) {
			checkUnit(t, b)
			for l := range strings.Lines(string(b)) {
				if v, ok := strings.CutPrefix(l, "Description="); ok && strings.Contains(strings.ReplaceAll(v, "%%", ""), "%") {
					t.Errorf("a specifier in %q", l)
				}
			}
		})
	}
}

// checkUnit reads a unit as systemd does and refuses what a service of an app
// never has.
func checkUnit(t *testing.T, b []byte) {
	t.Helper()
	known := map[string]int{"Description": 1, "DefaultDependencies": 1, "Wants": 9, "After": 9, "Before": 9, "Requires": 9, "BindsTo": 9, "PartOf": 9, "Conflicts": 1,
		"FailureAction": 1, "Type": 1, "NotifyAccess": 1, "ExecStartPre": 1, "ExecStart": 1, "ExecStopPost": 2, "Restart": 1, "TimeoutStartSec": 1,
		"SyslogIdentifier": 1, "StandardInput": 1, "StandardOutput": 1, "StandardError": 1, "MemoryMax": 1, "MemoryLow": 1, "CPUQuota": 1, "CPUWeight": 1, "OOMScoreAdjust": 1}
	seen := map[string]int{}
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSuffix(l, "\n")
		if l == "" || l[0] == '#' || l == "[Unit]" || l == "[Service]" {
			continue
		}
		k, _, ok := strings.Cut(l, "=")
		if seen[k]++; !ok || seen[k] > known[k] {
			t.Errorf("unexpected line %q in the unit:\n%s", l, b)
		}
		if strings.HasSuffix(l, `\`) {
			t.Errorf("line %q goes on in the next", l)
		}
	}
}

func file(t *testing.T, p *Plan, name string, f func([]byte)) {
	t.Helper()
	for i := range p.Files {
		if p.Files[i].Path == name {
			f(p.Files[i].Data)
			return
		}
	}
	t.Errorf("the plan has no file %q", name)
}

func TestEnvironment(t *testing.T) {
	in := one(t, "", "")
	a := in.Images["a"].App
	a.Environment.Set("PATH", "/only")
	a.Environment.Set("AC_APP_NAME", "liar")
	a.Environment.Set("container", "liar")
	got := environment("a", a, []string{"a b=1", "PATH=/image"})
	want := []string{"PATH=/only", "SHELL=/bin/sh", "USER=root", "LOGNAME=root", "HOME=/root", "a b=1", "AC_APP_NAME=a", "container=rkt"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestCapabilities(t *testing.T) {
	bit := func(names ...string) (set uint64) {
		for _, n := range names {
			b, ok := launch.CapByName(n)
			if !ok {
				t.Fatalf("%q", n)
			}
			set |= b
		}
		return set
	}
	for _, c := range []struct {
		retain, remove []string
		want           uint64
	}{
		{nil, nil, launch.DefaultCaps()},
		{[]string{"CAP_KILL"}, nil, bit("CAP_KILL")},
		{[]string{"CAP_KILL", "CAP_NET_ADMIN", "CAP_KILL"}, nil, bit("CAP_KILL", "CAP_NET_ADMIN")},
		{nil, []string{"CAP_KILL"}, launch.DefaultCaps() &^ bit("CAP_KILL")},
		{nil, []string{"CAP_NET_ADMIN"}, launch.DefaultCaps()},
	} {
		got, err := capabilities(c.retain, c.remove)
		if err != nil || got != c.want {
			t.Errorf("capabilities(%v, %v) = %#x, %v, want %#x", c.retain, c.remove, got, err, c.want)
		}
	}
	for _, c := range []struct {
		caps uint64
		want []string
	}{
		{launch.DefaultCaps(), nil},
		{launch.AllCaps, []string{"all"}},
		{bit("CAP_NET_ADMIN", "CAP_BPF", "CAP_KILL"), []string{"CAP_BPF", "CAP_NET_ADMIN"}},
	} {
		if got := extraCaps([]launch.Spec{{Caps: c.caps}}); !slices.Equal(got, c.want) {
			t.Errorf("extraCaps(%#x) = %v, want %v", c.caps, got, c.want)
		}
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

func testApp() *app { return &app{System: System{}} }

// words parses a command line of "rkt run" and describes the images.
func words(t *testing.T, line ...string) (string, podOptions, error) {
	t.Helper()
	var po podOptions
	var so startOptions
	cmd := &cobra.Command{Use: "run"}
	po.flags(cmd, true)
	so.flags(cmd)
	g, err := parseImages(cmd, line, appFlags(), true)
	if err != nil {
		return "", po, err
	}
	var out []string
	for _, a := range g.apps {
		s := a.image
		if a.name != "" {
			s += " name=" + a.name
		}
		if a.exec != "" {
			s += " exec=" + a.exec
		}
		if a.user != "" {
			s += " user=" + a.user
		}
		if a.readOnly {
			s += " ro"
		}
		for _, m := range a.mounts {
			s += fmt.Sprintf(" %s->%s", m.Volume, m.Path)
		}
		for _, e := range a.environment {
			s += fmt.Sprintf(" %s=%s", e[0], e[1])
		}
		if a.capsRetain != nil {
			s += " caps=" + strings.Join(a.capsRetain, "+")
		}
		if a.groups != nil {
			s += fmt.Sprint(" groups=", a.groups)
		}
		if len(a.args) > 0 {
			s += fmt.Sprintf(" %q", a.args)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ") + " net=" + strings.Join(so.net, "|"), po, nil
}

func TestGrammar(t *testing.T) {
	for _, c := range []struct {
		name string
		line []string
		want string
	}{
		{"one image", []string{"a.aci"}, "a.aci net="},
		{"flags before and after", []string{"--net=host", "a.aci", "--debug-not-here=1"}, ""},
		{"pod flags anywhere", []string{"a.aci", "--net=host", "b.aci", "--volume", "v,kind=empty"}, "a.aci; b.aci net=host"},
		{"net without value", []string{"--net", "a.aci"}, "a.aci net=default"},
		{"app flags", []string{"a.aci", "--name=x", "--exec", "/bin/x", "--user=1", "b.aci", "--name", "y"}, "a.aci name=x exec=/bin/x user=1; b.aci name=y net="},
		{"repeatable", []string{"a.aci", "--environment=A=1", "--environment=B=2=3", "--mount=volume=v,target=/x"}, "a.aci v->/x A=1 B=2=3 net="},
		{"the last wins", []string{"a.aci", "--name=x", "--name=y"}, "a.aci name=y net="},
		{"mounts before images are for all", []string{"--mount", "volume=v,target=/x", "a.aci", "--mount=target=/y,volume=w", "b.aci"}, "a.aci w->/y v->/x; b.aci v->/x net="},
		{"arguments", []string{"a.aci", "--", "-x", "--name=no", "", "--"}, `a.aci ["-x" "--name=no" "" "--"] net=`},
		{"arguments of two", []string{"a.aci", "--", "1", "---", "b.aci", "--", "2", "---", "--net=none"}, `a.aci ["1"]; b.aci ["2"] net=none`},
		{"old spelling", []string{"a.aci", "--cap-retain=CAP_KILL,CAP_CHOWN"}, "a.aci caps=CAP_KILL+CAP_CHOWN net="},
		{"groups", []string{"a.aci", "--supplementary-gids=1,2"}, "a.aci groups=[1 2] net="},
		{"read-only", []string{"a.aci", "--readonly-rootfs=true"}, "a.aci ro net="},
	} {
		if c.want == "" {
			if got, _, err := words(t, c.line...); err == nil {
				t.Errorf("%s: %q = %q, want an error", c.name, c.line, got)
			}
			continue
		}
		if got, _, err := words(t, c.line...); err != nil || got != c.want {
			t.Errorf("%s: %q = %q, %v, want %q", c.name, c.line, got, err, c.want)
		}
	}
	for _, c := range []struct {
		line []string
		want string
	}{
		{[]string{"--name=x", "a.aci"}, "--name: must follow an image"},
		{[]string{"--", "x"}, "before the first image"},
		{[]string{"a.aci", "--", "x", "---", "--", "y"}, "-- is given twice"},
		{[]string{"a.aci", "-x"}, "flags begin with two dashes"},
		{[]string{"a.aci", "--nonsense"}, "unknown flag --nonsense"},
		{[]string{"a.aci", "--name"}, "--name needs a value"},
		{[]string{"a.aci", "--exec=/a", "--exec=/b"}, "is given twice"},
		{[]string{"a.aci", "--environment=A"}, "is not NAME=VALUE"},
		{[]string{"a.aci", "--environment==A"}, "is not NAME=VALUE"},
		{[]string{"a.aci", "--mount=volume=v"}, "needs both volume= and target="},
		{[]string{"a.aci", "--mount=volume=v,volume=w,target=/x"}, "is not volume=NAME,target=PATH"},
		{[]string{"a.aci", "--mount=volume=v,target=/x,ro=1"}, `unknown key "ro"`},
		{[]string{"a.aci", "--mount=volume=V V,target=/x"}, `volume "V V"`},
		{[]string{"a.aci", "--supplementary-gids=1,-1"}, `"-1" is not a group number`},
		{[]string{"a.aci", "--cpu-shares=many"}, "is not a number"},
		{[]string{"a.aci", "--readonly-rootfs=perhaps"}, "neither true nor false"},
		{[]string{"a.aci", "--inherit-env=perhaps"}, "--inherit-env"},
	} {
		if got, _, err := words(t, c.line...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q = %q, %v, want an error with %q", c.line, got, err, c.want)
		}
	}
}

func TestIsolatorFlags(t *testing.T) {
	for _, c := range []struct {
		a    appArgs
		want string
	}{
		{appArgs{memory: "64m"}, "less than a page"},
		{appArgs{memory: "much"}, `--memory "much"`},
		{appArgs{capsRetain: []string{"CAP_KILL"}, capsRemove: []string{"CAP_KILL"}}, "exclude each other"},
		{appArgs{cpu: "x"}, "cpu"},
	} {
		if got, err := c.a.isolators(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %v, want an error with %q", c.a, got, err, c.want)
		}
	}
	a := appArgs{memory: "64Mi", cpu: "500m", cpuShares: 512, set: map[string]bool{"cpu-shares": true}, capsRemove: []string{"CAP_KILL"}}
	got, err := a.isolators()
	if err != nil || len(got) != 4 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]string{"http:80": "http <nil> 80", "http:127.0.0.1:8080": "http 127.0.0.1 8080"} {
		p, err := parsePort(in)
		ip := "<nil>"
		if p.HostIP != nil {
			ip = p.HostIP.String()
		}
		if got := fmt.Sprint(p.Name, " ", ip, " ", p.HostPort); err != nil || got != want {
			t.Errorf("parsePort(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"": "format", "http": "format", "a:b:c:d": "format", "HTTP:80": "port name", "http:0": "port number", "http:65536": "port number",
		"http:-1": "port number", "http:x:80": "valid IP"} {
		if p, err := parsePort(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parsePort(%q) = %+v, %v, want an error with %q", in, p, err, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{"0": 0, "90s": 90 * time.Second, "24h": 24 * time.Hour} {
		var v durationValue
		if err := v.Set(in); err != nil || v.d != want {
			t.Errorf("Set(%q): %v, %v", in, v.d, err)
		}
	}
	for _, bad := range []string{"", "5", "-1s", "1 day"} {
		var v durationValue
		if err := v.Set(bad); err == nil {
			t.Errorf("Set(%q) = %v, want an error", bad, v.d)
		}
	}
	for in, want := range map[string]waitFlag{"true": {true, 0}, "false": {}, "0": {}, "10s": {true, 10 * time.Second}, "-1s": {true, 0}} {
		v := waitFlag{limit: 1}
		if in == "false" || in == "0" {
			v = waitFlag{on: true}
		}
		if err := v.Set(in); err != nil || v != want {
			t.Errorf("wait %q: %+v, %v, want %+v", in, v, err, want)
		}
	}
	if err := new(waitFlag).Set("soon"); err == nil {
		t.Error(`wait "soon" is taken`)
	}
	for d, want := range map[time.Duration]string{0: "now", 999 * time.Millisecond: "now", time.Second: "1 second ago", 59 * time.Second: "59 seconds ago", 90 * time.Second: "1 minute ago",
		3 * time.Hour: "3 hours ago", 25 * time.Hour: "1 day ago", 15 * 24 * time.Hour: "2 weeks ago", 70 * 24 * time.Hour: "2 months ago", 800 * 24 * time.Hour: "2 years ago", -time.Hour: "now"} {
		if got := relative(d); got != want {
			t.Errorf("relative(%v) = %q, want %q", d, got, want)
		}
	}
	now := time.Date(2026, 5, 6, 12, 30, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{"10m": now.Add(-10 * time.Minute), "-2h": now.Add(-2 * time.Hour), "2h ago": now.Add(-2 * time.Hour),
		"2026-05-01": time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), "2026-05-01 10:11:12": time.Date(2026, 5, 1, 10, 11, 12, 0, time.UTC),
		"today": time.Date(2026, 5, 6, 0, 0, 0, 0, time.UTC)} {
		if got, err := parseTime("--since", in, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	if _, err := parseTime("--since", "long ago", now); err == nil {
		t.Error(`--since "long ago" is taken`)
	}
}

func TestEnvironmentFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	for text, want := range map[string]string{"A=1\n# no\n;no\n\nB==x y\n": "[[A 1] [B =x y] [C 3]]", "A": "error", "A=1\nA=2": "error"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := environment(&podOptions{setEnvFile: []string{file}, setEnv: []string{"C=3"}})
		if want == "error" {
			if err == nil || !strings.Contains(err.Error(), file+":") {
				t.Errorf("%q: %v, want file and line", text, err)
			}
		} else if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, bad := range []string{"A", "=x"} {
		if _, err := environment(&podOptions{setEnv: []string{bad}}); err == nil {
			t.Errorf("--set-env %q is taken", bad)
		}
	}
}

func TestUnitUUID(t *testing.T) {
	const id = "6f1c2b3a0d4e4c5b8a7f1e2d3c4b5a69"
	for _, c := range []struct {
		env  []string
		want bool
	}{
		{[]string{"SYSTEMD_EXEC_PID=7", "INVOCATION_ID=" + id}, true},
		{[]string{"INVOCATION_ID=" + id}, false}, // a shell of some unit
		{[]string{"SYSTEMD_EXEC_PID=8", "INVOCATION_ID=" + id}, false},
		{[]string{"SYSTEMD_EXEC_PID=7", "INVOCATION_ID=x"}, false},
	} {
		a := &app{System: System{PID: 7, Environ: c.env}}
		if got, ok := a.unitUUID(); ok != c.want {
			t.Errorf("%v: %q, %t", c.env, got, ok)
		}
	}
}

// rkt runs a command line in this process.
func rkt(t *testing.T, euid int, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errb bytes.Buffer
	// what is logged goes to the process's own standard error
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stderr
	os.Stderr = w
	code = Main(t.Context(), System{Args: args, Stdout: &out, Stderr: &errb, PID: 1 << 30, EUID: euid})
	os.Stderr = old
	w.Close()
	logged, err := readAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return code, out.String(), errb.String() + logged
}

func readAll(r *os.File) (string, error) {
	defer r.Close()
	var b bytes.Buffer
	_, err := b.ReadFrom(r)
	return b.String(), err
}

func TestMainExit(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		code   int
		out    string
		stderr string
	}{
		{"bare", nil, 2, "", "no command given"},
		{"bare pod", []string{"pod"}, 2, "", "pod: no command given"},
		{"bare image", []string{"image"}, 2, "", "image: no command given"},
		{"help", []string{"--help"}, 0, "rkt", ""},
		{"help of a command", []string{"help", "run"}, 0, "run", ""},
		{"version", []string{"version"}, 0, "rkt Version: ", ""},
		{"prefix", []string{"vers"}, 0, "rkt Version: ", ""},
		{"unknown", []string{"frobnicate"}, 254, "", `unknown command "frobnicate"`},
		{"near miss", []string{"lsit"}, 254, "", "did you mean list?"},
		{"unknown in pod", []string{"pod", "frobnicate"}, 254, "", `unknown command "frobnicate" for pod`},
		{"unknown flag", []string{"list", "--nonsense"}, 254, "", "nonsense"},
		{"too many", []string{"version", "x"}, 254, "", "takes no arguments"},
		{"format", []string{"list", "--format=xml"}, 254, "", `unknown format "xml"`},
		{"empty dir", []string{"--dir=", "list"}, 254, "", "--dir must not be empty"},
	} {
		code, out, errs := rkt(t, 1000, c.args...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.stderr) {
			t.Errorf("%s: rkt %q = %d\nstdout: %s\nstderr: %s\nwant %d, %q, %q", c.name, c.args, code, out, errs, c.code, c.out, c.stderr)
		}
		if c.code == 254 && out != "" {
			t.Errorf("%s: a failure prints results: %q", c.name, out)
		}
	}
}

// commands are all of them, as words.
func commands(t *testing.T) [][]string {
	t.Helper()
	var out [][]string
	err := eachCommand(testApp().root(), func(c *cobra.Command) error {
		out = append(out, strings.Fields(c.CommandPath())[1:])
		return nil
	})
	if err != nil || len(out) < 20 {
		t.Fatalf("%d commands, %v", len(out), err)
	}
	return out
}

func TestHelpEverywhere(t *testing.T) {
	for _, c := range commands(t) {
		code, out, errs := rkt(t, 1000, append(slices.Clone(c), "--help")...)
		if code != 0 || !strings.Contains(out, strings.Join(append([]string{"rkt"}, c...), " ")) || errs != "" {
			t.Errorf("rkt %q --help = %d\nstdout: %s\nstderr: %s", c, code, out, errs)
		}
	}
}

// TestHelpAndPages: the manual page of a command and its help name the same
// options.
func TestHelpAndPages(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := rkt(t, 1000, "docgen", "man", dir); code != 0 {
		t.Fatalf("docgen: %s", errs)
	}
	for _, c := range commands(t) {
		name := strings.Join(append([]string{"rkt"}, c...), "-")
		page, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		_, help, _ := rkt(t, 1000, append(slices.Clone(c), "--help")...)
		inPage, inHelp := optionsIn(strings.ReplaceAll(string(page), `\-`, "-"), ".B "), optionsIn(help, "")
		if !slices.Equal(inPage, inHelp) {
			t.Errorf("%s: the page has %v\nthe help has %v", name, inPage, inHelp)
		}
	}
}

// optionsIn collects the options that lines begin with.
func optionsIn(text, prefix string) []string {
	var out []string
	for l := range strings.Lines(text) {
		l = strings.TrimPrefix(strings.TrimLeft(l, "\t "), prefix)
		if len(l) > 4 && l[0] == '-' && l[1] != '-' && l[2] == ',' {
			l = l[4:]
		}
		if !strings.HasPrefix(l, "--") {
			continue
		}
		name := l[2:]
		if i := strings.IndexAny(name, "=[ \t\n"); i >= 0 {
			name = name[:i]
		}
		if name != "help" && name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestUnprivileged: commands for root say so before they look at anything.
func TestUnprivileged(t *testing.T) {
	for _, line := range []string{"run", "run --nonsense", "prepare", "run-prepared", "gc", "gc x y", "rm", "enter", "pod run", "pod run a b"} {
		code, out, errs := rkt(t, 1000, strings.Fields(line)...)
		if code != 254 || out != "" || !strings.Contains(errs, "cannot run as unprivileged user") || strings.Count(errs, "\n") != 1 {
			t.Errorf("rkt %s = %d\nstdout: %s\nstderr: %s", line, code, out, errs)
		}
	}
}

const appless = `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"web","image":{"id":"sha512-%s"}},{"name":"db","image":{"id":"sha512-%[1]s"}}]}`

func TestListAndStatus(t *testing.T) {
	dir := t.TempDir()
	const id = "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69"
	p := filepath.Join(dir, "pods", podfs.Run, id)
	at := time.Date(2026, 5, 6, 7, 8, 9, 120_000_000, time.Local)
	for name, text := range map[string]string{
		podfs.PodManifest: fmt.Sprintf(appless, strings.Repeat("ab", 32)), podfs.PodCreated: "", podfs.DeclaredName: "shop\n", podfs.MachineName: "shop\n",
		podfs.UnitName: "rkt@shop.service\n", podfs.Ppid: "4242\n", podfs.NetInfo: `[{"netName":"default","ip":"172.16.28.2"}]`,
		"stage1/rootfs/rkt/status/db": "7\n",
	} {
		file := filepath.Join(p, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	flags := []string{"--dir=" + dir, "--local-config=" + dir, "--system-config=" + dir}
	run := func(args ...string) string {
		t.Helper()
		code, out, errs := rkt(t, 1000, append(slices.Clone(flags), args...)...)
		if code != 0 {
			t.Errorf("rkt %q = %d: %s", args, code, errs)
		}
		return out
	}
	stamp := at.Format(timeLayout)
	want := "state=exited\ncreated=" + stamp + "\nstarted=" + stamp + "\nnetworks=default:ip4=172.16.28.2\npid=4242\nexited=true\napp-db=7\n"
	for _, name := range []string{id, "6f1c", "shop"} {
		if got := run("status", name); got != want {
			t.Errorf("status %s:\n%s\nwant\n%s", name, got, want)
		}
	}
	var one podJSON
	if err := json.Unmarshal([]byte(run("status", "--format=json", id)), &one); err != nil {
		t.Fatal(err)
	}
	if one.Name != id || one.State != "exited" || one.DeclaredName != "shop" || one.Machine != "shop" || one.Unit != "rkt@shop.service" || one.CreatedAt != at.Unix() ||
		len(one.Apps) != 2 || one.Apps[0].ExitCode != nil || *one.Apps[1].ExitCode != 7 || one.Apps[1].State != "exited" || !slices.Equal(one.AppNames, []string{"web", "db"}) {
		t.Errorf("status --format=json: %+v", one)
	}
	got := strings.Split(run("list", "--full"), "\n")
	if len(got) != 4 || !strings.HasPrefix(got[0], "UUID\tAPP\tIMAGE NAME\tIMAGE ID") && !strings.HasPrefix(strings.Join(strings.Fields(got[0]), " "), "UUID APP IMAGE NAME IMAGE ID STATE CREATED STARTED NETWORKS") {
		t.Errorf("list: %q", got)
	}
	for i, want := range []string{id + " web -- sha512-abababababab exited", "db -- sha512-abababababab"} {
		if f := strings.Join(strings.Fields(got[i+1]), " "); !strings.HasPrefix(f, want) {
			t.Errorf("list: line %d is %q, want %q", i+1, f, want)
		}
	}
	if out := run("list", "--no-legend"); strings.Contains(out, "UUID") || !strings.HasPrefix(out, "6f1c2b3a") {
		t.Errorf("list --no-legend: %s", out)
	}
	var list []podJSON
	if err := json.Unmarshal([]byte(run("list", "--format=json-pretty")), &list); err != nil || len(list) != 1 || list[0].Name != id {
		t.Errorf("list --format=json-pretty: %+v, %v", list, err)
	}
	if out := run("cat-manifest", "--pretty-print=false", id); !strings.HasPrefix(out, `{"acVersion":"0.8.11","acKind":"PodManifest"`) {
		t.Errorf("cat-manifest: %s", out)
	}
	// a pod that cannot be read is reported after the good ones
	bad := filepath.Join(dir, "pods", podfs.Run, pod.NewUUID())
	if err := os.MkdirAll(bad, 0o755); err != nil {
		t.Fatal(err)
	}
	code, out, errs := rkt(t, 1000, append(slices.Clone(flags), "list")...)
	if code != 0 || !strings.Contains(out, "6f1c2b3a") || !strings.Contains(errs, filepath.Base(bad)) {
		t.Errorf("a broken pod: %d\n%s\n%s", code, out, errs)
	}
	if code, _, errs := rkt(t, 1000, append(slices.Clone(flags), "status", "nobody")...); code != 254 || !strings.Contains(errs, "nobody") {
		t.Errorf("no such pod: %d, %s", code, errs)
	}
	if code, _, errs := rkt(t, 0, append(slices.Clone(flags), "rm", id)...); code != 0 {
		t.Errorf("rm: %d, %s", code, errs)
	}
	if _, err := os.Stat(p); !os.IsNotExist(err) {
		t.Error("rm leaves the pod")
	}
}

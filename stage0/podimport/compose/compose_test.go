package compose

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/podimport"
)

var update = flag.Bool("update", false, "write the golden files anew")

// project reads the compose files of a directory as rkt pod import does.
func project(t *testing.T, dir string) []podimport.Source {
	t.Helper()
	var out []podimport.Source
	for _, name := range []string{"compose.yaml", "compose.override.yaml", ".env"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, podimport.Source{Path: filepath.Join(dir, name), Data: data})
	}
	return out
}

// render writes a result for people; root is left out of paths.
func render(t *testing.T, r *podimport.Result, root string) string {
	t.Helper()
	var b strings.Builder
	for _, p := range r.Pods {
		text, problems, err := p.File.Bytes(p.Name)
		if err != nil {
			t.Fatalf("pod %q: %v\n%s", p.Name, err, text)
		}
		fmt.Fprintf(&b, "== pod %s\n%s", p.Name, text)
		for _, pr := range problems {
			fmt.Fprintf(&b, "-- %s %s: %s\n", pr.Severity, pr.Path, pr.Message)
		}
	}
	for _, f := range r.Files {
		fmt.Fprintf(&b, "== file %s %04o\n%s", f.Path, f.Mode, f.Text)
	}
	b.WriteString("== report\n")
	for _, n := range r.Notes {
		if n.Key != "mode" { // who gets into the checkout is not ours
			fmt.Fprintln(&b, n)
		}
	}
	return strings.ReplaceAll(b.String(), root, "/srv")
}

// TestProjects converts whole projects of popular services.
func TestProjects(t *testing.T) {
	all, err := filepath.Glob("testdata/*/compose.yaml")
	if err != nil || len(all) < 10 {
		t.Fatalf("%d projects, %v", len(all), err)
	}
	root, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		name := filepath.Base(filepath.Dir(path))
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"HTTP_SECRET": "0123", "GRAFANA_ADMIN": "geheim"}
			r, err := Convert(t.Context(), project(t, filepath.Join(root, name)), env)
			if err != nil {
				t.Fatal(err)
			}
			got := render(t, r, root)
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if strings.Contains(got, "-- ") {
				t.Error("the checks of pod files have something to say")
			}
		})
	}
}

// convertText converts one file in a directory that does not exist.
func convertText(t *testing.T, text string) (*podimport.Result, error) {
	t.Helper()
	return Convert(t.Context(), []podimport.Source{{Path: "/nowhere/shop/compose.yaml", Data: []byte(text)}}, nil)
}

func podsOf(t *testing.T, r *podimport.Result) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, p := range r.Pods {
		text, _, err := p.File.Bytes(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := json.Compact(&b, text); err != nil {
			t.Fatal(err)
		}
		out[p.Name] = b.String()
	}
	return out
}

func TestParts(t *testing.T) {
	for name, tc := range map[string]struct {
		text  string
		pods  map[string][]string // what each contains
		notes []string
		fails string
	}{
		"names": {text: "services: {shop: {image: a}, db: {image: b, container_name: sql}, web_1: {image: c}}",
			pods:  map[string][]string{"shop": nil, "sql": {`"hostname":"db"`}, "shop-web_1": {`"hostname":"web-1"`, `"net":["shop_default:IP=`}},
			notes: []string{`"web_1" is another name`}},
		"two of a name": {text: "services: {a: {image: a, container_name: x}, b: {image: b, container_name: x}}", fails: "x"},
		"command":       {text: "services: {a: {image: a, command: sh -c 'a b'}}", pods: map[string][]string{"shop-a": {`"args":["sh","-c","a b"]`}}},
		"entrypoint":    {text: "services: {a: {image: a, entrypoint: [/x, y], command: z}}", pods: map[string][]string{"shop-a": {`"exec":["/x","y","z"]`}}},
		"images": {text: "services: {a: {image: a}, b: {image: b/c:1}, c: {image: localhost/x}, d: {image: 'r:5/x@sha256:" + strings.Repeat("a", 64) + "'}}",
			pods:  map[string][]string{"shop-a": {`docker://docker.io/library/a:latest`}, "shop-b": {`docker://docker.io/b/c:1`}, "shop-c": {`docker://localhost/x:latest`}, "shop-d": {`docker://r:5/x@sha256:aa`}},
			notes: []string{"images of docker.io are named by tags"}},
		"one pod": {text: "services: {a: {image: a, ports: ['80:80']}, b: {image: b, network_mode: 'service:a', restart: always}, c: {image: c, depends_on: [b]}}",
			pods: map[string][]string{"shop-a": {`"name":"a"`, `"name":"b"`, `"Restart":"always"`}, "shop-c": {`"Wants":"rkt@shop-a.service"`}}},
		"circles": {text: "services: {a: {image: a, network_mode: 'service:b'}, b: {image: b, network_mode: 'service:a'}}", fails: "dependency cycle"},
		"one that ends": {text: "services: {a: {image: a, restart: always, depends_on: {b: {condition: service_completed_successfully}}}, b: {image: b}}",
			pods: map[string][]string{"shop-a": {`"Requires":"rkt-completed@shop-b.service"`, `"After":"rkt-completed@shop-b.service"`}, "shop-b": nil}},
		"health": {text: "services: {a: {image: a, depends_on: {b: {condition: service_healthy}}}, b: {image: b, healthcheck: {test: x y, interval: 1500ms}}, c: {image: c, healthcheck: {disable: true}}}",
			pods: map[string][]string{"shop-a": {`"Requires":"rkt@shop-b.service"`}, "shop-b": {`"exec":["/bin/sh","-c","x y"]`, `"interval":"1500ms"`, `"ready":"healthy"`}, "shop-c": {`"health":false`}}},
		"ports": {text: "services: {a: {image: a, ports: ['80', '127.0.0.1:81:80', '[::1]:82:80', '90-91:90-91/udp']}}",
			pods: map[string][]string{"shop-a": {`{"hostIP":"127.0.0.1","hostPort":81,"name":"80-tcp-a-1"}`, `{"hostPort":91,"name":"91-udp"}`}}, notes: []string{"Docker chooses a port", "[::1]"}},
		"replicas": {text: "services: {a: {image: a, ports: ['80:80'], deploy: {replicas: 3}}, b: {image: b, links: ['a:c']}}",
			pods: map[string][]string{"shop-a-1": {`"hostPort":80`, `IP=`}, "shop-a-2": nil, "shop-a-3": nil, "shop-b": {`=c"`, `"PartOf":["rkt@shop-a-1.service"`}}, notes: []string{"only the first replica"}},
		"host": {text: "services: {a: {image: a, network_mode: host, ports: ['80:80']}}", pods: map[string][]string{"shop-a": {`"net":["host"]`}}, notes: []string{"nothing is forwarded"}},
		"networks": {text: "services: {a: {image: a, networks: [x, y]}}\nnetworks: {x: {external: true}, y: {name: lan, driver: macvlan, driver_opts: {parent: eth1}}}",
			pods: map[string][]string{"shop-a": {`"net":["x","lan"]`}}, notes: []string{"has to be there"}},
		"a taken address": {text: "services: {a: {image: a, networks: {default: {ipv4_address: 10.1.0.1}}}}\nnetworks: {default: {ipam: {config: [{subnet: 10.1.0.0/24}]}}}", fails: "10.1.0.1"},
		"capabilities": {text: "services: {a: {image: a, cap_drop: [all]}, b: {image: b, cap_add: [NET_ADMIN], cap_drop: [CHOWN]}}",
			pods: map[string][]string{"shop-a": {"capabilities-remove-set", "CAP_SETUID"}, "shop-b": {"capabilities-retain-set", "CAP_NET_ADMIN", `"privateUsers":false`}}},
		"variables": {text: "services: {a: {image: 'a:${V}', environment: [X, 'Y=${Z:-z}']}}", fails: "a:"},
		"unset":     {text: "services: {a: {image: a, command: 'x ${V} ${W:-w} $${U}'}}", pods: map[string][]string{"shop-a": {`"args":["x","w","${U}"]`}}, notes: []string{"$V: the variable is not set"}},
		"tmpfs": {text: "services: {a: {image: a, tmpfs: ['/run:size=1m,mode=0700,uid=5'], volumes: ['/x', {type: tmpfs, target: /y}]}}",
			pods: map[string][]string{"shop-a": {`"kind":"empty","mode":"0700","name":"run","uid":5`}}, notes: []string{"no size of its own", "goes with each run"}},
		"secret": {text: "services: {a: {image: a, secrets: [s, {source: t, target: x}]}}\nsecrets: {s: {file: ./s}, t: {environment: TT}}",
			pods: map[string][]string{"shop-a": {`{"name":"s","file":"/run/secrets/s"}`, `"load":"/nowhere/shop/s"`, `/run/secrets/x`}}, notes: []string{"TT is not set"}},
		"grace": {text: "services: {a: {image: a, stop_grace_period: 5m}, b: {image: b, network_mode: 'service:a', stop_grace_period: 90s}, c: {image: c, stop_grace_period: 0s}, d: {image: d, stop_grace_period: 1500ms}}",
			pods: map[string][]string{"shop-a": {`"TimeoutStopSec":"300s"`, `"TimeoutStopSec":"90s"`, `"TimeoutStopSec":"320s"`}, "shop-c": {`"TimeoutStopSec":"1s"`}, "shop-d": {`"TimeoutStopSec":"1500ms"`}}},
		"the terminal":  {text: "services: {a: {image: a, tmpfs: [\"/x:\\e[31m\"]}}", pods: map[string][]string{"shop-a": nil}, notes: []string{`"\x1b[31m" has no counterpart`}},
		"docker itself": {text: "services: {a: {image: a, volumes: ['/var/run/docker.sock:/var/run/docker.sock']}}", pods: map[string][]string{"shop-a": nil}, notes: []string{"no Docker"}},
		"nothing":       {text: "services: {a: {image: a, scale: 0}}", fails: "no replica"},
		"unknown":       {text: "services: {a: {image: a, restrat: always}}", fails: "restrat"},
		"no service":    {text: "volumes: {a: {}}", fails: "no service"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := convertText(t, tc.text)
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Fatalf("%v, want an error with %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			pods := podsOf(t, r)
			for pod, want := range tc.pods {
				text, ok := pods[pod]
				if !ok {
					t.Errorf("no pod %q in %v", pod, pods)
				}
				for _, w := range want {
					if !strings.Contains(text, w) {
						t.Errorf("pod %s lacks %s:\n%s", pod, w, text)
					}
				}
			}
			if len(pods) != len(tc.pods) {
				t.Errorf("%d pods, want %d", len(pods), len(tc.pods))
			}
			notes := fmt.Sprint(r.Notes)
			for _, w := range tc.notes {
				if !strings.Contains(notes, w) {
					t.Errorf("the report lacks %q:\n%v", w, r.Notes)
				}
			}
		})
	}
}

// TestHostile: nothing outside of the project's directory is read, and nothing
// grows without end.
func TestHostile(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "shop")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const service = "services: {x: {image: 'x:${LEAK:-none}'}}"
	write("../outside.yaml", service)
	write("../outside.env", "LEAK=leaked")
	write("in/ok.yaml", service)
	write("in/deep.yaml", "include: [../../outside.yaml]")
	write("in/more.yaml", "services: {x: {extends: {file: ../../outside.yaml, service: x}}}")
	write("loop.yaml", "include: [loop.yaml]\n"+service)
	write("env/c.yaml", service)
	if err := os.Symlink("../outside.yaml", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../outside.env", filepath.Join(dir, "env", ".env")); err != nil {
		t.Fatal(err)
	}
	bomb := "x0: &x0 [a,a,a,a,a,a,a,a,a,a]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("x%d: &x%d [*x%d,*x%d,*x%d,*x%d,*x%d,*x%d,*x%d,*x%d]\n", i+1, i+1, i, i, i, i, i, i, i, i)
	}
	extends := func(file string) string {
		return fmt.Sprintf("services: {a: {extends: {file: %q, service: x}}}", file)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"extends":             {extends("in/ok.yaml"), ""},
		"include":             {"include: [in/ok.yaml]", ""},
		"extends outside":     {extends("../outside.yaml"), "outside of the project"},
		"extends absolute":    {extends("/etc/passwd"), "outside of the project"},
		"extends a link":      {extends("link.yaml"), "link.yaml"},
		"extends by alias":    {"x-f: &f {file: ../outside.yaml, service: x}\nservices: {a: {extends: *f}}", "outside of the project"},
		"extends by merge":    {"x-f: &f {extends: {file: ../outside.yaml, service: x}}\nservices: {a: {<<: *f}}", "outside of the project"},
		"extends by variable": {"services: {a: {extends: {file: '${F:-../outside.yaml}', service: x}}}", "variables"},
		"extends from afar":   {extends("https://example.com/x.yaml"), "remote"},
		"include outside":     {"include: [../outside.yaml]", "outside of the project"},
		"include from afar":   {"include: ['https://example.com/a.git']", "remote"},
		"include of oci":      {"include: ['oci://example.com/a']", "remote"},
		"deeper":              {"include: [in/deep.yaml]", "outside of the project"},
		"deeper extends":      {extends("in/more.yaml"), "outside of the project"},
		"variables outside":   {"include: [{path: in/ok.yaml, env_file: ../outside.env}]", "outside of the project"},
		"directory outside":   {"include: [{path: in/ok.yaml, project_directory: ..}]", "outside of the project"},
		"variables by link":   {"include: [env/c.yaml]", ".env"},
		"a loop":              {"include: [loop.yaml]", "cycle"},
		"a bomb":              {bomb + service, "values"},
		"itself":              {"x: &x [*x]\n" + service, ""},
		"deep":                {"x-a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n" + service, "deeper"},
		"many services":       {"services:\n" + strings.Repeat("  a%d: {image: a}\n", 1), ""},
		"no YAML":             {"services: [", "no YAML"},
		"no mapping":          {"[a]", ""},
		"many variables":      {"services: {a: {image: a, command: '" + strings.Repeat("${a:-", 3000) + strings.Repeat("}", 3000) + "'}}", "variables"},
		"many ports":          {"services: {a: {image: a, ports: ['1-2000:1-2000']}}", "ports"},
	} {
		t.Run(name, func(t *testing.T) {
			text := tc.text
			r, err := Convert(t.Context(), []podimport.Source{{Path: filepath.Join(dir, "compose.yaml"), Data: []byte(text)}}, nil)
			switch {
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("%v, want an error with %q", err, tc.want)
			case name == "extends" || name == "include":
				if err != nil || !strings.Contains(podsOf(t, r)["shop-"+map[string]string{"extends": "a", "include": "x"}[name]], "x:none") {
					t.Errorf("%v %v", r, err)
				}
			}
		})
	}
}

func FuzzConvert(f *testing.F) {
	all, err := filepath.Glob("testdata/*/compose.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		begin := time.Now()
		r, err := Convert(t.Context(), []podimport.Source{{Path: "/nowhere/shop/compose.yaml", Data: data}}, nil)
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("it took %s", d)
		}
		if err != nil {
			return
		}
		for _, p := range r.Pods {
			if err := podfile.CheckName(p.Name); err != nil {
				t.Error(err)
			}
			if _, _, err := p.File.Bytes(p.Name); err != nil {
				t.Errorf("pod %q: %v", p.Name, err)
			}
		}
	})
}

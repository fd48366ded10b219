package sources

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// TestGolden imports every directory of testdata as rkt pod import DIR does. What
// comes of it passes the check of pod files without an error. -update writes the
// golden files anew.
func TestGolden(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/*")
	dirs = slices.DeleteFunc(dirs, func(d string) bool { return strings.HasSuffix(d, ".golden") })
	if err != nil || len(dirs) < 20 {
		t.Fatal(len(dirs), err)
	}
	containers := 0
	for _, dir := range dirs {
		found, _ := filepath.Glob(dir + "/*.container")
		containers += len(found)
		t.Run(dir, func(t *testing.T) {
			r, err := Convert(context.Background(), []string{dir}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := render(t, r)
			golden := filepath.Clean(dir) + ".golden"
			if update() {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
			again, err := Convert(context.Background(), []string{dir}, Options{})
			if err != nil || render(t, again) != got {
				t.Errorf("it is not the same each time: %v", err)
			}
		})
	}
	if containers < 20 {
		t.Errorf("%d containers", containers)
	}
}

// TestPrivate: what others cannot read they do not get from the pod files.
func TestPrivate(t *testing.T) {
	const (
		project = "services: {db: {image: a, environment: {POSTGRES_URL: '${DB}'}}}\n"
		kube    = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, image: a}]}}\n"
		unit    = "[Container]\nImage=example.com/a\n"
	)
	outer := t.TempDir()
	if err := os.Chmod(filepath.Dir(outer), 0o755); err != nil { // as testing makes it, nobody else gets in
		t.Fatal(err)
	}
	if podimport.Hidden(outer) {
		t.Skip("others do not get into " + outer)
	}
	for name, tc := range map[string]struct {
		files   map[string]string // the text after the mode
		arg     string
		envFile string
		want    string // the source that is private
	}{
		"open":                 {map[string]string{"compose.yaml": "644 " + project, ".env": "644 DB=x\n"}, "", "", ""},
		"variables":            {map[string]string{"compose.yaml": "644 " + project, ".env": "600 DB=x\n"}, "", "", ".env"},
		"variables of a group": {map[string]string{"compose.yaml": "644 " + project, ".env": "640 DB=x\n"}, "", "", ".env"},
		"the project":          {map[string]string{"compose.yaml": "600 " + project}, "", "", "compose.yaml"},
		"an override":          {map[string]string{"compose.yaml": "644 " + project, "compose.override.yaml": "600 services: {db: {command: x}}\n"}, "", "", "compose.override.yaml"},
		"by option":            {map[string]string{"compose.yaml": "644 " + project, "prod.env": "600 DB=x\n"}, "", "prod.env", "prod.env"},
		"env_file":             {map[string]string{"compose.yaml": "644 services: {db: {image: a, env_file: [db.env]}}\n", "db.env": "600 DB='x'\n"}, "", "", "db.env"},
		"an include":           {map[string]string{"compose.yaml": "644 include: [more.yaml]\n", "more.yaml": "600 " + project}, "compose.yaml", "", "more.yaml"},
		"Kubernetes":           {map[string]string{"pod.yaml": "600 " + kube}, "", "", "pod.yaml"},
		"Quadlet":              {map[string]string{"a.container": "600 " + unit}, "", "", "a.container"},
		"a drop-in":            {map[string]string{"a.container": "644 " + unit, "a.container.d/x.conf": "600 [Container]\nUser=5\n"}, "", "", "a.container.d/x.conf"},
		"YAML of a .kube":      {map[string]string{"a.kube": "644 [Kube]\nYaml=pod.yaml\n", "pod.yaml": "600 " + kube}, "", "", "pod.yaml"},
		"the directory":        {map[string]string{".": "700", "compose.yaml": "644 " + project}, "", "", "compose.yaml"},
		"a directory below":    {map[string]string{"sub": "710", "sub/compose.yaml": "644 " + project}, "sub", "", "sub/compose.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(outer, strings.ReplaceAll(name, " ", "-"))
			for _, file := range slices.Sorted(maps.Keys(tc.files)) {
				mode, text, isFile := strings.Cut(tc.files[file], " ")
				bits, err := strconv.ParseUint(mode, 8, 32)
				path := filepath.Join(dir, file)
				made := path
				if isFile {
					made = filepath.Dir(path)
				}
				if err == nil {
					err = os.MkdirAll(made, 0o755)
				}
				if err == nil && isFile {
					err = os.WriteFile(path, []byte(text), 0o644)
				}
				if err == nil {
					err = os.Chmod(path, os.FileMode(bits))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			o := Options{}
			if tc.envFile != "" {
				o.EnvFile = filepath.Join(dir, tc.envFile)
			}
			r, err := Convert(context.Background(), []string{filepath.Join(dir, tc.arg)}, o)
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			for _, n := range r.Notes {
				if n.Key == "mode" {
					said = append(said, strings.TrimPrefix(n.Path, dir+"/"))
				}
			}
			if got := strings.Join(said, " "); got != tc.want {
				t.Errorf("private are %q, want %q", got, tc.want)
			}
			for _, p := range r.Pods {
				if p.Private != (tc.want != "") {
					t.Errorf("pod %s: %v", p.Name, p.Private)
				}
			}
			for _, f := range r.Files {
				if f.Private != (tc.want != "") {
					t.Errorf("file %s: %v", f.Path, f.Private)
				}
			}
		})
	}
	// One project's secrets are not another converter's.
	dir := filepath.Join(outer, "two")
	for file, mode := range map[string]os.FileMode{"compose.yaml": 0o600, "a.container": 0o644} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(map[string]string{"compose.yaml": project, "a.container": unit}[file]), mode); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Convert(context.Background(), []string{dir}, Options{})
	if err != nil || len(r.Pods) != 2 || r.Pods[0].Private || !r.Pods[1].Private {
		t.Errorf("%+v %v", r, err)
	}
}

// TestSecrets: a variable that looks like a secret is told, and its pod file is
// for root alone.
func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"compose.yaml": "services: {a: {image: a, environment: {DB_PASSWORD: x, TITLE: y}}, b: {image: b, environment: {DB_PASSWORD_FILE: /run/x, MYSQL_ALLOW_EMPTY_PASSWORD: 'yes', API_KEY: '', TLS_KEY: /tls/x.pem, HTPASSWD_REALM: r}}}\n",
		"k.yaml":       "{apiVersion: v1, kind: Pod, metadata: {name: k}, spec: {containers: [{name: a, image: a, env: [{name: apiToken, value: x}]}]}}\n",
		"q.container":  "[Container]\nImage=example.com/a\nEnvironment=A=b SECRET_KEY_BASE=x\n",
		"p.container":  "[Container]\nImage=example.com/a\nEnvironment=A=b KEYCLOAK_URL=x MONKEYS=2\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Convert(context.Background(), []string{dir}, Options{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	notes := fmt.Sprint(r.Notes)
	for _, want := range []string{"compose.yaml:1: changed: services.a.environment: DB_PASSWORD is in the pod file", "containers[0].env: apiToken is in the pod file", "q.container:3: changed: Container.Environment: SECRET_KEY_BASE is in the pod file"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the report lacks %q:\n%v", want, notes)
		}
	}
	if n := strings.Count(notes, "in the pod file"); n != 3 {
		t.Errorf("%d notes: %s", n, notes)
	}
}

func update() bool { return flag.Lookup("update").Value.String() == "true" }

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write golden files anew")
	flag.Parse()
	os.Exit(m.Run())
}

func render(t *testing.T, r *podimport.Result) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range r.Files {
		fmt.Fprintf(&b, "==> %s %04o\n%s\n", f.Path, f.Mode, f.Text)
	}
	for _, p := range r.Pods {
		text, problems, err := p.File.Bytes(p.Name)
		if err != nil {
			t.Errorf("%s\n%v", text, err)
		}
		for _, pr := range problems {
			t.Errorf("%v", pr)
		}
		fmt.Fprintf(&b, "==> %s.json\n%s\n", p.Name, text)
	}
	for _, n := range r.Notes {
		if n.Key != "mode" { // who gets into the checkout is not ours
			fmt.Fprintln(&b, n)
		}
	}
	return strings.ReplaceAll(b.String(), here, "HERE")
}

package kube

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

const secretDoc = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hush, port: '5432', other: psst, lines: \"a\\nb\"}\n---\n"

// convert makes the one pod of a Pod's spec; a Secret "s" is beside it.
func convert(t *testing.T, spec string) (*podimport.Result, *podjson.Pod) {
	t.Helper()
	text := secretDoc + "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  " + strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  ") + "\n"
	r, err := Convert([]podimport.Source{{Path: "x.yaml", Data: []byte(text)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Pods) != 1 {
		t.Fatalf("%d pods", len(r.Pods))
	}
	return r, r.Pods[0].File
}

func compact(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestVariables: $(NAME) is replaced as Kubernetes does, and no secret gets into
// the pod file by that.
func TestVariables(t *testing.T) {
	const password = "{name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}"
	for name, tc := range map[string]struct {
		env, command, args string // of the app, in flow style
		environment, file  string
		exec               string
		notes              []string
	}{
		"in order":  {env: "{name: A, value: $(B)}, {name: B, value: b}, {name: C, value: '-$(B)-$(NONE)-'}", environment: `{"A":"$(B)","B":"b","C":"-b-$(NONE)-"}`, exec: "[]"},
		"once":      {env: "{name: A, value: '$$(B)'}, {name: B, value: $(A)}", command: "['$(A)', '$(B)']", environment: `{"A":"$(B)","B":"$(B)"}`, exec: `["$(B)","$(B)"]`},
		"dollars":   {env: "{name: A, value: a}", args: "['$$', '$$(A)', '$$$(A)', '$$$$(A)', '$A', '$(A', '$', '$()', '$(A)$(A)']", environment: `{"A":"a"}`, exec: `["$","$(A)","$a","$$(A)","$A","$(A","$","$()","aa"]`},
		"the last":  {env: "{name: A, value: a}, {name: B, value: $(A)}, {name: A, value: c}", args: "[$(A)]", environment: `{"A":"c","B":"a"}`, exec: `["c"]`},
		"a secret":  {env: password + ", {name: URL, value: 'postgres://u:$(DB_PASSWORD)@db/x'}, {name: URLS, value: '$(URL),$(URL)'}", environment: "null", file: "DB_PASSWORD=hush\nURL=postgres://u:hush@db/x\nURLS=postgres://u:hush@db/x,postgres://u:hush@db/x\n", exec: "[]"},
		"no secret": {env: password + ", {name: A, value: $$(DB_PASSWORD)}", environment: `{"A":"$(DB_PASSWORD)"}`, file: "DB_PASSWORD=hush\n", exec: "[]"},
		"a secret in the command": {env: password + ", {name: URL, value: 'db:$(DB_PASSWORD)'}, {name: A, value: a}", command: "[/x, '--password=$(DB_PASSWORD)', $(A)]", args: "['--url=$(URL)', '$$(URL)']",
			environment: `{"A":"a"}`, file: "DB_PASSWORD=hush\nURL=db:hush\n", exec: `["/x","--password=$(DB_PASSWORD)","a","--url=$(URL)","$(URL)"]`,
			notes: []string{"todo: Pod/a.spec.containers[0].command: $(DB_PASSWORD)", "todo: Pod/a.spec.containers[0].args: $(URL)"}},
		"over a secret":    {env: password + ", {name: DB_PASSWORD, value: mine}", args: "[$(DB_PASSWORD)]", environment: `{"DB_PASSWORD":"mine"}`, exec: `["mine"]`},
		"a secret over it": {env: "{name: DB_PASSWORD, value: mine}, " + password, environment: "null", file: "DB_PASSWORD=hush\n", exec: "[]"},
		"lines": {env: "{name: A, valueFrom: {secretKeyRef: {name: s, key: lines}}}, {name: B, value: $(A)}", args: "[$(A)]", environment: `{"A":"a\nb","B":"a\nb"}`, exec: `["$(A)"]`,
			notes: []string{"valueFrom.secretKeyRef.key: A is in the pod file itself", "env[1].value: B is in the pod file itself", "args: $(A)"}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := "containers:\n- {name: a, image: example.com/a, env: [" + tc.env + "]"
			if tc.command != "" {
				spec += ", command: " + tc.command
			}
			if tc.args != "" {
				spec += ", args: " + tc.args
			}
			r, p := convert(t, spec+"}")
			if got := compact(t, p.Apps[0].Environment); got != strings.Replace(tc.environment, "null", "{}", 1) {
				t.Errorf("environment %s, want %s", got, tc.environment)
			}
			file := ""
			for _, f := range r.Files {
				file += f.Text
			}
			if file != tc.file {
				t.Errorf("file %q, want %q", file, tc.file)
			}
			if got := compact(t, append(append([]string{}, p.Apps[0].Exec...), p.Apps[0].Args...)); got != tc.exec {
				t.Errorf("%s, want %s", got, tc.exec)
			}
			notes := fmt.Sprint(r.Notes)
			for _, want := range tc.notes {
				if !strings.Contains(notes, want) {
					t.Errorf("the report lacks %q:\n%v", want, r.Notes)
				}
			}
			if n := strings.Count(notes, "todo: "); n != strings.Count(fmt.Sprint(tc.notes), "$(") {
				t.Errorf("%d todos: %v", n, r.Notes)
			}
		})
	}
	// Two that have another value under one name, of which the file can have one.
	env := "env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: %s}}}, {name: U, value: u-$(P)}]"
	r, p := convert(t, "containers:\n- {name: a, image: a, "+fmt.Sprintf(env, "password")+"}\n- {name: b, image: b, "+fmt.Sprintf(env, "other")+"}")
	if got := compact(t, p.Apps); !strings.Contains(got, `"environment":{"P":"psst","U":"u-psst"}`) || strings.Contains(got, "hush") {
		t.Errorf("%s", got)
	}
	if r.Files[0].Text != "P=hush\nU=u-hush\n" {
		t.Errorf("%q", r.Files[0].Text)
	}
	// What grows without end is refused.
	text := "{name: A0, value: 0123456789}"
	for i := range 60 {
		text += fmt.Sprintf(", {name: A%d, value: $(A%d)$(A%[2]d)}", i+1, i)
	}
	_, err := Convert([]podimport.Source{{Path: "x.yaml", Data: []byte("kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a, env: [" + text + "]}]}")}}, Options{})
	if err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("%v", err)
	}
}

func TestCalendar(t *testing.T) {
	for in, want := range map[string]string{
		"@daily": "daily", "0 3 * * *": "*-*-* 3:0:00", "*/5 * * * *": "*-*-* *:0/5:00", "0 0 1,15 * *": "*-*-1,15 0:0:00", "0 9 * * 1-5": "Mon..Fri *-*-* 9:0:00",
		"0 0 1 * 1": "", "x * * * *": "", "60 * * * *": "", "* * * *": "", "0 0 * JAN *": "",
	} {
		if got, ok := calendar(in); got != want && ok || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", in, got, ok, want)
		}
	}
}

// TestStopGrace: the host waits longer for the pod than the pod for its apps.
func TestStopGrace(t *testing.T) {
	for n, want := range map[string][2]string{"0": {"1s", ""}, "-3": {"1s", ""}, "20": {"20s", ""}, "80": {"80s", ""}, "300": {"300s", "320s"}, "9223372036854775807": {"2147483647s", "2147483667s"}} {
		_, p := convert(t, "terminationGracePeriodSeconds: "+n+"\ncontainers: [{name: a, image: a}, {name: b, image: b}]")
		for _, a := range p.Apps {
			if got := compact(t, a.Systemd.Service); !strings.Contains(got, `"TimeoutStopSec":"`+want[0]+`"`) {
				t.Errorf("%s: app %s has %s", n, a.Name, got)
			}
		}
		if got := compact(t, p.Systemd.Service); strings.Contains(got, "TimeoutStopSec") != (want[1] != "") || !strings.Contains(got, want[1]) {
			t.Errorf("%s: the pod has %s, want %q", n, got, want[1])
		}
	}
}

// TestResources: limits and requests are different things.
func TestResources(t *testing.T) {
	for in, want := range map[string]string{
		"requests: {memory: 64Mi}":                            `{"MemoryLow":"64M"`,
		"limits: {memory: 1Gi}":                               `{"MemoryMax":"1G"`,
		"requests: {memory: 64Mi}, limits: {memory: 1Gi}":     `{"MemoryMax":"1G","MemoryLow":"64M"`,
		"requests: {cpu: 250m}, limits: {cpu: 2, memory: 1G}": `{"MemoryMax":"1000000000","CPUQuota":"200%","CPUWeight":"25"`,
	} {
		_, p := convert(t, "containers: [{name: a, image: a, resources: {"+in+"}}]")
		if got := compact(t, p.Apps[0].Systemd.Service); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, env: [{name: A, value: $(A)}]}], volumes: [{name: v, emptyDir: {}}]}\n")
	f.Add("apiVersion: v1\nkind: List\nitems: [{kind: CronJob, metadata: {name: x}, spec: {schedule: '* * * * *', jobTemplate: {spec: {template: {spec: {containers: []}}}}}}]\n")
	f.Fuzz(func(_ *testing.T, text string) {
		if !strings.Contains(text, "&") { // what aliases multiply is bounded, but slow to fuzz
			_, _ = Convert([]podimport.Source{{Path: "x", Data: []byte(text)}}, Options{})
		}
	})
}

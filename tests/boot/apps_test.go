//go:build boot

package boot

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// forever is a script that ends at SIGTERM with a status.
func forever(status int) string {
	return "trap 'exit " + strconv.Itoa(status) + "' TERM; echo started; while :; do sleep 3600 & wait; done"
}

func after(apps ...string) m { return m{"systemd": m{"unit": m{"After": apps, "Requires": apps}}} }

func TestAppsInOrder(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	// The file names them in the wrong order.
	f.declare("order", pod(app("three", forever(0), after("two")), app("two", forever(0), after("one")), app("one", forever(0))))
	f.start("order")
	monotonic := func(unit, property string) int {
		n, err := strconv.Atoi(strings.TrimSpace(f.systemctl("-M", "order", "show", "--value", "-p", property, unit)))
		if err != nil || n == 0 {
			t.Fatalf("%s of %s: %d, %v", property, unit, n, err)
		}
		return n
	}
	for _, pair := range [][2]string{{"one", "two"}, {"two", "three"}} {
		up, next := monotonic(pair[0]+".service", "ActiveEnterTimestampMonotonic"), monotonic(pair[1]+".service", "ExecMainStartTimestampMonotonic")
		if next < up {
			t.Errorf("app %s started %d µs before app %s was up", pair[1], up-next, pair[0])
		}
	}
	for _, a := range []string{"one", "two", "three"} {
		f.waitLog("order", a, "started")
	}
	f.forget("order")
	f.unchanged(before)
}

// TestFirstFailingApp: check list: runtime 5; cli 4
func TestFirstFailingApp(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("three", pod(
		app("one", forever(0)),
		// Fails once the others run, so that the start succeeds.
		app("two", `until [ -e /go ]; do sleep 0.05; done; echo failing; exit 5`, after("one")),
		app("three", forever(6), after("one"))))
	f.start("three")
	f.waitLog("three", "one", "started")
	f.waitLog("three", "three", "started")
	uuid := f.uuid("three")
	f.Run(t, "rkt", "enter", "--app=two", "three", "/bin/touch", "/go")
	equal(t, "the unit", f.ended("rkt@three"), "failed")
	equal(t, "Result", f.show("rkt@three", "Result"), "exit-code")
	equal(t, "ExecMainStatus", f.show("rkt@three", "ExecMainStatus"), "5")
	status, _, code := f.Try("systemctl", "status", "--no-pager", "rkt@three")
	equal(t, "exit status of systemctl status", code, 3)
	contains(t, "systemctl status", status, "failed (Result: exit-code)", "status=5")
	// The other apps were stopped in order and have their own statuses.
	contains(t, "rkt status", f.Run(t, "rkt", "status", uuid), "exited=true\n", "app-one=0\napp-two=5\napp-three=6\n")
	for _, p := range f.listed() {
		if p["name"] == uuid {
			two := p["apps"].([]any)[1].(m)
			equal(t, "app two in rkt list --format=json", []any{two["state"], two["exit_code"]}, []any{"exited", 5.0})
		}
	}
	contains(t, "log", f.journal("_SYSTEMD_INVOCATION_ID="+dashless(uuid), "-t", "two"), "failing\n")
	f.forget("three")
	f.unchanged(before)
}

// console matches what a pod in the foreground prints for its apps.
var console = regexp.MustCompile(`(?m)^\[[^]]*Z\] ([a-z0-9-]+)\[\d+\]: (.*)$`)

// outputs are the lines per app in what rkt run printed.
func outputs(text string) map[string]string {
	all := map[string]string{}
	for _, l := range console.FindAllStringSubmatch(strings.ReplaceAll(text, "\r", ""), -1) {
		all[l[1]] += l[2] + "\n"
	}
	return all
}

// runPod runs a pod in the foreground; what its only app, or that of the name "app", printed, all output, and the status.
func (f *fixture) runPod(args ...string) (app, all string, code int) {
	f.t.Helper()
	stdout, stderr, code := f.Try(append([]string{"rkt", "run"}, args...)...)
	all = stdout + stderr
	byApp := outputs(all)
	if app, ok := byApp["app"]; ok || len(byApp) != 1 {
		return app, all, code
	}
	for _, only := range byApp {
		app = only
	}
	return app, all, code
}

// bb are the arguments of rkt run for one busybox app with a script.
func bb(script string, flags ...string) []string {
	return append(append([]string{busybox, "--name=app", "--exec=/bin/sh"}, flags...), "--", "-c", script)
}

// TestRunExitStatus: check list: runtime 4, 18; cli 3, 6
func TestRunExitStatus(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	for _, c := range []struct {
		name, script string
		want         int
	}{
		{"success", "echo done", 0},
		{"failure", "echo done; exit 1", 1},
		{"another", "echo done; exit 7", 7},
		{"signal", "echo done; kill -KILL $$", 9},
		{"abort", "echo done; kill -USR1 $$", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, all, code := f.runPod(append([]string{"--net=none"}, bb(c.script)...)...)
			if code != c.want || out != "done\n" {
				t.Errorf("status %d, want %d; app's output %q:\n%s", code, c.want, out, all)
			}
		})
	}
	t.Run("missing program", func(t *testing.T) {
		_, all, code := f.runPod("--net=none", busybox, "--exec=/nonexist")
		equal(t, "status", code, 203)
		contains(t, "output", all, `Error: Unable to open "/nonexist": No such file or directory`)
	})
	t.Run("first failing app", func(t *testing.T) {
		_, all, code := f.runPod("--net=none", busybox, "--name=one", "--exec=/bin/sh", "--", "-c", forever(6), "---",
			busybox, "--name=two", "--exec=/bin/sh", "--", "-c", "exit 5", "---")
		if code != 5 {
			t.Errorf("status %d, want 5:\n%s", code, all)
		}
	})
	f.unchanged(before)
}

// TestEventHandlers: check list: runtime 17
func TestEventHandlers(t *testing.T) {
	f := open(t)
	image := f.image("handlers", "busybox", "--name", "example.com/handlers", "--manifest", `{"app": {
		"exec": ["/bin/sh", "-c", "cat /state; echo main >>/state; echo $AC_APP_NAME"],
		"eventHandlers": [
			{"name": "pre-start", "exec": ["/bin/sh", "-c", "echo pre >>/state; echo pre-start runs"]},
			{"name": "post-stop", "exec": ["/bin/sh", "-c", "echo post-stop sees $(cat /state)"]}]}}`)
	before := f.snapshot()
	out, all, code := f.runPod("--net=none", image)
	if want := "pre-start runs\npre\nhandlers\npost-stop sees pre main\n"; code != 0 || out != want {
		t.Errorf("status %d, output %q, want %q:\n%s", code, out, want, all)
	}
	f.unchanged(before)
}

// The pod's own systemd holds nothing back: no mount unit has a job at the
// start, which would cost most of a second on some versions of systemd.
func TestNoMountJobs(t *testing.T) {
	f := open(t)
	f.declare("jobs", pod(app("app", forever(0))))
	f.start("jobs")
	equal(t, "jobs", strings.TrimSpace(f.systemctl("-M", "jobs", "list-jobs", "--no-legend")), "")
	deps := f.systemctl("-M", "jobs", "list-dependencies", "--all", "--plain", "default.target")
	lacks(t, "dependencies of default.target", deps, ".mount")
	contains(t, "dependencies of default.target", deps, "app.service")
	// A mount unit with a start job would have an InactiveExitTimestamp of its own doing.
	equal(t, "mounts with a job", strings.TrimSpace(f.sh(`systemctl -M jobs show '*.mount' -p Id -p Job | grep -B1 '^Job=[1-9]' || true`)), "")
	equal(t, "failed units", strings.TrimSpace(f.systemctl("-M", "jobs", "--failed", "--no-legend", "--plain")), "")
}

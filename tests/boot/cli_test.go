//go:build boot

package boot

import (
	"strings"
	"testing"
)

// rkt runs rkt, which must succeed, and returns its standard output without the last newline.
func (f *fixture) rkt(args ...string) string {
	f.t.Helper()
	return strings.TrimSuffix(f.Run(f.t, append([]string{"rkt"}, args...)...), "\n")
}

// refused runs rkt, which must fail with 254 and a message that has all of want.
func (f *fixture) refused(t *testing.T, want []string, args ...string) {
	t.Helper()
	stdout, stderr, code := f.Try(append([]string{"rkt"}, args...)...)
	if code != 254 {
		t.Errorf("rkt %q: status %d, want 254\n%s%s", args, code, stdout, stderr)
	}
	contains(t, "message of rkt "+strings.Join(args, " "), stderr, want...)
	lacks(t, "message of rkt "+strings.Join(args, " "), stderr, "panic", "goroutine")
}

// background starts a pod that outlives the command that started it, and waits until it is up.
func (f *fixture) background(args ...string) (uuid string) {
	f.t.Helper()
	f.Run(f.t, append([]string{"bash", "-c", `rm -f /run/background.uuid; setsid rkt run --uuid-file-save=/run/background.uuid "$@" </dev/null >/run/background.log 2>&1 &
		for i in {1..1200}; do [ -s /run/background.uuid ] && exec rkt status --uuid-file=/run/background.uuid --wait-ready=60s; sleep 0.05; done
		cat /run/background.log >&2; exit 1`, "-"}, args...)...)
	return strings.TrimSpace(f.Read(f.t, "/run/background.uuid"))
}

func (f *fixture) state(uuid string) string {
	f.t.Helper()
	s, _, _ := strings.Cut(strings.TrimPrefix(f.rkt("status", uuid), "state="), "\n")
	return s
}

// TestPrepareAndRun: check list: cli 2; pod-lifecycle 5, 6, 9
func TestPrepareAndRun(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	prepare := func(script string) string {
		return f.rkt(append([]string{"prepare", "--quiet"}, bb(script)...)...)
	}

	t.Run("by prefix", func(t *testing.T) {
		uuid := prepare("echo run; exit 3")
		equal(t, "state", f.state(uuid), "prepared")
		contains(t, "rkt list", f.rkt("list", "--no-legend"), uuid[:8], "prepared")
		stdout, stderr, code := f.Try("rkt", "run-prepared", "--net=none", uuid[:8])
		equal(t, "output", outputs(stdout + stderr)["app"], "run\n")
		equal(t, "status", code, 3)
		contains(t, "rkt status", f.rkt("status", uuid), "state=exited\n", "app-app=3")
		f.refused(t, []string{uuid, "exited"}, "run-prepared", uuid)
	})

	t.Run("one of several wins", func(t *testing.T) {
		uuid := prepare("exit 3")
		out := f.sh(`for i in 1 2 3; do rkt run-prepared --net=none ` + uuid + ` >/dev/null 2>&1 & pids="${pids-} $!"; done
			all=; for p in $pids; do s=0; wait $p || s=$?; all+="$s "; done; printf '%s\n' $all | sort -n | tr '\n' ' '`)
		equal(t, "statuses", out, "3 254 254 ")
	})

	t.Run("rm", func(t *testing.T) {
		uuid := prepare("true")
		contains(t, "rkt rm", f.rkt("rm", uuid), uuid)
		f.refused(t, []string{uuid}, "status", uuid)
		running := f.background(append([]string{"--net=none"}, bb(forever(0))...)...)
		f.refused(t, []string{running, "running"}, "rm", running)
		f.rkt("stop", running)
		f.rkt("status", running, "--wait=60s")
		f.rkt("rm", "--uuid-file=/run/background.uuid")
		f.refused(t, []string{running}, "status", running)
	})

	t.Run("ambiguous and unknown", func(t *testing.T) {
		f.refused(t, []string{"00000000-0000-4000-8000-000000000000"}, "status", "00000000-0000-4000-8000-000000000000")
		f.refused(t, []string{"nothing"}, "stop", "nothing")
		f.refused(t, nil, "status", "")
		f.refused(t, nil, "rm", "../../../etc")
		f.refused(t, nil, "run-prepared", "no-such-pod")
	})

	t.Run("gc", func(t *testing.T) {
		prepared, ended := prepare("true"), prepare("true")
		f.rkt("run-prepared", "--net=none", ended)
		f.rkt("gc", "--mark-only")
		equal(t, "state after --mark-only", f.state(ended), "exited garbage")
		f.rkt("gc", "--grace-period=1h")
		equal(t, "state within the grace period", f.state(ended), "exited garbage")
		equal(t, "state of the prepared pod", f.state(prepared), "prepared")
		contains(t, "rkt gc", f.rkt("gc", "--grace-period=0"), `Garbage collecting pod "`+ended+`"`)
		f.refused(t, []string{ended}, "status", ended)
		f.rkt("gc", "--expire-prepared=0")
		f.refused(t, []string{prepared}, "status", prepared)
	})
	f.unchanged(before)
}

// TestStopAndStatus: check list: runtime 6; cli 32, 33; pod-lifecycle 8
func TestStopAndStatus(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	script := `trap 'echo terminated; exit 4' TERM; echo started; while :; do sleep 3600 & wait; done`

	t.Run("stop", func(t *testing.T) {
		uuid := f.background(append([]string{"--net=none"}, bb(script)...)...)
		f.Eventually(t, soon, "grep", "-q", "started", "/run/background.log")
		equal(t, "state", f.state(uuid), "running")
		_, _, code := f.Try("rkt", "status", uuid, "--wait=100ms")
		if code == 0 {
			t.Errorf("rkt status --wait=100ms of a running pod succeeds")
		}
		contains(t, "rkt stop", f.rkt("stop", "--uuid-file=/run/background.uuid"), `"`+uuid+`"`)
		contains(t, "rkt status --wait", f.rkt("status", uuid, "--wait"), "state=exited", "app-app=4")
		contains(t, "output", outputs(f.Read(t, "/run/background.log"))["app"], "started\nterminated\n")
		contains(t, "rkt stop of an ended pod", f.rkt("stop", uuid), uuid)
	})

	t.Run("force", func(t *testing.T) {
		uuid := f.background(append([]string{"--net=none"}, bb(`trap '' TERM; while :; do sleep 3600 & wait; done`)...)...)
		f.rkt("stop", "--force", uuid)
		f.rkt("status", uuid, "--wait=60s")
		f.Eventually(t, soon, "bash", "-c", "! machinectl show rkt-"+uuid)
	})

	// A systemd-nspawn that is killed leaves the pod's processes; gc takes them.
	t.Run("killed", func(t *testing.T) {
		uuid := f.background(append([]string{"--net=none"}, bb(forever(0))...)...)
		f.sh("kill -KILL $(cat /var/lib/rkt/pods/run/" + uuid + "/ppid)")
		f.rkt("status", uuid, "--wait=60s")
		f.rkt("gc", "--mark-only")
		f.Eventually(t, soon, "bash", "-c", "! machinectl show rkt-"+uuid)
	})
	f.unchanged(before)
}

// TestEnter: check list: runtime 13; cli 13
func TestEnter(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("enter", pod(
		app("one", forever(0), m{"environment": m{"COLOR": "green and \"blue\""}, "workingDirectory": "/var/tmp"}),
		app("two", forever(0), m{"user": "redis", "group": "redis"})))
	f.start("enter")

	enter := func(t *testing.T, want string, args ...string) {
		t.Helper()
		stdout, stderr, code := f.Try(append([]string{"rkt", "enter"}, args...)...)
		if code != 0 || stdout != want {
			t.Errorf("rkt enter %q: status %d, output %q, want %q\n%s", args, code, stdout, want, stderr)
		}
	}
	enter(t, "one\n", "--app=one", "enter", "/bin/sh", "-c", "echo $AC_APP_NAME")
	enter(t, "two\n", "--app=two", "enter", "/bin/sh", "-c", "echo $AC_APP_NAME")
	enter(t, "green and \"blue\"\n", "--app=one", "enter", "/bin/sh", "-c", "echo \"$COLOR\"")
	enter(t, "a  b|\n", "--app=one", f.uuid("enter")[:8], "/bin/sh", "-c", `echo "$1|"`, "-", "a  b")
	// the default set without CAP_NET_BIND_SERVICE, which nspawn takes from pods with private users
	enter(t, "CapBnd:\t00000000a80421fb\n", "--app=one", "enter", "/bin/grep", "CapBnd", "/proc/self/status")
	enter(t, "Seccomp:\t2\n", "--app=one", "enter", "/bin/grep", "^Seccomp:", "/proc/self/status")
	contains(t, "processes", f.rkt("enter", "--app=one", "enter", "/bin/ps"), "sh -c trap")

	_, _, code := f.Try("rkt", "enter", "--app=one", "enter", "/bin/sh", "-c", "exit 17")
	equal(t, "exit status", code, 17)
	_, stderr, code := f.Try("rkt", "enter", "--app=one", "enter", "/nonexist")
	if code == 0 || !strings.Contains(stderr, "/nonexist") {
		t.Errorf("entering with a missing program: status %d, %q", code, stderr)
	}
	f.refused(t, []string{"one", "two", "--app"}, "enter", "enter", "/bin/true")
	f.refused(t, []string{"three"}, "enter", "--app=three", "enter", "/bin/true")
	out := f.Run(t, "bash", "-c", `echo "echo typed; exit" | rkt enter --app=two enter /bin/sh`)
	equal(t, "a shell with commands from a pipe", out, "typed\n")
	f.stop("enter")
	f.refused(t, []string{"not running"}, "enter", "--app=one", "enter", "/bin/true")
	f.forget("enter")
	f.unchanged(before)
}

func TestListAndManifest(t *testing.T) {
	f := open(t)
	f.declare("listed", pod(app("one", forever(0)), app("two", forever(0))))
	f.start("listed")
	uuid := f.uuid("listed")
	p := f.podOf("listed", "running")
	equal(t, "app_names", p["app_names"], any([]any{"one", "two"}))
	first := p["apps"].([]any)[0].(m)
	equal(t, "app", []any{first["name"], first["state"]}, []any{"one", "running"})
	for _, k := range []string{"created_at", "started_at"} {
		if p[k].(float64) < 1e9 || first[k].(float64) < 1e18 {
			t.Errorf("%s is %v seconds for the pod, %v nanoseconds for the app", k, p[k], first[k])
		}
	}
	equal(t, "status as JSON", object[m](t, f.rkt("status", "--format=json", uuid))["name"], any(uuid))
	manifest := object[m](t, f.rkt("cat-manifest", uuid))
	equal(t, "acKind", manifest["acKind"], any("PodManifest"))
	equal(t, "apps of the manifest", len(manifest["apps"].([]any)), 2)
	equal(t, "cat-manifest by name", f.rkt("cat-manifest", "listed"), f.rkt("cat-manifest", uuid))
	lines := strings.Split(f.rkt("list", "--no-legend", "--full"), "\n")
	equal(t, "lines of rkt list", len(lines), 2)
	contains(t, "first line", lines[0], uuid, "one", "example.com/busybox:1.0.0", "sha512-", "running")
	contains(t, "second line", lines[1], "two")
	f.refused(t, []string{"format"}, "list", "--format=yaml")
}

func TestImages(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	image := f.image("other", "busybox", "--name", "example.com/other", "--version", "2.5.0")
	id := f.rkt("fetch", "--full", image)
	if !strings.HasPrefix(id, "sha512-") {
		t.Fatalf("rkt fetch printed %q", id)
	}
	contains(t, "rkt image list", f.rkt("image", "list"), "example.com/other:2.5.0", "ID", "IMPORT TIME")
	list := object[[]m](t, f.rkt("image", "list", "--format=json"))
	found := false
	for _, i := range list {
		found = found || i["id"] == id && i["name"] == "example.com/other:2.5.0"
	}
	equal(t, "image in the list as JSON", found, true)
	manifest := object[m](t, f.rkt("image", "cat-manifest", "example.com/other"))
	equal(t, "name", manifest["name"], any("example.com/other"))
	equal(t, "by a prefix of the ID", f.rkt("image", "cat-manifest", id[:20]), f.rkt("image", "cat-manifest", "example.com/other:2.5.0"))

	t.Run("pods outlive their image", func(t *testing.T) {
		uuid := f.rkt("prepare", "--quiet", "example.com/other", "--exec=/bin/sh", "--", "-c", "echo still here")
		contains(t, "rkt image rm", f.rkt("image", "rm", id), id)
		f.refused(t, []string{"example.com/other"}, "image", "cat-manifest", "example.com/other")
		stdout, stderr, code := f.Try("rkt", "run-prepared", "--net=none", uuid)
		if code != 0 || outputs(stdout + stderr)["other"] != "still here\n" {
			t.Errorf("a prepared pod of a removed image: status %d\n%s%s", code, stdout, stderr)
		}
		contains(t, "rkt list", f.rkt("list", "--no-legend"), "example.com/other:2.5.0")
		f.refused(t, []string{id}, "image", "rm", id)
	})
	f.unchanged(before)
}

func TestTrust(t *testing.T) {
	f := open(t)
	key := imageDir + "/busybox.aci.pub"
	f.refused(t, []string{"--prefix", "--root"}, "trust", key)
	f.refused(t, nil, "trust", "--prefix=https://example.com", "--skip-fingerprint-review", key)
	f.refused(t, []string{"http"}, "trust", "--prefix=example.com", "--skip-fingerprint-review", "http://127.0.0.1:1/key")
	f.refused(t, []string{"/nonexist"}, "trust", "--root", "--skip-fingerprint-review", "/nonexist")
	f.refused(t, nil, "trust", "--root", "--skip-fingerprint-review", "/etc/passwd")
	// Nobody is there to answer.
	f.refused(t, []string{"--skip-fingerprint-review"}, "trust", "--root", key)
	equal(t, "keys of the root prefix", f.sh("ls /etc/rkt/trustedkeys/root.d 2>/dev/null || true"), "")
}

// TestOnlyRoot: check list: cli 1
func TestOnlyRoot(t *testing.T) {
	f := open(t)
	for _, args := range []string{"run " + busybox, "gc", "rm x", "enter x true", "prepare " + busybox} {
		_, stderr, code := f.Try("bash", "-c", "exec runuser -u nobody -- rkt "+args)
		if code != 254 || !strings.Contains(stderr, "unprivileged user") {
			t.Errorf("rkt %s as nobody: status %d, %q", args, code, stderr)
		}
	}
	if _, stderr, code := f.Try("runuser", "-u", "nobody", "--", "rkt", "version"); code != 0 {
		t.Errorf("rkt version as nobody: status %d, %q", code, stderr)
	}
	f.refused(t, nil, "no-such-command")
	f.refused(t, []string{"--no-such-flag"}, "list", "--no-such-flag")
	_, _, code := f.Try("rkt")
	equal(t, "status without a command", code, 2)
}

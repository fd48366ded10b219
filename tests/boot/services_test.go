//go:build boot

package boot

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// svc makes an image of the test service ../images/svc, with this app section added.
func (f *fixture) svc(name string, app m) string {
	f.t.Helper()
	bin := f.t.TempDir() + "/svc"
	cmd := exec.CommandContext(f.t.Context(), "go", "build", "-o", bin, "../images/svc")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("building the test service: %v\n%s", err, out)
	}
	manifest := text(f.t, m{"app": app})
	return f.image(name, "plain", "--name", "example.com/"+name, "--file", bin+":/svc", "--manifest", manifest)
}

func appOf(exec ...string) m { return m{"exec": exec, "user": "0", "group": "0"} }

// TestSocketActivation: the host's sockets reach the app of the pod, which
// starts with the first connection, on whatever address they listen.
//
// check list: runtime 39; cli 35
func TestSocketActivation(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	app := appOf("/svc", "serve")
	app["ports"] = []m{{"name": "web", "port": 80, "protocol": "tcp", "socketActivated": true}, {"name": "time", "port": 37, "protocol": "udp", "socketActivated": true}}
	image := f.svc("svc-serve", app)
	f.declare("sock", m{"apps": []m{{"name": "one", "image": image}}, "ports": []string{"web:18080", "time:18037"}, "rkt": m{"net": "none"}})
	unit := func(listen string) {
		f.Write(t, "/etc/systemd/system/rkt-test.socket", 0o644, []byte("[Socket]\n"+listen+"\nService=rkt@sock.service\n"))
		f.sh("systemctl daemon-reload; systemctl start rkt-test.socket")
	}
	t.Cleanup(func() {
		f.sh("systemctl stop rkt-test.socket rkt@sock.service 2>/dev/null || true; rm -f /etc/systemd/system/rkt-test.socket; systemctl daemon-reload")
	})
	for _, c := range []struct{ listen, ask, answer string }{
		{"ListenStream=18080\nListenDatagram=18037", "exec 3<>/dev/tcp/127.0.0.1/18080; cat <&3", "socket 0 of one"},
		{"ListenStream=127.0.0.1:18080\nListenStream=[::1]:18080\nListenDatagram=127.0.0.1:18037", "exec 3<>/dev/tcp/::1/18080; cat <&3", "socket 1 of one"},
		{"ListenStream=18080\nListenDatagram=18037", "exec 3<>/dev/udp/127.0.0.1/18037; echo x >&3; timeout 30 head -1 <&3", "datagram 1 of one"},
	} {
		unit(c.listen)
		equal(t, "before a connection", f.show("rkt@sock", "ActiveState"), "inactive")
		stdout, stderr, code := f.Try("timeout", "20", "bash", "-c", c.ask)
		if code != 0 || strings.TrimSpace(stdout) != c.answer {
			t.Errorf("%s: answer %q, want %q; status %d\n%s", c.listen, stdout, c.answer, code, stderr)
		}
		equal(t, "after a connection", f.show("rkt@sock", "ActiveState"), "active")
		f.sh("systemctl stop rkt-test.socket rkt@sock.service")
	}
	f.forget("sock")
	f.sh("rm -f /etc/systemd/system/rkt-test.socket; systemctl daemon-reload")
	// A pod run by a transient unit: its port is not exposed, so that the socket must have the app's own number.
	web := appOf("/svc", "serve")
	web["ports"] = []m{{"name": "web", "port": 18081, "protocol": "tcp", "socketActivated": true}}
	direct := f.svc("svc-direct", web)
	f.sh(`systemd-run -q --collect --unit=rkt-test-sock --socket-property=ListenStream=18081 -p Type=notify -p NotifyAccess=all -p Delegate=yes -p KillMode=mixed \
		rkt run --net=none ` + direct + ` 2>&1`)
	stdout, stderr, code := f.Try("timeout", "20", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/18081; cat <&3")
	if code != 0 || strings.TrimSpace(stdout) != "socket 0 of svc-direct" {
		t.Errorf("transient unit: answer %q; status %d\n%s", stdout, code, stderr)
	}
	equal(t, "the transient unit", f.show("rkt-test-sock", "ActiveState"), "active")
	f.sh("systemctl stop rkt-test-sock.socket rkt-test-sock.service")
	equal(t, "after the stop", f.show("rkt-test-sock", "LoadState"), "not-found")
	f.unchanged(before)
}

// TestNotifyAndWatchdog: a pod is started when its app says so, and an app
// that stays silent is killed.
//
// check list: runtime 39
func TestNotifyAndWatchdog(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	notify := f.svc("svc-notify", appOf("/svc", "notify=2s", "reload"))
	f.declare("late", m{"apps": []m{{"name": "one", "image": notify, "systemd": m{"service": m{"Type": "notify", "ReloadSignal": "HUP"}}}}, "rkt": m{"net": "none"}})
	f.sh("systemctl start --no-block rkt@late")
	f.Eventually(t, soon, "systemctl", "-q", "is-active", "rkt@late")
	f.activeAfter("rkt@late", 2*time.Second)

	f.waitLog("late", "one", "waiting")
	f.systemctl("reload", "rkt@late")
	f.waitLog("late", "one", "reloaded")
	equal(t, "after the reload", f.show("rkt@late", "ActiveState"), "active")
	f.forget("late")

	dog := f.svc("svc-dog", appOf("/svc", "watchdog=3"))
	f.declare("dog", m{"apps": []m{{"name": "one", "image": dog, "systemd": m{"service": m{"WatchdogSec": "3s"}}}}, "rkt": m{"net": "none"}})
	f.start("dog")
	equal(t, "the unit", f.ended("rkt@dog"), "failed")
	contains(t, "the app", f.appLog("dog", "one"), "alive 2", "silent")
	f.forget("dog")
	f.unchanged(before)
}

// TestRestartOfAnApp: an app of a declared pod restarts alone; when systemd
// gives it up the pod ends.
func TestRestartOfAnApp(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	restart := m{"systemd": m{"service": m{"Restart": "on-failure", "RestartSec": "100ms"}, "unit": m{"StartLimitIntervalSec": 60, "StartLimitBurst": 4}}}
	f.declare("again", pod(
		app("flaky", `n=$(cat /var/tmp/n 2>/dev/null || echo 0); echo $((n+1)) >/var/tmp/n; echo "run $n"; [ $n -ge 2 ] || exit 3; `+forever(0), restart),
		app("steady", forever(0))))
	f.start("again")
	uuid, pid := f.uuid("again"), f.show("rkt@again", "MainPID")
	f.waitLog("again", "flaky", "run 2")
	equal(t, "the pod", []string{f.uuid("again"), f.show("rkt@again", "MainPID"), f.show("rkt@again", "NRestarts")}, []string{uuid, pid, "0"})
	equal(t, "starts of the other app", strings.Count(f.appLog("again", "steady"), "started"), 1)
	lacks(t, "status while it runs", f.rkt("status", uuid), "app-flaky")
	f.stop("again")
	contains(t, "status after the stop", f.rkt("status", uuid), "app-flaky=0", "app-steady=0")
	f.forget("again")

	f.declare("hopeless", pod(app("bad", "echo try; exit 7", restart), app("steady", forever(0))))
	f.Try("systemctl", "start", "rkt@hopeless")
	equal(t, "the unit", f.ended("rkt@hopeless"), "failed")
	equal(t, "tries", strings.Count(f.appLog("hopeless", "bad"), "try"), 4)
	equal(t, "status of the unit", f.show("rkt@hopeless", "ExecMainStatus"), "7")
	f.forget("hopeless")

	// Reload commands run in the app and as it does; a pod without them says so.
	// without private users: with them journald may lose the unit of a command that ends at once
	f.declare("rel", users(pod(app("one", forever(0), m{"user": "redis", "group": "redis", "systemd": m{"service": m{
		"ExecReload": `/bin/sh -c "echo reload of \\"$1\\" by $(id -u); kill -0 $1" - $MAINPID`}}}), app("two", forever(0))), false))
	f.start("rel")
	f.systemctl("reload", "rkt@rel")
	f.waitLog("rel", "one", "reload of")
	contains(t, "the reload", f.appLog("rel", "one"), "by 999")
	f.refused(t, []string{"cannot be reloaded"}, "pod", "reload", "--app=two", "rel")
	f.forget("rel")
	f.unchanged(before)
}

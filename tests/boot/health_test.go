//go:build boot

package boot

import "testing"

// healthOf is the state of an app of a running pod in rkt status --format=json.
func (f *fixture) healthOf(pod, app string) string {
	f.t.Helper()
	for _, a := range object[struct{ Apps []m }](f.t, f.rkt("status", "--format=json", pod)).Apps {
		if h, ok := a["health"].(map[string]any); ok && a["name"] == app {
			return h["state"].(string)
		}
	}
	return ""
}

// waitHealth waits until rkt status tells the health of an app.
func (f *fixture) waitHealth(pod, app, state string) {
	f.t.Helper()
	f.Eventually(f.t, soon, "bash", "-c", `rkt status "$1" | grep -qE "^health-$2=$3( |\$)"`, "-", pod, app, state)
}

// TestHealth: checks of every kind find out how apps are, say so once, and leave
// nothing behind.
func TestHealth(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	quick := func(h m) m {
		h["interval"], h["startInterval"], h["retries"] = "300ms", "200ms", 2
		if h["timeout"] == nil {
			h["timeout"] = "20s"
		}
		return m{"health": h}
	}
	const idle = `exec sleep 1000`
	// a check that takes too long, with a child that does its best to stay
	const slow = `test -e /tmp/slow || exit 0; echo about to hang; setsid sh -c 'trap "" TERM; sleep 7654' & sleep 7655`
	f.declare("well", pod(
		app("run", `echo secret >/tmp/id; exec sleep 1000`, m{"user": "33", "group": "33", "workingDirectory": "/tmp"}, quick(m{"exec": []string{"/bin/sh", "-c", `id -u; test ! -e /tmp/bad && grep -q secret /tmp/id`}})),
		app("hang", idle, quick(m{"exec": []string{"/bin/sh", "-c", slow}, "timeout": "2s"})),
		app("web", `mkdir /www; echo hi >/www/x; exec httpd -f -p 8088 -h /www`, quick(m{"http": "http://:8088/x"})),
		app("gone", idle, quick(m{"http": "http://:8088/nothing"})),
		app("port", idle, quick(m{"tcp": "8088"})),
		app("shut", idle, quick(m{"tcp": 8089})),
		app("plain", idle),
	))
	f.start("well")
	for app, state := range map[string]string{"run": "healthy", "hang": "healthy", "web": "healthy", "port": "healthy", "gone": "unhealthy", "shut": "unhealthy"} {
		f.waitHealth("well", app, state)
		equal(t, app, f.healthOf("well", app), state)
	}
	equal(t, "an app without a check", f.healthOf("well", "plain"), "")
	status := f.rkt("status", "well")
	contains(t, "status", status, "health-gone=unhealthy (HTTP/1.1 404 Not Found)", "health-shut=unhealthy (connecting to 127.0.0.1:8089: connection refused)")
	lacks(t, "status", status, "health-plain")
	contains(t, "the unit's status text", f.show("rkt@well", "StatusText"), "unhealthy: gone, shut; healthy: hang, port, run, web")

	f.rkt("enter", "--app=hang", "well", "/bin/touch", "/tmp/slow")
	f.waitHealth("well", "hang", "unhealthy")
	contains(t, "the check that hangs", f.rkt("status", "well"), "killed, it took longer than 2s: about to hang")
	f.rkt("enter", "--app=hang", "well", "/bin/rm", "/tmp/slow")
	f.waitHealth("well", "hang", "healthy")
	equal(t, "what a check left behind", f.sh("pgrep -xf 'sleep 765[45]' || true"), "")

	f.rkt("enter", "--app=run", "well", "/bin/touch", "/tmp/bad")
	f.waitHealth("well", "run", "unhealthy")
	f.rkt("enter", "--app=run", "well", "/bin/rm", "/tmp/bad")
	f.waitHealth("well", "run", "healthy")
	// quiet between changes, and findable
	var lines []string
	for _, e := range entries(t, f.Run(t, "bash", "-c", `journalctl --sync; journalctl -q -o json _SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID rkt@well) RKT_APP=run`)) {
		lines = append(lines, e["MESSAGE"].(string))
		equal(t, "identifier", e["SYSLOG_IDENTIFIER"], any("run"))
		equal(t, "pod", e["RKT_POD_NAME"], any("well"))
		if len(e["MESSAGE_ID"].(string)) != 32 {
			t.Errorf("message ID: %v", e)
		}
	}
	equal(t, "lines of one app's health", lines, []string{"App run is healthy", "App run is unhealthy: exit status 1: 33", "App run is healthy"})
	f.forget("well")
	f.unchanged(before)
}

// TestHealthActions: an unhealthy app is started again, or ends the pod with a
// status that systemd restarts it for.
func TestHealthActions(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	check := func(action string) m {
		return m{"health": m{"exec": []string{"/bin/sh", "-c", "test ! -e /tmp/bad"}, "interval": "200ms", "retries": 2, "action": action}}
	}
	// it takes being stopped for a failure
	const fails = `rm -f /tmp/bad; echo begin; trap "exit 3" TERM; while :; do sleep 0.1; done`
	f.declare("again", pod(app("one", fails, check("restart-app")), app("two", "exec sleep 1000")))
	f.start("again")
	f.waitHealth("again", "one", "healthy")
	pid := f.show("rkt@again", "MainPID")
	f.rkt("enter", "--app=one", "again", "/bin/touch", "/tmp/bad")
	f.Eventually(t, soon, "bash", "-c", `journalctl --sync; [ $(journalctl -q -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID rkt@again) -t one | grep -cx begin) = 2 ]`)
	f.waitHealth("again", "one", "healthy")
	equal(t, "the pod of the app that was restarted", f.show("rkt@again", "ActiveState")+" "+f.show("rkt@again", "MainPID"), "active "+pid)
	contains(t, "log", f.appLog("again", "one"), "App one is unhealthy; restarting it: exit status 1")
	f.forget("again")

	f.declare("over", service(pod(app("one", fails, check("restart-pod")), app("two", "exec sleep 1000")), m{"Restart": "on-failure", "RestartSec": "100ms"}))
	f.start("over")
	f.waitHealth("over", "one", "healthy")
	f.rkt("enter", "--app=one", "over", "/bin/touch", "/tmp/bad")
	f.Eventually(t, soon, "bash", "-c", `[ "$(systemctl show --value -p NRestarts,ActiveState rkt@over | sort | xargs)" = "1 active" ]`)
	contains(t, "log", f.journal("-u", "rkt@over", "--since", f.since), "App one is unhealthy; ending the pod: exit status 1", "code=exited, status=250")
	f.forget("over")
	f.unchanged(before)
}

// TestReadyHealthy: the unit is active when its apps are healthy, not before;
// one that never is says why.
func TestReadyHealthy(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	ready := func(p m) m { p["rkt"].(m)["ready"] = "healthy"; return p }
	f.declare("slow", ready(pod(app("one", "exec sleep 1000", m{"health": m{"exec": []string{"/bin/sh", "-c", "test -e /tmp/up || { echo not yet; exit 1; }"}, "startInterval": "200ms"}}), app("two", "exec sleep 1000"))))
	f.Write(t, "/etc/systemd/system/rkt-test-after.service", 0o644, []byte("[Unit]\nRequires=rkt@slow.service\nAfter=rkt@slow.service\n[Service]\nType=oneshot\nExecStart=/bin/true\nRemainAfterExit=yes\n"))
	t.Cleanup(func() {
		f.sh("systemctl stop rkt-test-after; rm -f /etc/systemd/system/rkt-test-after.service; systemctl daemon-reload; systemctl reset-failed rkt-test-after 2>/dev/null || true")
	})
	f.sh("systemctl daemon-reload; systemctl start --no-block rkt-test-after")
	f.Eventually(t, soon, "bash", "-c", `rkt status slow | grep -qx health-one=starting`)
	f.Eventually(t, soon, "rkt", "enter", "--app=two", "slow", "/bin/true")
	equal(t, "before it is healthy", f.show("rkt@slow", "ActiveState")+" "+f.show("rkt-test-after", "ActiveState"), "activating inactive")
	f.Eventually(t, soon, "bash", "-c", "systemctl show --value -p StatusText rkt@slow | grep -q 'starting: one'")
	f.rkt("enter", "--app=one", "slow", "/bin/touch", "/tmp/up")
	f.Eventually(t, soon, "systemctl", "-q", "is-active", "rkt-test-after")
	equal(t, "when it is healthy", f.show("rkt@slow", "ActiveState")+" "+f.healthOf("slow", "one"), "active healthy")
	// The pod's own systemd, which is ready after that, has the last word for a moment only.
	f.Eventually(t, soon, "bash", "-c", "sleep 2; systemctl show --value -p StatusText rkt@slow | grep -q 'healthy: one'")
	f.sh("systemctl stop rkt-test-after")
	f.stop("slow")

	f.declare("slow", service(ready(pod(app("one", "exec sleep 1000", m{"health": m{"exec": []string{"/bin/sh", "-c", "echo not yet; exit 1"}}}))), m{"TimeoutStartSec": "6s"}))
	f.sh("! systemctl start rkt@slow")
	equal(t, "result of one that never is", f.show("rkt@slow", "Result"), "timeout")
	contains(t, "log", f.appLog("slow", "one"), "App one did not become healthy in", "and the pod is not ready without that; the last check: exit status 1: not yet")
	f.forget("slow")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"strings"
	"testing"
)

// TestInterruptedUpdate: an updater that is killed in the middle of a trial. Whatever looks at the pod then neither
// forgets that it is to be put back, nor starts it if it does not run, nor holds anything against the images.
func TestInterruptedUpdate(t *testing.T) {
	f := updates(t)
	before := f.snapshot()
	p := updPod(updDir+"/live.aci", "no")
	p["rkt"].(m)["update"] = m{"policy": "registry", "timeout": "60s", "settle": "1h"}
	f.declare("updint", p)
	f.start("updint")
	first := f.updState("updint")
	trial := func(image, answer string) {
		t.Helper()
		f.upd("live " + image)
		f.sh("systemd-run -q --collect --unit=upd-int rkt pod update updint")
		f.Eventually(t, soon, "bash", "-uc", updLook+` | grep -q '"Active":"active".*"Answer":"`+answer+`"'`, "-", "updint")
		f.sh("systemctl kill -s KILL upd-int; systemctl reset-failed upd-int 2>/dev/null || true")
		f.Eventually(t, soon, "bash", "-c", "! systemctl -q is-active upd-int")
	}
	t.Cleanup(func() { f.trySh("systemctl kill -s KILL upd-int") })
	trial("better", "2")
	on := f.updState("updint")
	f.Run(t, "rkt", "pod", "fetch", "updint")
	_, errs, code := f.Try("rkt", "pod", "update", "updint", "--check")
	is := f.updState("updint")
	if code != 2 || is.Invocation != on.Invocation || is.Answer != "2" {
		t.Errorf("after --check: status %d, %+v, before %+v\n%s", code, is, on, errs)
	}
	f.upd("live good")
	contains(t, "an update with nothing new", check2(f, 0, "rkt", "pod", "update", "updint"), "up-to-date")
	is = f.updState("updint")
	if is.Answer != "1" || is.Image != first.Image || is.Generation != 1 || is.State != "good" || is.Invocation == on.Invocation {
		t.Errorf("the next update did not put the pod back: %+v", is)
	}
	contains(t, "rkt pod history", f.Run(t, "rkt", "pod", "history", "updint"), "abandoned")
	f.upd("live better")
	contains(t, "the timer tries again", check2(f, 0, "rkt", "pod", "update", "updint", "--auto", "--settle=1s"), "updated")
	if is = f.updState("updint"); is.Answer != "2" {
		t.Errorf("after --auto: %+v", is)
	}

	f.upd("variant third . 'echo 3 >v'")
	trial("third", "3")
	f.stop("updint")
	check2(f, 2, "rkt", "pod", "update", "updint", "--check")
	equal(t, "the pod after --check", f.show("rkt@updint", "ActiveState"), "inactive")
	f.upd("live better")
	contains(t, "an update of a pod that was stopped", check2(f, 0, "rkt", "pod", "update", "updint"), "up-to-date")
	equal(t, "the pod", f.show("rkt@updint", "ActiveState"), "inactive")
	f.start("updint")
	if is = f.updState("updint"); is.Answer != "2" || !strings.HasPrefix(is.Last, "rolled-back") {
		t.Errorf("started again: %+v", is)
	}
	f.forget("updint")
	f.unchanged(before)
}

// TestUpdateWhileItRestarts: a pod that Restart= is about to start again runs, for an update.
func TestUpdateWhileItRestarts(t *testing.T) {
	f := updates(t)
	before := f.snapshot()
	p := updPod(updDir+"/live.aci", "always")
	p["rkt"].(m)["update"] = m{"policy": "registry", "timeout": "60s", "settle": "500ms"}
	f.declare("updend", p)
	const slow = "/run/systemd/system/rkt@updend.service.d" // time to see it end
	f.Write(t, slow+"/50-slow.conf", 0o644, []byte("[Service]\nExecStopPost=/bin/sleep 3\n"))
	t.Cleanup(func() { f.trySh("rm -rf " + slow + "; systemctl daemon-reload") })
	f.systemctl("daemon-reload")
	f.start("updend")
	f.upd("live better")
	f.sh("systemctl kill -s KILL --kill-whom=main rkt@updend")
	f.Eventually(t, soon, "bash", "-c", "[ $(systemctl is-active rkt@updend) = deactivating ]")
	contains(t, "rkt pod update", check2(f, 0, "rkt", "pod", "update", "updend"), "updated")
	is := f.updState("updend")
	if is.Answer != "2" || is.Generation != 2 || !strings.HasPrefix(is.Last, "updated ") || is.Active != "active" {
		t.Errorf("%+v", is)
	}
	f.sh("rm -r " + slow + "; systemctl daemon-reload")
	f.forget("updend")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Twenty running pods do not notice when systemd reads its units again, executes
// itself again, or when the services they use are started again: the processes stay
// the same, the units active, the machines registered, the output in the journal.
func TestPodsSurviveHostServices(t *testing.T) {
	f := open(t)
	f.Alone(t)
	before := f.snapshot()
	f.declare("survive@", pod(app("app", "while :; do echo tick; sleep 1; done")))
	var names, units []string
	for i := range many {
		names = append(names, fmt.Sprintf("survive@%d", i))
		units = append(units, "rkt@"+names[i]+".service")
	}
	t.Cleanup(func() { f.trySh("systemctl stop 'rkt@survive@*'") })
	f.RunFor(t, 5*time.Minute, append([]string{"systemctl", "start"}, units...)...)
	state := func() string {
		return f.sh("systemctl show -p Id,MainPID,ActiveState,InvocationID,NRestarts " + strings.Join(units, " ") + "; machinectl list --no-legend | awk '/^survive/ {print $1, $2, $3}' | sort")
	}
	was := state()
	equal(t, "running pods", strings.Count(was, "ActiveState=active"), many)
	for _, what := range []string{"systemctl daemon-reload", "systemctl daemon-reexec", "systemctl restart systemd-machined", "systemctl restart systemd-journald",
		"systemctl restart dbus", "systemctl restart systemd-logind || true"} {
		f.sh(what)
		f.Eventually(t, soon, "machinectl", "list")
		equal(t, "after "+what, state(), was)
		mark := strings.TrimSpace(f.sh("date +%s"))
		f.Eventually(t, soon, "bash", "-c", "journalctl --sync; journalctl -q -u rkt@survive@7 -t app --since @"+mark+" -o cat | grep -q tick")
	}
	contains(t, "rkt list", f.sh("rkt list --full"), "running")
	f.RunFor(t, 5*time.Minute, append([]string{"systemctl", "stop"}, units...)...)
	equal(t, "failed units", f.sh("systemctl list-units --failed --plain --no-legend 'rkt@*'"), "")
	f.forget("survive@")
	f.unchanged(before)
}

// The verbs of systemctl mean for a pod what they mean for any service.
func TestUnitVerbs(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("verbs", pod(app("app", "trap 'echo reloaded' HUP; echo started; while :; do sleep 0.1; done", m{"systemd": m{"service": m{"ReloadSignal": "HUP"}}})))
	t.Cleanup(func() {
		f.trySh("systemctl unmask rkt@verbs; systemctl disable rkt@verbs; rm -rf /etc/systemd/system/rkt@verbs.service.d /etc/systemd/system-preset/10-verbs.preset; systemctl daemon-reload")
	})
	enabled := func() string { out, _, _ := f.trySh("systemctl is-enabled rkt@verbs"); return strings.TrimSpace(out) }
	f.sh("systemctl enable rkt@verbs 2>&1")
	equal(t, "after enable", enabled(), "enabled")
	contains(t, "what the target wants", f.show("multi-user.target", "Wants"), "rkt@verbs.service")
	f.sh("systemctl disable rkt@verbs 2>&1")
	equal(t, "after disable", enabled(), "disabled")
	f.sh("mkdir -p /etc/systemd/system-preset; echo 'enable rkt@.service verbs' >/etc/systemd/system-preset/10-verbs.preset; systemctl preset rkt@verbs 2>&1")
	equal(t, "after preset", enabled(), "enabled")
	f.sh("systemctl disable rkt@verbs 2>&1")

	f.sh(`systemctl mask rkt@verbs 2>&1`)
	if _, errs, code := f.trySh("systemctl start rkt@verbs"); code == 0 || !strings.Contains(errs, "masked") {
		t.Errorf("start of a masked pod: status %d, %s", code, errs)
	}
	f.sh("systemctl unmask rkt@verbs 2>&1")

	// what systemctl edit does, which wants a terminal
	f.sh(`mkdir -p /etc/systemd/system/rkt@verbs.service.d; printf '[Service]\nTimeoutStopSec=77\n' >/etc/systemd/system/rkt@verbs.service.d/override.conf; systemctl daemon-reload`)
	equal(t, "TimeoutStopUSec after edit", f.show("rkt@verbs", "TimeoutStopUSec"), "1min 17s")
	f.start("verbs")
	f.waitLog("verbs", "app", "started")
	pid := f.show("rkt@verbs", "MainPID")
	f.systemctl("reload", "rkt@verbs")
	f.waitLog("verbs", "app", "reloaded")
	f.sh("systemctl set-property --runtime rkt@verbs MemoryMax=77M TasksMax=99 CPUWeight=50")
	equal(t, "MemoryMax", f.show("rkt@verbs", "MemoryMax"), "80740352")
	f.systemctl("daemon-reload")
	equal(t, "the property after a daemon-reload", f.show("rkt@verbs", "TasksMax"), "99")
	equal(t, "the main process", f.show("rkt@verbs", "MainPID"), pid)
	f.sh("systemctl revert rkt@verbs 2>&1")
	f.forget("verbs")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"strings"
	"testing"
)

// A pod of rkt run --detach is a service as a declared pod is: ready, limited,
// restarted, in the journal, a machine; it can be saved as a pod file, and what
// rkt pod create writes runs, too.
func TestDetachedPod(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	failing := func(command string) string {
		t.Helper()
		out, errs, code := f.trySh(command)
		if code == 0 {
			t.Errorf("%s succeeds: %s", command, out)
		}
		return errs
	}
	t.Cleanup(func() { f.trySh("systemctl stop det; systemctl reset-failed 'det*' 'rkt-run-*'; true") })
	uuid := strings.TrimSpace(f.sh("rkt run --detach --unit=det --property=MemoryMax=64M --property=Restart=on-failure --property=RestartSec=100ms --net=none " +
		"--hostname=saved-host --volume d,kind=empty " + busybox + " --name=app --mount volume=d,target=/d --exec /bin/sh -- -c 'X=100%; echo $X started >/d/f; cat /d/f; hostname; exec sleep 1000'"))
	equal(t, "state", f.show("det", "ActiveState"), "active")
	equal(t, "the invocation", f.show("det", "InvocationID"), strings.ReplaceAll(uuid, "-", ""))
	equal(t, "MemoryMax", f.show("det", "MemoryMax"), "67108864")
	for _, property := range []string{"Type", "NotifyAccess", "KillMode", "Slice", "Delegate", "TimeoutStopUSec", "TimeoutStartUSec", "DevicePolicy", "SuccessExitStatus",
		"RestartForceExitStatus", "OOMPolicy", "TasksMax", "LogRateLimitBurst", "LogRateLimitIntervalUSec", "StartLimitBurst", "StartLimitIntervalUSec"} {
		equal(t, property, f.show("det", property), f.show("rkt@any", property))
	}
	f.sh("machinectl show rkt-" + uuid)
	f.Eventually(t, soon, "bash", "-c", "rkt logs --app=app "+uuid+" | grep -q saved-host")
	contains(t, "journalctl -u", f.sh("journalctl -u det -t app -o cat"), "100% started")

	f.sh("rkt pod save " + uuid + " saved")
	f.start("saved")
	f.waitLog("saved", "app", "saved-host")
	contains(t, "rkt pod save again", failing("rkt pod save "+uuid+" saved"), "/etc/rkt/pods/saved.json", "--force")
	f.forget("saved")

	f.sh("kill -9 $(systemctl show -P MainPID det)")
	f.Eventually(t, soon, "bash", "-c", "[ $(systemctl show -P NRestarts det) = 1 ] && systemctl is-active det")
	contains(t, "a name that is taken", failing("rkt run --detach --unit=det --net=none "+busybox), "exists", "systemctl status det.service")
	f.sh("systemctl stop det")

	contains(t, "a pod that cannot start", failing("rkt run --detach --unit=det2 --net=none "+busybox+" --exec /no/such"), "/no/such", "journalctl -u det2.service")
	equal(t, "its unit", strings.TrimSpace(f.sh("systemctl is-failed det2")), "failed")
	f.sh("systemctl reset-failed det2")
	contains(t, "an unknown setting", failing("rkt run --detach --property=NoSuch=1 --net=none "+busybox), "NoSuch=1")
	short := strings.TrimSpace(f.sh("rkt run --detach --net=none " + busybox + " --exec /bin/true"))
	f.Eventually(t, soon, "bash", "-c", "rkt status "+short+" | grep -q app-busybox=0")

	f.sh("rkt pod create made --net=none --set-env=A=b --property=Restart=no --volume d,kind=empty " + busybox + " --name=app --mount volume=d,target=/d --memory=64Mi --exec /bin/sh -- -c 'echo A is $A; exec sleep 1000'")
	f.start("made")
	f.waitLog("made", "app", "A is b")
	f.forget("made")
	f.unchanged(before)
}

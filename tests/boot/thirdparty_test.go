//go:build boot

package boot

import (
	"os"
	"strings"
	"testing"
)

// tinyRun is a stage1 of interface version 1 in a dozen lines: it runs the
// first app in its root, and does nothing else. It writes down what it got.
const tinyRun = `#!/bin/sh
set -eu
app=$(ls stage1/rootfs/opt/stage2)
{
	echo "args $*"
	echo "cwd $(pwd -P)"
	[ "$(stat -L -c %d:%i "/proc/self/fd/$RKT_LOCK_FD")" = "$(stat -c %d:%i .)" ] && echo "lock is the pod directory"
	flock -n . true || echo "lock is held"
	[ -f pod ] && [ -f stage1/manifest ] && echo "manifests"
} >seen
ln -s tiny flavor
echo $$ >.pid.new && mv .pid.new pid
exec chroot "stage1/rootfs/opt/stage2/$app/rootfs" /bin/sh -c 'trap "exit 0" TERM; echo tiny; while :; do sleep 0.1; done'
`

const tinyEnter = `#!/bin/sh
set -eu
pid=${1#--pid=}; app=${2#--appname=}; [ "$3" = -- ]; shift 3
exec nsenter --target "$pid" --mount --root "$@"
`

const tinyGC = "#!/bin/sh\necho \"gc $*\" >>/run/tiny-gc\n"

// TestThirdPartyStage1: rkt runs a stage1 that knows nothing of it but the
// first version of the contract.
//
// check list: runtime 1, 2
func TestThirdPartyStage1(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	dir := t.TempDir()
	for name, text := range map[string]string{"run": tinyRun, "enter": tinyEnter, "gc": tinyGC} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	manifest := text(t, m{"app": nil, "annotations": []m{{"name": "coreos.com/rkt/stage1/run", "value": "/run-it"},
		{"name": "coreos.com/rkt/stage1/enter", "value": "/enter"}, {"name": "coreos.com/rkt/stage1/gc", "value": "/gc"}}})
	image := f.image("tiny", "plain", "--name", "example.com/tiny", "--file", dir+"/run:/run-it", "--file", dir+"/enter:/enter", "--file", dir+"/gc:/gc", "--manifest", manifest)
	f.sh("rm -f /run/tiny-gc /run/tiny-uuid /run/tiny-out")
	start := func(flags string) (uuid string) {
		t.Helper()
		f.sh("rm -f /run/tiny-uuid; systemd-run -q --collect --unit=rkt-tiny -p Delegate=yes -p StandardError=file:/run/tiny-out rkt run --net=none --uuid-file-save=/run/tiny-uuid --stage1-path=" +
			image + " " + flags + " " + busybox)
		f.Eventually(t, soon, "bash", "-c", "test -s /run/tiny-uuid && test -s /var/lib/rkt/pods/run/$(cat /run/tiny-uuid)/pid")
		return strings.TrimSpace(f.Read(t, "/run/tiny-uuid"))
	}
	uuid := start("--hostname=h --ipc=parent --dns=192.0.2.1")
	seen := f.Read(t, "/var/lib/rkt/pods/run/"+uuid+"/seen")
	equal(t, "what the stage1 saw", seen, "args --net=none --local-config=/etc/rkt "+uuid+"\ncwd /var/lib/rkt/pods/run/"+uuid+
		"\nlock is the pod directory\nlock is held\nmanifests\n")
	contains(t, "warnings", f.Read(t, "/run/tiny-out"), "interface version 1", "--hostname", "--ipc", "--dns-conf-mode")
	contains(t, "status", f.rkt("status", uuid), "state=running", "pid=")
	equal(t, "enter", f.rkt("enter", uuid, "/bin/sh", "-c", "ls -d /opt/stage2 2>/dev/null; echo entered"), "entered")
	f.refused(t, []string{"cannot enter as another user"}, "enter", "--user=root", uuid, "/bin/true")
	f.refused(t, []string{"not implemented by this pod's stage1"}, "stop", uuid)
	f.refused(t, []string{"not implemented by this pod's stage1"}, "attach", uuid)
	f.sh("systemctl stop rkt-tiny")
	equal(t, "state after the stop", f.Run(t, "bash", "-c", "rkt status "+uuid+" | head -1"), "state=exited\n")
	f.gc()
	contains(t, "calls of gc", f.Read(t, "/run/tiny-gc"), "gc "+uuid)

	// its death by SIGKILL frees the lock
	uuid = start("")
	f.sh("systemctl kill -s KILL rkt-tiny")
	f.Eventually(t, soon, "bash", "-c", "rkt status "+uuid+" | grep -q state=exited")
	f.sh("systemctl reset-failed rkt-tiny 2>/dev/null || true; rm -f /run/tiny-gc /run/tiny-uuid /run/tiny-out")
	f.gc()
	f.sh("rm -f /run/tiny-gc")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"strings"
	"testing"
	"time"
)

const flyStage1 = "/usr/lib/rkt/stage1-images/stage1-fly.aci"

// TestFly: one app on the host, in nothing but a root of its own, driven like
// any other pod.
func TestFly(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh("rm -rf /srv/fly; mkdir -p /srv/fly/data /srv/fly/mnt; echo data >/srv/fly/data/f; mount -t tmpfs fly /srv/fly/mnt; mount --make-shared /srv/fly/mnt; mkdir /srv/fly/mnt/sub")
	t.Cleanup(func() { f.Try("bash", "-c", "umount /srv/fly/mnt/sub; umount /srv/fly/mnt; rm -rf /srv/fly") })
	run := func(args ...string) (string, int) {
		t.Helper()
		stdout, stderr, code := f.Try(append([]string{"rkt", "run", "--stage1-from-dir=stage1-fly.aci"}, args...)...)
		return stdout + stderr, code
	}
	t.Run("namespaces and status", func(t *testing.T) {
		host := f.Run(t, "bash", "-c", "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done")
		out, code := run(bb(`for n in net pid ipc uts; do readlink /proc/self/ns/$n; done; exit 7`)...)
		if code != 7 || !strings.Contains(out, strings.TrimSpace(host)) {
			t.Errorf("status %d, want 7; output\n%s\nwant the host's\n%s", code, out, host)
		}
	})
	t.Run("environment, user, root", func(t *testing.T) {
		out, code := run(bb(`echo "<$AC_APP_NAME $(id -u):$(id -g) $PWD>"; ls -d /opt/stage2 2>&1; ls /proc/1/stat /sys/class/net /dev/null >/dev/null && echo host; touch /tmp/x && echo tmp; cat`,
			"--name=flown", "--user=redis", "--group=redis", "--working-dir=/var/tmp")...)
		contains(t, "output", out, "<flown 999:999 /var/tmp>", "/opt/stage2: No such file", "host\n", "tmp\n")
		equal(t, "status", code, 0)
	})
	t.Run("volumes", func(t *testing.T) {
		out, code := run(append([]string{"--volume=data,kind=host,source=/srv/fly/data,readOnly=true", "--volume=mnt,kind=host,source=/srv/fly/mnt"},
			bb(`cat /data/f; touch /data/x 2>&1; mount -t tmpfs inside /m/sub && touch /m/sub/seen`, "--mount=volume=data,target=/data", "--mount=volume=mnt,target=/m")...)...)
		if code != 0 || !strings.Contains(out, "data\n") || !strings.Contains(out, "Read-only") {
			t.Errorf("status %d:\n%s", code, out)
		}
		equal(t, "a mount made by the app below a mount point of the host", f.Run(t, "ls", "/srv/fly/mnt/sub"), "seen\n")
		out, code = run(append([]string{"--volume=e,kind=empty"}, bb("true", "--mount=volume=e,target=/e")...)...)
		if code != 254 || !strings.Contains(out, "kind host only") {
			t.Errorf("an empty volume: status %d, %s", code, out)
		}
	})
	t.Run("refused", func(t *testing.T) {
		for want, args := range map[string][]string{
			"fly only supports 1 application per Pod for now": append(bb("true"), append([]string{"---"}, bb("true", "--name=two")...)...),
			"private users": append([]string{"--private-users"}, bb("true")...),
		} {
			out, code := run(args...)
			if code != 254 || !strings.Contains(out, want) {
				t.Errorf("status %d, want 254 with %q:\n%s", code, want, out)
			}
		}
		out, code := run(bb("true", "--memory=64M")...)
		if code != 0 || !strings.Contains(out, "not applied by fly") {
			t.Errorf("an isolator: status %d:\n%s", code, out)
		}
		out, code = run(busybox, "--exec=/nonexist")
		if code != 203 || !strings.Contains(out, `Unable to open "/nonexist"`) {
			t.Errorf("a missing program: status %d:\n%s", code, out)
		}
	})
	t.Run("declared", func(t *testing.T) {
		p := pod(app("one", forever(0), m{"user": "redis", "group": "redis"}))
		p["rkt"] = m{"stage1": flyStage1}
		f.declare("flown", p)
		f.start("flown")
		contains(t, "machinectl", f.Run(t, "machinectl", "--no-pager", "show", "flown"), "Service=rkt", "Class=container", "Unit=rkt@flown.service")
		f.waitLog("flown", "one", "started")
		equal(t, "enter", f.rkt("enter", "flown", "/bin/sh", "-c", `echo "$AC_APP_NAME $(id -u) $PWD"`), "one 999 /")
		equal(t, "control group", f.rkt("exec", "flown", "/bin/cat", "/proc/self/cgroup"), strings.TrimSpace(f.Run(t, "bash", "-c", "cat /proc/$(systemctl show --value -p MainPID rkt@flown)/cgroup")))
		contains(t, "status", f.rkt("status", f.uuid("flown")), "state=running", "pid="+f.show("rkt@flown", "MainPID"))
		f.rkt("stop", f.uuid("flown"))
		equal(t, "after the stop", f.ended("rkt@flown"), "inactive")
		f.systemctl("start", "rkt@flown")
		f.rkt("stop", "--force", f.uuid("flown"))
		equal(t, "after the kill", f.ended("rkt@flown"), "failed")
		f.systemctl("reset-failed", "rkt@flown")
		f.forget("flown")
	})
	t.Run("notify and sockets", func(t *testing.T) {
		late := f.svc("fly-notify", m{"exec": []string{"/svc", "notify=1500ms", "reload"}, "user": "0", "group": "0"})
		f.declare("late", m{"apps": []m{{"name": "one", "image": late, "systemd": m{"service": m{"Type": "notify"}}}}, "rkt": m{"stage1": flyStage1}})
		f.sh("systemctl start --no-block rkt@late")
		f.Eventually(t, soon, "systemctl", "-q", "is-active", "rkt@late")
		f.activeAfter("rkt@late", 1500*time.Millisecond)
		f.forget("late")

		web := appOf("/svc", "serve")
		web["ports"] = []m{{"name": "web", "port": 18082, "protocol": "tcp", "socketActivated": true}}
		f.declare("sockfly", m{"apps": []m{{"name": "one", "image": f.svc("fly-serve", web)}}, "rkt": m{"stage1": flyStage1}})
		f.Write(t, "/etc/systemd/system/rkt-fly.socket", 0o644, []byte("[Socket]\nListenStream=18082\nService=rkt@sockfly.service\n"))
		f.sh("systemctl daemon-reload; systemctl start rkt-fly.socket")
		stdout, stderr, code := f.Try("timeout", "20", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/18082; cat <&3")
		if code != 0 || strings.TrimSpace(stdout) != "socket 0 of one" {
			t.Errorf("answer %q; status %d\n%s", stdout, code, stderr)
		}
		f.sh("systemctl stop rkt-fly.socket rkt@sockfly; rm -f /etc/systemd/system/rkt-fly.socket; systemctl daemon-reload")
		f.forget("sockfly")
	})
	f.sh("umount /srv/fly/mnt/sub; umount /srv/fly/mnt; rm -rf /srv/fly")
	f.unchanged(before)
}

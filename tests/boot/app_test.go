//go:build boot

package boot

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// image of the tests by its name: rkt app add takes what is in the store.
const stored = "example.com/busybox"

// sandbox starts a mutable pod as a transient unit and waits until it is ready.
// It is stopped at the end of the test.
func (f *fixture) sandbox(flags ...string) (uuid string) {
	f.t.Helper()
	f.rkt("fetch", busybox)
	f.Run(f.t, append([]string{"bash", "-c", `rm -f /run/sandbox.uuid; systemctl reset-failed sandbox 2>/dev/null
		systemd-run --quiet --unit=sandbox rkt app sandbox --uuid-file-save=/run/sandbox.uuid "$@"
		for i in {1..1200}; do [ -s /run/sandbox.uuid ] && exec rkt status --uuid-file=/run/sandbox.uuid --wait-ready=60s; sleep 0.05; done
		journalctl -u sandbox >&2; exit 1`, "-"}, flags...)...)
	f.t.Cleanup(func() { f.trySh("systemctl stop sandbox; systemctl reset-failed sandbox; rm -f /run/sandbox.uuid") })
	return strings.TrimSpace(f.Read(f.t, "/run/sandbox.uuid"))
}

// add adds an app that runs a shell script.
func (f *fixture) add(uuid, name, script string, flags ...string) {
	f.t.Helper()
	args := append([]string{"timeout", "60", "rkt", "app", "add", uuid, stored, "--name=" + name, "--exec=/bin/sh"}, flags...)
	f.Run(f.t, append(args, "--", "-c", script)...)
}

// app does something to one app.
func (f *fixture) app(verb, uuid, name string) {
	f.t.Helper()
	f.Run(f.t, "timeout", "60", "rkt", "app", verb, uuid, "--app="+name)
}

func (f *fixture) appState(uuid, name, want string) {
	f.t.Helper()
	f.Eventually(f.t, soon, "bash", "-c", `rkt app list --no-legend "$1" | grep -qx "$2	$3"`, "-", uuid, name, want)
}

// check list: runtime 37
// check list: pod-lifecycle 21
// check list: cli 37
func TestSandbox(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	uuid := f.sandbox("--net=none")
	equal(t, "the list of an empty sandbox", f.Run(t, "rkt", "app", "list", uuid), "\n")
	contains(t, "the manifest", f.rkt("cat-manifest", uuid), `"coreos.com/rkt/stage1/mutable"`, `"true"`)
	t.Run("life of an app", func(t *testing.T) {
		f.Run(t, "timeout", "60", "rkt", "app", "add", uuid, stored, "--exec=/bin/sh", "--user-annotation=a=b", "--user-label=c=d", "--", "-c", "echo ended; exit 12")
		equal(t, "the list", f.rkt("app", "list", uuid), "NAME\tSTATE\nbusybox\tcreated")
		f.app("start", uuid, "busybox")
		f.appState(uuid, "busybox", "exited")
		status := f.rkt("app", "status", uuid, "--app=busybox")
		contains(t, "the status", status, "name=busybox\n", "state=exited\n", "exit_code=12\n", "created_at=", "started_at=", "finished_at=", "user_annotations=a:b\n", "user_labels=c:d")
		j := object[m](t, f.rkt("app", "status", uuid, "--format=json"))
		equal(t, "exit_code", j["exit_code"], any(12.0))
		first := j["started_at"].(float64)
		f.app("start", uuid, "busybox")
		f.appState(uuid, "busybox", "exited")
		if again := object[m](t, f.rkt("app", "status", uuid, "--format=json"))["started_at"].(float64); again <= first {
			t.Errorf("started again at %f, before at %f", again, first)
		}
		f.Eventually(t, soon, "bash", "-c", `journalctl --sync; [ $(journalctl -q -u sandbox -t busybox -o cat --since "$1" | grep -cx ended) = 2 ]`, "-", f.since)
		f.refused(t, []string{"busybox", "already"}, "app", "add", uuid, stored)
		f.app("rm", uuid, "busybox")
		equal(t, "the list", f.Run(t, "rkt", "app", "list", uuid), "\n")
		equal(t, "state", f.state(uuid), "running")
	})
	t.Run("running apps", func(t *testing.T) {
		f.add(uuid, "zero", "exit 0")
		f.add(uuid, "stays", forever(0))
		f.app("start", uuid, "zero")
		f.app("start", uuid, "stays")
		f.appState(uuid, "zero", "exited")
		f.appState(uuid, "stays", "running")
		equal(t, "a command in the app", f.Run(t, "timeout", "20", "rkt", "app", "exec", "--app=stays", uuid, "/bin/echo", "here"), "here\n")
		for _, p := range f.listed() {
			if p["name"] == uuid {
				apps := p["apps"].([]any)
				equal(t, "states in rkt list", []any{apps[0].(m)["state"], apps[1].(m)["state"]}, []any{"exited", "running"})
			}
		}
		f.app("stop", uuid, "stays")
		contains(t, "the status", f.rkt("app", "status", uuid, "--app=stays"), "state=exited\n", "exit_code=0")
		f.refused(t, []string{"stays", "not running"}, "app", "stop", uuid, "--app=stays")
		f.app("start", uuid, "stays")
		f.app("rm", uuid, "stays") // of a running app
		f.app("rm", uuid, "zero")
		left := f.sh(fmt.Sprintf(`p=$(rkt status %[1]s | sed -n s/^pid=//p); grep -c /opt/stage2/ /proc/$p/mountinfo || true
			{ find /var/lib/rkt/pods/run/%[1]s -xdev; find /proc/$p/root/rkt /proc/$p/root/opt /proc/$p/root/run/rkt; } | grep -E '/(zero|stays)([-.]|/|$)' || true`, uuid))
		equal(t, "what is left", left, "0\n")
	})
	t.Run("refused", func(t *testing.T) {
		f.refused(t, []string{"not/there"}, "app", "add", uuid, "example.com/not/there")
		f.refused(t, []string{"none"}, "app", "start", uuid, "--app=none")
		f.refused(t, []string{"none"}, "app", "rm", uuid, "--app=none")
		f.refused(t, []string{"one image"}, "app", "add", uuid)
		f.refused(t, []string{"one image"}, "app", "add", uuid, stored, stored)
		f.refused(t, []string{"-created"}, "app", "add", uuid, stored, "--name=x-created")
		f.refused(t, []string{"dbus", "unit of that name"}, "app", "add", uuid, stored, "--name=dbus", "--exec=/bin/true")
		f.refused(t, []string{"CAP_NET_ADMIN", "--insecure-options=capabilities"}, "app", "add", uuid, stored, "--caps-retain=CAP_NET_ADMIN", "--exec=/bin/true")
		f.refused(t, []string{"/no/such/dir"}, "app", "add", uuid, stored, "--exec=/bin/true", "--mnt-volume=name=v,kind=host,source=/no/such/dir,target=/v")
		equal(t, "the list", f.Run(t, "rkt", "app", "list", uuid), "\n")
		equal(t, "the pod's own bus", f.sh("systemctl -M rkt-"+uuid+" is-active dbus.socket"), "active\n")
		f.background(append([]string{"--net=none"}, bb(forever(0))...)...)
		other := strings.TrimSpace(f.Read(t, "/run/background.uuid"))
		f.refused(t, []string{"immutable"}, "app", "add", other, stored)
		f.refused(t, []string{"immutable"}, "app", "stop", other, "--app=app")
		equal(t, "the list of an immutable pod", f.rkt("app", "list", "--no-legend", other), "app\trunning")
		f.rkt("stop", other)
		f.rkt("status", "--wait=60s", other)
	})
	t.Run("many at once", func(t *testing.T) {
		f.sh(fmt.Sprintf(`p=; for i in 1 2 3 4 5 6; do timeout 100 rkt app add %[1]s %[2]s --name=n$i --exec=/bin/sleep -- 1000 & p="$p $!"; done; for i in $p; do wait $i || exit 1; done
			p=; for i in 1 2 3 4 5 6; do timeout 100 rkt app start %[1]s --app=n$i & p="$p $!"; done; for i in $p; do wait $i || exit 1; done`, uuid, stored))
		equal(t, "running", strings.Count(f.rkt("app", "list", uuid), "running"), 6)
		f.sh(fmt.Sprintf(`p=; for i in 1 2 3 4 5; do timeout 100 rkt app rm %[1]s --app=n$i & p="$p $!"; done; for i in $p; do wait $i || exit 1; done`, uuid))
		equal(t, "the list", f.rkt("app", "list", "--no-legend", uuid), "n6\trunning")
	})
	f.rkt("stop", uuid)
	equal(t, "the unit", f.ended("sandbox"), "inactive")
	equal(t, "status", f.show("sandbox", "ExecMainStatus"), "0")
	contains(t, "stop of an ended pod", f.rkt("app", "stop", uuid, "--app=n6"), "already stopped")
	equal(t, "the list", f.rkt("app", "list", "--no-legend", uuid), "n6\texited")
	f.app("rm", uuid, "n6")
	equal(t, "the list", f.Run(t, "rkt", "app", "list", uuid), "\n")
	f.unchanged(before)
}

// check list: runtime 38
func TestSandboxVolumes(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh("rm -rf /var/tmp/sandbox; mkdir -p /var/tmp/sandbox/sub; echo of the host >/var/tmp/sandbox/file")
	t.Cleanup(func() { f.trySh("rm -rf /var/tmp/sandbox") })
	for _, flags := range [][]string{nil, {"--no-overlay"}, {"--private-users"}} {
		t.Run(strings.Join(append([]string{"flags"}, flags...), " "), func(t *testing.T) {
			uuid := f.sandbox(append([]string{"--net=none", "--annotation=example.com/a=b", "--user-annotation=c=d", "--user-label=e=f"}, flags...)...)
			contains(t, "the manifest", f.rkt("cat-manifest", uuid), `"example.com/a"`, `"c": "d"`, `"e": "f"`)
			f.add(uuid, "app", `cat /data/file /etc/../data/file; echo written >/data/new; cat /ro/file; touch /ro/x 2>/dev/null || echo refused; cat /link/file; stat -c %a /e; touch /e/mine && echo empty; id -u; `+forever(0),
				"--mnt-volume=name=data,kind=host,source=/var/tmp/sandbox,target=/data", "--mnt-volume=name=ro,kind=host,source=/var/tmp/sandbox,readOnly=true,target=/ro",
				"--mnt-volume=name=e,kind=empty,mode=0751,target=/e", "--mnt-volume=name=l,kind=host,source=/var/tmp/sandbox,target=/var/run/../../link")
			f.app("start", uuid, "app")
			f.Eventually(t, soon, "bash", "-c", `journalctl --sync; [ "$(journalctl -q -u sandbox -t app -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID sandbox) | tr '\n' ' ')" = "of the host of the host of the host refused of the host 751 empty 0 started " ]`)
			equal(t, "written", f.sh("stat -c %u /var/tmp/sandbox/new; cat /var/tmp/sandbox/new; rm /var/tmp/sandbox/new"), "0\nwritten\n")
			status := f.rkt("app", "status", uuid)
			contains(t, "the status", status, "/var/tmp/sandbox:/data:(read_only:false)", "/var/tmp/sandbox:/ro:(read_only:true)")
			// what the host mounts in a volume later shows; what is mounted in the pod stays there
			f.sh(fmt.Sprintf(`mount -t tmpfs none /var/tmp/sandbox/sub; echo later >/var/tmp/sandbox/sub/f; timeout 60 rkt exec --app=app %[1]s cat /data/sub/f; umount /var/tmp/sandbox/sub
				p=$(rkt status %[1]s | sed -n s/^pid=//p); nsenter -t $p -m mount -t tmpfs none /opt/stage2/app/rootfs/data/sub; ! mountpoint -q /var/tmp/sandbox/sub`, uuid))
			if len(flags) == 0 {
				f.sh(fmt.Sprintf(`machinectl bind --mkdir rkt-%[1]s /var/tmp/sandbox /opt/stage2/app/rootfs/bound; timeout 60 rkt exec --app=app %[1]s cat /bound/file`, uuid))
			}
			f.app("rm", uuid, "app")
			f.add(uuid, "app", "ls /e | wc -l; exit 3", "--mnt-volume=name=e,kind=empty,target=/e")
			f.app("start", uuid, "app")
			f.appState(uuid, "app", "exited")
			f.Eventually(t, soon, "bash", "-c", `journalctl --sync; journalctl -q -u sandbox -t app -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID sandbox) | grep -qx 0`)
			f.rkt("stop", uuid)
			equal(t, "the unit", f.ended("sandbox"), "inactive")
		})
	}
	f.unchanged(before)
}

// check list: runtime 36
func TestSandboxAttach(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	uuid := f.sandbox("--net=none")
	f.add(uuid, "streams", reader, "--stdin=stream", "--stdout=stream")
	f.add(uuid, "tty", reader, "--stdin=tty", "--stdout=tty", "--stderr=tty")
	talk := func() string {
		return f.sh(fmt.Sprintf(`rm -f /run/att.heard; { until [ -s /run/att.heard ]; do echo two; sleep 0.1; done; echo end; } | timeout 60 rkt attach --app=streams %s | tee /run/att.heard`, uuid))
	}
	t.Cleanup(func() { f.trySh("rm -f /run/att.heard") })
	for _, round := range []string{"first", "again"} {
		t.Run(round, func(t *testing.T) {
			f.app("start", uuid, "streams")
			f.app("start", uuid, "tty")
			// detached as soon as something is heard
			f.sh(fmt.Sprintf(`timeout 60 rkt attach --app=streams --mode=stdout %[1]s >/run/att.heard & a=$!
				until grep -q heard /run/att.heard; do echo one | timeout 60 rkt attach --app=streams --mode=stdin %[1]s; sleep 0.1; done; kill -INT $a; wait $a || true`, uuid))
			f.appState(uuid, "streams", "running")
			contains(t, "output", talk(), "heard <two>\n", "last words\n")
			f.appState(uuid, "streams", "exited")
			screen, status := f.converse("rkt attach --app=tty "+uuid+"; echo left with $?", turn{keys: `one\n`}, turn{wait: "heard <one>", keys: `\035\035\035`})
			contains(t, "the screen", screen, "heard <one>\n", "detached\n")
			equal(t, "status", status, 0)
			f.appState(uuid, "tty", "running")
			screen, _ = f.converse("rkt attach --app=tty "+uuid, turn{keys: `end\n`})
			contains(t, "the screen", screen, "last words\n")
			f.appState(uuid, "tty", "exited")
		})
	}
	f.app("rm", uuid, "streams")
	f.app("rm", uuid, "tty")
	f.rkt("stop", uuid)
	f.ended("sandbox")
	f.unchanged(before)
}

// TestSandboxFromShell: in the foreground of a terminal, and in a shell's background.
func TestSandboxFromShell(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	const wait = `for i in {1..1200}; do [ -s /run/sb.uuid ] && break; sleep 0.05; done; rkt status --wait-ready=60s --uuid-file=/run/sb.uuid >/dev/null`
	f.sh("rm -f /run/sb.uuid")
	screen, status := f.converse("bash -m -c 'rkt app sandbox --net=none --uuid-file-save=/run/sb.uuid & " + wait + "; jobs; rkt stop --uuid-file=/run/sb.uuid; wait %1; echo ended with $?'")
	contains(t, "the screen", screen, "Running", "ended with 0\n")
	equal(t, "status", status, 0)
	f.sh("rm -f /run/sb.uuid")
	screen, status = f.converse("rkt app sandbox --net=none --uuid-file-save=/run/sb.uuid; echo ended with $?", turn{run: wait, keys: `\003`})
	contains(t, "the screen", screen, "ended with 0\n")
	equal(t, "status", status, 0)
	f.sh("rm -f /run/sb.uuid")
	f.unchanged(before)
}

// check list: cli 37
func TestSandboxPorts(t *testing.T) {
	f := open(t)
	f.refused(t, []string{"name:proto"}, "app", "sandbox", "--port=http:80")
	f.refused(t, []string{"tcp nor udp"}, "app", "sandbox", "--port=http:sctp:80:127.0.0.1:8080")
	f.refused(t, []string{"--port", "none"}, "app", "sandbox", "--net=none", "--port=http:tcp:80:127.0.0.1:8080")
	uuid := f.sandbox("--net=default", "--port=http:tcp:80:0.0.0.0:8765", "--hostname=boxy", "--dns=192.0.2.1")
	f.add(uuid, "web", "hostname; cat /etc/resolv.conf; mkdir /www; echo served >/www/index.html; exec busybox httpd -f -p 80 -h /www")
	f.app("start", uuid, "web")
	f.Eventually(t, soon, "bash", "-c", `ip=$(rkt status "$1" | sed -n 's/^networks=.*ip4=\([0-9.]*\).*/\1/p'); gw=${ip%.*}.1; curl -sf http://$gw:8765/ | grep -qx served`, "-", uuid)
	f.Eventually(t, soon, "bash", "-c", `journalctl --sync; journalctl -q -u sandbox -t web -o cat | grep -qx boxy && journalctl -q -u sandbox -t web -o cat | grep -q 192.0.2.1`)
	f.rkt("stop", uuid)
	f.ended("sandbox")
	f.gc()
}

// TestLogFiles: with the log mode k8s-plain, lines go to files of the host.
//
// check list: runtime 38
func TestLogFiles(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	const dir = "/var/tmp/pod:logs"
	for _, flags := range [][]string{nil, {"--private-users"}} {
		f.sh("rm -rf " + dir + "; mkdir " + dir)
		uuid := f.sandbox(append([]string{"--net=none", "--annotation=coreos.com/rkt/experiment/logmode=k8s-plain",
			"--annotation=coreos.com/rkt/experiment/kubernetes-log-dir=" + dir}, flags...)...)
		f.add(uuid, "app", "echo to standard output; echo to standard error >&2; exit 0", "--annotation=coreos.com/rkt/experiment/kubernetes-log-path=app_0.log")
		f.app("start", uuid, "app")
		f.appState(uuid, "app", "exited")
		f.Eventually(t, soon, "bash", "-c", "[ $(wc -l <"+dir+"/app_0.log) = 2 ]")
		log := f.Read(t, dir+"/app_0.log")
		for _, want := range []string{`(?m)^2\d\d\d-\d\d-\d\dT\S+ stdout to standard output$`, `(?m)^2\d\d\d-\d\d-\d\dT\S+ stderr to standard error$`} {
			if !regexp.MustCompile(want).MatchString(log) {
				t.Errorf("%q: the log file has no line like %s:\n%s", flags, want, log)
			}
		}
		equal(t, "owner of the file", f.Run(t, "stat", "-c", "%u:%g", dir+"/app_0.log"), "0:0\n")
		f.rkt("stop", uuid)
		equal(t, "the unit", f.ended("sandbox"), "inactive")
	}
	f.sh("rm -rf " + dir)
	f.unchanged(before)
}

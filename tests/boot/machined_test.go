//go:build boot

package boot

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestMachineVerbs: docs/machined.md says what every verb of this systemd's
// machinectl does with a pod.
func TestMachineVerbs(t *testing.T) {
	f := open(t)
	doc, err := os.ReadFile("../../docs/machined.md")
	if err != nil {
		t.Fatal(err)
	}
	text := f.sh("machinectl --help | sed -n '/Commands:/,/^Options/p'; ! command -v importctl >/dev/null || importctl --help | sed -n '/Commands:/,/^Options/p'")
	verbs := regexp.MustCompile(`(?m)^  ([a-z]+(?:-[a-z]+)*) `).FindAllStringSubmatch(text, -1)
	if len(verbs) < 20 {
		t.Fatalf("only %d verbs in\n%s", len(verbs), text)
	}
	for _, v := range verbs {
		if !strings.Contains(string(doc), "`"+v[1]+"`") {
			t.Errorf("docs/machined.md says nothing of %q", v[1])
		}
	}
}

// TestSystemdToolsOnPods: systemd's tools show pods of every kind, and work on
// them, as docs/machined.md says.
func TestSystemdToolsOnPods(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("tools", m{"apps": []m{app("app", forever(0))}})
	f.declare("plain", users(pod(app("app", forever(0))), false))
	f.start("tools")
	f.start("plain")
	uuid := f.rkt("run", "--detach", "--unit=tools-run", "--net=none", f.image("busybox"), "--name=app", "--exec=/bin/sleep", "--", "1000")
	uuid = uuid[strings.LastIndexByte(uuid, '\n')+1:]

	for machine, unit := range map[string]string{"tools": "rkt@tools.service", "plain": "rkt@plain.service", "rkt-" + uuid: "tools-run.service"} {
		tool := func(what, command string, want ...string) {
			f.t.Helper()
			command = strings.NewReplacer("MACHINE", machine, "UNIT", unit).Replace(command)
			out, stderr, _ := f.trySh(command)
			contains(t, what+" of "+machine, strings.ReplaceAll(out+stderr, "\r", ""), want...)
		}
		tool("list", "machinectl list --no-legend | grep ^MACHINE", "container rkt")
		tool("status", "machinectl --no-pager -l status MACHINE", "Service: rkt; class container", "Unit: "+unit, "app.service", "OS: rkt pod")
		tool("show", "machinectl show MACHINE", "Unit="+unit, "State=running", "Class=container")
		tool("shell", `machinectl -q shell MACHINE /bin/sh -c 'echo "<$AC_APP_NAME>"'`, "<app>")
		tool("units", "systemctl -M MACHINE --no-pager list-units --type=service", "app.service", "loaded active running App app (example.com/busybox")
		tool("unit", "systemctl -M MACHINE --no-pager status app", "/rkt/units/app.service; static", "Active: active (running)")
		tool("cgls", "systemd-cgls --no-pager -l -M MACHINE; systemd-cgls --no-pager -l -u UNIT", "payload", "supervisor", "app.service", "sleep")
		tool("cgtop", "systemd-cgtop -b -n 1 --depth=6 -r machine.slice", "machine.slice/"+unit+"/payload/system.slice/app.service")
		tool("ps", "ps -eo machine:50,unit:50,cmd | grep 'sleep [0-9]'", machine, unit)
		tool("restart of an app", "systemctl -M MACHINE restart app && systemctl is-active UNIT && systemctl -M MACHINE is-active app", "active\nactive")
		tool("kill of the leader", "machinectl kill --kill-whom=leader -s USR1 MACHINE; systemctl is-active UNIT", "active")
		if machine != "tools" {
			continue // the rest does not look at the kind
		}
		for _, verb := range []string{"start", "enable", "disable"} {
			tool(verb, "machinectl "+verb+" MACHINE", "Machine image '"+machine+"' does not exist")
		}
		for _, verb := range []string{"image-status MACHINE", "show-image MACHINE", "clone MACHINE other", "rename MACHINE other", "read-only MACHINE", "remove MACHINE", "set-limit MACHINE 1G"} {
			tool(verb, "machinectl --no-pager "+verb, "No image '"+machine+"' known")
		}
		tool("clean", "machinectl clean", "Removed 0 images")
		tool("properties", "systemctl -M MACHINE set-property --runtime app TasksMax=99 && systemctl -M MACHINE show -p TasksMax app", "TasksMax=99")
		tool("state", "systemctl -M MACHINE is-system-running; systemctl -M MACHINE --failed --no-pager", "running", "0 loaded units")
		tool("jobs", "systemctl -M MACHINE list-jobs", "No jobs")
		tool("machines", "systemctl --no-pager --no-legend -l list-machines", machine, "running")
		tool("run", "systemd-run -M MACHINE -q --wait -P /bin/sh -c 'ls -d /opt/stage2/app/rootfs'", "/opt/stage2/app/rootfs")
		tool("run --scope", "systemd-run -M MACHINE -q --scope /bin/true || echo refused", "Failed to start transient scope unit", "refused")
		tool("journal", "journalctl -M MACHINE --no-pager", "No journal files were found")
		for _, ctl := range []string{"loginctl", "hostnamectl", "timedatectl", "localectl"} {
			tool(ctl, "SYSTEMD_PAGER= "+ctl+" -M MACHINE || echo refused", "not found", "refused")
		}
		tool("bus", "busctl -M MACHINE --no-pager list", "org.freedesktop.systemd1")
		tool("analyze", "systemd-analyze -M MACHINE", "Startup finished in", "default.target reached")
	}
	images := f.sh("machinectl --no-pager list-images")
	contains(t, "list-images", images, "No images")
	_, stderr, _ := f.trySh("machinectl bind --mkdir tools /etc /opt/stage2/app/rootfs/mnt/x")
	contains(t, "bind under private users", stderr, "user namespacing")
	f.sh("machinectl bind --mkdir plain /etc/rkt /opt/stage2/app/rootfs/mnt/x")
	contains(t, "bind without", f.rkt("enter", "plain", "/bin/ls", "/mnt/x"), "pods")

	address := f.sh("machinectl --no-legend list | sed -n 's/^tools .* \\([0-9.]*\\)….*$/\\1/p; s/^tools .* \\([0-9.]*[0-9]\\)$/\\1/p'")
	contains(t, "the name of the pod", f.sh("getent ahosts tools"), strings.TrimSpace(address)+" ")
	contains(t, "loginctl", f.sh("loginctl --no-pager list-sessions"), "No sessions")
	contains(t, "networkctl", f.sh("networkctl --no-pager list 2>&1"), "veth", "unmanaged")

	f.sh("machinectl kill -s TERM tools; machinectl terminate plain; machinectl poweroff rkt-" + uuid)
	equal(t, "after TERM to all", f.ended("rkt@tools"), "inactive")
	f.ended("rkt@plain")
	f.Eventually(t, soon, "bash", "-c", "! systemctl is-active tools-run")
	f.forget("tools", "plain")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"strings"
	"testing"
)

func TestMachinectl(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("mach", pod(app("app", forever(0), m{"environment": m{"COLOR": "red"}, "workingDirectory": "/var/tmp"})))
	f.start("mach")
	machinectl := func(args ...string) string {
		f.t.Helper()
		return strings.ReplaceAll(f.Run(t, append([]string{"machinectl", "--no-pager"}, args...)...), "\r", "")
	}

	// Its terminal output comes with the escapes of a pseudo terminal around it.
	t.Run("shell with a command", func(t *testing.T) {
		out := machinectl("-q", "shell", "mach", "/bin/sh", "-c", `echo "<$AC_APP_NAME $COLOR $(id -u)>"; grep CapBnd /proc/self/status; ls -d /opt/stage2`)
		contains(t, "machinectl shell", out, "<app red 0>", "CapBnd:\t00000000a80421fb", "/opt/stage2: No such file or directory")
	})
	t.Run("interactive shell", func(t *testing.T) {
		contains(t, "the shell", f.terminal("machinectl -q shell mach", `echo "<$AC_APP_NAME>"; tty; exit`), "<app>\n", "/dev/pts/")
	})
	t.Run("login", func(t *testing.T) {
		contains(t, "login", f.terminal("machinectl -q login mach", `echo "<$AC_APP_NAME>"; tty; exit`), "<app>\n", "/dev/pts/")
	})
	t.Run("copy and bind", func(t *testing.T) {
		f.sh("rm -rf /run/copy; mkdir -p /run/copy/bind; echo payload >/run/copy/file; echo bound >/run/copy/bind/f")
		root := "/opt/stage2/app/rootfs"
		machinectl("copy-to", "mach", "/run/copy/file", root+"/var/tmp/copied")
		equal(t, "the copy in the app", f.rkt("enter", "mach", "/bin/cat", "/var/tmp/copied"), "payload")
		f.rkt("enter", "mach", "/bin/sh", "-c", "echo from the app >/var/tmp/out")
		machinectl("copy-from", "mach", root+"/var/tmp/out", "/run/copy/out")
		equal(t, "the copy on the host", f.Read(t, "/run/copy/out"), "from the app\n")
		// systemd binds nothing into a machine with private users
		f.declare("mach-bind", users(pod(app("app", forever(0))), false))
		f.start("mach-bind")
		machinectl("bind", "--mkdir", "mach-bind", "/run/copy/bind", root+"/mnt/b")
		equal(t, "the bound folder in the app", f.rkt("enter", "mach-bind", "/bin/cat", "/mnt/b/f"), "bound")
		f.forget("mach-bind")
	})
	t.Run("kill", func(t *testing.T) {
		// HUP to all: the app has no handler and ends, the pod with it.
		old := f.uuid("mach")
		machinectl("kill", "-s", "KILL", "--kill-whom=all", "mach")
		equal(t, "the unit", f.ended("rkt@mach"), "failed")
		contains(t, "rkt status", f.rkt("status", old), "state=exited")
		f.systemctl("reset-failed", "rkt@mach")
	})
	t.Run("reboot", func(t *testing.T) {
		f.start("mach")
		old := f.uuid("mach")
		machinectl("reboot", "mach")
		f.Eventually(t, soon, "bash", "-c", `systemctl -q is-active rkt@mach && [ "$(systemctl show --value -p InvocationID rkt@mach)" != `+dashless(old)+` ]`)
		equal(t, "Result", f.show("rkt@mach", "Result"), "success")
	})
	for _, verb := range []string{"poweroff", "terminate"} {
		t.Run(verb, func(t *testing.T) {
			f.systemctl("start", "rkt@mach")
			machinectl(verb, "mach")
			state := f.ended("rkt@mach")
			if verb == "poweroff" {
				equal(t, "the unit", state, "inactive")
			}
			f.Eventually(t, soon, "bash", "-c", "! machinectl show mach")
		})
	}
	f.sh("rm -rf /run/copy")
	f.forget("mach")
	f.unchanged(before)
}

// terminal runs a command with a terminal, types a line once there is a
// prompt, and returns what was on the screen when that had taken effect.
func (f *fixture) terminal(command, line string) string {
	f.t.Helper()
	out := f.Run(f.t, "bash", "-c", `rm -f /run/keys /run/screen; mkfifo /run/keys
		script -qefc "$1" /dev/null </run/keys >/run/screen 2>&1 & p=$!
		exec 3>/run/keys
		for i in {1..1200}; do grep -q '[#:>]' /run/screen && break; sleep 0.05; done
		printf '%s\n' "$2" >&3
		for i in {1..1200}; do kill -0 $p 2>/dev/null && ! grep -qa '/dev/pts' /run/screen || break; sleep 0.05; done
		kill $p 2>/dev/null; wait $p; cat /run/screen; rm -f /run/keys /run/screen`, "-", command, line)
	return strings.ReplaceAll(out, "\r", "")
}

func TestShellOfSeveralApps(t *testing.T) {
	f := open(t)
	f.declare("apps", pod(app("front", forever(0)), app("back", forever(0))))
	f.start("apps")
	out := f.terminal("machinectl -q shell apps", `echo "<$AC_APP_NAME>"; tty; exit`)
	contains(t, "the chooser", out, "front", "back")
	// A command cannot choose: it runs in the first app.
	out, stderr, _ := f.Try("timeout", "--foreground", "20", "machinectl", "-q", "shell", "apps", "/bin/sh", "-c", "echo \"<$AC_APP_NAME>\"")
	contains(t, "a command", out+stderr, "<front>")
	lacks(t, "the pod", f.show("rkt@apps", "ActiveState"), "failed")
}

//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// canaries are the secrets of a test: none may be anywhere but in the
// credential of the app that gets it.
const (
	canaryLoad = "canary-load-4f1e"
	canarySet  = "canary-set-9b7d 100% $HOME"
	canarySeal = "canary-seal-c03a"
)

// leaks prints where on the host something that contains "canary-" is seen:
// $1 is a pod's name.
const leaks = `
at() { if grep -aqs 'canary-[a-z]*-[0-9a-f]' "$@"; then grep -aHls 'canary-[a-z]*-[0-9a-f]' "$@" | sed "s|^|$where: |"; fi; }
pids=$(cat /sys/fs/cgroup/machine.slice/rkt@$1.service/cgroup.procs /sys/fs/cgroup/machine.slice/rkt@$1.service/*/cgroup.procs /sys/fs/cgroup/machine.slice/rkt@$1.service/payload/*/*/cgroup.procs /sys/fs/cgroup/machine.slice/rkt@$1.service/payload/*/cgroup.procs 2>/dev/null | sort -u)
[ -n "$pids" ] || echo no processes
for p in $pids; do where="environment"; at /proc/$p/environ; where="arguments"; at /proc/$p/cmdline; done
where=property; systemctl show rkt@$1 >/run/leak; busctl --json=short call org.freedesktop.systemd1 $(busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager GetUnit s rkt@$1.service | cut -d'"' -f2) org.freedesktop.DBus.Properties GetAll s org.freedesktop.systemd1.Service >>/run/leak; at /run/leak
systemctl cat rkt@$1 >/run/leak; where=unit; at /run/leak
uuid=$(rkt list --format=json | tr '{' '\n' | grep -o '"name":"[^"]*","state":"running","declared_name":"'$1'"' | cut -d'"' -f4)
[ -n "$uuid" ] || echo no uuid
for c in "cat-manifest $uuid" "status $uuid" "status --format=json $uuid" "pod show $1" "logs $uuid" "pod check $1"; do rkt $c >/run/leak 2>&1 || echo "rkt $c fails"; where="rkt $c"; at /run/leak; done
systemctl -M $1 show '*' >/run/leak; where="property in the pod"; at /run/leak
journalctl --sync; journalctl -a -o export _SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID rkt@$1) >/run/leak; where=journal; at /run/leak
rm -f /run/leak
where=disk; at -r /var/lib/rkt
where=run; find /run -xdev -type f -size -1100k ! -path '/run/systemd/generator/rkt-credentials/*' ! -path '/run/log/*' ! -path '/run/test-secrets/*' -print0 | xargs -0 grep -als 'canary-[a-z]*-[0-9a-f]' | sed 's/^/run: /' || true`

// TestCredentials: secrets come from files, pod files and systemd-creds to the
// apps that name them, as their users can read them, and are nowhere else.
func TestCredentials(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh(fmt.Sprintf(`mkdir -p -m 0700 /run/test-secrets; umask 077; printf %%s '%s' >/run/test-secrets/load
		printf %%s '%s' | systemd-creds encrypt --with-key=host --name=seal - /run/test-secrets/seal`, canaryLoad, canarySeal))
	inline := f.sh(`printf %s canary-inline-77aa | systemd-creds encrypt --with-key=host --name=inline - -`)
	t.Cleanup(func() { f.sh("rm -rf /run/test-secrets") })
	const look = `cd $CREDENTIALS_DIRECTORY; stat -c '%n %a %u %F' . *; for x in *; do echo "$x=[$(cat $x)]"; done >/tmp/own; env | grep -E 'CREDENTIALS|_FILE' | sort; exec sleep 1000`
	one := app("one", look, m{"user": "33", "group": "33", "exec": []string{"/bin/sh", "-uc", look}, "credentials": []any{"load",
		m{"name": "seal", "file": "/etc/app/seal", "env": "SEAL_FILE"}, m{"name": "inline", "env": "INLINE_FILE"}},
		"systemd": m{"service": m{"Restart": "always", "RestartSec": "100ms"}}})
	two := app("two", look, m{"credentials": []any{m{"name": "set", "file": "/run/secrets/set", "env": "SET_FILE"}}})
	three := app("three", `env; ls -a /run/credentials; echo done; exec sleep 1000`)
	f.declare("cred", m{"apps": []m{one, two, three}, "rkt": m{"net": "none", "credentials": m{"load": m{"load": "/run/test-secrets/load"}, "set": m{"set": canarySet},
		"seal": m{"encrypted": "/run/test-secrets/seal"}, "inline": m{"encrypted": inline}}}})
	f.start("cred")
	f.waitLog("cred", "three", "done")
	f.waitLog("cred", "one", "SEAL_FILE")
	f.waitLog("cred", "two", "SET_FILE")
	contains(t, "what the first app sees", f.appLog("cred", "one"), ". 500 33 directory", "load 400 33 regular file", "seal 400 33 regular file", "inline 400 33 regular file",
		"CREDENTIALS_DIRECTORY=/run/credentials/one.service", "SEAL_FILE=/etc/app/seal", "INLINE_FILE=/run/credentials/one.service/inline")
	lacks(t, "what the first app sees", f.appLog("cred", "one"), "set 400", "SET_FILE")
	contains(t, "what the second app sees", f.appLog("cred", "two"), "set 400 0 regular file", "SET_FILE=/run/secrets/set")
	lacks(t, "what the third app sees", f.appLog("cred", "three"), "CREDENTIALS", "_FILE", ".service")

	in := func(app, script string) string {
		f.t.Helper()
		return f.rkt("enter", "--app="+app, "cred", "/bin/sh", "-c", script)
	}
	equal(t, "one by directory", in("one", `cat /tmp/own`), "inline=[canary-inline-77aa]\nload=["+canaryLoad+"]\nseal=["+canarySeal+"]")
	equal(t, "one by path and environment", in("one", `cat /etc/app/seal; echo; cat $SEAL_FILE $INLINE_FILE $CREDENTIALS_DIRECTORY/load`), canarySeal+"\n"+canarySeal+"canary-inline-77aa"+canaryLoad)
	equal(t, "two", in("two", `cat $SET_FILE`), canarySet)
	_, _, code := f.trySh(`rkt enter --app=two cred /bin/sh -c 'echo x >$SET_FILE || echo x >$CREDENTIALS_DIRECTORY/y'`)
	if code == 0 {
		t.Error("an app can write to its credentials")
	}
	equal(t, "ordinary users of the host", f.sh(`setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'cat /run/credentials/rkt@cred.service/* /run/systemd/generator/rkt-credentials/cred/* 2>/dev/null; true'`), "")
	contains(t, "what the search finds", f.sh("set -- cred\n"+leaks), "disk: /var/lib/rkt/")
	in("one", `rm /tmp/own`) // it lies in the app's root, which is on disk
	in("two", `rm /tmp/own`)
	if out := f.sh("set -- cred\n" + leaks); out != "" {
		t.Errorf("secrets leak to\n%s", out)
	}
	contains(t, "modes", f.sh(`stat -c '%a %U' /run/systemd/generator/rkt-credentials/cred/set`), "600 root")

	// a restart of the app in the pod
	f.sh("systemctl -M cred kill --signal=KILL one.service")
	f.Eventually(t, soon, "bash", "-c", "rkt enter --app=one cred /bin/grep -q "+canarySeal+" /tmp/own")
	equal(t, "after a restart of the app", in("one", `cat $SEAL_FILE; rm /tmp/own`), canarySeal)

	main := f.show("rkt@cred", "MainPID")
	f.stop("cred")
	f.sh("! test -e /proc/" + main + "; ! test -e /run/credentials/rkt@cred.service/load")
	equal(t, "on disk after the stop", f.sh(`grep -ras 'canary-[a-z]*-[0-9a-f]' /var/lib/rkt || true`), "")

	// what is missing is named
	f.sh("rm /run/test-secrets/load; ! systemctl start rkt@cred")
	equal(t, "status without a file", f.show("rkt@cred", "ExecMainStatus"), "243")
	equal(t, "result without a file", f.show("rkt@cred", "Result"), "exit-code")
	contains(t, "status without a file", f.sh(`journalctl --sync; systemctl --no-pager -n 20 status rkt@cred || true`), `credential "load" (rkt.credentials of the pod file): /run/test-secrets/load: no such file or directory`)
	contains(t, "the catalog", f.sh(`journalctl -x -q --no-pager -u rkt@cred -n 20`), "Put it there, readable by root alone")
	out, stderr, code := f.trySh("rkt pod run cred")
	if code == 0 || !strings.Contains(stderr, "systemd has passed none") {
		t.Errorf("outside of the unit: status %d\n%s%s", code, out, stderr)
	}
	f.forget("cred")

	// without isolation
	f.declare("credfly", m{"apps": []m{app("one", look, m{"credentials": []any{m{"name": "set", "file": "/run/secrets/set", "env": "SET_FILE"}}})},
		"rkt": m{"stage1": flyStage1, "credentials": m{"set": m{"set": canarySet}, "seal": m{"encrypted": "/run/test-secrets/seal"}}}})
	f.start("credfly")
	f.waitLog("credfly", "one", "SET_FILE")
	contains(t, "what an app of fly sees", f.appLog("credfly", "one"), "set 400 0 regular file", ". 500 0 directory")
	lacks(t, "what an app of fly sees", f.appLog("credfly", "one"), "seal")
	equal(t, "what enters an app of fly", f.rkt("enter", "credfly", "/bin/sh", "-c", `rm /tmp/own; cat $SET_FILE $CREDENTIALS_DIRECTORY/set`), canarySet+canarySet)
	f.forget("credfly")
	f.unchanged(before)
}

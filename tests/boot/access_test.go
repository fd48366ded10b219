//go:build boot

package boot

import (
	"strings"
	"testing"
)

// A member of group rkt starts and stops declared pods, sees their state and
// their logs, and no more than that; others may do none of it.
func TestGroupRkt(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh("useradd -m -G rkt rktuser; useradd -m plainuser")
	t.Cleanup(func() { f.trySh("userdel -r rktuser; userdel -r plainuser; systemctl stop other-secret; true") })
	f.declare("ticked", m{"apps": []m{app("a", "exit 0")}, "systemd": m{"timer": m{"OnActiveSec": "1h"}}})
	f.declare("shared", pod(app("a", "while :; do echo hello from the pod; sleep 0.3; done")))
	as := func(user, command string) (string, int) {
		out, errs, code := f.Try("setpriv", "--reuid="+user, "--regid="+user, "--init-groups", "env", "HOME=/tmp", "bash", "-c", command)
		return out + errs, code
	}
	if out, code := as("plainuser", "systemctl --no-ask-password start rkt@shared"); code == 0 {
		t.Errorf("anybody may start pods: %s", out)
	}
	if out, code := as("rktuser", "systemctl --no-ask-password start rkt@shared && systemctl --no-ask-password restart rkt@shared && rkt list && rkt status shared && rkt image list"); code != 0 {
		t.Errorf("a member of rkt may not start and see pods: %s", out)
	}
	f.waitLog("shared", "a", "hello from the pod")
	for _, command := range []string{"rkt logs shared", "rkt logs --app=a -n 1 shared", "rkt logs " + f.uuid("shared")} {
		out, code := as("rktuser", command)
		if contains(t, command, out, "hello from the pod"); code != 0 {
			t.Errorf("%s: status %d", command, code)
		}
	}
	out, code := as("rktuser", "timeout 30 rkt logs -f shared | head -1")
	if contains(t, "rkt logs -f", out, "["); code != 0 {
		t.Errorf("rkt logs -f: status %d", code)
	}
	// the invocation of another service is no pod
	f.sh("systemd-run --quiet --wait --unit=other-secret sh -c 'echo secret words'; journalctl --sync")
	id := strings.TrimSpace(f.sh(`journalctl -u other-secret -o json -n 1 | sed 's/.*"_SYSTEMD_INVOCATION_ID":"\([0-9a-f]*\)".*/\1/'`))
	uuid := id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
	for _, command := range []string{"rkt logs " + uuid, "journalctl -u other-secret --no-pager", "rkt logs --serve"} {
		out, _ := as("rktuser", command+" </dev/null")
		lacks(t, command, out, "secret words")
	}
	out, code = as("plainuser", "rkt logs shared")
	if lacks(t, "rkt logs of others", out, "hello"); code == 0 || !strings.Contains(out, "members of group rkt") {
		t.Errorf("rkt logs of others: status %d, %s", code, out)
	}
	for _, command := range []string{"systemctl --no-ask-password set-property --runtime rkt@shared MemoryMax=1G", "systemctl --no-ask-password enable rkt@shared",
		"systemctl --no-ask-password stop rkt-gc.timer", "systemctl --no-ask-password start rkt@ticked.timer", "systemctl --no-ask-password kill rkt@shared", "rkt stop shared", "rkt enter shared /bin/true", "touch /etc/rkt/pods/x.json"} {
		if out, code := as("rktuser", command); code == 0 {
			t.Errorf("a member of rkt may %s: %s", command, out)
		}
	}
	if out, code := as("rktuser", "systemctl --no-ask-password restart rkt@ticked.timer && systemctl -q is-active rkt@ticked.timer && systemctl --no-ask-password stop rkt@ticked.timer"); code != 0 {
		t.Errorf("a member of rkt may not restart and stop timers of pods: %s", out)
	}
	if out, code := as("rktuser", "systemctl --no-ask-password stop rkt@shared"); code != 0 {
		t.Errorf("a member of rkt may not stop pods: %s", out)
	}
	f.forget("shared", "ticked")
	f.unchanged(before)
}

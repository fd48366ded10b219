//go:build boot

package boot

import (
	"strings"
	"testing"
)

// TestGuestJournal: a pod with a journal of its own has its apps' lines there and
// not in the host's, for journalctl -M, rkt logs, and journalctl -D after its end.
func TestGuestJournal(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	p := pod(app("one", `echo to the guest; echo by syslog | logger -t one 2>/dev/null; echo "<3>an error"; exec sleep 1000`, m{"user": "33", "group": "33"}),
		app("two", `rm -f /run/systemd/journal/socket 2>/dev/null && echo removed; echo second; exec sleep 1000`, m{"health": m{"exec": []string{"/bin/true"}}}))
	p["rkt"].(m)["journal"] = "guest"
	f.declare("own", p)
	f.start("own")
	uuid := f.uuid("own")
	f.Eventually(t, soon, "bash", "-c", "rkt logs --app=two own | grep -q 'is healthy'")
	inside := f.Run(t, "journalctl", "-q", "--no-pager", "-M", "own", "-o", "cat", "-t", "one")
	contains(t, "journalctl -M", inside, "to the guest", "an error")
	contains(t, "journalctl -M by unit", f.Run(t, "journalctl", "-q", "--no-pager", "-M", "own", "-o", "cat", "_SYSTEMD_UNIT=two.service"), "second")
	lacks(t, "an app and its sockets", inside, "removed")
	lacks(t, "the host's journal", f.journal("--since", f.since, "_SYSTEMD_UNIT=rkt@own.service"), "to the guest", "second")
	contains(t, "rkt logs", f.rkt("logs", "own"), "to the guest", "second", "App two is healthy")
	contains(t, "rkt logs of an app", f.rkt("logs", "--app=one", uuid), "to the guest")
	lacks(t, "rkt logs of an app", f.rkt("logs", "--app=one", uuid), "second")
	f.stop("own")
	contains(t, "rkt logs after the end", f.rkt("logs", uuid), "to the guest")
	contains(t, "journalctl -D after the end", f.sh("journalctl -q --no-pager -o cat -D /var/lib/rkt/pods/*garbage/"+uuid+"/journal"), "to the guest", "second")
	f.forget("own")
	f.unchanged(before)
}

// TestLogNamespace: the apps' lines go to the journal that the pod file names;
// limits of the pod's unit hold for them; rkt logs has what journalctl has.
func TestLogNamespace(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	clean := func() {
		f.sh("systemctl stop 'systemd-journald@rkttest.service' 'systemd-journald@rkttest.socket' 'systemd-journald-varlink@rkttest.socket' 2>/dev/null; rm -rf /var/log/journal/*.rkttest /run/log/journal/*.rkttest /run/systemd/journal.rkttest; systemctl reset-failed 'systemd-journald@*' 2>/dev/null; true")
	}
	t.Cleanup(clean)
	const talk = `echo apart; echo "<3>an error"; echo "<7>a detail"; logger -t one "by syslog" 2>/dev/null; exec sleep 1000`
	p := pod(app("one", talk), app("two", `echo second; exec sleep 1000`, m{"health": m{"exec": []string{"/bin/true"}}}))
	p["rkt"].(m)["logNamespace"] = "rkttest"
	f.declare("apart", service(p, m{"LogLevelMax": "info"}))
	f.start("apart")
	uuid := f.uuid("apart")
	f.Eventually(t, soon, "bash", "-c", "journalctl --namespace=rkttest --sync; rkt logs apart | grep -q 'App two is healthy'")
	there := f.Run(t, "journalctl", "-q", "--no-pager", "--namespace=rkttest", "-o", "cat", "_SYSTEMD_UNIT=rkt@apart.service")
	contains(t, "the namespace", there, "apart", "an error", "second")
	lacks(t, "the namespace, below its level", there, "a detail")
	lacks(t, "the host's own journal", f.journal("--since", f.since, "_SYSTEMD_UNIT=rkt@apart.service"), "apart\n", "second")
	equal(t, "with the pod's name", strings.Contains(f.Run(t, "journalctl", "-q", "--no-pager", "--namespace=rkttest", "-o", "cat", "RKT_POD_NAME=apart"), "second"), true)
	for args, want := range map[string]string{"": "second", "-p err": "an error", "-g '^sec'": "second", "-o cat --app=one": "apart", "-b --app=two": "second", "--until=now -r -n 50 --no-pager": "second", "-o json --app=two": `"MESSAGE":"second"`} {
		contains(t, "rkt logs "+args, f.sh("rkt logs "+args+" apart"), want)
	}
	lacks(t, "rkt logs -p err", f.sh("rkt logs -p err apart"), "second")
	equal(t, "rkt logs --until a while ago", f.sh("rkt logs --until=1h "+uuid), "")
	if _, stderr, code := f.trySh("rkt logs -o nonsense apart"); code != 254 || !strings.Contains(stderr, "is none of short") {
		t.Errorf("a mode that is none: status %d\n%s", code, stderr)
	}
	f.forget("apart")
	contains(t, "rkt logs of a collected run", f.rkt("logs", uuid), "second")

	much := "much" + uuid[:8] // journald remembers what a unit of this name has used up
	f.declare(much, service(pod(app("one", `i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; touch /tmp/done; exec sleep 1000`)), m{"LogRateLimitIntervalSec": "10min", "LogRateLimitBurst": 20}))
	f.start(much)
	f.Eventually(t, soon, "rkt", "enter", much, "/bin/test", "-e", "/tmp/done")
	if n := strings.Count(f.appLog(much, "one"), "line "); n == 0 || n >= 1000 {
		t.Errorf("%d of 1000 lines where a limit lets few pass", n)
	}
	f.forget(much)
	clean()
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"strings"
	"testing"
)

// TestJournalFlood writes 100,000 lines as fast as they go, under journald's
// default configuration.
func TestJournalFlood(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("flood", pod(app("app", "seq 1 100000; echo last >&2; exec sleep 1000")))
	f.start("flood")
	f.waitLog("flood", "app", "last")
	out := f.sh(`journalctl -q -o cat -u rkt@flood -t app --since ` + f.since + ` | tee >(wc -l >/run/flood.count) | sort -n | md5sum; cat /run/flood.count`)
	want := f.sh(`(seq 1 100000; echo last) | sort -n | md5sum; echo 100001`)
	equal(t, "sum and number of lines", out, want)
	f.forget("flood")
	f.unchanged(before)
}

// TestJournalLastWords ends right after the last line.
func TestJournalLastWords(t *testing.T) {
	f := open(t)
	f.declare("words", pod(app("app", "seq 1 1000; echo last >&2")))
	f.Try("systemctl", "start", "rkt@words")
	equal(t, "the unit", f.ended("rkt@words"), "inactive")
	f.Eventually(t, soon, "bash", "-c", `journalctl --sync; journalctl -q -o cat -u rkt@words -t app --since `+f.since+` | wc -l | grep -qx 1001`)
	f.forget("words")
}

func TestJournalWays(t *testing.T) {
	f := open(t)
	f.declare("ways", service(pod(app("app", `
		echo "to stdout"; echo "to stderr" >&2
		(echo "by syslog"; sleep 5) | logger -t tagged -p user.warning &
		sh -c 'echo "from a short-lived child"'
		(sh -c 'sh -c "echo from a grandchild"' &)
		echo ready; `+forever(0))), m{"LogExtraFields": "SITE=here"}))
	f.start("ways")
	f.waitLog("ways", "app", "ready")
	f.Eventually(t, soon, "bash", "-c", `journalctl --sync; journalctl -q -o cat -u rkt@ways --since `+f.since+` | grep -cE "from a grandchild|by syslog" | grep -qx 2`)
	inv := f.show("rkt@ways", "InvocationID")
	all := entries(t, f.Run(t, "journalctl", "-q", "-o", "json", "_SYSTEMD_INVOCATION_ID="+inv))
	seen := map[string]m{}
	for _, e := range all {
		if text, ok := e["MESSAGE"].(string); ok {
			seen[text] = e
		}
	}
	for text, want := range map[string]m{
		"to stdout":                {"SYSLOG_IDENTIFIER": "app", "_TRANSPORT": "stdout", "PRIORITY": "6"},
		"to stderr":                {"SYSLOG_IDENTIFIER": "app", "_TRANSPORT": "stdout", "PRIORITY": "6"},
		"by syslog":                {"SYSLOG_IDENTIFIER": "tagged", "_TRANSPORT": "syslog", "PRIORITY": "4"},
		"from a short-lived child": {"SYSLOG_IDENTIFIER": "app"},
		"from a grandchild":        {"SYSLOG_IDENTIFIER": "app"},
	} {
		e := seen[text]
		if e == nil {
			t.Errorf("no line %q", text)
			continue
		}
		want["_SYSTEMD_UNIT"], want["RKT_POD_NAME"], want["SITE"] = "rkt@ways.service", "ways", "here"
		got := m{}
		for k := range want {
			got[k] = e[k]
		}
		equal(t, "fields of "+text, got, want)
	}
	if pid, child := seen["to stdout"]["_PID"], seen["from a short-lived child"]["_PID"]; pid == child {
		t.Errorf("a child's line has the PID of its parent: %v", pid)
	}
}

// The native protocol, as sd_journal_send speaks it.
func TestJournalNative(t *testing.T) {
	f := open(t)
	image := f.image("native", "--packages", "perl-base", "--name", "example.com/native", "plain")
	f.declare("native", pod(m{"name": "app", "image": image, "exec": []string{"/usr/bin/perl", "-e", `use Socket;
		socket(S, AF_UNIX, SOCK_DGRAM, 0) or die; connect(S, sockaddr_un("/run/systemd/journal/socket")) or die "connect: $!";
		send(S, "MESSAGE=native line\nPRIORITY=3\nSHOE_SIZE=46\n", 0) or die; $SIG{TERM} = sub { exit 0 }; sleep`}}))
	f.start("native")
	f.Eventually(t, soon, "bash", "-c", "journalctl --sync; journalctl -q -u rkt@native SHOE_SIZE=46 --since "+f.since+" | grep -q native")
	all := entries(t, f.Run(t, "journalctl", "-q", "-o", "json", "-u", "rkt@native", "SHOE_SIZE=46", "--since", f.since))
	e := all[0]
	equal(t, "fields", m{"m": e["MESSAGE"], "p": e["PRIORITY"], "t": e["_TRANSPORT"], "u": e["_SYSTEMD_UNIT"], "n": e["RKT_POD_NAME"]},
		m{"m": "native line", "p": "3", "t": "journal", "u": "rkt@native.service", "n": "native"})
}

func TestLogsCommand(t *testing.T) {
	f := open(t)
	f.declare("logs", pod(app("one", "echo from one; "+forever(0)), app("two", "echo from two; "+forever(0))))
	f.start("logs")
	f.waitLog("logs", "one", "started")
	f.waitLog("logs", "two", "started")
	uuid := f.uuid("logs")
	contains(t, "rkt logs", f.rkt("logs", uuid), "from one", "from two")
	one := f.rkt("logs", uuid, "--app=one")
	contains(t, "rkt logs --app", one, "from one")
	lacks(t, "rkt logs --app", one, "from two")
	equal(t, "lines of -n 1", strings.Count(f.rkt("logs", "logs", "--app=two", "-n", "1"), "\n"), 0)
	// --follow --until-end ends with the pod.
	out := f.sh(`timeout 60 rkt logs -f --until-end --app=one ` + uuid + ` >/run/follow & p=$!
		for i in {1..1200}; do grep -q started /run/follow && break; sleep 0.05; done
		systemctl stop rkt@logs; wait $p; cat /run/follow`)
	contains(t, "rkt logs -f", out, "from one", "started")
	f.refused(t, []string{"nothing-of-that-name"}, "logs", "nothing-of-that-name")
}

// TestJournalOfAnEndedPod: a pod writes to the host's journal, so that nothing
// of its log lies in the pod's directory: there is no link to that in
// /var/log/journal, and the log outlives the pod and its collection.
//
// check list: runtime 40; pod-lifecycle 20 (as the design has it: a journal of
// the pod's own, with a link, is not the default)
func TestJournalOfAnEndedPod(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh("rm -f /run/log-uuid")
	_, stderr, code := f.Try(append([]string{"rkt", "run", "--net=none", "--uuid-file-save=/run/log-uuid"}, bb("echo last words of $(cat /proc/sys/kernel/hostname)", "--name=teller")...)...)
	if code != 0 {
		t.Fatalf("status %d\n%s", code, stderr)
	}
	uuid := strings.TrimSpace(f.Read(t, "/run/log-uuid"))
	links := func() string {
		return f.sh("find /var/log/journal /run/log/journal -maxdepth 1 -name " + dashless(uuid) + " 2>/dev/null || true")
	}
	equal(t, "links of the ended pod", links(), "")
	contains(t, "the log of the ended pod", f.rkt("logs", uuid), "last words of rkt-"+uuid)
	f.gc()
	equal(t, "links of the collected pod", links(), "")
	contains(t, "the log of the collected pod", f.rkt("logs", uuid), "last words of rkt-"+uuid)
	f.sh("rm -f /run/log-uuid")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"strings"
	"testing"
)

type shown struct {
	Missing  []string
	Command  []string
	AppUnits []struct{ Path, Text string } `json:"app_units"`
	Units    []struct{ Path, Text string }
	Warnings []string
}

// TestPodShowDiff: what is shown before a pod runs is what it then gets, and
// what has changed since is told.
func TestPodShowDiff(t *testing.T) {
	f := open(t)
	image := f.image("foreseen", "--name", "example.com/foreseen", "busybox")
	f.sh("rkt image rm example.com/foreseen >/dev/null 2>&1 || true")
	a := app("a", "echo $OF_POD $OF_APP; exec sleep infinity", m{"image": image, "environment": m{"OF_APP": "mine"},
		"systemd": m{"service": m{"Restart": "on-failure"}}})
	p := pod(a)
	p["rkt"].(m)["environment"] = m{"OF_POD": "ours", "OF_APP": "theirs"}
	p["rkt"].(m)["environmentFiles"] = []string{"-/nowhere", "/etc/pod.env"}
	f.Write(t, "/etc/pod.env", 0o600, []byte("OF_FILE=file\nOF_POD=file\n"))
	p["systemd"] = m{"service": m{"MemoryMax": "200M"}}
	f.declare("foreseen", p)

	store := f.sh("find /var/lib/rkt -newer /etc/rkt/pods/foreseen.json -type f | sort")
	before := object[shown](t, f.sh("rkt pod show foreseen --format=json"))
	if len(before.Missing) != 1 || !strings.Contains(before.Missing[0], "not in the store") || before.Command != nil {
		t.Errorf("without the image: %+v", before)
	}
	contains(t, "rkt pod show", f.sh("rkt pod show foreseen"), "MemoryMax=200M", "# not known yet: image "+image)
	equal(t, "what showing wrote", f.sh("find /var/lib/rkt -newer /etc/rkt/pods/foreseen.json -type f | sort"), store)
	_, _, code := f.trySh("rkt pod diff foreseen")
	equal(t, "status of rkt pod diff before the start", code, 0)

	f.start("foreseen")
	f.waitLog("foreseen", "a", "ours mine")
	after := object[shown](t, f.sh("rkt pod show foreseen --format=json"))
	if len(after.Missing) > 0 || len(after.AppUnits) == 0 {
		t.Fatalf("while it runs: %+v", after)
	}
	pid := f.show("rkt@foreseen", "MainPID")
	real := strings.TrimSuffix(strings.ReplaceAll(f.sh("cat /proc/"+pid+"/cmdline | tr '\\0' '\\n'"), "\x00", "\n"), "\n")
	equal(t, "the command line", strings.Join(after.Command, "\n"), real)
	root := "/proc/" + strings.TrimSpace(f.sh("machinectl show foreseen -p Leader --value")) + "/root/rkt/units/"
	for _, u := range after.AppUnits {
		equal(t, "unit "+u.Path+" of the pod", u.Text, f.Run(t, "cat", root+u.Path))
	}
	equal(t, "the file of the generator", after.Units[0].Text, f.sh("cat /run/systemd/generator/rkt@foreseen.service.d/50-rkt.conf"))
	text := f.sh("rkt pod show foreseen")
	contains(t, "rkt pod show", text, "# in the pod: a.service", "Restart=on-failure", "--machine=foreseen")
	lacks(t, "rkt pod show", text, "theirs")
	out, _, code := f.trySh("rkt pod diff foreseen 2>&1")
	equal(t, "rkt pod diff of an unchanged pod", out, "")
	equal(t, "its status", code, 0)

	// A drop-in changes a unit and an app; the port makes units.
	f.Write(t, "/etc/rkt/pods/foreseen.json.d/10-x.json", 0o644, []byte(`{"systemd": {"service": {"MemoryMax": "300M"}, "timer": {"OnCalendar": "yearly"}}, "rkt": {"environment": {"OF_POD": "changed"}}}`))
	out, _, code = f.trySh("rkt pod diff foreseen")
	equal(t, "status of rkt pod diff", code, 1)
	contains(t, "rkt pod diff", out, "-MemoryMax=200M", "+MemoryMax=300M", "+OnCalendar=yearly", `"changed"`, "after a restart")
	type diffs struct {
		Different bool
		Units     []struct{ Path, Change string }
		Pod       struct{ Change string }
	}
	j, _, _ := f.trySh("rkt pod diff foreseen --format=json")
	d := object[diffs](t, j)
	if len(d.Units) != 3 || d.Units[0].Change != "changed" || d.Units[1].Change != "added" || !d.Different || d.Pod.Change != "changed" {
		t.Errorf("rkt pod diff: %+v", d)
	}
	// Broken, it says so of both.
	f.Write(t, "/etc/rkt/pods/foreseen.json.d/20-x.json", 0o644, []byte(`{"apps": 7, "rktt": {}}`))
	out, _, code = f.trySh("rkt pod diff foreseen")
	equal(t, "status of rkt pod diff with a broken file", code, 1)
	contains(t, "rkt pod diff", out, "cannot start: /etc/rkt/pods/foreseen.json.d/20-x.json:1:")
	out, errs, code := f.trySh("rkt pod check --strict foreseen")
	equal(t, "status of rkt pod check", code, 254)
	contains(t, "rkt pod check", out+errs, "20-x.json:1:10: apps: is a number, want a list", `unknown key "rktt", ignoring (did you mean "rkt"?)`)
	equal(t, "the installed schema", strings.TrimSpace(f.sh(`grep -c '"$schema": "https://json-schema.org' /usr/share/rkt/pod.schema.json`)), "1")
	f.sh("rm /etc/pod.env")

	// A reload says it to the journal, which explains it; so does the unit's next start.
	f.systemctl("daemon-reload")
	f.stop("foreseen")
	_, _, code = f.trySh("systemctl start rkt@foreseen")
	equal(t, "status of starting a broken pod", code, 1)
	explained := f.sh("journalctl --sync; journalctl -q --no-pager -x --since '" + f.since + "' MESSAGE_ID=8c2d8e0b5f914f6fae1c6a6c2f0d7b35 RKT_POD_NAME=foreseen")
	contains(t, "journalctl -x", explained, "rkt-generator[", "20-x.json:1:10: apps: is a number", "The file of pod foreseen has an error", "systemctl restart rkt@foreseen", "rkt[")
	contains(t, "journalctl -x", f.sh("journalctl -q --no-pager -x --since '"+f.since+"' -t rkt-generator MESSAGE_ID=1f7b6b1b6f4f4f3b9a43f0a35c9a4d8e"), `unknown key "rktt"`, "Something in the file of pod foreseen")

	// It needs nothing but its directories: no /var, nothing to write to, no environment.
	f.sh(`rm -rf /run/gen && mkdir -p /run/gen && systemd-run -q --wait --pipe -p ProtectSystem=strict -p ReadWritePaths=/run/gen -p InaccessiblePaths=/var -p PrivateNetwork=yes \
		env -i /usr/lib/systemd/system-generators/rkt-generator --root=/ /run/gen && diff -r /run/gen/rkt@foreseen.service /run/systemd/generator/rkt@foreseen.service; rm -r /run/gen`)
}

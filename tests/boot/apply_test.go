//go:build boot

package boot

import (
	"strings"
	"testing"
)

type applied struct {
	Changed bool
	Pods    []struct {
		Name, Change string
		Actions      []struct{ Verb, Unit string }
	}
}

func (a applied) String() string {
	var out []string
	for _, p := range a.Pods {
		s := p.Name + ":" + p.Change
		for _, x := range p.Actions {
			s += " " + x.Verb + " " + x.Unit
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// TestApply: a directory of pod files is installed as one, changed, checked, and its pods follow.
func TestApply(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	const dir = "/var/tmp/apply"
	names := []string{"apa", "apb", "apc", "apd"}
	f.sh("rm -rf " + dir + "; mkdir " + dir)
	t.Cleanup(func() {
		f.trySh("rm -rf " + dir + " /var/lib/rkt/podsets/*")
		f.forget(names...)
	})
	write := func(name, script string, wanted bool) {
		t.Helper()
		p := pod(app("app", script))
		if wanted {
			p["systemd"] = m{"install": m{"WantedBy": "multi-user.target"}}
		}
		f.Write(t, dir+"/"+name+".json", 0o640, []byte(text(t, p)))
	}
	apply := func(want int, args ...string) (applied, string) {
		t.Helper()
		out, errs, code := f.Try(append([]string{"rkt", "pod", "apply", "--format=json", "--detailed-exitcode"}, args...)...)
		if code != want {
			t.Errorf("rkt pod apply %v: status %d, want %d\n%s%s", args, code, want, out, errs)
		}
		if out == "" {
			return applied{}, errs
		}
		return object[applied](t, out), errs
	}
	invocation := func(name string) string { return f.show("rkt@"+name, "InvocationID") }
	write("apa", "exec sleep 1000", true)
	write("apb", "exec sleep 1000", true)
	write("apc", "exec sleep 1000", false)

	a, _ := apply(2, "--dry-run", dir)
	const plan = "apa:new start rkt@apa.service; apb:new start rkt@apb.service; apc:new"
	equal(t, "the plan", a.String(), plan)
	equal(t, "files after a dry run", f.sh("ls /etc/rkt/pods | grep ^ap || true"), "")
	a, _ = apply(2, dir)
	equal(t, "the first apply", a.String(), plan)
	equal(t, "states", f.sh("systemctl is-active rkt@apa rkt@apb rkt@apc || true"), "active\nactive\ninactive\n")
	equal(t, "the mode", f.sh("stat -c %a /etc/rkt/pods/apa.json"), "640\n")
	if a, _ = apply(0, dir); a.Changed || a.String() != "apa:same; apb:same; apc:same" {
		t.Errorf("nothing new: %s", a)
	}

	// Changed, changed without meaning, left, new.
	idA, idB := invocation("apa"), invocation("apb")
	write("apa", "exec sleep 1001", true)
	f.sh("cd " + dir + "; sed -i 's/:/:  /' apb.json; rm apc.json")
	write("apd", "exec sleep 1000", true)
	f.sh("mkdir " + dir + "/apd.json.d; echo '{\"userLabels\": {\"x\": \"y\"}}' >" + dir + "/apd.json.d/10-x.json; echo '{}' >/etc/rkt/pods/mine.json")
	t.Cleanup(func() { f.trySh("rm -f /etc/rkt/pods/mine.json; systemctl daemon-reload") })
	f.start("apc")
	a, _ = apply(2, dir)
	equal(t, "the second apply", a.String(), "apa:changed try-restart rkt@apa.service; apb:changed; apc:removed stop rkt@apc.service; apd:new start rkt@apd.service")
	equal(t, "states", f.sh("systemctl is-active rkt@apa rkt@apb rkt@apc rkt@apd || true"), "active\nactive\ninactive\nactive\n")
	if invocation("apa") == idA || invocation("apb") != idB {
		t.Error("restarted is what did not change, or not what did")
	}
	equal(t, "the files", f.sh("cd /etc/rkt/pods; ls -d ap*/* ap*.json mine.json"), "apa.json\napb.json\napd.json\napd.json.d/10-x.json\nmine.json\n")

	// One broken file, or an image that cannot be had: nothing happens.
	idA = invocation("apa")
	write("apa", "exec sleep 1002", true)
	f.Write(t, dir+"/apb.json", 0o644, []byte(`{"apps": [{"image": "x y"}], "rkt": {"net": 7}}`))
	f.Write(t, dir+"/apc.json", 0o644, []byte(`{"apps": [`))
	_, errs := apply(254, dir)
	contains(t, "all problems at once", errs, dir+"/apb.json:1:", dir+"/apc.json:1:")
	f.sh("rm " + dir + "/apc.json")
	f.Write(t, dir+"/apb.json", 0o644, []byte(`{"apps": [{"name": "x", "image": "/nosuch.aci"}]}`))
	_, errs = apply(254, dir)
	contains(t, "an image that cannot be had", errs, `pod "apb"`, "/nosuch.aci", "nothing was changed")
	if invocation("apa") != idA || f.sh("grep -c 1002 /etc/rkt/pods/apa.json || true") != "0\n" {
		t.Error("half of a bad set was applied")
	}
	// A file of another set, and files that are no set.
	write("apb", "exec sleep 1000", true)
	_, errs = apply(254, "--set=other", dir)
	contains(t, "another set's file", errs, dir, "belongs to the set")
	if a, _ = apply(2, "--set="+dir, "--keep", dir+"/apa.json"); a.String() != "apa:changed try-restart rkt@apa.service" {
		t.Errorf("one file: %s", a)
	}
	out, errs, code := f.Try("rkt", "pod", "apply", dir)
	if code != 0 {
		t.Errorf("status %d: %s", code, errs)
	}
	contains(t, "the table", out, "= apa", "same", "~ apb")
	f.sh("rm -r " + dir + "/*")
	apply(2, dir)
	equal(t, "after an empty set", f.sh("ls /etc/rkt/pods | grep ^ap || true; systemctl is-active rkt@apa rkt@apb rkt@apd || true"), "inactive\ninactive\ninactive\n")
	f.forget(names...)
	f.sh("rm -f /etc/rkt/pods/mine.json; systemctl daemon-reload")
	f.unchanged(before)
}

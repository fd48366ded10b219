//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// bothWays runs do for a pod started by run, and for one prepared first.
func bothWays(t *testing.T, do func(t *testing.T, run func(t *testing.T, podFlags []string, app ...string) (string, string, int))) {
	t.Helper()
	f := open(t)
	t.Run("run", func(t *testing.T) {
		do(t, func(t *testing.T, podFlags []string, app ...string) (string, string, int) {
			return f.runPod(append(append([]string{"--net=none"}, podFlags...), app...)...)
		})
	})
	t.Run("run-prepared", func(t *testing.T) {
		do(t, func(t *testing.T, podFlags []string, app ...string) (string, string, int) {
			var insecure []string
			for _, p := range podFlags {
				if strings.HasPrefix(p, "--insecure-options") {
					insecure = append(insecure, p)
				}
			}
			uuid := f.rkt(append(append([]string{"prepare", "--quiet"}, insecure...), app...)...)
			stdout, stderr, code := f.Try(append(append([]string{"rkt", "run-prepared", "--net=none"}, podFlags...), uuid)...)
			return outputs(stdout + stderr)["app"], stdout + stderr, code
		})
	})
}

// TestBoundingSet: the sets apps get, and the pod's PID 1. check list: runtime 29; cli 19
func TestBoundingSet(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	image := f.image("caps", "busybox", "--name", "example.com/caps", "--manifest",
		`{"app": {"exec": ["/bin/sh", "-c", "grep CapBnd /proc/self/status"], "user": "0", "group": "0", "isolators": [
			{"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_NET_ADMIN"]}}]}}`)
	// what the test host has
	full := strings.TrimSpace(f.sh("sed -n 's/^CapBnd:\t//p' /proc/1/status"))
	const script = `grep CapBnd /proc/self/status`
	bothWays(t, func(t *testing.T, run func(*testing.T, []string, ...string) (string, string, int)) {
		for _, c := range []struct {
			name, want string
			flags      []string
			app        []string
		}{
			{"default", "00000000a80425fb", nil, bb(script)},
			{"retain one", "0000000000000001", nil, bb(script, "--caps-retain=CAP_CHOWN")},
			{"old spelling", "0000000000000001", nil, bb(script, "--cap-retain=CAP_CHOWN")},
			{"remove one", "00000000a80425db", nil, bb(script, "--caps-remove=CAP_KILL")},
			{"remove one outside the default", "00000000a80425fb", nil, bb(script, "--caps-remove=CAP_NET_ADMIN")},
			{"remove all", "0000000000000000", nil, bb(script, "--caps-remove=CAP_AUDIT_WRITE,CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FSETID,CAP_FOWNER,CAP_KILL,CAP_MKNOD,"+
				"CAP_NET_RAW,CAP_NET_BIND_SERVICE,CAP_SETUID,CAP_SETGID,CAP_SETPCAP,CAP_SETFCAP,CAP_SYS_CHROOT")},
			{"image's", "0000000000001000", nil, []string{image, "--name=app"}},
			{"command line over image", "00000000a80425db", nil, []string{image, "--name=app", "--cap-remove=CAP_KILL"}},
			{"insecure", full, []string{"--insecure-options=capabilities"}, bb(script)},
			{"insecure beats isolators", full, []string{"--insecure-options=all-run"}, bb(script, "--caps-retain=CAP_CHOWN")},
		} {
			t.Run(c.name, func(t *testing.T) {
				out, all, code := run(t, c.flags, c.app...)
				if code != 0 || out != "CapBnd:\t"+c.want+"\n" {
					t.Errorf("status %d, %q, want %s:\n%s", code, out, c.want, all)
				}
			})
		}
		t.Run("other user", func(t *testing.T) {
			out, all, code := run(t, nil, bb(`grep -E 'Cap(Eff|Prm|Amb|Inh)' /proc/self/status | tr -d '\n'`, "--user=1000", "--group=1000", "--caps-retain=CAP_CHOWN")...)
			if strings.Count(out, "0000000000000000") != 4 || code != 0 {
				t.Errorf("status %d:\n%s", code, all)
			}
		})
	})
	f.refused(t, []string{"exclude each other"}, append([]string{"run"}, bb("true", "--caps-retain=CAP_CHOWN", "--caps-remove=CAP_KILL")...)...)
	f.refused(t, []string{"exclude each other"}, append([]string{"prepare"}, bb("true", "--cap-retain=CAP_CHOWN", "--caps-remove=CAP_KILL")...)...)
	for _, c := range []struct {
		flag string
		want bool
	}{{"--caps-retain=CAP_CHOWN", false}, {"--caps-retain=CAP_NET_ADMIN", true}} {
		uuid := f.background(append([]string{"--net=none"}, bb(forever(0), c.flag)...)...)
		leader := strings.TrimSpace(f.Run(t, "machinectl", "show", "-p", "Leader", "--value", "rkt-"+uuid))
		var caps uint64
		if _, err := fmt.Sscanf(strings.TrimSpace(f.sh("grep CapBnd /proc/"+leader+"/status")), "CapBnd:\t%x", &caps); err != nil {
			t.Fatal(err)
		}
		if got := caps&(1<<12) != 0; got != c.want {
			t.Errorf("%s: PID 1 of the pod has %x; CAP_NET_ADMIN in it: %t, want %t", c.flag, caps, got, c.want)
		}
		f.rkt("stop", uuid)
		f.rkt("status", uuid, "--wait=60s")
	}
	f.unchanged(before)
}

// TestNoNewPrivileges: check list: runtime 30
func TestNoNewPrivileges(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	manifest := func(user string, isolators ...string) string {
		return `{"app": {"exec": ["/bin/grep", "NoNewPrivs", "/proc/self/status"], "user": "` + user + `", "group": "` + user + `", "isolators": [` + strings.Join(isolators, ",") + `]}}`
	}
	nnp := func(v string) string { return `{"name": "os/linux/no-new-privileges", "value": ` + v + `}` }
	all := `{"name": "os/linux/seccomp-retain-set", "value": {"set": ["@appc.io/all"]}}`
	for i, c := range []struct {
		name, manifest string
		flags          []string
		want           int
	}{
		{"root", manifest("0"), nil, 0},
		{"true", manifest("0", nnp("true")), nil, 1},
		{"one of two is true", manifest("0", nnp("true"), nnp("false")), nil, 1},
		{"false", manifest("0", nnp("false")), nil, 0},
		{"another user", manifest("1000"), nil, 1},
		{"another user, false", manifest("1000", nnp("false")), nil, 1},
		{"another user without a filter", manifest("1000", nnp("false"), all), nil, 0},
		{"another user, no filters at all", manifest("1000"), []string{"--insecure-options=seccomp"}, 0},
		{"true without filters", manifest("1000", nnp("true")), []string{"--insecure-options=seccomp"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := fmt.Sprintf("nnp%d", i)
			image := f.image(n, "busybox", "--name", "example.com/"+n, "--manifest", c.manifest)
			out, all, code := f.runPod(append(append([]string{"--net=none"}, c.flags...), image, "--name=app")...)
			if code != 0 || out != fmt.Sprintf("NoNewPrivs:\t%d\n", c.want) {
				t.Errorf("status %d, want %d:\n%s", code, c.want, all)
			}
		})
	}
	f.unchanged(before)
}

// TestProtectedPaths: check list: runtime 32
func TestProtectedPaths(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	// What this kernel has of them.
	const script = `for p in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe; do [ -e $p ] && { (cat $p >$p) 2>&1 | sed 's/.*: //'; }; done
		for p in /sys/firmware /sys/module /sys/fs /proc/kcore /proc/kallsyms; do [ -e $p ] && stat -c '%A %n' $p; done; true`
	out := f.script(t, script, nil)
	for line := range strings.Lines(out) {
		if line != "Read-only file system\n" && !strings.HasPrefix(line, "d--------- /sys/") && !strings.HasPrefix(line, "---------- /proc/") {
			t.Errorf("not protected: %s", line)
		}
	}
	contains(t, "protected", out, "Read-only file system\n", "d--------- /sys/fs\n")
	// systemd-nspawn's own protection stays; rkt's is gone.
	lacks(t, "insecure", f.script(t, `stat -c '%A %n' /sys/firmware; mount | grep -c ' /sys/firmware '; true`, []string{"--insecure-options=paths"}), "d--------- /sys/firmware")
	f.unchanged(before)
}

// TestDeviceNodes: what can be made and opened. check list: runtime 26
func TestDeviceNodes(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	const script = `mknod /tmp/null c 1 3 && echo null; for d in '10 237' '5 2' '1 1' '10 1'; do mknod "/tmp/c$d" c $d 2>/dev/null && echo "made c $d"; done
		mknod /tmp/disk b 8 0 2>/dev/null && echo "made a disk"; echo x >/tmp/null && stat -L -c '%a %F' /dev/ptmx`
	const want = "null\n666 character special file\n"
	equal(t, "started by hand", f.script(t, script, nil), want)
	equal(t, "insecure", f.script(t, `for d in '10 237' '5 2'; do mknod "/tmp/c$d" c $d && echo "made c $d"; done`, []string{"--insecure-options=paths"}), "made c 10 237\nmade c 5 2\n")
	// Nobody makes device nodes in a pod with users of its own.
	nodes := pod(app("app", script))
	nodes["rkt"].(m)["privateUsers"] = false
	f.declare("nodes", nodes)
	f.Try("systemctl", "start", "rkt@nodes")
	f.ended("rkt@nodes")
	equal(t, "declared", f.appLog("nodes", "app"), want)
	f.forget("nodes")

	// A volume that is a device: 1:5 is zero, under a name of the test's own.
	f.sh("rm -rf /dev/rkt-test; mkdir /dev/rkt-test; mknod -m 666 /dev/rkt-test/loop b 7 7; mknod -m 666 /dev/rkt-test/zero c 1 5")
	t.Cleanup(func() { f.sh("rm -rf /dev/rkt-test") })
	const open = `head -c2 /dev/v/zero | wc -c; (: >>/dev/v/loop) 2>/dev/null && echo written; (: </dev/v/loop) 2>/dev/null && echo opened; mknod /tmp/k b 7 7 2>/dev/null && echo made; true`
	mounts := []string{"--mount=volume=z,target=/dev/v/zero", "--mount=volume=k,target=/dev/v/loop"}
	volumes := func(ro string) []string {
		return []string{"--volume=z,kind=host,source=/dev/rkt-test/zero", "--volume=k,kind=host,source=/dev/rkt-test/loop" + ro}
	}
	equal(t, "rw volume", f.script(t, open, volumes(""), mounts...), "2\nwritten\nopened\n")
	equal(t, "read-only volume", f.script(t, open, volumes(",readOnly=true"), mounts...), "2\nopened\n")
	for _, ro := range []string{"", ",readOnly=true"} {
		want := "2\nwritten\nopened\n"
		if ro != "" {
			want = "2\nopened\n"
		}
		p := pod(app("app", open, m{"mounts": []string{"volume=z,target=/dev/v/zero", "volume=k,target=/dev/v/loop"}}))
		p["rkt"].(m)["privateUsers"] = false
		p["volumes"] = []string{"z,kind=host,source=/dev/rkt-test/zero", "k,kind=host,source=/dev/rkt-test/loop" + ro}
		name := "devvol" + strings.TrimLeft(ro, ",=RO")[:min(len(ro), 2)]
		f.declare(name, p)
		f.Try("systemctl", "start", "rkt@"+name)
		f.ended("rkt@" + name)
		equal(t, "declared"+ro, f.appLog(name, "app"), want)
		f.forget(name)
	}
	f.unchanged(before)
}

// TestIsolatorValues: what manifests and flags say arrives, and which wins. check list: runtime 33
func TestIsolatorValues(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	image := f.image("limits", "busybox", "--name", "example.com/limits", "--manifest",
		`{"app": {"exec": ["/bin/sh", "-c", "`+forever(0)+`"], "user": "0", "group": "0", "isolators": [
			{"name": "resource/memory", "value": {"request": "16Mi", "limit": "48Mi"}}, {"name": "resource/cpu", "value": {"limit": "750m"}},
			{"name": "os/linux/cpu-shares", "value": 256}, {"name": "os/linux/oom-score-adj", "value": 321}]}}`)
	show := func(machine string) string {
		return f.systemctl("-M", machine, "show", "app.service", "-p", "MemoryMax", "-p", "MemoryLow", "-p", "CPUQuotaPerSecUSec", "-p", "CPUWeight", "-p", "OOMScoreAdjust") +
			"oom_score_adj=" + f.sh("cat /proc/$(systemctl -M "+machine+" show --value -p MainPID app.service)/oom_score_adj 2>/dev/null || true")
	}
	for _, c := range []struct {
		name  string
		flags []string
		want  []string
	}{
		{"image's", nil, []string{"MemoryMax=50331648\n", "MemoryLow=16777216\n", "CPUQuotaPerSecUSec=750ms\n", "CPUWeight=25\n", "OOMScoreAdjust=321\n"}},
		{"command line", []string{"--memory=64Mi", "--cpu=2", "--cpu-shares=2048", "--oom-score-adj=77"},
			[]string{"MemoryMax=67108864\n", "MemoryLow=67108864\n", "CPUQuotaPerSecUSec=2s\n", "CPUWeight=200\n", "OOMScoreAdjust=77\n"}},
		{"one of them", []string{"--cpu=100m"}, []string{"MemoryMax=50331648\n", "CPUQuotaPerSecUSec=100ms\n", "CPUWeight=25\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			uuid := f.background(append([]string{"--net=none", image, "--name=app"}, c.flags...)...)
			contains(t, "the app's unit", show("rkt-"+uuid), c.want...)
			f.rkt("stop", uuid)
			f.rkt("status", uuid, "--wait=60s")
		})
	}
	t.Run("pod manifest", func(t *testing.T) {
		id := strings.Fields(f.rkt("image", "list", "--no-legend", "--full", "--fields=id,name"))
		var img string
		for i, w := range id {
			if strings.HasPrefix(w, "example.com/limits") {
				img = id[i-1]
			}
		}
		f.Write(t, "/run/pod-manifest.json", 0o644, []byte(`{"acKind":"PodManifest","acVersion":"0.8.11","isolators":[{"name":"resource/memory","value":{"limit":"96Mi"}},{"name":"resource/cpu","value":{"limit":"3"}},
			{"name":"os/linux/cpu-shares","value":4096},{"name":"os/unix/sysctl","value":{"net.ipv4.ip_forward":"1","kernel.msgmax":"4321","fs.mqueue.msg_max":"7"}}],
			"apps":[{"name":"app","image":{"id":"`+img+`"},"app":{"exec":["/bin/sh","-c","cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max; `+strings.ReplaceAll(forever(0), `"`, `\"`)+`"],"user":"0","group":"0","isolators":[{"name":"resource/memory","value":{"limit":"80Mi"}}]}}]}`))
		uuid := f.background("--net=none", "--pod-manifest=/run/pod-manifest.json")
		contains(t, "the app's unit", show("rkt-"+uuid), "MemoryMax=83886080\n", "CPUQuotaPerSecUSec=infinity\n", "OOMScoreAdjust=0\n")
		scope := strings.TrimSpace(f.Run(t, "machinectl", "show", "-p", "Unit", "--value", "rkt-"+uuid))
		contains(t, "the scope", f.systemctl("show", scope, "-p", "MemoryMax", "-p", "CPUQuotaPerSecUSec", "-p", "CPUWeight"), "MemoryMax=100663296\n", "CPUQuotaPerSecUSec=3s\n", "CPUWeight=400\n")
		f.Eventually(t, soon, "bash", "-c", `[ "$(grep -cE ': (1|4321|7)$' /run/background.log)" = 3 ]`)
		f.rkt("stop", uuid)
		f.rkt("status", uuid, "--wait=60s")
	})
	for _, bad := range [][]string{{"--memory=16m"}, {"--memory=4095"}, {"--memory=much"}, {"--cpu=1m"}, {"--oom-score-adj=2000"}, {"--cpu-shares=1"}} {
		f.refused(t, nil, append([]string{"run", "--net=none"}, bb("true", bad...)...)...)
	}
	f.unchanged(before)
}

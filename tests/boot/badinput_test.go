//go:build boot

package boot

import (
	"strings"
	"testing"
)

// rejected starts a declared pod, which must fail, and asserts what systemctl status and the journal say.
func (f *fixture) rejected(t *testing.T, name string, want ...string) {
	t.Helper()
	_, _, code := f.Try("systemctl", "start", "rkt@"+name)
	if code == 0 {
		// The start returned before the pod failed: that is fine too.
		equal(t, "the unit", f.ended("rkt@"+name), "failed")
	}
	equal(t, "the unit", f.show("rkt@"+name, "ActiveState"), "failed")
	log := f.journal("-u", "rkt@"+name, "--since", f.since)
	contains(t, "the unit's journal", log, want...)
	lacks(t, "the unit's journal", log, "panic:", "goroutine ")
	status, _, _ := f.Try("systemctl", "status", "--no-pager", "-l", "-n", "40", "rkt@"+name)
	contains(t, "systemctl status", status, want...)
	f.systemctl("reset-failed", "rkt@"+name)
}

func TestBadImages(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh(`rm -rf /var/tmp/bad; mkdir /var/tmp/bad; cd /var/tmp/bad
		cp ` + busybox + ` unsigned.aci
		cp ` + busybox + ` flipped.aci; cp ` + busybox + `.asc flipped.aci.asc
		# A byte of gzip's header that means nothing to gzip.
		printf '\x5a' | dd of=flipped.aci bs=1 seek=5 conv=notrunc status=none
		cp flipped.aci damaged.aci; cp flipped.aci.asc damaged.aci.asc
		printf '\x5a\xa5' | dd of=damaged.aci bs=1 seek=200000 conv=notrunc status=none
		head -c 300000 ` + busybox + ` >cut.aci
		head -c 100000 /dev/urandom >noise.aci
		: >empty.aci
		mkdir -p x/rootfs; echo '{"acKind": "ImageManifest"' >x/manifest; tar -C x -czf broken.aci manifest rootfs
		echo '{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/evil"}' >x/manifest
		ln -s /etc x/rootfs/link; tar -C x -czf evil.aci --transform 's,^evil,rootfs/../../../evil,' manifest rootfs -C /etc passwd --transform 's,^passwd,rootfs/../../escaped,'`)
	t.Cleanup(func() { f.sh("rm -rf /var/tmp/bad") })
	insecure := "--insecure-options=image"
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"missing", []string{"/var/tmp/bad/none.aci"}, []string{"/var/tmp/bad/none.aci", "no such file"}},
		{"unsigned", []string{"/var/tmp/bad/unsigned.aci"}, []string{"/var/tmp/bad/unsigned.aci", "signature"}},
		{"flipped byte", []string{"/var/tmp/bad/flipped.aci"}, []string{"flipped.aci", "signature"}},
		{"damaged", []string{"/var/tmp/bad/damaged.aci"}, []string{"damaged.aci"}},
		{"cut off", []string{insecure, "/var/tmp/bad/cut.aci"}, []string{"cut.aci"}},
		{"noise", []string{insecure, "/var/tmp/bad/noise.aci"}, []string{"noise.aci"}},
		{"empty", []string{insecure, "/var/tmp/bad/empty.aci"}, []string{"empty.aci"}},
		{"broken manifest", []string{insecure, "/var/tmp/bad/broken.aci"}, []string{"manifest"}},
		{"path that climbs", []string{insecure, "/var/tmp/bad/evil.aci"}, []string{"escaped"}},
		{"folder", []string{"/var/tmp/bad"}, []string{"/var/tmp/bad"}},
		{"unreachable", []string{"http://127.0.0.1:9/x.aci"}, []string{"127.0.0.1:9"}},
	} {
		t.Run(c.name, func(t *testing.T) { f.refused(t, c.want, append([]string{"fetch"}, c.args...)...) })
	}
	for name, want := range map[string][]string{"none": {"/var/tmp/bad/none.aci"}, "unsigned": {"signature"}, "flipped": {"signature"}} {
		t.Run("declared "+name, func(t *testing.T) {
			f.declare("bad", pod(m{"name": "app", "image": "/var/tmp/bad/" + name + ".aci"}))
			f.rejected(t, "bad", want...)
		})
	}
	f.forget("bad")
	f.unchanged(before)
}

func TestBadPodFiles(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	file := "/etc/rkt/pods/bad.json"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"syntax", "{\n  \"apps\": [\n    {\"image\": }\n  ]\n}\n", []string{file + ":3:15"}},
		{"wrong type", "{\"apps\": [{\"image\": \"x\", \"exec\": \"/bin/sh\"}]}", []string{file + ":1:", "apps[0].exec"}},
		{"duplicate names", `{"apps": [{"name": "a", "image": "` + busybox + `"}, {"name": "a", "image": "` + busybox + `"}]}`, []string{file + ":1:", `"a"`}},
		{"no apps", `{"apps": []}`, []string{file, "app"}},
		{"unknown app in After", `{"apps": [{"name": "a", "image": "x", "systemd": {"unit": {"After": "b"}}}]}`, []string{file + ":1:", `"b"`}},
		{"refused directive", `{"apps": [{"name": "a", "image": "x"}], "systemd": {"service": {"ExecStart": "/bin/evil"}}}`, []string{file + ":1:", "ExecStart"}},
		{"line break in a directive", `{"apps": [{"name": "a", "image": "x"}], "systemd": {"unit": {"Description": "x\n[Service]\nUser=evil"}}}`, []string{file + ":1:"}},
		{"not JSON", "\x00\x01\x02", []string{file + ":1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.declare("bad", c.text)
			stdout, stderr, code := f.Try("rkt", "pod", "check", "bad")
			if code == 0 {
				t.Errorf("rkt pod check is content:\n%s%s", stdout, stderr)
			}
			contains(t, "rkt pod check", stdout+stderr, c.want...)
			f.rejected(t, "bad", c.want...)
		})
	}
	t.Run("unknown key", func(t *testing.T) {
		p := pod(app("a", "true", m{"enviroment": m{"A": "b"}}))
		f.declare("bad", p)
		stdout, stderr, code := f.Try("rkt", "pod", "check", "bad")
		equal(t, "status of rkt pod check", code, 0)
		contains(t, "rkt pod check", stdout+stderr, file+":", "enviroment", `"environment"`)
		f.Try("systemctl", "start", "rkt@bad")
		equal(t, "the unit", f.ended("rkt@bad"), "inactive")
		contains(t, "the unit's journal", f.journal("-u", "rkt@bad", "--since", f.since), file+":", "enviroment", `"environment"`)
	})
	f.forget("bad")
	f.unchanged(before)
}

func TestMissingParts(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	away := func(t *testing.T, file string) {
		t.Helper()
		f.sh("mv " + file + " " + file + ".away")
		t.Cleanup(func() { f.sh("mv " + file + ".away " + file) })
	}
	f.declare("parts", pod(app("a", "true")))
	t.Run("nspawn", func(t *testing.T) {
		away(t, "/usr/bin/systemd-nspawn")
		f.rejected(t, "parts", "systemd-nspawn", "systemd-container")
	})
	t.Run("machined", func(t *testing.T) {
		f.sh("systemctl stop systemd-machined")
		f.systemctl("mask", "--runtime", "systemd-machined.service")
		t.Cleanup(func() { f.systemctl("unmask", "--runtime", "systemd-machined.service") })
		away(t, "/usr/share/dbus-1/system-services/org.freedesktop.machine1.service")
		f.sh("busctl call org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig")
		f.rejected(t, "parts", "machine")
	})
	f.sh("busctl call org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig")
	t.Run("plugin", func(t *testing.T) {
		away(t, "/usr/lib/cni/ptp")
		p := pod(app("a", "true"))
		p["rkt"] = m{"net": "default"}
		f.declare("parts", p)
		f.rejected(t, "parts", "ptp", "containernetworking-plugins")
	})
	t.Run("network", func(t *testing.T) {
		p := pod(app("a", "true"))
		p["rkt"] = m{"net": "nosuchnet"}
		f.declare("parts", p)
		f.rejected(t, "parts", "nosuchnet")
		f.refused(t, []string{"nosuchnet"}, append([]string{"run", "--net=nosuchnet"}, bb("true")...)...)
	})
	f.declare("parts", pod(app("a", "true")))
	f.Try("systemctl", "start", "rkt@parts")
	equal(t, "the unit with all parts back", f.ended("rkt@parts"), "inactive")
	f.forget("parts")
	f.unchanged(before)
}

func TestFullDisk(t *testing.T) {
	f := open(t)
	f.sh(`truncate -s 24M /var/tmp/full.img; mkfs.ext4 -q -F -m0 /var/tmp/full.img; mkdir -p /mnt/full/rkt
		mount -o loop /var/tmp/full.img /mnt/full`)
	t.Cleanup(func() { f.sh("umount /mnt/full; rm -rf /mnt/full /var/tmp/full.img") })
	before := f.snapshot()
	run := append([]string{"--dir=/mnt/full/rkt", "run", "--net=none"}, bb("echo ran")...)
	// First leave almost nothing, then a little more: it fails at different steps.
	for _, kib := range []string{"64", "1200", "2500", "4000"} {
		f.sh(`rm -f /mnt/full/filler; avail=$(df --output=avail /mnt/full | tail -1); [ $((avail - ` + kib + `)) -le 0 ] || fallocate -l $((avail - ` + kib + `))K /mnt/full/filler`)
		stdout, stderr, code := f.Try(append([]string{"rkt"}, run...)...)
		if code == 254 {
			if !strings.Contains(stderr, "no space left") {
				t.Errorf("with %s KiB free: %s", kib, stderr)
			}
		} else if code != 0 {
			t.Errorf("with %s KiB free: status %d\n%s%s", kib, code, stdout, stderr)
		}
		t.Logf("with %s KiB free: status %d", kib, code)
		f.rkt("--dir=/mnt/full/rkt", "gc", "--grace-period=0")
		equal(t, "pods and temporary files", f.sh("find /mnt/full/rkt/pods -mindepth 2 -maxdepth 2 2>/dev/null || true; find /mnt/full/rkt/cas/tmp /mnt/full/rkt/tmp -mindepth 1 2>/dev/null || true"), "")
	}
	f.sh("rm -f /mnt/full/filler")
	stdout, stderr, code := f.Try(append([]string{"rkt"}, run...)...)
	if code != 0 || outputs(stdout + stderr)["app"] != "ran\n" {
		t.Errorf("with room again: status %d\n%s%s", code, stdout, stderr)
	}
	f.rkt("--dir=/mnt/full/rkt", "gc", "--grace-period=0")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"os"
	"strings"
	"testing"
)

func TestUnitsAreValid(t *testing.T) {
	f := open(t)
	f.declare("verify", service(pod(app("app", "true")), m{"MemoryMax": "64M", "Restart": "on-failure"}))
	stdout, stderr, code := f.trySh(`cd /usr/lib/systemd/system; systemd-analyze verify --man=no rkt@verify.service rkt-gc.service rkt-gc.timer rkt-fetch@verify.service rkt-completed@verify.service rkt-update.service rkt-update.timer`)
	if out := stdout + stderr; code != 0 || strings.Contains(out, "rkt") {
		t.Errorf("systemd-analyze verify: status %d\n%s", code, out)
	}
	contains(t, "systemctl cat", f.systemctl("cat", "rkt@verify"), "MemoryMax=64M")
}

func TestCollectionTimer(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	equal(t, "the timer", f.show("rkt-gc.timer", "ActiveState"), "active")
	f.rkt(append([]string{"run", "--net=none"}, bb("true")...)...)
	f.systemctl("start", "rkt-gc.service")
	equal(t, "Result", f.show("rkt-gc.service", "Result"), "success")
	ended := f.listed()
	if len(ended) != 1 || ended[0]["state"] != "exited garbage" {
		t.Errorf("after rkt-gc.service: %v", ended)
	}
	f.Write(t, "/etc/default/rkt-gc", 0o644, []byte("GRACE_PERIOD=0s\n"))
	t.Cleanup(func() { f.sh("rm -f /etc/default/rkt-gc") })
	f.systemctl("start", "rkt-gc.service")
	equal(t, "pods with a grace period of 0", len(f.listed()), 0)
	lacks(t, "log of rkt-gc.service", f.journal("-u", "rkt-gc.service", "--since", f.since), "rror", "ailed")
	f.unchanged(before)
}

func TestPermissions(t *testing.T) {
	f := open(t)
	f.sh("systemd-tmpfiles --create")
	out := f.sh(`cd /var/lib/rkt; stat -c '%n %a %G' /etc/rkt /var/lib/rkt tmp cas cas/db cas/imagelocks cas/imageManifest cas/blob cas/tmp cas/tree cas/treestorelocks locks pods pods/embryo pods/prepare pods/prepared pods/run pods/exited-garbage pods/garbage 2>&1 || true`)
	want := `/etc/rkt 2775 rkt-admin
/var/lib/rkt 2750 rkt
tmp 2750 rkt
cas 2770 rkt
cas/db 2770 rkt
cas/imagelocks 2770 rkt
cas/imageManifest 2770 rkt
cas/blob 2770 rkt
cas/tmp 2770 rkt
cas/tree 2700 rkt
cas/treestorelocks 2700 rkt
locks 2750 rkt
pods 2750 rkt
pods/embryo 2750 rkt
pods/prepare 2750 rkt
pods/prepared 2750 rkt
pods/run 2750 rkt
pods/exited-garbage 2750 rkt
pods/garbage 2750 rkt
`
	equal(t, "modes and groups", out, want)

	t.Run("group rkt", func(t *testing.T) {
		f.sh("id member >/dev/null 2>&1 || useradd -M -G rkt member")
		t.Cleanup(func() { f.sh("userdel member") })
		f.declare("perm", pod(app("app", forever(0))))
		f.start("perm")
		member := []string{"runuser", "-u", "member", "--", "rkt"}
		contains(t, "rkt list", f.Run(t, append(member, "list")...), "example.com/busybox:1.0.0", "running")
		contains(t, "rkt image list", f.Run(t, append(member, "image", "list")...), "example.com/busybox")
		contains(t, "rkt status", f.Run(t, append(member, "status", "perm")...), "state=running")
		stderr, code := f.RunFail(t, append(member, "gc")...)
		equal(t, "status of rkt gc", code, 254)
		contains(t, "rkt gc", stderr, "unprivileged")
		stderr, _ = f.RunFail(t, "runuser", "-u", "nobody", "--", "rkt", "list")
		lacks(t, "rkt list as nobody", stderr, "panic")
	})
}

func TestPackage(t *testing.T) {
	f := open(t)
	deb := os.Getenv("RKT_TEST_DEB")
	if deb == "" {
		t.Skip("RKT_TEST_DEB does not name the package")
	}
	f.Copy(t, deb, "/root/debs/rkt.deb")
	t.Cleanup(func() {
		f.sh("dpkg -s rkt 2>/dev/null | grep -q '^Status: install ok' || dpkg -i /root/debs/rkt.deb")
		// The key and the store may be gone with a purge.
		f.Run(t, "rkt", "trust", "--prefix=example.com", "--skip-fingerprint-review", imageDir+"/busybox.aci.pub")
	})
	before := f.snapshot()
	f.declare("stays", pod(app("app", forever(0))))
	f.start("stays")
	uuid := f.uuid("stays")
	running := func(t *testing.T) {
		t.Helper()
		contains(t, "machinectl show", f.Run(t, "machinectl", "show", "stays"), dashless(uuid))
		equal(t, "processes of the app", f.sh(`systemctl -M stays is-active app.service`), "active\n")
	}
	const apt = "DEBIAN_FRONTEND=noninteractive "

	t.Run("upgrade", func(t *testing.T) {
		f.sh(apt + "dpkg -i /root/debs/rkt.deb")
		running(t)
		equal(t, "the unit", f.show("rkt@stays", "InvocationID"), dashless(uuid))
		equal(t, "the timer", f.show("rkt-gc.timer", "ActiveState"), "active")
	})
	t.Run("removal", func(t *testing.T) {
		f.sh(apt + "dpkg -r rkt")
		running(t)
		// The unit file has gone; systemd still knows how to stop what runs.
		f.systemctl("stop", "rkt@stays")
		f.Eventually(t, soon, "bash", "-c", "! machinectl show stays")
		equal(t, "files", f.sh("ls -d /usr/bin/rkt /usr/lib/systemd/system/rkt* /usr/lib/rkt/stage1* 2>/dev/null || true"), "")
		f.sh("test -e /etc/rkt/pods/stays.json && test -d /var/lib/rkt")
	})
	t.Run("reinstallation", func(t *testing.T) {
		f.sh(apt + "dpkg -i /root/debs/rkt.deb")
		f.start("stays")
		uuid = f.uuid("stays")
		running(t)
	})
	f.forget("stays")
	t.Run("purge", func(t *testing.T) {
		f.sh(apt + "dpkg -P rkt")
		equal(t, "files", f.sh("find / -xdev \\( -path /proc -o -path /sys -o -path /var/lib/rkt -o -path /root -o -path /var/tmp -o -path /run/log -o -path /var/log -o -path /etc/rkt -o -path /usr/local \\) -prune -o -name '*rkt*' ! -path '/etc/group*' -print | grep -v '^/run/systemd/transient\\|^/tmp/' || true"), "")
		f.sh(apt + "dpkg -i /root/debs/rkt.deb")
	})
	f.unchanged(before)
}

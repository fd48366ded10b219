//go:build boot

// Package softreboot reboots the user space of a test host that is its own: after
// that the host has lost what was mounted into it from outside.
package softreboot

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/tests/host"
)

const pods = 20

// What a soft reboot leaves in /run and in the kernel that is a pod's.
const leftovers = `
ip -br link | awk '$1 ~ /^veth/ {print $1}' | sort | wc -l
ls /run/netns 2>/dev/null | wc -l
find /run/rkt/net -mindepth 1 -maxdepth 1 ! -name '.*' 2>/dev/null | wc -l
find /var/lib/rkt/cni -type f -name '[0-9]*' | wc -l
find /var/lib/rkt/pods/run -mindepth 1 -maxdepth 1 | wc -l
machinectl list --no-legend | wc -l
systemctl list-units --failed --plain --no-legend 'rkt*' | wc -l
findmnt -rno TARGET | grep -c /var/lib/rkt/pods || true`

// Twenty pods in a network, enabled, are stopped in order by a soft reboot and
// run again after it, each once, with nothing left of those before.
func TestSoftReboot(t *testing.T) {
	h := host.Open(t)
	if h.Suite() == "bookworm" {
		t.Skip("systemd 252 has no soft reboot")
	}
	h.Alone(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "busybox.aci")
	if out, err := exec.CommandContext(t.Context(), "../images/mkimage", "--suite", h.Suite(), "busybox", image).CombinedOutput(); err != nil {
		t.Fatalf("mkimage: %v\n%s", err, out)
	}
	h.Copy(t, dir, "/opt/img")
	// As on a machine whose /var/lib/rkt is a file system that the boot mounts.
	h.Sh(t, `umount /var/lib/rkt; mkdir -p /run/disk; mount --bind /run/disk /var/lib/rkt; echo '/run/disk /var/lib/rkt none bind 0 0' >>/etc/fstab
		systemd-tmpfiles --create /usr/lib/tmpfiles.d/rkt.conf; systemctl daemon-reload
		rkt trust --prefix=example.com --skip-fingerprint-review /opt/img/busybox.aci.pub`)
	h.Write(t, "/etc/rkt/pods/soft@.json", 0o644, []byte(`{"apps": [{"name": "app", "image": "/opt/img/busybox.aci", "exec": ["/bin/sh", "-c",
		"trap 'echo ended in order; exit 0' TERM; echo runs; while :; do sleep 1000 & wait; done"]}], "systemd": {"install": {"WantedBy": "multi-user.target"}}}`))
	var units []string
	for _, c := range "abcdefghijklmnopqrst"[:pods] {
		units = append(units, "rkt@soft@"+string(c)+".service")
	}
	h.Sh(t, "systemctl daemon-reload; systemctl enable "+strings.Join(units, " "))
	h.RunFor(t, 3*time.Minute, append([]string{"systemctl", "start"}, units...)...)
	before := h.Sh(t, leftovers)
	if f := strings.Fields(before); f[1] != "20" || f[4] != "20" || f[5] != "20" {
		t.Fatalf("namespaces, pods and machines before:\n%s", before)
	}
	ids := h.Sh(t, `systemctl show --value -p InvocationID 'rkt@soft@*' | grep . | sort`)

	_, _, _ = h.Try("systemctl", "soft-reboot")
	h.Eventually(t, 3*time.Minute, "bash", "-c", `[ "$(systemctl show --value -p SoftRebootsCount)" = 1 ] && [ "$(systemctl is-system-running)" = running ]`)
	if after := h.Sh(t, leftovers); after != before {
		t.Errorf("counts before:\n%s\nafter:\n%s", before, after)
	}
	active, _, _ := h.Try(append([]string{"systemctl", "is-active"}, units...)...)
	if n := strings.Count("\n"+active, "\nactive"); n != pods {
		t.Errorf("%d of %d pods are active after a soft reboot:\n%s", n, pods, active)
	}
	for _, id := range strings.Fields(h.Sh(t, `systemctl show --value -p InvocationID 'rkt@soft@*' | grep . | sort`)) {
		if strings.Contains(ids, id) {
			t.Errorf("invocation %s is from before", id)
		}
	}
	if out := h.Sh(t, `journalctl --sync; journalctl -q -o cat -t app -g 'ended in order' | wc -l`); strings.TrimSpace(out) != "20" {
		t.Errorf("pods that ended in order: %s", out)
	}
	h.RunFor(t, 3*time.Minute, append([]string{"systemctl", "stop"}, units...)...)
	h.Sh(t, "rkt gc --grace-period=0")
	if out := strings.Fields(h.Sh(t, leftovers)); strings.Join(out, " ") != "0 0 0 0 0 0 0 0" {
		t.Errorf("what is left in the end: %v", out)
	}
}

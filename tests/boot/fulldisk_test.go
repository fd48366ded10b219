//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// TestFullStore fetches, prepares and collects in a data directory on a small
// file system, which is full at many points on the way: rkt says so, keeps what
// is there, and goes on when there is room again.
func TestFullStore(t *testing.T) {
	f := open(t)
	const dir, image = "/var/lib/rkt-small", "/var/tmp/rkt-small.img"
	undo := "umount " + dir + " 2>/dev/null; rm -rf " + dir + " " + image
	f.sh("set +e; " + undo + "; true")
	t.Cleanup(func() { f.sh("set +e; " + undo + "; true") })
	f.sh(fmt.Sprintf("mkdir -p %[1]s && truncate -s 24M %[2]s && mkfs.ext4 -Fq -m 0 %[2]s", dir, image))
	if _, errs, code := f.trySh(fmt.Sprintf("mount -o loop %s %s", image, dir)); code != 0 {
		t.Skipf("no loop devices on this host: %s", errs)
	}
	rkt := "rkt --dir=" + dir + " "
	key := strings.TrimSpace(f.sh(rkt + "fetch --full " + busybox))
	free := "df --output=avail -k " + dir + " | tail -1"
	whole := number(t, f.sh(free))
	f.sh(rkt + "prepare --quiet " + key + " --exec /bin/true && " + rkt + "gc --grace-period=0 --expire-prepared=0 && " + rkt + "image rm " + key + " && " +
		rkt + "image gc --grace-period=0s")
	need := number(t, f.sh(free)) - whole
	failed := 0
	for step := range 9 {
		room := need * step / 8
		f.sh(fmt.Sprintf("n=$(( $(%s) - %d )); while [ $n -gt 0 ] && ! fallocate -l ${n}K %s/ballast 2>/dev/null; do rm -f %[3]s/ballast; n=$((n - 32)); done", free, room, dir))
		for _, command := range []string{"fetch " + busybox, "prepare --no-overlay " + busybox + " --exec /bin/true"} {
			if _, errs, code := f.trySh(rkt + command); code != 0 {
				failed++
				if !strings.Contains(errs, "no space left on device") || !strings.Contains(errs, dir) && !strings.Contains(errs, "busybox") {
					t.Errorf("%d of %d KiB: %s does not tell what happened: %s", room, need, command, errs)
				}
			}
		}
		if out, errs, code := f.trySh(rkt + "image fsck && " + rkt + "list && " + rkt + "image list && " + rkt + "gc --grace-period=0 --expire-prepared=0"); code != 0 {
			t.Errorf("%d of %d KiB: status %d\n%s%s", room, need, code, out, errs)
		}
		f.sh("rm -f " + dir + "/ballast")
		f.sh(rkt + "fetch " + busybox + " && " + rkt + "prepare --quiet " + key + " --exec /bin/true && " + rkt + "image fsck")
		f.sh(rkt + "gc --grace-period=0 --expire-prepared=0 && " + rkt + "image rm " + key + " && " + rkt + "image gc --grace-period=0s")
	}
	if failed < 5 {
		t.Errorf("only %d commands failed", failed)
	}
	f.sh("find " + dir + "/cas -type f -exec touch -d '5 minutes ago' {} +; " + rkt + "gc --grace-period=0 --expire-prepared=0")
	if left := f.sh("find " + dir + "/cas/{blob,objects,tmp,imageManifest,records} -type f; find " + dir + "/pods -mindepth 2 -maxdepth 2"); strings.Count(left, "stage1") != strings.Count(left, "\n") {
		// The stage1 image may stay.
		if images := f.sh(rkt + "image list --no-legend --fields=name | grep -v stage1 || true"); images != "" || strings.Contains(left, "/tmp/") || strings.Contains(left, "/pods/") {
			t.Errorf("left: %s%s", images, left)
		}
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}

//go:build vm

package vm

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/tests/host"
)

func named(name, script string, isolators ...m) m {
	a := app(script)
	a["name"] = name
	if len(isolators) > 0 {
		a["isolators"] = isolators
	}
	return a
}

func isolator(name string, value any) m { return m{"name": name, "value": value} }

// stat is a field of a flat-keyed file of an app's control group.
func stat(t *testing.T, h *host.Host, pod, app, file, field string) int64 {
	t.Helper()
	out := h.Run(t, "bash", "-c", fmt.Sprintf(`cat /sys/fs/cgroup/machine.slice/rkt@%s.service/payload/%s/%s`, pod, "*.slice/"+app+".service", file))
	for l := range strings.Lines(out) {
		if f := strings.Fields(l); len(f) == 2 && f[0] == field {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s of app %q has no %q:\n%s", file, app, field, out)
	return 0
}

// TestBoot1AppLimits: the limits of one app bite that app.
func TestBoot1AppLimits(t *testing.T) {
	h := host.Open(t)
	h.Run(t, "rkt", "trust", "--prefix=example.com", "--skip-fingerprint-review", busybox+".pub")
	before := snapshot(t, h)

	// Out of memory: only the app that eats is killed; the pod ends since one of its apps failed.
	declare(t, h, "eater", []m{named("eats", "sleep 3; tail /dev/zero", isolator("resource/memory", m{"limit": "32Mi"})),
		named("rests", "trap 'echo rests was told to stop; exit 0' TERM; while :; do sleep 3600 & wait; done")}, m{"MemorySwapMax": 0}, nil)
	// A quarter of a processor.
	declare(t, h, "quarter", []m{named("spins", "while :; do :; done", isolator("resource/cpu", m{"limit": "250m"})), named("idles", forever)}, nil, nil)
	// 1 MiB/s of each disk, past the page cache.
	declare(t, h, "trickle", []m{named("writes", "while :; do dd if=/dev/zero of=/data/x bs=256k count=16 oflag=direct conv=notrunc 2>/dev/null || exit 7; done",
		isolator("resource/block-bandwidth", m{"default": true, "limit": "1Mi"}), isolator("resource/block-iops", m{"default": true, "limit": "1000"}))}, nil, nil)
	h.Run(t, "bash", "-c", `mkdir -p /srv/trickle; sed -i 's|"apps":|"volumes":["d,kind=host,source=/srv/trickle"],"apps":|; s|"exec":|"mounts":["volume=d,target=/data"],"exec":|' /etc/rkt/pods/trickle.json; systemctl daemon-reload`)

	h.RunFor(t, patience, "systemctl", "start", "rkt@eater")
	h.Eventually(t, 3*time.Minute, "bash", "-c", "[ $(systemctl is-active rkt@eater) = failed ]")
	log := h.Run(t, "bash", "-c", "journalctl --sync; journalctl -q -o cat -b -u rkt@eater; journalctl -k -q -o cat -b | grep -E 'oom-kill|Memory cgroup out of memory'")
	if !strings.Contains(log, "rests was told to stop") || !strings.Contains(log, "eats.service") {
		t.Errorf("not one app alone was killed for its memory:\n%s", log)
	}

	h.RunFor(t, patience, "systemctl", "start", "rkt@quarter")
	begin, used := time.Now(), stat(t, h, "quarter", "spins", "cpu.stat", "usage_usec")
	h.Eventually(t, time.Minute, "bash", "-c", "sleep 4")
	share := float64(stat(t, h, "quarter", "spins", "cpu.stat", "usage_usec")-used) / float64(time.Since(begin).Microseconds())
	t.Logf("the app limited to 0.25 of a processor used %.3f", share)
	if share > 0.30 || share < 0.05 {
		t.Errorf("an app limited to a quarter of a processor used %.3f", share)
	}
	if n := stat(t, h, "quarter", "spins", "cpu.stat", "nr_throttled"); n == 0 {
		t.Errorf("it was never throttled")
	}
	h.RunFor(t, patience, "systemctl", "stop", "rkt@quarter")

	h.RunFor(t, patience, "systemctl", "start", "rkt@trickle")
	max := h.Run(t, "bash", "-c", "cat /sys/fs/cgroup/machine.slice/rkt@trickle.service/payload/*.slice/writes.service/io.max")
	if !strings.Contains(max, "rbps=1048576 wbps=1048576 riops=1000 wiops=1000") {
		t.Errorf("io.max is %q", max)
	}
	written := func() (sum int64) {
		for f := range strings.FieldsSeq(h.Run(t, "bash", "-c", "cat /sys/fs/cgroup/machine.slice/rkt@trickle.service/payload/*.slice/writes.service/io.stat")) {
			if v, ok := strings.CutPrefix(f, "wbytes="); ok {
				n, err := strconv.ParseInt(v, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
		return sum
	}
	begin, old := time.Now(), written()
	h.Eventually(t, time.Minute, "bash", "-c", "sleep 6")
	rate := float64(written()-old) / time.Since(begin).Seconds()
	t.Logf("the app limited to 1 MiB/s wrote %.0f bytes a second", rate)
	if rate > 1.5*(1<<20) || rate == 0 {
		t.Errorf("an app limited to 1 MiB/s wrote %.0f bytes a second", rate)
	}
	h.RunFor(t, patience, "systemctl", "stop", "rkt@trickle")
	h.Run(t, "bash", "-c", "systemctl reset-failed 'rkt@*' || true; rm -rf /srv/trickle /etc/rkt/pods/{eater,quarter,trickle}.json; systemctl daemon-reload")
	unchanged(t, h, before)
}

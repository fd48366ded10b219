//go:build vm

package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/tests/host"
)

// The power is cut twelve times in the middle of an update. Each boot after that asserts what the cut before it
// left and prepares the next one; tests/host/check begins that when the test has said how it went (flipDir/cut).
const (
	flipDir = "/srv/flip"
	flipPod = "flip"
)

// cuts are the moments: of an update to a good image or a bad one, so long after it began, after its trial began, or
// after its trial ended.
var cuts = []struct{ image, since, wait string }{
	{"good", "begin", "0.5"}, {"bad", "begin", "1.5"},
	{"good", "trial", "0"}, {"bad", "trial", "0"},
	{"good", "trial", "0.7"}, {"bad", "trial", "1.5"},
	{"good", "trial", "3"}, {"bad", "trial", "4"},
	{"good", "end", "0"}, {"bad", "end", "0"},
	{"good", "end", "0.3"}, {"bad", "end", "1"},
}

// flipImage fetches an image that serves, or one that fails soon. Every one is new.
const flipImage = `
cd ` + flipDir + `
script="echo this is good $2; trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"
[[ $1 = good ]] || script="sleep 1; exit 3"
jq -c --arg s "$script" --arg n $2 '.name = "example.com/flip" | .app.exec = ["/bin/sh", "-c", $s, $n]' plain >manifest
tar -cf new.aci manifest rootfs
rkt --insecure-options=image fetch $PWD/new.aci
sync`

// flipCut updates the pod and cuts the power.
const flipCut = `#!/bin/bash
trial() { grep -q '"state": "trial"' /var/lib/rkt/declared/` + flipPod + `/current; }
rkt pod update ` + flipPod + ` & pid=$!
case $1 in
  trial) until trial || ! kill -0 $pid; do sleep 0.01; done ;;
  end) until trial || ! kill -0 $pid; do sleep 0.01; done; while trial && kill -0 $pid; do sleep 0.01; done ;;
esac
sleep $2
exec /run/rkt-vm/powercut
`

// cut prepares a cut.
func cut(t *testing.T, h *host.Host, n int) {
	t.Helper()
	c := cuts[n]
	h.RunFor(t, patience, "bash", "-euc", flipImage, "-", c.image, strconv.Itoa(n+1))
	h.Write(t, flipDir+"/update", 0o755, []byte(flipCut))
	h.Write(t, flipDir+"/cut", 0o755, fmt.Appendf(nil, "#!/bin/sh\nexec %s/update %s %s\n", flipDir, c.since, c.wait))
	h.Run(t, "sync")
}

// flipped is what the pod and its records say of each other.
type flipped struct {
	Active, State, Last string
	Generation, Current int
	Image, Recorded     string
	Running             int
	// Interrupted counts the trials whose updater a cut ended.
	Interrupted int
	Seqs        []int
	Log         string
}

func flipLook(t *testing.T, h *host.Host) flipped {
	t.Helper()
	out := h.Run(t, "bash", "-uc", `
		journalctl --sync
		unit=rkt@`+flipPod+`.service
		id=$(systemctl show -P InvocationID $unit)
		uuid=${id:0:8}-${id:8:4}-${id:12:4}-${id:16:4}-${id:20}
		image=$(jq -r '.apps[0].image.id' /var/lib/rkt/pods/run/$uuid/pod)
		running=$(rkt list --format=json | jq '[.[] | select(.declared_name == "`+flipPod+`" and .state == "running")] | length')
		rkt pod history `+flipPod+` --format=json | jq -c --arg a $(systemctl is-active $unit) --arg i $image --argjson r $running \
			--arg l "$(journalctl -q -o cat _SYSTEMD_INVOCATION_ID=$id -t app)" --slurpfile c /var/lib/rkt/declared/`+flipPod+`/current '
			{Active: $a, State: .state, Last: .events[-1].event, Generation: .generation, Current: $c[0].generation, Image: $i, Recorded: $c[0].apps[0].id,
			Running: $r, Interrupted: ([.events[] | select(.reason // "" | contains("updater was interrupted"))] | length), Seqs: [.events[].seq], Log: $l}'`)
	var f flipped
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return f
}

// holds asserts that one good generation runs, and that the records say so.
func (f flipped) holds(t *testing.T, when string) {
	t.Helper()
	ordered := slices.IsSorted(f.Seqs) && len(f.Seqs) > 0 && f.Seqs[len(f.Seqs)-1] == f.Seqs[0]+len(f.Seqs)-1
	if f.Active != "active" || f.Running != 1 || f.State != "good" || f.Generation != f.Current || f.Image == "" || !strings.HasPrefix(f.Recorded, f.Image) || !ordered ||
		!strings.Contains(f.Log, "this is good") {
		t.Errorf("%s: %+v", when, f)
	}
}

func flipActive(t *testing.T, h *host.Host) {
	t.Helper()
	h.Eventually(t, 5*time.Minute, "bash", "-c", `[ "$(systemctl is-active rkt@`+flipPod+`)" = active ] && journalctl --sync &&
		journalctl -q -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID rkt@`+flipPod+`) -t app | grep -q 'this is'`)
}

// TestCutsBegin declares the pod.
func TestCutsBegin(t *testing.T) {
	h := host.Open(t)
	h.Run(t, "rkt", "trust", "--prefix=example.com", "--skip-fingerprint-review", busybox+".pub")
	h.Run(t, "bash", "-euc", "mkdir -p "+flipDir+"; cd "+flipDir+"; tar -xf "+busybox+"; mv manifest plain")
	h.RunFor(t, patience, "bash", "-euc", flipImage, "-", "good", "0")
	b, err := json.Marshal(m{"apps": []m{{"name": "app", "image": "example.com/flip"}},
		"rkt":     m{"net": "none", "insecureOptions": []string{"image"}, "update": m{"policy": "local", "timeout": "2min", "settle": "3s"}},
		"systemd": m{"service": m{"TimeoutStartSec": "15min", "Restart": "always"}, "install": m{"WantedBy": "multi-user.target"}}})
	if err != nil {
		t.Fatal(err)
	}
	h.Write(t, "/etc/rkt/pods/"+flipPod+".json", 0o644, b)
	h.Run(t, "systemctl", "daemon-reload")
	h.RunFor(t, patience, "systemctl", "start", "rkt@"+flipPod)
	flipActive(t, h)
	flipLook(t, h).holds(t, "at first")
	cut(t, h, 0)
}

// TestCutsGoOn asserts what a cut left.
func TestCutsGoOn(t *testing.T) {
	boot, err := strconv.Atoi(os.Getenv("RKT_VM_BOOT"))
	first, err2 := strconv.Atoi(os.Getenv("RKT_VM_CUTS_AFTER")) // the boot before the first cut
	if err = errors.Join(err, err2); err != nil || boot <= first {
		t.Fatalf("boot %d, %d before the cuts: %v", boot, first, err)
	}
	n := boot - first // cuts so far
	t.Run(fmt.Sprintf("%s image, %s s after %s", cuts[n-1].image, cuts[n-1].wait, cuts[n-1].since), func(t *testing.T) {
		h := host.Open(t)
		flipActive(t, h)
		is := flipLook(t, h)
		is.holds(t, fmt.Sprintf("after cut %d", n))
		t.Logf("after cut %d: %+v", n, is)
		if n < len(cuts) {
			cut(t, h, n)
			return
		}
		if is.Interrupted < 4 {
			t.Errorf("only %d of %d cuts met a trial", is.Interrupted, n)
		}
		// And an update goes well after all that.
		h.RunFor(t, patience, "bash", "-euc", flipImage, "-", "good", strconv.Itoa(n+1))
		h.RunFor(t, patience, "rkt", "pod", "update", flipPod)
		flipActive(t, h)
		last := flipLook(t, h)
		last.holds(t, "after the last update")
		if last.Last != "updated" || last.Image == is.Image || !strings.Contains(last.Log, fmt.Sprintf("this is good %d", n+1)) {
			t.Errorf("the last update: %+v, before it: %+v", last, is)
		}
	})
}

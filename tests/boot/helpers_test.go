//go:build boot

// Package boot tests rkt on a booted systemd host the way its users meet it:
// through rkt, systemctl, machinectl and journalctl of that host. Every test
// brings its own pods and compares the host before and after.
package boot

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/tests/host"
)

const (
	imageDir = "/var/tmp/img"
	busybox  = imageDir + "/busybox.aci"
	redis    = imageDir + "/redis.aci"
	// soon limits waits for what takes milliseconds on a quiet machine.
	soon = time.Minute
)

type m = map[string]any

// fixture is a host, with the means of one test.
type fixture struct {
	*host.Host
	t *testing.T
	// since is when the test began, for journalctl.
	since string
}

// images remembers what this test binary has copied into the host.
var images struct {
	sync.Mutex
	there map[string]bool
}

// open returns the host with the image of busybox and the key that signs the
// images of these tests.
func open(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Host: host.Open(t), t: t}
	f.since = "@" + strings.TrimSpace(f.Run(t, "date", "+%s.%N"))
	f.image("busybox", "busybox")
	return f
}

// image makes an image with tests/images/mkimage and copies it into the host.
func (f *fixture) image(name string, mkimage ...string) string {
	f.t.Helper()
	images.Lock()
	defer images.Unlock()
	there := imageDir + "/" + name + ".aci"
	if images.there[name] {
		return there
	}
	dir := f.t.TempDir()
	out := filepath.Join(dir, name+".aci")
	args := append([]string{"--suite", f.suite()}, mkimage...)
	cmd := exec.CommandContext(f.t.Context(), "../images/mkimage", append(args, out)...)
	if o, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("mkimage: %v\n%s", err, o)
	}
	f.Copy(f.t, dir, imageDir)
	if len(images.there) == 0 {
		images.there = map[string]bool{}
		f.Run(f.t, "rkt", "trust", "--prefix=example.com", "--skip-fingerprint-review", there+".pub")
	}
	images.there[name] = true
	return there
}

func (f *fixture) suite() string {
	if s := f.Suite(); s != "" {
		return s
	}
	return "bookworm"
}

// sh runs a script; bad output of it is the caller's to judge.
func (f *fixture) sh(script string) string {
	f.t.Helper()
	return f.Sh(f.t, script)
}

// trySh is sh for scripts that may fail: standard output, standard error, status.
func (f *fixture) trySh(script string) (string, string, int) {
	return f.Try("bash", "-uc", script)
}

func (f *fixture) systemctl(args ...string) string {
	f.t.Helper()
	return f.Run(f.t, append([]string{"systemctl"}, args...)...)
}

// show is one property of a unit.
func (f *fixture) show(unit, property string) string {
	f.t.Helper()
	return strings.TrimSpace(f.systemctl("show", "--value", "-p", property, unit))
}

// activeAfter asserts that a unit's start took as long as its app held READY=1 back.
func (f *fixture) activeAfter(unit string, least time.Duration) {
	f.t.Helper()
	at := func(property string) time.Duration {
		us, err := strconv.ParseInt(f.show(unit, property), 10, 64)
		if err != nil {
			f.t.Fatal(err)
		}
		return time.Duration(us) * time.Microsecond
	}
	if took := at("ActiveEnterTimestampMonotonic") - at("ExecMainStartTimestampMonotonic"); took < least {
		f.t.Errorf("%s was active after %v, before READY=1", unit, took)
	}
}

// app is an app of a pod file that runs a shell script in busybox.
func app(name, script string, more ...m) m {
	a := m{"name": name, "image": busybox, "exec": []string{"/bin/sh", "-c", script}}
	for _, more := range more {
		for k, v := range more {
			a[k] = v
		}
	}
	return a
}

// pod is a pod file of these apps, without a network.
func pod(apps ...m) m {
	return m{"apps": apps, "rkt": m{"net": "none"}}
}

// service sets directives of the pod's service.
func service(pod m, directives m) m {
	pod["systemd"] = m{"service": directives}
	return pod
}

// declare writes the file of a pod; at the end of the test the pod is stopped
// and forgotten, and all that ended is collected.
func (f *fixture) declare(name string, pod any) {
	f.t.Helper()
	text, ok := pod.(string)
	if !ok {
		b, err := json.MarshalIndent(pod, "", "  ")
		if err != nil {
			f.t.Fatal(err)
		}
		text = string(b)
	}
	f.Write(f.t, "/etc/rkt/pods/"+name+".json", 0o644, []byte(text))
	f.systemctl("daemon-reload")
	f.t.Cleanup(func() { f.forget(name) })
}

// forget undoes declare; it may be called before the end of the test.
func (f *fixture) forget(names ...string) {
	f.t.Helper()
	var units, files []string
	for _, n := range names {
		units = append(units, "rkt@"+n+".socket", "rkt@"+n+".timer", "rkt@"+n+".path", "'rkt-proxy-"+strings.NewReplacer("-", "?x2d", "@", "?x40").Replace(n)+"-*'", "rkt@"+n+".service", "rkt-fetch@"+n+".service")
		files = append(files, "/etc/rkt/pods/"+n+".json", "/etc/rkt/pods/"+n+".json.d", "/var/lib/rkt/declared/"+n)
	}
	script := fmt.Sprintf(`
		systemctl stop %[1]s 2>/dev/null || true
		rm -rf %[2]s
		systemctl daemon-reload
		systemctl reset-failed %[1]s 2>/dev/null || true
		rkt gc --grace-period=0s --expire-prepared=0s >/dev/null 2>&1 || echo "gc failed"`, strings.Join(units, " "), strings.Join(files, " "))
	if out, err, code := f.trySh(script); code != 0 || out != "" {
		f.t.Errorf("forgetting pods %q: status %d\n%s%s", names, code, out, err)
	}
}

func (f *fixture) start(name string) {
	f.t.Helper()
	f.systemctl("start", "rkt@"+name)
}

func (f *fixture) stop(name string) {
	f.t.Helper()
	f.systemctl("stop", "rkt@"+name)
}

// gc collects everything that can be collected.
func (f *fixture) gc() {
	f.t.Helper()
	f.Run(f.t, "rkt", "gc", "--grace-period=0s", "--expire-prepared=0s")
}

// ended waits until a unit is inactive or failed, and returns which.
func (f *fixture) ended(unit string) string {
	f.t.Helper()
	return strings.TrimSpace(f.Eventually(f.t, soon, "bash", "-c", `s=$(systemctl is-active "$1"); echo "$s"; [ "$s" = inactive ] || [ "$s" = failed ]`, "-", unit))
}

// journal is what the host's journal holds for these match arguments, as plain messages.
func (f *fixture) journal(match ...string) string {
	f.t.Helper()
	return f.Run(f.t, append([]string{"bash", "-c", `journalctl --sync; exec journalctl -q --no-pager -a -o cat "$@"`, "-"}, match...)...)
}

// appLog is what one app of a declared pod wrote during this test.
func (f *fixture) appLog(pod, app string) string {
	f.t.Helper()
	return f.journal("_SYSTEMD_UNIT=rkt@"+pod+".service", "-t", app, "--since", f.since)
}

// waitLog waits until an app of a running pod has written text.
func (f *fixture) waitLog(pod, app, text string) {
	f.t.Helper()
	f.Eventually(f.t, soon, "bash", "-c", `journalctl --sync; journalctl -q -o cat _SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID "rkt@$1") -t "$2" | grep -qF -- "$3"`, "-", pod, app, text)
}

func contains(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s lacks %q:\n%s", what, w, text)
		}
	}
}

func lacks(t *testing.T, what, text string, unwanted ...string) {
	t.Helper()
	for _, w := range unwanted {
		if strings.Contains(text, w) {
			t.Errorf("%s has %q, which it must not:\n%s", what, w, text)
		}
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// snapshotScript prints everything of a host that a pod may touch. Not the lock files named by inode: a
// systemd-nspawn that is killed leaves its own, whoever started it. Nor downloads that broke off: the next fetch
// resumes them.
const snapshotScript = `
section() { echo "== $1"; }
section mounts; findmnt -rno TARGET,FSTYPE | grep -v '^/run/credentials/' | sort
section cgroups; cd /sys/fs/cgroup; find machine.slice system.slice -mindepth 1 -type d 2>/dev/null | grep -E '^machine.slice/|rkt' | grep -vx system.slice/system-rkt.slice | sort
section netns; ls /run/netns 2>/dev/null
section links; ip -br link | awk '{print $1}' | sort
section firewall; iptables-save 2>/dev/null | grep -E '^-A|^:CNI' | sort
section nft; nft list table inet rkt 2>/dev/null
section register; find /run/rkt/net /run/rkt/nat -mindepth 1 ! -name '.lock*' 2>/dev/null | sort
section addresses; find /var/lib/rkt/cni /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip*' 2>/dev/null | sort
section machines; machinectl list --no-legend --no-pager | awk '{print $1}'; ls /run/systemd/machines 2>/dev/null | grep -v '^unit:' | sort
section pods; find /var/lib/rkt/pods -mindepth 2 -maxdepth 2 2>/dev/null | sort
section temporary; find /var/lib/rkt/tmp /var/lib/rkt/cas/tmp -mindepth 1 ! -name 'sha512-*' 2>/dev/null | sort
section nspawn; find /run/systemd/nspawn -mindepth 2 2>/dev/null | grep -v '/locks/inode-' | sort
section loops; losetup -lnO BACK-FILE 2>/dev/null | grep -F /var/lib/rkt/
section processes; pgrep -af 'systemd-nspawn|rkt' | grep -vE 'pgrep|bash' | sed 's/^[0-9]* //'
section failed; systemctl list-units --failed --plain --no-legend 'rkt*' | awk '{print $1}'
true`

func (f *fixture) snapshot() string {
	f.t.Helper()
	return f.Run(f.t, "bash", "-c", snapshotScript)
}

// unchanged asserts, after the garbage collection, that the host is as it was.
// machined and the kernel let go of some things a moment after the unit ended.
func (f *fixture) unchanged(before string) {
	f.t.Helper()
	end := time.Now().Add(soon)
	for {
		f.gc()
		after := f.snapshot()
		if after == before {
			return
		}
		if time.Now().After(end) {
			f.t.Errorf("the host is not as it was before (-before +after):\n%s", cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// object decodes JSON.
func object[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, text)
	}
	return v
}

// entries decodes journalctl -o json.
func entries(t *testing.T, text string) []m {
	t.Helper()
	var all []m
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line != "" {
			all = append(all, object[m](t, line))
		}
	}
	return all
}

// listed is rkt list --format=json.
func (f *fixture) listed() []m {
	f.t.Helper()
	return object[[]m](f.t, f.Run(f.t, "rkt", "list", "--format=json"))
}

// podOf is the entry of rkt list for a declared pod in a state; nil without one.
func (f *fixture) podOf(name, state string) m {
	f.t.Helper()
	for _, p := range f.listed() {
		if p["declared_name"] == name && p["state"] == state {
			return p
		}
	}
	return nil
}

// uuid is that of the running pod of a declared name.
func (f *fixture) uuid(name string) string {
	f.t.Helper()
	p := f.podOf(name, "running")
	if p == nil {
		f.t.Fatalf("no running pod %q: %v", name, f.listed())
	}
	return p["name"].(string)
}

func dashless(uuid string) string { return strings.ReplaceAll(uuid, "-", "") }

func sorted(lines string) []string {
	l := strings.Fields(lines)
	sort.Strings(l)
	return l
}

func TestMain(m *testing.M) { os.Exit(m.Run()) }

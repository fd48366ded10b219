//go:build vm

// Package vm tests rkt in a virtual machine with a kernel of its own: the
// effects of limits, many pods at once, a real reboot and a power cut. The
// test binary runs in the machine; of each boot it runs the tests named for it
// (tests/host/check reboots after TestBoot1…, cuts the power after TestBoot2…).
package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/tests/host"
)

const (
	busybox = "/var/tmp/img/busybox.aci"
	redis   = "/var/tmp/img/redis.aci"
	// Emulation is slow.
	patience = 10 * time.Minute
)

// many pods run at once: more than the kernel's default of 128 inotify
// instances allows, of which each takes three. All hundred take minutes.
func many() int {
	if os.Getenv("RKT_TEST_FULL") != "" {
		return 100
	}
	return 50
}

type m = map[string]any

func app(script string) m {
	return m{"name": "app", "image": busybox, "exec": []string{"/bin/sh", "-c", script}}
}

const forever = "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"

func declare(t *testing.T, h *host.Host, name string, apps []m, service, install m) {
	t.Helper()
	if service == nil {
		service = m{}
	}
	service["TimeoutStartSec"] = "15min"
	p := m{"apps": apps, "rkt": m{"net": "none"}, "systemd": m{"service": service}}
	if install != nil {
		p["systemd"].(m)["install"] = install
	}
	if name == "redis" {
		delete(p, "rkt")
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	h.Write(t, "/etc/rkt/pods/"+name+".json", 0o644, b)
}

// snapshot is what of the host a pod may touch.
func snapshot(t *testing.T, h *host.Host) string {
	t.Helper()
	return h.Run(t, "bash", "-c", `
		echo mounts; findmnt -rno TARGET,FSTYPE | grep -v /run/credentials/ | sort
		echo cgroups; cd /sys/fs/cgroup; find machine.slice -mindepth 1 -type d | sort
		echo netns; ls /run/netns 2>/dev/null
		echo links; ip -br link | awk '{print $1}' | sort
		echo firewall; iptables-save 2>/dev/null | grep -E '^-A|^:CNI'; nft list table inet rkt 2>/dev/null
		echo addresses; find /var/lib/rkt/cni -type f ! -name lock ! -name 'last_reserved_ip*' 2>/dev/null; find /run/rkt/net -type f ! -name '.*' 2>/dev/null
		echo machines; machinectl list --no-legend | awk '{print $1}'
		echo pods; find /var/lib/rkt/pods -mindepth 2 -maxdepth 2
		echo failed; systemctl list-units --failed --plain --no-legend 'rkt*' | awk '{print $1}'; true`)
}

func unchanged(t *testing.T, h *host.Host, before string) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		h.Run(t, "rkt", "gc", "--grace-period=0")
		after := snapshot(t, h)
		if after == before {
			return
		}
		if time.Now().After(end) {
			t.Errorf("the host is not as it was before (-before +after):\n%s", cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n")))
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func redisAnswers(t *testing.T, h *host.Host) {
	t.Helper()
	h.Eventually(t, 2*time.Minute, "bash", "-c", "redis-cli -h redis ping | grep PONG")
}

func uuid(t *testing.T, h *host.Host, name string) string {
	t.Helper()
	return strings.TrimSpace(h.Run(t, "bash", "-c", `rkt list --format=json | jq -r '.[] | select(.declared_name == "`+name+`" and .state == "running") | .name'`))
}

func TestBoot1ManyPods(t *testing.T) {
	h := host.Open(t)
	h.Run(t, "rkt", "trust", "--prefix=example.com", "--skip-fingerprint-review", busybox+".pub")
	// The package's own setting is in force.
	h.Run(t, "bash", "-c", `[ "$(sysctl -n fs.inotify.max_user_instances)" -ge 1024 ]`)
	before := snapshot(t, h)
	names := []string{"redis"}
	declare(t, h, "redis", []m{{"name": "redis", "image": redis}}, m{"Restart": "on-failure"}, m{"WantedBy": "multi-user.target"})
	for i := range many() {
		name := fmt.Sprintf("p%d", i)
		names = append(names, name)
		networked(t, h, name, 20000+i)
	}
	h.Run(t, "systemctl", "daemon-reload")
	var units []string
	for _, n := range names {
		units = append(units, "rkt@"+n+".service")
	}
	h.Run(t, "rkt", "fetch", busybox)
	h.RunFor(t, patience, "systemctl", "start", units[0])
	begin := time.Now()
	if _, stderr, code := h.TryFor(patience, append([]string{"systemctl", "start"}, units...)...); code != 0 {
		t.Errorf("starting %d pods: status %d\n%s\n%s", len(units), code, stderr,
			h.Run(t, "bash", "-c", "journalctl -q --no-pager -u 'rkt@*' | grep -iE 'fail|timed out|too many|cannot|error' | head -40; true"))
	}
	t.Logf("%d pods started in %v", len(units), time.Since(begin).Round(time.Second))
	active, _, _ := h.Try(append([]string{"systemctl", "is-active"}, units...)...)
	if n := strings.Count("\n"+active, "\nactive"); n != len(units) {
		t.Errorf("%d of %d units are active", n, len(units))
	}
	redisAnswers(t, h)
	begin = time.Now()
	if out := h.RunFor(t, patience, "bash", "-c", everyPort()); out != "" {
		t.Errorf("pods that do not answer on their port:\n%s", out)
	}
	t.Logf("all answered after %v", time.Since(begin).Round(time.Second))
	begin = time.Now()
	h.RunFor(t, patience, append([]string{"systemctl", "stop"}, units...)...)
	t.Logf("stopped in %v", time.Since(begin).Round(time.Second))
	if out, _, code := h.Try("curl", "-sS", "--max-time", "5", "http://127.0.0.1:20000/"); code == 0 {
		t.Errorf("a pod that has stopped answers %q", out)
	}
	unchanged(t, h, before)
}

func TestBoot1Limits(t *testing.T) {
	h := host.Open(t)
	before := snapshot(t, h)
	declare(t, h, "hungry", []m{app("echo eating; tail /dev/zero; echo $? >/rc; exit 9")}, m{"MemoryMax": "64M", "MemorySwapMax": 0}, nil)
	declare(t, h, "forks", []m{app("for i in $(seq 60); do sleep 1000 & done; echo all")}, m{"TasksMax": 30}, nil)
	declare(t, h, "slow", []m{app(forever)}, m{"CPUQuota": "25%"}, nil)
	declare(t, h, "tame", []m{app("until [ -e /go ]; do sleep 1; done; tail /dev/zero; exit 9")}, nil, nil)
	h.Run(t, "systemctl", "daemon-reload")

	h.TryFor(patience, "systemctl", "start", "rkt@hungry")
	h.Eventually(t, 3*time.Minute, "bash", "-c", "[ $(systemctl is-active rkt@hungry) = failed ]")
	kernel := h.Run(t, "journalctl", "-k", "-q", "-o", "cat", "-b")
	if !strings.Contains(kernel, "oom-kill") || !strings.Contains(kernel, "rkt@hungry.service") {
		t.Errorf("the kernel killed nothing in rkt@hungry.service:\n%s", h.Run(t, "journalctl", "-q", "-u", "rkt@hungry"))
	}

	h.TryFor(patience, "systemctl", "start", "rkt@forks")
	h.Eventually(t, 3*time.Minute, "bash", "-c", `[ $(systemctl is-active rkt@forks) != active ]`)
	log := h.Run(t, "bash", "-c", "journalctl --sync; journalctl -q -o cat -u rkt@forks")
	if !strings.Contains(log, "can't fork") {
		t.Errorf("more tasks than TasksMax= allows:\n%s", log)
	}

	h.RunFor(t, patience, "systemctl", "start", "rkt@slow")
	if got := h.Run(t, "cat", "/sys/fs/cgroup/machine.slice/rkt@slow.service/cpu.max"); got != "25000 100000\n" {
		t.Errorf("cpu.max is %q", got)
	}
	h.Run(t, "systemctl", "stop", "rkt@slow")

	// A limit that is set while the pod runs bites at once.
	h.RunFor(t, patience, "systemctl", "start", "rkt@tame")
	h.Run(t, "systemctl", "set-property", "--runtime", "rkt@tame", "MemoryMax=48M", "MemorySwapMax=0")
	h.Run(t, "rkt", "enter", "tame", "/bin/touch", "/go")
	h.Eventually(t, 3*time.Minute, "bash", "-c", "[ $(systemctl is-active rkt@tame) = failed ]")
	if kernel := h.Run(t, "journalctl", "-k", "-q", "-o", "cat", "-b"); !strings.Contains(kernel, "rkt@tame.service") {
		t.Errorf("the kernel killed nothing in rkt@tame.service:\n%s", h.Run(t, "journalctl", "-q", "-u", "rkt@tame"))
	}
	h.Run(t, "bash", "-c", "systemctl reset-failed 'rkt@*'; rm -r /run/systemd/system.control/rkt@tame.service.d; rm /etc/rkt/pods/{hungry,forks,slow,tame}.json; systemctl daemon-reload")
	unchanged(t, h, before)
}

func TestBoot1FewInotifyInstances(t *testing.T) {
	h := host.Open(t)
	before := snapshot(t, h)
	old := strings.TrimSpace(h.Run(t, "sysctl", "-n", "fs.inotify.max_user_instances"))
	used := strings.TrimSpace(h.Run(t, "bash", "-c", "find /proc/[0-9]*/fd -lname 'anon_inode:inotify' 2>/dev/null | wc -l"))
	h.Run(t, "bash", "-c", "sysctl -qw fs.inotify.max_user_instances=$(("+used+" + 8))")
	defer func() { h.Run(t, "sysctl", "-qw", "fs.inotify.max_user_instances="+old) }()
	// One after the other: of those that start at once some find out only inside the pod.
	for i := range 6 {
		unit := fmt.Sprintf("rkt@p%d.service", i)
		if _, _, code := h.TryFor(patience, "systemctl", "start", unit); code == 0 {
			if i == 5 {
				t.Errorf("six pods start with eight inotify instances")
			}
			continue
		}
		log := h.Run(t, "bash", "-c", "journalctl --sync; journalctl -q -o cat -u "+unit)
		if !strings.Contains(log, "too few inotify instances") || !strings.Contains(log, "sysctl -w fs.inotify.max_user_instances=") {
			t.Errorf("%s does not say why it failed and what to do:\n%s", unit, log)
		}
		break
	}
	h.Run(t, "bash", "-c", "systemctl stop 'rkt@p*'; systemctl reset-failed 'rkt@p*' || true")
	unchanged(t, h, before)
}

// The last of the first boot: what runs when the machine reboots.
func TestBoot1Z(t *testing.T) {
	h := host.Open(t)
	nginx(t, h)
	h.RunFor(t, patience, "systemctl", "start", "rkt@redis", "rkt@p0", "rkt@p1", "rkt@nginx")
	redisAnswers(t, h)
	nginxAnswers(t, h)
	h.Write(t, "/root/before", 0o644, []byte(uuid(t, h, "redis")+"\n"+uuid(t, h, "p0")+"\n"+uuid(t, h, "p1")+"\n"))
	if _, stderr, code := h.Try("rkt", "run", "--net=none", "--private-users", "--uuid-file-save=/root/ended", busybox, "--name=left", "--exec=/bin/sh", "--", "-c", "echo kept >/kept; exit 6"); code != 6 {
		t.Errorf("a pod that ends with 6: status %d\n%s", code, stderr)
	}
	h.Run(t, "sync")
}

// comesBack asserts what a boot finds, whichever way the one before ended.
func comesBack(t *testing.T) {
	h := host.Open(t)
	h.Eventually(t, 5*time.Minute, "systemctl", "is-active", "rkt@redis", "rkt@nginx")
	redisAnswers(t, h)
	nginxAnswers(t, h)
	redis := uuid(t, h, "redis")
	for _, old := range strings.Fields(h.Read(t, "/root/before")) {
		if old == redis {
			t.Errorf("the pod came back with the same UUID %s", old)
		}
		if out, _, code := h.Try("rkt", "status", old); code == 0 && !strings.Contains(out, "exited=true") {
			t.Errorf("pod %s of the boot before:\n%s", old, out)
		}
	}
	// The timer's service, with no grace: nothing of the boot before is left.
	h.Write(t, "/etc/default/rkt-gc", 0o644, []byte("GRACE_PERIOD=0s\n"))
	h.Run(t, "systemctl", "start", "rkt-gc.service")
	for what, got := range map[string]string{
		"pods":       h.Run(t, "bash", "-c", "find /var/lib/rkt/pods -mindepth 2 -maxdepth 2"),
		"namespaces": h.Run(t, "bash", "-c", "ls /run/netns"),
		"addresses":  h.Run(t, "bash", "-c", "find /var/lib/rkt/cni -type f -name '*.*.*.*'"),
		"records":    h.Run(t, "bash", "-c", "find /run/rkt/net -type f ! -name '.*'"),
		"machines":   h.Run(t, "bash", "-c", "machinectl list --no-legend"),
	} {
		const want = 2
		if n := strings.Count(got, "\n"); n != want {
			t.Errorf("%d %s, want those of redis and nginx:\n%s", n, what, got)
		}
	}
	lazyAnswers(t, h)
	h.RunFor(t, patience, "systemctl", "start", "rkt@p0", "rkt@p2")
	h.Write(t, "/root/before", 0o644, []byte(redis+"\n"+uuid(t, h, "p0")+"\n"+uuid(t, h, "p2")+"\n"))
	h.Run(t, "sync")
}

// TestBoot2AfterReboot: also, what a pod of the boot before left can still be
// read: statuses of apps, and their files.
//
// check list: runtime 9, 42; pod-lifecycle 13
func TestBoot2AfterReboot(t *testing.T) {
	h := host.Open(t)
	ended := strings.TrimSpace(h.Read(t, "/root/ended"))
	if out := h.Run(t, "rkt", "status", ended); !strings.Contains(out, "app-left=6") || !strings.Contains(out, "exited=true") {
		t.Errorf("the status of a pod that ended before the reboot:\n%s", out)
	}
	h.Run(t, "rkt", "export", ended, "/root/left.aci")
	if out := h.Run(t, "tar", "-xzOf", "/root/left.aci", "rootfs/kept"); out != "kept\n" {
		t.Errorf("the exported file: %q", out)
	}
	comesBack(t)
}

func TestBoot3AfterPowerCut(t *testing.T) {
	comesBack(t)
	h := host.Open(t)
	h.RunFor(t, patience, "systemctl", "stop", "rkt@redis", "rkt@p0", "rkt@p2", "rkt@nginx")
	h.Run(t, "ip", "link", "delete", "dual0") // bridges stay, as the plugin has it
	h.Run(t, "rkt", "gc", "--grace-period=0")
	s := snapshot(t, h)
	if !strings.Contains(s, "cgroups\nnetns\nlinks\nlo\nfirewall\naddresses\nmachines\npods\nfailed\n") {
		t.Errorf("what is left in the end:\n%s", s)
	}
}

//go:build boot

package boot

import (
	"strings"
	"testing"
)

func redisPod() m {
	return service(m{"apps": []m{{"name": "redis", "image": redis}}}, m{"Restart": "on-failure", "RestartSec": "100ms"})
}

// ping waits for the answer of a redis server of that name.
func (f *fixture) ping(name string) {
	f.t.Helper()
	out := f.Eventually(f.t, soon, "bash", "-c", `redis-cli -h "$1" ping | grep PONG`, "-", name)
	equal(f.t, "the answer of redis", strings.TrimSpace(out), "PONG")
}

func TestDeclaredRedis(t *testing.T) {
	f := open(t)
	f.image("redis", "redis")
	before := f.snapshot()
	f.declare("redis", redisPod())
	f.start("redis")

	equal(t, "is-active", f.systemctl("is-active", "rkt@redis"), "active\n")
	// The start returns when the app's program runs; that it listens is its own affair.
	cgroup := f.show("rkt@redis", "ControlGroup")
	pid := strings.TrimSpace(f.sh("cat /sys/fs/cgroup'" + cgroup + "'/payload/system.slice/redis.service/cgroup.procs"))
	equal(t, "the app's program", f.Run(t, "cat", "/proc/"+pid+"/comm"), "redis-server\n")
	f.ping("redis")

	uuid := f.uuid("redis")
	equal(t, "the unit's invocation", f.show("rkt@redis", "InvocationID"), dashless(uuid))
	equal(t, "the unit's slice", f.show("rkt@redis", "Slice"), "machine.slice")

	t.Run("machined", func(t *testing.T) {
		contains(t, "machinectl list", f.Run(t, "machinectl", "list", "--no-pager"), "redis", "container", "rkt")
		contains(t, "machinectl status", f.Run(t, "machinectl", "status", "--no-pager", "redis"), "redis("+dashless(uuid)+")", "rkt@redis.service", "redis-server", "Service: rkt")
		contains(t, "machinectl show", f.Run(t, "machinectl", "show", "redis"), "Class=container\n", "Service=rkt\n", "Unit=rkt@redis.service\n", "Id="+dashless(uuid), "State=running\n")
	})

	t.Run("list and status", func(t *testing.T) {
		p := f.podOf("redis", "running")
		equal(t, "machine", p["machine"], any("redis"))
		equal(t, "unit", p["unit"], any("rkt@redis.service"))
		table := f.Run(t, "rkt", "list", "--no-legend")
		contains(t, "rkt list", table, uuid[:8], "redis", "example.com/redis:", "running", "default:ip4=")
		contains(t, "rkt list --full", f.Run(t, "rkt", "list", "--full"), uuid)
		byName := f.Run(t, "rkt", "status", "redis")
		contains(t, "rkt status NAME", byName, "state=running\n", "pid=", "networks=default:ip4=", "exited=false\n")
		equal(t, "rkt status by a prefix of the UUID", f.Run(t, "rkt", "status", uuid[:8]), byName)
		equal(t, "rkt status by UUID", f.Run(t, "rkt", "status", uuid), byName)
		contains(t, "rkt pod list", f.Run(t, "rkt", "pod", "list"), "redis", "running")
	})

	t.Run("journal", func(t *testing.T) {
		f.waitLog("redis", "redis", "Ready to accept connections")
		all := entries(t, f.Run(t, "journalctl", "-q", "-u", "rkt@redis", "-t", "redis", "-o", "json"))
		last := all[len(all)-1]
		equal(t, "_PID", last["_PID"], any(pid))
		equal(t, "_COMM", last["_COMM"], any("redis-server"))
		equal(t, "RKT_POD_NAME", last["RKT_POD_NAME"], any("redis"))
		equal(t, "PRIORITY", last["PRIORITY"], any("6"))
		equal(t, "_SYSTEMD_UNIT", last["_SYSTEMD_UNIT"], any("rkt@redis.service"))
		equal(t, "_SYSTEMD_INVOCATION_ID", last["_SYSTEMD_INVOCATION_ID"], any(dashless(uuid)))
		byUnit := f.journal("_SYSTEMD_UNIT=rkt@redis.service", "_SYSTEMD_INVOCATION_ID="+dashless(uuid), "-t", "redis")
		equal(t, "the log by invocation", f.journal("_SYSTEMD_INVOCATION_ID="+dashless(uuid), "-t", "redis"), byUnit)
		contains(t, "rkt logs NAME", f.Run(t, "rkt", "logs", "redis"), "Ready to accept connections")
		two := f.Run(t, "rkt", "logs", uuid, "--app", "redis", "-n", "2")
		equal(t, "lines of rkt logs -n 2", strings.Count(two, "\n"), 2)
		lacks(t, "rkt's own log", f.journal("_SYSTEMD_INVOCATION_ID="+dashless(uuid)), "rror", "ailed to")
	})

	f.stop("redis")
	f.gc()
	t.Run("log of a collected pod", func(t *testing.T) {
		contains(t, "rkt logs UUID", f.Run(t, "rkt", "logs", uuid, "--app", "redis"), "Ready to accept connections")
		equal(t, "lines of rkt logs -n 2", strings.Count(f.Run(t, "rkt", "logs", uuid, "-n", "2"), "\n"), 2)
	})
	f.forget("redis")
	f.unchanged(before)
}

// TestKilledPodRestarts: check list: pod-lifecycle 8
func TestKilledPodRestarts(t *testing.T) {
	f := open(t)
	f.image("redis", "redis")
	before := f.snapshot()
	f.declare("redis", redisPod())
	f.start("redis")
	running := f.snapshot()
	old := f.uuid("redis")
	f.systemctl("kill", "-s", "KILL", "rkt@redis")
	f.Eventually(t, soon, "bash", "-c", `[ "$(systemctl is-active rkt@redis)" = active ] && [ "$(systemctl show --value -p NRestarts rkt@redis)" = 1 ]`)
	f.ping("redis")
	uuid := f.uuid("redis")
	if uuid == old {
		t.Errorf("the pod came back with the same UUID %s", uuid)
	}
	equal(t, "the unit's invocation", f.show("rkt@redis", "InvocationID"), dashless(uuid))
	contains(t, "machinectl status", f.Run(t, "machinectl", "status", "--no-pager", "redis"), dashless(uuid))
	equal(t, "network namespaces", sorted(f.sh("ls /run/netns")), []string{"redis"})
	f.gc()
	// As many mounts, chains, links, pods as with the first; names differ.
	equal(t, "what a running pod holds", strings.Count(f.snapshot(), "\n"), strings.Count(running, "\n"))
	lacks(t, "the host", f.snapshot(), old)
	f.forget("redis")
	f.unchanged(before)
}

func TestStop(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	p := pod(app("app", `trap 'echo "got SIGTERM"; exit 0' TERM; echo ready; while :; do sleep 3600 & wait; done`))
	p["rkt"] = m{"net": "default"}
	f.declare("stop", p)
	f.start("stop")
	f.waitLog("stop", "app", "ready")
	uuid := f.uuid("stop")
	f.stop("stop")
	equal(t, "Result", f.show("rkt@stop", "Result"), "success")
	equal(t, "is-active", f.show("rkt@stop", "ActiveState"), "inactive")
	contains(t, "the app's log", f.journal("_SYSTEMD_INVOCATION_ID="+dashless(uuid), "-t", "app"), "ready\n", "got SIGTERM\n")
	// All but the pod's directory is gone before any garbage collection.
	f.Eventually(t, soon, "bash", "-c", `! machinectl show stop >/dev/null 2>&1`)
	s := f.snapshot()
	at := strings.Index(s, "== pods")
	lacks(t, "the host after the stop", s[:at], uuid, "machine.slice/rkt@stop")
	contains(t, "rkt status", f.Run(t, "rkt", "status", uuid), "state=exited garbage\n", "app-app=0\n", "exited=true\n")
	f.Run(t, "rkt", "gc", "--grace-period=0s")
	equal(t, "pod directories", f.sh("find /var/lib/rkt/pods -mindepth 2 -maxdepth 2"), "")
	f.forget("stop")
	f.unchanged(before)
}

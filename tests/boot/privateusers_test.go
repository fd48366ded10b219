//go:build boot

package boot

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// users makes a declared pod that says whether it has private users.
func users(pod m, private bool) m {
	rkt := pod["rkt"].(m)
	rkt["privateUsers"] = private
	return pod
}

// shift is the first id of the host that a running declared pod has.
func (f *fixture) shift(name string) int {
	f.t.Helper()
	text, _ := f.podOf(name, "running")["private_users"].(string)
	first, count, _ := strings.Cut(text, ":")
	n, err := strconv.Atoi(first)
	if err != nil || count != "65536" {
		f.t.Fatalf("pod %q has the private users %q", name, text)
	}
	return n
}

// Declared pods have private users unless their file says otherwise, or they use
// the host's network; every command that shows pods tells.
// check list: runtime 15
func TestPrivateUsersAreTheDefault(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("pu-default", pod(app("a", "id; cat /proc/self/uid_map; exec sleep 1000")))
	f.declare("pu-off", users(pod(app("a", "cat /proc/self/uid_map; exec sleep 1000")), false))
	host := pod(app("a", "cat /proc/self/uid_map; exec sleep 1000"))
	host["rkt"] = m{"net": "host"}
	f.declare("pu-host", host)
	for _, n := range []string{"pu-default", "pu-off", "pu-host"} {
		f.start(n)
	}
	s := f.shift("pu-default")
	f.waitLog("pu-default", "a", strconv.Itoa(s))
	contains(t, "the app's own view", f.appLog("pu-default", "a"), "uid=0(root)")
	leader := strings.TrimSpace(f.sh("machinectl show --value -p Leader pu-default"))
	equal(t, "the map of the pod's first process", strings.Fields(f.sh("cat /proc/"+leader+"/uid_map")), []string{"0", strconv.Itoa(s), "65536"})
	equal(t, "the owner of the pod's first process", strings.TrimSpace(f.sh("stat -c %u /proc/"+leader)), strconv.Itoa(s))
	for _, n := range []string{"pu-off", "pu-host"} {
		f.waitLog(n, "a", "4294967295")
		if p := f.podOf(n, "running"); p["private_users"] != nil {
			t.Errorf("%s has private users: %v", n, p)
		}
	}
	contains(t, "rkt pod show", f.sh("rkt pod show pu-default"), "# private users: an own range")
	contains(t, "rkt pod show", f.sh("rkt pod show pu-off"), `# private users: none ("privateUsers": false)`)
	contains(t, "rkt pod show", f.sh("rkt pod show pu-host"), "host's network")
	contains(t, "rkt status", f.sh("rkt status pu-default"), fmt.Sprintf("private-users=%d:65536\n", s))
	lacks(t, "rkt status", f.sh("rkt status pu-off"), "private-users")
	list := strings.Split(f.sh("rkt list --full"), "\n")
	if !strings.HasSuffix(list[0], "PRIVATE USERS") {
		t.Errorf("no column in %q", list[0])
	}
	contains(t, "rkt list --full", strings.Join(list, "\n"), fmt.Sprintf("%d:65536", s))
	// all ways in lead to the same users
	for _, way := range []string{"rkt enter pu-default /bin/cat /proc/self/uid_map", "rkt exec pu-default -- /bin/cat /proc/self/uid_map",
		"machinectl -q shell pu-default /bin/cat /proc/self/uid_map </dev/null"} {
		contains(t, way, f.sh(way), strconv.Itoa(s))
	}
	f.forget("pu-default", "pu-off", "pu-host")
	f.unchanged(before)
}

// A pod writes to its root, its status and its volumes as its own users, with
// overlays and with copies, and the host sees its range, or, where ids are
// mapped, none of it.
// check list: runtime 4, 21; pod-lifecycle 19
func TestPrivateUsersFiles(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	script := `set -e; touch /made /tmp/made; chown 33:44 /made; stat -c '%n %u:%g %a' / /bin/busybox /made /etc/hostname; cd /v; stat -c 'v %u:%g %a' .
		touch by-root; chmod 4755 by-root; stat -c '%n %u:%g %a' by-root; exit 7`
	for _, how := range []string{"", "--no-overlay"} {
		out, errs, code := f.trySh(fmt.Sprintf(`rkt run --net=none --private-users %s --uuid-file-save=/run/pu.uuid --volume v,kind=empty,mode=0123,uid=9991,gid=9992 %s --mount volume=v,target=/v --exec /bin/sh -- -c '%s'`,
			how, busybox, strings.ReplaceAll(script, "'", `'\''`)))
		if code != 7 {
			t.Errorf("%q: status %d\n%s%s", how, code, out, errs)
		}
		contains(t, "files in the pod "+how, out+errs, "/ 0:0 755", "/bin/busybox 0:0", "/made 33:44", "v 9991:9992 123", "by-root 0:0 4755")
		contains(t, "status", f.sh("rkt status --uuid-file=/run/pu.uuid"), "app-busybox=7", "private-users=")
		shift, _ := strconv.Atoi(strings.Split(strings.TrimSpace(f.sh("cat /var/lib/rkt/pods/run/$(cat /run/pu.uuid)/private-users-prepared")), ":")[0])
		pods := "/var/lib/rkt/pods/run/$(cat /run/pu.uuid)"
		equal(t, "the empty volume on the host", strings.TrimSpace(f.sh("stat -c %u:%g "+pods+"/sharedVolumes/v")), fmt.Sprintf("%d:%d", shift+9991, shift+9992))
		if how == "" {
			equal(t, "a file in the upper directory", strings.TrimSpace(f.sh("stat -c %u:%g "+pods+"/overlay/*/upper/busybox/made")), fmt.Sprintf("%d:%d", shift+33, shift+44))
			// not one file of the pod's root belongs to the host's users
			equal(t, "files of the host's root in the stage1", strings.TrimSpace(f.sh("find "+pods+`/overlay/$(cat `+pods+`/stage1TreeStoreID)/upper -uid -`+strconv.Itoa(shift)+` ! -type c`)), "")
		} else {
			equal(t, "a file in the copy", strings.TrimSpace(f.sh("stat -c %u:%g "+pods+"/stage1/rootfs/opt/stage2/busybox/rootfs/made")), "33:44")
		}
		f.Run(t, "rkt", "rm", "--uuid-file=/run/pu.uuid")
	}
	f.sh("rm -f /run/pu.uuid")
	f.unchanged(before)
}

// Files of a host volume are whose the volume says.
// check list: runtime 20, 23
func TestPrivateUsersHostVolumes(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh(`rm -rf /var/tmp/pu && mkdir -p /var/tmp/pu/d /var/tmp/pu/sub && cd /var/tmp/pu && echo r >d/root && echo u >d/user && chown 1000:1000 d/user && chmod 600 d/* && mkdir d/sub && mount --bind sub d/sub`)
	t.Cleanup(func() { f.trySh("umount -q /var/tmp/pu/d/sub; rm -rf /var/tmp/pu") })
	run := func(options, user, script string) (string, int) {
		out, errs, code := f.trySh(fmt.Sprintf(`rkt run --net=none %s %s --user=%s --group=%s --mount volume=v,target=/v --exec /bin/sh -- -c '%s'`, options, busybox, user, user, script))
		return out + errs, code
	}
	look := `cd /v; for i in . root user; do stat -c "%n %u:%g" $i; done; cat root; echo x >new; stat -c "new %u:%g" new; echo y >sub/new; echo ended`
	const v = "--private-users --volume v,kind=host,source=/var/tmp/pu/d"
	for _, owner := range []string{"", ",owner=idmap"} {
		out, _ := run(v+owner, "0", look)
		contains(t, "owner "+owner, out, ". 0:0", "root 0:0", "user 1000:1000", "new 0:0", "ended")
		equal(t, "on disk", strings.Fields(f.sh("cd /var/tmp/pu; stat -c %u:%g d/new sub/new; rm d/new sub/new")), []string{"0:0", "0:0"})
	}
	out, _ := run(v+",owner=app", "33", look)
	contains(t, "owner app", out, ". 33:33", "root 33:33", "user 65534:65534", "new 33:33", "ended")
	equal(t, "on disk", strings.TrimSpace(f.sh("stat -c %u:%g /var/tmp/pu/d/new; rm -f /var/tmp/pu/*/new")), "0:0")
	out, _ = run("--volume v,kind=host,source=/var/tmp/pu/d,owner=app", "33", look)
	contains(t, "owner app without private users", out, ". 33:33", "new 33:33")
	f.sh("rm -f /var/tmp/pu/*/new")
	out, _ = run(v+",owner=host", "0", look)
	contains(t, "owner host", out, ". 65534:65534", "root 65534:65534", "ermission denied")
	out, _ = run(v+",owner=idmap,readOnly=true", "0", "cat /v/root; echo x >/v/new; echo x >/v/sub/new; echo ended")
	contains(t, "a read-only volume", out, "Read-only file system", "ended")
	equal(t, "files made in read-only volumes", strings.TrimSpace(f.sh("ls /var/tmp/pu/*/new 2>/dev/null || true")), "")
	// what cannot be mapped is an error if it was asked for, else a warning
	out, code := run("--private-users --volume v,kind=host,source=/proc/sys,owner=idmap", "0", "true")
	if contains(t, "owner idmap of /proc", out, `volume "v"`, "idmapped"); code != 254 {
		t.Errorf("owner idmap of /proc: status %d", code)
	}
	out, code = run("--private-users --volume v,kind=host,source=/proc/sys", "0", "true")
	if contains(t, "/proc as a volume", out, `volume "v"`, "belong to nobody"); code != 0 {
		t.Errorf("/proc as a volume: status %d", code)
	}
	for _, bad := range []string{"owner=root", "owner=app,owner=app"} {
		if out, code := run(v+","+bad, "0", "true"); code != 254 || !strings.Contains(out, "owner") {
			t.Errorf("%s: status %d, %s", bad, code, out)
		}
	}
	f.sh("umount /var/tmp/pu/d/sub")
	f.unchanged(before)
}

// check list: runtime 15
func TestPrivateUsersRefuse(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	for option, want := range map[string]string{
		"--user=65536": "user 65536", "--group=4294967294": "group 4294967294", "--supplementary-gids=5,70000": "group 70000",
	} {
		out, errs, code := f.trySh(fmt.Sprintf("rkt run --net=none --private-users %s --exec /bin/true %s", busybox, option))
		if code != 254 || !strings.Contains(errs, want) || !strings.Contains(errs, "private users") {
			t.Errorf("%s: status %d\n%s%s", option, code, out, errs)
		}
	}
	out, errs, code := f.trySh("rkt run --net=none --private-users --volume v,kind=empty,uid=65536 " + busybox + " --mount volume=v,target=/v --exec /bin/true")
	if code != 254 || !strings.Contains(errs, "65536") {
		t.Errorf("an empty volume of another's: status %d\n%s%s", code, out, errs)
	}
	out, errs, code = f.trySh("rkt run --net=none --private-users " + busybox + " --exec /bin/id --user=/bin/busybox --group=/tmp")
	if contains(t, "the owner of a file as user", out+errs, "uid=0", "gid=0"); code != 0 {
		t.Errorf("the owner of a file as user: status %d", code)
	}
	out, errs, code = f.trySh("rkt run --net=none --private-users " + busybox + " --exec /bin/sh --user=65535 --group=65535 --supplementary-gids=65535,0 -- -c 'id -u; id -G'")
	if contains(t, "the last ids", out+errs, "65535", "65535 0"); code != 0 {
		t.Errorf("the last ids: status %d", code)
	}
	f.unchanged(before)
}

// No two of many pods prepared at once have a range in common, and collecting
// the pods frees all.
func TestPrivateUsersNeverShared(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.sh(`rkt fetch ` + busybox + ` >/dev/null; for i in $(seq 50); do rkt prepare --quiet --private-users ` + busybox + ` --exec /bin/true >/dev/null & done
		rkt prepare --quiet --private-users ` + busybox + ` --exec /bin/true >/dev/null & pid=$!; kill -9 $pid; wait`)
	all := sorted(f.sh("cat /var/lib/rkt/pods/*/*/private-users-prepared"))
	if len(all) < 50 {
		t.Errorf("%d ranges of 50 pods", len(all))
	}
	for i, r := range all {
		if i > 0 && all[i-1] == r {
			t.Errorf("two pods have %s", r)
		}
		first, _, _ := strings.Cut(r, ":")
		if n, err := strconv.Atoi(first); err != nil || n%65536 != 0 || n < 1879048192 || n > 2147418111 {
			t.Errorf("a pod has %s", r)
		}
	}
	uuid := strings.TrimSpace(f.sh("ls /var/lib/rkt/pods/prepared | head -1"))
	want := strings.TrimSpace(f.sh("cat /var/lib/rkt/pods/prepared/" + uuid + "/private-users-prepared"))
	f.sh("rkt run-prepared --net=none " + uuid)
	equal(t, "the range of a pod that ran", strings.TrimSpace(f.sh("cat /var/lib/rkt/pods/run/"+uuid+"/private-users-prepared")), want)
	f.gc()
	equal(t, "ranges after gc", strings.TrimSpace(f.sh("find /var/lib/rkt/pods -name private-users-prepared | wc -l")), "0")
	f.unchanged(before)
}

// In a network of the pod an app of private users binds low ports, is reached
// by a published one, and pings.
func TestPrivateUsersNetwork(t *testing.T) {
	f := open(t)
	declare := func() {
		f.declare("pu-net", m{"apps": []m{app("web", `mkdir -p /www; echo hello >/www/index.html; ls /sys/class/net; exec httpd -f -p 80 -h /www`,
			m{"app": m{"exec": []string{"/bin/sh"}, "user": "0", "group": "0", "ports": []m{{"name": "http", "port": 80, "protocol": "tcp"}}}})},
			"ports": []string{"http:18080"}})
		f.start("pu-net")
	}
	declare() // the first makes chains of the firewall that stay
	f.forget("pu-net")
	before := f.snapshot()
	declare()
	f.shift("pu-net")
	f.Eventually(t, soon, "bash", "-c", `curl -sf --max-time 2 http://127.0.0.1:18080/ | grep -q hello`)
	log := f.appLog("pu-net", "web")
	contains(t, "the app's log", log, "eth0")
	// as ping does it: a socket for echo requests, without any capability
	contains(t, "a socket for pings", f.sh(`leader=$(machinectl show --value -p Leader pu-net)
		nsenter -t $leader -U -n -S 1000 -G 1000 perl -MSocket -e 'socket(S, AF_INET, SOCK_DGRAM, 1) or die $!; print "made"'`), "made")
	equal(t, "the host's sysctl", strings.TrimSpace(f.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start")), "1024")
	f.forget("pu-net")
	f.unchanged(before)
}

// Every line of every short-lived process is filed under the pod's unit, also
// after the app's end and new start by the pod's restart.
func TestPrivateUsersJournal(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("pu-log", pod(app("a", `for i in $(seq 200); do /bin/busybox echo a-$i; done; /bin/busybox echo a-all; exec sleep 1000`),
		app("b", `for i in $(seq 200); do /bin/busybox echo b-$i >&2; done; /bin/busybox echo b-all; exec sleep 1000`)))
	f.start("pu-log")
	f.shift("pu-log")
	for _, a := range []string{"a", "b"} {
		f.waitLog("pu-log", a, a+"-all")
		equal(t, "lines of "+a, len(strings.Fields(f.appLog("pu-log", a))), 201)
	}
	f.forget("pu-log")
	f.unchanged(before)
}

// A killed pod leaves nothing, and is started again with another range.
func TestPrivateUsersKilled(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("pu-kill", pod(app("a", "exec sleep 1000")))
	f.start("pu-kill")
	first := f.shift("pu-kill")
	f.sh("systemctl kill --signal=KILL --kill-who=all rkt@pu-kill")
	f.ended("rkt@pu-kill")
	f.systemctl("reset-failed", "rkt@pu-kill")
	f.start("pu-kill")
	if again := f.shift("pu-kill"); again == first && f.podOf("pu-kill", "exited") != nil {
		t.Errorf("two pods have the range of %d", first)
	}
	f.forget("pu-kill")
	f.unchanged(before)
}

// redis, with its state in a volume of the host, keeps it over a restart.
func TestPrivateUsersRedis(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	image := f.image("redis", "redis")
	f.sh("rm -rf /var/tmp/pu-redis; mkdir -m 700 /var/tmp/pu-redis")
	defer f.sh("rm -rf /var/tmp/pu-redis")
	f.declare("pu-redis", m{"apps": []m{{"name": "redis", "image": image, "user": "999", "group": "999",
		"exec":   []string{"/usr/bin/redis-server", "--port", "0", "--unixsocket", "/tmp/s", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always"},
		"mounts": []string{"volume=data,target=/data"}}}, "volumes": []string{"data,kind=host,source=/var/tmp/pu-redis,owner=app"}, "rkt": m{"net": "none"}})
	f.start("pu-redis")
	f.shift("pu-redis")
	cli := "rkt exec pu-redis -- /usr/bin/redis-cli -s /tmp/s "
	f.Eventually(t, soon, "bash", "-c", cli+"set k kept | grep OK")
	f.stop("pu-redis")
	equal(t, "owners on disk", strings.TrimSpace(f.sh("find /var/tmp/pu-redis -printf '%U:%G\n' | sort -u")), "0:0")
	f.start("pu-redis")
	f.Eventually(t, soon, "bash", "-c", cli+"get k | grep kept")
	f.forget("pu-redis")
	f.unchanged(before)
}

//go:build boot

package boot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// recorder is a plugin that notes how it was called, and can be told to fail.
const recorder = `#!/bin/sh
in=$(cat)
[ "$CNI_COMMAND" != VERSION ] || { echo '{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.2.0","0.3.1","0.4.0","1.0.0"]}'; exit; }
env | grep '^CNI_' | sort >>/run/recorded
echo "here=$(readlink /proc/self/ns/net) there=$(stat -Lc %i "$CNI_NETNS" 2>/dev/null) lock=${RKT_LOCK_FD-none}" >>/run/recorded
[ -z "$(cat /run/recorder.fail 2>/dev/null)" ] || { echo '{"cniVersion":"1.0.0","code":101,"msg":"the recorder is out of tape","details":"buy some"}'; exit 1; }
[ ! -e /run/recorder.daemon ] || { sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >/run/recorder.pid; }
[ "$CNI_COMMAND" != ADD ] || [ ! -e /run/recorder.slow ] || sleep 1000
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[]}'
`

// p2p is a network of its own with addresses of its own.
func p2p(name string, n int) m {
	return m{"cniVersion": "1.0.0", "name": name, "plugins": []m{{"type": "ptp", "ipMasq": true, "ipam": m{"type": "host-local", "subnet": fmt.Sprintf("10.78.%d.0/24", n)}}}}
}

func recorded(name string) m {
	return m{"cniVersion": "1.0.0", "name": name, "plugins": []m{{"type": "recorder"}}}
}

// life opens the host with the plugin and clean notes.
func life(t *testing.T) *fixture {
	f := open(t)
	f.Write(t, "/etc/rkt/net.d/recorder", 0o755, []byte(recorder))
	clean := "[ ! -e /run/recorder.pid ] || kill $(cat /run/recorder.pid) 2>/dev/null; rm -f /run/recorded /run/recorder.*"
	f.sh(clean + " || true")
	t.Cleanup(func() { f.sh("rm -f /etc/rkt/net.d/recorder; " + clean + " || true") })
	// what the first pod, and the first "ip netns add", leave for good
	f.sh("ip netns add life; ip netns delete life; timeout 60 rkt run --net=default " + busybox + " --exec /bin/true >/dev/null; rkt gc --grace-period=0s >/dev/null 2>&1")
	return f
}

// check list: networking 10, 11, 28
func TestPluginsAreCalled(t *testing.T) {
	f := life(t)
	f.network("50-rec.conflist", recorded("rec"))
	before := f.snapshot()
	uuid := func() string { return strings.TrimSpace(f.Read(t, "/run/life.uuid")) }
	_, all, code := f.runPod(append([]string{"--uuid-file-save=/run/life.uuid", "--net=rec:FOO=bar;X=y"}, bb("true")...)...)
	if code != 0 {
		t.Fatalf("status %d\n%s", code, all)
	}
	add := f.Read(t, "/run/recorded")
	contains(t, "ADD", add, "CNI_COMMAND=ADD\n", "CNI_CONTAINERID="+uuid()+"\n", "CNI_IFNAME=eth0\n", "CNI_NETNS=/run/netns/rkt-"+uuid()+"\n", "CNI_ARGS=FOO=bar;X=y\n", "CNI_PATH=/etc/rkt/net.d:", "lock=none")
	host := strings.TrimSpace(f.Run(t, "readlink", "/proc/1/ns/net"))
	contains(t, "the plugin's namespace", add, "here="+host+" ")
	lacks(t, "the pod's namespace", add, "there= ")
	f.sh("rm /run/recorded")
	f.gc()
	del := f.Read(t, "/run/recorded")
	contains(t, "DEL", del, "CNI_COMMAND=DEL\n", "CNI_CONTAINERID="+uuid()+"\n", "CNI_IFNAME=eth0\n", "CNI_NETNS=/run/netns/rkt-"+uuid()+"\n", "CNI_ARGS=FOO=bar;X=y\n", "CNI_PATH=/etc/rkt/net.d:")

	t.Run("another configuration directory", func(t *testing.T) {
		f.sh("rm /run/recorded; mkdir -p /var/tmp/conf/net.d; cp -a /etc/rkt/trustedkeys /var/tmp/conf/; cp /etc/rkt/net.d/recorder /var/tmp/conf/net.d/taper")
		defer f.sh("rm -rf /var/tmp/conf")
		f.networkIn("/var/tmp/conf/net.d", "10-moved.conflist", m{"cniVersion": "1.0.0", "name": "moved", "plugins": []m{{"type": "taper"}}})
		stdout, stderr, code := f.Try(append([]string{"rkt", "--local-config=/var/tmp/conf", "run", "--net=moved"}, bb("true")...)...)
		if code != 0 {
			t.Fatalf("status %d\n%s%s", code, stdout, stderr)
		}
		f.refused(t, []string{"networks not found: rec"}, append([]string{"--local-config=/var/tmp/conf", "run", "--net=rec"}, bb("true")...)...)
		f.Run(t, "rkt", "--local-config=/var/tmp/conf", "gc", "--grace-period=0s")
		equal(t, "calls", f.sh("grep -E 'COMMAND|PATH' /run/recorded | cut -d: -f1"), "CNI_COMMAND=ADD\nCNI_PATH=/var/tmp/conf/net.d\nCNI_COMMAND=DEL\nCNI_PATH=/var/tmp/conf/net.d\n")
	})
	t.Run("a plugin that leaves a daemon", func(t *testing.T) {
		f.sh("touch /run/recorder.daemon")
		_, all, code := f.runPod(append([]string{"--uuid-file-save=/run/life.uuid", "--net=rec"}, bb("true")...)...)
		if code != 0 {
			t.Fatalf("status %d\n%s", code, all)
		}
		f.sh("kill -0 $(cat /run/recorder.pid)")
		equal(t, "the pod", f.state(uuid()), "exited")
		f.sh("kill $(cat /run/recorder.pid); rm /run/recorder.daemon /run/recorder.pid")
		f.gc()
	})
	f.unchanged(before)
}

// A network that fails takes back those before it.
//
// check list: networking 6, 26
func TestFailedNetwork(t *testing.T) {
	f := life(t)
	f.network("40-good.conflist", p2p("good", 1))
	f.network("50-rec.conflist", recorded("rec"))
	before := f.snapshot()
	f.sh("echo yes >/run/recorder.fail")
	f.refused(t, []string{"failed to setup network", `"rec"`, "the recorder is out of tape; buy some"}, append([]string{"run", "--net=good,rec"}, bb("true")...)...)
	contains(t, "calls", f.Read(t, "/run/recorded"), "CNI_COMMAND=ADD", "CNI_COMMAND=DEL")
	equal(t, "addresses", f.sh("find /var/lib/cni/networks/good -name '10.*'"), "")
	equal(t, "namespaces, links, rules", f.sh("ls /run/netns; ip -br link | grep -c veth || true; iptables-save | grep -c '10.78.1' || true"), "0\n0\n")
	f.sh("rm /run/recorder.fail")
	f.gc() // what the failing plugin did not say at DEL is asked again
	f.unchanged(before)
}

// Pods that start at once get different addresses, see each other, and leave nothing.
//
// check list: networking 16, 22
func TestManyNetworkedPods(t *testing.T) {
	f := life(t)
	f.Alone(t)
	before := f.snapshot()
	text, err := json.Marshal(m{"apps": []m{server("app")}, "rkt": m{"net": "default"}})
	if err != nil {
		t.Fatal(err)
	}
	f.Write(t, "/run/many.json", 0o644, text)
	var names, units []string
	for i := range many {
		names = append(names, fmt.Sprintf("crowd%d", i))
		units = append(units, "rkt@"+names[i]+".service")
	}
	t.Cleanup(func() { f.forget(names...) })
	f.sh("for i in $(seq 0 " + fmt.Sprint(many-1) + "); do cp /run/many.json /etc/rkt/pods/crowd$i.json; done; systemctl daemon-reload")
	begin := time.Now()
	f.RunFor(t, 5*time.Minute, append([]string{"systemctl", "start"}, units...)...)
	t.Logf("%d pods started in %v", many, time.Since(begin).Round(time.Millisecond))
	equal(t, "addresses", strings.TrimSpace(f.sh(`rkt list --format=json | grep -o '"ip":"[^"]*"' | sort -u | wc -l`)), fmt.Sprint(many))
	for _, name := range []string{names[0], names[many-1]} {
		equal(t, "names in "+name, strings.Count(f.peers(name), "\n"), many-1)
	}
	equal(t, "all answer", strings.TrimSpace(f.sh(fmt.Sprintf("for i in {0..%d}; do timeout 30 rkt exec crowd0 -- wget -q -O - http://crowd$i:8080/; done | grep -c app || true", many-1))), fmt.Sprint(many))
	begin = time.Now()
	f.RunFor(t, 5*time.Minute, append([]string{"systemctl", "stop"}, units...)...)
	t.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
	f.forget(names...)
	f.unchanged(before)
}

// TestNamespaces: their names, whose they are, and take-over.
func TestNamespaces(t *testing.T) {
	f := life(t)
	before := f.snapshot()
	f.declare("spaced", serverPod("spaced", "default"))
	f.start("spaced")
	inside := strings.TrimSpace(f.Run(t, "rkt", "exec", "spaced", "--", "readlink", "/proc/self/ns/net"))
	equal(t, "ip netns exec", strings.TrimSpace(f.Run(t, "ip", "netns", "exec", "spaced", "readlink", "/proc/self/ns/net")), inside)
	contains(t, "ip netns list", f.Run(t, "ip", "netns", "list"), "spaced")
	dir := "/var/lib/rkt/pods/run/" + f.uuid("spaced")
	equal(t, "the file netns", f.Read(t, dir+"/netns"), "/run/netns/spaced")
	equal(t, "unmounting propagates", f.sh("unshare -m --propagation slave bash -c 'systemctl stop rkt@spaced; grep -c netns/spaced /proc/self/mountinfo || true'"), "0\n")

	t.Run("foreign", func(t *testing.T) {
		f.sh("ip netns add spaced")
		defer f.sh("ip netns delete spaced 2>/dev/null || true")
		inode := f.Run(t, "stat", "-Lc", "%i", "/run/netns/spaced")
		if _, _, code := f.Try("systemctl", "start", "rkt@spaced"); code == 0 {
			t.Error("the pod starts")
		}
		contains(t, "the message", f.journal("-u", "rkt@spaced", "--since", f.since), `"/run/netns/spaced" is not rkt's: remove it with "ip netns delete spaced", or give the pod another name`)
		f.gc()
		equal(t, "the foreign namespace", f.Run(t, "stat", "-Lc", "%i", "/run/netns/spaced"), inode)
		f.sh("ip netns delete spaced; systemctl reset-failed rkt@spaced")
		f.start("spaced")
		// deleted and made again by hand while the pod runs: not the pod's any more
		f.sh("ip netns delete spaced; ip netns add spaced")
		inode = f.Run(t, "stat", "-Lc", "%i", "/run/netns/spaced")
		f.stop("spaced")
		f.gc()
		equal(t, "the foreign namespace", f.Run(t, "stat", "-Lc", "%i", "/run/netns/spaced"), inode)
	})
	t.Run("take-over", func(t *testing.T) {
		// a pod that ends without anybody tearing it down
		f.sh("mkdir -p /run/systemd/system/rkt@spaced.service.d; printf '[Service]\nExecStopPost=\n' >/run/systemd/system/rkt@spaced.service.d/no-stop-post.conf; systemctl daemon-reload")
		f.start("spaced")
		old := f.uuid("spaced")
		f.stop("spaced")
		equal(t, "the namespace stays", f.sh("ls /run/netns"), "spaced\n")
		f.sh("rm -r /run/systemd/system/rkt@spaced.service.d/no-stop-post.conf; systemctl daemon-reload")
		f.start("spaced")
		inside := strings.TrimSpace(f.Run(t, "rkt", "exec", "spaced", "--", "readlink", "/proc/self/ns/net"))
		equal(t, "the state of the old pod", f.state(old), "exited")
		f.gc()
		equal(t, "after the old one's tear-down", strings.TrimSpace(f.Run(t, "ip", "netns", "exec", "spaced", "readlink", "/proc/self/ns/net")), inside)
		equal(t, "addresses", strings.TrimSpace(f.sh("find /var/lib/rkt/cni/default -name '172.*' | wc -l")), "1")
		f.Run(t, "rkt", "exec", "spaced", "--", "wget", "-q", "-O", "/dev/null", "http://spaced:8080/")
	})
	t.Run("in use by a pod of another data directory", func(t *testing.T) {
		f.sh("cp -a /etc/rkt /var/tmp/conf2")
		defer f.sh("rkt --dir=/var/tmp/data2 gc --grace-period=0s --expire-prepared=0s >/dev/null 2>&1; rm -rf /var/tmp/conf2 /var/tmp/data2")
		f.refused(t, []string{`the network namespace "/run/netns/spaced" is in use by pod spaced (rkt@spaced.service)`},
			"--dir=/var/tmp/data2", "pod", "run", "spaced")
		f.Run(t, "rkt", "exec", "spaced", "--", "wget", "-q", "-O", "/dev/null", "http://spaced:8080/")
	})
	f.forget("spaced")
	f.unchanged(before)
}

// Whatever happened to the pod, its plugins or the host, gc leaves nothing.
//
// check list: networking 22, 27, 29
func TestTeardown(t *testing.T) {
	f := life(t)
	f.network("40-mine.conflist", p2p("mine", 2))
	f.network("50-rec.conflist", recorded("rec"))
	f.declare("bystander", serverPod("bystander", "default", "http:18090"))
	f.start("bystander")
	f.sh("timeout 60 rkt run --net=mine " + busybox + " --exec /bin/true >/dev/null 2>&1; rkt gc --grace-period=0s >/dev/null 2>&1")
	before := f.snapshot()
	// dead is a pod that was killed, with all of its unit or scope
	dead := func(nets string) string {
		t.Helper()
		uuid := f.background(append([]string{"--net=" + nets, "--port=8080-tcp:18091"}, f.httpImage()...)...)
		f.sh("rkt stop --force " + uuid + " >/dev/null; rkt status --wait=60s " + uuid + " >/dev/null")
		return uuid
	}
	gc := func() string {
		t.Helper()
		out := f.sh("rkt gc --grace-period=0s 2>&1")
		equal(t, "a second gc", f.sh("rkt gc --grace-period=0s 2>&1"), "")
		return out
	}
	t.Run("killed", func(t *testing.T) {
		dead("default,mine")
		lacks(t, "gc", gc(), "rror", "warn")
		f.unchanged(before)
	})
	t.Run("rebooted", func(t *testing.T) {
		uuid := dead("default,mine")
		// what a reboot does to the host, as far as this pod is concerned
		f.sh("umount /run/netns/rkt-" + uuid + "; rm /run/netns/rkt-" + uuid + " /run/rkt/net/" + uuid)
		lacks(t, "gc", gc(), "rror", "netns", "warn")
		f.unchanged(before)
	})
	t.Run("the plugins vanished", func(t *testing.T) {
		dead("default,mine,rec")
		f.sh("mv /etc/rkt/net.d/recorder /run/recorder.away; mkdir -p /run/away; mount --bind /run/away /usr/lib/cni")
		out := f.sh("rkt gc --grace-period=0s 2>&1; umount /usr/lib/cni; rmdir /run/away; mv /run/recorder.away /etc/rkt/net.d/recorder")
		contains(t, "gc", out, `leaving network "mine": the plugins`, `leaving network "rec": the plugins recorder have been removed`, "Garbage collecting pod")
		f.unchanged(before)
	})
	t.Run("the configuration was emptied", func(t *testing.T) {
		dead("default,mine")
		f.sh("mkdir /run/net.d.away; mv /etc/rkt/net.d/*.conflist /run/net.d.away/")
		out := gc()
		f.sh("mv /run/net.d.away/* /etc/rkt/net.d/; rmdir /run/net.d.away")
		lacks(t, "gc", out, "rror", "warn")
		f.unchanged(before)
	})
	t.Run("a plugin fails", func(t *testing.T) {
		uuid := dead("mine,rec")
		f.sh("echo yes >/run/recorder.fail")
		out, errs, _ := f.trySh("rkt gc --grace-period=0s 2>&1")
		contains(t, "gc", out+errs, "the recorder is out of tape", "the next gc tries again")
		equal(t, "the pod", f.state(uuid), "exited garbage")
		equal(t, "namespaces", f.sh("ls /run/netns"), "bystander\n")
		f.sh("rm /run/recorder.fail")
		gc()
		f.unchanged(before)
	})
	t.Run("the pod directory was removed", func(t *testing.T) {
		uuid := dead("default,mine")
		f.sh("rm -rf /var/lib/rkt/pods/run/" + uuid)
		contains(t, "gc", gc(), "removing the network of pod "+uuid+", whose directory is gone")
		// nspawn's own
		f.sh("cd /run/systemd/nspawn; umount unix-export/rkt-" + uuid + " 2>/dev/null || true; rmdir {propagate,unix-export}/rkt-" + uuid + " 2>/dev/null || true")
		f.unchanged(before)
	})
	t.Run("an address that nobody has", func(t *testing.T) {
		f.sh("printf '11111111-2222-4333-8444-555555555555\r\neth0' >/var/lib/rkt/cni/default/172.16.28.200; printf 'somebody\r\neth0' >/var/lib/rkt/cni/default/172.16.28.201")
		contains(t, "gc", gc(), "freed the address 172.16.28.200 of network default")
		equal(t, "that of another program", f.sh("ls /var/lib/rkt/cni/default/172.16.28.20*; rm -f /var/lib/rkt/cni/default/172.16.28.201"), "/var/lib/rkt/cni/default/172.16.28.201\n")
	})
	equal(t, "the bystander", f.sh("curl -sf http://127.0.0.1:18090/"), "bystander\n")
	f.unchanged(before)
	f.forget("bystander")
}

// check list: networking 30, 31
func TestInsideTheNamespace(t *testing.T) {
	f := life(t)
	before := f.snapshot()
	for _, private := range []bool{false, true} {
		p := serverPod("inside", "default")
		p["rkt"].(m)["privateUsers"] = private
		web := p["apps"].([]m)[0]["app"].(m)
		web["eventHandlers"] = []m{{"name": "pre-start", "exec": []string{"/bin/sh", "-c", "readlink /proc/self/ns/net >/tmp/pre"}}}
		f.declare("inside", p)
		f.start("inside")
		equal(t, fmt.Sprintf("links (private users: %v)", private), f.Run(t, "rkt", "exec", "inside", "--", "ls", "/sys/class/net"), "eth0\nlo\n")
		ns := f.Run(t, "ip", "netns", "exec", "inside", "readlink", "/proc/self/ns/net")
		equal(t, "rkt exec", f.Run(t, "rkt", "exec", "inside", "--", "readlink", "/proc/self/ns/net"), ns)
		equal(t, "rkt enter", f.Run(t, "rkt", "enter", "inside", "/bin/readlink", "/proc/self/ns/net"), ns)
		equal(t, "the event handler", f.Run(t, "rkt", "exec", "inside", "--", "cat", "/tmp/pre"), ns)
		equal(t, "the app", f.Run(t, "rkt", "exec", "inside", "--", "sh", "-c", "readlink /proc/$(pidof httpd)/ns/net"), ns)
		f.forget("inside")
	}
	// an app that a socket of the host starts
	p := serverPod("inside", "default", "http:18099")
	web := p["apps"].([]m)[0]["app"].(m)
	web["exec"] = []string{"/bin/sh", "-c", "readlink /proc/self/ns/net >/tmp/ns; echo $LISTEN_FDS >>/tmp/ns; " + forever(0)}
	web["ports"] = []m{{"name": "http", "port": 8080, "protocol": "tcp", "socketActivated": true}}
	f.declare("inside", p)
	f.Write(t, "/run/systemd/system/inside.socket", 0o644, []byte("[Socket]\nListenStream=127.0.0.1:18099\nService=rkt@inside.service\n"))
	f.sh("systemctl daemon-reload; systemctl start inside.socket; (exec 3<>/dev/tcp/127.0.0.1/18099); for i in {1..1200}; do systemctl is-active -q rkt@inside && exit; sleep 0.05; done; exit 1")
	f.Eventually(t, soon, "bash", "-c", `[ "$(rkt exec inside -- cat /tmp/ns)" = "$(ip netns exec inside readlink /proc/self/ns/net; echo 1)" ]`)
	f.sh("systemctl stop inside.socket rkt@inside; rm /run/systemd/system/inside.socket; systemctl daemon-reload")
	f.forget("inside")

	uuid := f.sandbox("--net=default")
	f.add(uuid, "late", "readlink /proc/self/ns/net >/tmp/ns; "+forever(0))
	f.app("start", uuid, "late")
	f.Eventually(t, soon, "bash", "-c", `[ "$(rkt exec --app=late `+uuid+` -- cat /tmp/ns)" = "$(ip netns exec rkt-`+uuid+` readlink /proc/self/ns/net)" ]`)
	f.sh("systemctl stop sandbox")
	f.unchanged(before)
}

// A pod is killed while its networks are being joined: the tear-down ends that first.
func TestTeardownEndsAJoin(t *testing.T) {
	f := life(t)
	f.network("40-mine.conflist", p2p("mine", 5))
	f.network("50-rec.conflist", recorded("rec"))
	f.sh("timeout 60 rkt run --net=mine " + busybox + " --exec /bin/true >/dev/null 2>&1; rkt gc --grace-period=0s >/dev/null 2>&1")
	before := f.snapshot()
	defer f.sh("rm -f /run/recorder.slow")
	begun := func() {
		t.Helper()
		f.Eventually(t, soon, "grep", "-q", "CNI_COMMAND=ADD", "/run/recorded")
	}
	t.Run("by hand", func(t *testing.T) {
		f.sh("touch /run/recorder.slow; rm -f /run/slow.uuid; setsid rkt run --net=mine,rec --uuid-file-save=/run/slow.uuid " + busybox + " --exec /bin/true </dev/null >/dev/null 2>&1 &")
		begun()
		f.sh(`dir=/var/lib/rkt/pods/run/$(cat /run/slow.uuid); for i in {1..1200}; do [ -s $dir/ppid ] && break; sleep 0.05; done; kill -9 $(cat $dir/ppid)
			for i in {1..1200}; do rkt status --uuid-file=/run/slow.uuid | grep -q state=exited && break; sleep 0.05; done`)
		begin := time.Now()
		f.gc()
		if d := time.Since(begin); d > 50*time.Second {
			t.Errorf("gc took %v", d)
		}
		equal(t, "what joins", f.sh("pgrep -f '[r]kt-stage1|[s]leep 1000' || true; rm -f /run/slow.uuid"), "")
		f.unchanged(before)
	})
	t.Run("a service", func(t *testing.T) {
		f.sh("rm -f /run/recorded")
		f.declare("slow", serverPod("slow", "mine,rec"))
		f.systemctl("start", "--no-block", "rkt@slow")
		begun()
		f.sh("systemctl stop rkt@slow")
		equal(t, "names and namespaces", f.sh("ls /run/netns; find /run/rkt/net -mindepth 1 ! -name '.lock*'"), "")
		f.sh("rm -f /run/recorder.slow")
		f.start("slow")
		f.forget("slow")
		f.unchanged(before)
	})
}

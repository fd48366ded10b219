//go:build boot

package boot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// dual is a bridge with addresses of both families.
func dual(name string, n int) m {
	return m{"cniVersion": "1.0.0", "name": name, "plugins": []m{{"type": "bridge", "bridge": fmt.Sprint("rktnames", n), "isGateway": true,
		"ipam": m{"type": "host-local", "dataDir": "/var/lib/rkt/cni", "ranges": [][]m{{{"subnet": fmt.Sprintf("10.77.%d.0/24", n)}}, {{"subnet": fmt.Sprintf("fd77:%d::/64", n)}}}}}}}
}

// network writes a network's configuration, which goes with the test.
func (f *fixture) network(file string, conf any) {
	f.t.Helper()
	f.networkIn("/etc/rkt/net.d", file, conf)
	f.t.Cleanup(func() { f.sh("rm -f /etc/rkt/net.d/" + file) })
}

func (f *fixture) networkIn(dir, file string, conf any) {
	f.t.Helper()
	b, err := json.Marshal(conf)
	if err != nil {
		f.t.Fatal(err)
	}
	f.sh("mkdir -p " + dir)
	f.Write(f.t, dir+"/"+file, 0o644, b)
}

// peers is the part of an app's hosts file that names other pods.
func (f *fixture) peers(pod string, more ...string) string {
	f.t.Helper()
	text := f.Run(f.t, append(append([]string{"rkt", "exec"}, more...), pod, "--", "cat", "/etc/hosts")...)
	_, lines, _ := strings.Cut(text, "# Pods on the same networks; written by rkt.\n")
	return lines
}

// Pods of a network find each other by name, in every way a pod can be run.
//
// check list: networking 13, 31
func TestPodsFindEachOther(t *testing.T) {
	f := open(t)
	f.network("10-one.conflist", dual("one", 1))
	f.network("20-two.conflist", dual("two", 2))
	defer f.trySh("ip link del rktnames1 2>/dev/null; ip link del rktnames2 2>/dev/null; true")
	f.declare("warm", serverPod("warm", "one,two"))
	f.start("warm")
	f.forget("warm")
	before := f.snapshot()
	names := func(what, got string, want ...string) {
		t.Helper()
		var have []string
		for line := range strings.Lines(got) {
			w := strings.Fields(line)
			family, at := "4", len("10.77.")
			if strings.Contains(w[0], ":") {
				family, at = "6", len("fd77:")
			}
			have = append(have, strings.Join(w[1:], " ")+"/"+family+"/"+w[0][at:at+1])
		}
		equal(t, what, strings.Join(have, " "), strings.Join(want, " "))
	}
	reach := func(from, host string) {
		t.Helper()
		equal(t, from+" asks "+host, f.sh(fmt.Sprintf("for i in {1..1200}; do timeout 30 rkt exec %s -- wget -q -O - http://%s:8080/ 2>/dev/null && exit; sleep 0.05; done; rkt exec %[1]s -- cat /etc/hosts", from, host)), strings.TrimSuffix(host, ".example")+"\n")
	}

	f.declare("na", serverPod("na", "one,two"))
	private := serverPod("nb", "two")
	private["rkt"].(m)["privateUsers"] = true
	f.declare("nb", private)
	copied := serverPod("nc", []string{"one"})
	copied["rkt"].(m)["noOverlay"], copied["rkt"].(m)["hostname"] = true, "nc.example"
	copied["rkt"].(m)["hostsEntries"] = []string{"192.0.2.7=db"}
	f.declare("nc", copied)
	f.declare("nd", serverPod("nd", "default"))
	f.systemctl("start", "rkt@na", "rkt@nb", "rkt@nc", "rkt@nd")
	names("na", f.peers("na"), "nc nc.example/4/1", "nc nc.example/6/1", "nb/4/2", "nb/6/2")
	names("nb", f.peers("nb"), "na/4/2", "na/6/2")
	names("nc", f.peers("nc"), "na/4/1", "na/6/1")
	names("nd: in another network", f.peers("nd"))
	contains(t, "nc's file", f.Run(t, "rkt", "exec", "nc", "--", "cat", "/etc/hosts"), "192.0.2.7 db\n", "localhost4.localdomain4 nc.example\n")
	reach("na", "nc.example")
	reach("na", "nb")
	reach("nb", "na")
	reach("nc", "na")
	equal(t, "over IPv6", f.Run(t, "rkt", "exec", "na", "--", "sh", "-c", `wget -q -O - "http://[$(awk '/^fd77:1/ {print $1; exit}' /etc/hosts)]:8080/"`), "nc\n")
	equal(t, "its own name", f.Run(t, "rkt", "exec", "na", "--", "sh", "-c", "wget -q -O - http://na:8080/; grep -cw na /etc/hosts"), "na\n1\n")
	equal(t, "writing", f.Run(t, "rkt", "exec", "--user=root", "na", "--", "sh", "-c", "(echo x >>/etc/hosts) 2>&1 | grep -cE 'Read-only|denied'"), "1\n")

	// later: an app that comes, one that is restarted, a pod that is mutable
	uuid := f.sandbox("--net=one", "--hostname=box")
	f.add(uuid, "late", forever(0))
	f.app("start", uuid, "late")
	names("na", f.peers("na"), "nc nc.example/4/1", "nc nc.example/6/1", "rkt-"+uuid+" box/4/1", "rkt-"+uuid+" box/6/1", "nb/4/2", "nb/6/2")
	names("an app that was added", f.peers(uuid, "--app=late"), "na/4/1", "na/6/1", "nc nc.example/4/1", "nc nc.example/6/1")
	f.app("stop", uuid, "late")
	f.app("start", uuid, "late")
	f.stop("nc")
	names("na without nc", f.peers("na"), "rkt-"+uuid+" box/4/1", "rkt-"+uuid+" box/6/1", "nb/4/2", "nb/6/2")
	names("a started again app", f.peers(uuid, "--app=late"), "na/4/1", "na/6/1")
	f.sh("systemctl stop sandbox; rkt gc --mark-only")

	// killed: its unit, or gc, tears it down
	f.sh("systemctl kill -s KILL --kill-who=all rkt@nb; for i in {1..1200}; do systemctl is-failed -q rkt@nb && exit; sleep 0.05; done; exit 1")
	names("na without nb", f.peers("na"))
	id := f.background(append([]string{"--net=one", "--hostname=hand"}, bb(forever(0))...)...)
	names("na with one by hand", f.peers("na"), "rkt-"+id+" hand/4/1", "rkt-"+id+" hand/6/1")
	f.sh("rkt stop --force " + id + "; rkt status --wait=60s " + id + " >/dev/null")
	names("na until it is torn down", f.peers("na"), "rkt-"+id+" hand/4/1", "rkt-"+id+" hand/6/1")
	f.gc()
	names("na after gc", f.peers("na"))

	t.Run("files that rkt does not write", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, dir+"/hosts", "192.0.2.99 own\n")
		own := f.image("ownhosts", "busybox", "--name", "example.com/ownhosts", "--file", dir+"/hosts:/etc/hosts")
		out, all, code := f.runPod("--net=one", own, "--exec=/bin/cat", "--", "/etc/hosts")
		if code != 0 || out != "192.0.2.99 own\n" {
			t.Errorf("the image's own: status %d\n%s", code, all)
		}
		out, all, code = f.runPod("--net=one", "--hosts-entry=192.0.2.5=x", own, "--exec=/bin/cat", "--", "/etc/hosts")
		if code != 0 || !strings.Contains(out, "192.0.2.5 x\n") || !strings.Contains(out, " na\n") {
			t.Errorf("with entries: status %d\n%s", code, all)
		}
		out, all, code = f.runPod(append([]string{"--net=one", "--hosts-entry=host"}, bb("cat /etc/hosts")...)...)
		if code != 0 || out != f.Read(t, "/etc/hosts") {
			t.Errorf("the host's: status %d\n%s", code, all)
		}
		if out := f.script(t, "cat /etc/hosts; grep -c rkt/hosts /proc/self/mountinfo || true", nil); strings.Contains(out, " na\n") {
			t.Errorf("--net=none:\n%s", out)
		}
	})
	equal(t, "the host's view", f.sh("getent -s mymachines hosts na | awk '{print $NF}' | sort -u"), "na\n")
	f.forget("na", "nb", "nc", "nd")
	f.unchanged(before)
}

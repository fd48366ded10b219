//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// bad is a plugin that misbehaves at ADD in the way that its configuration
// says, and writes down what it was asked.
const bad = `#!/bin/bash
conf=$(cat)
how=$(jq -r .how <<<"$conf")
echo "$CNI_COMMAND $how" >>/run/rkt-bad.log
[ "$CNI_COMMAND" = ADD ] || [ "$how" = hang-del ] || exit 0
case $how in
hang|hang-del) [ "$how$CNI_COMMAND" = hang-delADD ] || { echo $$ >/run/rkt-bad.pid; sleep 600 & sleep 600; } ;;
crash) kill -SEGV $$ ;;
junk) echo 'this is not JSON'; exit 3 ;;
junk-ok) echo 'this is not JSON'; exit 0 ;;
much) head -c 100000000 /dev/zero; exit 0 ;;
loud) head -c 100000000 /dev/zero | tr '\0' x >&2; echo '{"code":7,"msg":"loud and wrong"}'; exit 1 ;;
error) echo '{"cniVersion":"1.0.0","code":109,"msg":"no luck today","details":"try the other door"}'; exit 1 ;;
escape) printf '{"code":109,"msg":"a\\u001b[31mred\\nERROR: forged"}'; exit 1 ;;
busy) echo '{"code":11,"msg":"busy just now"}'; exit 1 ;;
busy-once) if [ ! -e /run/rkt-bad.once ]; then touch /run/rkt-bad.once; echo '{"code":11,"msg":"busy"}'; exit 1; fi ;;
nothing) exit 0 ;;
version) echo '{"cniVersion":"9.9.9","ips":[]}'; exit 0 ;;
addresses) echo '{"cniVersion":"1.0.0","ips":[{"address":"not an address"}]}'; exit 0 ;;
dns) echo '{"cniVersion":"1.0.0","dns":{"nameservers":["192.0.2.1\nnameserver 6.6.6.6"]}}'; exit 0 ;;
daemon) setsid sleep 600 & echo $! >/run/rkt-bad.pid ;;
esac
echo '{"cniVersion":"1.0.0","ips":[]}'
`

// badNetwork configures the network "bad".
func (f *fixture) badNetwork(how string) {
	f.t.Helper()
	f.netFile("bad-plugin", bad)
	f.netFile("10-bad.conf", `{"cniVersion":"1.0.0","name":"bad","type":"bad-plugin","how":"`+how+`"}`)
	f.t.Cleanup(func() { f.sh("rm -f /run/rkt-bad.*") })
}

// TestHostilePlugins: whatever a plugin does, the error is clear, the networks
// that were joined before are left, and nothing stays.
//
// check list: networking 6, 26
func TestHostilePlugins(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	firewall := f.firewall()
	f.settings(`"timeout":"8s"`)
	for how, want := range map[string]string{
		"hang":      "did not end within 8s and was killed",
		"crash":     "was killed by signal 11 (segmentation fault)",
		"junk":      `failed (exit status 3), and printed "this is not JSON" instead of an error`,
		"junk-ok":   `printed "this is not JSON" instead of a result`,
		"much":      "printed more than 1048576 bytes and was killed",
		"loud":      "loud and wrong",
		"error":     "no luck today; try the other door",
		"escape":    "a?[31mred ERROR: forged",
		"busy":      "busy just now",
		"nothing":   "ended without an error and without a result",
		"version":   "9.9.9",
		"addresses": "not an address",
		"dns":       "for resolv.conf, which is not one word",
	} {
		t.Run(how, func(t *testing.T) {
			f.badNetwork(how)
			f.settings(`"timeout":"8s"`)
			// joined after it is "default", before it "a-own": eth0
			f.netFile("05-own.conf", ownPTP)
			f.sh("rm -f /run/rkt-bad.*")
			stdout, stderr, code := f.Try(append([]string{"rkt", "run", "--net=default,bad,own", "--port=web:18080"}, pb("echo ran")...)...)
			all := stdout + stderr
			if code != 254 || strings.Contains(all, "ran\n") || len(all) > 200_000 {
				t.Errorf("status %d, %d bytes:\n%.3000s", code, len(all), all)
			}
			contains(t, "message", all, `failed to setup network: joining network "bad": `, want)
			lacks(t, "message", all, "panic", "goroutine", "\x1b")
			contains(t, "what the plugin was asked", f.Read(t, "/run/rkt-bad.log"), "ADD "+how, "DEL "+how)
			// at once, not by the collection of garbage only
			lacks(t, "addresses", f.sh("find /var/lib/rkt/cni -type f"), "10.81.0.", "172.16.28.")
			equal(t, "links", f.sh("ip -br link | grep -c veth || true"), "0\n")
			if how == "hang" {
				f.sh("! kill -0 $(cat /run/rkt-bad.pid) 2>/dev/null; ! pgrep -f '^sleep 600'")
			}
			f.noNetworks()
		})
	}
	f.gc()
	equal(t, "the packet filter", f.firewall(), firewall)
	f.sh("rm -f /run/rkt-bad.*")
	f.unchanged(before)
}

// TestSlowPlugins: a plugin that asks for patience gets it; one that hangs
// when it is to leave does not keep the others from it; one that leaves a
// daemon behind keeps nothing busy.
//
// check list: networking 28
func TestSlowPlugins(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.badNetwork("busy-once")
	equal(t, "after a second try", f.in(t, "--net=bad", "echo ran"), "ran\n")
	f.gc()

	f.badNetwork("daemon")
	equal(t, "with a daemon", f.in(t, "--net=bad", "echo ran"), "ran\n")
	f.sh("kill -0 $(cat /run/rkt-bad.pid)")
	lacks(t, "the list", f.rkt("list"), "running")
	f.gc()
	lacks(t, "the list after the collection", f.rkt("list", "--no-legend"), "app")
	f.sh("kill -9 $(cat /run/rkt-bad.pid)")

	f.badNetwork("hang-del")
	f.netFile("20-chain.conflist", `{"cniVersion":"1.0.0","name":"chain","plugins":[{"type":"ptp","ipam":{"type":"host-local","subnet":"10.81.0.0/24","dataDir":"/var/lib/rkt/cni"}},{"type":"bad-plugin","how":"hang-del"}]}`)
	f.settings(`"timeout":"5s"`)
	contains(t, "chain", f.ips(t, "--net=chain"), "eth0 10.81.0.")
	stdout, stderr, _ := f.Try("rkt", "gc", "--grace-period=0s")
	contains(t, "gc", stdout+stderr, `leaving network "chain"`, `plugin "bad-plugin" failed (delete): did not end within 5s and was killed`)
	equal(t, "addresses", f.sh("find /var/lib/rkt/cni -name '10.81.*'"), "")
	f.netFile("bad-plugin", strings.ReplaceAll(bad, `|| [ "$how" = hang-del ]`, ""))
	f.gc()
	f.sh("rm -f /run/rkt-bad.*")
	f.noNetworks()
	f.unchanged(before)
}

// TestNetworkLimits: an exhausted network, one that is taken, names that do
// not fit.
//
// check list: networking 6, 15, 26
func TestNetworkLimits(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	t.Cleanup(func() { f.removeLink("rkttest0") })
	f.netFile("10-small.conf", `{"cniVersion":"1.0.0","name":"small","type":"ptp","ipam":{"type":"host-local","subnet":"10.81.0.0/24","rangeStart":"10.81.0.5","rangeEnd":"10.81.0.5","dataDir":"/var/lib/rkt/cni"}}`)
	f.declare("first", f.peerPod("first", "small", nil, "tcp::80"))
	f.start("first")
	f.refused(t, []string{`joining network "small"`, "no IP addresses available in range set: 10.81.0.5-10.81.0.5"}, append([]string{"run", "--net=small"}, pb("echo ran")...)...)
	contains(t, "the first one", f.peerAsk("tcp", "10.81.0.5:80"), "first sees")
	f.forget("first")
	for name, c := range map[string][2]string{
		"bridge name": {`{"cniVersion":"1.0.0","name":"x","type":"bridge","bridge":"a-name-of-more-than-fifteen","ipam":{}}`, "a-name-of-more-than-fifteen"},
		"master":      {`{"cniVersion":"1.0.0","name":"x","type":"macvlan","master":"nosuch0","ipam":{}}`, `plugin type="macvlan" failed (add): Link not found`},
		"subnet":      {`{"cniVersion":"1.0.0","name":"x","type":"ptp","ipam":{"type":"host-local","subnet":"10.0.0.0/99"}}`, "10.0.0.0/99"},
		"ipam":        {`{"cniVersion":"1.0.0","name":"x","type":"ptp","ipam":{"type":"nosuch-ipam"}}`, `could not find plugin "nosuch-ipam"`},
		"no ipam":     {`{"cniVersion":"1.0.0","name":"x","type":"ptp"}`, `joining network "x"`},
		"version":     {`{"cniVersion":"7.0.0","name":"x","type":"ptp","ipam":{"type":"host-local","subnet":"10.81.0.0/24"}}`, "7.0.0"},
		"long name":   {`{"cniVersion":"1.0.0","name":"` + strings.Repeat("x", 300) + `","type":"ptp","ipam":{"type":"host-local","subnet":"10.81.0.0/24"}}`, "its name is longer than 200 bytes"},
		"no gateway":  {`{"cniVersion":"1.0.0","name":"x","type":"bridge","bridge":"rkttest0","ipam":{"type":"host-local","subnet":"10.81.0.0/24","dataDir":"/var/lib/rkt/cni"}}`, "no interface found with IP 10.81.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			f.netFile("20-x.conf", c[0])
			f.refused(t, []string{c[1]}, append([]string{"run", "--net=x", "--port=web:18080"}, pb("echo ran")...)...)
			f.noNetworks()
		})
	}
	// a subnet that a running pod of rkt uses under another name is the plugins' business: what they refuse is undone
	f.removeLink("rkttest0")
	f.unchanged(before)
}

// TestKilledWhilePluginsRun: kill -9 of what runs the plugins takes the plugin
// along; gc then finds all that was begun.
//
// check list: networking 27
func TestKilledWhilePluginsRun(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.badNetwork("hang")
	f.netFile("05-own.conf", ownPTP)
	for i := range 3 {
		f.sh(`rm -f /run/rkt-bad.pid; setsid rkt run --net=own,bad,default ` + busybox + ` --exec=/bin/true </dev/null >/dev/null 2>&1 &`)
		pid := strings.TrimSpace(f.Eventually(t, soon, "cat", "/run/rkt-bad.pid"))
		parent := strings.TrimSpace(f.sh("ps -o ppid= -p " + pid))
		f.sh(fmt.Sprintf("kill -9 %s; for i in {1..1200}; do kill -0 %s 2>/dev/null || exit 0; sleep 0.05; done; exit 1", parent, pid))
		f.Eventually(t, soon, "bash", "-c", "! rkt list --no-legend | grep -q -e running -e prepar")
		if i == 2 {
			f.noNetworks() // what was saved is enough, but for the plugin's own program
		}
		f.gc()
	}
	f.sh("pkill -9 -f '^sleep 600' || true; rm -f /run/rkt-bad.*")
	f.noNetworks()
	f.unchanged(before)
}

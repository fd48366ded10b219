//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// dualNetworks writes the networks rkt-dual (IPv4 and IPv6) and rkt-six (IPv6
// alone) and returns the hosts' sides of their addresses.
func (f *fixture) dualNetworks() {
	f.t.Helper()
	conf := func(name, ranges string) {
		f.Write(f.t, "/etc/rkt/net.d/10-"+name+".conflist", 0o644, fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "ptp", "ipMasq": false,
			"ipam": {"type": "host-local", "ranges": [%s], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "dataDir": "/var/lib/rkt/cni/networks"}}]}`, name, ranges))
	}
	conf("rkt-dual", `[{"subnet": "10.66.1.0/24"}], [{"subnet": "fd66:1::/64"}]`)
	conf("rkt-six", `[{"subnet": "fd66:2::/64"}]`)
	f.t.Cleanup(func() { f.trySh("rm -f /etc/rkt/net.d/10-rkt-*.conflist; rm -rf /var/lib/rkt/cni/networks/rkt-*") })
}

// statusLines are the values of a key in rkt status.
func (f *fixture) statusLines(pod, key string) []string {
	f.t.Helper()
	var out []string
	for _, l := range strings.Split(f.Run(f.t, "rkt", "status", pod), "\n") {
		if v, ok := strings.CutPrefix(l, key+"="); ok {
			out = append(out, v)
		}
	}
	return out
}

// TestAddressesAreShown: rkt, machinectl and the host's name service know a
// pod's addresses; rkt those of pods that have ended, too, and the ports.
//
// check list: networking 25
func TestAddressesAreShown(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.dualNetworks()
	server := f.server("echo", "0s", ":7000")
	server["ports"] = []m{{"name": "echo", "port": 7000}, {"name": "act", "port": 7001}, {"name": "talk", "port": 7002, "protocol": "udp"}}
	f.declare("shown", m{"apps": []m{server}, "rkt": m{"net": []string{"default", "rkt-dual", "rkt-six"}},
		"ports": []any{"echo:18200", "talk:127.0.0.1:18201", m{"name": "act", "hostPort": 18202, "activate": true}}})
	f.start("shown")
	uuid := f.uuid("shown")
	addrs := map[string]string{} // by network and family
	for _, l := range strings.Split(strings.TrimSpace(f.sh(`nsenter -n -t $(machinectl show --value -p Leader shown) ip -o addr show scope global | awk '{print $2, $3, $4}'`)), "\n") {
		w := strings.Fields(l)
		net := map[string]string{"eth0": "rkt-dual", "eth1": "rkt-six", "eth2": "default"}[w[0]]
		addrs[net+" "+w[1]], _, _ = strings.Cut(w[2], "/")
	}
	want := fmt.Sprintf("rkt-dual:ip4=%s, rkt-dual:ip6=%s, rkt-six:ip6=%s, default:ip4=%s", addrs["rkt-dual inet"], addrs["rkt-dual inet6"], addrs["rkt-six inet6"], addrs["default inet"])
	if len(addrs) != 4 {
		t.Fatalf("addresses in the pod: %v", addrs)
	}
	shown := func(when string) {
		t.Helper()
		contains(t, "rkt list "+when, f.sh("rkt list --no-legend"), want)
		equal(t, "rkt status "+when, f.statusLines(uuid, "networks"), []string{want})
		equal(t, "ports "+when, f.statusLines(uuid, "port"), []string{"echo tcp *:18200 -> " + addrs["default inet"] + ":7000",
			"talk udp 127.0.0.1:18201 -> " + addrs["default inet"] + ":7002", "act tcp *:18202 -> :7001 activated"})
		for _, command := range []string{"rkt list --format=json | jq -c '.[] | select(.name == \"" + uuid + "\")'", "rkt status --format=json " + uuid} {
			p := object[struct {
				Networks []struct{ NetName, IP, IP6 string }
				Ports    []m
			}](t, f.sh(command))
			got := map[string]string{}
			for _, n := range p.Networks {
				for family, a := range map[string]string{" inet": n.IP, " inet6": n.IP6} {
					if a != "" {
						got[n.NetName+family] = a
					}
				}
			}
			equal(t, command, got, addrs)
			equal(t, "ports of "+command, p.Ports, []m{
				{"name": "echo", "protocol": "tcp", "host_port": 18200.0, "pod_ip": addrs["default inet"], "pod_port": 7000.0},
				{"name": "talk", "protocol": "udp", "host_ip": "127.0.0.1", "host_port": 18201.0, "pod_ip": addrs["default inet"], "pod_port": 7002.0},
				{"name": "act", "protocol": "tcp", "host_port": 18202.0, "pod_port": 7001.0, "activated": true}})
		}
	}
	shown("while it runs")
	machine := f.sh("machinectl list --no-legend --no-pager -l; machinectl list --max-addresses=all --no-legend --no-pager -l")
	contains(t, "machinectl list", machine, addrs["default inet"], addrs["rkt-dual inet"])
	contains(t, "machinectl status", f.sh("machinectl status --no-pager shown"), "Address: ", addrs["default inet"], addrs["rkt-dual inet6"])

	// the host's name service, through libnss-mymachines
	contains(t, "the host's nsswitch.conf", f.sh("grep ^hosts: /etc/nsswitch.conf"), "mymachines")
	contains(t, "getent ahostsv4", f.sh("getent ahostsv4 shown"), addrs["default inet"], addrs["rkt-dual inet"])
	contains(t, "getent ahostsv6", f.sh("getent ahostsv6 shown"), addrs["rkt-dual inet6"], addrs["rkt-six inet6"])
	equal(t, "an answer by the pod's name", f.ask("shown", 7000), "socket 0 of echo")
	f.stop("shown")
	shown("after it ended")
	if out, _, code := f.Try("getent", "hosts", "shown"); code == 0 {
		t.Errorf("an ended pod resolves: %s", out)
	}
	f.forget("shown")

	for _, net := range []string{"none", "host"} {
		f.declare("shown", m{"apps": []m{f.server("echo", "0s", ":7000")}, "rkt": m{"net": net}})
		f.start("shown")
		equal(t, "rkt status with "+net, f.statusLines("shown", "networks"), []string{""})
		equal(t, "ports with "+net, f.statusLines("shown", "port"), []string(nil))
		p := f.podOf("shown", "running")
		if p == nil || p["networks"] != nil || p["ports"] != nil {
			t.Errorf("rkt list with %s: %v", net, p)
		}
		f.forget("shown")
	}
	f.sh("rm -f /etc/rkt/net.d/10-rkt-*.conflist; rm -rf /var/lib/rkt/cni/networks/rkt-*")
	f.unchanged(before)
}

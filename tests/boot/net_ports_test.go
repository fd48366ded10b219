//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// far makes another machine: a network namespace behind a link of the host, in
// IPv4 and IPv6. It has no route to the pods.
func (f *fixture) far() {
	f.t.Helper()
	f.sh(`ip netns add rktfar; ip link add rktfar0 type veth peer name eth0 netns rktfar
		ip addr add 10.77.0.1/24 dev rktfar0; ip -6 addr add fd77::1/64 dev rktfar0 nodad; ip link set rktfar0 up
		ip -n rktfar addr add 10.77.0.2/24 dev eth0; ip -n rktfar -6 addr add fd77::2/64 dev eth0 nodad; ip -n rktfar link set eth0 up; ip -n rktfar link set lo up`)
	f.t.Cleanup(func() { f.noFar() })
}

func (f *fixture) noFar() {
	f.sh(`ip netns exec rktfar true 2>/dev/null && { ip netns pids rktfar | xargs -r kill -9; ip netns delete rktfar; } || true
		ip link delete rktfar0 2>/dev/null || true`)
}

// farAsks is the answer that the other machine gets, or "nothing".
func (f *fixture) farAsks(how, network, addr string) string {
	f.t.Helper()
	stdout, _, code := f.Try("ip", "netns", "exec", "rktfar", peerOnHost, how, network, addr)
	if code != 0 {
		return "nothing"
	}
	return stdout
}

// firewall is what the packet filters have.
func (f *fixture) firewall() string {
	f.t.Helper()
	return f.sh(`nft list ruleset 2>/dev/null || true; for t in iptables ip6tables; do $t-save 2>/dev/null | grep -e ^-A -e ^:[A-Z]*- || true; done; ls /run/rkt/nat 2>/dev/null || true`)
}

// podAsks is the answer that a declared pod gets.
func (f *fixture) podAsks(pod, network, addr string) string {
	f.t.Helper()
	stdout, stderr, code := f.Try("rkt", "enter", f.uuid(pod), "/peer", "ask", network, addr)
	if code != 0 {
		return "nothing: " + stderr
	}
	return stdout
}

// portsReach tries every way to the ports of a pod that serves on tcp 80 and
// 8080 and on udp 81: forwarded from 18080, 8080 and udp 18080.
func (f *fixture) portsReach(t *testing.T, net, gateway string) {
	t.Helper()
	f.declare("srv", f.peerPod("srv", net, []string{"tcp-80:18080", "tcp-8080:8080", "udp-81:18080"}, "tcp::80", "tcp::8080", "udp::81"))
	f.declare("other", f.peerPod("other", net, nil, "tcp::80"))
	f.start("srv")
	f.start("other")
	ip, other := f.ip("srv"), f.ip("other")
	for _, host := range []string{"127.0.0.1", "127.9.9.9", gateway, "10.77.0.1"} {
		for _, port := range []string{"tcp 18080", "tcp 8080", "udp 18080"} {
			network, number, _ := strings.Cut(port, " ")
			contains(t, "the host at "+host+" "+port, f.peerAsk(network, host+":"+number), "srv sees ")
		}
	}
	for _, port := range []string{"tcp 18080", "tcp 8080", "udp 18080"} {
		network, number, _ := strings.Cut(port, " ")
		equal(t, "another machine at "+port, f.farAsks("ask", network, "10.77.0.1:"+number), "srv sees 10.77.0.2\n")
		for _, host := range []string{gateway, "10.77.0.1"} {
			contains(t, "another pod at "+host+" "+port, f.podAsks("other", network, host+":"+number), "srv sees ")
			contains(t, "the pod itself at "+host+" "+port, f.podAsks("srv", network, host+":"+number), "srv sees ")
		}
	}
	equal(t, "another pod, directly", f.podAsks("other", "tcp", ip+":80"), "srv sees "+other+"\n")
	equal(t, "the host, directly", f.peerAsk("tcp", ip+":80"), "srv sees "+gateway+"\n")
	f.stop("srv")
	for _, host := range []string{"127.0.0.1", gateway, "10.77.0.1"} {
		if stdout, _, code := f.Try(peerOnHost, "once", "tcp", host+":18080"); code == 0 {
			t.Errorf("%s answers after the stop: %q", host, stdout)
		}
	}
	f.forget("srv", "other")
}

// TestPorts: ports of pods are reachable from everywhere, whichever packet
// filter the host has, and nothing of it stays.
//
// check list: networking 12, 13, 17, 19, 21, 22, 23
func TestPorts(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.far()
	bridge := `{"cniVersion":"0.4.0","name":"lan","type":"bridge","bridge":"rkttest0","isDefaultGateway":true,"ipMasq":true,
 "ipam":{"type":"host-local","subnet":"10.82.0.0/24","dataDir":"/var/lib/rkt/cni"}}`
	t.Cleanup(func() { f.removeLink("rkttest0") })
	away := func(programs ...string) func() {
		for _, p := range programs {
			f.sh(`mv /usr/sbin/` + p + ` /usr/sbin/` + p + `.away`)
		}
		back := func() {
			for _, p := range programs {
				f.sh(`for p in /usr/sbin/` + p + `.away; do [ -e $p ] || [ -L $p ] && mv $p ${p%.away}; done; true`)
			}
		}
		t.Cleanup(back)
		return back
	}
	legacy := func() func() {
		f.sh(`for t in iptables ip6tables; do update-alternatives --set $t /usr/sbin/$t-legacy; done >/dev/null`)
		back := func() {
			f.sh(`for t in iptables ip6tables; do update-alternatives --auto $t; done >/dev/null`)
		}
		t.Cleanup(back)
		return back
	}
	for _, host := range []struct {
		name, nat string
		change    func() func()
	}{
		{"nftables and iptables", "auto", nil},
		{"nftables only", "auto", func() func() { return away("iptables", "ip6tables") }},
		{"iptables over nftables only", "auto", func() func() { return away("nft") }},
		{"iptables as it was", "iptables", legacy},
	} {
		t.Run(host.name, func(t *testing.T) {
			f.settings(`"nat":"` + host.nat + `"`)
			if host.change != nil {
				defer host.change()()
			}
			f.portsReach(t, "default", "172.16.28.1")
			f.netFile("lan.conf", bridge)
			f.portsReach(t, "lan", "10.82.0.1")
			f.noNetworks()
			f.gc()
			lacks(t, "the packet filter", f.firewall(), "inet rkt", "172.16.28", "10.82.0", ".json")
		})
	}
	f.sh(`iptables -t nat -F; iptables -t nat -X; iptables-legacy -t nat -F; iptables-legacy -t nat -X`)
	f.removeLink("rkttest0")
	f.noFar()
	f.unchanged(before)
}

// TestMasquerade: servers outside see the host's address; those within the
// network the pod's own.
//
// check list: networking 12, 13
func TestMasquerade(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.far()
	f.master()
	f.netFile("30-vlan.conf", ownMacvlan)
	f.sh(`systemd-run -q --collect --unit=rkt-test-far ip netns exec rktfar ` + peerOnHost + ` serve far tcp::9000 udp::9000
		systemd-run -q --collect --unit=rkt-test-near ` + peerOnHost + ` serve near tcp::9001`)
	stop := func() { f.sh("systemctl stop rkt-test-far rkt-test-near 2>/dev/null || true") }
	t.Cleanup(stop)
	equal(t, "outside, tcp", f.in(t, "--net=default", "/peer ask tcp 10.77.0.2:9000"), "far sees 10.77.0.1\n")
	equal(t, "outside, udp", f.in(t, "--net=default", "/peer ask udp 10.77.0.2:9000"), "far sees 10.77.0.1\n")
	out := f.in(t, "--net=default", "/peer ask tcp 172.16.28.1:9001; /peer ask tcp 10.77.0.1:9001")
	if strings.Count(out, "near sees 172.16.28.") != 2 {
		t.Errorf("the host sees %q", out)
	}
	if out := f.in(t, "--net=default-restricted", "/peer once tcp 10.77.0.2:9000 2>&1 || true"); !strings.Contains(out, "unreachable") {
		t.Errorf("default-restricted reaches the outside: %q", out)
	}
	f.declare("a", f.peerPod("a", "vlan", nil, "tcp::80"))
	f.declare("b", f.peerPod("b", "vlan", nil, "tcp::80"))
	f.start("a")
	f.start("b")
	equal(t, "macvlan pods", f.podAsks("a", "tcp", f.ip("b")+":80"), "b sees "+f.ip("a")+"\n")
	if _, _, code := f.Try("rkt", "enter", f.uuid("a"), "/peer", "once", "tcp", "10.83.0.200:9001"); code == 0 {
		t.Error("a macvlan pod reaches the host")
	}
	f.forget("a", "b")
	stop()
	f.noNetworks()
	f.noFar()
	f.removeLink("rktm0")
	f.unchanged(before)
}

// TestPortsOfOneAddress: a port of one address of the host is not forwarded
// from others; two pods and two protocols do not meet; a port is not forwarded
// from one network to another.
//
// check list: networking 18, 19, 21, 22
func TestPortsOfOneAddress(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.far()
	f.declare("one", f.peerPod("one", "default", []string{"tcp-80:172.16.28.1:18080", "udp-81:0.0.0.0:18081"}, "tcp::80", "udp::81"))
	f.start("one")
	f.declare("two", f.peerPod("two", "default-restricted", []string{"tcp-80:10.77.0.1:18080", "udp-81:127.0.0.1:18082"}, "tcp::80", "udp::81"))
	f.start("two")
	contains(t, "172.16.28.1", f.peerAsk("tcp", "172.16.28.1:18080"), "one sees ")
	contains(t, "10.77.0.1", f.peerAsk("tcp", "10.77.0.1:18080"), "two sees ")
	equal(t, "10.77.0.1 from another machine", f.farAsks("ask", "tcp", "10.77.0.1:18080"), "nothing") // two has no route back
	if stdout, _, code := f.Try(peerOnHost, "once", "tcp", "127.0.0.1:18080"); code == 0 {
		t.Errorf("127.0.0.1 answers: %q", stdout)
	}
	contains(t, "udp of all addresses", f.peerAsk("udp", "127.0.0.1:18081"), "one sees ")
	contains(t, "udp of 127.0.0.1", f.peerAsk("udp", "127.0.0.1:18082"), "two sees ")
	equal(t, "udp of 127.0.0.1 from another machine", f.farAsks("once", "udp", "10.77.0.1:18082"), "nothing")
	// what 127.0.0.1 can reach must not be reached as 127.0.0.1
	f.sh(`systemd-run -q --collect --unit=rkt-test-near ` + peerOnHost + ` serve near tcp:127.0.0.1:9001`)
	t.Cleanup(func() { f.sh("systemctl stop rkt-test-near 2>/dev/null || true") })
	if out, _, code := f.Try("nsenter", "--net=/run/netns/one", "bash", "-c", "ip route add 127.0.0.0/8 via 172.16.28.1 dev eth0 table 99; ip rule add pref 0 lookup 99; ip rule add pref 1 lookup local; ip rule del pref 0 lookup local; sysctl -qw net.ipv4.conf.eth0.route_localnet=1; "+peerOnHost+" once tcp 127.0.0.1:9001"); code == 0 {
		t.Errorf("a pod reaches the host's 127.0.0.1: %q", out)
	}
	f.sh("systemctl stop rkt-test-near")

	// Rules of others stay where they are when a pod goes; and when the administrator has flushed all, DEL works, and the next pod brings back what is to be there.
	f.stop("two")
	contains(t, "172.16.28.1 after the other one's end", f.peerAsk("tcp", "172.16.28.1:18080"), "one sees ")
	f.sh("nft flush ruleset")
	f.start("two")
	contains(t, "after a flush and the next start", f.peerAsk("tcp", "172.16.28.1:18080"), "one sees ")
	contains(t, "after a flush and the next start", f.peerAsk("tcp", "10.77.0.1:18080"), "two sees ")
	f.sh("nft flush ruleset")
	f.stop("two")
	contains(t, "after a flush and the next stop", f.peerAsk("tcp", "172.16.28.1:18080"), "one sees ")
	f.sh("nft flush ruleset")
	f.stop("one")
	lacks(t, "the packet filter", f.firewall(), "inet rkt", "172.16.28.", ".json")
	f.forget("one", "two")

	uuid := f.background("--net=default", "--port=80-tcp:18090", imageDir+"/peer.aci", "--exec=/peer", "--", "serve", "docker", "tcp::80")
	contains(t, "a port of a Docker image", f.peerAsk("tcp", "127.0.0.1:18090"), "docker sees ")
	f.rkt("stop", uuid)
	f.rkt("status", uuid, "--wait=60s")
	f.gc()
	f.refused(t, []string{"already mapped"}, append([]string{"run", "--port=web:18080", "--port=80-tcp:18080"}, pb("echo ran")...)...)
	f.noFar()
	f.unchanged(before)
}

// TestPortsIPv6: a network of both families has its ports forwarded in both.
//
// check list: networking 17
func TestPortsIPv6(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.far()
	dual := func(typ, more string) string {
		return `{"cniVersion":"1.0.0","name":"dual","plugins":[{"type":"` + typ + `","ipMasq":true` + more + `,"ipam":{"type":"host-local","dataDir":"/var/lib/rkt/cni",
"ranges":[[{"subnet":"10.84.0.0/24"}],[{"subnet":"fd84::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}]}`
	}
	t.Cleanup(func() { f.removeLink("rkttest0") })
	for typ, more := range map[string]string{"ptp": "", "bridge": `,"bridge":"rkttest0","isGateway":true`} {
		for _, nat := range []string{"nftables", "iptables"} {
			t.Run(typ+" "+nat, func(t *testing.T) {
				f.netFile("dual.conflist", dual(typ, more))
				f.settings(`"nat":"` + nat + `"`)
				f.declare("six", f.peerPod("six", "dual", []string{"tcp-80:18080", "udp-81:18081"}, "tcp::80", "udp::81"))
				f.start("six")
				for _, addr := range []string{"[fd77::1]", "10.77.0.1", "127.0.0.1"} {
					contains(t, "the host at "+addr, f.peerAsk("tcp", addr+":18080"), "six sees ")
					contains(t, "the host at "+addr+", udp", f.peerAsk("udp", addr+":18081"), "six sees ")
				}
				equal(t, "another machine", f.farAsks("ask", "tcp", "[fd77::1]:18080"), "six sees fd77::2\n")
				equal(t, "another machine, udp", f.farAsks("ask", "udp", "[fd77::1]:18081"), "six sees fd77::2\n")
				contains(t, "the pod itself", f.podAsks("six", "tcp", "[fd77::1]:18080"), "six sees ")
				f.sh(`systemd-run -q --collect --unit=rkt-test-far ip netns exec rktfar ` + peerOnHost + ` serve far tcp::9000`)
				equal(t, "masquerade", f.podAsks("six", "tcp", "[fd77::2]:9000"), "far sees fd77::1\n")
				f.sh("systemctl stop rkt-test-far")
				f.forget("six")
				f.noNetworks()
			})
		}
	}
	lacks(t, "the packet filter", f.firewall(), "inet rkt", "fd84::", "10.84.0.")
	f.sh(`for t in iptables ip6tables; do $t -t nat -F; $t -t nat -X; done`)
	f.removeLink("rkttest0")
	f.noFar()
	f.unchanged(before)
}

// TestNoPacketFilter: without nft and iptables what needs them says so, and
// the rest works.
//
// check list: networking 23
func TestNoPacketFilter(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.sh(`mkdir -p /run/rkt-test; for p in nft iptables ip6tables; do mv /usr/sbin/$p /usr/sbin/$p.away; done`)
	back := func() {
		f.sh(`for p in nft iptables ip6tables; do [ -e /usr/sbin/$p.away ] || [ -L /usr/sbin/$p.away ] && mv /usr/sbin/$p.away /usr/sbin/$p; done; rmdir /run/rkt-test 2>/dev/null || true`)
	}
	t.Cleanup(back)
	f.refused(t, []string{`network "default"`, "needs nft or iptables", "install the package nftables"}, append([]string{"run"}, pb("echo ran")...)...)
	f.refused(t, []string{`network "default-restricted"`, "ports are to be forwarded", "install the package nftables"},
		append([]string{"run", "--net=default-restricted", "--port=web:18080"}, pb("echo ran")...)...)
	contains(t, "default-restricted", f.ips(t, "--net=default-restricted"), "eth0 172.31.")
	f.settings(`"nat":"nftables"`)
	f.refused(t, []string{"asks for nftables, but nft is missing"}, append([]string{"run"}, pb("echo ran")...)...)
	f.noNetworks()
	back()
	f.unchanged(before)
}

// TestDroppingFirewall: a host that forwards nothing by itself lets pods through.
//
// check list: networking 23
func TestDroppingFirewall(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.far()
	f.sh(`systemd-run -q --collect --unit=rkt-test-far ip netns exec rktfar ` + peerOnHost + ` serve far tcp::9000`)
	open := func() { f.sh(`iptables -P FORWARD ACCEPT; systemctl stop rkt-test-far 2>/dev/null || true`) }
	t.Cleanup(open)
	f.sh("iptables -P FORWARD DROP")
	f.declare("fw", f.peerPod("fw", "default", []string{"tcp-80:18080"}, "tcp::80"))
	f.start("fw")
	equal(t, "from the pod", f.podAsks("fw", "tcp", "10.77.0.2:9000"), "far sees 10.77.0.1\n")
	equal(t, "to the pod", f.farAsks("ask", "tcp", "10.77.0.1:18080"), "fw sees 10.77.0.2\n")
	f.forget("fw")
	lacks(t, "the packet filter", f.firewall(), "172.16.28.")
	f.settings(`"firewall":"off"`)
	f.declare("fw", f.peerPod("fw", "default", []string{"tcp-80:18080"}, "tcp::80"))
	f.start("fw")
	equal(t, "with the setting off", f.farAsks("once", "tcp", "10.77.0.1:18080"), "nothing")
	f.forget("fw")
	f.noNetworks()
	open()
	f.sh(`iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X`)
	f.noFar()
	f.unchanged(before)
}

// TestBandwidth: an isolator limits what a pod receives and sends.
func TestBandwidth(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	limit := []m{{"name": "resource/network-bandwidth", "value": m{"default": true, "limit": "250k"}}}
	for _, ofApp := range []bool{false, true} {
		p := f.peerPod("slow", "default", nil, "tcp::80")
		if ofApp {
			p["apps"].([]m)[0]["app"].(m)["isolators"] = limit
		} else {
			p["isolators"] = limit
		}
		f.declare("slow", p)
		f.start("slow")
		out := f.sh(`tc qdisc show; ip -br link`)
		if strings.Count(out, "tbf") != 2 || strings.Count(out, "rate 2Mbit") != 2 || !strings.Contains(out, "bwp") {
			t.Errorf("of the app %t:\n%s", ofApp, out)
		}
		f.forget("slow")
		lacks(t, "links", f.sh("ip -br link"), "bwp")
	}
	// 1 MB at 250 kB a second is 4 s
	f.sh(`head -c 1000000 /dev/zero >/run/rkt-test-mb; cd /run; systemd-run -q --collect --unit=rkt-test-http busybox httpd -f -p 18099 -h /run`)
	t.Cleanup(func() { f.sh("systemctl stop rkt-test-http 2>/dev/null || true; rm -f /run/rkt-test-mb") })
	p := pod(app("get", `t=$(date +%s); until wget -q -O /dev/null http://172.16.28.1:18099/rkt-test-mb; do sleep 0.1; done; echo "took $(( $(date +%s) - t ))"; sleep 1000`))
	p["rkt"], p["isolators"] = m{"net": "default"}, limit
	f.declare("fetch", p)
	f.start("fetch")
	f.waitLog("fetch", "get", "took ")
	var took int
	if _, err := fmt.Sscanf(f.appLog("fetch", "get"), "took %d", &took); err != nil || took < 3 || took > 40 {
		t.Errorf("1 MB at 250 kB/s took %d s, %v", took, err)
	}
	f.forget("fetch")
	f.sh("systemctl stop rkt-test-http; rm -f /run/rkt-test-mb")
	f.unchanged(before)
}

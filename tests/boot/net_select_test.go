//go:build boot

package boot

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// peerOnHost is the test program ../images/peer on the host.
const peerOnHost = "/var/tmp/img/peer"

// peer makes an image of busybox with the test program, which is on the host, too.
func (f *fixture) peer() string {
	f.t.Helper()
	bin := f.t.TempDir() + "/peer"
	cmd := exec.CommandContext(f.t.Context(), "go", "build", "-o", bin, "../images/peer")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("building the test program: %v\n%s", err, out)
	}
	image := f.image("peer", "busybox", "--name", "example.com/peer", "--file", bin+":/peer", "--manifest",
		`{"app":{"exec":["/bin/sh"],"user":"0","group":"0","ports":[{"name":"web","protocol":"tcp","port":80},{"name":"80-tcp","protocol":"tcp","port":80},{"name":"81-udp","protocol":"udp","port":81}]}}`)
	// what the first of their kind makes, and what stays
	f.sh("ip netns add rktwarm; ip netns delete rktwarm; install -d -m 700 /run/rkt/nat")
	if _, _, code := f.Try("test", "-x", peerOnHost); code != 0 { // the bytes never change within a run
		f.Copy(f.t, bin, peerOnHost)
	}
	return image
}

// pb is bb with the image of peer, which has the ports web, 80-tcp and 81-udp.
func pb(script string, flags ...string) []string {
	return append([]string{imageDir + "/peer.aci"}, bb(script, flags...)[1:]...)
}

// netFile puts a file into a directory of networks; at the end of the test the
// directory is emptied.
func (f *fixture) netFile(name, text string) {
	f.t.Helper()
	f.Write(f.t, "/etc/rkt/net.d/"+name, 0o755, []byte(text))
	f.t.Cleanup(func() { f.noNetworks() })
}

func (f *fixture) noNetworks() { f.sh("rm -rf /etc/rkt/net.d /etc/rkt/network.d") }

// settings writes the settings of networks, without the head.
func (f *fixture) settings(keys string) {
	f.t.Helper()
	f.Write(f.t, "/etc/rkt/network.d/test.json", 0o644, []byte(`{"rktKind":"network","rktVersion":"v1",`+keys+`}`))
	f.t.Cleanup(func() { f.noNetworks() })
}

// bridges are devices that plugins make and leave.
func (f *fixture) removeLink(names ...string) {
	for _, n := range names {
		f.sh("ip link delete " + n + " 2>/dev/null || true")
	}
}

// in runs a script in a pod of these networks.
func (f *fixture) in(t *testing.T, net, script string, flags ...string) string {
	t.Helper()
	if net != "" {
		flags = append([]string{net}, flags...)
	}
	out, all, code := f.runPod(append(flags, pb(script)...)...)
	if code != 0 {
		t.Errorf("%s: status %d\n%s", net, code, all)
	}
	return out
}

const showNet = `for i in $(ls /sys/class/net); do echo "$i $(ip -4 -o addr show $i | awk '{print $4}')"; done; ip route | grep ^default; readlink /proc/self/ns/net`

// TestNetworks: what the words of --net give.
//
// check list: networking 1, 2, 3, 4
func TestNetworks(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	host := strings.TrimSpace(f.Run(t, "readlink", "/proc/self/ns/net"))
	for _, flag := range []string{"", "--net", "--net=default"} {
		out := f.in(t, flag, showNet)
		if !regexp.MustCompile(`^eth0 172\.16\.28\.\d+/24\nlo 127\.0\.0\.1/8\ndefault via 172\.16\.28\.1 dev eth0 *\nnet:\[\d+\]\n$`).MatchString(out) || strings.Contains(out, host) {
			t.Errorf("%q: %s; the host's is %s", flag, out, host)
		}
	}
	out := f.in(t, "--net=none", showNet+`; cat /sys/class/net/lo/flags; ping -c1 -W2 localhost | grep -c "1 packets received"`)
	if !regexp.MustCompile(`^lo 127\.0\.0\.1/8\nnet:\[\d+\]\n0x9\n1\n$`).MatchString(out) || strings.Contains(out, host) {
		t.Errorf("none: %s; the host's is %s", out, host)
	}
	out = f.in(t, "--net=default-restricted", showNet)
	if !regexp.MustCompile(`^eth0 172\.31\.\d+\.\d+/16\nlo 127\.0\.0\.1/8\nnet:\[\d+\]\n$`).MatchString(out) {
		t.Errorf("default-restricted: %s", out)
	}
	f.declare("restricted", f.peerPod("restricted", "default-restricted", nil, "tcp::8000"))
	f.start("restricted")
	equal(t, "asked from the host", f.peerAsk("tcp", f.ip("restricted")+":8000"), "restricted sees 172.31.0.1\n")
	f.forget("restricted")

	f.sh(`systemd-run -q --collect --unit=rkt-test-peer ` + peerOnHost + ` serve host tcp:127.0.0.1:18990`)
	t.Cleanup(func() { f.sh("systemctl stop rkt-test-peer 2>/dev/null || true") })
	p := f.peerPod("onhost", "host", nil, "tcp::18991")
	f.declare("onhost", p)
	f.start("onhost")
	equal(t, "the namespace", strings.TrimSpace(f.sh("readlink /proc/$(machinectl show onhost -p Leader --value)/ns/net")), host)
	equal(t, "a pod with the host's network", f.peerAsk("tcp", "127.0.0.1:18991"), "onhost sees 127.0.0.1\n")
	equal(t, "the host's server", f.Run(t, "rkt", "enter", f.uuid("onhost"), "/peer", "ask", "tcp", "127.0.0.1:18990"), "host sees 127.0.0.1\n")
	f.forget("onhost")
	f.sh("systemctl stop rkt-test-peer")
	f.unchanged(before)
}

// peerPod is a pod file of the test program that serves.
func (f *fixture) peerPod(name, net string, ports []string, on ...string) m {
	var decl []m
	for _, s := range on {
		proto, addr, _ := strings.Cut(s, ":")
		n := addr[strings.LastIndexByte(addr, ':')+1:]
		var number int
		if _, err := fmt.Sscan(n, &number); err != nil {
			f.t.Fatal(err)
		}
		decl = append(decl, m{"name": proto + "-" + n, "protocol": proto, "port": number})
	}
	p := m{"apps": []m{{"name": "srv", "image": f.peer(), "app": m{"exec": append([]string{"/peer", "serve", name}, on...), "user": "0", "group": "0", "ports": decl}}},
		"rkt": m{"net": net}}
	if ports != nil {
		p["ports"] = ports
	}
	return p
}

// peerAsk is the answer of a server, asked from the host.
func (f *fixture) peerAsk(network, addr string) string {
	f.t.Helper()
	return f.Run(f.t, peerOnHost, "ask", network, addr)
}

// ip is the first address of a declared pod that runs.
func (f *fixture) ip(name string) string {
	f.t.Helper()
	return strings.TrimSpace(f.sh(`jq -r .[0].ip /var/lib/rkt/pods/run/` + f.uuid(name) + `/net-info.json`))
}

// ips are the addresses of the interfaces of a pod of these networks.
func (f *fixture) ips(t *testing.T, net string, flags ...string) string {
	t.Helper()
	return f.in(t, net, `for i in $(ls /sys/class/net | grep -v lo); do echo $i $(ip -4 -o addr show $i | awk '{print $4}'); done`, flags...)
}

const (
	ownPTP    = `{"cniVersion":"0.4.0","name":"own","type":"ptp","ipam":{"type":"host-local","subnet":"10.81.0.0/24","dataDir":"/var/lib/rkt/cni"}}`
	ownBridge = `{"cniVersion":"1.0.0","name":"lan","plugins":[{"type":"bridge","bridge":"rkttest0","isDefaultGateway":true,"ipMasq":false,
 "ipam":{"type":"host-local","subnet":"10.82.0.0/24","dataDir":"/var/lib/rkt/cni"}}]}`
	ownMacvlan = `{"cniVersion":"1.0.0","name":"vlan","type":"macvlan","master":"rktm0","ipam":{"type":"host-local","subnet":"10.83.0.0/24","dataDir":"/var/lib/rkt/cni"}}`
)

// masters are links for macvlan: their other ends are up, too.
func (f *fixture) master() {
	f.t.Helper()
	f.sh("ip link add rktm0 type veth peer name rktm1; ip link set rktm0 up; ip link set rktm1 up; ip addr add 10.83.0.200/24 dev rktm0")
	f.t.Cleanup(func() { f.removeLink("rktm0") })
}

// TestConfiguredNetworks: files of networks, their order and precedence.
//
// check list: networking 5, 7, 14
func TestConfiguredNetworks(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.netFile("10-own.conf", ownPTP)
	f.netFile("20-lan.conflist", ownBridge)
	t.Cleanup(func() { f.removeLink("rkttest0", "rkttest1") })
	contains(t, "own", f.ips(t, "--net=own"), "eth0 10.81.0.")
	out := f.ips(t, "--net=default,own")
	if !regexp.MustCompile(`^eth0 10\.81\.0\.\d+/24\neth1 172\.16\.28\.\d+/24\n$`).MatchString(out) {
		t.Errorf("default,own: %s", out)
	}
	out = f.ips(t, "--net=all")
	if !regexp.MustCompile(`^eth0 10\.81\.\S+\neth1 10\.82\.\S+\neth2 172\.31\.\S+\neth3 172\.16\.28\.\S+\n$`).MatchString(out) {
		t.Errorf("all: %s", out)
	}
	contains(t, "the bridge's route", f.in(t, "--net=lan", "ip route"), "default via 10.82.0.1 dev eth0")
	equal(t, "order does not matter", f.in(t, "--net=own,default", "ip route | grep -c default"), "1\n")

	f.netFile("30-again.conf", strings.Replace(ownPTP, "10.81", "10.84", 1))
	f.netFile("98-default.conf", strings.Replace(strings.Replace(ownPTP, "10.81", "10.85", 1), `"own"`, `"default"`, 1))
	_, all, code := f.runPod(append([]string{"--net=default,own"}, bb("ip -4 -o addr")...)...)
	if code != 0 {
		t.Errorf("status %d", code)
	}
	contains(t, "messages", all, `overriding "default" network with one from /etc/rkt/net.d`, `"own" network already defined, ignoring 30-again.conf`, "10.85.0.", "10.81.0.")
	f.Write(t, "/usr/lib/rkt/net.d/10-vendor.conf", 0o644, []byte(strings.Replace(strings.Replace(ownPTP, "10.81", "10.86", 1), `"own"`, `"vendor"`, 1)))
	f.Write(t, "/usr/lib/rkt/net.d/11-own.conf", 0o644, []byte(strings.Replace(ownPTP, "10.81", "10.87", 1)))
	t.Cleanup(func() { f.sh("rm -rf /usr/lib/rkt/net.d /etc/cni/net.d") })
	f.Write(t, "/etc/cni/net.d/05-shared.conflist", 0o644, []byte(strings.NewReplacer("10.82", "10.88", `"lan"`, `"shared"`, "rkttest0", "rkttest1").Replace(ownBridge)))
	f.Write(t, "/etc/cni/net.d/06-broken.conf", 0o644, []byte(`{`))
	out = f.ips(t, "--net=vendor,own")
	if !regexp.MustCompile(`^eth0 10\.81\.\S+\neth1 10\.86\.\S+\n$`).MatchString(out) {
		t.Errorf("of the vendor: %s", out)
	}
	f.refused(t, []string{"networks not found: shared", "/etc/rkt/net.d, /usr/lib/rkt/net.d)"}, append([]string{"run", "--net=shared"}, bb("true")...)...)
	f.settings(`"confDirs":["/etc/cni/net.d"]`)
	contains(t, "shared", f.ips(t, "--net=shared"), "eth0 10.88.0.")
	f.refused(t, []string{"networks not found: nope", "/etc/cni/net.d)"}, append([]string{"run", "--net=nope"}, bb("true")...)...)
	f.sh("rm -rf /usr/lib/rkt/net.d /etc/cni/net.d")
	f.noNetworks()
	f.removeLink("rkttest0", "rkttest1")
	f.unchanged(before)
}

// TestNetworksRefused: what cannot be asked for is refused at once.
//
// check list: networking 6, 7, 20
func TestNetworksRefused(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.netFile("10-own.conf", ownPTP)
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--net=nope"}, "networks not found: nope"},
		{[]string{"--net=own,nope", "--net=neither"}, "networks not found: neither, nope"},
		{[]string{"--net="}, "netname must not be empty"},
		{[]string{"--net=own,"}, "netname must not be empty"},
		{[]string{"--net=own,own"}, `found duplicate netname "own"`},
		{[]string{"--net=own", "--net=own:IP=10.81.0.9"}, `found duplicate netname "own"`},
		{[]string{"--net=all:IP=1.2.3.4"}, `arguments are not supported by special netname "all"`},
		{[]string{"--net=host:IP=1.2.3.4"}, `arguments are not supported by special netname "host"`},
		{[]string{"--net=own:IP=1:2"}, `network "own" provided with invalid arguments`},
		{[]string{"--net=own:IP"}, `"IP" is not of the form KEY=VALUE`},
		{[]string{"--net=own", "--port=nope:80"}, `port name "nope" could not be found in any apps`},
		{[]string{"--net=own", "--port=nope"}, `"nope" is not in name:[ip:]port format`},
		{[]string{"--net=own", "--port=web:0"}, `is not a valid`},
		{[]string{"--net=own", "--port=web:x:80"}, "is not a valid IP"},
		{[]string{"--net=none", "--port=web:80"}, "--port flag does not work with 'none' networking"},
		{[]string{"--net=host", "--port=web:80"}, "--port flag does not work with 'host' networking"},
	} {
		f.refused(t, []string{c.want}, append(append([]string{"run"}, c.flags...), pb("echo ran")...)...)
	}
	f.netFile("20-bad.conf", `{"name":"bad"`)
	f.refused(t, []string{`network configuration "/etc/rkt/net.d/20-bad.conf"`, "unexpected end of JSON input"}, append([]string{"run", "--net=own"}, bb("true")...)...)
	f.netFile("20-bad.conf", `{"name":"not a name","type":"ptp"}`)
	f.refused(t, []string{`network configuration "/etc/rkt/net.d/20-bad.conf"`, `its name "not a name" is not one`}, append([]string{"run", "--net=own"}, bb("true")...)...)
	f.netFile("20-bad.conf", `{"name":"bad","type":"../../bin/true"}`)
	f.refused(t, []string{`network configuration "/etc/rkt/net.d/20-bad.conf"`, "is not a plugin name"}, append([]string{"run", "--net=own"}, bb("true")...)...)
	f.netFile("20-bad.conf", `{"name":"bad","type":"absent-plugin"}`)
	contains(t, "another network", f.ips(t, "--net=own"), "eth0 10.81.0.")
	f.refused(t, []string{`could not find plugin "absent-plugin" in /etc/rkt/net.d:/usr/lib/rkt/plugins/net:/usr/lib/cni`, "apt install containernetworking-plugins"}, append([]string{"run", "--net=bad"}, bb("true")...)...)
	f.noNetworks()
	f.settings(`"nat":"magic"`)
	f.refused(t, []string{`"/etc/rkt/network.d/test.json": nat is "magic"`}, append([]string{"run"}, bb("true")...)...)
	f.noNetworks()
	f.unchanged(before)
}

// TestOldConfigurations: files as they were written for the first versions of
// CNI, and as they are today.
//
// check list: networking 8, 9
func TestOldConfigurations(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.master()
	t.Cleanup(func() { f.removeLink("rkttest0", "rkttest1") })
	const ipam = `"ipam":{"type":"host-local","subnet":"10.81.0.0/24","dataDir":"/var/lib/rkt/cni"}`
	long := "a-very-long-name-of-a-network-that-nobody-would-ever-want-to-write-down-twice.0"
	for name, file := range map[string][2]string{
		"no version":        {"x.conf", `{"name":"x","type":"ptp",` + ipam + `}`},
		"0.1.0":             {"x.conf", `{"cniVersion":"0.1.0","name":"x","type":"ptp",` + ipam + `}`},
		"0.2.0":             {"x.conf", `{"cniVersion":"0.2.0","name":"x","type":"ptp","ipMasq":true,` + ipam + `}`},
		"0.3.1":             {"x.conf", `{"cniVersion":"0.3.1","name":"x","type":"ptp","ipMasq":true,` + ipam + `}`},
		"odd case":          {"x.conf", `{"CniVersion":"0.2.0","Name":"x","Type":"ptp","IpMasq":true,"Ipam":{"type":"host-local","Subnet":"10.81.0.0/24","dataDir":"/var/lib/rkt/cni"}}`},
		"list":              {"x.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"ptp",` + ipam + `},{"type":"tuning"}]}`},
		"list, odd case":    {"x.conflist", `{"CNIVersion":"0.4.0","Name":"x","Plugins":[{"Type":"ptp",` + ipam + `}]}`},
		"list in a .conf":   {"x.conf", `{"cniVersion":"0.4.0","name":"x","plugins":[{"type":"ptp",` + ipam + `}]}`},
		"several versions":  {"x.conflist", `{"cniVersion":"0.3.1","cniVersions":["0.4.0","1.0.0"],"name":"x","plugins":[{"type":"ptp",` + ipam + `}]}`},
		"long, ptp":         {"x.conf", `{"name":"` + long + `","type":"ptp",` + ipam + `}`},
		"long, bridge":      {"x.conf", `{"name":"` + long + `","type":"bridge","bridge":"rkttest0","isGateway":true,` + ipam + `}`},
		"long, macvlan":     {"x.conf", `{"name":"` + long + `","type":"macvlan","master":"rktm0",` + ipam + `}`},
		"ports for old one": {"x.conf", `{"name":"x","type":"ptp",` + ipam + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			f.netFile(file[0], file[1])
			net, flags := "x", []string{}
			if strings.HasPrefix(name, "long") {
				net = long
			}
			if strings.HasPrefix(name, "ports") {
				flags = []string{"--port=web:18080"}
			}
			out, all, code := f.runPod(append(append([]string{"--net=" + net}, flags...), pb("ip -4 -o addr show eth0 | awk '{print $4}'")...)...)
			if code != 0 || !strings.HasPrefix(out, "10.81.0.") {
				t.Errorf("status %d\n%s", code, all)
			}
			f.noNetworks()
			f.gc()
		})
	}
	t.Run("plugins beside", func(t *testing.T) {
		f.netFile("x.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"ptp",`+ipam+`}]}`)
		f.netFile("x/10-tuning.conf", `{"type":"tuning","sysctl":{"net.ipv4.conf.eth0.log_martians":"1"}}`)
		equal(t, "with the plugin beside", f.in(t, "--net=x", "cat /proc/sys/net/ipv4/conf/eth0/log_martians"), "1\n")
		f.noNetworks()
		f.gc() // what ADD got is what DEL gets
		f.netFile("x.conflist", `{"cniVersion":"1.0.0","name":"x","loadOnlyInlinedPlugins":true,"plugins":[{"type":"ptp",`+ipam+`}]}`)
		f.netFile("x/10-tuning.conf", `{"type":"tuning","sysctl":{"net.ipv4.conf.eth0.log_martians":"1"}}`)
		equal(t, "without", f.in(t, "--net=x", "cat /proc/sys/net/ipv4/conf/eth0/log_martians"), "0\n")
	})
	f.noNetworks()
	f.removeLink("rkttest0", "rktm0")
	f.unchanged(before)
}

const spyPlugin = `#!/bin/sh
{ env | grep ^CNI_ | sort; echo "lock=$RKT_LOCK_FD listen=$LISTEN_FDS"; ls -l /proc/$$/fd | grep -c -e /pods/ -e socket:; ls -l /proc/self/ns/net; } >>/run/rkt-spy.log 2>&1
cat >>/run/rkt-spy.json
[ "$CNI_COMMAND" = ADD ] || exit 0
echo hello from the plugin >&2
echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[]}'
`

// TestOwnPlugin: a plugin beside its configuration is found first, and gets
// what it is promised, when the pod starts and when it is collected.
//
// check list: networking 10, 11
func TestOwnPlugin(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	t.Cleanup(func() { f.sh("rm -rf /run/rkt-spy.* /run/rkt-local") })
	host := strings.TrimSpace(f.Run(t, "readlink", "/proc/self/ns/net"))
	for _, local := range []string{"/etc/rkt", "/run/rkt-local"} {
		f.sh("rm -f /run/rkt-spy.*")
		f.Write(t, local+"/net.d/bridge", 0o755, []byte(spyPlugin)) // in the place of the distribution's
		f.Write(t, local+"/net.d/spy.conf", 0o644, []byte(`{"cniVersion":"0.4.0","name":"spy","type":"bridge","own":{"key":[1]}}`))
		uuidFile := "/run/rkt-spy.uuid"
		args := append([]string{"rkt", "--local-config=" + local, "--insecure-options=image", "run", "--uuid-file-save=" + uuidFile, "--net=spy:FOO=a b;BAR=c=d"}, bb("ls /sys/class/net")...)
		stdout, stderr, code := f.Try(args...)
		if code != 0 {
			t.Fatalf("status %d\n%s%s", code, stdout, stderr)
		}
		contains(t, "messages", stdout+stderr, "network plugin bridge: hello from the plugin")
		uuid := strings.TrimSpace(f.Read(t, uuidFile))
		f.Run(t, "rkt", "--local-config="+local, "gc", "--grace-period=0s")
		log := f.Read(t, "/run/rkt-spy.log")
		parts := strings.Split(log, "CNI_ARGS=")[1:]
		if len(parts) != 2 {
			t.Fatalf("%d calls, want ADD and DEL:\n%s", len(parts), log)
		}
		for i, command := range []string{"ADD", "DEL"} {
			contains(t, command, parts[i], "FOO=a b;BAR=c=d\n", "CNI_COMMAND="+command+"\n", "CNI_CONTAINERID="+uuid+"\n", "CNI_IFNAME=eth0\n", "CNI_NETNS=/run/netns/rkt-"+uuid+"\n",
				"CNI_PATH="+local+"/net.d:/usr/lib/rkt/plugins/net:/usr/lib/cni:", "lock= listen=\n0\n", host)
		}
		contains(t, "standard input", f.Read(t, "/run/rkt-spy.json"), `"own":{"key":[1]}`, `"name":"spy"`, `"cniVersion":"0.4.0"`, `"type":"bridge"`)
		f.sh("rm -rf /run/rkt-local")
		f.noNetworks()
	}
	f.sh("rm -rf /run/rkt-spy.*")
	f.unchanged(before)
}

// TestStaticAddress: an address that is asked for is given, to one pod.
//
// check list: networking 15, 16
func TestStaticAddress(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	f.master()
	f.netFile("10-own.conf", ownPTP)
	f.netFile("20-lan.conflist", ownBridge)
	f.netFile("30-vlan.conf", ownMacvlan)
	f.netFile("40-caps.conflist", strings.NewReplacer(`"isDefault`, `"capabilities":{"ips":true,"mac":true},"isDefault`, `"lan"`, `"caps"`, "rkttest0", "rkttest1", "10.82", "10.84").Replace(ownBridge))
	t.Cleanup(func() { f.removeLink("rkttest0", "rkttest1") })
	for net, ip := range map[string]string{"own": "10.81.0.77/24", "lan": "10.82.0.77/24", "vlan": "10.83.0.77/24", "caps": "10.84.0.78/24", "default": "172.16.28.77/24", "default-restricted": "172.31.3.77/16"} {
		addr, _, _ := strings.Cut(ip, "/")
		equal(t, net, f.ips(t, "--net="+net+":IP="+addr), "eth0 "+ip+"\n")
		f.gc()
		// also with ports, which are another plugin's, and an address of its own for the link
		if net != "vlan" {
			equal(t, net, f.in(t, "--net="+net+":IP="+addr, "ip -4 -o addr show eth0 | awk '{print $4}'", "--port=80-tcp:18080"), ip+"\n")
		}
		f.gc()
	}
	for _, net := range []string{"lan", "vlan"} {
		contains(t, net, f.in(t, "--net="+net+":MAC=02-00-00-00-00-77;IP=10.8"+map[string]string{"lan": "2", "vlan": "3"}[net]+".0.79", "ip link show eth0; ip addr show eth0"), "02:00:00:00:00:77", ".0.79/24")
	}
	f.gc()
	f.declare("first", f.peerPod("first", "default:IP=172.16.28.77", nil, "tcp::8000"))
	f.start("first")
	f.refused(t, []string{`joining network "default"`, "172.16.28.77"}, append([]string{"run", "--net=default:IP=172.16.28.77"}, bb("echo ran")...)...)
	equal(t, "the first one", f.peerAsk("tcp", "172.16.28.77:8000"), "first sees 172.16.28.1\n")
	f.gc()
	equal(t, "the first one after the collection", f.peerAsk("tcp", "172.16.28.77:8000"), "first sees 172.16.28.1\n")
	f.forget("first")

	out := f.sh(`for i in 1 2 3 4 5 6 7 8; do rkt run --net=default,own ` + busybox + ` --exec=/bin/sh -- -c "ip -4 -o addr show eth0; ip -4 -o addr show eth1" & done 2>&1; wait`)
	ips := regexp.MustCompile(`inet (\S+)/24`).FindAllString(out, -1)
	slices.Sort(ips)
	if len(slices.Compact(slices.Clone(ips))) != 16 || len(ips) != 16 {
		t.Errorf("pods that started at once have the addresses %q\n%s", ips, out)
	}
	f.noNetworks()
	f.removeLink("rkttest0", "rkttest1", "rktm0")
	f.unchanged(before)
}

// TestNetworkDNS: what a network says about resolvers reaches the apps, unless
// the user says otherwise.
//
// check list: networking 24
func TestNetworkDNS(t *testing.T) {
	f := open(t)
	f.peer()
	before := f.snapshot()
	withDNS := func(name, subnet, server string) string {
		return `{"cniVersion":"0.4.0","name":"` + name + `","type":"ptp","dns":{"nameservers":["` + server + `","2001:db8::53"],"domain":"d.example","search":["s.example"],"options":["ndots:2"]},
"ipam":{"type":"host-local","subnet":"` + subnet + `","dataDir":"/var/lib/rkt/cni"}}`
	}
	f.netFile("10-a.conf", withDNS("a", "10.81.0.0/24", "192.0.2.1"))
	f.netFile("20-b.conf", withDNS("b", "10.82.0.0/24", "192.0.2.2"))
	const show = "cat /etc/resolv.conf 2>/dev/null || echo none"
	contains(t, "of the network", f.in(t, "--net=a,default", show), "# Generated by rkt from network a\n", "nameserver 192.0.2.1\n", "nameserver 2001:db8::53\n", "search s.example\n", "options ndots:2\n", "domain d.example\n")
	out := f.in(t, "--net=a", show, "--dns=192.0.2.9")
	contains(t, "of the user", out, "nameserver 192.0.2.9\n")
	lacks(t, "of the user", out, "192.0.2.1\n")
	equal(t, "none", f.in(t, "--net=a", show, "--dns=none"), "none\n")
	f.sh("echo nameserver 192.0.2.200 >/etc/resolv.conf")
	t.Cleanup(func() { f.sh(": >/etc/resolv.conf") })
	equal(t, "the host's", f.in(t, "--net=a", show, "--dns=host"), "nameserver 192.0.2.200\n")
	out, all, code := f.runPod(append([]string{"--net=b,a"}, bb(show)...)...)
	if code != 0 {
		t.Errorf("status %d", code)
	}
	contains(t, "two networks", out, "nameserver 192.0.2.1\n")
	lacks(t, "two networks", out, "192.0.2.2")
	contains(t, "messages", all, "network b plugin specified DNS configuration, but DNS already supplied")
	f.noNetworks()
	f.unchanged(before)
}

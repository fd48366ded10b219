//go:build boot

package boot

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
)

// ask connects to a port of the host and returns what comes.
func (f *fixture) ask(addr string, port int) string {
	f.t.Helper()
	stdout, stderr, code := f.Try("timeout", "30", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d; cat <&3", addr, port))
	if code != 0 {
		f.t.Errorf("%s:%d: status %d\n%s%s", addr, port, code, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

// states are the active states of units.
func (f *fixture) states(units ...string) string {
	f.t.Helper()
	out, _, _ := f.Try(append([]string{"systemctl", "is-active"}, units...)...)
	return strings.Join(strings.Fields(out), " ")
}

// reaches waits for the states of units.
func (f *fixture) reaches(want string, units ...string) {
	f.t.Helper()
	f.Eventually(f.t, soon, append([]string{"bash", "-c", `want=$1; shift; got=$(systemctl is-active "$@" | xargs); echo "$got, not $want"; [ "$got" = "$want" ]`, "-", want}, units...)...)
}

// server is an app that answers each connection to an address with a line, after a while.
func (f *fixture) server(name, after, addr string) m {
	f.t.Helper()
	return m{"name": name, "image": f.svc("svc-plain", appOf("/svc")), "exec": []string{"/svc", "wait=" + after, "listen=" + addr},
		"ports": []m{{"name": "echo", "port": 7000}}}
}

// TestSocketSection: a pod file's sockets are the host's, start the pod with
// the first connection and reach the app that the file names; no network is
// needed for it.
//
// check list: networking 31
func TestSocketSection(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	image := f.svc("svc-sockets", appOf("/svc", "serve"))
	ports := []m{{"name": "web", "port": 80, "socketActivated": true}, {"name": "time", "port": 37, "protocol": "udp", "socketActivated": true}}
	file := func(systemd m) m {
		return m{"apps": []m{{"name": "one", "image": image, "ports": ports}}, "ports": []string{"web:18090", "time:18091"}, "systemd": systemd, "rkt": m{"net": "none"}}
	}
	f.declare("act", file(m{"socket": m{"ListenStream": 18090, "ListenDatagram": "127.0.0.1:18091"}}))
	contains(t, "rkt pod show", f.sh("rkt pod show act"), "# rkt@act.socket", "ListenStream=18090", "sockets.target.wants/rkt@act.socket", "Sockets=rkt@act.socket")
	contains(t, "what sockets.target wants", f.show("sockets.target", "Wants"), "rkt@act.socket")
	f.systemctl("start", "rkt@act.socket")
	equal(t, "before a connection", f.states("rkt@act.service", "rkt@act.socket"), "inactive active")
	for _, addr := range []string{"127.0.0.1", "::1"} {
		equal(t, "answer at "+addr, f.ask(addr, 18090), "socket 0 of one")
	}
	contains(t, "answer to a datagram", f.sh("exec 3<>/dev/udp/127.0.0.1/18091; echo x >&3; timeout 30 head -1 <&3"), "of one")
	// the app is in the pod's network, where there is no such socket; the sockets are of the host's
	equal(t, "listening in the pod's network", f.sh(`nsenter -n -t $(machinectl show --value -p Leader act) ss -Hltn`), "")
	networks := strings.Fields(f.sh(`leader=$(machinectl show --value -p Leader act)
		app=$(head -1 "/sys/fs/cgroup$(systemctl show --value -p ControlGroup rkt@act)/payload/system.slice/one.service/cgroup.procs")
		readlink /proc/1/ns/net /proc/$leader/ns/net /proc/$app/ns/net; nsenter -n -t $app ip -br link | awk '{print $1}'`))
	if len(networks) != 4 || networks[0] == networks[1] || networks[1] != networks[2] || networks[3] != "lo" {
		t.Errorf("networks of the host, the pod and the app, and its links: %q", networks)
	}

	first := f.uuid("act")
	f.stop("act")
	equal(t, "after the stop", f.states("rkt@act.service", "rkt@act.socket"), "inactive active")
	equal(t, "answer after the stop", f.ask("127.0.0.1", 18090), "socket 0 of one")
	if f.uuid("act") == first {
		t.Error("the same pod answers after it was stopped")
	}
	// started by hand, without its sockets, it brings them
	f.systemctl("stop", "rkt@act.socket", "rkt@act.service")
	f.start("act")
	equal(t, "started by hand", f.states("rkt@act.service", "rkt@act.socket"), "active active")
	equal(t, "answer of a pod that was started by hand", f.ask("127.0.0.1", 18090), "socket 0 of one")
	f.systemctl("restart", "rkt@act")
	equal(t, "answer after a restart", f.ask("127.0.0.1", 18090), "socket 0 of one")

	// masked: the pod can still be started, nothing listens
	f.systemctl("stop", "rkt@act.socket", "rkt@act.service")
	f.systemctl("mask", "--runtime", "rkt@act.socket")
	t.Cleanup(func() { f.systemctl("unmask", "--runtime", "rkt@act.socket") })
	if _, stderr, code := f.Try("systemctl", "start", "rkt@act.socket"); code == 0 || !strings.Contains(stderr, "masked") {
		t.Errorf("a masked socket: status %d, %s", code, stderr)
	}
	f.systemctl("unmask", "--runtime", "rkt@act.socket")

	// a broken file gives no socket
	f.declare("act", file(m{"socket": m{"ListenStream": "/run/act.sock"}}))
	equal(t, "the socket of a broken file", f.show("rkt@act.socket", "LoadState"), "not-found")
	lacks(t, "what sockets.target wants", f.show("sockets.target", "Wants"), "rkt@act.socket")
	contains(t, "rkt pod check", f.sh("rkt pod check act 2>&1 || true"), `"/run/act.sock" is no PORT`)

	// instances of a template
	f.declare("act@", m{"apps": []m{{"name": "one", "image": image, "ports": []m{{"name": "web", "port": 18092, "socketActivated": true}}}},
		"systemd": m{"socket": m{"ListenStream": "127.0.0.1:%i"}, "install": m{"DefaultInstance": "18092"}}, "rkt": m{"net": "none"}})
	f.systemctl("start", "rkt@act@18092.socket")
	equal(t, "answer of an instance", f.ask("127.0.0.1", 18092), "socket 0 of one")
	f.forget("act@18092", "act@", "act")
	f.unchanged(before)
}

// TestActivatedPort: an app that takes no sockets is started by the first
// connection to its port, which is answered however slow the app is, whatever
// the pod's network. The proxy is nobody, in the pod's network; nothing is
// forwarded.
func TestActivatedPort(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	// what a slow start needs is seen in one network
	slow := map[string]string{"none:7000": "2s"}
	for _, c := range []struct{ net, listen string }{{"none", ":7000"}, {"default", "0.0.0.0:7000"}, {"host", "127.0.0.1:7000"},
		{"none", "127.0.0.1:7000"}, {"none", "[::1]:7000"}, {"default", "eth0:7000"}} {
		t.Run(c.net+" "+c.listen, func(t *testing.T) {
			f := &fixture{Host: f.Host, t: t, since: f.since}
			a := f.server("slow", cmp.Or(slow[c.net+c.listen], "200ms"), c.listen)
			f.declare("my-act", m{"apps": []m{a}, "ports": []m{{"name": "echo", "hostPort": 17000, "activate": true}}, "rkt": m{"net": c.net}})
			proxy := `rkt-proxy-my\x2dact-echo`
			f.systemctl("start", proxy+".socket")
			equal(t, "before a connection", f.states("rkt@my-act", proxy+".service"), "inactive inactive")
			for _, addr := range []string{"127.0.0.1", "::1"} {
				equal(t, "answer at "+addr, f.ask(addr, 17000), "socket 0 of slow")
			}
			equal(t, "after a connection", f.states("rkt@my-act", proxy+".service"), "active active")
			pid := f.show(proxy+".service", "MainPID")
			equal(t, "identity of the proxy", f.sh(`awk '/^(Uid|Gid|CapEff|CapPrm|NoNewPrivs):/ {print $2}' /proc/`+pid+"/status | xargs"), "65534 65534 0000000000000000 0000000000000000 1\n")
			leader := strings.TrimSpace(f.sh("machinectl show --value -p Leader my-act"))
			equal(t, "networks of proxy and pod", f.sh("readlink /proc/"+pid+"/ns/net"), f.sh("readlink /proc/"+leader+"/ns/net"))
			lacks(t, "the firewall", f.sh("iptables-save 2>/dev/null; nft list ruleset 2>/dev/null"), "17000")
			contains(t, "rkt status", f.sh("rkt status my-act"), "port=echo tcp *:17000 -> ")

			// the pod ends, however it does: so does its proxy, and the next connection starts both
			for _, end := range []string{"systemctl stop rkt@my-act", "machinectl terminate my-act"} {
				f.sh(end)
				f.reaches("inactive active", proxy+".service", proxy+".socket")
				equal(t, "answer after "+end, f.ask("127.0.0.1", 17000), "socket 0 of slow")
			}
			f.systemctl("restart", "rkt@my-act")
			equal(t, "answer after a restart", f.ask("127.0.0.1", 17000), "socket 0 of slow")
			// nothing answers where nothing listens, not even the proxy that had the socket
			f.systemctl("stop", proxy+".socket")
			if out, _, code := f.Try("timeout", "5", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/17000; cat <&3"); code == 0 {
				t.Errorf("an answer after the socket was stopped: %s", out)
			}
			f.forget("my-act")
		})
	}
	f.unchanged(before)
}

// The fly flavour has no network namespace to enter.
func TestActivatedPortOfFly(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("actfly", m{"apps": []m{f.server("slow", "1s", "127.0.0.1:7000")}, "rkt": m{"stage1": flyStage1},
		"ports": []m{{"name": "echo", "hostPort": 17003, "activate": true}}})
	f.systemctl("start", "rkt-proxy-actfly-echo.socket")
	for range 2 {
		equal(t, "the answer", f.ask("127.0.0.1", 17003), "socket 0 of slow")
		f.stop("actfly")
		f.reaches("inactive inactive active", "rkt@actfly.service", "rkt-proxy-actfly-echo.service", "rkt-proxy-actfly-echo.socket")
	}
	f.forget("actfly")
	f.unchanged(before)
}

// A pod that is idle ends, unless something else wants it, and comes again.
func TestIdleTime(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.declare("idle", m{"apps": []m{f.server("echo", "0s", ":7000")},
		"ports": []m{{"name": "echo", "hostPort": 17001, "activate": true, "idleTime": "1s"}}, "rkt": m{"net": "none"}})
	units := []string{"rkt@idle.service", "rkt-proxy-idle-echo.service", "rkt-proxy-idle-echo.socket"}
	f.systemctl("start", units[2])
	seen := map[string]bool{}
	for range 3 {
		equal(t, "the answer", f.ask("127.0.0.1", 17001), "socket 0 of echo")
		seen[f.uuid("idle")] = true
		f.reaches("inactive inactive active", units...)
	}
	if len(seen) != 3 {
		t.Errorf("three connections started the pods %v", seen)
	}
	equal(t, "outcomes", []string{f.show(units[0], "Result"), f.show(units[1], "Result")}, []string{"success", "success"})
	// connections at all points of its end
	asked := f.sh(`for i in $(seq 0 9); do timeout 60 bash -c 'exec 3<>/dev/tcp/127.0.0.1/17001; cat <&3' || echo "no answer"; sleep "1.0$i"; done | sort | uniq -c | xargs`)
	equal(t, "answers to connections while it ends", asked, "10 socket 0 of echo\n")
	f.reaches("inactive inactive active", units...)
	// started by hand it stays until it was of use
	f.start("idle")
	f.reaches("active active active", units...)
	equal(t, "the answer", f.ask("127.0.0.1", 17001), "socket 0 of echo")
	f.reaches("inactive inactive active", units...)
	// wanted by something else it stays
	f.Write(t, "/run/systemd/system/rkt-test-wants.service", 0o644, []byte("[Unit]\nWants=rkt@idle.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"))
	f.sh("systemctl daemon-reload; systemctl start rkt-test-wants")
	t.Cleanup(func() {
		f.trySh("systemctl stop rkt-test-wants; rm -f /run/systemd/system/rkt-test-wants.service; systemctl daemon-reload")
	})
	equal(t, "the answer", f.ask("127.0.0.1", 17001), "socket 0 of echo")
	f.reaches("active inactive active", units...)
	uuid := f.uuid("idle")
	equal(t, "the answer", f.ask("127.0.0.1", 17001), "socket 0 of echo")
	equal(t, "the pod that answers", f.uuid("idle"), uuid)
	f.sh("systemctl stop rkt-test-wants")
	f.reaches("inactive inactive active", units...)
	f.forget("idle")
	f.sh("rm -f /run/systemd/system/rkt-test-wants.service; systemctl daemon-reload")
	f.unchanged(before)
}

// A pod that cannot answer costs each client its connection, soon, and nothing
// is tried without end; the reason is to be seen.
func TestActivatedPodFails(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	refused := func(what, state, reason string) {
		t.Helper()
		out, _, code := f.Try("timeout", "20", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/17002; cat <&3")
		if code == 124 || out != "" {
			t.Errorf("%s: the connection was not closed: status %d, %q", what, code, out)
		}
		f.reaches(state+" active", "rkt-proxy-fails-echo.service", "rkt-proxy-fails-echo.socket")
		f.Eventually(t, soon, "bash", "-c", `systemctl status rkt-proxy-fails-echo.service | grep -F "$1"`, "-", reason)
	}
	port := m{"ports": []m{{"name": "echo", "port": 7000}}}
	starts := func() string {
		return f.sh("journalctl --sync; journalctl -q -u rkt@fails -o cat --since '" + f.since + "' | grep -c '^Starting rkt@fails' || true")
	}
	declare := func(a m) {
		f.declare("fails", m{"apps": []m{a}, "ports": []m{{"name": "echo", "hostPort": 17002, "activate": true}}, "rkt": m{"net": "none"}})
		f.systemctl("start", "rkt-proxy-fails-echo.socket")
	}
	declare(app("echo", "true", port, m{"image": "/nowhere.aci"}))
	refused("no image", "failed", "does not run")
	equal(t, "starts of the pod", starts(), "1\n")
	refused("still no image", "failed", "does not run")
	equal(t, "starts of the pod", starts(), "2\n")
	// it runs, and ends before it listens
	declare(app("echo", "sleep 1; exit 3", port))
	refused("a pod that ends", "inactive", "before the app listened on its port 7000")
	equal(t, "starts of the pod", starts(), "3\n")
	// the file was corrected: nothing has to be reset
	declare(f.server("echo", "0s", ":7000"))
	equal(t, "the answer", f.ask("127.0.0.1", 17002), "socket 0 of echo")
	f.systemctl("stop", "rkt@fails")
	// a pod that is started again by systemd is waited for
	a := app("echo", "[ -e /data/again ] || { touch /data/again; exit 3; }; exec /data/svc listen=:7000", port, m{"mounts": []string{"volume=data,target=/data"}})
	f.sh("rm -rf /var/tmp/rkt-again; mkdir -m 777 /var/tmp/rkt-again; tar -C /var/tmp/rkt-again --strip-components=1 -xf " + f.svc("svc-plain", appOf("/svc")) + " rootfs/svc")
	t.Cleanup(func() { f.trySh("rm -rf /var/tmp/rkt-again") })
	f.declare("fails", m{"apps": []m{a}, "volumes": []string{"data,kind=host,source=/var/tmp/rkt-again"}, "rkt": m{"net": "none"},
		"ports": []m{{"name": "echo", "hostPort": 17002, "activate": true}}, "systemd": m{"service": m{"Restart": "on-failure"}}})
	// the proxy has time to see that the pod does not run
	const slow = "/run/systemd/system/rkt@fails.service.d"
	f.Write(t, slow+"/50-slow.conf", 0o644, []byte("[Service]\nExecStopPost=/bin/sleep 2\n"))
	t.Cleanup(func() { f.trySh("rm -rf " + slow + "; systemctl daemon-reload") })
	f.systemctl("daemon-reload")
	equal(t, "the answer of a pod that failed first", f.ask("127.0.0.1", 17002), "socket 0 of echo")
	f.sh("rm -r " + slow + "; systemctl daemon-reload")
	f.forget("fails")

	for what, c := range map[string]struct {
		port, app m
		net, want string
	}{
		"udp":            {m{}, m{"protocol": "udp"}, "none", `is for tcp only, not for udp`},
		"takes sockets":  {m{}, m{"socketActivated": true}, "none", `takes sockets from systemd (socketActivated) and needs no proxy`},
		"the host's own": {m{}, m{"port": 17002}, "host", `the app itself listens on 17002; "hostPort" must be another`},
		"no such port":   {m{"name": "nope"}, m{}, "none", `port name "nope" could not be found in any apps`},
	} {
		p, ap := m{"name": "echo", "hostPort": 17002, "activate": true}, m{"name": "echo", "port": 7000}
		for k, v := range c.port {
			p[k] = v
		}
		for k, v := range c.app {
			ap[k] = v
		}
		f.declare("fails", m{"apps": []m{app("echo", "true", m{"ports": []m{ap}})}, "ports": []m{p}, "rkt": m{"net": c.net}})
		if _, _, code := f.Try("systemctl", "start", "rkt@fails"); code == 0 {
			t.Errorf("%s: the pod was started", what)
		}
		contains(t, what, f.journal("-u", "rkt@fails", "--since", f.since), c.want)
		f.forget("fails")
	}
	f.unchanged(before)
}

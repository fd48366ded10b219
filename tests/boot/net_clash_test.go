//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

// server is an app with a web server on port 8080 that answers with its name.
func server(name string) m {
	return m{"name": name, "image": busybox, "app": m{"exec": []string{"/bin/sh", "-c", "mkdir -p /tmp/www && echo " + name + " >/tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"},
		"user": "0", "group": "0", "ports": []m{{"name": "http", "port": 8080, "protocol": "tcp"}, {"name": "dns", "port": 53, "protocol": "udp"}}}}
}

func serverPod(name string, net any, ports ...string) m {
	return m{"apps": []m{server(name)}, "ports": ports, "rkt": m{"net": net}}
}

// Two pods, or a pod and a program of the host, cannot have one port; the
// message names the holder, and the holder goes on.
//
// check list: networking 20, 22
func TestPortClashes(t *testing.T) {
	f := open(t)
	f.declare("warm", serverPod("warm", "default", "http:18079"))
	f.start("warm") // makes the chains that stay
	f.forget("warm")
	before := f.snapshot()
	fails := func(name string, want ...string) {
		t.Helper()
		if _, _, code := f.Try("systemctl", "start", "rkt@"+name); code == 0 {
			t.Errorf("pod %s starts", name)
		}
		equal(t, "the status of "+name, f.show("rkt@"+name, "ExecMainStatus"), "254")
		contains(t, "the journal", f.journal("-u", "rkt@"+name, "--since", f.since), want...)
		f.systemctl("reset-failed", "rkt@"+name)
	}
	answers := func(port int, want string) {
		t.Helper()
		equal(t, fmt.Sprint("port ", port), f.sh(fmt.Sprintf("for i in {1..1200}; do curl -sf --max-time 5 http://127.0.0.1:%d/ && exit; sleep 0.05; done", port)), want+"\n")
	}

	t.Run("two pods", func(t *testing.T) {
		f.declare("holder", serverPod("holder", "default", "http:18080", "dns:127.0.0.1:18053"))
		f.start("holder")
		f.declare("second", serverPod("second", "default", "http:18080"))
		fails("second", "port tcp 0.0.0.0:18080 is in use by pod holder (rkt@holder.service)")
		f.declare("second", serverPod("second", "default", "http:127.0.0.1:18080"))
		fails("second", "port tcp 127.0.0.1:18080 is in use by pod holder (rkt@holder.service)")
		f.declare("second", serverPod("second", "default", "dns:18053"))
		fails("second", "port udp 0.0.0.0:18053 is in use by pod holder")
		answers(18080, "holder")
		// another protocol, another address
		f.declare("second", serverPod("second", "default", "dns:18080", "http:18053"))
		f.start("second")
		answers(18053, "second")
		f.forget("second")
		f.declare("second", serverPod("second", "default", "dns:127.0.0.2:18053"))
		f.start("second")
		f.forget("second")
		uuid := f.uuid("holder")
		f.refused(t, []string{"port tcp 0.0.0.0:18080 is in use by pod holder"}, append([]string{"run", "--port=8080-tcp:18080"}, f.httpImage()...)...)
		// by hand, other data directory
		f.refused(t, []string{"port tcp 0.0.0.0:18080 is in use by pod holder"}, append([]string{"--dir=/var/tmp/other", "run", "--port=8080-tcp:18080"}, f.httpImage()...)...)
		f.sh("rkt --dir=/var/tmp/other gc --grace-period=0s --expire-prepared=0s >/dev/null 2>&1; rm -rf /var/tmp/other")
		answers(18080, "holder")
		equal(t, "the holder", f.uuid("holder"), uuid)
		// its port is free when it has ended
		f.stop("holder")
		f.declare("second", serverPod("second", "default", "http:18080"))
		f.start("second")
		answers(18080, "second")
		f.forget("second", "holder")
	})

	t.Run("programs of the host", func(t *testing.T) {
		f.sh(`systemd-run --quiet --unit=clash-web busybox httpd -f -p 18081 -h /tmp
			systemd-run --quiet --unit=clash-local busybox httpd -f -p 127.0.0.1:18082 -h /tmp
			systemd-run --quiet --unit=clash-udp --socket-property=ListenDatagram=18083 cat
			systemd-run --quiet --unit=clash-sock --socket-property=ListenStream=18084 cat
			for i in {1..1200}; do [ "$(ss -Hltun | grep -c ':1808[1-4] ' || true)" = 4 ] && exit; sleep 0.05; done; ss -Hltun; exit 1`)
		defer f.sh("systemctl stop clash-web clash-local clash-udp.socket clash-sock.socket 2>/dev/null || true; systemctl reset-failed 'clash-*' 2>/dev/null || true")
		for ports, want := range map[string]string{
			"http:18081": "port tcp 0.0.0.0:18081 is in use by process " + f.show("clash-web", "MainPID") + " (busybox) of clash-web.service",
			"http:18082": "port tcp 0.0.0.0:18082 is in use by process " + f.show("clash-local", "MainPID") + " (busybox) of clash-local.service",
			"dns:18083":  "port udp 0.0.0.0:18083 is in use by clash-udp.socket",
			"http:18084": "port tcp 0.0.0.0:18084 is in use by clash-sock.socket",
		} {
			f.declare("clash", serverPod("clash", "default", ports))
			fails("clash", want)
		}
		// the other protocol, and an address that nobody listens at
		f.declare("clash", serverPod("clash", "default", "dns:18081", "http:127.0.0.2:18082", "http:18083"))
		f.start("clash")
		f.stop("clash")
		// Connections that are about to be forgotten are no clash.
		f.sh("curl -s http://127.0.0.1:18081/none >/dev/null; systemctl stop clash-web")
		f.declare("clash", serverPod("clash", "default", "http:18081"))
		f.start("clash")
		answers(18081, "clash")
		f.forget("clash")
	})

	t.Run("within a pod", func(t *testing.T) {
		f.declare("twice", serverPod("twice", "default", "http:18085", "http:127.0.0.1:18085"))
		fails("twice", "port tcp-127.0.0.1:18085 already mapped to pod port 8080")
		f.declare("twice", serverPod("twice", "default", "http:18085", "dns:18085", "http:18086"))
		f.start("twice")
		answers(18086, "twice")
		f.forget("twice")
	})

	t.Run("started at once", func(t *testing.T) {
		const n = 6
		var units []string
		for i := range n {
			name := fmt.Sprint("race", i)
			f.declare(name, serverPod(name, "default", "http:18087"))
			units = append(units, "rkt@"+name)
		}
		_, _, _ = f.Try(append([]string{"systemctl", "start"}, units...)...)
		states, _, _ := f.Try(append([]string{"systemctl", "is-active"}, units...)...)
		equal(t, "pods that run", strings.Count("\n"+states, "\nactive\n"), 1)
		answers(18087, strings.TrimSpace(f.sh(`systemctl list-units --plain --no-legend --state=active 'rkt@race*' | sed 's/rkt@//; s/\.service.*//'`)))
		for i := range n {
			f.forget(fmt.Sprint("race", i))
		}
	})
	f.unchanged(before)
}

// httpImage are the arguments of an image that declares the port 8080-tcp.
func (f *fixture) httpImage() []string {
	return []string{f.image("http", "busybox", "--name", "example.com/http", "--manifest",
		`{"app": {"exec": ["/bin/httpd", "-f", "-p", "8080"], "user": "0", "group": "0", "ports": [{"name": "8080-tcp", "protocol": "tcp", "port": 8080}]}}`)}
}

//go:build boot

package boot

import (
	"fmt"
	"strings"
	"testing"
)

const (
	nginxDir = "/var/tmp/rkt-nginx"
	page     = "a page of the image\n"
)

// nginx declares a pod of Debian's nginx that listens at these addresses.
func (f *fixture) nginx(name string, listen []string, app m, more m) {
	f.t.Helper()
	conf := "daemon off;\nuser www-data;\nworker_processes 2;\npid /tmp/nginx.pid;\nerror_log stderr notice;\nevents {}\nhttp {\n  access_log /logs/access.log;\n  server { root /usr/share/nginx/html;"
	for _, l := range listen {
		conf += " listen " + l + ";"
	}
	f.Write(f.t, nginxDir+"/"+name+"/nginx.conf", 0o644, []byte(conf+" }\n}\n"))
	a := m{"name": "nginx", "image": f.image("nginx", "nginx"), "exec": []string{"/usr/sbin/nginx", "-c", "/conf/nginx.conf"},
		"mounts": []string{"volume=logs,target=/logs", "volume=conf,target=/conf"}}
	for k, v := range app {
		a[k] = v
	}
	p := m{"apps": []m{a}, "volumes": []string{"logs,kind=empty,mode=0755", "conf,kind=host,readOnly=true,source=" + nginxDir + "/" + name}}
	for k, v := range more {
		p[k] = v
	}
	f.declare(name, p)
	f.t.Cleanup(func() { f.trySh("rm -rf " + nginxDir) })
}

// get asks for the page, from the host or from the pod called from.
func (f *fixture) get(from, url string) (string, int) {
	f.t.Helper()
	script := "exec "
	if from != "" {
		script = `exec nsenter -n -t "$(machinectl show --value -p Leader ` + from + `)" `
	}
	out, stderr, code := f.Try("bash", "-c", script+`curl -gfsS --noproxy "*" --max-time 20 "$1"`, "-", url)
	if code != 0 {
		out += stderr
	}
	return out, code
}

// A declared nginx answers on a forwarded port to whoever asks, wherever the
// host is asked for it, over IPv4 and IPv6; after a restart as before; and
// nobody answers after it was stopped.
func TestNginxIsReached(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	f.dualNetworks()
	f.sh("ip link add rkt-test0 type veth peer name rkt-test1; ip link set rkt-test1 up; ip link set rkt-test0 up; ip addr add 198.51.100.7/32 dev rkt-test0; ip addr add fd99::7/128 nodad dev rkt-test0")
	t.Cleanup(func() { f.trySh("ip link delete rkt-test0") })
	dual := m{"net": "rkt-dual"}
	f.nginx("site", []string{"80", "[::]:80"}, nil, m{"ports": []string{"http:18100"}, "rkt": dual})
	f.declare("other", m{"apps": []m{app("sleep", "exec sleep 1000")}, "rkt": dual})
	f.start("other")
	address := func(family string) string {
		return strings.TrimSpace(f.sh(`nsenter -n -t $(machinectl show --value -p Leader site) ip -o ` + family + ` addr show eth0 scope global | sed 's/.*inet6\? \([^/]*\).*/\1/'`))
	}
	for _, how := range []string{"start", "restart", "restart"} {
		f.systemctl(how, "rkt@site")
		f.Eventually(t, soon, "bash", "-c", `nsenter -n -t "$(machinectl show --value -p Leader site)" ss -Hltn sport = :80 | grep -q '\[::\]'`)
		for _, c := range []struct{ from, at string }{
			{"", "127.0.0.1:18100"}, {"", "198.51.100.7:18100"}, {"", "10.66.1.1:18100"}, {"", address("-4") + ":80"},
			{"other", "198.51.100.7:18100"}, {"other", "10.66.1.1:18100"}, {"other", address("-4") + ":80"}, {"site", "198.51.100.7:18100"}, {"site", "10.66.1.1:18100"},
			{"", "[fd99::7]:18100"}, {"", "[fd66:1::1]:18100"}, {"", "[" + address("-6") + "]:80"}, {"", "localhost:18100"},
			{"other", "[fd99::7]:18100"}, {"other", "[" + address("-6") + "]:80"}, {"site", "[fd99::7]:18100"},
		} {
			if out, _ := f.get(c.from, "http://"+c.at+"/"); out != page {
				t.Errorf("%s: %q asks %s: %s", how, c.from, c.at, out)
			}
		}
		// the kernel cannot do this; programs go on to 127.0.0.1
		if out, code := f.get("", "http://[::1]:18100/"); code != 7 {
			t.Errorf("%s: [::1] is asked: curl's status %d, %s", how, code, out)
		}
	}
	f.stop("site")
	for _, c := range []struct{ from, at string }{{"", "127.0.0.1:18100"}, {"", "198.51.100.7:18100"}, {"", "[::1]:18100"}, {"other", "198.51.100.7:18100"}, {"other", "[fd99::7]:18100"}} {
		// 7: refused, nothing is there
		if out, code := f.get(c.from, "http://"+c.at+"/"); code != 7 {
			t.Errorf("%q asks %s after the stop: curl's status %d, %s", c.from, c.at, code, out)
		}
	}
	f.forget("site", "other")
	f.sh("ip link delete rkt-test0; rm -f /etc/rkt/net.d/10-rkt-*.conflist; rm -rf /var/lib/rkt/cni/networks/rkt-*")
	f.unchanged(before)
}

// The first connection to nginx is answered: with the sockets of the pod file,
// which nginx takes as its own, and by a proxy.
//
// check list: networking 31
func TestNginxStartsWithTheFirstConnection(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	proxied := func(net string) m {
		return m{"ports": []m{{"name": "http", "hostPort": 18102, "activate": true, "idleTime": "1s"}}, "rkt": m{"net": net}}
	}
	for _, c := range []struct {
		what, socket, at string
		listen           string
		app, more        m
	}{
		// nginx finds the sockets that it inherits by their addresses
		{"sockets", "rkt@first.socket", "18101", "[::]:18101 ipv6only=off", m{"ports": []m{{"name": "http", "port": 18101, "socketActivated": true}}, "environment": m{"NGINX": "3;"},
			// a worker that loses the race for a connection must not wait for the next
			"systemd": m{"service": m{"NonBlocking": "yes"}}},
			m{"systemd": m{"socket": m{"ListenStream": 18101}}, "rkt": m{"net": "none"}}},
		{"proxy, no network", "rkt-proxy-first-http.socket", "18102", "80", nil, proxied("none")},
		{"proxy, default network", "rkt-proxy-first-http.socket", "18102", "80", nil, proxied("default")},
		{"proxy, the host's network", "rkt-proxy-first-http.socket", "18102", "18103", m{"ports": []m{{"name": "http", "port": 18103}}}, proxied("host")},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := &fixture{Host: f.Host, t: t, since: f.since}
			f.nginx("first", []string{c.listen}, c.app, c.more)
			f.systemctl("start", c.socket)
			for _, host := range []string{"127.0.0.1", "[::1]"} {
				f.systemctl("stop", "rkt@first")
				equal(t, "before a connection", f.states("rkt@first", c.socket), "inactive active")
				if out, _ := f.get("", fmt.Sprintf("http://%s:%s/", host, c.at)); out != page {
					t.Errorf("the first connection to %s: %s", host, out)
				}
				equal(t, "after a connection", f.states("rkt@first"), "active")
				if out := f.sh(fmt.Sprintf("for i in $(seq 40); do curl -gfsS --max-time 20 http://%s:%s/ & done | sort | uniq -c | xargs; wait", host, c.at)); strings.TrimSpace(out) != "40 "+strings.TrimSpace(page) {
					t.Errorf("many connections to %s: %s", host, out)
				}
			}
			if c.what != "sockets" {
				f.reaches("inactive inactive active", "rkt@first.service", "rkt-proxy-first-http.service", c.socket)
			}
			f.forget("first")
		})
	}
	f.unchanged(before)
}

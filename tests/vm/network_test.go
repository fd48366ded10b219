//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/tests/host"
)

// networked declares a pod that serves its own name on a port of the host.
func networked(t *testing.T, h *host.Host, name string, port int) {
	t.Helper()
	h.Write(t, "/etc/rkt/pods/"+name+".json", 0o644, podOf(t, name, port))
}

func podOf(t *testing.T, name string, port int) []byte {
	t.Helper()
	serve := []string{"/bin/sh", "-c", "hostname >/index.html; exec httpd -f -p 80 -h /"}
	b, err := json.Marshal(m{
		"apps": []m{{"name": "app", "image": "example.com/busybox", "app": m{"exec": serve, "user": "0", "group": "0",
			"ports": []m{{"name": "http", "port": 80, "protocol": "tcp"}}}}},
		"ports":   []m{{"name": "http", "hostPort": port}},
		"rkt":     m{"net": "default", "hostname": name},
		"systemd": m{"service": m{"TimeoutStartSec": "15min"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everyPort prints the pods p0, p1 … that do not answer with their own name.
func everyPort() string {
	return fmt.Sprintf(`
	for i in $(seq 0 %d); do
		got=
		for try in 1 2 3 4 5 6; do
			got=$(curl -s --max-time 20 http://127.0.0.1:$((20000 + i))/) && break
			sleep 1
		done
		[ "$got" = "p$i" ] || echo "p$i: $got"
	done`, many()-1)
}

// nginx declares one in a network of both families, for every boot, and a pod
// that starts with the first connection.
func nginx(t *testing.T, h *host.Host) {
	t.Helper()
	h.Write(t, "/etc/rkt/net.d/10-dual.conflist", 0o644, []byte(`{"cniVersion":"1.0.0","name":"dual","plugins":[{"type":"bridge","bridge":"dual0","isGateway":true,
"ipam":{"type":"host-local","dataDir":"/var/lib/rkt/cni","ranges":[[{"subnet":"10.99.0.0/24"}],[{"subnet":"fd00:99::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}]}`))
	h.Write(t, "/etc/rkt-nginx/nginx.conf", 0o644, []byte(`daemon off; user www-data; pid /tmp/nginx.pid; error_log stderr; events {}
http { access_log /logs/access.log; server { listen 80; listen [::]:80; root /usr/share/nginx/html; } }
`))
	b, err := json.Marshal(m{
		"apps": []m{{"name": "nginx", "image": "/var/tmp/img/nginx.aci", "exec": []string{"/usr/sbin/nginx", "-c", "/conf/nginx.conf"},
			"mounts": []string{"volume=conf,target=/conf", "volume=logs,target=/logs"}}},
		"volumes": []string{"conf,kind=host,readOnly=true,source=/etc/rkt-nginx", "logs,kind=empty,mode=0755"},
		"ports":   []m{{"name": "http", "hostPort": 8080}},
		"rkt":     m{"net": "dual"},
		"systemd": m{"service": m{"TimeoutStartSec": "15min"}, "install": m{"WantedBy": "multi-user.target"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Write(t, "/etc/rkt/pods/nginx.json", 0o644, b)
	lazy := []byte(strings.Replace(string(podOf(t, "lazy", 8081)), `"hostPort":8081`, `"hostPort":8081,"activate":true`, 1))
	h.Write(t, "/etc/rkt/pods/lazy.json", 0o644, lazy)
	h.Run(t, "systemctl", "daemon-reload")
}

// lazyAnswers connects to the pod that does not run yet, and stops it.
func lazyAnswers(t *testing.T, h *host.Host) {
	t.Helper()
	if out, _, _ := h.Try("systemctl", "is-active", "rkt-proxy-lazy-http.socket", "rkt@lazy.service"); out != "active\ninactive\n" {
		t.Errorf("the socket and the service of the pod that waits for connections: %q", out)
	}
	if out := h.RunFor(t, patience, "curl", "-sS", "--max-time", "300", "http://127.0.0.1:8081/"); out != "lazy\n" {
		t.Errorf("the first connection: %q", out)
	}
	h.Run(t, "systemctl", "stop", "rkt@lazy")
}

// nginxAnswers asks it over every way to the host.
//
// check list: networking 17
func nginxAnswers(t *testing.T, h *host.Host) {
	t.Helper()
	h.Run(t, "ip", "address", "replace", "192.0.2.1/32", "dev", "lo")
	h.Run(t, "ip", "address", "replace", "2001:db8::1/128", "dev", "lo")
	for _, to := range []string{"127.0.0.1", "192.0.2.1", "10.99.0.1", "[2001:db8::1]", "[fd00:99::1]"} {
		h.Eventually(t, 2*time.Minute, "bash", "-c", "curl -sS --max-time 20 http://"+to+":8080/ | grep -q 'a page of the image'")
	}
}

package podfile

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSockets(t *testing.T) {
	p, ps := parse("web", `{"apps": [{"image": "a", "ports": [{"name": "http", "port": 80, "socketActivated": true}, {"name": "q", "protocol": "udp", "count": 3}]}],
		"ports": ["http:8080", {"name": "q", "hostPort": 81, "hostIP": "::1", "activate": true, "idleTime": "1h 30min"}, {"name": "r", "hostPort": 82, "activate": true, "idleTime": 90}],
		"systemd": {"socket": {"ListenStream": [80, "127.0.0.1:81", "[fe80::1]:82%%eth0"], "ListenDatagram": "[::]:53", "Accept": false, "NoDelay": true}}}`)
	if len(ps) > 0 {
		t.Fatal(lines(ps))
	}
	ports := []Port{{Name: "http", HostPort: 8080}, {Name: "q", HostPort: 81, HostIP: "::1", Activate: true, IdleTime: "1h 30min"},
		{Name: "r", HostPort: 82, Activate: true, IdleTime: "90"}}
	if d := cmp.Diff(ports, p.Ports); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]AppPort{{Name: "http", Port: 80, SocketActivated: ptr(true)}, {Name: "q", Protocol: "udp", Count: 3}}, p.Apps[0].Override.Ports); d != "" {
		t.Error(d)
	}
	socket := []Directive{{Key: "ListenStream", Values: []string{"80", "127.0.0.1:81", "[fe80::1]:82%%eth0"}}, {Key: "ListenDatagram", Values: []string{"[::]:53"}},
		{Key: "Accept", Values: []string{"no"}}, {Key: "NoDelay", Values: []string{"yes"}}}
	if d := cmp.Diff(socket, p.Socket, ignorePos); d != "" {
		t.Error(d)
	}
}

func TestIsListen(t *testing.T) {
	for s, want := range map[string]bool{
		"80": true, "0": false, "080": false, "65536": false, "": false, "/run/x": false, "@x": false, "vsock::80": false, "1.2.3.4:80": true, "1.2.3.4": false,
		"[::1]:80": true, "::1:80": false, "[1.2.3.4]:80": false, "[::1]:80%%eth0": true, "80%%": false, "80%i": false, "localhost:80": false, "80 81": false, ":80": false,
	} {
		if got := isListen(s); got != want {
			t.Errorf("isListen(%q) = %t", s, got)
		}
	}
}

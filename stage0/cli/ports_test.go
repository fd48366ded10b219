package cli

import "testing"

func TestPortText(t *testing.T) {
	for _, c := range []struct {
		p    portJSON
		want string
	}{
		{portJSON{Name: "http", Protocol: "tcp", HostPort: 8080, PodIP: "172.16.28.2", PodPort: 80}, "http tcp *:8080 -> 172.16.28.2:80"},
		{portJSON{Name: "http", Protocol: "tcp", HostIP: "127.0.0.1", HostPort: 8080, PodIP: "172.16.28.2", PodIP6: "fd00::2", PodPort: 80}, "http tcp 127.0.0.1:8080 -> 172.16.28.2:80"},
		{portJSON{Name: "six", Protocol: "udp", HostIP: "fd99::1", HostPort: 53, PodIP: "172.16.28.2", PodIP6: "fd00::2", PodPort: 53}, "six udp [fd99::1]:53 -> [fd00::2]:53"},
		{portJSON{Name: "six", Protocol: "sctp", HostPort: 9, PodIP6: "fd00::2", PodPort: 9}, "six sctp *:9 -> [fd00::2]:9"},
		{portJSON{Name: "act", Protocol: "tcp", HostPort: 81, PodPort: 80, Activated: true}, "act tcp *:81 -> :80 activated"},
		{portJSON{Name: "sock", Protocol: "tcp", HostPort: 82, PodPort: 80, SocketActivated: true}, "sock tcp *:82 -> socket"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

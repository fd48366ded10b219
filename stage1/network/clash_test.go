package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/netreg"
)

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		p, q string
		want bool
	}{
		{"tcp/80", "tcp/80", true},
		{"tcp/80", "udp/80", false},
		{"tcp/80", "tcp/81", false},
		{"tcp/80", "tcp/127.0.0.1/80", true},
		{"tcp/0.0.0.0/80", "tcp/127.0.0.1/80", true},
		{"tcp/127.0.0.2/80", "tcp/127.0.0.1/80", false},
		{"tcp/::1/80", "tcp/127.0.0.1/80", false},
		{"tcp/::1/80", "tcp/80", true},
		{"tcp/::/80", "tcp/0.0.0.0/80", false},
		{"tcp/::ffff:127.0.0.1/80", "tcp/127.0.0.1/80", true},
	} {
		if got := overlap(parsePort(t, c.p), parsePort(t, c.q)); got != c.want {
			t.Errorf("%s %s: %v", c.p, c.q, got)
		}
		if got := overlap(parsePort(t, c.q), parsePort(t, c.p)); got != c.want {
			t.Errorf("%s %s: %v", c.q, c.p, got)
		}
	}
}

// parsePort reads PROTOCOL[/IP]/PORT.
func parsePort(t *testing.T, s string) netreg.Port {
	t.Helper()
	f := strings.Split(s, "/")
	n, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		t.Fatal(err)
	}
	p := netreg.Port{Protocol: f[0], HostPort: n}
	if len(f) == 3 {
		p.HostIP = f[1]
	}
	return p
}

// TestListening: programs that listen are found, connections and clients are not.
func TestListening(t *testing.T) {
	for _, c := range []struct {
		network, at string
		clash, free []string
	}{
		{"tcp4", "127.0.0.1:0", []string{"tcp", "tcp/0.0.0.0", "tcp/127.0.0.1"}, []string{"udp", "tcp/127.0.0.2", "tcp/::1", "tcp/192.0.2.1"}},
		{"tcp4", "0.0.0.0:0", []string{"tcp", "tcp/0.0.0.0", "tcp/127.0.0.1", "tcp/192.0.2.1"}, []string{"udp", "tcp/::1"}},
		{"tcp", "[::]:0", []string{"tcp", "tcp/0.0.0.0", "tcp/127.0.0.1", "tcp/192.0.2.1", "tcp/::1"}, []string{"udp"}},
		{"tcp6", "[::1]:0", []string{"tcp", "tcp/::", "tcp/::1"}, []string{"tcp/0.0.0.0", "tcp/127.0.0.1", "udp"}},
		{"udp4", "127.0.0.1:0", []string{"udp", "udp/0.0.0.0", "udp/127.0.0.1"}, []string{"tcp", "udp/127.0.0.2"}},
		{"udp", "[::]:0", []string{"udp", "udp/127.0.0.1", "udp/::1"}, []string{"tcp"}},
	} {
		t.Run(c.network+c.at, func(t *testing.T) {
			var at net.Addr
			if strings.HasPrefix(c.network, "tcp") {
				l, err := net.Listen(c.network, c.at)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				at = l.Addr()
			} else {
				l, err := net.ListenPacket(c.network, c.at)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				at = l.LocalAddr()
			}
			port := netip.MustParseAddrPort(at.String()).Port()
			for _, p := range c.clash {
				taken := listening(parsePort(t, fmt.Sprint(p, "/", port)))
				if taken == nil {
					t.Errorf("%s: no clash", p)
					continue
				}
				taken.find(t.Context())
				if want := fmt.Sprintf("is in use by process %d (", os.Getpid()); !strings.Contains(taken.Error(), want) {
					t.Errorf("%s: %q, want %q", p, taken.Error(), want)
				}
			}
			for _, p := range c.free {
				if taken := listening(parsePort(t, fmt.Sprint(p, "/", port))); taken != nil {
					t.Errorf("%s: %v", p, taken)
				}
			}
		})
	}
	t.Run("connection", func(t *testing.T) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		defer s.Close() // its port is the former listener's
		for _, a := range []net.Addr{c.LocalAddr(), s.LocalAddr()} {
			if taken := listening(netreg.Port{Protocol: "tcp", HostPort: int(netip.MustParseAddrPort(a.String()).Port())}); taken != nil {
				t.Errorf("the port of a connection: %v", taken)
			}
		}
		u, err := net.Dial("udp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if taken := listening(netreg.Port{Protocol: "udp", HostPort: int(netip.MustParseAddrPort(u.LocalAddr().String()).Port())}); taken != nil {
			t.Errorf("the port of a client: %v", taken)
		}
	})
}

func TestPortName(t *testing.T) {
	for in, want := range map[string]string{"tcp/80": "tcp 0.0.0.0:80", "udp/127.0.0.1/53": "udp 127.0.0.1:53", "tcp/::1/80": "tcp [::1]:80"} {
		if got := portName(parsePort(t, in)); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0", "tcp")
	f.Add("  12: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 99 2 0 0", "udp")
	f.Fuzz(func(t *testing.T, line, protocol string) {
		if at, _, ok := parseSocket(line, protocol); ok && !at.Addr().IsValid() {
			t.Errorf("%q", line)
		}
	})
}

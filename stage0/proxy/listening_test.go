package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 021C10AC:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
`

const table6 = `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A
   1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A
   2: 000000FD000000000000000002000000:1F90 00000000000000000000000000000000:0000 0A
`

func TestParseTable(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the tables here are those of a little-endian machine")
	}
	for _, c := range []struct {
		table string
		port  uint16
		want  []string
	}{
		{table, 8080, []string{"127.0.0.1", "172.16.28.2"}}, {table, 80, []string{"0.0.0.0"}}, {table, 50000, nil},
		{table6, 8080, []string{"::", "::1", "fd00::2"}}, {"", 80, nil}, {"x\ny z\n", 80, nil},
	} {
		got, err := parseTable(strings.NewReader(c.table), c.port)
		var s []string
		for _, a := range got {
			s = append(s, a.String())
		}
		if err != nil || !slices.Equal(s, c.want) {
			t.Errorf("port %d: %v, %v, want %v", c.port, s, err, c.want)
		}
	}
	if _, err := parseTable(strings.NewReader("0: 0100:0050 0:0 0A"), 80); err == nil {
		t.Error("half an address was taken")
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		listening string
		ipv6      bool
		want      string
	}{
		{"", true, "invalid IP"}, {"0.0.0.0", true, "127.0.0.1"}, {":: 0.0.0.0", true, "127.0.0.1"}, {"::", true, "::1"}, {"::", false, "127.0.0.1"},
		{"172.16.28.2 127.0.0.1", true, "127.0.0.1"}, {"172.16.28.2", true, "172.16.28.2"}, {"fe80::1 fd00::2", true, "fd00::2"}, {"::1", true, "::1"},
		{"fe80::1", true, "invalid IP"}, {"::ffff:10.1.1.1", true, "10.1.1.1"},
	} {
		var l []netip.Addr
		for _, s := range strings.Fields(c.listening) {
			l = append(l, netip.MustParseAddr(s))
		}
		got, ok := target(l, c.ipv6)
		if got.String() != c.want || ok != (c.want != "invalid IP") {
			t.Errorf("%q: %v %v, want %s", c.listening, got, ok, c.want)
		}
	}
}

// The kernel's own tables, whatever network the test is in.
func TestListening(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if a, ok, err := listening(port); err != nil || !ok || a.String() != "127.0.0.1" {
		t.Errorf("listening on %v: %v, %v, %v", l.Addr(), a, ok, err)
	}
	l.Close()
	if a, ok, err := listening(port); err != nil || ok {
		t.Errorf("nobody listens: %v, %v", a, err)
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(table)
	f.Add(table6)
	f.Fuzz(func(_ *testing.T, s string) {
		if l, err := parseTable(strings.NewReader(s), 8080); err == nil {
			target(l, true)
		}
	})
}

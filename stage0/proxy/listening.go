package proxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The kernel's tables of TCP sockets come from a pod: they are as long as it
// likes. Those that listen are first.
const maxTable = 4 << 20

// parseTable returns the addresses on which sockets of a table like
// /proc/net/tcp listen at the port.
func parseTable(r io.Reader, port uint16) ([]netip.Addr, error) {
	const listen = "0A"
	sc := bufio.NewScanner(io.LimitReader(r, maxTable))
	var out []netip.Addr
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 4 || f[3] != listen {
			continue
		}
		addr, num, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(num, 16, 16)
		if !ok || err != nil || uint16(n) != port {
			continue
		}
		b, err := hex.DecodeString(addr)
		if err != nil || len(b)%4 != 0 {
			return nil, fmt.Errorf("%q is no address", addr)
		}
		// words in the machine's byte order
		for i := 0; i < len(b); i += 4 {
			binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
		}
		if a, ok := netip.AddrFromSlice(b); ok {
			out = append(out, a)
		}
	}
	return out, sc.Err()
}

// target chooses where to connect to a port on which listen these addresses:
// loopback if that is possible, since it is what every app can be asked on.
func target(listening []netip.Addr, ipv6 bool) (netip.Addr, bool) {
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	has := func(a netip.Addr) bool { return slices.Contains(listening, a) }
	switch {
	case has(v4), has(netip.IPv4Unspecified()):
		return v4, true
	case has(v6), has(netip.IPv6Unspecified()) && ipv6:
		return v6, true
	case has(netip.IPv6Unspecified()):
		return v4, true // both families on a pod without IPv6
	}
	for _, a := range listening {
		if a = a.Unmap(); !a.IsLinkLocalUnicast() && !a.IsMulticast() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// listening looks in the network namespace of the calling thread.
func listening(port uint16) (netip.Addr, bool, error) {
	var all []netip.Addr
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return netip.Addr{}, false, err
		}
		found, err := parseTable(f, port)
		f.Close()
		if err != nil {
			return netip.Addr{}, false, fmt.Errorf("reading %q: %w", f.Name(), err)
		}
		all = append(all, found...)
	}
	b, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	addr, ok := target(all, err == nil && strings.Contains(string(b), "00000000000000000000000000000001"))
	return addr, ok, nil
}

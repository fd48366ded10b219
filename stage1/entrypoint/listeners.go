package entrypoint

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/plan"
)

// listeners looks at the sockets that systemd passed. Others than of tcp and
// udp are passed on to the pod's systemd, too, which has no use for them.
func listeners(fds []int) []plan.Listener {
	var out []plan.Listener
	for _, fd := range fds {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil {
			continue
		}
		l := plan.Listener{Protocol: map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[kind]}
		switch a := sa.(type) {
		case *unix.SockaddrInet4:
			l.Port, l.Address = a.Port, fmt.Sprintf("%s:%d", netip.AddrFrom4(a.Addr), a.Port)
		case *unix.SockaddrInet6:
			l.Port, l.Address = a.Port, fmt.Sprintf("[%s]:%d", netip.AddrFrom16(a.Addr), a.Port)
			if a.ZoneId != 0 {
				l.Address += "%" + strconv.Itoa(int(a.ZoneId))
			}
		default:
			continue
		}
		if l.Protocol != "" {
			out = append(out, l)
		}
	}
	return out
}

package network

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/netreg"
)

// takenError is a port of the host that a program listens on.
type takenError struct {
	port netreg.Port
	// addr is the listener's address, inode its socket; 0 if that is not known.
	addr   netip.AddrPort
	inode  uint64
	holder string
}

func (e *takenError) Error() string {
	if e.holder == "" {
		return fmt.Sprintf("port %s is in use by a program of the host", portName(e.port))
	}
	return fmt.Sprintf("port %s is in use by %s", portName(e.port), e.holder)
}

// listening tries the port in the network namespace of the calling thread.
// What is forwarded would never reach a program that listens there.
func listening(p netreg.Port) *takenError {
	for _, a := range hostAddrs(p.HostIP) {
		if !bindFails(p.Protocol, netip.AddrPortFrom(a, uint16(p.HostPort))) {
			continue
		}
		// A connection of long ago, or a client's, has a port too and is no listener.
		e := &takenError{port: p}
		if p.Protocol == "sctp" {
			return e
		}
		for _, file := range socketTables(p.Protocol) {
			f, err := os.Open(file)
			if err != nil {
				continue
			}
			sc := bufio.NewScanner(f)
			for sc.Scan() {
				at, inode, ok := parseSocket(sc.Text(), p.Protocol)
				if ok && at.Port() == uint16(p.HostPort) && covers(a, at.Addr()) {
					e.addr, e.inode = at, inode
					f.Close()
					return e
				}
			}
			f.Close()
		}
	}
	return nil
}

func socketTables(protocol string) []string {
	return []string{"/proc/thread-self/net/" + protocol, "/proc/thread-self/net/" + protocol + "6"}
}

// covers says whether a listener at b meets what is forwarded from a. One at ::
// may have IPv4's as well; that it was in the way tells.
func covers(a, b netip.Addr) bool {
	b = b.Unmap()
	if a.Is4() != b.Is4() {
		return b == netip.IPv6Unspecified()
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

// bindFails says whether the address is in use.
func bindFails(protocol string, at netip.AddrPort) bool {
	family, kind, proto := unix.AF_INET, unix.SOCK_STREAM, 0
	var sa unix.Sockaddr
	if at.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	switch protocol {
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		proto = unix.IPPROTO_SCTP
	}
	s, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return false // a family or protocol that the kernel does not have
	}
	defer unix.Close(s)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(s, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	// an address of a bridge that the first pod makes is not there yet
	_ = unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_FREEBIND, 1)
	return errors.Is(unix.Bind(s, sa), unix.EADDRINUSE)
}

// parseSocket reads a line of /proc/net/tcp and its like: of one that listens.
func parseSocket(line, protocol string) (at netip.AddrPort, inode uint64, ok bool) {
	// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …
	f := strings.Fields(line)
	const listen, unconnected = "0A", "07"
	if len(f) < 10 || protocol == "tcp" && f[3] != listen || protocol != "tcp" && f[3] != unconnected {
		return at, 0, false
	}
	ip, port, ok := strings.Cut(f[1], ":")
	b, err := hex.DecodeString(ip)
	if !ok || err != nil || len(b) != 4 && len(b) != 16 {
		return at, 0, false
	}
	for i := 0; i < len(b); i += 4 { // words in the machine's order
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return at, 0, false
	}
	inode, err = strconv.ParseUint(f[9], 10, 64)
	return netip.AddrPortFrom(a, uint16(n)), inode, err == nil
}

// find looks for the process that holds the socket.
func (e *takenError) find(ctx context.Context) {
	if e.inode == 0 {
		return
	}
	want := fmt.Sprintf("socket:[%d]", e.inode)
	pids, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	var holders []int
	for _, d := range pids {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", d.Name(), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		if slices.ContainsFunc(fds, func(fd os.DirEntry) bool {
			target, err := os.Readlink(filepath.Join(dir, fd.Name()))
			return err == nil && target == want
		}) {
			holders = append(holders, pid)
		}
	}
	if len(holders) == 0 {
		return
	}
	// A service that got its socket from systemd shares it with PID 1.
	slices.Sort(holders)
	if holders[0] == 1 {
		if unit := socketUnit(ctx, e.addr); unit != "" {
			e.holder = unit
			return
		}
		holders = append(holders[1:], 1)
	}
	e.holder = describeProcess(holders[0])
}

func describeProcess(pid int) string {
	text := fmt.Sprintf("process %d", pid)
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		text += " (" + strings.TrimSpace(string(b)) + ")"
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return text
	}
	for line := range strings.Lines(string(b)) {
		cg, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		parts := strings.Split(cg, "/")
		for _, part := range slices.Backward(parts) {
			if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
				return text + " of " + part
			}
		}
	}
	return text
}

// socketUnit asks systemd for the socket unit that listens at an address.
func socketUnit(ctx context.Context, at netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "list-sockets", "--all", "--full", "--no-pager", "--no-legend").Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		// LISTEN UNIT ACTIVATES
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if a, err := netip.ParseAddrPort(f[0]); err == nil && a == at {
			return f[1]
		}
	}
	return ""
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// maxAnswer is how much is read of an answer: its first line is all that counts.
const maxAnswer = 8 << 10

// lookNet connects to the app and, for HTTP, gets a page. This process is in the
// pod's network. No net package: it would double the size of this program.
func lookNet(h *launch.Health) (string, error) {
	deadline := time.Now().Add(h.Timeout)
	hosts := []string{h.Host}
	if h.Host == "" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var first error
	for _, host := range hosts {
		fd, err := dial(host, h.Port, deadline)
		if err == nil {
			defer unix.Close(fd)
			if h.Path == "" {
				return "connected", nil
			}
			return get(fd, h, host, deadline)
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

func dial(host string, port uint16, deadline time.Time) (int, error) {
	name := netip.AddrPort{}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return -1, err
	}
	name = netip.AddrPortFrom(a, port)
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
	family := unix.AF_INET6
	if a.Is4() {
		to, family = &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}, unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Connect(fd, to); errors.Is(err, unix.EINPROGRESS) {
		if err = await(fd, unix.POLLOUT, deadline); err == nil {
			var code int
			if code, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
				err = unix.Errno(code)
			}
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connecting to %s: %w", name, err)
	}
	return fd, nil
}

var errLate = errors.New("no answer in time")

// await waits until the socket is ready.
func await(fd int, events int16, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errLate
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		return err
	}
}

// get asks for a page; statuses 200 to 399 are good ones.
func get(fd int, h *launch.Health, host string, deadline time.Time) (string, error) {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	ask := []byte("GET " + h.Path + " HTTP/1.1\r\nHost: " + host + ":" + strconv.Itoa(int(h.Port)) +
		"\r\nUser-Agent: rkt-health\r\nAccept: */*\r\nConnection: close\r\n\r\n")
	for len(ask) > 0 {
		n, err := unix.SendmsgN(fd, ask, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = await(fd, unix.POLLOUT, deadline)
		case errors.Is(err, unix.EINTR):
			err = nil
		}
		if err != nil {
			return "", fmt.Errorf("asking for %s: %w", h.Path, err)
		}
		ask = ask[max(n, 0):]
	}
	var answer []byte
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if err = await(fd, unix.POLLIN, deadline); err != nil {
				return "", fmt.Errorf("waiting for the answer to GET %s: %w", h.Path, err)
			}
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return "", fmt.Errorf("reading the answer to GET %s: %w", h.Path, err)
		}
		answer = append(answer, buf[:n]...)
		line, _, whole := bytes.Cut(answer, []byte("\n"))
		if whole || n == 0 || len(answer) > maxAnswer {
			return judge(string(line), whole)
		}
	}
}

// judge reads the first line of an answer: "HTTP/1.1 200 OK".
func judge(line string, whole bool) (string, error) {
	line = strings.TrimSpace(line)
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(code)
	if !whole || !strings.HasPrefix(version, "HTTP/1.") || len(code) != 3 || err != nil {
		return "", fmt.Errorf("the answer is not HTTP/1.1: %q", clipLine(line))
	}
	if n < 200 || n > 399 {
		return "", errors.New(clipLine(line))
	}
	return clipLine(line), nil
}

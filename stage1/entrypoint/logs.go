package entrypoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// openLogs opens the apps' streams to the journal, see plan.Log: one socket per
// app with the stream in it.
func openLogs(logs []plan.Log) ([]int, error) {
	var fds []int
	for _, l := range logs {
		fd, err := openLog(l)
		if err != nil {
			return nil, fmt.Errorf("opening the journal for app %q: %w", l.App, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func openLog(l plan.Log) (int, error) {
	stream, err := launch.JournalStream(l.App, l.Unit)
	if err != nil {
		return -1, err
	}
	defer unix.Close(stream)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	to := &unix.SockaddrUnix{Name: l.Address}
	if err = unix.Bind(socket, to); err == nil {
		err = unix.Sendmsg(socket, []byte{0}, unix.UnixRights(stream), to, unix.MSG_DONTWAIT)
	}
	if err != nil {
		unix.Close(socket)
		return -1, err
	}
	return socket, nil
}

// passSockets arranges for nspawn, and by it for the pod's systemd, to get
// these sockets after those that the caller has from the host's systemd, and
// returns the environment that says so (sd_listen_fds(3)). keep must stay open;
// its number may change, and is returned.
func passSockets(environ []string, fds []int, keep int) ([]string, int, error) {
	if len(fds) == 0 {
		return environ, keep, nil
	}
	const first = 3
	have := 0
	out := make([]string, 0, len(environ)+3)
	var names []string
	for _, kv := range environ {
		name, v, _ := strings.Cut(kv, "=")
		switch name {
		case "LISTEN_FDS":
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > 1<<16 {
				return nil, keep, fmt.Errorf("LISTEN_FDS=%s is no number of sockets", v)
			}
			have = n
		case "LISTEN_FDNAMES":
			names = strings.Split(v, ":")
		case "LISTEN_PID":
		default:
			out = append(out, kv)
		}
	}
	for len(names) < have {
		names = append(names, "unknown")
	}
	// all out of the way, then each to its place
	all := append([]int{keep}, fds...)
	for i, fd := range all {
		moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, first+have+len(fds))
		if err != nil {
			return nil, keep, err
		}
		unix.Close(fd)
		all[i] = moved
	}
	for i, fd := range all[1:] {
		if err := unix.Dup3(fd, first+have+i, 0); err != nil {
			return nil, keep, err
		}
		unix.Close(fd)
		names = append(names, launch.LogSocketName)
	}
	return append(out, "LISTEN_FDS="+strconv.Itoa(have+len(fds)), "LISTEN_FDNAMES="+strings.Join(names, ":"),
		"LISTEN_PID="+strconv.Itoa(os.Getpid())), all[0], nil
}

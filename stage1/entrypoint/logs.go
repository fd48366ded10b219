package entrypoint

import (
	"fmt"
	"os"
	"slices"
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
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	to := &unix.SockaddrUnix{Name: l.Address}
	if err = unix.Bind(socket, to); err == nil {
		err = sendLog(socket, l, to)
	}
	if err != nil {
		unix.Close(socket)
		return -1, err
	}
	return socket, nil
}

// sendLog opens an app's stream to the journal and leaves it in a socket.
func sendLog(from int, l plan.Log, to unix.Sockaddr) error {
	stream, err := launch.JournalStream(l.App, l.Unit, l.Sockets)
	if err != nil {
		return err
	}
	defer unix.Close(stream)
	return unix.Sendmsg(from, []byte{0}, unix.UnixRights(stream), to, unix.MSG_DONTWAIT)
}

// lateLog leaves the stream of an app that was added in the socket that the
// pod's systemd has made for it; root is a path of the pod's.
func lateLog(l plan.Log, root string) error {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	return sendLog(socket, l, &unix.SockaddrUnix{Name: root + l.Address})
}

// firstPassed is the number of the first descriptor that systemd passes
// (sd_listen_fds(3)), maxReserved how many are kept free from there: a table of
// more than 64 descriptors is made anew, for which the kernel waits 10 ms or so.
const firstPassed, maxReserved = 3, 32

// ReserveDescriptors opens what is free of the first descriptors, so that
// nothing else of this process, such as what the Go runtime polls with, comes
// where sockets for the pod have to be. It is called before anything else.
func ReserveDescriptors() []int {
	var fds []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fds
		}
		if fd >= firstPassed+maxReserved {
			unix.Close(fd)
			return fds
		}
		fds = append(fds, fd)
	}
}

// passSockets arranges for nspawn, and by it for the pod's systemd, to get
// these sockets after those that the caller has from the host's systemd, and
// returns the environment that says so. lock must stay open; its number may
// change, and is returned.
func passSockets(env Env, environ []string, fds []int, lock int) ([]string, int, error) {
	if len(fds) == 0 {
		return environ, lock, nil
	}
	have := 0
	out := make([]string, 0, len(environ)+3)
	var names []string
	for _, kv := range environ {
		name, v, _ := strings.Cut(kv, "=")
		switch name {
		case "LISTEN_FDS":
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 || n > 1<<16 {
				return nil, lock, fmt.Errorf("LISTEN_FDS=%s is no number of sockets", v)
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
	first := firstPassed + have
	if lock >= first && lock < first+len(fds) {
		moved, err := unix.FcntlInt(uintptr(lock), unix.F_DUPFD_CLOEXEC, firstPassed+maxReserved)
		if err != nil {
			return nil, lock, err
		}
		env.Reserved = append(env.Reserved, lock) // it is replaced below
		lock = moved
	}
	for i, fd := range fds {
		if !slices.Contains(env.Reserved, first+i) {
			env.Log.Warnf("the last lines of short-lived processes may lack the unit in the journal: descriptor %d is not free", first+i)
			break
		}
		if err := unix.Dup3(fd, first+i, 0); err != nil {
			return nil, lock, err
		}
		names = append(names, launch.LogSocketName)
	}
	return append(out, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"),
		"LISTEN_PID="+strconv.Itoa(os.Getpid())), lock, nil
}

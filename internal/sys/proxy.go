package sys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// EnterNetwork moves the calling thread, which must be locked to its
// goroutine, into the network namespace that is bound to path.
func EnterNetwork(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return pathErr("open", path, err)
	}
	defer unix.Close(fd)
	return pathErr("setns", path, unix.Setns(fd, unix.CLONE_NEWNET))
}

// OwnNetwork opens the calling thread's network namespace.
func OwnNetwork() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// ReturnToNetwork is EnterNetwork for a namespace that is open.
func ReturnToNetwork(f *os.File) error {
	return pathErr("setns", f.Name(), unix.Setns(int(f.Fd()), unix.CLONE_NEWNET))
}

// Nobody is the user that owns nothing.
const Nobody = 65534

// BecomeNobody gives up root for good: another user without groups and
// capabilities, for whom no program gets more.
func BecomeNobody() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	if err := unix.Setgroups(nil); err != nil {
		return fmt.Errorf("giving up groups: %w", err)
	}
	if err := unix.Setresgid(Nobody, Nobody, Nobody); err != nil {
		return fmt.Errorf("giving up the group: %w", err)
	}
	if err := unix.Setresuid(Nobody, Nobody, Nobody); err != nil {
		return fmt.Errorf("giving up the user: %w", err)
	}
	return nil
}

// RefuseWaiting accepts the connections that wait at listening sockets and
// closes them: a client learns that nobody will answer, and systemd does not
// start a service for them again and again.
func RefuseWaiting(listeners []int) {
	for _, l := range listeners {
		if unix.SetNonblock(l, true) != nil {
			continue
		}
		for range 65536 {
			fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if err != nil {
				break
			}
			// closing what was not read sends a reset, which no client takes for an answer
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		}
	}
}

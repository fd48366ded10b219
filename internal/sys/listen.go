package sys

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ListenFDs are the sockets that systemd passed to this process
// (sd_listen_fds(3)), from descriptor 3 on; getenv is os.Getenv or the like.
func ListenFDs(getenv func(string) string) []int {
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n <= 0 || n > 4096 || getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	fds := make([]int, n)
	for i := range fds {
		fds[i] = 3 + i
	}
	return fds
}

// HoldFDs keeps descriptors from the programs that this process runs beside
// itself; PassFDs lets the program that it becomes have them.
func HoldFDs(fds []int) {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
}

// PassFDs is the opposite of HoldFDs.
func PassFDs(fds []int) error {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	return nil
}

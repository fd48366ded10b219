package launch

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// journalDir has the sockets of journald; that called stdout takes streams of
// lines, see OpenJournal.
const journalDir = "/run/systemd/journal"

// facility daemon, priority info: what systemd uses for services
const journalPriority = "30"

// OpenJournal connects standard output and standard error to the host's
// journald, as systemd does for a service. The pod's systemd would announce
// its own name of the unit, which means nothing on the host; journald falls
// back to that name for lines of processes that are gone before it reads them.
// Here the name of the host's unit is announced, so that the last words of a
// short-lived process are filed under the pod, too.
func OpenJournal(identifier, unit string, passed bool, dir string) error {
	fd := -1
	var err error
	if passed {
		fd, err = passedStream()
	}
	if fd < 0 && err == nil {
		fd, err = JournalStream(identifier, unit, dir)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for std := 1; std <= 2; std++ {
		if err := unix.Dup3(fd, std, 0); err != nil {
			return err
		}
	}
	return nil
}

// JournalStream opens a stream of lines to the journald with sockets in dir, ""
// for the usual place.
func JournalStream(identifier, unit, dir string) (int, error) {
	if dir == "" {
		dir = journalDir
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: dir + "/stdout"})
	if err != nil {
		err = fmt.Errorf("connecting to the journal: %w", err)
	} else if err = unix.Shutdown(fd, unix.SHUT_RD); err == nil {
		// identifier, unit, priority, level prefixes are parsed, forward to syslog, kmsg, console
		header := identifier + "\n" + unit + "\n" + journalPriority + "\n1\n0\n0\n0\n"
		if _, err = unix.Write(fd, []byte(header)); err != nil {
			err = fmt.Errorf("opening a journal stream: %w", err)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// LogSocketName names the socket that holds an app's stream among those that
// systemd passes.
const LogSocketName = "rkt-log"

// passedStream is the stream in the socket that systemd passed to this process
// (Spec.LogPassed), -1 if it passed none: handlers get none. The message with
// the stream is only looked at, so that it is there again at the next start.
func passedStream() (int, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return -1, nil
	}
	for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		if name != LogSocketName {
			continue
		}
		b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(3+i, b, oob, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EAGAIN {
			return -1, nil // systemd made it: none was passed
		}
		if err != nil {
			return -1, fmt.Errorf("taking the journal stream from its socket: %w", err)
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		if err == nil && len(msgs) == 1 {
			if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
				return fds[0], nil
			}
		}
		return -1, errors.New("the socket of the journal stream has no stream")
	}
	return -1, nil
}

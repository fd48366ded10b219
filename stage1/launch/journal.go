package launch

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// journalSocket takes streams of lines, see OpenJournal.
const journalSocket = "/run/systemd/journal/stdout"

// facility daemon, priority info: what systemd uses for services
const journalPriority = "30"

// OpenJournal connects standard output and standard error to the host's
// journald, as systemd does for a service. The pod's systemd would announce
// its own name of the unit, which means nothing on the host; journald falls
// back to that name for lines of processes that are gone before it reads them.
// Here the name of the host's unit is announced, so that the last words of a
// short-lived process are filed under the pod, too.
func OpenJournal(identifier, unit string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: journalSocket}); err != nil {
		return fmt.Errorf("connecting to the journal: %w", err)
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		return err
	}
	// identifier, unit, priority, level prefixes are parsed, forward to syslog, kmsg, console
	header := identifier + "\n" + unit + "\n" + journalPriority + "\n1\n0\n0\n0\n"
	if _, err := unix.Write(fd, []byte(header)); err != nil {
		return fmt.Errorf("opening a journal stream: %w", err)
	}
	for std := 1; std <= 2; std++ {
		if err := unix.Dup3(fd, std, 0); err != nil {
			return err
		}
	}
	return nil
}

package entrypoint

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is a pseudo terminal of the pod for a command, joined to the one on
// this process's standard input and output.
type terminal struct {
	master, peer *os.File
	saved        *term.State
	// stop tells the copier that no more will be printed; drained is its answer.
	stop    [2]*os.File
	drained chan struct{}
}

// openTerminal makes a terminal in the pod's own devpts, so that the command
// finds it by its name.
func openTerminal(proc string) (*terminal, error) {
	fd, err := unix.Open(proc+"/root/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a terminal in the pod: %w", err)
	}
	t := &terminal{master: os.NewFile(uintptr(fd), "ptmx"), drained: make(chan struct{})}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Rdev != unix.Mkdev(5, 2) {
		t.close()
		return nil, fmt.Errorf("opening a terminal in the pod: its /dev/pts/ptmx is none")
	}
	err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	if err == nil {
		// by the descriptor, not by its name: that would be looked up on the host
		peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			err = errno
		} else {
			t.peer = os.NewFile(peer, "pts")
			err = giveToPod(t.peer)
		}
	}
	if err == nil {
		t.stop[0], t.stop[1], err = os.Pipe()
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("opening a terminal in the pod: %w", err)
	}
	t.resize()
	return t, nil
}

func (t *terminal) resize() {
	if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, ws)
	}
}

// start makes this side's terminal raw and begins to copy.
func (t *terminal) start() error {
	t.peer.Close()
	var err error
	if t.saved, err = term.MakeRaw(0); err != nil {
		return fmt.Errorf("preparing the terminal: %w", err)
	}
	t.resize() // it may have changed meanwhile
	go func() { _, _ = io.Copy(t.master, os.Stdin) }()
	go t.print()
	return nil
}

// print copies what the command prints, until nothing is left after its end.
// Something in the background may keep the terminal open for ever.
func (t *terminal) print() {
	defer close(t.drained)
	buf := make([]byte, 32<<10)
	timeout := -1
	for {
		fds := []unix.PollFd{{Fd: int32(t.master.Fd()), Events: unix.POLLIN}, {Fd: int32(t.stop[0].Fd()), Events: unix.POLLIN}}
		if timeout == 0 {
			fds = fds[:1]
		}
		n, err := unix.Poll(fds, timeout)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if fds[0].Revents != 0 {
			n, err := unix.Read(int(t.master.Fd()), buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
			if _, err := os.Stdout.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		timeout = 0
	}
}

// finish waits for the last output and restores the terminal.
func (t *terminal) finish() {
	t.stop[1].Close()
	<-t.drained
	t.close()
}

func (t *terminal) close() {
	if t.saved != nil {
		_ = term.Restore(0, t.saved)
		t.saved = nil
	}
	for _, f := range []*os.File{t.master, t.peer, t.stop[0], t.stop[1]} {
		if f != nil {
			f.Close()
		}
	}
}

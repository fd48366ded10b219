package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// ttymux makes the terminal of an app whose streams are in mode tty, and
// carries it to clients: each sees what the app writes, and types into the
// same terminal. Beside it is a socket that takes the size of a client's
// window. Argument: the app.
func ttymux(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 ttymux NAME")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	if err := openJournal(s); err != nil {
		return err
	}
	stop, err := newStopper()
	if err != nil {
		return err
	}
	dir := stdio.Dir(s.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	master, pts, err := makePty("/dev/ptmx")
	if err != nil {
		return fmt.Errorf("making a terminal for app %q: %w", s.Name, err)
	}
	link := dir + "/" + launch.PtyFile
	if err := os.Remove(link + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := errors.Join(os.Symlink(pts, link+".new"), os.Rename(link+".new", link)); err != nil {
		return err
	}
	o, err := muxPty(master, pts, stdio.Socket(s.Name, "tty"), stdio.Socket(s.Name, "size"), stop.r)
	if err != nil {
		return fmt.Errorf("serving the terminal of app %q: %w", s.Name, err)
	}
	return serve([]*output{o}, stop)
}

// makePty makes a terminal and returns its master's side and its name.
func makePty(ptmx string) (int, string, error) {
	fd, err := unix.Open(ptmx, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = setSize(fd, 24, 80)
	}
	if err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	return fd, "/dev/pts/" + strconv.Itoa(n), nil
}

func setSize(fd int, rows, cols uint16) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}

func muxPty(master int, pts, socket, sizes string, stop int) (*output, error) {
	// A descriptor of its own for writing, which the runtime polls.
	dup, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	keyboard := os.NewFile(uintptr(dup), "terminal")
	l, err := listen(socket)
	if err != nil {
		return nil, err
	}
	h := &hub{}
	accept(l, func(c *os.File) {
		cl := h.add(c)
		if cl == nil {
			return
		}
		go func() {
			copyInput(keyboard, c)
			// A client that has nothing more to say may still listen: what ends it is a
			// failed write, or the end of the output.
			if !listening(c) {
				h.remove(cl)
			}
		}()
	})
	size, err := listen(sizes)
	if err != nil {
		return nil, err
	}
	slots := make(chan struct{}, maxClients)
	accept(size, func(c *os.File) {
		select {
		case slots <- struct{}{}:
			go func() {
				defer c.Close()
				readSizes(c, func(rows, cols uint16) { _ = setSize(master, rows, cols) })
				<-slots
			}()
		default:
			c.Close()
		}
	})
	return &output{fd: master, hub: h, stop: stop,
		reopen: func() (int, error) { return unix.Open(pts, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0) }}, nil
}

// listening tells a client that has only closed its sending side from one that
// has gone.
func listening(c *os.File) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	there := false
	_ = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		_, err := unix.Poll(p, 0)
		there = err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) == 0
	})
	return there
}

// readSizes takes lines "ROWS COLUMNS" until something else comes.
func readSizes(r io.Reader, set func(rows, cols uint16)) {
	buf := make([]byte, 0, 64)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for {
			line, rest, ok := strings.Cut(string(buf), "\n")
			if !ok {
				break
			}
			rows, cols, ok := parseSize(line)
			if !ok {
				return
			}
			set(rows, cols)
			buf = append(buf[:0], rest...)
		}
		if err != nil || len(buf) == cap(buf) {
			return
		}
	}
}

func parseSize(line string) (rows, cols uint16, ok bool) {
	a, b, _ := strings.Cut(line, " ")
	r, err1 := strconv.ParseUint(a, 10, 15)
	c, err2 := strconv.ParseUint(b, 10, 15)
	return uint16(r), uint16(c), err1 == nil && err2 == nil && r > 0 && c > 0
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the helpers that carry an app's streams: an app and its clients
// can be slow, silent or hostile, and neither may harm the other.
const (
	maxQueue   = 1 << 20                // bytes a client may be behind
	maxClients = 32                     // per socket
	maxLine    = 32 << 10               // a longer line is passed on in pieces
	quiet      = 100 * time.Millisecond // then the beginning of a line is passed on
	lastCall   = 2 * time.Second        // for clients to take what is left at the end
)

// hub copies what an app writes to every client that is there at that moment.
type hub struct {
	mu      sync.Mutex
	clients map[*client]bool
	closed  bool
	writers sync.WaitGroup
}

// client is a connection and what it has not taken yet.
type client struct {
	conn *os.File
	more *sync.Cond
	buf  []byte
	done bool // nothing follows: close when buf is sent
}

// add serves a connection until the output or the client ends. The caller goes
// on to read from it.
func (h *hub) add(conn *os.File) *client {
	c := &client{conn: conn, more: sync.NewCond(&h.mu)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.clients) >= maxClients {
		conn.Close()
		return nil
	}
	if h.clients == nil {
		h.clients = map[*client]bool{}
	}
	h.clients[c] = true
	c.done = h.closed
	h.writers.Add(1)
	go h.serve(c)
	return c
}

func (h *hub) serve(c *client) {
	defer h.writers.Done()
	for {
		h.mu.Lock()
		for len(c.buf) == 0 && !c.done {
			c.more.Wait()
		}
		b := c.buf
		c.buf = nil
		h.mu.Unlock()
		if len(b) == 0 {
			break
		}
		if _, err := c.conn.Write(b); err != nil {
			break
		}
	}
	h.remove(c)
}

// remove ends a client's connection.
func (h *hub) remove(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.clients, c)
	c.done, c.buf = true, nil
	c.more.Signal()
	c.conn.Close()
}

// send never waits: a client that is too far behind is dropped.
func (h *hub) send(b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.clients {
		if c.done {
			continue
		}
		if len(c.buf)+len(b) > maxQueue {
			fmt.Fprintln(os.Stderr, "a client does not take the output fast enough; it is disconnected")
			delete(h.clients, c)
			c.done, c.buf = true, nil
			c.more.Signal()
			c.conn.Close() // ends its write, too
			continue
		}
		c.buf = append(c.buf, b...)
		c.more.Signal()
	}
}

// end lets the clients take what is queued for them, and closes. Others may
// come, unless it is for good: the app may open its output again.
func (h *hub) end(forGood bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = forGood
	for c := range h.clients {
		c.done = true
		c.more.Signal()
	}
}

// wait returns when all clients have got everything, or have had their time.
func (h *hub) wait(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		h.writers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// splitter passes on whole lines, unless they get too long or the rest does
// not come.
type splitter struct {
	pending []byte
	emit    func([]byte)
}

func (s *splitter) feed(b []byte) {
	if end := bytes.LastIndexByte(b, '\n') + 1; end > 0 {
		s.emit(append(s.pending, b[:end]...))
		s.pending, b = nil, b[end:]
	}
	if s.pending = append(s.pending, b...); len(s.pending) >= maxLine {
		s.flush()
	}
}

func (s *splitter) flush() {
	if len(s.pending) > 0 {
		s.emit(s.pending)
		s.pending = nil
	}
}

// output reads the app's end of a stream and hands it on.
type output struct {
	fd    int
	hub   *hub
	lines bool
	// sink gets the lines instead of the hub, if it is set.
	sink func([]byte)
	// reopen opens the app's end: with it open there is no second end of output.
	reopen func() (int, error)
	// stop is readable when the app is gone and only what is left is to be read.
	stop int
}

// copy returns when it was stopped.
func (o *output) copy() error {
	s := &splitter{emit: o.hub.send}
	if o.sink != nil {
		s.emit = o.sink
	}
	defer o.hub.end(true)
	defer s.flush()
	buf := make([]byte, 32<<10)
	var deadline time.Time
	for {
		timeout := -1
		if len(s.pending) > 0 {
			timeout = int(quiet.Milliseconds())
		}
		if !deadline.IsZero() {
			timeout = 0
		}
		fds := []unix.PollFd{{Fd: int32(o.fd), Events: unix.POLLIN}, {Fd: int32(o.stop), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, timeout)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for output: %w", err)
		case n == 0: // a pause in the middle of a line
			s.flush()
		}
		if deadline.IsZero() && fds[1].Revents != 0 {
			deadline = time.Now().Add(time.Second)
		}
		ended := false
		switch {
		case fds[0].Revents&unix.POLLIN != 0:
			n, err := unix.Read(o.fd, buf)
			switch {
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
				continue
			case errors.Is(err, unix.EIO), err == nil && n == 0:
				ended = true
			case err != nil:
				return fmt.Errorf("reading output: %w", err)
			}
			if n > 0 {
				o.feed(s, buf[:n])
			}
		case fds[0].Revents != 0:
			ended = true
		case !deadline.IsZero():
			return nil // nothing left
		}
		if !deadline.IsZero() && (ended || time.Now().After(deadline)) {
			return nil
		}
		if ended {
			s.flush()
			o.hub.end(false)
			if _, err := o.reopen(); err != nil {
				return err
			}
		}
	}
}

func (o *output) feed(s *splitter, b []byte) {
	if o.lines {
		s.feed(b)
		return
	}
	o.hub.send(bytes.Clone(b))
}

// listen makes a socket that only root can connect to.
func listen(name string) (*os.File, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
		// nobody connects before listen
		err = errors.Join(os.Chmod(name, 0o600), unix.Listen(fd, maxClients))
	}
	if err == nil {
		return os.NewFile(uintptr(fd), name), nil
	}
	unix.Close(fd)
	return nil, fmt.Errorf("making the socket %q: %w", name, err)
}

// acceptor takes the clients of a socket.
type acceptor struct {
	mu  sync.Mutex
	raw syscall.RawConn
	f   func(*os.File)
}

// accept calls f for every client, which must not wait for it.
func accept(l *os.File, f func(*os.File)) *acceptor {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil
	}
	a := &acceptor{raw: raw, f: f}
	go func() {
		for {
			var err error
			closed := raw.Read(func(s uintptr) bool {
				err = a.take(int(s))
				return err != nil
			})
			if closed != nil {
				return
			}
			time.Sleep(quiet) // out of descriptors: some will be closed
		}
	}()
	return a
}

// take takes all that have connected.
func (a *acceptor) take(s int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		fd, _, err := unix.Accept4(s, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return err
		}
		a.f(os.NewFile(uintptr(fd), "client"))
	}
}

// sync returns when all that have connected until now are served.
func (a *acceptor) sync() {
	_ = a.raw.Control(func(s uintptr) { _ = a.take(int(s)) })
}

// stopper is a descriptor that becomes readable by close.
type stopper struct{ r, w int }

func newStopper() (*stopper, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	return &stopper{p[0], p[1]}, nil
}

func (s *stopper) stop() { unix.Close(s.w) }

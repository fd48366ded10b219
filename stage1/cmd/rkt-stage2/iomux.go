package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// iomux carries the streams of an app that are in mode stream: between FIFOs,
// which the app has as standard streams, and sockets, where clients connect.
// What the app writes while nobody is connected is gone. Argument: the app.
func iomux(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 iomux NAME")
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
	if err := os.MkdirAll(stdio.Dir(s.Name), 0o755); err != nil {
		return err
	}
	m := s.Modes()
	var outputs []*output
	for _, stream := range stdio.Streams() {
		if m.Of(stream) != stdio.Stream {
			continue
		}
		fifo := launch.Fifo(s.Name, stream)
		if err := makeFifo(fifo); err != nil {
			return fmt.Errorf("making %q: %w", fifo, err)
		}
		o, err := muxStream(fifo, stdio.Socket(s.Name, stream), stream == "stdin", stop.r)
		if err != nil {
			return fmt.Errorf("serving %s of app %q: %w", stream, s.Name, err)
		}
		if o != nil {
			outputs = append(outputs, o)
		}
	}
	return serve(outputs, stop)
}

// serve is ready, and returns after SIGTERM, when the clients have all that was written.
func serve(outputs []*output, stop *stopper) error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	if err := launch.Ready(); err != nil {
		return err
	}
	errs := make([]error, len(outputs))
	var running sync.WaitGroup
	for i, o := range outputs {
		running.Go(func() { errs[i] = o.copy() })
	}
	<-term
	stop.stop()
	running.Wait()
	for _, o := range outputs {
		o.hub.wait(lastCall)
	}
	return errors.Join(errs...)
}

// muxStream serves one stream; it returns what is to be copied, for an output.
func muxStream(fifo, socket string, in bool, stop int) (*output, error) {
	flags := unix.O_RDONLY
	if in {
		flags = unix.O_RDWR // with a writer always there the app never sees an end
	}
	fd, err := unix.Open(fifo, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	l, err := listen(socket)
	if err != nil {
		return nil, err
	}
	if in {
		to := os.NewFile(uintptr(fd), fifo)
		slots := make(chan struct{}, maxClients)
		go accept(l, func(c *os.File) {
			defer c.Close()
			select {
			case slots <- struct{}{}:
				copyInput(to, c)
				<-slots
			default: // too many
			}
		})
		return nil, nil
	}
	h := &hub{}
	go accept(l, func(c *os.File) { discard(h, c) })
	return &output{fd: fd, hub: h, lines: true, stop: stop,
		reopen: func() (int, error) { return unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) }}, nil
}

// copyInput passes on what a client types, in pieces that the kernel does not
// mix with those of others.
func copyInput(to io.Writer, c *os.File) {
	buf := make([]byte, 4096) // PIPE_BUF
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// discard connects a client of an output until it goes; what it sends is dropped.
func discard(h *hub, c *os.File) {
	if cl := h.add(c); cl != nil {
		_, _ = io.Copy(io.Discard, c)
		h.remove(cl)
	}
}

// makeFifo makes a FIFO that the app may open again by path (/dev/stdout);
// one that an earlier run of the app had is used again.
func makeFifo(name string) error {
	err := unix.Mkfifo(name, 0o600)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err = unix.Lstat(name, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
			err = errors.New("something else is there")
		}
	}
	if err != nil {
		return err
	}
	return unix.Chmod(name, 0o666)
}

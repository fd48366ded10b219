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
	outs := &outSockets{}
	var file *logFile
	if m.Has(stdio.File) {
		if file, err = openLogFile(launch.LogFileDir, s.LogFile); err != nil {
			return fmt.Errorf("opening the log file of app %q: %w", s.Name, err)
		}
		defer file.close()
	}
	for _, stream := range stdio.Streams() {
		if m.Of(stream) != stdio.Stream && m.Of(stream) != stdio.File {
			continue
		}
		fifo := launch.Fifo(s.Name, stream)
		if err := makeFifo(fifo); err != nil {
			return fmt.Errorf("making %q: %w", fifo, err)
		}
		if m.Of(stream) == stdio.File {
			o, err := muxFile(fifo, file.stream(stream), stop.r)
			if err != nil {
				return fmt.Errorf("reading %s of app %q: %w", stream, s.Name, err)
			}
			outputs = append(outputs, o)
			continue
		}
		o, err := muxStream(fifo, stdio.Socket(s.Name, stream), stream == "stdin", outs, stop.r)
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
func muxStream(fifo, socket string, in bool, outs *outSockets, stop int) (*output, error) {
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
		accept(l, func(c *os.File) {
			select {
			case slots <- struct{}{}:
				go func() {
					defer c.Close()
					copyInput(&afterSync{to, outs}, c)
					<-slots
				}()
			default: // too many
				c.Close()
			}
		})
		return nil, nil
	}
	h := &hub{}
	outs.add(accept(l, func(c *os.File) {
		if cl := h.add(c); cl != nil {
			go discard(h, cl, c)
		}
	}))
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

// discard serves a client of an output until it goes; what it sends is dropped.
func discard(h *hub, cl *client, c *os.File) {
	_, _ = io.Copy(io.Discard, c)
	h.remove(cl)
}

// outSockets are those of an app's outputs.
type outSockets struct {
	mu  sync.Mutex
	all []*acceptor
}

func (o *outSockets) add(a *acceptor) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a != nil {
		o.all = append(o.all, a)
	}
}

// afterSync is the app's input. Who has connected to its outputs before the
// first words of a client is served by then, and misses no answer.
type afterSync struct {
	to   io.Writer
	outs *outSockets
}

func (w *afterSync) Write(b []byte) (int, error) {
	if w.outs != nil {
		w.outs.mu.Lock()
		for _, a := range w.outs.all {
			a.sync()
		}
		w.outs.mu.Unlock()
		w.outs = nil
	}
	return w.to.Write(b)
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

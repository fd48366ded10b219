package entrypoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// checkStreams refuses standard streams that an interactive app must not get:
// a directory would lead it out of its root.
func checkStreams() error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("standard stream %d of an interactive pod: %w", fd, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return fmt.Errorf("standard stream %d of an interactive pod is a directory", fd)
		}
	}
	return nil
}

// The escape that detaches a terminal: ^] three times within a second, as
// systemd-nspawn and machinectl have it.
const (
	escapeKey   = 0x1d
	escapeCount = 3
	escapeTime  = time.Second
)

// escape recognises the keys that detach. The first two are passed on when
// they come alone: programs use that key, too, and are not to wait for it.
type escape struct {
	seen  int
	first time.Time
}

// typed returns the bytes to pass on, and whether the escape is complete.
func (e *escape) typed(b []byte, now time.Time) ([]byte, bool) {
	start := 0 // of the escape, as far as it is in b
	for i, c := range b {
		switch {
		case c != escapeKey:
			e.seen, start = 0, i+1
			continue
		case e.seen == 0 || now.Sub(e.first) > escapeTime:
			e.seen, e.first, start = 1, now, i
		default:
			e.seen++
		}
		if e.seen >= escapeCount {
			return b[:start], true
		}
	}
	return b, false
}

// raw makes the caller's terminal pass everything on. restore undoes it; it
// may be called at any time and more than once.
func (s *session) raw() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.saved, err = term.MakeRaw(s.inFD); err != nil {
		return fmt.Errorf("preparing the terminal: %w", err)
	}
	return nil
}

func (s *session) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved != nil {
		_ = term.Restore(s.inFD, s.saved)
		s.saved = nil
	}
}

// guarded runs f in a goroutine; a panic in it does not leave the terminal raw.
func (s *session) guarded(f func()) {
	go func() {
		defer func() {
			if r := recover(); r != nil {
				s.restore()
				panic(r)
			}
		}()
		f()
	}()
}

// runTTY carries a terminal.
func (s *session) runTTY(ctx context.Context, w wanted) error {
	gone := make(chan os.Signal, 1)
	signal.Notify(gone, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(gone)
	if term.IsTerminal(int(s.out.Fd())) {
		sizes := make(chan os.Signal, 1)
		signal.Notify(sizes, unix.SIGWINCH)
		defer signal.Stop(sizes)
		s.sendSize()
		s.guarded(func() {
			for range sizes {
				s.sendSize()
			}
		})
	}
	if w.ttyIn && s.terminal {
		if err := s.raw(); err != nil {
			return err
		}
	}
	var to io.Writer = s.out
	if !w.ttyOut {
		to = io.Discard
	}
	ended, detached := make(chan struct{}), make(chan struct{})
	failed := make(chan error, 2)
	s.guarded(func() {
		report(failed, copyOut(to, s.tty))
		close(ended)
	})
	if w.ttyIn {
		s.guarded(func() {
			done, err := s.keyboard()
			report(failed, err)
			if done || s.terminal || !w.ttyOut {
				close(detached)
			}
		})
	}
	select {
	case <-ended:
	case <-detached:
		if s.terminal {
			s.restore()
			fmt.Fprintln(s.err, "\ndetached")
		}
	case <-ctx.Done():
	case <-gone:
	case err := <-failed:
		return err
	}
	return nil
}

// keyboard passes on what is typed until the input ends or the escape comes.
func (s *session) keyboard() (bool, error) {
	var e escape
	buf := make([]byte, 4096)
	for {
		n, err := s.in.Read(buf)
		b, done := buf[:n], false
		if s.terminal {
			b, done = e.typed(b, time.Now())
		}
		if len(b) > 0 {
			if _, werr := s.tty.Write(b); werr != nil {
				return false, nil //nolint:nilerr // the end of the output tells
			}
		}
		switch {
		case done, errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return false, fmt.Errorf("reading standard input: %w", err)
		}
	}
}

// sendSize makes the app's terminal as large as the caller's.
func (s *session) sendSize() {
	ws, err := unix.IoctlGetWinsize(int(s.out.Fd()), unix.TIOCGWINSZ)
	if err == nil && ws.Row > 0 && ws.Col > 0 {
		_, _ = fmt.Fprintf(s.size, "%d %d\n", ws.Row, ws.Col)
	}
}

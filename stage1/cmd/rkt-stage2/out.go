package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// out carries to the journal what an app writes to /dev/stdout or /dev/stderr
// by path. It is started by the first such write; standard input is the FIFO.
func out(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: rkt-stage2 out NAME")
	}
	s, err := launch.ReadSpec(args[0])
	if err != nil {
		return err
	}
	if err := openJournal(s); err != nil {
		return err
	}
	if err := unix.SetNonblock(0, true); err != nil {
		return fmt.Errorf("reading the output of app %q: %w", s.Name, err)
	}
	in := os.NewFile(0, "output")
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	go func() {
		<-term
		in.SetReadDeadline(time.Now()) //nolint:errcheck // a FIFO has deadlines
	}()
	// Systemd holds the FIFO open for writing, so that there is no end but this.
	if _, err := io.Copy(os.Stdout, in); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return drain(0)
}

// drain copies what is in a non-blocking FIFO to standard output.
func drain(fd int) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return nil
		case err != nil:
			return err
		}
		if _, err := os.Stdout.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// lastWords carries what an app that ended at once wrote by path, before
// anybody could be started to read it.
func lastWords(app string) error {
	s, err := launch.ReadSpec(app)
	if err != nil || s.Out == "" {
		return err
	}
	fd, err := unix.Open(s.Out, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("opening the output of app %q: %w", app, err)
	}
	defer unix.Close(fd)
	var queued int
	if queued, err = unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || queued == 0 {
		return err
	}
	if err := openJournal(s); err != nil {
		return err
	}
	return drain(fd)
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// logFile is a file of lines that several streams of an app write to.
type logFile struct {
	mu      sync.Mutex
	f       *os.File
	now     func() time.Time
	partial map[string][]byte
	failed  bool
}

// openLogFile opens a file below dir, which is the host's: no link there leads
// this helper elsewhere.
func openLogFile(dir, name string) (*logFile, error) {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(d)
	if parent := path.Dir(name); parent != "." {
		if err := mkdirBelow(d, parent); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Openat2(d, name, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK,
		Mode: 0o640, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%q is not a regular file", name)
	}
	return &logFile{f: f, now: time.Now, partial: map[string][]byte{}}, nil
}

func mkdirBelow(dir int, name string) error {
	if parent := path.Dir(name); parent != "." {
		if err := mkdirBelow(dir, parent); err != nil {
			return err
		}
	}
	at, err := unix.Openat2(dir, path.Dir(name), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	defer unix.Close(at)
	if err := unix.Mkdirat(at, path.Base(name), 0o755); err != nil && err != unix.EEXIST {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// stream is where the lines of one stream go. A line is written when it is
// whole or too long.
func (l *logFile) stream(name string) func([]byte) {
	return func(b []byte) {
		l.mu.Lock()
		defer l.mu.Unlock()
		b = append(l.partial[name], b...)
		for {
			line, rest, whole := bytes.Cut(b, []byte("\n"))
			if !whole && len(b) < maxLine {
				l.partial[name] = bytes.Clone(b)
				return
			}
			if !whole {
				line, rest = b[:maxLine], b[maxLine:]
			}
			l.write(name, line)
			b = rest
		}
	}
}

func (l *logFile) write(stream string, line []byte) {
	_, err := fmt.Fprintf(l.f, "%s %s %s\n", l.now().Format(time.RFC3339Nano), stream, line)
	if err != nil && !l.failed {
		fmt.Fprintln(os.Stderr, "writing the log file:", err) // once: a full disk would fill the journal, too
	}
	l.failed = err != nil
}

// close writes what is left of lines.
func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, b := range l.partial {
		if len(b) > 0 {
			l.write(name, b)
		}
	}
	l.f.Close()
}

// muxFile reads a stream for a file.
func muxFile(fifo string, sink func([]byte), stop int) (*output, error) {
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &output{fd: fd, hub: &hub{}, lines: true, sink: sink, stop: stop,
		reopen: func() (int, error) { return unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) }}, nil
}

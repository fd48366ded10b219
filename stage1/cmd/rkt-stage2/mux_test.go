package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// muxed is a served stream of a pretended app.
type muxed struct {
	*output
	fifo, socket string
	outs         *outSockets
	stopper      *stopper
	done         chan error
}

func startMux(t *testing.T) *muxed {
	t.Helper()
	dir := t.TempDir()
	m := &muxed{fifo: filepath.Join(dir, "fifo"), socket: filepath.Join(dir, "sock"), outs: &outSockets{}, done: make(chan error, 1)}
	if err := makeFifo(m.fifo); err != nil {
		t.Fatal(err)
	}
	if err := makeFifo(m.fifo); err != nil {
		t.Fatalf("a FIFO of an earlier run: %v", err)
	}
	var err error
	if m.stopper, err = newStopper(); err != nil {
		t.Fatal(err)
	}
	if m.output, err = muxStream(m.fifo, m.socket, false, m.outs, m.stopper.r); err != nil {
		t.Fatal(err)
	}
	go func() { m.done <- m.output.copy() }()
	return m
}

// end stops it as systemd does when the app has gone.
func (m *muxed) end(t *testing.T) {
	t.Helper()
	m.stopper.stop()
	select {
	case err := <-m.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the copying does not end")
	}
	m.hub.wait(lastCall)
}

func (m *muxed) app(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(m.fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// attach connects and returns when the client is being served.
func (m *muxed) attach(t *testing.T) net.Conn {
	t.Helper()
	m.hub.mu.Lock()
	n := len(m.hub.clients)
	m.hub.mu.Unlock()
	c, err := net.Dial("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	m.clients(t, n+1)
	return c
}

// clients waits until there are n.
func (m *muxed) clients(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		m.hub.mu.Lock()
		have := len(m.hub.clients)
		m.hub.mu.Unlock()
		if have == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d clients, want %d", have, n)
		}
	}
}

func say(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("%q, %v", s, err)
	}
	return s
}

func TestSeveralClients(t *testing.T) {
	m := startMux(t)
	app := m.app(t)
	say(t, app, "before anybody came\n")
	first := m.attach(t)
	r1 := bufio.NewReader(first)
	say(t, app, "for one\n")
	// what was written before may still be on its way to the hub when the first client comes
	got := line(t, r1)
	if got == "before anybody came\n" {
		got = line(t, r1)
	}
	if got != "for one\n" {
		t.Errorf("first client: %q", got)
	}
	second := m.attach(t)
	r2 := bufio.NewReader(second)
	say(t, app, "for both\nbeginning")
	for i, r := range []*bufio.Reader{r1, r2} {
		if got := line(t, r); got != "for both\n" {
			t.Errorf("client %d: %q: old output must not be repeated", i+1, got)
		}
		b := make([]byte, 100)
		n, err := r.Read(b)
		if string(b[:n]) != "beginning" || err != nil {
			t.Errorf("client %d: %q, %v: a prompt must arrive without its newline", i+1, b[:n], err)
		}
	}
	// one goes: neither the app nor the other is disturbed
	first.Close()
	m.clients(t, 1)
	say(t, app, " and end\nlast words")
	app.Close()
	rest, err := io.ReadAll(r2)
	if string(rest) != " and end\nlast words" || err != nil {
		t.Errorf("second client: %q, %v", rest, err)
	}
	m.end(t)
}

// TestOutputAgain: an app that closed its output and opens it again by path,
// or a new run of the app, is heard.
func TestOutputAgain(t *testing.T) {
	m := startMux(t)
	for i := range 3 {
		app := m.app(t)
		c := m.attach(t)
		say(t, app, fmt.Sprintf("run %d\n", i))
		if got := line(t, bufio.NewReader(c)); got != fmt.Sprintf("run %d\n", i) {
			t.Errorf("run %d: %q", i, got)
		}
		app.Close()
		if i == 0 {
			if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
				t.Errorf("the end of the output: %q, %v", b, err)
			}
		}
		c.Close()
		m.clients(t, 0)
	}
	m.end(t)
}

func TestSlowClient(t *testing.T) {
	m := startMux(t)
	app := m.app(t)
	slow := m.attach(t)
	fast := m.attach(t)
	const size = 8 << 20
	got := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, fast)
		got <- n
	}()
	row := bytes.Repeat([]byte("x"), 1023)
	row = append(row, '\n')
	finished := make(chan error, 1)
	go func() {
		for range size / len(row) {
			if _, err := app.Write(row); err != nil {
				finished <- err
				return
			}
		}
		finished <- nil
	}()
	select {
	case err := <-finished:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a client that does not read blocks the app")
	}
	app.Close()
	if n := <-got; n != size {
		t.Errorf("the other client got %d bytes of %d", n, size)
	}
	m.clients(t, 0)
	if n, err := io.Copy(io.Discard, slow); n >= size || err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the slow client got %d bytes, %v", n, err)
	}
	m.end(t)
}

func TestTooManyClients(t *testing.T) {
	m := startMux(t)
	for range maxClients {
		m.attach(t)
	}
	c, err := net.Dial("unix", m.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("one client too many: %d, %v", n, err)
	}
	m.end(t)
}

// TestStopWhileWriting: the end does not wait for an app that goes on.
func TestStopWhileWriting(t *testing.T) {
	m := startMux(t)
	app := m.app(t)
	defer app.Close()
	go func() {
		for {
			if _, err := app.WriteString(strings.Repeat("y\n", 500)); err != nil {
				return
			}
		}
	}()
	start := time.Now()
	m.end(t)
	if d := time.Since(start); d > 9*time.Second {
		t.Errorf("took %s", d)
	}
}

func TestInput(t *testing.T) {
	dir := t.TempDir()
	fifo, socket := filepath.Join(dir, "fifo"), filepath.Join(dir, "sock")
	if err := makeFifo(fifo); err != nil {
		t.Fatal(err)
	}
	if _, err := muxStream(fifo, socket, true, &outSockets{}, -1); err != nil {
		t.Fatal(err)
	}
	app, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	r := bufio.NewReader(app)
	for i := range 3 { // a client that goes is no end of the app's input
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		say(t, c, fmt.Sprintf("client %d\n", i))
		if got := line(t, r); got != fmt.Sprintf("client %d\n", i) {
			t.Errorf("got %q", got)
		}
		c.Close()
	}
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fifo, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeFifo(fifo); err == nil {
		t.Error("a file in the place of the FIFO is taken for one")
	}
}

// TestAnswersArrive: a client that has connected to the output before it speaks
// gets the answer, however quick the app is.
func TestAnswersArrive(t *testing.T) {
	m := startMux(t)
	in := filepath.Join(t.TempDir(), "in")
	socket := in + ".sock"
	if err := makeFifo(in); err != nil {
		t.Fatal(err)
	}
	if _, err := muxStream(in, socket, true, m.outs, -1); err != nil {
		t.Fatal(err)
	}
	app, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	answers := m.app(t)
	defer answers.Close()
	go func() { _, _ = io.Copy(answers, app) }()
	for i := range 100 {
		out, err := net.Dial("unix", m.socket)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("word %d\n", i)
		say(t, c, want)
		if got := line(t, bufio.NewReader(out)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		out.Close()
		c.Close()
	}
	answers.Close()
	m.end(t)
}

func TestPty(t *testing.T) {
	master, pts, err := makePty("/dev/ptmx")
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	dir := t.TempDir()
	stop, err := newStopper()
	if err != nil {
		t.Fatal(err)
	}
	o, err := muxPty(master, pts, filepath.Join(dir, "tty"), filepath.Join(dir, "size"), stop.r)
	if err != nil {
		t.Fatal(err)
	}
	m := &muxed{output: o, socket: filepath.Join(dir, "tty"), stopper: stop, done: make(chan error, 1)}
	go func() { m.done <- o.copy() }()
	app, err := os.OpenFile(pts, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := m.attach(t)
	r := bufio.NewReader(c)
	say(t, c, "typed\n")
	if got := line(t, r); got != "typed\r\n" {
		t.Errorf("echo: %q", got)
	}
	if got := line(t, bufio.NewReader(app)); got != "typed\n" {
		t.Errorf("the app got %q", got)
	}
	sizes, err := net.Dial("unix", filepath.Join(dir, "size"))
	if err != nil {
		t.Fatal(err)
	}
	defer sizes.Close()
	say(t, sizes, "50 13")
	say(t, sizes, "2\n43 99\n")
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		ws, err := unix.IoctlGetWinsize(int(app.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			t.Fatal(err)
		}
		if ws.Row == 43 && ws.Col == 99 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the window is %d by %d", ws.Row, ws.Col)
		}
	}
	// a client that closes its sending side still hears
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	say(t, app, "still there\n")
	if got := line(t, r); got != "still there\r\n" {
		t.Errorf("after CloseWrite: %q", got)
	}
	app.Close()
	if b, err := io.ReadAll(r); err != nil {
		t.Errorf("the end: %q, %v", b, err)
	}
	m.end(t)
}

func TestSplitter(t *testing.T) {
	var got []string
	s := &splitter{emit: func(b []byte) { got = append(got, string(b)) }}
	for _, p := range []string{"a", "b\nc", "\n\nd\ne\nf"} {
		s.feed([]byte(p))
	}
	s.flush()
	s.flush()
	if want := "ab\n|c\n\nd\ne\n|f"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", strings.Join(got, "|"), want)
	}
	got = nil
	s.feed(bytes.Repeat([]byte("x"), maxLine))
	if len(got) != 1 || len(s.pending) != 0 {
		t.Errorf("a line without an end is kept: %d pieces, %d bytes", len(got), len(s.pending))
	}
}

func FuzzReadSizes(f *testing.F) {
	for _, s := range []string{"24 80\n", "1 1\n2 2\n", "0 5\n", "-1 2\n", "99999 1\n", strings.Repeat("1", 100), "5 5", "\n", "5  5\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		readSizes(strings.NewReader(s), func(rows, cols uint16) {
			if rows == 0 || cols == 0 || rows > 1<<15 || cols > 1<<15 || !strings.Contains(s, fmt.Sprint(rows)) {
				t.Errorf("%q sets %d by %d", s, rows, cols)
			}
		})
	})
}

package entrypoint

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/stdio"
)

func TestEndpoints(t *testing.T) {
	streams := stdio.Modes{In: stdio.Stream, Out: stdio.Stream, Err: stdio.Log}
	tty := stdio.Modes{In: stdio.Null, Out: stdio.TTY, Err: stdio.TTY}
	both := stdio.Modes{In: stdio.TTY, Out: stdio.TTY, Err: stdio.Stream}
	custom := func(mode string) abi.Attach {
		a, err := abi.ParseAttachMode(mode)
		if err != nil {
			t.Fatal(err)
		}
		a.App = "web"
		return a
	}
	for _, c := range []struct {
		mode string
		m    stdio.Modes
		want wanted
		bad  string
	}{
		{"auto", streams, wanted{stdin: true, stdout: true}, ""},
		{"auto", tty, wanted{ttyOut: true}, ""},
		{"auto", both, wanted{ttyIn: true, ttyOut: true}, ""},
		{"auto", stdio.Default(), wanted{}, `app "web" has nothing to attach to`},
		{"stdout", streams, wanted{stdout: true}, ""},
		{"stderr", both, wanted{stderr: true}, ""},
		{"stderr", streams, wanted{}, `stderr of app "web" cannot be attached to; it has: stdin, stdout`},
		{"tty", streams, wanted{}, `tty of app "web" cannot be attached to`},
		{"stdin,stdout", tty, wanted{}, `stdin of app "web"`},
		{"tty-out", tty, wanted{ttyOut: true}, ""},
	} {
		got, err := endpoints(custom(c.mode), c.m)
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s of %+v: %v, want %q", c.mode, c.m, err, c.bad)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%s of %+v: %+v, %v, want %+v", c.mode, c.m, got, err, c.want)
		}
	}
}

func TestEscape(t *testing.T) {
	const k = "\x1d"
	type part struct {
		after time.Duration
		text  string
	}
	for _, c := range []struct {
		name  string
		parts []part
		pass  string
		done  bool
	}{
		{"at once", []part{{0, "ab" + k + k + k + "c"}}, "ab", true},
		{"one by one", []part{{0, k}, {300 * time.Millisecond, k}, {600 * time.Millisecond, k}}, k + k, true},
		{"too slow", []part{{0, k}, {600 * time.Millisecond, k}, {1100 * time.Millisecond, k}}, k + k + k, false},
		{"interrupted", []part{{0, k + k + "x" + k + k}}, k + k + "x" + k + k, false},
		{"after text", []part{{0, k + "x"}, {0, k + k + k}}, k + "x", true},
		{"plain", []part{{0, "hello"}}, "hello", false},
	} {
		var e escape
		var pass string
		done := false
		start := time.Unix(1000, 0)
		for _, p := range c.parts {
			var b []byte
			b, done = e.typed([]byte(p.text), start.Add(p.after))
			pass += string(b)
		}
		if pass != c.pass || done != c.done {
			t.Errorf("%s: passed %q, done %t, want %q, %t", c.name, pass, done, c.pass, c.done)
		}
	}
}

// pretended is a pod's root with the sockets of an app.
func pretended(t *testing.T, endpoints ...string) (*os.File, map[string]net.Listener) {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, stdio.Dir("a")), 0o755); err != nil {
		t.Fatal(err)
	}
	all := map[string]net.Listener{}
	for _, e := range endpoints {
		l, err := net.Listen("unix", filepath.Join(dir, stdio.Socket("a", e)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		all[e] = l
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, all
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestSession(t *testing.T) {
	root, l := pretended(t, "stdin", "stdout")
	in, typed := pipe(t)
	screen, out := pipe(t)
	s := newSession("a", root, in, out, out)
	w := wanted{stdin: true, stdout: true}
	if err := s.open(t.Context(), w, time.Second); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(t.Context(), w) }()
	stdin, err := l["stdin"].Accept()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := l["stdout"].Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := typed.WriteString("question\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := stdin.Read(b); string(b[:n]) != "question\n" || err != nil {
		t.Errorf("the app got %q, %v", b[:n], err)
	}
	typed.Close() // a pipe that ends: there may still be an answer
	if _, err := stdout.Write([]byte("\x1b[31manswer\x00\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := screen.Read(b); string(b[:n]) != "\x1b[31manswer\x00\n" || err != nil {
		t.Errorf("output %q, %v", b[:n], err)
	}
	stdout.Close()
	if err := <-ended; err != nil {
		t.Errorf("the end of the app: %v", err)
	}
}

func TestSessionEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		w    wanted
		do   func(cancel func(), typed *os.File, app net.Conn)
	}{
		{"input only, which ends", wanted{stdin: true}, func(_ func(), typed *os.File, _ net.Conn) { typed.Close() }},
		{"input only, and the app ends", wanted{stdin: true}, func(_ func(), _ *os.File, app net.Conn) { app.Close() }},
		{"output, and a signal", wanted{stdout: true}, func(cancel func(), _ *os.File, _ net.Conn) { cancel() }},
		{"terminal, and the app ends", wanted{ttyIn: true, ttyOut: true}, func(_ func(), _ *os.File, app net.Conn) { app.Close() }},
		{"terminal, and a signal", wanted{ttyIn: true, ttyOut: true}, func(cancel func(), _ *os.File, _ net.Conn) { cancel() }},
		{"keyboard only, which ends", wanted{ttyIn: true}, func(_ func(), typed *os.File, _ net.Conn) { typed.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, l := pretended(t, "stdin", "stdout", "tty", "size")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			in, typed := pipe(t)
			_, out := pipe(t)
			s := newSession("a", root, in, out, out)
			if err := s.open(ctx, c.w, time.Second); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- s.run(ctx, c.w) }()
			name := "tty"
			if c.w.stdin {
				name = "stdin"
			} else if c.w.stdout {
				name = "stdout"
			}
			app, err := l[name].Accept()
			if err != nil {
				t.Fatal(err)
			}
			c.do(cancel, typed, app)
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("does not end")
			}
		})
	}
}

// TestTerminalRestored with a real terminal as the caller's.
func TestTerminalRestored(t *testing.T) {
	master, slave := callerTerminal(t)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 44}); err != nil {
		t.Fatal(err)
	}
	root, l := pretended(t, "tty", "size")
	s := newSession("a", root, slave, slave, slave)
	w := wanted{ttyIn: true, ttyOut: true}
	if err := s.open(t.Context(), w, time.Second); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(t.Context(), w) }()
	size, err := l["size"].Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := size.Read(b); string(b[:n]) != "33 44\n" || err != nil {
		t.Errorf("size %q, %v", b[:n], err)
	}
	app, err := l["tty"].Accept()
	if err != nil {
		t.Fatal(err)
	}
	// raw by now, or soon: Ctrl-C is a character
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		now, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if now.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the terminal is not raw")
		}
	}
	if _, err := master.WriteString("\x03\r"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(app, b[:2]); string(b[:2]) != "\x03\r" || err != nil {
		t.Errorf("the app got %q, %v", b[:2], err)
	}
	if _, err := master.WriteString("\x1d\x1d\x1d"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is left as %+v, was %+v, %v", after, before, err)
	}
}

func callerTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// TestDialHostile: what lies in the pod is not followed out of it.
func TestDialHostile(t *testing.T) {
	outside, l := pretended(t, "stdout")
	root, _ := pretended(t)
	at := filepath.Join(root.Name(), stdio.Dir("a"))
	target := filepath.Join(outside.Name(), stdio.Socket("a", "stdout"))
	connected := make(chan bool, 1)
	go func() {
		if _, err := l["stdout"].Accept(); err == nil {
			connected <- true
		}
	}()
	for name, prepare := range map[string]func() error{
		"a link":      func() error { return os.Symlink(target, filepath.Join(at, "sock-stdout")) },
		"a file":      func() error { return os.WriteFile(filepath.Join(at, "sock-stdout"), nil, 0o600) },
		"a FIFO":      func() error { return unix.Mkfifo(filepath.Join(at, "sock-stdout"), 0o600) },
		"a directory": func() error { return os.Mkdir(filepath.Join(at, "sock-stdout"), 0o700) },
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		s := &session{app: "a", root: root}
		if err := s.open(t.Context(), wanted{stdout: true}, 200*time.Millisecond); err == nil {
			t.Errorf("%s in the place of the socket: connected", name)
		}
		if err := os.Remove(filepath.Join(at, "sock-stdout")); err != nil {
			t.Fatal(err)
		}
	}
	// nothing there: waits, then says so
	s := &session{app: "a", root: root}
	err := s.open(t.Context(), wanted{stdout: true}, 200*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), `app "a" does not take connections, waited 200ms`) {
		t.Errorf("no socket: %v", err)
	}
	select {
	case <-connected:
		t.Error("a link was followed out of the root")
	default:
	}
}

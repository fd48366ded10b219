// Package bounded runs other programs that cannot be relied on: for a limited
// time, with limited output, and not longer than this program lives.
package bounded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rkt-systemd/rkt/internal/abi"
)

const (
	// MaxOutput is what a program may print.
	MaxOutput = 1 << 20
	// MaxLine is what is shown of a line of its messages.
	MaxLine     = 2000
	maxMessages = 64 << 10
	maxQuote    = 200
	// lingering is how long a pipe may stay open after the program has ended:
	// a daemon that it left behind may hold it.
	lingering = time.Second

	// ToolPath is where the programs of a host are.
	ToolPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// ErrOutput is that of a program that printed more than MaxOutput.
var ErrOutput = fmt.Errorf("printed more than %d bytes and was killed", MaxOutput)

// Process is a program to run to its end.
type Process struct {
	Path     string
	Args     []string
	Stdin    []byte
	Env      []string
	Messages *Lines // standard error; nil for none
}

// Run returns the program's standard output, also when it failed. When the
// context ends, or when it prints too much, the program and what it started
// are killed.
func Run(ctx context.Context, p Process) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &output{full: func() { cancel(ErrOutput) }}
	var cmd *exec.Cmd
	prepare := func() {
		cmd = exec.CommandContext(ctx, p.Path, p.Args...)
		cmd.Dir = "/" // a daemon left behind must not hold the pod's directory
		cmd.Env = p.Env
		cmd.Stdin = bytes.NewReader(p.Stdin)
		cmd.Stdout = out
		if p.Messages != nil {
			cmd.Stderr = p.Messages
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = lingering
	}
	done := make(chan error)
	go func() {
		// The signal comes when the thread that forked ends, not the process:
		// so the thread is kept as long as the program runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		for range 50 {
			prepare()
			if err = cmd.Start(); !errors.Is(err, syscall.ETXTBSY) {
				break
			}
			time.Sleep(20 * time.Millisecond) // the file is just being written
		}
		if err == nil {
			err = cmd.Wait()
		}
		done <- err
	}()
	err := <-done
	if p.Messages != nil {
		p.Messages.end()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well, and only what it left behind holds the pipe
	}
	switch {
	case err == nil && !out.over():
		return out.bytes(), nil
	case out.over():
		err = ErrOutput
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it started must not go on after it failed
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			err = fmt.Errorf("was killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
		}
	}
	return out.bytes(), err
}

// Limited gives what runs under the context d, and says so when that is over.
func Limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("did not end within %s and was killed", d))
}

// output keeps what a program prints, up to a limit.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	too  bool
	full func()
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len()+len(b) > MaxOutput {
		o.too = true
		o.full()
		return 0, ErrOutput
	}
	return o.buf.Write(b)
}

func (o *output) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.too
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf.Bytes())
}

// Lines passes lines on as they come, each marked with who says it.
type Lines struct {
	To     io.Writer
	Prefix string

	mu   sync.Mutex
	said int
	part []byte
}

// Write never fails: what nobody can read must not stop the program.
func (l *Lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(b) {
		whole := line[len(line)-1] == '\n'
		if room := MaxLine - len(l.part); room > 0 {
			l.part = append(l.part, line[:min(len(line), room)]...)
		}
		if whole {
			l.flush()
		}
	}
	return len(b), nil
}

func (l *Lines) flush() {
	text := printable(strings.TrimRight(string(l.part), "\r\n"))
	l.part = l.part[:0]
	if text == "" || l.said >= maxMessages {
		return
	}
	if l.said += len(text); l.said >= maxMessages {
		text += " (the rest is not shown)"
	}
	_, _ = fmt.Fprintln(l.To, l.Prefix+text)
}

func (l *Lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

// printable takes out what would move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\uFFFD') {
			return '?'
		}
		return r
	}, s)
}

// Shorten makes one line of at most n bytes, and a mark, of what a program said.
func Shorten(s string, n int) string {
	s = printable(strings.ReplaceAll(s, "\n", " "))
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// Quote shows what a program printed, or its beginning.
func Quote(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) <= maxQuote {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q… (%d bytes)", b[:maxQuote], len(b))
}

// FindTool is where a program of the host lies; "" if it is not installed.
func FindTool(name string) string {
	for d := range strings.SplitSeq(os.Getenv("PATH")+":"+ToolPath, ":") {
		if !filepath.IsAbs(d) {
			continue
		}
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// Environ is an environment for programs of the host: without what systemd and
// rkt pass to this process alone, and with a PATH that has the host's tools.
func Environ(environ []string) []string {
	out := make([]string, 0, len(environ)+1)
	path := ToolPath
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case abi.EnvLockFD, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SYSTEMD_EXEC_PID", "MAINPID":
		case "PATH":
			if value != "" {
				path = value + ":" + ToolPath
			}
		default:
			out = append(out, kv)
		}
	}
	return append(out, "PATH="+path)
}

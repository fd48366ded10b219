package entrypoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/stdio"
)

// connectTimeout is how long attach waits for an app that is starting.
const connectTimeout = 15 * time.Second

// Attach connects the caller's standard streams with those of an app. It stays
// on the host and opens nothing of the pod but sockets: what they send is
// passed on and never interpreted. The endpoints are those of the pod's
// manifest, which the pod cannot write.
func Attach(ctx context.Context, env Env, args []string) error {
	a, err := abi.ParseAttach(args)
	if err != nil {
		return err
	}
	m, err := appModes(a.App)
	if err != nil {
		return err
	}
	if a.Action == abi.AttachList {
		_, err := os.Stdout.Write(m.Targets(a.App))
		return err
	}
	want, err := endpoints(a, m)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(env.get(abi.EnvEnterPID))
	if err != nil || pid <= 1 {
		return fmt.Errorf("%s does not hold a process ID: this program is run by rkt", abi.EnvEnterPID)
	}
	root, err := podRoot(pid)
	if err != nil {
		return err
	}
	defer root.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newSession(a.App, root, os.Stdin, os.Stdout, os.Stderr)
	defer s.restore()
	if err := s.open(ctx, want, connectTimeout); err != nil {
		return err
	}
	return s.run(ctx, want)
}

// appModes reads an app's modes out of the pod manifest.
func appModes(app string) (stdio.Modes, error) {
	b, err := os.ReadFile(podfs.PodManifest)
	if err != nil {
		return stdio.Modes{}, fmt.Errorf("reading the pod manifest: %w", err)
	}
	pod, _, err := appc.ParsePodManifest(b)
	if err != nil {
		return stdio.Modes{}, err
	}
	for i := range pod.Apps {
		if pod.Apps[i].Name.String() != app {
			continue
		}
		m, msg := stdio.Parse(pod.Apps[i].Annotations.Get)
		if msg != "" {
			return m, fmt.Errorf("app %q: %s", app, msg)
		}
		return m, nil
	}
	return stdio.Modes{}, fmt.Errorf("the pod has no app %q", app)
}

// wanted says which of an app's endpoints to use.
type wanted struct {
	stdin, stdout, stderr, ttyIn, ttyOut bool
}

// endpoints matches what is asked for with what the app has. An app may have
// both a terminal and streams; auto takes the terminal then.
func endpoints(a abi.Attach, m stdio.Modes) (wanted, error) {
	has := map[string]bool{}
	for _, e := range m.Endpoints() {
		has[e] = true
	}
	if len(has) == 0 {
		return wanted{}, fmt.Errorf("app %q has nothing to attach to: its standard streams are in no mode that allows it; run it with --stdin, --stdout or --stderr set to stream or tty", a.App)
	}
	if a.Action == abi.AttachAuto {
		if has["tty"] {
			return wanted{ttyIn: m.In == stdio.TTY, ttyOut: m.Out == stdio.TTY || m.Err == stdio.TTY}, nil
		}
		return wanted{stdin: has["stdin"], stdout: has["stdout"], stderr: has["stderr"]}, nil
	}
	w := wanted{a.Stdin, a.Stdout, a.Stderr, a.TTYIn, a.TTYOut}
	for _, c := range []struct {
		asked bool
		name  string
	}{{w.stdin, "stdin"}, {w.stdout, "stdout"}, {w.stderr, "stderr"}, {w.ttyIn || w.ttyOut, "tty"}} {
		if c.asked && !has[c.name] {
			return w, fmt.Errorf("%s of app %q cannot be attached to; it has: %s", c.name, a.App, strings.Join(m.Endpoints(), ", "))
		}
	}
	return w, nil
}

// podRoot opens the root of the pod's first process. The number is only as
// good as the pod's lock: without a holder the process may be anyone's.
func podRoot(pid int) (*os.File, error) {
	name := filepath.Join("/proc", strconv.Itoa(pid), "root")
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the pod's root: %w", err)
	}
	root := os.NewFile(uintptr(fd), name)
	lock, err := os.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return nil, errors.Join(errors.New("the pod is not running any more"), root.Close())
	}
	return root, nil
}

// dial connects to a socket in the pod's root. No link of the pod is followed.
func dial(ctx context.Context, root *os.File, name string) (*net.UnixConn, error) {
	fd, err := unix.Openat2(int(root.Fd()), strings.TrimPrefix(name, "/"), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("%q in the pod is no socket", name)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	if err != nil {
		var sys *os.SyscallError
		if errors.As(err, &sys) {
			err = sys
		}
		return nil, fmt.Errorf("connecting to %q in the pod: %w", name, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("no unix connection"), c.Close())
	}
	return u, nil
}

// session is one attach.
type session struct {
	app                              string
	root                             *os.File
	in, out, err                     *os.File
	stdin, stdout, stderr, tty, size *net.UnixConn

	// terminal says that the input is one, whose descriptor is inFD.
	terminal bool
	inFD     int

	mu    sync.Mutex
	saved *term.State
}

func newSession(app string, root, in, out, errs *os.File) *session {
	fd := int(in.Fd())
	return &session{app: app, root: root, in: in, out: out, err: errs, inFD: fd, terminal: term.IsTerminal(fd)}
}

// open connects to what is wanted; an app that is just starting is waited for.
func (s *session) open(ctx context.Context, w wanted, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, c := range []struct {
		asked bool
		name  string
		conn  **net.UnixConn
	}{{w.stdin, "stdin", &s.stdin}, {w.stdout, "stdout", &s.stdout}, {w.stderr, "stderr", &s.stderr},
		{w.ttyIn || w.ttyOut, "size", &s.size}, {w.ttyIn || w.ttyOut, "tty", &s.tty}} {
		if !c.asked {
			continue
		}
		for {
			var err error
			if *c.conn, err = dial(ctx, s.root, stdio.Socket(s.app, c.name)); err == nil {
				break
			}
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) && ctx.Err() == nil {
				return err
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("app %q does not take connections, waited %s: %w", s.app, limit, err)
			}
		}
	}
	return nil
}

// run copies until the app's output ends, or the caller goes.
func (s *session) run(ctx context.Context, w wanted) error {
	if s.tty != nil {
		return s.runTTY(ctx, w)
	}
	var outputs sync.WaitGroup
	failed := make(chan error, 4)
	for _, o := range []struct {
		from *net.UnixConn
		to   io.Writer
	}{{s.stdout, s.out}, {s.stderr, s.err}} {
		if o.from != nil {
			outputs.Go(func() { report(failed, copyOut(o.to, o.from)) })
		}
	}
	ended := make(chan struct{})
	if s.stdout != nil || s.stderr != nil {
		go func() {
			outputs.Wait()
			close(ended)
		}()
	}
	detached := make(chan struct{})
	if s.stdin != nil {
		go func() {
			err := copyIn(s.stdin, s.in)
			report(failed, err)
			// A file or pipe that ends ends the input only, as long as there is output to wait for.
			if w.stdout || w.stderr {
				if err != nil || !s.terminal {
					return
				}
			}
			close(detached)
		}()
		go func() { // the app's end, for who only types
			_, _ = io.Copy(io.Discard, s.stdin)
			if !w.stdout && !w.stderr {
				close(ended)
			}
		}()
	}
	select {
	case <-ended:
	case <-detached:
	case <-ctx.Done():
	case err := <-failed:
		return err
	}
	return nil
}

func report(to chan<- error, err error) {
	if err != nil {
		select {
		case to <- err:
		default:
		}
	}
}

// copyOut passes output on; that the app ended is no error, that it cannot be written is one.
func copyOut(to io.Writer, from *net.UnixConn) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return fmt.Errorf("writing the app's output: %w", werr)
			}
		}
		if err != nil {
			return nil //nolint:nilerr // however the pod ended the connection
		}
	}
}

// copyIn passes input on until it ends; an app that is gone is no error.
func copyIn(to *net.UnixConn, from io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return nil //nolint:nilerr // the end of the output tells
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading standard input: %w", err)
		}
	}
}

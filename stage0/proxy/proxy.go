// Package proxy answers for a port of a pod whose app cannot take sockets
// from systemd. Started by a socket unit with the first connection, beside the
// pod, it waits until the app listens and becomes systemd-socket-proxyd in the
// pod's network namespace, as nobody.
//
// It never connects to the app before that, since there are apps that serve
// one connection and end. If the pod cannot answer the waiting connections
// are closed.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/interrupt"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

// How often the pod is looked at.
const (
	minWait = 5 * time.Millisecond
	maxWait = 200 * time.Millisecond
)

// Options of a proxy.
type Options struct {
	// Name is the declared pod's, Port that of its port.
	Name, Port string
	// IdleTime is a time span of systemd, empty for ever.
	IdleTime string
	// Listeners are the sockets that systemd passed.
	Listeners []int
	Pods      *pod.Pods
	// Starting reports whether the pod's unit may run another pod before it stops this process.
	Starting func(ctx context.Context) bool
	// Restarts reports whether systemd starts the pod again when it fails.
	Restarts func(ctx context.Context) bool
	// Release gives back signals before the process becomes another program.
	Release func() error
	Environ []string
}

// Run becomes the proxy. It returns only on failure, after it has refused the
// connections that wait. Those stay for the next proxy if this one was stopped
// beside a pod that systemd starts again.
func Run(ctx context.Context, o Options) error {
	err := run(ctx, o)
	if len(o.Listeners) == 0 || errors.Is(err, interrupt.ErrInterrupted) && o.Restarts(context.WithoutCancel(ctx)) {
		return err
	}
	sys.RefuseWaiting(o.Listeners)
	return fmt.Errorf("%w; connections to it are closed, see systemctl status rkt@%s.service", err, o.Name)
}

func run(ctx context.Context, o Options) error {
	if len(o.Listeners) == 0 {
		return errors.New("no sockets were passed to it: it is what a socket unit starts, see systemctl list-sockets 'rkt-proxy-*'")
	}
	program, err := find()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the thread that enters the pod's network becomes the proxy
	host, err := sys.OwnNetwork()
	if err != nil {
		return err
	}
	defer host.Close()
	// systemd-socket-proxyd does not say that it is ready
	ready, err := notifier(o.Environ)
	if err != nil {
		return err
	}
	w := &watch{o: o, host: host}
	defer w.close()
	addr, err := w.wait(ctx)
	if err != nil {
		return err
	}
	args := []string{program}
	if o.IdleTime != "" {
		args = append(args, "--exit-idle-time="+o.IdleTime)
	}
	// what follows the last colon is the port; it takes no brackets
	args = append(args, addr.String()+":"+strconv.Itoa(int(w.port)))
	if err := sys.PassFDs(o.Listeners); err != nil {
		return fmt.Errorf("passing sockets on: %w", err)
	}
	if err := o.Release(); err != nil {
		return err
	}
	if err := sys.Chdir("/"); err != nil {
		return err
	}
	if err := sys.BecomeNobody(); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return fmt.Errorf("saying that the proxy is ready: %w", err)
	}
	return sys.Exec(program, args, environ(o.Environ))
}

// notifier connects to the service manager while that can be reached, and
// returns how to tell it that the proxy is ready.
func notifier(environ []string) (func() error, error) {
	for _, kv := range environ {
		path, ok := strings.CutPrefix(kv, "NOTIFY_SOCKET=")
		if !ok || path == "" {
			continue
		}
		c, err := net.Dial("unixgram", path)
		if err != nil {
			return nil, fmt.Errorf("connecting to the service manager: %w", err)
		}
		return func() error { _, err := c.Write([]byte("READY=1\n")); return err }, nil
	}
	return func() error { return nil }, nil
}

// environ is what the proxy gets of this process's environment.
func environ(all []string) []string {
	var out []string
	for _, kv := range all {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "PATH", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID":
			out = append(out, kv)
		}
	}
	return out
}

func find() (string, error) {
	const name = "systemd-socket-proxyd"
	for _, dir := range []string{"/usr/lib/systemd", "/lib/systemd"} {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is missing; install the package that has it (Debian: systemd)", name)
}

// watch follows the pod of a declared name from run to run.
type watch struct {
	o    Options
	host *os.File // the host's network namespace
	pod  *pod.Pod
	port uint16
	// entered is set when the calling thread is in the pod's network.
	entered bool
}

func (w *watch) close() {
	if w.pod != nil {
		w.pod.Close()
		w.pod = nil
	}
}

// wait returns where in the pod's network, which the calling thread is in then,
// the app listens.
func (w *watch) wait(ctx context.Context) (netip.Addr, error) {
	for pause := minWait; ; pause = min(2*pause, maxWait) {
		addr, ok, err := w.look(ctx)
		if ok || err != nil {
			return addr, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if w.port == 0 {
				return addr, fmt.Errorf("%w before the pod ran", context.Cause(ctx))
			}
			return addr, fmt.Errorf("%w before the app listened on its port %d", context.Cause(ctx), w.port)
		}
	}
}

func (w *watch) look(ctx context.Context) (netip.Addr, bool, error) {
	var none netip.Addr
	if w.pod != nil {
		if err := w.pod.Refresh(); err != nil || w.pod.State != pod.Running {
			w.close()
		}
	}
	if w.pod == nil {
		if err := w.find(); err != nil {
			return none, false, err
		}
	}
	if w.pod == nil {
		if w.o.Starting(ctx) || ctx.Err() != nil { // who is interrupted gets no answer
			return none, false, nil
		}
		return none, false, errors.New("the pod does not run")
	}
	if !w.entered {
		ok, err := w.enter()
		if !ok || err != nil {
			return none, false, err
		}
	}
	addr, ok, err := listening(w.port)
	if err != nil {
		return none, false, fmt.Errorf("looking who listens in the pod: %w", err)
	}
	return addr, ok, nil
}

// find finds the running pod, if there is one.
func (w *watch) find() error {
	id, err := w.o.Pods.NewestOf(w.o.Name)
	if errors.Is(err, pod.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := w.o.Pods.Get(id)
	if err != nil {
		return nil // it ended and was collected meanwhile
	}
	if d.State != pod.Running {
		d.Close()
		return nil
	}
	w.pod, w.entered = d, false
	m, err := d.Manifest()
	if err != nil {
		return err
	}
	text, _ := m.Annotations.Get(abi.AnnotationActivatedPorts)
	ports, err := abi.ParseActivatedPorts(text)
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p.Name.String() == w.o.Port {
			w.port = uint16(p.PodPort.Port)
			return nil
		}
	}
	return fmt.Errorf("pod %s was started without the activated port %q; restart it: systemctl restart rkt@%s", d.UUID, w.o.Port, w.o.Name)
}

// enter moves the calling thread into the pod's network, once there is one.
func (w *watch) enter() (bool, error) {
	b, err := w.pod.ReadFile(podfs.Netns)
	switch {
	case err == nil:
		if err := sys.EnterNetwork(strings.TrimSpace(string(b))); err != nil {
			return false, nil // not made yet, or gone already: the pod's state tells
		}
	case !errors.Is(err, os.ErrNotExist):
		return false, err
	default: // the host's network: the namespace is recorded before the process is
		if _, err := w.pod.PID(); err != nil {
			return false, nil
		}
		if err := sys.ReturnToNetwork(w.host); err != nil {
			return false, err
		}
	}
	w.entered = true
	return true, nil
}

package cli

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/pflag"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

// Members of group rkt see the logs of pods without being allowed to read the
// whole journal: rkt-logs.socket, which only they can open, starts an
// unprivileged `rkt logs --serve` for each request. The request is a line of
// JSON, the answer frames of a stream, a length and data.

const (
	logsSocket = "/run/rkt/logs.sock"
	// maxLogRequest limits a request, maxLogFrame what is written at once.
	maxLogRequest = 4 << 10
	maxLogFrame   = 32 << 10
)

type logRequest struct {
	Args []string `json:"args"`
}

// frame kinds
const (
	frameExit = iota
	frameOut
	frameErr
)

// frames writes one stream of an answer.
type frames struct {
	mu   *sync.Mutex
	w    io.Writer
	kind byte
}

func (f frames) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for done := 0; ; {
		n := min(len(b)-done, maxLogFrame)
		head := binary.BigEndian.AppendUint32([]byte{f.kind}, uint32(n))
		if _, err := f.w.Write(append(head, b[done:done+n]...)); err != nil {
			return done, err
		}
		if done += n; done == len(b) {
			return done, nil
		}
	}
}

// journalIsOurs reports whether this user may read the host's journal.
func journalIsOurs() bool {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return true // journalctl will say what is wrong
	}
	for _, dir := range []string{"/run/log/journal", "/var/log/journal"} {
		f, err := os.Open(filepath.Join(dir, strings.TrimSpace(string(id)), "system.journal"))
		if err == nil {
			f.Close()
			return true
		}
		if errors.Is(err, os.ErrPermission) {
			return false
		}
	}
	return true
}

// logsOfOthers asks the server for the logs; false means that it is not needed
// or not there.
func (a *app) logsOfOthers(ctx context.Context, flags *pflag.FlagSet, args []string) (bool, error) {
	if a.EUID == 0 || journalIsOurs() {
		return false, nil
	}
	conn, err := net.Dial("unix", logsSocket)
	if errors.Is(err, os.ErrPermission) {
		return false, hint(errors.New("neither the journal nor the logs of pods may be read by you"), "members of group rkt may see the logs of pods, those of systemd-journal all logs")
	}
	if err != nil {
		return false, nil // journalctl says why it shows nothing
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var r logRequest
	flags.Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		r.Args = append(r.Args, "--"+f.Name+"="+value)
	})
	r.Args = append(r.Args, args...)
	text, err := json.Marshal(r)
	if err != nil {
		return true, err
	}
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return true, fmt.Errorf("asking for the logs: %w", err)
	}
	if err := a.copyFrames(conn); ctx.Err() == nil {
		return true, err
	}
	return true, nil // interrupted
}

func (a *app) copyFrames(r io.Reader) error {
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return fmt.Errorf("reading the logs: the server went away: %w", err)
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n > maxLogFrame {
			return fmt.Errorf("reading the logs: a frame of %d bytes", n)
		}
		var to io.Writer
		switch head[0] {
		case frameOut:
			to = a.Stdout
		case frameErr:
			to = a.Stderr
		default:
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil || string(b) != "0" {
				return errSilent
			}
			return nil
		}
		if _, err := io.CopyN(to, r, int64(n)); err != nil {
			return fmt.Errorf("reading the logs: %w", err)
		}
	}
}

// serveLogs answers one request on conn, of somebody who may see the logs of pods
// and nothing else.
func (a *app) serveLogs(ctx context.Context, conn io.ReadWriter) error {
	line, err := bufio.NewReader(io.LimitReader(conn, maxLogRequest)).ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	var r logRequest
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	var mu sync.Mutex
	served := *a
	served.Stdout, served.Stderr = frames{&mu, conn, frameOut}, frames{&mu, conn, frameErr}
	served.serving = true
	// who asks is gone when the connection ends: a follower has nobody to follow for
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		cancel()
	}()
	// The command without its parents knows no global flags.
	cmd := served.logsCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(r.Args)
	cmd.SetOut(served.Stdout)
	cmd.SetErr(served.Stderr)
	status := "0"
	if err := cmd.ExecuteContext(ctx); err != nil {
		status = "1"
		if !errors.Is(err, errSilent) {
			fmt.Fprintf(served.Stderr, "logs: %v\n", err)
		}
	}
	_, err = frames{&mu, conn, frameExit}.Write([]byte(status))
	return err
}

// mayServe says why a request is refused: an arbitrary UUID would be the
// invocation of any service.
func (a *app) mayServe(flags *pflag.FlagSet, arg string) error {
	for _, name := range []string{"serve", "detach"} {
		if flags.Changed(name) {
			return fmt.Errorf("--%s is not served", name)
		}
	}
	if podfile.CheckName(arg) == nil {
		return nil
	}
	pods, _, err := a.pods()
	if err == nil {
		_, err = pods.Resolve(arg)
	}
	return err
}

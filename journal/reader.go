package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Query says which entries to read; the zero value is the whole journal from
// its oldest entry.
type Query struct {
	// Matches are FIELD=VALUE as journalctl takes them: values of one field
	// are alternatives, different fields must all match.
	Matches []string
	// Lines limits the reading to the newest so many entries; 0 is no limit.
	Lines int
	// Since and Until limit the time.
	Since, Until time.Time
	// After continues behind the entry of this cursor.
	After string
	// Follow goes on with new entries until the context ends.
	Follow bool
	// Sync asks journald to have written everything it was sent before the
	// reading begins, so that the last words of an ended pod are seen.
	Sync bool
	// Directory reads journal files of a directory instead of the host's.
	Directory string
	// Namespace reads that journal namespace together with the host's own; "*"
	// reads all there are.
	Namespace string
	// Priority, Grep and Boot limit the entries as journalctl's options of these
	// names do; Reverse prints the newest first.
	Priority, Grep, Boot string
	Reverse              bool
	// Journalctl is the program; "" means "journalctl" in PATH.
	Journalctl string
}

// PodMatches returns the matches for the lines of a pod. A pod whose main
// process is a service has that service's invocation ID as its UUID; any
// other pod is found by the scope unit machined made for it. apps, if any,
// limits the lines to those apps.
func PodMatches(uuid, scope string, apps ...string) []string {
	m := []string{fieldInvocation + "=" + strings.ReplaceAll(uuid, "-", "")}
	if scope != "" {
		m = []string{fieldUnit + "=" + scope}
	}
	for _, a := range apps {
		m = append(m, fieldIdentifier+"="+a)
	}
	return m
}

// args builds journalctl's command line.
func (q *Query) args() ([]string, error) {
	return q.argsAs("export")
}

// argsAs is args for an output mode of journalctl's.
func (q *Query) argsAs(output string) ([]string, error) {
	args := []string{"--output=" + output, "--no-pager", "--quiet", "--all"}
	switch q.Namespace {
	case "":
	case "*":
		args = append(args, "--namespace=*")
	default:
		args = append(args, "--namespace=+"+q.Namespace)
	}
	for _, o := range [][2]string{{"priority", q.Priority}, {"grep", q.Grep}, {"boot", q.Boot}} {
		if o[1] != "" {
			args = append(args, "--"+o[0]+"="+o[1])
		}
	}
	if q.Reverse {
		args = append(args, "--reverse")
	}
	if q.Directory != "" {
		args = append(args, "--directory="+q.Directory)
	}
	if q.Lines > 0 {
		args = append(args, "--lines="+strconv.Itoa(q.Lines))
	} else if q.Follow {
		args = append(args, "--lines=all") // --follow alone means the last ten
	}
	if !q.Since.IsZero() {
		args = append(args, "--since="+timestamp(q.Since))
	}
	if !q.Until.IsZero() {
		args = append(args, "--until="+timestamp(q.Until))
	}
	if q.After != "" {
		args = append(args, "--after-cursor="+q.After)
	}
	if q.Follow {
		args = append(args, "--follow")
	}
	args = append(args, "--")
	for _, m := range q.Matches {
		name, _, ok := strings.Cut(m, "=")
		if !ok || !ValidField(strings.TrimLeft(name, "_")) || strings.IndexByte(m, 0) >= 0 {
			return nil, fmt.Errorf("journal match %q is not FIELD=VALUE", m)
		}
		args = append(args, m)
	}
	return args, nil
}

// timestamp formats a time for --since: seconds since the epoch, see
// systemd.time(7).
func timestamp(t time.Time) string {
	us := t.UnixMicro()
	return fmt.Sprintf("@%d.%06d", us/1e6, us%1e6)
}

// Reader reads entries from a running journalctl.
type Reader struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	out    *bufio.Reader
	stderr *bytes.Buffer
	done   bool
	err    error
}

// Read starts a query. The context ends journalctl; the caller closes the
// reader.
func Read(ctx context.Context, q Query) (*Reader, error) {
	prog := q.Journalctl
	if prog == "" {
		prog = "journalctl"
	}
	args, err := q.args()
	if err != nil {
		return nil, err
	}
	if q.Sync {
		if err := q.sync(ctx, prog); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, prog, args...)
	stderr := &bytes.Buffer{}
	cmd.Stderr = &limitedWriter{w: stderr, left: 4096}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("starting %q (package systemd) to read the journal: %w", prog, err)
	}
	return &Reader{cmd: cmd, cancel: cancel, out: bufio.NewReaderSize(out, 64<<10), stderr: stderr}, nil
}

func (q *Query) sync(ctx context.Context, prog string) error {
	if err := Sync(ctx, prog); err != nil || q.Namespace == "" || q.Namespace == "*" {
		return err
	}
	if out, err := exec.CommandContext(ctx, prog, "--namespace="+q.Namespace, "--sync").CombinedOutput(); err != nil {
		return fmt.Errorf("syncing the journal namespace %q with %q: %w: %s", q.Namespace, prog, err, bytes.TrimSpace(out))
	}
	return nil
}

// Copy prints entries in an output mode of journalctl's own (journalctl(1),
// --output=).
func Copy(ctx context.Context, q Query, output string, w io.Writer) error {
	prog := q.Journalctl
	if prog == "" {
		prog = "journalctl"
	}
	args, err := q.argsAs(output)
	if err != nil {
		return err
	}
	stderr := &bytes.Buffer{}
	cmd := exec.CommandContext(ctx, prog, args...)
	cmd.Stdout, cmd.Stderr = w, &limitedWriter{w: stderr, left: 4096}
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reading the journal: journalctl: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// Sync has journald write what it was sent to its files.
func Sync(ctx context.Context, prog string) error {
	if prog == "" {
		prog = "journalctl"
	}
	if out, err := exec.CommandContext(ctx, prog, "--sync").CombinedOutput(); err != nil {
		return fmt.Errorf("syncing the journal with %q: %w: %s", prog, err, bytes.TrimSpace(out))
	}
	return nil
}

// Next returns the next entry. io.EOF means that there is none left; with
// Follow that is only so when the context ended.
func (r *Reader) Next() (Entry, error) {
	if r.done {
		return Entry{}, r.err
	}
	e, err := ReadEntry(r.out)
	if err == nil {
		return e, nil
	}
	r.done, r.err = true, err
	if !errors.Is(err, io.EOF) {
		r.cancel()
		_ = r.cmd.Wait() // the parser's error counts
		return Entry{}, r.err
	}
	if werr := r.cmd.Wait(); werr != nil && r.cmd.ProcessState.Exited() {
		r.err = fmt.Errorf("reading the journal: journalctl: %w: %s", werr, bytes.TrimSpace(r.stderr.Bytes()))
	}
	return Entry{}, r.err
}

// Close ends journalctl.
func (r *Reader) Close() error {
	r.cancel()
	if !r.done {
		r.done, r.err = true, io.EOF
		_ = r.cmd.Wait() // it was killed just now
	}
	return nil
}

// limitedWriter keeps the beginning and swallows the rest.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > l.left {
		p = p[:l.left]
	}
	l.left -= len(p)
	if _, err := l.w.Write(p); err != nil {
		return 0, err
	}
	return n, nil
}

// Package host drives a throw-away systemd host (tests/host/nspawn or
// tests/host/vm) from Go tests, through the commands of that host alone.
//
// The caller of "go test" brings the host up and says how to reach it:
//
//	RKT_TEST_HOST_EXEC     command line, split at spaces, that runs what follows it in the host
//	RKT_TEST_SUITE         Debian suite of the host, "bookworm" or "trixie"
//	RKT_TEST_REQUIRE_HOST  "1": a missing host fails a test instead of skipping it
//	RKT_TEST_LOCK          file that is locked by what hosts of one kernel cannot do at once
//
// Every command has a time limit; when a test fails, the end of the host's
// journal since the test began is added to its log. Only packages below tests/
// may import this one.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/internal/lock"
)

const (
	// Timeout limits a command that is given no other limit.
	Timeout = 2 * time.Minute
	// killDelay is how long a command may take to go after SIGTERM.
	killDelay = 5 * time.Second
	// maxLog limits what of one output goes to a test's log.
	maxLog = 16 << 10
	// journalLines is how much of the journal a failure shows.
	journalLines = 200
)

// Host is a host that is up. Its methods may be used by several tests at once.
type Host struct {
	argv  []string
	suite string
}

// Open returns the host that the environment names. Without one the test is
// skipped, or fails if RKT_TEST_REQUIRE_HOST is 1.
func Open(t testing.TB) *Host {
	t.Helper()
	argv := strings.Fields(os.Getenv("RKT_TEST_HOST_EXEC"))
	if len(argv) == 0 {
		const reason = "no test host: RKT_TEST_HOST_EXEC is not set (make check-boot sets it)"
		if os.Getenv("RKT_TEST_REQUIRE_HOST") == "1" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	h := &Host{argv: argv, suite: os.Getenv("RKT_TEST_SUITE")}
	since, _, code := h.Try("date", "+%s.%N")
	if code != 0 {
		t.Fatalf("the test host does not answer: %q exits with status %d", argv, code)
	}
	t.Cleanup(func() {
		if t.Failed() {
			h.logJournal(t, strings.TrimSpace(since))
		}
	})
	return h
}

// Alone waits until no other host of this kernel does what this test is about to
// do, which takes more of what they share than the kernel has for two.
func (h *Host) Alone(t testing.TB) {
	t.Helper()
	path := os.Getenv("RKT_TEST_LOCK")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = lock.File(f, lock.Exclusive)
	}
	if err != nil {
		t.Fatalf("locking %s: %v", path, err)
	}
	t.Cleanup(func() { f.Close() })
}

// Suite is the host's Debian suite, "bookworm" or "trixie".
func (h *Host) Suite() string { return h.suite }

// Result is what a command left.
type Result struct {
	Stdout, Stderr string
	// Code is the exit status, 128+n for a death by signal n, and -1 when the
	// command could not be run or ran out of time; Err says which.
	Code int
	Err  error
}

// Do runs a command in the host, with stdin if that is not nil, until it ends
// or ctx does.
func (h *Host) Do(ctx context.Context, stdin io.Reader, cmd ...string) Result {
	argv := append(append([]string(nil), h.argv...), cmd...)
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = stdin, &stdout, &stderr
	// A process group, so that the helpers between here and there go too.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = killDelay
	err := c.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: -1, Err: err}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.Err = fmt.Errorf("running %q in the test host: %w", cmd, ctx.Err())
	case err == nil:
		r.Code = 0
	case errors.As(err, &exit):
		r.Code, r.Err = exit.ExitCode(), nil
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			r.Code = 128 + int(status.Signal())
		}
	}
	return r
}

// Try runs a command with the default time limit and returns what it left; a
// command that could not be run or ran out of time has code -1 and the reason
// at the end of stderr.
func (h *Host) Try(cmd ...string) (stdout, stderr string, code int) {
	return h.TryFor(Timeout, cmd...)
}

// TryFor is Try with another time limit.
func (h *Host) TryFor(limit time.Duration, cmd ...string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r := h.Do(ctx, nil, cmd...)
	if r.Err != nil {
		r.Stderr += r.Err.Error() + "\n"
	}
	return r.Stdout, r.Stderr, r.Code
}

// Run runs a command, which must succeed, and returns its standard output.
func (h *Host) Run(t testing.TB, cmd ...string) string {
	t.Helper()
	stdout, stderr, code := h.Try(cmd...)
	if code != 0 {
		fail(t, cmd, stdout, stderr, code)
	}
	return stdout
}

// RunFor is Run with another time limit.
func (h *Host) RunFor(t testing.TB, limit time.Duration, cmd ...string) string {
	t.Helper()
	stdout, stderr, code := h.TryFor(limit, cmd...)
	if code != 0 {
		fail(t, cmd, stdout, stderr, code)
	}
	return stdout
}

// RunFail runs a command, which must fail, and returns its standard error and
// exit status.
func (h *Host) RunFail(t testing.TB, cmd ...string) (stderr string, code int) {
	t.Helper()
	stdout, stderr, code := h.Try(cmd...)
	if code == 0 {
		t.Fatalf("%q succeeded, which it must not\nstdout:\n%s\nstderr:\n%s", cmd, tail(stdout), tail(stderr))
	}
	if code == -1 {
		fail(t, cmd, stdout, stderr, code)
	}
	return stderr, code
}

// Sh runs a bash script that must succeed ("set -euo pipefail" holds) and
// returns its standard output.
func (h *Host) Sh(t testing.TB, script string) string {
	t.Helper()
	return h.Run(t, "bash", "-euo", "pipefail", "-c", script)
}

// Write writes a file in the host, whole or not at all, and makes its folder.
func (h *Host) Write(t testing.TB, name string, mode os.FileMode, data []byte) {
	t.Helper()
	h.pipe(t, bytes.NewReader(data), name, mode)
}

// Read returns the content of a file in the host.
func (h *Host) Read(t testing.TB, name string) string {
	t.Helper()
	return h.Run(t, "cat", "--", name)
}

// Copy copies a file, or a folder with all below it, into the host as dst.
func (h *Host) Copy(t testing.TB, localSrc, dst string) {
	t.Helper()
	info, err := os.Stat(localSrc)
	if err != nil {
		t.Fatal(err)
	}
	if !info.IsDir() {
		f, err := os.Open(localSrc)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		h.pipe(t, f, dst, info.Mode().Perm())
		return
	}
	src, err := filepath.Abs(localSrc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	tar := exec.CommandContext(ctx, "tar", "-C", src, "--numeric-owner", "-cf", "-", ".")
	out, err := tar.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tar.Start(); err != nil {
		t.Fatal(err)
	}
	r := h.Do(ctx, out, "sh", "-c", `mkdir -p "$1" && exec tar -C "$1" -xpf -`, "-", dst)
	// The reader is gone either way: let tar see a closed pipe, not a full one.
	_ = out.Close()
	if err := tar.Wait(); err != nil || r.Code != 0 {
		t.Fatalf("copying %q to the test host's %q: tar: %v; there: status %d, %v\n%s", localSrc, dst, err, r.Code, r.Err, tail(r.Stderr))
	}
}

// Eventually waits until a command in the host succeeds, trying again after a
// short pause until the limit; it is for states that have no event to wait for.
// It returns the output of the attempt that succeeded.
func (h *Host) Eventually(t testing.TB, limit time.Duration, cmd ...string) string {
	t.Helper()
	end := time.Now().Add(limit)
	for {
		stdout, stderr, code := h.Try(cmd...)
		if code == 0 {
			return stdout
		}
		if time.Now().After(end) {
			t.Logf("still failing after %v", limit)
			fail(t, cmd, stdout, stderr, code)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// pipe writes what in holds to a file in the host by way of a temporary name.
func (h *Host) pipe(t testing.TB, in io.Reader, name string, mode os.FileMode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	const script = `set -e; mkdir -p "$2"; tmp=$(mktemp "$2/.write.XXXXXX"); trap 'rm -f "$tmp"' EXIT; cat >"$tmp"; chmod "$3" "$tmp"; mv -T "$tmp" "$1"`
	r := h.Do(ctx, in, "sh", "-c", script, "-", name, path.Dir(name), strconv.FormatUint(uint64(mode.Perm()), 8))
	if r.Code != 0 {
		t.Fatalf("writing %q in the test host: status %d, %v\n%s", name, r.Code, r.Err, tail(r.Stderr))
	}
}

func (h *Host) logJournal(t testing.TB, since string) {
	stdout, stderr, code := h.TryFor(20*time.Second, "journalctl", "--no-pager", "-o", "short-precise", "--since", "@"+since, "-n", strconv.Itoa(journalLines))
	if code != 0 {
		t.Logf("reading the host's journal: status %d\n%s", code, tail(stderr))
		return
	}
	t.Logf("the host's journal since the test began:\n%s", stdout)
}

func fail(t testing.TB, cmd []string, stdout, stderr string, code int) {
	t.Helper()
	t.Fatalf("%q ends with status %d\nstdout:\n%s\nstderr:\n%s", cmd, code, tail(stdout), tail(stderr))
}

func tail(s string) string {
	if len(s) <= maxLog {
		return s
	}
	return fmt.Sprintf("[%d bytes left out]\n%s", len(s)-maxLog, s[len(s)-maxLog:])
}

package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// local is a Host whose commands run right here.
func local(t *testing.T) *Host {
	t.Setenv("RKT_TEST_HOST_EXEC", "env --")
	t.Setenv("RKT_TEST_SUITE", "bookworm")
	return Open(t)
}

func TestCommands(t *testing.T) {
	h := local(t)
	if got := h.Run(t, "printf", "%s|", "a b", ""); got != "a b||" {
		t.Errorf("Run = %q: arguments must pass through unchanged", got)
	}
	stdout, stderr, code := h.Try("sh", "-c", "echo out; echo err >&2; exit 7")
	if stdout != "out\n" || stderr != "err\n" || code != 7 {
		t.Errorf("Try = %q, %q, %d", stdout, stderr, code)
	}
	if _, _, code := h.Try("sh", "-c", "kill -9 $$"); code != 137 {
		t.Errorf("a death by SIGKILL has code %d, want 137", code)
	}
	if stderr, code := h.RunFail(t, "sh", "-c", "echo no >&2; exit 3"); stderr != "no\n" || code != 3 {
		t.Errorf("RunFail = %q, %d", stderr, code)
	}
	if got := h.Sh(t, "x=1; echo $x"); got != "1\n" {
		t.Errorf("Sh = %q", got)
	}
	if h.Suite() != "bookworm" {
		t.Errorf("Suite = %q", h.Suite())
	}
}

func TestTimeLimit(t *testing.T) {
	h := local(t)
	_, stderr, code := h.TryFor(100*time.Millisecond, "sleep", "60")
	if code != -1 || !strings.Contains(stderr, context.DeadlineExceeded.Error()) {
		t.Errorf("a command past its limit: code %d, stderr %q", code, stderr)
	}
}

func TestFiles(t *testing.T) {
	h := local(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "a folder", "file")
	h.Write(t, name, 0o640, []byte("x\x00y\n"))
	if got := h.Read(t, name); got != "x\x00y\n" {
		t.Errorf("Read = %q", got)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want 0640", info.Mode())
	}
	h.Copy(t, filepath.Join(dir, "a folder"), filepath.Join(dir, "copy"))
	if got := h.Read(t, filepath.Join(dir, "copy", "file")); got != "x\x00y\n" {
		t.Errorf("after Copy of the folder: %q", got)
	}
	h.Copy(t, name, filepath.Join(dir, "copy", "second"))
	if got := h.Read(t, filepath.Join(dir, "copy", "second")); got != "x\x00y\n" {
		t.Errorf("after Copy of the file: %q", got)
	}
	h.Eventually(t, time.Second, "test", "-e", name)
}

func TestRealHost(t *testing.T) {
	h := Open(t)
	if got := h.Run(t, "cat", "/proc/1/comm"); got != "systemd\n" {
		t.Errorf("PID 1 of the host is %q", got)
	}
	h.Run(t, "systemctl", "is-system-running", "--wait")
}

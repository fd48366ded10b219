package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	l, err := openLogFile(dir, "sub/app.log")
	if err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC) }
	out, errs := l.stream("stdout"), l.stream("stderr")
	out([]byte("one\ntw"))
	errs([]byte("bad\n"))
	out([]byte("o\n"))
	out([]byte(strings.Repeat("x", maxLine+3)))
	out([]byte("\n"))
	errs([]byte("rest"))
	l.close()
	b, err := os.ReadFile(filepath.Join(dir, "sub/app.log"))
	if err != nil {
		t.Fatal(err)
	}
	const at = "2026-01-02T03:04:05.000006Z "
	want := at + "stdout one\n" + at + "stderr bad\n" + at + "stdout two\n" + at + "stdout " + strings.Repeat("x", maxLine) + "\n" + at + "stdout xxx\n" + at + "stderr rest\n"
	if string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
}

// TestLogFileStaysBelow: links in the directory lead nowhere.
func TestLogFileStaysBelow(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	for name, target := range map[string]string{"link": filepath.Join(outside, "x"), "dir": outside, "fifo": "/proc/self/root"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "dir/x", "fifo/tmp/x", "../x", "a/../../x", "folder"} {
		if l, err := openLogFile(dir, name); err == nil {
			l.close()
			t.Errorf("%q was opened", name)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

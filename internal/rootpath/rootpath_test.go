package rootpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rkt-systemd/rkt/internal/sys"
)

func setup(t *testing.T) (*Root, string) {
	t.Helper()
	host := t.TempDir()
	root := filepath.Join(host, "root")
	for _, d := range []string{"etc", "usr/bin", "var"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{"secret": "host", "root/etc/passwd": "image", "root/usr/bin/sh": "sh"} {
		if err := os.WriteFile(filepath.Join(host, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"bin": "usr/bin", "abs": "/etc/passwd", "up": "../../../etc/passwd", "out": "../secret", "loop": "loop",
		"var/run": "/run", "var/rel": "../run/x", "hostabs": filepath.Join(host, "secret"), "magic": "/proc/self/root",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, host
}

func TestReadFile(t *testing.T) {
	r, _ := setup(t)
	if err := syscall.Mkfifo(filepath.Join(r.f.Name(), "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"/etc/passwd", "image", nil}, {"etc/passwd", "image", nil}, {"abs", "image", nil}, {"up", "image", nil},
		{"bin/sh", "sh", nil}, {"../../etc/passwd", "image", nil}, {"bin/../bin/sh", "sh", nil}, {"bin/../etc/passwd", "", fs.ErrNotExist},
		{"out", "", fs.ErrNotExist}, {"hostabs", "", fs.ErrNotExist}, {"../secret", "", fs.ErrNotExist},
		{"loop", "", syscall.ELOOP}, {"magic/etc/passwd", "", fs.ErrNotExist},
	} {
		data, err := r.ReadFile(c.name, 100)
		if string(data) != c.want || !errors.Is(err, c.err) {
			t.Errorf("ReadFile(%q) = %q, %v; want %q, %v", c.name, data, err, c.want, c.err)
		}
	}
	for name, want := range map[string]string{"fifo": "not a regular file", "etc": "not a regular file", "etc/passwd": "larger than 2"} {
		if _, err := r.ReadFile(name, 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadFile(%q): %v, want %q", name, err, want)
		}
	}
}

func TestResolve(t *testing.T) {
	r, _ := setup(t)
	for name, want := range map[string]string{"bin/sh": "/usr/bin/sh", "/": "/", "..": "/", "abs": "/etc/passwd"} {
		if got, err := r.Resolve(name); got != want || err != nil {
			t.Errorf("Resolve(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	if st, err := r.Lstat("abs"); err != nil || st.Type() != sys.S_IFLNK {
		t.Error(st, err)
	}
	if st, err := r.Stat("abs"); err != nil || st.Type() != sys.S_IFREG {
		t.Error(st, err)
	}
}

func TestMkdirAll(t *testing.T) {
	r, host := setup(t)
	for _, c := range []struct{ name, made string }{
		{"a/b/c", "a/b/c"}, {"/var/run/app", "run/app"}, {"bin/x", "usr/bin/x"}, {"var/rel/y", "run/x/y"},
		{"out/z", "secret/z"}, {"/", "."},
	} {
		f, err := r.MkdirAll(c.name, Dir{Mode: 0o750})
		if err != nil {
			t.Errorf("MkdirAll(%q): %v", c.name, err)
			continue
		}
		f.Close()
		if st, err := os.Lstat(filepath.Join(host, "root", c.made)); err != nil || !st.IsDir() {
			t.Errorf("MkdirAll(%q) did not make %q: %v", c.name, c.made, err)
		}
	}
	for _, name := range []string{"etc/passwd", "etc/passwd/x", "loop/x"} {
		if f, err := r.MkdirAll(name, Dir{}); err == nil {
			f.Close()
			t.Errorf("MkdirAll(%q) succeeds", name)
		}
	}
	if left, _ := os.ReadDir(host); len(left) != 2 {
		t.Errorf("made outside: %v", left)
	}
}

package launch

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// put writes a file below dir and returns its path.
func put(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	first := put(t, dir, "bin1/tool", "#!/bin/sh\n", 0o755)
	second := put(t, dir, "bin2/tool", "#!/bin/sh\n", 0o755)
	plain := put(t, dir, "bin1/plain", "#!/bin/sh\n", 0o644)
	hidden := put(t, dir, "bin2/plain", "#!/bin/sh\n", 0o755)
	work := put(t, dir, "work/sub/mine", "#!/bin/sh\n", 0o755)
	path := "PATH=" + dir + "/bin1:" + dir + "/bin2"
	for _, c := range []struct {
		what, name string
		env        []string
		dir, want  string
		err        string
	}{
		{"absolute", second, []string{path}, "/", second, ""},
		{"absolute, missing", dir + "/none", nil, "/", "", "No such file or directory"},
		{"the first in PATH", "tool", []string{path}, "/", first, ""},
		{"the last PATH of the environment", "tool", []string{path, "PATH=" + dir + "/bin2"}, "/", second, ""},
		{"what cannot be executed is passed over", "plain", []string{path}, "/", hidden, ""},
		{"not executable", plain, nil, "/", "", "is not executable"},
		{"a directory", dir + "/bin1", nil, "/", "", "is not a regular file"},
		{"relative to the working directory", "sub/mine", []string{path}, dir + "/work", work, ""},
		{"relative with dots", "./sub/../sub/mine", nil, dir + "/work", work, ""},
		{"relative entries of PATH", "mine", []string{"PATH=none:sub"}, dir + "/work", work, ""},
		{"without PATH, the working directory", "mine", nil, dir + "/work/sub", work, ""},
		{"not in PATH", "none", []string{path}, "/", "", `"none": not found in PATH`},
		{"empty PATH is the working directory", "mine", []string{"PATH="}, dir + "/work/sub", work, ""},
	} {
		got, err := lookup(c.name, c.env, c.dir)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s: lookup(%q) = %q, %v, want %q", c.what, c.name, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: lookup(%q) = %q, %v, want an error with %q", c.what, c.name, got, err, c.err)
		}
	}
}

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	script := func(name, interp string) string { return put(t, dir, name, "#!"+interp+"\necho\n", 0o755) }
	loop := filepath.Join(dir, "loop")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, file string
		cause      error
		want       string
	}{
		{"missing", dir + "/none", unix.ENOENT, `Error: Unable to open "` + dir + `/none": No such file or directory`},
		{"missing interpreter", script("a", dir+"/nosh -e"), unix.ENOENT, `Error: Unable to open "` + dir + `/nosh": No such file or directory`},
		{"chain", script("b", script("c", dir+"/nosh")), unix.ENOENT, dir + "/nosh"},
		{"relative interpreter", script("d", "sh"), unix.ENOENT, `Error: Path must be absolute: "sh", the interpreter of`},
		{"no interpreter", script("e", "  "), unix.ENOEXEC, "Unable to determine interpreter"},
		{"shebang too long", put(t, dir, "f", "#!"+strings.Repeat("/x", 300), 0o755), unix.ENOEXEC, "Shebang line too long"},
		{"recursion", script("loop", loop), unix.ELOOP, "Excessive interpreter recursion, giving up"},
		{"neither", put(t, dir, "g", "hello", 0o755), unix.ENOEXEC, "Unsupported file type"},
		{"empty", put(t, dir, "h", "", 0o755), unix.ENOEXEC, "Unsupported file type"},
		{"broken ELF", put(t, dir, "i", "\x7fELF and no more", 0o755), unix.ENOEXEC, "Unable to determine interpreter"},
		{"a program that only the kernel refuses", self, unix.EACCES, `Unable to run "` + self + `": Permission denied`},
		{"argument list", self, unix.E2BIG, "argument list too long"},
	} {
		got := explain(c.file, c.cause)
		if got == nil || !strings.Contains(got.Error(), c.want) || !strings.HasPrefix(got.Error(), "Error: ") {
			t.Errorf("%s: %v, want %q", c.what, got, c.want)
		}
	}
}

// FuzzInterpreter: the head of any file of an image.
func FuzzInterpreter(f *testing.F) {
	for _, s := range []string{"#!/bin/sh\n", "#!", "\x7fELF", "\x7fELF\x02\x01\x01", "", "#! \t\n"} {
		f.Add([]byte(s))
	}
	if self, err := os.Executable(); err == nil {
		if b, err := os.ReadFile(self); err == nil {
			f.Add(b[:min(len(b), 4096)])
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(dir, "x")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		next, err := interpreter(h)
		if err != nil && next != "" {
			t.Errorf("both an interpreter %q and an error %v", next, err)
		}
	})
}

func TestSetEnv(t *testing.T) {
	env := []string{"A=1", "B=2"}
	env = SetEnv(env, "A=3=4")
	env = SetEnv(env, "C=")
	if want := []string{"A=3=4", "B=2", "C="}; !slices.Equal(env, want) {
		t.Errorf("%q, want %q", env, want)
	}
}

func TestCapabilityNames(t *testing.T) {
	if got := CapNames(AllCaps); len(got) != len(capNames) || got[21] != "CAP_SYS_ADMIN" || got[40] != "CAP_CHECKPOINT_RESTORE" {
		t.Errorf("CapNames(AllCaps) = %v", got)
	}
	for i, n := range capNames {
		if b, ok := CapByName(n); !ok || b != 1<<i {
			t.Errorf("CapByName(%q) = %#x, %t", n, b, ok)
		}
	}
	if _, ok := CapByName("cap_kill"); ok {
		t.Error("lower case is taken")
	}
	if DefaultCaps()&^AllCaps != 0 || slices.Contains(CapNames(DefaultCaps()), "CAP_SYS_ADMIN") {
		t.Errorf("default capabilities: %v", CapNames(DefaultCaps()))
	}
}

// TestSpecJSON: every field survives, byte for byte.
func TestSpecJSON(t *testing.T) {
	s := Spec{Name: "a", Root: "/r", Exec: []string{"/x", "", "a\nb", "%$\\\"<&>", "\x00"}, Dir: "/", Env: []string{"A=\u2028"}, UID: 1<<32 - 2,
		Caps: AllCaps, Binds: []Bind{{Source: "/a", Target: "/b", IfAbsent: true}}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got Spec
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Exec, s.Exec) || !slices.Equal(got.Env, s.Env) || got.UID != s.UID || got.Caps != s.Caps || got.Binds[0] != s.Binds[0] {
		t.Errorf("%+v, want %+v", got, s)
	}
}

func TestErrorStatus(t *testing.T) {
	err := chdir(filepath.Join(t.TempDir(), "none"))
	var e *Error
	if !errors.As(err, &e) || e.Status != ExitChdir || !errors.Is(err, unix.ENOENT) {
		t.Errorf("chdir to nowhere: %v", err)
	}
	if _, err := notifySocket(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "notification socket") {
		t.Errorf("no notification socket: %v", err)
	}
	if fd, err := notifySocket(""); fd != -1 || err != nil {
		t.Errorf("notifySocket of nothing = %d, %v", fd, err)
	}
}

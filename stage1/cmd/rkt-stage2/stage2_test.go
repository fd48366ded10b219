package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		result, code, status string
		want                 int
	}{
		{"success", "exited", "0", 0},
		// SIGTERM at a stop counts as success for systemd
		{"success", "killed", "TERM", 0},
		{"exit-code", "exited", "1", 1},
		{"exit-code", "exited", "42", 42},
		{"exit-code", "exited", "255", 255},
		{"signal", "killed", "KILL", 9},
		{"signal", "killed", "TERM", 15},
		{"core-dump", "dumped", "SEGV", 11},
		{"core-dump", "dumped", "ABRT", 6},
		{"signal", "killed", "64", 64}, // a real-time signal has a number
		{"signal", "killed", "RTMIN+3", 1},
		{"timeout", "killed", "KILL", 9},
		{"protocol", "exited", "0", 1},
		{"exit-code", "exited", "", 1},
		{"exit-code", "exited", "-1", 1},
		{"resources", "", "", 1},
		{"", "", "", 1},
	} {
		if got := exitStatus(c.result, c.code, c.status); got != c.want {
			t.Errorf("exitStatus(%q, %q, %q) = %d, want %d", c.result, c.code, c.status, got, c.want)
		}
	}
}

func TestSplitCommand(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       []string
	}{
		{"plain", `/bin/ls -l /`, []string{"/bin/ls", "-l", "/"}},
		{"spaces", `  /bin/ls   -l  `, []string{"/bin/ls", "-l"}},
		{"quotes", `"/bin/echo" "a b" 'c d' ""`, []string{"/bin/echo", "a b", "c d", ""}},
		{"inner quote", `/bin/echo "say \"hi\"" "it's"`, []string{"/bin/echo", `say "hi"`, "it's"}},
		{"C escapes", `/bin/echo "a\nb\tc\\d"`, []string{"/bin/echo", "a\nb\tc\\d"}},
		{"hex escape", `/bin/echo a\x20b "\x22"`, []string{"/bin/echo", "a b", `"`}},
		{"escaped space", `/bin/echo a\sb`, []string{"/bin/echo", "a b"}},
		{"octal escape", `/bin/echo "\101"`, []string{"/bin/echo", "A"}},
		{"unicode", `/bin/echo "gr\u00fcn" ü`, []string{"/bin/echo", "grün", "ü"}},
		// argv[0] apart from the program: systemd keeps it, we need the program
		{"argv0", `@"/bin/sh" "-sh" "-c" "exit 3"`, []string{"/bin/sh", "-c", "exit 3"}},
		{"argv0 alone", `@"/bin/sh" "sh"`, []string{"/bin/sh"}},
		{"prefixes", `-/bin/false`, []string{"/bin/false"}},
		{"many prefixes", `@-:/bin/sh sh -c x`, []string{"/bin/sh", "-c", "x"}},
		{"dollar", `/bin/echo "$$HOME" "$$$$"`, []string{"/bin/echo", "$HOME", "$$"}},
		{"dollar, no expansion asked for", `:/bin/echo "$$HOME"`, []string{"/bin/echo", "$$HOME"}},
		{"percent", `/bin/echo "%%i" "100%%"`, []string{"/bin/echo", "%i", "100%"}},
		// systemd 252 also escapes what shells treat specially
		{"252", `@"/bin/sh" "sh" "-c" "echo \$\$HOME\; \"x\" \| cat \<in \>out \&\& \(a\)"`,
			[]string{"/bin/sh", "-c", `echo $HOME; "x" | cat <in >out && (a)`}},
		{"252 backtick", "@\"/bin/sh\" \"sh\" \"-c\" \"\\`id\\` \\!x \\*\\?\\~\\#\"", []string{"/bin/sh", "-c", "`id` !x *?~#"}},
		{"257", `@"/bin/sh" "sh" "-c" "echo $$HOME; \"x\" | cat"`, []string{"/bin/sh", "-c", `echo $HOME; "x" | cat`}},
		{"machined's own script", `@/bin/sh "sh" "-c" "shell=\$\$(getent passwd root 2>/dev/null | { IFS=: read _ _ _ _ _ _ x\; echo \"\$\$x\"\; })\; exec \"\$\${shell:-/bin/sh}\" -l"`,
			[]string{"/bin/sh", "-c", `shell=$(getent passwd root 2>/dev/null | { IFS=: read _ _ _ _ _ _ x; echo "$x"; }); exec "${shell:-/bin/sh}" -l`}},
	} {
		got, err := splitCommand(c.line)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: splitCommand(%q) = %q, %v, want %q", c.name, c.line, got, err, c.want)
		}
	}
	for _, bad := range []string{`/bin/echo "open`, `/bin/echo 'open`, `/bin/echo \q`, `/bin/echo "a\`, `/bin/echo \x2`} {
		if got, err := splitCommand(bad); err == nil {
			t.Errorf("splitCommand(%q) = %q, want an error", bad, got)
		}
	}
	if got, err := splitCommand(""); err != nil || len(got) != 0 {
		t.Errorf("splitCommand of nothing = %q, %v", got, err)
	}
}

func TestMachinedDefault(t *testing.T) {
	for _, c := range []struct {
		argv []string
		want bool
	}{
		{[]string{"/bin/sh", "-c", `shell=$(getent passwd 0 …)`}, true},
		{[]string{"/bin/sh", "-c", "echo x"}, false},
		{[]string{"/bin/sh"}, false},
		{nil, false},
	} {
		if got := machinedDefault(c.argv); got != c.want {
			t.Errorf("machinedDefault(%q) = %t", c.argv, got)
		}
	}
}

func FuzzSplitCommand(f *testing.F) {
	for _, s := range []string{`@"/bin/sh" "sh" "-c" "a \$\$b\; \x20"`, `-:/x 'a' "b`, `\`, `"\`, `"\xff"`, `'\''`, `@@@`, `\u12345678`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := splitCommand(s)
		if err != nil {
			return
		}
		n := 0
		for _, w := range words {
			n += len(w)
		}
		// an escape may name a character of more bytes than it has itself (\uffff: 6 for 3), never the other way
		if n > 2*len(s) {
			t.Errorf("%d bytes of words out of %d bytes: %q", n, len(s), words)
		}
	})
}

// withStdio runs f with text as standard input and returns what it printed.
func withStdio(t *testing.T, text string, f func()) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	oldIn, oldOut := os.Stdin, os.Stdout
	os.Stdin, os.Stdout = in, out
	defer func() { os.Stdin, os.Stdout = oldIn, oldOut }()
	f()
	b, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestChoose(t *testing.T) {
	apps := []string{"web", "db", "3"}
	for _, c := range []struct {
		typed, want, says string
	}{
		{"\n", "web", "1  web"},
		{"2\n", "db", "2  db"},
		{"db\n", "db", ""},
		{" web \n", "web", ""},
		{"3\n", "3", ""},
		{"4\nnone\n0\n2\n", "db", `"none" is none of them`},
	} {
		var got string
		var err error
		out := withStdio(t, c.typed, func() { got, err = choose(apps) })
		if err != nil || got != c.want {
			t.Errorf("typed %q: %q, %v, want %q", c.typed, got, err, c.want)
		}
		if !strings.Contains(out, c.says) || !strings.Contains(out, "rkt enter --app=NAME POD") {
			t.Errorf("typed %q: printed %q, want %q in it", c.typed, out, c.says)
		}
	}
	withStdio(t, "x", func() {
		if got, err := choose(apps); err == nil {
			t.Errorf("end of input: %q, want an error", got)
		}
	})
}

func TestImageFiles(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &launch.Spec{Root: root}
	if got := shellFor(s, 0); got != "/bin/sh" {
		t.Errorf("an empty image: shell %q", got)
	}
	if got := homeOf(s, 0); got != "/" {
		t.Errorf("an empty image: home %q", got)
	}
	put("bin/bash", "")
	if got := shellFor(s, 0); got != "/bin/bash" {
		t.Errorf("an image with bash: shell %q", got)
	}
	put("etc/passwd", "daemon:x:1:1::/:/bin/x\nroot:x:0:0:root:/root/../home/r:/bin/zsh\n")
	if got := shellFor(s, 0); got != "/bin/bash" {
		t.Errorf("the passwd shell is missing: shell %q", got)
	}
	put("bin/zsh", "")
	if got := shellFor(s, 0); got != "/bin/zsh" {
		t.Errorf("shell %q, want that of passwd", got)
	}
	put("home/r/x", "")
	put("root/x", "")
	if got := homeOf(s, 0); got != "/home/r" {
		t.Errorf("home %q", got)
	}
	// A hostile image: links out of the root, a fifo, a huge file.
	if err := os.Remove(filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/self/cwd/../../../../../etc/passwd", filepath.Join(root, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if got := launch.PasswdEntry(root, 0); got != nil {
		t.Errorf("a link out of the image is followed: %q", got)
	}
	if launch.Exists(root, "/etc/passwd") {
		t.Error("a file behind a link out of the image exists")
	}
}

func TestTransientCommandRefusesPaths(t *testing.T) {
	for _, n := range []string{"../x", "a/b", "a\x00"} {
		if got, _, err := transientCommand(n); err == nil || !strings.Contains(err.Error(), "not a unit name") {
			t.Errorf("transientCommand(%q) = %q, %v", n, got, err)
		}
	}
}

func TestUsage(t *testing.T) {
	for name, err := range map[string]error{"init": initPod(nil), "app": runApp(nil), "handler": runHandler([]string{"a"}), "exited": exited(nil),
		"enter": enter([]string{"a"})} {
		if err == nil || !strings.HasPrefix(err.Error(), "usage: rkt-stage2 "+name) {
			t.Errorf("%s without arguments: %v", name, err)
		}
	}
}

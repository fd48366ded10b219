package generator_test

import (
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/generator"
	"github.com/rkt-systemd/rkt/internal/msgid"
	"github.com/rkt-systemd/rkt/internal/podunit"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

var update = flag.Bool("update", false, "rewrite the expected trees")

// run runs the generator in process and returns what it logged.
func run(root, out string) []string {
	var log []string
	generator.Run(generator.Options{Output: out, Root: root, Log: func(m generator.Message) { log = append(log, m.Text) }})
	return log
}

// snapshot reads a tree: file contents, and "-> target" for links.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			got[rel] = "-> " + target
			return err
		}
		b, err := os.ReadFile(path)
		got[rel] = string(b)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return got
}

// TestGolden compares testdata/CASE/in with the tree testdata/CASE/want, in
// which links are files "-> TARGET" and the log is the file "log".
func TestGolden(t *testing.T) {
	cases, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if c.Name() == "fuzz" {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			out := t.TempDir()
			log := run(filepath.Join("testdata", c.Name(), "in"), out)
			got := snapshot(t, out)
			if len(log) > 0 {
				got["log"] = strings.Join(log, "\n") + "\n"
			}
			dir := filepath.Join("testdata", c.Name(), "want")
			if *update {
				writeTree(t, dir, got)
			}
			if d := cmp.Diff(snapshot(t, dir), got); d != "" {
				t.Error(d)
			}
			// Once more over the same output: nothing changes.
			run(filepath.Join("testdata", c.Name(), "in"), out)
			delete(got, "log")
			if d := cmp.Diff(got, snapshot(t, out)); d != "" {
				t.Errorf("second run: %s", d)
			}
		})
	}
}

func writeTree(t *testing.T, dir string, tree map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for name, text := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVerify lets systemd itself read what the generator made.
func TestVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	bin := filepath.Join(t.TempDir(), "rkt")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	template, err := os.ReadFile("../units/rkt@.service.in")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@bindir@/rkt", bin, "@statedir@", "/var/lib/rkt").Replace(string(template))
	for _, c := range []string{"minimal", "full", "broken", "dropins", "template-instances", "injection", "sockets", "timers", "paths", "profiles", "template-triggers", "install", "volumes", "refused"} {
		t.Run(c, func(t *testing.T) {
			out := t.TempDir()
			var log []string
			generator.Run(generator.Options{Output: out, Root: filepath.Join("testdata", c, "in"),
				Units: podunit.Options{Rkt: bin}, Log: func(m generator.Message) { log = append(log, m.Text) }})
			if err := os.WriteFile(filepath.Join(out, "rkt@.service"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			units := map[string]bool{}
			for name := range snapshot(t, out) {
				if top, _, _ := strings.Cut(name, "/"); strings.HasPrefix(top, "rkt") && top != "rkt@.service" {
					units[strings.TrimSuffix(top, ".d")] = true
				}
			}
			for u := range units {
				cmd := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", u)
				cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+out+":/lib/systemd/system:/usr/lib/systemd/system", "SYSTEMD_LOG_LEVEL=warning")
				b, err := cmd.CombinedOutput()
				if err != nil || strings.Contains(string(b), out) {
					t.Errorf("systemd-analyze verify %s: %v\n%s", u, err, b)
				}
			}
		})
	}
}

// TestUnreadable covers what cannot be kept in a git tree.
func TestUnreadable(t *testing.T) {
	root, out := t.TempDir(), t.TempDir()
	dir := filepath.Join(root, "etc/rkt/pods")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "huge.json"), make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a\nb.json"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	log := run(root, out)
	got := snapshot(t, out)
	for name, want := range map[string]string{"rkt@fifo.service": "not a regular file", "rkt@huge.service": "1 MiB"} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s is %q, want %q in it", name, got[name], want)
		}
	}
	if len(got) != 2 || len(log) != 3 {
		t.Errorf("output %v, log %q", got, log)
	}
	// A directory that cannot be written costs a line each.
	if log := run(root, "/proc/nowhere"); len(log) < 3 {
		t.Errorf("log %q", log)
	}
}

// TestByteLimit: however much the directories hold, a run ends soon, and pods
// beyond the limit say so.
func TestByteLimit(t *testing.T) {
	root, out := t.TempDir(), t.TempDir()
	dir := filepath.Join(root, "etc/rkt/pods")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := []byte("[" + strings.Repeat("[],", 1<<20/3-2) + "]")
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("p%02d.json", i)), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	run(root, out)
	t.Logf("took %v", time.Since(start))
	got := snapshot(t, out)
	if len(got) != 40 || !strings.Contains(got["rkt@p39.service"], "16 MiB in all") || strings.Contains(got["rkt@p00.service"], "16 MiB") {
		t.Errorf("%d units, the last is %s", len(got), got["rkt@p39.service"])
	}
}

// TestCommand runs the program as systemd does.
func TestCommand(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "rkt-generator")
	if b, err := exec.Command("go", "build", "-o", bin, "./cmd/rkt-generator").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	out := t.TempDir()
	cmd := exec.Command(bin, "--root=testdata/full/in", filepath.Join(out, "normal"), filepath.Join(out, "early"), filepath.Join(out, "late"))
	cmd.Env = []string{}
	if b, err := cmd.CombinedOutput(); err != nil || len(b) > 0 {
		t.Errorf("%v\n%s", err, b)
	}
	if d := cmp.Diff(snapshot(t, "testdata/full/want"), snapshot(t, filepath.Join(out, "normal"))); d != "" {
		t.Error(d)
	}
	for _, args := range [][]string{nil, {"--bad"}, {"--root=/nowhere", "/proc/x", "/proc/y", "/proc/z"}} {
		if b, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", args, err, b)
		}
	}
	// No more than 50 lines, whatever is wrong.
	root := t.TempDir()
	for i := range 70 {
		writeTree(t, filepath.Join(root, "etc/rkt/pods", fmt.Sprintf("p%d.json", i)), map[string]string{})
		_ = os.MkdirAll(filepath.Join(root, "etc/rkt/pods", fmt.Sprintf("p%d.json", i)), 0o755)
	}
	b, err := exec.Command(bin, "--root="+root, filepath.Join(out, "n2")).CombinedOutput()
	if n := strings.Count(string(b), "\n"); err != nil || n != 51 || !strings.Contains(string(b), "20 more messages") {
		t.Errorf("%d lines, %v\n%s", n, err, b)
	}
}

func FuzzGenerator(f *testing.F) {
	f.Add("web", `{"apps": [{"image": "a"}], "systemd": {"unit": {"A": "b"}, "install": {"WantedBy": "x.target"}}}`)
	f.Add("web@", `{"apps": [{"image": "%i"}], "systemd": {"install": {"DefaultInstance": "x"}}}`)
	f.Add("a\n", `{`)
	f.Fuzz(func(t *testing.T, name, text string) {
		if strings.ContainsAny(name, "/\x00") || len(name) > 200 {
			return
		}
		root, out := t.TempDir(), t.TempDir()
		dir := filepath.Join(root, "etc/rkt/pods")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o644); err != nil {
			return
		}
		for _, l := range run(root, out) {
			if strings.ContainsAny(l, "\n\x00") {
				t.Fatalf("log line %q", l)
			}
		}
		var starts []string
		for path, content := range snapshot(t, out) {
			if strings.HasPrefix(content, "-> ") {
				continue
			}
			sections, err := unitfile.Parse(content)
			if err != nil {
				t.Fatalf("%s: %v\n%s", path, err, content)
			}
			for _, s := range sections {
				for _, e := range s.Entries {
					if strings.HasPrefix(e.Key, "ExecStart") {
						starts = append(starts, e.Value)
					}
				}
			}
		}
		sort.Strings(starts)
		for _, s := range starts {
			if !strings.HasPrefix(s, "/usr/bin/rkt pod check --fail ") {
				t.Fatalf("a pod file made ExecStart=%s", s)
			}
		}
	})
}

func BenchmarkGenerator(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			root, err := os.MkdirTemp("/dev/shm", "rkt-generator")
			if err != nil {
				b.Skip(err)
			}
			defer os.RemoveAll(root)
			dir := filepath.Join(root, "etc/rkt/pods")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				b.Fatal(err)
			}
			text, err := os.ReadFile("testdata/full/in/etc/rkt/pods/web.json")
			if err != nil {
				b.Fatal(err)
			}
			for i := range n {
				name := fmt.Sprintf("p%d", i)
				t := strings.ReplaceAll(string(text), "site@web.service", "site@"+name+".service")
				if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(t), 0o644); err != nil {
					b.Fatal(err)
				}
			}
			i := 0
			for b.Loop() {
				i++
				if log := run(root, filepath.Join(root, fmt.Sprint("out", i))); len(log) > 0 {
					b.Fatal(log)
				}
			}
		})
	}
}

// TestConcurrent: 500 runs, many at a time, give the same bytes as one alone; those that
// share a directory do not get into each other's way.
func TestConcurrent(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "rkt-generator")
	if b, err := exec.Command("go", "build", "-o", bin, "./cmd/rkt-generator").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	// All trees of testdata as one, and enough pods for several workers.
	root := t.TempDir()
	cases, err := filepath.Glob("testdata/*/in")
	if err != nil || len(cases) < 24 {
		t.Fatalf("only %d trees, %v", len(cases), err)
	}
	for _, c := range cases {
		if err := os.CopyFS(filepath.Join(root, filepath.Base(filepath.Dir(c))), os.DirFS(c)); err != nil {
			t.Fatal(err)
		}
	}
	all := filepath.Join(root, "all")
	for i := range 100 {
		writeTree(t, filepath.Join(all, "etc/rkt/pods", fmt.Sprintf("p%d.json.d", i)), map[string]string{"10.json": `{"systemd": {"unit": {"After": "a.service"}}}`})
		text := fmt.Sprintf(`{"apps": [{"image": "a%d"}], "unknown": 1, "systemd": {"timer": {"OnBootSec": %d}, "install": {"WantedBy": "multi-user.target"}}}`, i, i)
		if i%10 == 0 {
			text = `{"apps": 7}`
		}
		if err := os.WriteFile(filepath.Join(all, "etc/rkt/pods", fmt.Sprintf("p%d.json", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	roots, err := filepath.Glob(root + "/*")
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		tree map[string]string
		log  string
	}
	generate := func(root, out string) outcome {
		cmd := exec.Command(bin, "--root="+root, out)
		cmd.Env = []string{}
		b, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, b)
		}
		return outcome{snapshot(t, out), string(b)}
	}
	want := map[string]outcome{}
	for _, r := range roots {
		want[r] = generate(r, t.TempDir())
	}
	shared := filepath.Join(t.TempDir(), "shared")
	var wg sync.WaitGroup
	slots := make(chan bool, 50)
	for i := range 500 {
		r := roots[i%len(roots)]
		out := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if i%5 == 0 {
			r, out = all, shared
		}
		slots <- true
		wg.Go(func() {
			defer func() { <-slots }()
			cmd := exec.Command(bin, "--root="+r, out)
			cmd.Env = []string{}
			b, err := cmd.CombinedOutput()
			if err != nil || string(b) != want[r].log {
				t.Errorf("%v\n%s", err, b)
			}
			if out == shared {
				return
			}
			if d := cmp.Diff(want[r].tree, snapshot(t, out)); d != "" {
				t.Errorf("%s: %s", r, d)
			}
		})
	}
	wg.Wait()
	if d := cmp.Diff(want[all].tree, snapshot(t, shared)); d != "" {
		t.Errorf("the shared directory: %s", d)
	}
}

// TestJournal: what is said to the journal, and to others when it is not there.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := generator.OpenLog(true, path)
	generator.Run(generator.Options{Output: t.TempDir(), Root: "testdata/unknown/in", Log: log.Print})
	generator.Run(generator.Options{Output: "/proc/nowhere", Root: "testdata/minimal/in", Log: log.Print})
	log.End()
	var got strings.Builder
	for range 3 {
		buf := make([]byte, 4096)
		if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(buf[:n])
	}
	for _, want := range []string{"MESSAGE=warning: /etc/rkt/pods/web.json:1:2: app: unknown key", "PRIORITY=4\n", "SYSLOG_IDENTIFIER=rkt-generator\n",
		"MESSAGE_ID=" + msgid.PodFileWarning + "\n", "RKT_POD_NAME=web\nRKT_FILE=/etc/rkt/pods/web.json\nRKT_LINE=1\n"} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("the journal got %s\nwant %s", got.String(), want)
		}
	}
}

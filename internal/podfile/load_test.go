package podfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// tree makes files below a new root; "-> x" makes a link.
func tree(t *testing.T, files map[string]string) SearchOptions {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return SearchOptions{Root: root}
}

const minimal = `{"apps": [{"image": "a"}]}`

func TestSearchPath(t *testing.T) {
	opts := tree(t, map[string]string{
		"etc/rkt/pods/web.json":              `{"apps": [{"image": "etc"}]}`,
		"usr/lib/rkt/pods/web.json":          `{"apps": [{"image": "usr"}]}`,
		"usr/lib/rkt/pods/web.json.d/1.json": `{"rkt": {"hostname": "vendor"}}`,
		"usr/lib/rkt/pods/web.json.d/2.json": `{"rkt": {"noOverlay": true}}`,
		"usr/lib/rkt/pods/web.json.d/3.json": `{"rkt": {"net": "host"}}`,
		"etc/rkt/pods/web.json.d/1.json":     `{"rkt": {"hostname": "local"}}`,
		"run/rkt/pods/web.json.d/3.json":     "-> /dev/null",
		"run/rkt/pods/web.json.d/ignored":    "{",
		"usr/lib/rkt/pods/masked.json":       minimal,
		"etc/rkt/pods/masked.json":           "",
		"usr/local/lib/rkt/pods/null.json":   "-> /dev/null",
		"run/rkt/pods/t@.json":               `{"apps": [{"image": "%i"}]}`,
		"run/rkt/pods/t@y.json":              "-> t@.json",
		"run/rkt/pods/abs.json":              "-> /usr/lib/rkt/pods/web.json",
		"run/rkt/pods/.hidden.json":          "{",
		"run/rkt/pods/bad name.json":         "{",
		"run/rkt/pods/README":                "x",
	})
	got, err := List(opts)
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{Name: "abs", Path: "/run/rkt/pods/abs.json"},
		{Name: "bad name", Path: "/run/rkt/pods/bad name.json", Bad: `pod name "bad name" may only have letters, digits and "-_."`},
		{Name: "masked", Path: "/etc/rkt/pods/masked.json", Masked: true},
		{Name: "null", Path: "/usr/local/lib/rkt/pods/null.json", Masked: true},
		{Name: "t@", Path: "/run/rkt/pods/t@.json", Template: true},
		{Name: "t@y", Path: "/run/rkt/pods/t@y.json"},
		{Name: "web", Path: "/etc/rkt/pods/web.json"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	p, ps := Load(opts, "web")
	if len(ps) > 0 {
		t.Fatal(lines(ps))
	}
	if d := cmp.Diff(Options{Hostname: "local", NoOverlay: true}, p.Rkt); d != "" {
		t.Error(d)
	}
	if p.Apps[0].Image.Ref != "etc" {
		t.Errorf("read %v", p.Apps[0].Image)
	}
	wantFiles := []string{"/etc/rkt/pods/web.json", "/etc/rkt/pods/web.json.d/1.json", "/usr/lib/rkt/pods/web.json.d/2.json"}
	if d := cmp.Diff(wantFiles, p.Files); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]string{"t@x": "x", "t@y": "y", "abs": "usr"} {
		if p, ps := Load(opts, name); len(ps) > 0 || p.Apps[0].Image.Ref != want {
			t.Errorf("Load(%q) = %v, %s", name, p, lines(ps))
		}
	}
	if _, ps := Load(opts, "masked"); !IsMasked(ps) {
		t.Error(lines(ps))
	}
	if _, ps := Load(opts, "nobody"); !IsNotFound(ps) {
		t.Error(lines(ps))
	}
	if _, ps := Load(opts, "../web"); !Failed(ps) {
		t.Error("a path was taken for a name")
	}
}

func TestInstances(t *testing.T) {
	opts := tree(t, map[string]string{
		"etc/rkt/pods/t@.json":               minimal,
		"etc/rkt/pods/t@.json.d/1.json":      "{}",
		"etc/rkt/pods/t@b.json.d/1.json":     "{}",
		"run/rkt/pods/t@b.json.d/2.json":     "{}",
		"run/rkt/pods/t@a.json.d/1.json":     "{}",
		"run/rkt/pods/t@a@b.json.d/1.json":   "{}",
		"run/rkt/pods/t@a b.json.d/1.json":   "{}",
		"run/rkt/pods/tt@c.json.d/1.json":    "{}",
		"run/rkt/pods/plain.json.d/1.json":   "{}",
		"run/rkt/pods/@nobody.json.d/1.json": "{}",
	})
	x, err := Scan(opts)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"t@a", "t@b"}, x.Instances("t@")); d != "" {
		t.Error(d)
	}
	if got := x.Instances("nobody@"); got != nil {
		t.Error(got)
	}
	// Looking at all of them for each template would take minutes.
	const many = 50000
	for i := range many {
		x.addDropIns(fmt.Sprintf("many%d@x", i), "/x")
	}
	for i := range many {
		if got := x.Instances(fmt.Sprintf("many%d@", i)); len(got) != 1 {
			t.Fatal(got)
		}
	}
}

func TestHostileFiles(t *testing.T) {
	opts := tree(t, map[string]string{
		"etc/rkt/pods/loop.json":  "-> loop.json",
		"etc/rkt/pods/gone.json":  "-> nowhere",
		"etc/rkt/pods/zero.json":  "-> /dev/zero",
		"etc/rkt/pods/large.json": strings.Repeat(" ", jsonpos.MaxSize+1),
		"etc/rkt/pods/ok.json":    minimal,
		"etc/rkt/pods/f.json.d/x": "",
	})
	dir := filepath.Join(opts.Root, "etc/rkt/pods")
	for _, err := range []error{
		syscall.Mkfifo(filepath.Join(dir, "fifo.json"), 0o644),
		os.Mkdir(filepath.Join(dir, "dir.json"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"loop": "too many levels of symbolic links", "gone": "no such file or directory", "zero": "no such file",
		"large": "larger than the allowed 1 MiB", "fifo": "not a regular file", "dir": "not a regular file",
	} {
		p, ps := Load(opts, name)
		if p != nil || len(ps) != 1 || !strings.Contains(lines(ps), want) {
			t.Errorf("Load(%q) = %v, %q, want %q", name, p, lines(ps), want)
		}
	}
	if _, ps := Load(SearchOptions{Dirs: []string{dir, "/dev/null"}}, "ok"); Failed(ps) {
		t.Error(lines(ps))
	}
}

func BenchmarkParse(b *testing.B) {
	var apps []string
	for i := range 3 {
		apps = append(apps, fmt.Sprintf(`{"name": "app%d", "image": "docker://docker.io/library/redis:7", "environment": {"A": "b", "C": "d"},
			"mounts": ["volume=data,target=/data"]}`, i))
	}
	data := []byte(`{"apps": [` + strings.Join(apps, ",\n") + `], "volumes": ["data,kind=host,source=/srv"],
		"systemd": {"service": {"MemoryMax": "1G"}, "install": {"WantedBy": "multi-user.target"}}, "rkt": {"net": "host"}}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ps := Parse("web", []File{{"/etc/rkt/pods/web.json", data}}); len(ps) > 0 {
			b.Fatal(ps)
		}
	}
}

package podset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfile"
)

func places(t *testing.T) (Places, string) {
	root := t.TempDir()
	p := Places{Pods: filepath.Join(root, "etc/rkt/pods"), Sets: filepath.Join(root, "sets"), LockFile: filepath.Join(root, "run/rkt/apply.lock")}
	l, err := p.Lock(t.Context(), func() { t.Error("nobody has the lock") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return p, root
}

// tree is every file below the directory of pod files.
func tree(t *testing.T, p Places) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(p.Pods, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(p.Pods, path)
		st, _ := d.Info()
		out[rel] = string(b) + " " + st.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCommit(t *testing.T) {
	p, _ := places(t)
	if err := os.WriteFile(filepath.Join(p.Pods, "mine.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	set := Set{Name: "/srv/pods", Files: []string{"a.json", "a.json.d/x.json", "b.json"}, Pending: []Action{{"start", "rkt@a.service"}}}
	if err := p.Commit(set, map[string]File{"a.json": {[]byte("1"), 0o600}, "a.json.d/x.json": {[]byte("2"), 0o644}, "b.json": {[]byte("3"), 0o644}}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"mine.json": "{} -rw-r--r--", "a.json": "1 -rw-------", "a.json.d/x.json": "2 -rw-r--r--", "b.json": "3 -rw-r--r--"}
	if d := cmp.Diff(want, tree(t, p)); d != "" {
		t.Error(d)
	}
	sets, err := p.ReadSets()
	if d := cmp.Diff([]Set{set}, sets); d != "" || err != nil {
		t.Error(d, err)
	}
	set.Files, set.Pending = []string{"b.json"}, nil
	if err := p.Commit(set, map[string]File{"a.json": {}, "a.json.d/x.json": {}, "b.json": {[]byte("4"), 0o644}}); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{"mine.json": "{} -rw-r--r--", "b.json": "4 -rw-r--r--"}
	if d := cmp.Diff(want, tree(t, p)); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(filepath.Join(p.Pods, "a.json.d")); err == nil {
		t.Error("an empty directory of drop-ins stays")
	}
	if done, err := p.Finish(); done || err != nil {
		t.Errorf("something is left to do: %v, %v", done, err)
	}
}

// A transaction is cut off after its first step, or after the file that makes
// it count: readers see the old set or the new one, and the next one finishes.
func TestInterrupted(t *testing.T) {
	p, root := places(t)
	const one, two = `{"apps":[{"image":"example.com/one"}]}`, `{"apps":[{"image":"example.com/two"}]}`
	if err := p.Commit(Set{Name: "s", Files: []string{"a.json", "b.json"}}, map[string]File{"a.json": {[]byte(one), 0o644}, "b.json": {[]byte(one), 0o644}}); err != nil {
		t.Fatal(err)
	}
	seen := func() string {
		x, err := podfile.Scan(podfile.SearchOptions{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, name := range []string{"a", "b", "c"} {
			switch f, problems := x.Load(name); {
			case f != nil:
				out += name + "=" + f.Apps[0].Image.Ref + " "
			case !podfile.IsNotFound(problems) && !podfile.IsMasked(problems):
				t.Error(problems)
			}
		}
		return out
	}
	const before, after = "a=example.com/one b=example.com/one ", "b=example.com/two c=example.com/two "
	files := map[string]File{"a.json": {}, "b.json": {[]byte(two), 0o644}, "c.json": {[]byte(two), 0o644}}
	stage := func() {
		fresh := p.pending() + ".new"
		if err := os.MkdirAll(fresh, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Stage(fresh, files); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(filepath.Join(fresh, planFile), plan{Set: Set{Name: "s", Files: []string{"b.json", "c.json"}}, Removed: []string{"a.json"}}); err != nil {
			t.Fatal(err)
		}
	}
	stage()
	if got := seen(); got != before {
		t.Errorf("staged: %s", got)
	}
	if err := os.Rename(p.pending()+".new", p.pending()); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got != after {
		t.Errorf("committed: %s", got)
	}
	// one file is in its place already
	if err := p.place(filepath.Join(p.pending(), "c.json"), "c.json"); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got != after {
		t.Errorf("half in place: %s", got)
	}
	if b, err := p.Read("a.json"); b != nil || err != nil {
		t.Errorf("a file that is being removed: %q, %v", b, err)
	}
	if done, err := p.Finish(); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	if got := seen(); got != after {
		t.Errorf("finished: %s", got)
	}
	if got := tree(t, p); len(got) != 2 {
		t.Errorf("left: %v", got)
	}
	if sets, err := p.ReadSets(); err != nil || len(sets) != 1 || len(sets[0].Files) != 2 {
		t.Errorf("%v, %v", sets, err)
	}
}

// What any user can lock keeps nobody waiting, and a wait ends with its context.
func TestLock(t *testing.T) {
	root := t.TempDir()
	p := Places{Pods: filepath.Join(root, "etc/rkt/pods"), Sets: filepath.Join(root, "sets"), LockFile: filepath.Join(root, "run/rkt/apply.lock")}
	if err := os.MkdirAll(p.Pods, 0o755); err != nil {
		t.Fatal(err)
	}
	user, err := lock.TryDir(p.Pods, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	waited := 0
	take := func(ctx context.Context) (*os.File, error) { return p.Lock(ctx, func() { waited++ }) }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	first, err := take(ctx)
	if err != nil || waited != 0 {
		t.Fatalf("%v, waited %d times", err, waited)
	}
	if st, err := os.Stat(p.LockFile); err != nil || st.Mode() != 0o600 {
		t.Errorf("the lock file: %v, %v", st.Mode(), err)
	}
	if names, err := os.ReadDir(p.Pods); err != nil || len(names) != 0 {
		t.Errorf("among the pod files: %v, %v", names, err)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := take(ended); !errors.Is(err, context.Canceled) || waited != 1 {
		t.Errorf("%v, waited %d times", err, waited)
	}
	second := make(chan error)
	go func() {
		l, err := take(ctx)
		if err == nil {
			err = l.Close()
		}
		second <- err
	}()
	first.Close()
	if err := <-second; err != nil {
		t.Error(err)
	}
	// The directory of pod files cannot be made.
	p.Pods = filepath.Join(p.LockFile, "pods")
	if _, err := take(ctx); err == nil {
		t.Error("a directory in a file")
	}
}

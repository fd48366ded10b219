package pod

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// open makes an empty data directory.
func open(t *testing.T) *Pods {
	t.Helper()
	p := Open(t.TempDir())
	if err := p.MkDirs(); err != nil {
		t.Fatal(err)
	}
	return p
}

// fake makes a pod directory in a phase, with files given as name, content pairs.
func fake(t *testing.T, p *Pods, phase, uuid string, files ...string) string {
	t.Helper()
	dir := p.path(phase, uuid)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// hold locks a directory until the test ends.
func hold(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := lock.TryDir(dir, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func state(t *testing.T, p *Pods, id string) State {
	t.Helper()
	d, err := p.Get(id)
	if errors.Is(err, ErrNotFound) {
		return Gone
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return d.State
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		phase                    string
		locked                   bool
		want                     State
		afterRun, finished, runs bool
	}{
		{podfs.Embryo, false, Embryo, false, false, false},
		{podfs.Embryo, true, Embryo, false, false, false},
		{podfs.Prepare, true, Preparing, false, false, false},
		{podfs.Prepare, false, AbortedPrepare, false, true, false},
		{podfs.Prepared, false, Prepared, false, false, false},
		{podfs.Prepared, true, Prepared, false, false, false},
		{podfs.Run, true, Running, false, false, true},
		{podfs.Run, false, Exited, true, true, true},
		{podfs.ExitedGarbage, false, ExitedGarbage, true, true, true},
		{podfs.ExitedGarbage, true, ExitedDeleting, true, true, true},
		{podfs.Garbage, false, Garbage, true, true, false},
		{podfs.Garbage, true, Deleting, true, true, false},
		{"elsewhere", false, Gone, false, true, false},
	} {
		got := stateOf(c.phase, c.locked)
		if got != c.want || got.AfterRun() != c.afterRun || got.Finished() != c.finished || got.Ran() != c.runs {
			t.Errorf("stateOf(%s, %t) = %s (after run %t, finished %t, ran %t), want %s", c.phase, c.locked, got, got.AfterRun(), got.Finished(), got.Ran(), c.want)
		}
		if c.want == Gone {
			continue
		}
		// the same on disk
		p := open(t)
		id := NewUUID()
		dir := fake(t, p, c.phase, id)
		if c.locked {
			hold(t, dir)
		}
		if got := state(t, p, id); got != c.want {
			t.Errorf("a pod in %s (locked: %t) is %s, want %s", c.phase, c.locked, got, c.want)
		}
	}
}

// TestLifeCycle: check list: pod-lifecycle 1
func TestLifeCycle(t *testing.T) {
	p := Open(filepath.Join(t.TempDir(), "not", "there", "yet"))
	id := NewUUID()
	h, err := p.Create(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := state(t, p, id); got != Preparing {
		t.Errorf("created: %s", got)
	}
	if _, err := p.Create(id); err != nil {
		// the embryo directory is free again; the move must not replace the pod
		t.Logf("second Create: %v", err)
	} else {
		t.Error("a pod was created over another")
	}
	if got := state(t, p, id); got != Preparing && got != Embryo {
		t.Errorf("after a second Create: %s", got)
	}
	if err := h.ToPrepared(); err != nil {
		t.Fatal(err)
	}
	d, err := p.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.phase != podfs.Prepared && d.phase != podfs.Embryo {
		t.Errorf("prepared: %s", d.State)
	}
	r, err := p.TakePrepared(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.TakePrepared(id); !errors.Is(err, ErrState) {
		t.Errorf("taken twice: %v", err)
	}
	if err := r.ToRun(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Dir()); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestCreateRefusesNames(t *testing.T) {
	p := open(t)
	for _, id := range []string{"", "x", "../../../tmp/xxxxxxxxxxxxxxxxxxxxxxxxxxx", strings.ToUpper(NewUUID()) + "F", NewUUID() + "\n"} {
		if h, err := p.Create(id); err == nil {
			h.Close()
			t.Errorf("Create(%q) works", id)
		}
	}
}

// TestTakePreparedRace: of many at the same moment one gets the pod.
//
// check list: pod-lifecycle 9
func TestTakePreparedRace(t *testing.T) {
	p := open(t)
	for range 20 {
		id := NewUUID()
		fake(t, p, podfs.Prepared, id)
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		start := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				<-start
				h, err := p.TakePrepared(id)
				if err == nil {
					err = h.ToRun()
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
					t.Cleanup(func() { h.Close() })
				} else if !errors.Is(err, ErrState) {
					t.Errorf("a loser gets %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won != 1 {
			t.Fatalf("%d winners", won)
		}
		if got := state(t, p, id); got != Running {
			t.Fatalf("the pod is %s", got)
		}
	}
}

// TestGetWhileMoving: a pod that moves through its life is found at every
// look, in states that only go forward.
func TestGetWhileMoving(t *testing.T) {
	p := open(t)
	order := []State{Preparing, AbortedPrepare, Prepared, Running, Exited, ExitedGarbage, ExitedDeleting}
	for range 30 {
		id := NewUUID()
		h, err := p.Create(id)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			err := h.move(podfs.Prepared)
			if err == nil {
				err = h.ToRun()
			}
			h.Close()
			if err == nil {
				err = os.Rename(p.path(podfs.Run, id), p.path(podfs.ExitedGarbage, id))
			}
			done <- err
		}()
		last := 0
		for moving := true; moving; {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				moving = false
			default:
			}
			d, err := p.Get(id)
			if err != nil {
				t.Fatalf("a pod that exists is not found: %v", err)
			}
			d.Close()
			n := slices.Index(order, d.State)
			if n < last {
				t.Fatalf("%s after %s", d.State, order[last])
			}
			last = n
		}
	}
}

func TestResolve(t *testing.T) {
	p := open(t)
	const a, b, c = "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69", "6f1c2b3a-ffff-4c5b-8a7f-1e2d3c4b5a69", "aaaaaaaa-0000-4000-8000-000000000000"
	fake(t, p, podfs.Run, a)
	fake(t, p, podfs.ExitedGarbage, b)
	fake(t, p, podfs.Garbage, c) // nobody can name it any more
	for _, q := range []struct{ prefix, want, err string }{
		{a, a, ""}, {"6f1c2b3a-0", a, ""}, {"6F1C2B3A-FFFF", b, ""}, {strings.ToUpper(a), a, ""},
		{"6f1c", "", `ambiguous UUID "6f1c": 2 matches`}, {"7", "", `no matches found for "7"`},
		{"", "", "UUID cannot be empty"}, {c, "", "no matches found"}, {"../run", "", "no matches found"}, {"*", "", "no matches found"},
	} {
		got, err := p.Resolve(q.prefix)
		if got != q.want || (err == nil) != (q.err == "") || err != nil && !strings.Contains(err.Error(), q.err) {
			t.Errorf("Resolve(%q) = %q, %v, want %q, %q", q.prefix, got, err, q.want, q.err)
		}
	}
	if _, err := p.Resolve(""); !errors.Is(err, ErrEmptyUUID) {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")).Resolve("a"); err == nil {
		t.Error("found a pod where nothing is")
	}
}

// TestListSkipsJunk: check list: pod-lifecycle 22
func TestListSkipsJunk(t *testing.T) {
	p := open(t)
	id := NewUUID()
	fake(t, p, podfs.Run, id)
	fake(t, p, podfs.Run, "lost+found")
	fake(t, p, podfs.Run, "6f1c2b3a")
	fake(t, p, podfs.Garbage, NewUUID())
	fake(t, p, podfs.Embryo, NewUUID())
	if err := os.WriteFile(p.path(podfs.Run, ".hidden"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// named as a pod, yet no directory: reported, and the others are listed
	odd := NewUUID()
	if err := os.WriteFile(p.path(podfs.Run, odd), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := p.List()
	if len(all) != 1 || all[0].UUID != id {
		t.Errorf("%d pods listed: %v", len(all), all)
	}
	if err == nil || !strings.Contains(err.Error(), odd) {
		t.Errorf("the odd file is not reported: %v", err)
	}
	for _, d := range all {
		d.Close()
	}
}

func TestNewestOf(t *testing.T) {
	p := open(t)
	when := func(phase, name string, age time.Duration) string {
		id := NewUUID()
		dir := fake(t, p, phase, id, podfs.DeclaredName, name+"\n", podfs.PodCreated, "")
		at := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(dir, podfs.PodCreated), at, at); err != nil {
			t.Fatal(err)
		}
		return id
	}
	if _, err := p.NewestOf("web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	when(podfs.ExitedGarbage, "web", 3*time.Hour)
	newest := when(podfs.Run, "web", time.Hour)
	when(podfs.Run, "db", time.Minute)
	if got, err := p.NewestOf("web"); err != nil || got != newest {
		t.Errorf("%q, %v, want the newest, %q", got, err, newest)
	}
	running := when(podfs.Run, "web", 2*time.Hour)
	hold(t, p.path(podfs.Run, running))
	if got, err := p.NewestOf("web"); err != nil || got != running {
		t.Errorf("%q, %v, want the running one, %q", got, err, running)
	}
}

func TestFiles(t *testing.T) {
	p := open(t)
	const id = "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69"
	look := func(files ...string) *Pod {
		t.Helper()
		if err := os.RemoveAll(p.path(podfs.Run, id)); err != nil {
			t.Fatal(err)
		}
		fake(t, p, podfs.Run, id, files...)
		d, err := p.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		return d
	}
	d := look()
	if d.Machine() != "rkt-"+id || d.Unit() != "" || d.DeclaredName() != "" || d.Ready() || !d.Started().IsZero() || d.Networks() != nil {
		t.Errorf("an empty pod: %q %q %q", d.Machine(), d.Unit(), d.DeclaredName())
	}
	if got := d.Scope(); got != `machine-rkt\x2d6f1c2b3a\x2d0d4e\x2d4c5b\x2d8a7f\x2d1e2d3c4b5a69.scope` {
		t.Errorf("scope %q", got)
	}
	if _, err := d.PID(); !errors.Is(err, ErrNoPID) {
		t.Errorf("PID of an empty pod: %v", err)
	}
	d = look(podfs.Pid, "42\n", podfs.NetInfo, `[{"netName":"default","ip":"172.16.28.2"}]`)
	if pid, err := d.PID(); err != nil || pid != 42 {
		t.Errorf("%d, %v", pid, err)
	}
	if n := d.Networks(); len(n) != 1 || n[0].NetName != "default" {
		t.Errorf("%+v", n)
	}
	d = look(podfs.Ppid, "999999999\n", podfs.NetInfo, "{")
	if _, err := d.PID(); !errors.Is(err, ErrNoPID) {
		t.Errorf("the supervisor is gone: %v", err)
	}
	if n := d.Networks(); n != nil {
		t.Errorf("of a broken file: %+v", n)
	}
	for name, files := range map[string][]string{
		"overlay": {podfs.OverlayPrepared, "", podfs.Stage1TreeID, "deps-sha512-x", "overlay/deps-sha512-x/upper/rkt/status/a", "42\n", "overlay/deps-sha512-x/upper/rkt/status/b", "x\n"},
		"copied":  {podfs.Stage1TreeID, "deps-sha512-x", "stage1/rootfs/rkt/status/a", "42\n", "stage1/rootfs/rkt/status/b", "x\n"},
	} {
		d = look(files...)
		if n, ok := d.ExitStatus("a"); !ok || n != 42 {
			t.Errorf("%s: status %d, %t", name, n, ok)
		}
		for _, bad := range []string{"b", "none", "../../../../../../etc/passwd"} {
			if n, ok := d.ExitStatus(bad); ok {
				t.Errorf("%s: status of %q is %d", name, bad, n)
			}
		}
	}
}

// TestReadFile: links out of the pod are not followed, sizes have a limit.
func TestReadFile(t *testing.T) {
	p := open(t)
	id := NewUUID()
	dir := fake(t, p, podfs.Run, id, "big", strings.Repeat("x", maxFile+1), "most", strings.Repeat("x", maxFile))
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, podfs.PodManifest)); err != nil {
		t.Fatal(err)
	}
	d, err := p.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.ReadFile("big"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a large file: %v", err)
	}
	if b, err := d.ReadFile("most"); err != nil || len(b) != maxFile {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if b, err := d.ReadFile(podfs.PodManifest); err == nil {
		t.Errorf("read %d bytes through a link", len(b))
	}
	if _, err := d.Manifest(); err == nil || !strings.Contains(err.Error(), id) {
		t.Errorf("a broken manifest: %v", err)
	}
}

// TestWaitUnlocked: check list: pod-lifecycle 8
func TestWaitUnlocked(t *testing.T) {
	p := open(t)
	id := NewUUID()
	f := hold(t, fake(t, p, podfs.Run, id))
	d, err := p.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	done := make(chan error, 1)
	go func() { done <- d.WaitUnlocked() }()
	// The pod may move meanwhile: the wait hangs on the directory, not on its name.
	if err := os.Rename(p.path(podfs.Run, id), p.path(podfs.ExitedGarbage, id)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := d.Refresh(); err != nil || d.State != ExitedGarbage {
		t.Errorf("%s, %v", d.State, err)
	}
	if err := os.RemoveAll(p.path(podfs.ExitedGarbage, id)); err != nil {
		t.Fatal(err)
	}
	if err := d.Refresh(); err != nil || d.State != Gone {
		t.Errorf("%s, %v", d.State, err)
	}
}

// TestMarkOnly: check list: pod-lifecycle 4
func TestMarkOnly(t *testing.T) {
	p := open(t)
	ended, running, aborted, prepared := NewUUID(), NewUUID(), NewUUID(), NewUUID()
	fake(t, p, podfs.Run, ended)
	hold(t, fake(t, p, podfs.Run, running))
	fake(t, p, podfs.Prepare, aborted)
	fake(t, p, podfs.Prepared, prepared)
	c := collector(t, p)
	released := []string{}
	c.Release = func(_ context.Context, d *Pod) error {
		released = append(released, d.UUID)
		return errors.New("not now") // logged; the mark is made all the same
	}
	if err := c.Collect(t.Context(), Options{MarkOnly: true}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]State{ended: ExitedGarbage, running: Running, aborted: Garbage, prepared: Prepared} {
		if got := state(t, p, id); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if !slices.Equal(released, []string{ended}) {
		t.Errorf("released %v", released)
	}
}

// TestGrace: the grace period counts from the mark, by the directory's change
// time, which nobody can set.
//
// check list: pod-lifecycle 5
func TestGrace(t *testing.T) {
	p := open(t)
	id, young, locked := NewUUID(), NewUUID(), NewUUID()
	dir := fake(t, p, podfs.ExitedGarbage, id)
	old := time.Now().Add(-1000 * time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil { // the modification time says nothing
		t.Fatal(err)
	}
	fake(t, p, podfs.Prepared, young)
	hold(t, fake(t, p, podfs.ExitedGarbage, locked))
	c := collector(t, p)
	o := Options{Grace: time.Hour, ExpirePrepared: 2 * time.Hour}
	at := func(d time.Duration) {
		t.Helper()
		now := time.Now().Add(d)
		c.Now = func() time.Time { return now }
		if err := c.Collect(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	at(59 * time.Minute)
	if got := state(t, p, id); got != ExitedGarbage {
		t.Errorf("within the grace period: %s", got)
	}
	at(61 * time.Minute)
	if got := state(t, p, id); got != Gone {
		t.Errorf("after the grace period: %s", got)
	}
	if got := state(t, p, young); got != Prepared {
		t.Errorf("a prepared pod within its time: %s", got)
	}
	if got := state(t, p, locked); got != ExitedDeleting {
		t.Errorf("a pod another gc deletes: %s", got)
	}
	at(121 * time.Minute)
	if got := state(t, p, young); got != Gone {
		t.Errorf("a prepared pod that expired: %s", got)
	}
}

// TestRemove: check list: pod-lifecycle 6
func TestRemove(t *testing.T) {
	for _, c := range []struct {
		phase  string
		locked bool
		err    string
	}{
		{podfs.Prepare, true, "is being prepared"}, {podfs.Prepare, false, ""}, {podfs.Prepared, false, ""},
		{podfs.Run, true, "is running; stop it first"}, {podfs.Run, false, ""}, {podfs.ExitedGarbage, false, ""}, {podfs.Garbage, false, ""},
	} {
		p := open(t)
		id := NewUUID()
		dir := fake(t, p, c.phase, id, "pod", "corrupt", "stage1/rootfs/x", "")
		if c.locked {
			hold(t, dir)
		}
		err := collector(t, p).Remove(t.Context(), id)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.phase, err, c.err)
			}
			continue
		}
		if err != nil || state(t, p, id) != Gone {
			t.Errorf("%s: %v, and the pod is %s", c.phase, err, state(t, p, id))
		}
	}
	if err := collector(t, open(t)).Remove(t.Context(), NewUUID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such pod: %v", err)
	}
}

func TestUUIDs(t *testing.T) {
	for range 100 {
		id := NewUUID()
		if !ValidUUID(id) || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("%q", id)
		}
		if got, ok := FromInvocation(strings.ReplaceAll(id, "-", "")); !ok || got != id {
			t.Fatalf("%q, %t", got, ok)
		}
	}
	for _, bad := range []string{"", "x", "6f1c2b3a0d4e4c5b8a7f1e2d3c4b5a6", "6F1c2b3a0d4e4c5b8a7f1e2d3c4b5a69", "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a6", "../../../../../../../../etc/passwd"} {
		if id, ok := FromInvocation(bad); ok {
			t.Errorf("FromInvocation(%q) = %q", bad, id)
		}
		if ValidUUID(bad) {
			t.Errorf("%q is valid", bad)
		}
	}
}

func TestUnescapeMount(t *testing.T) {
	if got := unescapeMount(`/a\040b\011c\012d\134040`); got != "/a b\tc\nd\\040" {
		t.Errorf("%q", got)
	}
}

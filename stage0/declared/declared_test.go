package declared

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/stage0/store"
)

func open(t *testing.T) *Pod {
	t.Helper()
	p, err := Open(t.TempDir(), "web")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	p.Now = func() time.Time { now = now.Add(time.Second); return now }
	return p
}

func app(id string) []App { return []App{{Name: "web", Ref: "example.com/web", ID: id}} }

func ok[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// story is the history in short.
func story(t *testing.T, p *Pod) string {
	t.Helper()
	var out []string
	for i, e := range ok[[]Event](t)(p.History()) {
		if e.Seq != i+1 || e.Time.IsZero() {
			t.Errorf("event %d: %+v", i, e)
		}
		out = append(out, e.Event+string(rune('0'+e.Generation)))
	}
	return strings.Join(out, " ")
}

func wantCurrent(t *testing.T, p *Pod, n int, s State, id string) *Current {
	t.Helper()
	c := ok[*Current](t)(p.Current())
	if c == nil || c.Generation != n || c.State != s || c.Apps[0].ID != id {
		t.Fatalf("the current generation: %+v, want %d, %s, %s", c, n, s, id)
	}
	return c
}

func TestRecord(t *testing.T) {
	p := open(t)
	if c := ok[*Current](t)(p.Current()); c != nil {
		t.Errorf("something is recorded: %+v", c)
	}
	ok[*Current](t)(p.Record(app("a"), 0))
	before, _ := os.Stat(p.path("current"))
	ok[*Current](t)(p.Record(app("a"), 0))
	if after, _ := os.Stat(p.path("current")); !os.SameFile(before, after) {
		t.Error("the same is recorded twice")
	}
	for _, id := range []string{"b", "c", "d", "e"} {
		ok[*Current](t)(p.Record(app(id), 3))
	}
	wantCurrent(t, p, 5, Good, "e")
	var kept []int
	for _, g := range ok[[]Generation](t)(p.Generations()) {
		kept = append(kept, g.Number)
	}
	if !slices.Equal(kept, []int{5, 4, 3}) {
		t.Errorf("kept: %v", kept)
	}
	if s := story(t, p); s != "recorded1 recorded2 recorded3 recorded4 recorded5" {
		t.Error(s)
	}
	names, err := Names(filepath.Dir(filepath.Dir(p.dir)))
	if err != nil || !slices.Equal(names, []string{"web"}) {
		t.Errorf("names: %v, %v", names, err)
	}
}

func TestTrials(t *testing.T) {
	p := open(t)
	old := app("a")
	old[0].File = &store.FileID{Inode: 1}
	ok[*Current](t)(p.Record(old, 0))
	bad := app("b")
	bad[0].File = &store.FileID{Inode: 2}
	ok[*Current](t)(p.Try(bad, 0))
	wantCurrent(t, p, 2, Trial, "b")
	if _, err := p.Try(app("c"), 0); !errors.Is(err, ErrChanged) {
		t.Errorf("two trials: %v", err)
	}
	// What a start resolves while a trial runs is not recorded.
	ok[*Current](t)(p.Record(app("x"), 0))
	wantCurrent(t, p, 2, Trial, "b")
	ok[*Current](t)(p.Revert("it is bad"))
	c := wantCurrent(t, p, 1, Good, "a")
	if !c.Restore || c.Apps[0].File.Inode != 2 {
		t.Errorf("after going back: %+v", c)
	}
	if err := p.Restored(); err != nil {
		t.Fatal(err)
	}
	if g, err := p.BadGeneration(app("b")); err != nil || g == nil || g.Reason != "it is bad" {
		t.Errorf("the bad generation: %+v, %v", g, err)
	}
	ok[*Current](t)(p.Try(app("c"), 0))
	ok[*Current](t)(p.Commit(EventUpdated, "", 0))
	if c := wantCurrent(t, p, 3, Good, "c"); c.Previous != 1 || c.Restore {
		t.Errorf("after an update: %+v", c)
	}
	// Back by hand: what is left counts as bad.
	g := ok[*Generation](t)(p.Generation(1))
	ok[*Current](t)(p.Try(g.Apps, 1))
	ok[*Current](t)(p.Commit(EventRolledBack, "by hand", 0))
	wantCurrent(t, p, 1, Good, "a")
	if g := ok[*Generation](t)(p.Generation(3)); g.State != Bad {
		t.Errorf("the generation that was left: %+v", g)
	}
	ok[*Current](t)(p.Go(3, "by hand, while it does not run"))
	wantCurrent(t, p, 3, Good, "c")
	want := "recorded1 trial2 rolled-back1 trial3 updated3 trial1 rolled-back1 rolled-back3"
	if s := story(t, p); s != want {
		t.Errorf("%s, want %s", s, want)
	}
}

// A start that read a generation on trial comes to record it when the trial has
// failed.
func TestLateStartBringsNothingBack(t *testing.T) {
	p := open(t)
	first := ok[*Current](t)(p.Record(app("a"), 0))
	trial := ok[*Current](t)(p.Try(app("b"), 0))
	ok[*Current](t)(p.Revert("it is bad"))
	ok[*Current](t)(p.RecordSince(trial, app("b"), 0))
	ok[*Current](t)(p.RecordSince(first, app("c"), 0))
	ok[*Current](t)(p.RecordSince(nil, app("c"), 0))
	wantCurrent(t, p, 1, Good, "a")
	ok[*Current](t)(p.Try(app("d"), 0))
	ok[*Current](t)(p.Commit(EventUpdated, "", 0))
	ok[*Current](t)(p.RecordSince(first, app("a"), 0))
	c := wantCurrent(t, p, 3, Good, "d")
	ok[*Current](t)(p.RecordSince(c, app("e"), 0))
	wantCurrent(t, p, 4, Good, "e")
}

func TestInterruptedTrialIsOver(t *testing.T) {
	p := open(t)
	ok[*Current](t)(p.Record(app("a"), 0))
	u, err := p.Updating()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Updating(); !errors.Is(err, ErrUpdating) {
		t.Errorf("two updaters: %v", err)
	}
	ok[*Current](t)(p.Try(app("b"), 0))
	if c, over, err := p.ForStart(true); err != nil || over || c.Apps[0].ID != "b" {
		t.Errorf("a start on trial: %+v, %v, %v", c, over, err)
	}
	u.Close() // the kernel does that for one who is killed
	if c, over, err := p.ForStart(true); err != nil || !over || c.Apps[0].ID != "a" {
		t.Errorf("a start after the trial: %+v, %v, %v", c, over, err)
	}
	if c, over, err := p.ForStart(true); err != nil || over || c.Apps[0].ID != "a" {
		t.Errorf("the next start: %+v, %v, %v", c, over, err)
	}
	if s := story(t, p); s != "recorded1 trial2 rolled-back1" {
		t.Error(s)
	}
}

// A writer is killed between any two files.
func TestHistoryAfterCrashes(t *testing.T) {
	p := open(t)
	ok[*Current](t)(p.Record(app("a"), 0))
	before, err := os.ReadFile(p.path("history"))
	if err != nil {
		t.Fatal(err)
	}
	ok[*Current](t)(p.Record(app("b"), 0))
	for name, left := range map[string]string{"before the history": string(before), "in its middle": string(before) + `{"seq":2,"ti`} {
		if err := os.WriteFile(p.path("history"), []byte(left), 0o640); err != nil {
			t.Fatal(err)
		}
		if s := story(t, p); s != "recorded1 recorded2" {
			t.Errorf("killed %s: %s", name, s)
		}
	}
	// A generation that was written and never named.
	if err := p.putGeneration(Generation{Number: 3, State: Trial, Apps: app("x")}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path(".current.tmp1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ok[*Current](t)(p.Record(app("c"), 0))
	if s := story(t, p); s != "recorded1 recorded2 recorded4" {
		t.Error(s)
	}
	if c := wantCurrent(t, p, 4, Good, "c"); c.Previous != 2 {
		t.Errorf("%+v", c)
	}
	if _, err := os.Stat(p.path(".current.tmp1")); err == nil {
		t.Error("what a killed writer left stays")
	}
	if err := p.Remove(); err != nil {
		t.Fatal(err)
	}
	if c, err := p.Current(); c != nil || err != nil {
		t.Errorf("after its removal: %+v, %v", c, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	p := open(t)
	ok[*Current](t)(p.Record(app("a"), 0))
	for range 60 {
		if err := p.Failed(strings.Repeat("x", 8000)); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(p.path("history"))
	if err != nil || st.Size() > maxHistory+10000 {
		t.Errorf("%v, %v", st.Size(), err)
	}
	es := ok[[]Event](t)(p.History())
	if n := len(es); es[n-1].Seq != 61 || es[0].Seq != 61-n+1 {
		t.Errorf("%d events, from %d to %d", n, es[0].Seq, es[n-1].Seq)
	}
}

func TestBrokenRecords(t *testing.T) {
	p := open(t)
	ok[*Current](t)(p.Record(app("a"), 0))
	if err := os.WriteFile(p.path("current"), []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Current(); err == nil {
		t.Error("a broken record is taken")
	}
	for _, name := range []string{"..", "a/b", "", ".x"} {
		if _, err := Open(t.TempDir(), name); err == nil {
			t.Errorf("a pod of the name %q", name)
		}
	}
}

// What ends a dead trial and starts nothing leaves it to the next update to
// restart the pod.
func TestInterruptedTrialStaysToBeRestored(t *testing.T) {
	p := open(t)
	ok[*Current](t)(p.Record(app("a"), 0))
	ok[*Current](t)(p.Try(app("b"), 0))
	c, over, err := p.ForStart(false)
	if err != nil || !over || c.Apps[0].ID != "a" || !c.Restore {
		t.Fatalf("%+v, %v, %v", c, over, err)
	}
	ok[*Current](t)(p.RecordSince(c, app("a"), 0))
	if c := wantCurrent(t, p, 1, Good, "a"); !c.Restore {
		t.Error("it was forgotten by a record of the same images")
	}
	ok[*Current](t)(p.Record(app("c"), 0)) // the pod file was changed
	if c := wantCurrent(t, p, 3, Good, "c"); !c.Restore {
		t.Error("it was forgotten by a record of other images")
	}
	if err := p.Restored(); err != nil {
		t.Fatal(err)
	}
	if c := wantCurrent(t, p, 3, Good, "c"); c.Restore {
		t.Error("it was not noted")
	}
}

// Everybody who comes when the updater is gone sees what ran before.
func TestDeadTrialSeenByMany(t *testing.T) {
	for range 50 {
		p := open(t)
		ok[*Current](t)(p.Record(app("a"), 0))
		ok[*Current](t)(p.Try(app("b"), 0))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				q := *p
				q.Now = time.Now
				if c, _, err := q.ForStart(true); err != nil || c.State != Good || c.Apps[0].ID != "a" {
					t.Errorf("%+v, %v", c, err)
				}
			})
		}
		wg.Wait()
	}
}

func TestAbandoned(t *testing.T) {
	p := open(t)
	state := func(n int) State { return ok[*Generation](t)(p.Generation(n)).State }
	kill := func(apps []App, n int) {
		t.Helper()
		ok[*Current](t)(p.Try(apps, n))
		ok[*Current](t)(p.Interrupted())
	}
	ok[*Current](t)(p.Record(app("a"), 0))
	ok[*Current](t)(p.Try(app("b"), 0))
	ok[*Current](t)(p.Abandon("somebody said so"))
	ok[*Current](t)(p.Try(app("b"), 0))
	ok[*Current](t)(p.Abandon("somebody said so"))
	kill(app("b"), 0)
	c := wantCurrent(t, p, 1, Good, "a")
	if g, err := p.BadGeneration(app("b")); err != nil || g != nil || state(4) != Abandoned || !c.Restore {
		t.Errorf("what was interrupted proved nothing: %+v, %v, %+v", g, err, c)
	}
	// A second time: they may take the host along.
	kill(app("b"), 0)
	if g, err := p.BadGeneration(app("b")); err != nil || g == nil || g.Number != 5 {
		t.Errorf("after two updaters died of the same images: %+v, %v", g, err)
	}
	// Going back to a good generation is interrupted.
	for _, id := range []string{"c", "d"} {
		ok[*Current](t)(p.Try(app(id), 0))
		ok[*Current](t)(p.Commit(EventUpdated, "", 0))
	}
	kill(app("c"), 6)
	if c := wantCurrent(t, p, 7, Good, "d"); c.Previous != 6 || state(6) != Good || state(7) != Good {
		t.Errorf("%+v; %s, %s", c, state(6), state(7))
	}
	// … when it had said already what it thinks of the one it left.
	ok[*Current](t)(p.Try(app("c"), 6))
	if err := errors.Join(p.mark(6, Good, ""), p.mark(7, Bad, "by hand")); err != nil {
		t.Fatal(err)
	}
	ok[*Current](t)(p.Interrupted())
	if c := wantCurrent(t, p, 7, Good, "d"); c.Previous != 6 || state(7) != Good {
		t.Errorf("%+v; %s", c, state(7))
	}
	// The same without a trial.
	if err := p.mark(7, Bad, "by hand"); err != nil {
		t.Fatal(err)
	}
	if err := p.Failed("some change"); err != nil || state(7) != Good {
		t.Errorf("%v; %s", err, state(7))
	}
}

func TestBeforeTrial(t *testing.T) {
	p := open(t)
	ok[*Current](t)(p.Record(app("a"), 0))
	trial := ok[*Current](t)(p.Try(app("b"), 0))
	if c := ok[*Current](t)(p.BeforeTrial(trial)); c.Generation != 1 || c.State != Good || c.Apps[0].ID != "a" {
		t.Errorf("%+v", c)
	}
	wantCurrent(t, p, 2, Trial, "b")
}

package cli

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/stage0/podset"
)

// TestPendingKept: what an apply that was killed has left to do is recorded with the
// next one's, which may be killed, too.
func TestPendingKept(t *testing.T) {
	root := t.TempDir()
	places := podset.Places{Pods: filepath.Join(root, "pods"), Sets: filepath.Join(root, "sets"), LockFile: filepath.Join(root, "lock")}
	l, err := places.Lock(t.Context(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, name := range []string{"", "/srv/pods"} {
		ap := &applier{places: places, o: applyOptions{set: name}, files: map[string]podset.File{"web.json": {Data: []byte("{}"), Mode: 0o644}}}
		ap.change = ap.files
		stop, start := podset.Action{Verb: "stop", Unit: "rkt@old.service"}, podset.Action{Verb: "start", Unit: "rkt@web.service"}
		if err := places.PutSet(podset.Set{Name: name, Pending: []podset.Action{stop}}); err != nil {
			t.Fatal(err)
		}
		if ap.before, err = places.ReadSets(); err != nil {
			t.Fatal(err)
		}
		if err := places.Commit(ap.next(&applyJSON{Pods: []applyPod{{Name: "web", Actions: []podset.Action{start}}}}), ap.change); err != nil {
			t.Fatal(err)
		}
		sets, err := places.ReadSets()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sets {
			if d := cmp.Diff([]podset.Action{stop, start}, s.Pending); s.Name == name && d != "" {
				t.Errorf("set %q: %s", name, d)
			}
		}
	}
}

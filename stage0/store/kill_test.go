package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/internal/acitest"
)

// TestCleanInterruptedRemove checks that cleaning takes what a removal killed
// after its first step leaves, and nothing of an image that is there.
func TestCleanInterruptedRemove(t *testing.T) {
	s := open(t)
	gone := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/gone", "1")), ImportOptions{})
	stays := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/stays", "1")), ImportOptions{})
	for _, r := range []Record{gone, stays} {
		if err := s.PutRemote(Remote{Source: "https://" + r.Name, Key: r.Key}); err != nil {
			t.Fatal(err)
		}
	}
	release, err := s.HoldLayers([]string{digestPrefix + strings.Repeat("a", 64)})
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	before := files(t, s)
	if err := os.Remove(s.recordPath(gone.Key)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Clean(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	for f := range files(t, s) {
		if !before[f] {
			t.Errorf("made %s", f)
		}
	}
	s.o.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	if _, err := s.Clean(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	for f := range files(t, s) {
		if strings.Contains(f, gone.Key) || strings.HasPrefix(f, "layerlocks/") {
			t.Errorf("left %s", f)
		}
	}
	if _, err := s.Remote("https://example.com/gone"); err == nil {
		t.Error("the source is left")
	}
	if remote, err := s.Remote("https://example.com/stays"); err != nil || remote.Key != stays.Key {
		t.Error("the source of another image is gone", err)
	}
	if r, err := s.Find("example.com/stays", nil); err != nil || !s.Complete(r) {
		t.Error("another image is gone", err)
	}
	if entries, err := os.ReadDir(s.path("records", "names")); err != nil || len(entries) != 1 {
		t.Errorf("%d names are left, %v", len(entries), err)
	}
}

// files are the regular files of a store.
func files(t *testing.T, s *Store) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(s.dir, path)
			out[rel] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

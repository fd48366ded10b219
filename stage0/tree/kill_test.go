//go:build failpoint

package tree

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/stage0/store"
)

func victimImage(t *testing.T) []byte {
	return acitest.Tar(t, acitest.Manifest("example.com/victim", "1"), acitest.Reg("f", "x", 0o644))
}

// victimLayers are two images on one base.
func victimLayers(t *testing.T) (one, two [][]byte) {
	base := layerTar(t, "a=1", "d/", "d/b=2")
	return [][]byte{base, layerTar(t, "d/.wh.b", "d/c=3")}, [][]byte{base, layerTar(t, "e=4"), layerTar(t, ".wh.a")}
}

// TestVictim is the process that TestKill kills: it imports, renders, removes.
func TestVictim(t *testing.T) {
	dir := os.Getenv("RKT_TEST_STORE")
	if dir == "" {
		t.Skip("runs as the child of TestKill")
	}
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	trees, err := Open(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	key := put(t, s, victimImage(t))
	tree, err := trees.Render(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutRemote(store.Remote{Source: "https://example.com/x", Key: key}); err != nil {
		t.Fatal(err)
	}
	if err := trees.Remove(t.Context(), tree.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(key); err != nil {
		t.Fatal(err)
	}
	st, err := trees.Stage()
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Import(t.Context(), bytes.NewReader(victimImage(t)), store.ImportOptions{Visit: st})
	if err := errors.Join(err, st.Adopt(t.Context(), r.Key), st.Close()); err != nil {
		t.Fatal(err)
	}
	one, two := victimLayers(t)
	for _, layers := range [][][]byte{one, two} {
		if _, err := trees.Render(t.Context(), putLayered(t, s, layers...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := trees.Settle(); err != nil {
		t.Fatal(err)
	}
	removeAll(t, s, trees)
}

// removeAll removes all images and what they were rendered to.
func removeAll(t *testing.T, s *store.Store, trees *Trees) {
	t.Helper()
	records, err := s.Records()
	if err != nil {
		t.Error(err)
	}
	for _, r := range records {
		if err := s.Remove(r.Key); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := trees.Collect(t.Context(), func(string) bool { return false }, false); err != nil {
		t.Error(err)
	}
}

// TestKill kills a process at every step that changes the disk: whatever it
// leaves, what is visible is whole, and the next command succeeds.
func TestKill(t *testing.T) {
	for _, point := range []string{
		"store/synced", "store/renamed", "store/manifest", "store/indexed", "store/remote", "store/remove-record", "store/remove-file",
		"store/layer-synced", "store/layer-renamed", "store/layer-recorded", "store/document", "store/remove-object",
		"atomicfile/written", "atomicfile/renamed", "tree/extracted", "tree/synced", "tree/rendered", "tree/unmarked",
		"tree/layer-extracted", "tree/staged", "tree/adopted",
	} {
		t.Run(strings.ReplaceAll(point, "/", "-"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cas")
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestVictim$")
			cmd.Env = append(os.Environ(), "RKT_TEST_STORE="+dir, "RKT_FAILPOINT="+point)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err = cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("not killed: %v\n%s", err, out.String())
			}
			s, err := store.Open(dir, store.Options{Now: func() time.Time { return time.Now().Add(48 * time.Hour) }})
			if err != nil {
				t.Fatal(err)
			}
			trees, err := Open(s, Options{})
			if err != nil {
				t.Fatal(err)
			}
			checkWhole(t, s, trees)
			if _, err := s.Rebuild(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := s.Clean(t.Context(), time.Hour); err != nil {
				t.Error(err)
			}
			if err := trees.Clean(t.Context()); err != nil {
				t.Error(err)
			}
			checkNoRest(t, dir)
			checkWhole(t, s, trees)
			one, two := victimLayers(t)
			for _, key := range []string{put(t, s, victimImage(t)), putLayered(t, s, one...), putLayered(t, s, two...)} {
				if _, err := trees.Render(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			checkWhole(t, s, trees)
			if err := trees.Settle(); err != nil {
				t.Error(err)
			}
			checkWhole(t, s, trees)
			removeAll(t, s, trees)
			if _, err := s.Clean(t.Context(), time.Hour); err != nil {
				t.Error(err)
			}
			checkEmpty(t, dir)
		})
	}
}

// checkNoRest checks that cleaning took everything that belongs to nothing.
func checkNoRest(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "import-")) {
			t.Errorf("left: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// checkEmpty checks that a store without images holds nothing but the file that
// proves its layout and the lock of all trees.
func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		tree := filepath.Dir(rel) == "tree"
		if err == nil && (tree || !d.IsDir()) && !strings.HasPrefix(rel, "ready-") && rel != "treestorelocks/all" {
			t.Errorf("left of a store without images: %s", rel)
			if tree {
				return filepath.SkipDir
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// checkWhole checks that every visible image and tree is complete.
func checkWhole(t *testing.T, s *store.Store, trees *Trees) {
	t.Helper()
	records, err := s.Records()
	if err != nil {
		t.Error(err)
	}
	for _, r := range records {
		b, err := s.ReadBlob(r.Key)
		if err != nil {
			t.Error(err)
			continue
		}
		var data bytes.Buffer
		if _, err := data.ReadFrom(b); err != nil || acitest.ID(t, data.Bytes()) != r.ID {
			t.Error("the blob is not whole", err)
		}
		b.Close()
		if _, err := s.Manifest(r.Key); err != nil {
			t.Error(err)
		}
		if _, err := s.Find(r.Name, nil); err != nil {
			t.Error(err)
		}
		if !s.Complete(r) {
			t.Errorf("image %q is not complete", r.Name)
		}
		for _, l := range r.Layers {
			if err := s.ReplayLayer(t.Context(), l, nil); err != nil {
				t.Error(err)
			}
		}
	}
	list, err := trees.List()
	if err != nil {
		t.Error(err)
	}
	for _, tree := range list {
		if err := trees.Verify(t.Context(), tree); err != nil && !errors.Is(err, store.ErrNotFound) { // its image is removed first
			t.Error(err)
		}
		want := []string{"/", "f = x"}
		switch m, err := tree.Manifest(); {
		case err != nil:
			t.Error(err)
		case m.Name == "example.com/victim":
		case len(tree.Lowers()) == 2:
			want = []string{"/", "a = 1", "d/", "d/c = 3"}
		default:
			want = []string{"/", "d/", "d/b = 2", "e = 4"}
		}
		if diff := cmp.Diff(want, mergedListing(t, tree)); diff != "" {
			t.Error(diff)
		}
	}
}

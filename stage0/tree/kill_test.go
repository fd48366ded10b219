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
}

// TestKill kills a process at every step that changes the disk: whatever it
// leaves, what is visible is whole, and the next command succeeds.
func TestKill(t *testing.T) {
	for _, point := range []string{
		"store/synced", "store/renamed", "store/manifest", "store/indexed", "store/remote", "store/remove-record", "store/remove-file",
		"atomicfile/written", "atomicfile/renamed", "tree/extracted", "tree/synced", "tree/rendered", "tree/unmarked",
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
			tree, err := trees.Render(t.Context(), put(t, s, victimImage(t)))
			if err != nil {
				t.Fatal(err)
			}
			checkWhole(t, s, trees)
			if err := errors.Join(trees.Remove(t.Context(), tree.ID), s.Remove(tree.Key)); err != nil {
				t.Error(err)
			}
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
	}
	list, err := trees.List()
	if err != nil {
		t.Error(err)
	}
	for _, tree := range list {
		if err := trees.Verify(t.Context(), tree); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"/", "f = x"}, listing(t, tree.Rootfs())); diff != "" {
			t.Error(diff)
		}
	}
}

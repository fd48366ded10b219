package tree

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/hostile"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/stage0/store"
)

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// fuzzLimits keep single inputs quick.
var fuzzLimits = Limits{Entries: 1000, Bytes: 16 << 20, Xattrs: 64 << 10}

// seed adds the small cases of a kind.
func seed(f *testing.F, kind hostile.Kind, decoy string) {
	f.Helper()
	for _, c := range hostile.Cases(decoy) {
		if c.Kind != kind || c.Heavy {
			continue
		}
		for _, l := range c.Layers {
			if data := l.Data(); len(data) < 16<<10 {
				f.Add(data)
			}
		}
	}
}

// scratch is a directory, in memory if there is room.
func scratch(t testing.TB, room int64) string {
	t.Helper()
	for _, parent := range []string{"/dev/shm", ""} {
		var st syscall.Statfs_t
		if parent != "" && (syscall.Statfs(parent, &st) != nil || int64(st.Bavail)*st.Bsize < room) {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "fuzz-"); err == nil {
			t.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			return dir
		}
	}
	t.Fatal("no place for files")
	return ""
}

func fuzzTrees(t testing.TB, dir string) (*store.Store, *Trees) {
	t.Helper()
	s, err := store.Open(filepath.Join(dir, "cas"), store.Options{Limits: store.Limits{Plain: 16 << 20, Entries: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	trees, err := Open(s, Options{Limits: fuzzLimits})
	if err != nil {
		t.Fatal(err)
	}
	return s, trees
}

// FuzzLayerExtract unpacks layers over one that has links to decoys.
// check list: 66
func FuzzLayerExtract(f *testing.F) {
	canary := filepath.Join(scratch(f, 1<<26), "canary")
	decoys(f, canary)
	seed(f, hostile.Layers, canary)
	base := layerTar(f, "l->"+canary, "d/", "d/f=1", "up->../../../canary", "e->d")
	f.Fuzz(func(t *testing.T, data []byte) {
		before := fingerprint(t, canary)
		s, trees := fuzzTrees(t, scratch(t, 1<<26))
		key := appc.Layered{Manifest: digestOf([]byte("m")), Config: digestOf([]byte("c")), ManifestType: "x"}
		for _, l := range [][]byte{base, data} {
			plain := l
			if r, _, err := store.Decompress(bytes.NewReader(l)); err == nil {
				if p, err := io.ReadAll(io.LimitReader(r, 32<<20)); err == nil {
					plain = p
				}
				r.Close()
			}
			key.Layers = append(key.Layers, appc.LayerRef{Digest: digestOf(l), DiffID: digestOf(plain), Size: int64(len(l))})
		}
		hold, err := trees.Hold()
		if err != nil {
			t.Fatal(err)
		}
		defer hold.Close()
		for i, l := range [][]byte{base, data} {
			unpackLayer(t, s, trees, &key, i, l)
		}
		if after := fingerprint(t, canary); after != before {
			t.Errorf("the decoys changed:\n%s\n%s", before, after)
		}
	})
}

func unpackLayer(t *testing.T, s *store.Store, trees *Trees, l *appc.Layered, i int, data []byte) {
	st, err := trees.StageLayer(l, i)
	if err != nil || st == nil {
		return
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	want := store.Layer{Digest: l.Layers[i].Digest, DiffID: l.Layers[i].DiffID, Size: l.Layers[i].Size}
	tmp, err := lock.Path(s.LayerTemp(want.Digest), lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	if _, err := tmp.Write(data); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ImportLayer(t.Context(), tmp, bytes.NewReader(data), want, st.Entry); err != nil {
		return
	}
	if err = st.Commit(); Late(err) {
		st.Replay(t.Context(), want) //nolint:errcheck // it may be refused
	}
}

// FuzzACI imports App Container images and unpacks them meanwhile.
// check list: 66
func FuzzACI(f *testing.F) {
	canary := filepath.Join(scratch(f, 1<<26), "canary")
	decoys(f, canary)
	seed(f, hostile.ACI, canary)
	f.Fuzz(func(t *testing.T, data []byte) {
		before := fingerprint(t, canary)
		s, trees := fuzzTrees(t, scratch(t, 1<<26))
		st, err := trees.Stage()
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Import(t.Context(), bytes.NewReader(data), store.ImportOptions{Visit: st})
		if err == nil {
			if st.Adopt(t.Context(), r.Key) == nil {
				trees.Render(t.Context(), r.Key) //nolint:errcheck // it may be refused
			}
		} else if all, err := s.Records(); err != nil || len(all) > 0 {
			t.Errorf("refused, but recorded: %v %v", all, err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if after := fingerprint(t, canary); after != before {
			t.Errorf("the decoys changed:\n%s\n%s", before, after)
		}
	})
}

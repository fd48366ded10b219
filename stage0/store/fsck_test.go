package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/lock"
)

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// putLayers stores an image of layers and returns the digest of the first.
func putLayers(t testing.TB, s *Store, name string, layers ...[]byte) (Record, string) {
	t.Helper()
	l := appc.Layered{Manifest: digestOf([]byte("m" + name)), Config: digestOf([]byte("c" + name)), ManifestType: "x"}
	for _, data := range layers {
		d := digestOf(data)
		l.Layers = append(l.Layers, appc.LayerRef{Digest: d, DiffID: d, Size: int64(len(data))})
		if _, err := s.Layer(d); err == nil {
			continue
		}
		tmp, err := lock.Path(s.LayerTemp(d), lock.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		defer tmp.Close()
		if _, err := tmp.Write(data); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ImportLayer(t.Context(), tmp, bytes.NewReader(data), Layer{Digest: d, DiffID: d, Size: int64(len(data))}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, doc := range []string{"m", "c"} {
		if err := s.PutDocument(digestOf([]byte(doc+name)), []byte(doc+name)); err != nil {
			t.Fatal(err)
		}
	}
	value, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{
		"acKind": "ImageManifest", "acVersion": "0.8.11", "name": name,
		"annotations": []map[string]string{{"name": appc.LayersAnnotation, "value": string(value)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.ImportLayered(t.Context(), manifest, &l, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r, l.Layers[0].Digest
}

func fsck(t testing.TB, s *Store, o FsckOptions) []string {
	t.Helper()
	out := []string{}
	_, err := s.Fsck(t.Context(), o, func(f Finding) {
		line := f.Kind + " " + f.State
		if f.Leftover {
			line += " leftover"
		}
		t.Logf("%+v", f)
		out = append(out, line)
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestFsck damages a store in every way, and checks that it is noticed, that it
// is mended, and that nothing but what must go goes.
// check list: 75
func TestFsck(t *testing.T) {
	age := func(t *testing.T, path string) {
		old := time.Now().Add(-48 * time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	type names = struct {
		*Store
		aci, layered, other Record
		layer               string
	}
	for _, c := range []struct {
		name     string
		damage   func(t *testing.T, s names)
		found    []string
		quick    []string // what a quick check finds; nil: the same
		repaired []string
		images   int
	}{
		{"nothing", func(*testing.T, names) {}, []string{}, nil, []string{}, 3},
		{"record unreadable", func(t *testing.T, s names) { overwrite(t, s.recordPath(s.aci.Key), "{") },
			[]string{"record found"}, nil, []string{"record repaired"}, 3},
		{"record of layers unreadable", func(t *testing.T, s names) { overwrite(t, s.recordPath(s.layered.Key), "") },
			[]string{"record found"}, nil, []string{"record repaired"}, 3},
		{"record of another", func(t *testing.T, s names) {
			b, _ := os.ReadFile(s.recordPath(s.aci.Key))
			overwrite(t, s.recordPath(s.aci.Key), string(bytes.ReplaceAll(b, []byte("example.com/aci"), []byte("example.com/xci"))))
		}, []string{"index found leftover", "record found"}, nil, []string{"record repaired"}, 3},
		{"record lost", func(t *testing.T, s names) { remove(t, s.recordPath(s.aci.Key)) },
			[]string{"blob found leftover", "index found leftover"}, nil, []string{"blob repaired leftover"}, 3},
		{"manifest changed", func(t *testing.T, s names) {
			overwrite(t, s.manifestPath(s.aci.Key), acitest.Manifest("example.com/evil", "1"))
		}, []string{"manifest found"}, []string{"record found"}, []string{"manifest repaired"}, 3},
		{"manifest lost", func(t *testing.T, s names) { remove(t, s.manifestPath(s.layered.Key)) },
			[]string{"manifest found"}, nil, []string{"manifest repaired"}, 3},
		{"blob damaged", func(t *testing.T, s names) { flip(t, s.blobPath(s.aci.Key)) },
			[]string{"blob found"}, []string{}, []string{"blob removed"}, 2},
		{"blob lost", func(t *testing.T, s names) { remove(t, s.blobPath(s.layered.Key)) },
			[]string{"blob found"}, nil, []string{"blob removed"}, 2},
		{"orphan damaged", func(t *testing.T, s names) { flip(t, s.blobPath(s.aci.Key)); remove(t, s.recordPath(s.aci.Key)) },
			[]string{"blob found leftover", "index found leftover"}, nil, []string{"blob failed leftover", "index removed leftover"}, 2},
		{"layer damaged", func(t *testing.T, s names) { flip(t, s.objectPath(s.layer)) },
			[]string{"layer found", "layer found"}, []string{}, []string{"layer removed", "layer removed"}, 1},
		{"layer lost", func(t *testing.T, s names) { remove(t, s.objectPath(s.layer)) },
			[]string{"layer found", "layer found", "layer found"}, nil, []string{"layer removed", "layer removed"}, 1},
		{"layer's record lost", func(t *testing.T, s names) { remove(t, s.layerPath(s.layer)) },
			[]string{"layer found"}, nil, []string{"layer repaired"}, 3},
		{"document damaged", func(t *testing.T, s names) { flip(t, s.objectPath(s.layered.Documents[0])) },
			[]string{"document found"}, nil, []string{"document removed"}, 2},
		{"index lost", func(t *testing.T, s names) { remove(t, s.path("records", "names")) },
			[]string{"index found", "index found", "index found"}, nil, []string{"index repaired", "index repaired", "index repaired"}, 3},
		{"index of nothing", func(t *testing.T, s names) {
			if err := s.index("example.com/none", "sha512-"+fmt.Sprintf("%064x", 1)); err != nil {
				t.Fatal(err)
			}
		}, []string{"index found leftover"}, nil, []string{"index removed leftover"}, 3},
		{"sources", func(t *testing.T, s names) {
			if err := s.PutRemote(Remote{Source: "x", Key: "sha512-" + fmt.Sprintf("%064x", 1)}); err != nil {
				t.Fatal(err)
			}
			overwrite(t, s.remotePath("y"), "{")
		}, []string{"source found leftover", "source found leftover"}, nil, []string{"source removed leftover", "source removed leftover"}, 3},
		{"object of nobody", func(t *testing.T, s names) {
			if err := s.PutDocument(digestOf([]byte("zz")), []byte("zz")); err != nil {
				t.Fatal(err)
			}
		}, []string{"layer found leftover"}, nil, []string{"layer removed leftover"}, 3},
		{"partial files", func(t *testing.T, s names) {
			for _, p := range []string{s.TempFor("x"), s.path("records", "images", ".x")} {
				overwrite(t, p, "x")
				age(t, p)
			}
			overwrite(t, s.TempFor("young"), "x")
		}, []string{"temporary found leftover", "temporary found leftover"}, nil, []string{"temporary removed leftover", "temporary removed leftover"}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := names{Store: open(t)}
			s.aci = put(t, s.Store, acitest.Tar(t, acitest.Manifest("example.com/aci", "1"), acitest.Reg("f", "x", 0o644)), ImportOptions{})
			base, upper := layer(t, "base"), layer(t, "upper")
			s.layered, s.layer = putLayers(t, s.Store, "example.com/layered", base, upper)
			s.other, _ = putLayers(t, s.Store, "example.com/other", base)
			c.damage(t, s)
			if diff := cmp.Diff(c.found, fsck(t, s.Store, FsckOptions{})); diff != "" {
				t.Error("found:", diff)
			}
			if c.quick == nil {
				c.quick = c.found
			}
			if diff := cmp.Diff(c.quick, fsck(t, s.Store, FsckOptions{Quick: true})); diff != "" {
				t.Error("quickly found:", diff)
			}
			if diff := cmp.Diff(c.repaired, fsck(t, s.Store, FsckOptions{Repair: true})); diff != "" {
				t.Error("repaired:", diff)
			}
			if diff := cmp.Diff([]string{}, fsck(t, s.Store, FsckOptions{})); diff != "" {
				t.Error("still there:", diff)
			}
			records, err := s.Records()
			if err != nil || len(records) != c.images {
				t.Errorf("%d images stay: %v", len(records), err)
			}
			for _, r := range records {
				if !s.Complete(r) {
					t.Errorf("image %q is not complete", r.Name)
				}
				if _, err := s.Find(r.Name, nil); err != nil {
					t.Error(err)
				}
			}
			// Whatever went can be brought again.
			put(t, s.Store, acitest.Tar(t, acitest.Manifest("example.com/aci", "1"), acitest.Reg("f", "x", 0o644)), ImportOptions{})
			putLayers(t, s.Store, "example.com/layered", base, upper)
			putLayers(t, s.Store, "example.com/other", base)
			if diff := cmp.Diff([]string{}, fsck(t, s.Store, FsckOptions{})); diff != "" {
				t.Error("after fetching again:", diff)
			}
		})
	}
}

// TestFsckInUse checks that what somebody reads is left alone.
func TestFsckInUse(t *testing.T) {
	s := open(t)
	r := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/aci", "1")), ImportOptions{})
	flip(t, s.blobPath(r.Key))
	b, err := s.ReadBlob(r.Key)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"blob in use"}, fsck(t, s, FsckOptions{Repair: true})); diff != "" {
		t.Error(diff)
	}
	b.Close()
	if diff := cmp.Diff([]string{"blob removed"}, fsck(t, s, FsckOptions{Repair: true})); diff != "" {
		t.Error(diff)
	}
}

// TestSummaries checks that the quick list shows what the records say.
func TestSummaries(t *testing.T) {
	s := open(t)
	put(t, s, acitest.Tar(t, acitest.Manifest("example.com/aci", "1")), ImportOptions{Source: "x", Latest: true})
	putLayers(t, s, "example.com/layered", layer(t, "base"))
	overwrite(t, s.recordPath("sha512-"+fmt.Sprintf("%064x", 1)), "{")
	want, wantErr := s.Records()
	for i := range want {
		want[i].Layers, want[i].Documents, want[i].Stored, want[i].Compressed = nil, nil, 0, 0
	}
	got, err := s.Summaries()
	if diff := cmp.Diff(want, got); diff != "" || err == nil || err.Error() != wantErr.Error() {
		t.Error(diff, err, wantErr)
	}
}

func layer(t testing.TB, name string) []byte {
	return acitest.Entries(t, acitest.Reg(name, name, 0o644))
}

func overwrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// flip changes a byte in the content of an archive, or the last of a document.
func flip(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := len(b) - 1
	if len(b) > 512 {
		i = 512
	}
	b[i] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

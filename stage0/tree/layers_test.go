package tree

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// layerTar makes a layer of lines: "a/" a directory, "a=x" a file, "a->b" a
// symbolic link, "a=>b" a hard link; "@MODE" may follow.
func layerTar(t testing.TB, lines ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, line := range lines {
		h := &tar.Header{Mode: 0o644, ModTime: time.Unix(1000, 0), Typeflag: tar.TypeReg}
		if rest, mode, ok := strings.Cut(line, "@"); ok {
			line = rest
			if _, err := fmt.Sscanf(mode, "%o", &h.Mode); err != nil {
				t.Fatal(err)
			}
		} else if strings.HasSuffix(line, "/") {
			h.Mode = 0o755
		}
		content := ""
		if name, target, ok := strings.Cut(line, "->"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, name, target
		} else if name, target, ok := strings.Cut(line, "=>"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeLink, name, target
		} else if name, data, ok := strings.Cut(line, "="); ok {
			h.Name, content, h.Size = name, data, int64(len(data))
		} else if h.Name = line; strings.HasSuffix(line, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// putLayered imports an image of the given layers, lowest first.
func putLayered(t testing.TB, s *store.Store, layers ...[]byte) string {
	t.Helper()
	l := appc.Layered{Manifest: digestOf([]byte("m")), Config: digestOf([]byte("c")), ManifestType: "x"}
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
		want := store.Layer{Digest: d, DiffID: d, Size: int64(len(data))}
		if _, err := s.ImportLayer(t.Context(), tmp, bytes.NewReader(data), want, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, doc := range []string{"m", "c"} {
		if err := s.PutDocument(digestOf([]byte(doc)), []byte(doc)); err != nil {
			t.Fatal(err)
		}
	}
	value, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{
		"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/layered",
		"annotations": []map[string]string{{"name": appc.LayersAnnotation, "value": string(value)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.ImportLayered(t.Context(), manifest, &l, store.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Key
}

// mergedListing describes what an overlay of the tree shows.
func mergedListing(t testing.TB, tree *Tree) []string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "merged")
	if err := Copy(t.Context(), tree.Lowers(), dst); err != nil {
		t.Fatal(err)
	}
	return listing(t, dst)
}

// TestLayers checks what layers come to (OCI image layer filesystem changeset).
// check list: 60
func TestLayers(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]string
		want   []string // nil: an error
	}{
		{"one", [][]string{{"a=1", "d/", "d/b=2"}}, []string{"/", "a = 1", "d/", "d/b = 2"}},
		{"upper wins", [][]string{{"a=1", "b=1"}, {"a=2"}}, []string{"/", "a = 2", "b = 1"}},
		{"whiteout", [][]string{{"a=1", "b=1"}, {".wh.a"}}, []string{"/", "b = 1"}},
		{"whiteout of nothing", [][]string{{"a=1"}, {".wh.x"}}, []string{"/", "a = 1"}},
		{"whiteout in the lowest layer", [][]string{{".wh.a", "a=1"}}, []string{"/", "a = 1"}},
		{"whiteout before its own file", [][]string{{"a=1"}, {".wh.a", "a=2"}}, []string{"/", "a = 2"}},
		{"whiteout after its own file", [][]string{{"a=1"}, {"a=2", ".wh.a"}}, []string{"/", "a = 2"}},
		{"whiteout and new directory", [][]string{{"d/", "d/old=1"}, {".wh.d", "d/", "d/new=2"}}, []string{"/", "d/", "d/new = 2"}},
		{"new directory, then whiteout", [][]string{{"d/", "d/old=1"}, {"d/", "d/new=2", ".wh.d"}}, []string{"/", "d/", "d/new = 2"}},
		{"opaque first", [][]string{{"d/", "d/old=1"}, {"d/", "d/.wh..wh..opq", "d/new=2"}}, []string{"/", "d/", "d/new = 2"}},
		{"opaque last", [][]string{{"d/", "d/old=1"}, {"d/", "d/new=2", "d/.wh..wh..opq"}}, []string{"/", "d/", "d/new = 2"}},
		{"opaque without an entry of its directory", [][]string{{"d/", "d/old=1"}, {"d/.wh..wh..opq"}}, []string{"/", "d/"}},
		{"opaque root", [][]string{{"a=1"}, {".wh..wh..opq", "b=2"}}, []string{"/", "b = 2"}},
		{"opaque hides depth", [][]string{{"d/", "d/e/", "d/e/x=1"}, {"d/", "d/.wh..wh..opq", "d/e/", "d/e/y=2"}}, []string{"/", "d/", "d/e/", "d/e/y = 2"}},
		{"aufs marks are skipped", [][]string{{".wh..wh.aufs", ".wh..wh.plnk/", ".wh..wh.orph/", "a=1"}}, []string{"/", "a = 1"}},
		{"whiteout of dot", [][]string{{".wh.."}}, nil},
		{"whiteout of dot dot", [][]string{{".wh..."}}, nil},
		{"whiteout of no name", [][]string{{".wh."}}, nil},
		{"file over directory", [][]string{{"d/", "d/x=1"}, {"d=2"}}, []string{"/", "d = 2"}},
		{"directory over file", [][]string{{"d=1"}, {"d/", "d/x=2"}}, []string{"/", "d/", "d/x = 2"}},
		{"link over directory", [][]string{{"d/", "d/x=1", "e/"}, {"d->e"}}, []string{"/", "d -> e", "e/"}},
		{"directory over link", [][]string{{"e/", "e/x=1", "d->e"}, {"d/", "d/y=2"}}, []string{"/", "d/", "d/y = 2", "e/", "e/x = 1"}},
		{"file through a lower link", [][]string{{"usr/", "usr/bin/", "bin->usr/bin"}, {"bin/sh=x"}}, []string{"/", "bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/sh = x"}},
		{"file through an absolute lower link", [][]string{{"usr/", "bin->/usr"}, {"bin/sh=x"}}, []string{"/", "bin -> /usr", "usr/", "usr/sh = x"}},
		{"file through a link that leaves", [][]string{{"bin->../../../etc"}, {"bin/sh=x"}}, []string{"/", "bin -> ../../../etc", "etc/", "etc/sh = x"}},
		{"file through an own link", [][]string{{"a->b", "a/x=1"}}, []string{"/", "a -> b", "b/", "b/x = 1"}},
		{"own link that becomes a directory", [][]string{{"a->b", "a/x=1", "a/", "a/y=2"}}, []string{"/", "a/", "a/y = 2", "b/", "b/x = 1"}},
		{"lower link that becomes a directory", [][]string{{"b/", "a->b"}, {"a/x=1", "a/", "a/y=2"}}, []string{"/", "a/", "a/y = 2", "b/", "b/x = 1"}},
		{"link circle", [][]string{{"a->b", "b->a"}, {"a/x=1"}}, nil},
		{"whiteout through a lower link", [][]string{{"usr/", "usr/x=1", "u->usr"}, {"u/.wh.x"}}, []string{"/", "u -> usr", "usr/"}},
		{"late whiteout of a link gone through", [][]string{{"e/", "d->e"}, {"d/x=1", ".wh.d"}}, []string{"/", "d/", "d/x = 1", "e/"}},
		{"hard link", [][]string{{"a=1", "b=>a"}}, []string{"/", "a = 1", "b = 1"}},
		{"hard link to a lower file", [][]string{{"a=1"}, {"b=>a"}}, []string{"/", "a = 1", "b = 1"}},
		{"hard link to a lower file taken away", [][]string{{"a=1"}, {"b=>a", ".wh.a"}}, []string{"/", "b = 1"}},
		{"hard link to nothing", [][]string{{"b=>a"}}, nil},
		{"hard link to a directory", [][]string{{"d/"}, {"b=>d"}}, nil},
		{"hard link to outside", [][]string{{"b=>../../etc/passwd"}}, nil},
		{"hard link to itself", [][]string{{"a=1", "a=>a"}}, nil},
		{"last of two wins", [][]string{{"a=1", "a=2"}}, []string{"/", "a = 2"}},
		{"three layers", [][]string{{"d/", "d/a=1", "d/b=1"}, {"d/.wh.a"}, {"d/a=3"}}, []string{"/", "d/", "d/a = 3", "d/b = 1"}},
		{"hidden, then made again", [][]string{{"d/", "d/a=1"}, {".wh.d"}, {"d/", "d/b=3"}}, []string{"/", "d/", "d/b = 3"}},
		{"name with dots", [][]string{{"../x=1"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, trees := open(t)
			var layers [][]byte
			for _, l := range c.layers {
				layers = append(layers, layerTar(t, l...))
			}
			if c.want == nil && strings.Contains(c.name, "dots") { // found while importing
				tmp, _ := lock.Path(s.LayerTemp(digestOf(layers[0])), lock.Exclusive)
				defer tmp.Close()
				_, err := s.ImportLayer(t.Context(), tmp, bytes.NewReader(layers[0]), store.Layer{Digest: digestOf(layers[0])}, nil)
				if var2 := new(store.ContentError); !errors.As(err, &var2) {
					t.Errorf("imported: %v", err)
				}
				return
			}
			key := putLayered(t, s, layers...)
			tree, err := trees.Render(t.Context(), key)
			if c.want == nil {
				if err == nil {
					t.Errorf("rendered: %v", mergedListing(t, tree))
				}
				if ids, _ := trees.ids(); len(ids) >= len(layers) {
					t.Errorf("left %v", ids)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, mergedListing(t, tree)); diff != "" {
				t.Error(diff)
			}
			if err := trees.Verify(t.Context(), tree); err != nil {
				t.Error(err)
			}
			compareOverlay(t, tree, c.want)
		})
	}
}

// compareOverlay looks at the tree as the kernel shows it.
func compareOverlay(t *testing.T, tree *Tree, want []string) {
	if os.Geteuid() != 0 || SupportsOverlay(tree.Path()) != nil {
		return
	}
	dir := t.TempDir()
	for _, d := range []string{"upper", "work", "target"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	type result struct {
		list []string
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its mounts
		var r result
		defer func() { done <- r }() // also when listing gives up
		if r.err = sys.PrivateMounts(); r.err == nil {
			o := Overlay{Lower: tree.Lowers(), Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
			if r.err = o.Mount(filepath.Join(dir, "target")); r.err == nil {
				r.list = listing(t, filepath.Join(dir, "target"))
			}
		}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	if diff := cmp.Diff(want, r.list); diff != "" {
		t.Errorf("the kernel's overlay: %s", diff)
	}
}

// TestLayersShared checks that images share what they have in common, and that
// collecting takes what nothing is made of any more.
func TestLayersShared(t *testing.T) {
	s, trees := open(t)
	base, mid := layerTar(t, "a=1", "d/@1777"), layerTar(t, "d/b=2")
	one := putLayered(t, s, base, mid)
	first, err := trees.Render(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	second, err := trees.Render(t.Context(), putLayered(t, s, base, mid, layerTar(t, "c=3")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.Lowers(), second.Lowers()[1:]); diff != "" {
		t.Error("not shared", diff)
	}
	if st, err := os.Stat(filepath.Join(first.Lowers()[0], "d")); err != nil || st.Mode().Perm() != 0o777 || st.Mode()&os.ModeSticky == 0 {
		t.Errorf("an implied directory lost the mode of the lower one: %v %v", st.Mode(), err)
	}
	n, _, err := trees.Collect(t.Context(), func(id string) bool { return id == first.ID }, false)
	if err != nil || n != 2 {
		t.Errorf("collected %d: %v", n, err)
	}
	if err := trees.Verify(t.Context(), first); err != nil {
		t.Error(err)
	}
	if n, _, err = trees.Collect(t.Context(), func(string) bool { return false }, false); err != nil || n != 3 {
		t.Errorf("collected %d: %v", n, err)
	}
	if _, err := trees.Get(first.ID); !errors.Is(err, ErrNotRendered) {
		t.Error(err)
	}
}

// TestLayersSquashed checks images of more layers than an overlay takes.
func TestLayersSquashed(t *testing.T) {
	s, trees := open(t)
	want := []string{"/"}
	var layers [][]byte
	for i := range maxLowers + 2 {
		layers = append(layers, layerTar(t, fmt.Sprintf("f%03d=%d", i, i)))
		want = append(want, fmt.Sprintf("f%03d = %d", i, i))
	}
	tree, err := trees.Render(t.Context(), putLayered(t, s, layers...))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Lowers()) != 1 {
		t.Errorf("%d lower directories", len(tree.Lowers()))
	}
	if diff := cmp.Diff(want, mergedListing(t, tree)); diff != "" {
		t.Error(diff)
	}
	if err := trees.Verify(t.Context(), tree); err != nil {
		t.Error(err)
	}
}

// TestRepairLayer checks that a changed layer is noticed and made again.
func TestRepairLayer(t *testing.T) {
	s, trees := open(t)
	key := putLayered(t, s, layerTar(t, "a=1"), layerTar(t, "b=2"))
	tree, err := trees.Render(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(tree.Lowers()[1], "a")); err != nil {
		t.Fatal(err)
	}
	if err := trees.Verify(t.Context(), tree); !errors.Is(err, ErrChanged) {
		t.Errorf("not noticed: %v", err)
	}
	if tree, err = trees.Repair(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/", "a = 1", "b = 2"}, mergedListing(t, tree)); diff != "" {
		t.Error(diff)
	}
	if err := trees.Verify(t.Context(), tree); err != nil {
		t.Error(err)
	}
}

package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/store"
)

// flatListing describes what flattening an image comes to, hard links and
// metadata included.
func flatListing(t testing.TB, trees *Trees, key string) ([]string, error) {
	t.Helper()
	f, err := trees.flatten(t.Context(), key)
	if err != nil {
		return nil, err
	}
	lines := map[string]string{}
	links := map[string]string{}
	err = f.write(t.Context(), func(rel string, h *tar.Header, body io.Reader) error {
		if h.Typeflag == tar.TypeLink {
			links[rel] = h.Linkname
			return nil
		}
		data, err := io.ReadAll(body)
		lines[rel] = flatLine(h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime, h.Linkname, string(data))
		return err
	})
	if err != nil {
		return nil, err
	}
	// The name that stands for a file is the first of its names.
	for rel, to := range links {
		lines[rel] = lines[to]
	}
	first := map[string]string{}
	for rel := range lines {
		to := rel
		if l, ok := links[rel]; ok {
			to = l
		}
		if have, ok := first[to]; !ok || rel < have {
			first[to] = rel
		}
	}
	var out []string
	for rel, line := range lines {
		to := rel
		if l, ok := links[rel]; ok {
			to = l
		}
		if first[to] != rel {
			line = "same as " + first[to]
		}
		out = append(out, "/"+rel+" "+line)
	}
	slices.Sort(out)
	return out, nil
}

func flatLine(typ byte, mode int64, uid, gid int, mtime time.Time, target, data string) string {
	if typ == tar.TypeSymlink {
		mode = 0o777
	}
	return fmt.Sprintf("%c %o %d:%d %d -> %q = %q", typ, mode, uid, gid, mtime.UnixNano(), target, data)
}

// treeListing describes a rendered tree in the same way.
func treeListing(t testing.TB, lowers []string) []string {
	t.Helper()
	var out []string
	first := map[inode]string{}
	lines := map[string]string{}
	ids := map[string]inode{}
	err := walkMerged(lowers, func(e entry) error {
		typ, target, data := byte(tar.TypeReg), "", ""
		switch e.stat.Type() {
		case sys.S_IFDIR:
			typ = tar.TypeDir
		case sys.S_IFLNK:
			typ = tar.TypeSymlink
			var err error
			if target, err = sys.Readlinkat(e.dir, e.name); err != nil {
				return err
			}
		case sys.S_IFIFO:
			typ = tar.TypeFifo
		case sys.S_IFREG:
			fd, err := e.openRead()
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), e.rel)
			defer f.Close()
			b, err := io.ReadAll(f)
			if err != nil {
				return err
			}
			data = string(b)
		}
		lines[e.rel] = flatLine(typ, int64(e.stat.Mode&0o7777), int(e.stat.UID), int(e.stat.GID), e.stat.Mtime, target, data)
		id := inode{e.stat.Dev, e.stat.Inode}
		ids[e.rel] = id
		if have, ok := first[id]; !ok || e.rel < have {
			first[id] = e.rel
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for rel, line := range lines {
		if to := first[ids[rel]]; to != rel {
			line = "same as " + to
		}
		out = append(out, "/"+rel+" "+line)
	}
	slices.Sort(out)
	return out
}

// compareFlat compares the two ways to put an image's layers together.
func compareFlat(t *testing.T, s *store.Store, trees *Trees, layers ...[]byte) {
	t.Helper()
	key := putLayered(t, s, layers...)
	tree, renderErr := trees.Render(t.Context(), key)
	flat, flatErr := flatListing(t, trees, key)
	if renderErr != nil || flatErr != nil {
		if (renderErr == nil) != (flatErr == nil) {
			t.Errorf("rendering: %v, flattening: %v", renderErr, flatErr)
		}
		return
	}
	if diff := cmp.Diff(treeListing(t, tree.Lowers()), flat); diff != "" {
		t.Errorf("rendered (-) and flattened (+) differ: %s", diff)
	}
}

// fuzzLayers makes small layers of bytes, with few names so that they meet.
func fuzzLayers(t testing.TB, data []byte) [][]byte {
	names := []string{"a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "l/a", "l/e/b", "d/l", "d/l/a"}
	targets := []string{"d", "a", "/d", "..", "../d/e", "l", "d/e", "/d/l", "nowhere"}
	var layers [][]byte
	var lines []string
	flush := func() {
		layers = append(layers, layerTar(t, lines...))
		lines = nil
	}
	for len(data) >= 3 && len(layers) < 4 {
		op, x, y := data[0], data[1], data[2]
		data = data[3:]
		name := names[int(x)%len(names)]
		other := names[int(y)%len(names)]
		switch op % 9 {
		case 0, 1:
			lines = append(lines, fmt.Sprintf("%s=%d@%o", name, y, 0o600+int(y%4)))
		case 2:
			lines = append(lines, fmt.Sprintf("%s/@%o", name, 0o700+int(y%8)))
		case 3:
			lines = append(lines, name+"->"+targets[int(y)%len(targets)])
		case 4:
			lines = append(lines, name+"=>"+other)
		case 5:
			lines = append(lines, filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name)))
		case 6:
			lines = append(lines, name+"/.wh..wh..opq")
		case 7:
			lines = append(lines, "/"+name+"=")
		case 8:
			flush()
		}
	}
	flush()
	return layers
}

// FuzzLayers puts layers together in the two ways that know nothing of each
// other: on the disk for overlayfs, and in memory.
// check list: 60
func FuzzLayers(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root: whiteouts are devices")
	}
	for _, seed := range [][]byte{
		{0, 0, 1, 8, 0, 0, 5, 0, 0}, {2, 2, 0, 3, 7, 0, 8, 0, 0, 0, 8, 1, 5, 7, 0}, {0, 3, 0, 4, 1, 3, 8, 0, 0, 4, 0, 1, 5, 1, 0},
		{2, 2, 1, 0, 3, 1, 8, 0, 0, 6, 2, 0, 0, 4, 0}, {3, 7, 0, 2, 2, 0, 0, 8, 0, 2, 7, 0, 0, 8, 1}, {0, 6, 1, 8, 0, 0, 0, 2, 1, 8, 0, 0, 2, 5, 0},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 120 {
			t.Skip()
		}
		s, trees := open(t)
		compareFlat(t, s, trees, fuzzLayers(t, data)...)
	})
}

// TestFlattenLikeRender compares both ways where fuzzing found differences, or
// could have.
func TestFlattenLikeRender(t *testing.T) {
	needRoot(t)
	for _, c := range [][][]string{
		{{"a=1", "b=>a", "c=>b"}, {"c=2"}, {"d=>a"}},                          // a link to a lower file of two names
		{{"a=1", "b=>a"}, {"b=>a", ".wh.b"}},                                  // a whiteout of a link's own name
		{{"a=1", "b=>a"}, {"c=>a", ".wh.a", "d=>b"}},                          // a brought up name goes
		{{"d/@1777", "d/e/@711", "d/e/a=1"}, {"d/e/b=2", ".wh.d"}},            // implied, then hidden
		{{"d/@1777", "d/e/@711", "d/e/a=1"}, {"d/.wh.e", "d/e/b=2"}},          // hidden, then implied
		{{"a->b", "a/x=1", "a/", "a/y=2"}},                                    // a link that becomes a directory
		{{"d/", "d/a=1"}, {"d=2", "d/", "d/b=3"}},                             // through a file and back
		{{"s->a", "t=>s", "a="}, {"u=>s"}},                                    // hard links to symbolic links
		{{"d/", "d/e/", "l->d"}, {"l/e/x=1", "l/.wh.e"}, {"d/.wh..wh..opq"}},  // all at once
		{{"a=1"}, {"d=>a", "d/=>a"}, {".wh.d", "d/", "d/.wh..wh..opq"}, {""}}, // nothing of it may panic
	} {
		var layers [][]byte
		for _, l := range c {
			layers = append(layers, layerTar(t, slices.DeleteFunc(l, func(s string) bool { return s == "" })...))
		}
		s, trees := open(t)
		compareFlat(t, s, trees, layers...)
	}
}

func writeACI(t testing.TB, trees *Trees, key string) ([]byte, string) {
	t.Helper()
	var buf bytes.Buffer
	id, err := trees.WriteACI(t.Context(), &buf, key)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), id
}

// TestWriteACI checks that an image made of layers becomes one archive, always
// the same, that comes to the same tree.
func TestWriteACI(t *testing.T) {
	needRoot(t)
	s, trees := open(t)
	key := putLayered(t, s,
		layerTar(t, "d/@1777", "d/a=one@4755", "b=>d/a", "gone=x", "l->d"),
		layerTar(t, ".wh.gone", "l/c=two", "e=", "d2=>b"))
	data, id := writeACI(t, trees, key)
	again, _ := writeACI(t, trees, key)
	if !bytes.Equal(data, again) || id != acitest.ID(t, data) {
		t.Error("the archive is not always the same")
	}
	r, err := s.Import(t.Context(), bytes.NewReader(data), store.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	layered, err := trees.Render(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := trees.Render(t.Context(), r.Key)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(treeListing(t, layered.Lowers()), treeListing(t, tree.Lowers())); diff != "" {
		t.Error(diff)
	}
	if r.Name != "example.com/layered" {
		t.Errorf("it is named %q", r.Name)
	}
}

// TestWriteLayer checks the layer of an image with dependencies and white
// lists, and names that a layer cannot hold.
func TestWriteLayer(t *testing.T) {
	s, trees := open(t)
	put(t, s, acitest.Tar(t, acitest.Manifest("example.com/base", "1"), acitest.Dir("etc", 0o711), acitest.Reg("etc/a", "1", 0o600),
		acitest.Link("etc/b", "etc/a"), acitest.Reg("no", "x", 0o644)))
	top := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/top", "1",
		`"dependencies":[{"imageName":"example.com/base"}],"pathWhitelist":["/etc/b","/c"]`), acitest.Reg("c", "2", 0o644), acitest.Reg("d", "3", 0o644)))
	var buf bytes.Buffer
	if err := trees.WriteLayer(t.Context(), &buf, top); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		got = append(got, fmt.Sprintf("%s %o %s", h.Name, h.Mode, data))
	}
	if diff := cmp.Diff([]string{"./ 755 ", "etc/ 711 ", "etc/b 600 1", "c 644 2"}, got); diff != "" {
		t.Error(diff)
	}
	bad := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/bad", "1"), acitest.Reg(".wh.x", "", 0o644)))
	if err := trees.WriteLayer(t.Context(), io.Discard, bad); err == nil || !strings.Contains(err.Error(), ".wh.x") {
		t.Errorf("a file that would be a whiteout: %v", err)
	}
}

// TestExtract checks what extract and render are made of: the image's own
// files, and the merged view.
// check list: 48
func TestExtract(t *testing.T) {
	s, trees := open(t)
	put(t, s, acitest.Tar(t, acitest.Manifest("example.com/base", "1"), acitest.Reg("base", "1", 0o644)))
	top := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/top", "1", `"dependencies":[{"imageName":"example.com/base"}]`), acitest.Reg("own", "2", 0o644),
		acitest.Link("other", "own")))
	layered := putLayered(t, s, layerTar(t, "a=1", "b=1"), layerTar(t, ".wh.a", "c=>b"))
	for _, c := range []struct {
		key  string
		deps bool
		want []string
	}{
		{top, false, []string{"/", "other = 2", "own = 2"}},
		{top, true, []string{"/", "base = 1", "other = 2", "own = 2"}},
		{layered, false, []string{"/", "b = 1", "c = 1"}},
		{layered, true, []string{"/", "b = 1", "c = 1"}},
	} {
		dir := t.TempDir()
		if err := trees.Extract(t.Context(), c.key, dir, c.deps); err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(c.want, listing(t, filepath.Join(dir, "rootfs"))); diff != "" {
			t.Error(diff)
		}
		m, err := os.ReadFile(filepath.Join(dir, "manifest"))
		want, _ := s.ManifestBytes(c.key)
		if err != nil || !bytes.Equal(m, want) {
			t.Errorf("the manifest differs: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "tree")); err == nil {
		t.Error("extracting left trees")
	}
}

// TestFlattenDamaged checks that damaged bytes are never written out as good.
func TestFlattenDamaged(t *testing.T) {
	s, trees := open(t)
	data := layerTar(t, "a=one", "b=two")
	key := putLayered(t, s, data)
	path := filepath.Join(s.Dir(), "objects", "sha256", digestOf(data)[7:9], digestOf(data)[7:])
	if err := os.WriteFile(path, bytes.Replace(data, []byte("one"), []byte("eno"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := trees.WriteACI(t.Context(), io.Discard, key); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged layer: %v", err)
	}
	if err := trees.Extract(t.Context(), key, t.TempDir(), true); err == nil {
		t.Error("a damaged layer is extracted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := trees.WriteACI(ctx, io.Discard, key); err == nil {
		t.Error("not cancelled")
	}
}

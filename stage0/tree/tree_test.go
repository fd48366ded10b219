package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/store"
)

func open(t testing.TB) (*store.Store, *Trees) {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "cas"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	trees, err := Open(s, Options{Warn: func(text string) { t.Log(text) }})
	if err != nil {
		t.Fatal(err)
	}
	return s, trees
}

func put(t testing.TB, s *store.Store, data []byte) string {
	t.Helper()
	r, err := s.Import(t.Context(), bytes.NewReader(data), store.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Key
}

// listing describes a tree: "name mode target-or-content".
func listing(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := walk(root, func(e entry) error {
		line := e.rel
		switch e.stat.Type() {
		case sys.S_IFDIR:
			line += "/"
		case sys.S_IFLNK:
			target, err := sys.Readlinkat(e.dir, e.name)
			if err != nil {
				return err
			}
			line += " -> " + target
		case sys.S_IFREG:
			data, err := os.ReadFile(filepath.Join(root, e.rel))
			if err != nil {
				return err
			}
			line += " = " + string(data)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners and devices")
	}
}

func TestRender(t *testing.T) {
	needRoot(t)
	s, trees := open(t)
	when := time.Unix(1e9, 500)
	capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	suid := acitest.Reg("bin/su", "su", 0o4755)
	suid.Uid, suid.Gid = 0, 7
	suid.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.x": "y",
		"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.security.selinux": "z",
		"SCHILY.xattr.user.nul": "a\x00b"[:1],
	}
	dir := acitest.Dir("etc", 0o711)
	dir.ModTime = when
	owned := acitest.Reg("etc/owned", "", 0o600)
	owned.Uid, owned.Gid = 70000, 1<<31
	symlink := acitest.Symlink("etc/abs", "/etc/owned")
	symlink.ModTime, symlink.Uid = when, 5
	fifo := acitest.File{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "rootfs/fifo", Mode: 0o622}}
	null := acitest.File{Header: tar.Header{Typeflag: tar.TypeChar, Name: "rootfs/null", Mode: 0o666, Devmajor: 1, Devminor: 3}}
	key := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "1"),
		dir, suid, owned, symlink, fifo, null, acitest.Link("etc/hard", "bin/su"), acitest.Link("etc/abs2", "etc/abs"),
		acitest.Reg("deep/er/file", "x", 0o640)))
	tree, err := trees.Render(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	check := func(root string) {
		t.Helper()
		want := []string{"/", "bin/", "bin/su = su", "deep/", "deep/er/", "deep/er/file = x", "etc/", "etc/abs -> /etc/owned",
			"etc/abs2 -> /etc/owned", "etc/hard = su", "etc/owned = ", "fifo", "null"}
		if diff := cmp.Diff(want, listing(t, root)); diff != "" {
			t.Error(diff)
		}
		stat := func(name string) sys.Stat {
			st, err := sys.Lstatat(sys.CWD, filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			return st
		}
		if st := stat("bin/su"); st.Mode&0o7777 != 0o4755 || st.GID != 7 || !st.Mtime.Equal(acitest.Mtime()) || st.Nlink != 2 {
			t.Errorf("bin/su: %+v", st)
		}
		if stat("bin/su").Inode != stat("etc/hard").Inode || stat("etc/abs").Inode != stat("etc/abs2").Inode {
			t.Error("hard links were broken up")
		}
		if st := stat("etc"); st.Mode&0o7777 != 0o711 || !st.Mtime.Equal(when) {
			t.Errorf("etc: %+v", st)
		}
		if st := stat("etc/owned"); st.UID != 70000 || st.GID != 1<<31 {
			t.Errorf("etc/owned: %+v", st)
		}
		if st := stat("etc/abs"); !st.Mtime.Equal(when) || st.UID != 5 {
			t.Errorf("etc/abs: %+v", st)
		}
		if st := stat("null"); st.Type() != sys.S_IFCHR || sys.Major(st.Rdev) != 1 || sys.Minor(st.Rdev) != 3 || st.Mode&0o777 != 0o666 {
			t.Errorf("null: %+v", st)
		}
		if st := stat("fifo"); st.Type() != sys.S_IFIFO || st.Mode&0o777 != 0o622 {
			t.Errorf("fifo: %+v", st)
		}
		f, err := os.Open(filepath.Join(root, "bin/su"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		names, err := sys.Flistxattr(int(f.Fd()))
		slices.Sort(names)
		if diff := cmp.Diff([]string{"security.capability", "user.nul", "user.x"}, names); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
	check(tree.Rootfs())

	again, err := trees.Render(t.Context(), key)
	if err != nil || again.ID != tree.ID || again.Key != tree.Key {
		t.Error(again, err)
	}
	if got, err := trees.Get(tree.ID); err != nil || got.ID != tree.ID || got.Key != tree.Key {
		t.Error(got, err)
	}
	if r, _ := s.Record(key); r.TreeSize != 3 {
		t.Errorf("tree size %d", r.TreeSize)
	}
	if err := trees.Verify(t.Context(), tree); err != nil {
		t.Error(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := Copy(t.Context(), tree.Lowers(), copied); err != nil {
		t.Fatal(err)
	}
	check(copied)
	if a, _ := hashTree(t.Context(), copied); a == "" {
		t.Error("no hash")
	} else if b, _ := hashTree(t.Context(), tree.Rootfs()); a != b {
		t.Error("the copy's hash differs")
	}

	if err := os.Chmod(filepath.Join(tree.Rootfs(), "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := trees.Verify(t.Context(), tree); !errors.Is(err, ErrChanged) {
		t.Error(err)
	}
	if _, err := trees.Repair(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := trees.Verify(t.Context(), tree); err != nil {
		t.Error(err)
	}
	if err := trees.Remove(t.Context(), tree.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := trees.Get(tree.ID); !errors.Is(err, ErrNotRendered) {
		t.Error(err)
	}
	if r, _ := s.Record(key); r.TreeSize != 0 {
		t.Errorf("tree size %d", r.TreeSize)
	}
}

func TestUnfinishedTree(t *testing.T) {
	s, trees := open(t)
	key := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", "x", 0o644)))
	tree, err := trees.Render(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	// As after a crash: no mark, a stray file.
	if err := os.Remove(filepath.Join(tree.Path(), renderedFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree.Rootfs(), "stray"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := trees.Find(key); !errors.Is(err, ErrNotRendered) {
		t.Error(err)
	}
	if _, err := trees.Render(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/", "f = x"}, listing(t, tree.Rootfs())); diff != "" {
		t.Error(diff)
	}
}

func TestDamagedStore(t *testing.T) {
	s, trees := open(t)
	key := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", "good", 0o644)))
	for file, want := range map[string]string{"blob": "damaged", "imageManifest": "not the image's own"} {
		path := filepath.Join(s.Dir(), file, "sha512", key[7:9], key)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Replace(bytes.Replace(data, []byte("good"), []byte("evil"), 1), []byte(`"1"`), []byte(`"2"`), 1)
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := trees.Render(t.Context(), key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", file, err, want)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := trees.Render(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := tree.Manifest(); err != nil || m.Name != "example.com/a" {
		t.Error(m, err)
	}
}

// check list: 54, 57, 58
func TestDependencies(t *testing.T) {
	s, trees := open(t)
	d := put(t, s, acitest.Tar(t, `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/d"}`,
		acitest.Reg("d", "d", 0o644), acitest.Reg("all", "d", 0o644), acitest.Dir("dir", 0o750), acitest.Reg("dir/d", "d", 0o644),
		acitest.Symlink("link", "dir"), acitest.Reg("thing/below", "d", 0o644)))
	put(t, s, acitest.Tar(t, acitest.Manifest("example.com/b", "", `"dependencies":[{"imageName":"example.com/d"}]`, `"pathWhitelist":["/b","/dir/d","/all","/hard"]`),
		acitest.Reg("b", "b", 0o644), acitest.Reg("all", "b", 0o644), acitest.Reg("hidden", "h", 0o644), acitest.Link("hard", "hidden")))
	put(t, s, acitest.Tar(t, acitest.Manifest("example.com/c", "", `"dependencies":[{"imageName":"example.com/d","imageID":"`+recordID(t, s, d)+`"}]`),
		acitest.Reg("link/c", "c", 0o644), acitest.Reg("thing", "c", 0o644)))
	a := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "", `"dependencies":[{"imageName":"example.com/b"},{"imageName":"example.com/c"}]`),
		acitest.Reg("a", "a", 0o644)))
	tree, err := trees.Render(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/", "a = a", "all = d", "b = b", "d = d", "dir/", "dir/d = d", "hard = h", "link/", "link/c = c", "thing = c"}
	if diff := cmp.Diff(want, listing(t, tree.Rootfs())); diff != "" {
		t.Error(diff)
	}
	// An outer list applies to everything below it.
	w := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/w", "", `"dependencies":[{"imageName":"example.com/b"}]`, `"pathWhitelist":["/dir/d","/b","/d","/own"]`),
		acitest.Reg("own", "w", 0o644), acitest.Reg("other", "w", 0o644)))
	if tree, err = trees.Render(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/", "b = b", "dir/", "dir/d = d", "own = w"}, listing(t, tree.Rootfs())); diff != "" {
		t.Error(diff)
	}
	if st, err := os.Stat(filepath.Join(tree.Rootfs(), "dir")); err != nil || st.Mode().Perm() != 0o750 {
		t.Error("a needed parent lost its mode", st, err)
	}
	for _, c := range []struct{ name, deps, err string }{
		{"missing", `{"imageName":"example.com/x"}`, "no such image"},
		{"self", `{"imageName":"example.com/self"}`, "cycle"},
		{"size", `{"imageName":"example.com/d","size":17}`, "asks for 17"},
		{"pinned", `{"imageName":"example.com/b","imageID":"` + recordID(t, s, d) + `"}`, `is named "example.com/d"`},
		{"label", `{"imageName":"example.com/d","labels":[{"name":"version","value":"7"}]}`, "no such image"},
	} {
		key := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/"+c.name, "", `"dependencies":[`+c.deps+`]`)))
		if _, err := trees.Render(t.Context(), key); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
	}
	if list, err := trees.List(); len(list) != 2 || err != nil {
		t.Error(list, err)
	}
}

func recordID(t *testing.T, s *store.Store, key string) string {
	t.Helper()
	r, err := s.Record(key)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func entryOf(typ byte, name, link string) acitest.File {
	return acitest.File{Header: tar.Header{Typeflag: typ, Name: name, Linkname: link, Mode: 0o644}}
}

// TestHostile extracts archives that want out; they bypass the store, which
// refuses some of them already.
func TestHostile(t *testing.T) {
	root := acitest.File{Header: tar.Header{Typeflag: tar.TypeDir, Name: "rootfs", Mode: 0o755}}
	uid := acitest.Reg("x", "", 0o644)
	uid.Uid = 1<<32 - 1
	xattr := acitest.Reg("x", "", 0o644)
	xattr.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 70000)}
	for _, c := range []struct {
		name  string
		files []acitest.File
		err   string // "" is success
		want  []string
	}{
		{"dot dot", []acitest.File{entryOf(tar.TypeReg, "rootfs/../../x", "")}, "bad entry name", nil},
		{"only dot dot", []acitest.File{entryOf(tar.TypeDir, "..", "")}, "bad entry name", nil},
		{"double slash", []acitest.File{entryOf(tar.TypeReg, "//rootfs/x", "")}, "bad entry name", nil},
		{"absolute", []acitest.File{entryOf(tar.TypeReg, "/rootfs/x", "")}, "", []string{"/", "x = "}},
		{"outside", []acitest.File{entryOf(tar.TypeReg, "etc/x", "")}, "", []string{"/"}},
		{"write through absolute link", []acitest.File{acitest.Symlink("e", "@"), acitest.Reg("e/x", "", 0o644)}, "", []string{"/", "e/", "e/x = "}},
		{"write through relative link", []acitest.File{acitest.Symlink("e", "../../.."), acitest.Reg("e/x", "", 0o644)}, "", []string{"/", "e/", "e/x = "}},
		{"file over link", []acitest.File{acitest.Symlink("e", "@/canary"), acitest.Reg("e", "x", 0o644)}, "", []string{"/", "e = x"}},
		{"directory over link", []acitest.File{acitest.Symlink("e", "@"), acitest.Dir("e", 0o777)}, "", []string{"/", "e/"}},
		{"chain of links", []acitest.File{acitest.Symlink("a", "b"), acitest.Symlink("b", "@"), acitest.Reg("a/x", "", 0o644)}, "", []string{"/", "a/", "a/x = ", "b -> @"}},
		{"hard link through link", []acitest.File{acitest.Symlink("e", "@"), acitest.Link("x", "e/canary")}, "hard link", nil},
		{"hard link to link", []acitest.File{acitest.Symlink("e", "@/canary"), acitest.Link("x", "e")}, "", []string{"/", "e -> @/canary", "x -> @/canary"}},
		{"hard link then write", []acitest.File{acitest.Symlink("e", "@/canary"), acitest.Link("x", "e"), acitest.Reg("x", "y", 0o644)}, "", []string{"/", "e -> @/canary", "x = y"}},
		{"hard link dot dot", []acitest.File{entryOf(tar.TypeLink, "rootfs/x", "rootfs/../../canary")}, "bad entry name", nil},
		{"hard link to manifest", []acitest.File{entryOf(tar.TypeLink, "rootfs/x", "manifest")}, "outside", nil},
		{"hard link to absolute", []acitest.File{entryOf(tar.TypeLink, "rootfs/x", "/etc/passwd")}, "outside", nil},
		{"hard link to directory", []acitest.File{acitest.Dir("d", 0o755), acitest.Link("x", "d")}, "a directory", nil},
		{"hard link to itself", []acitest.File{acitest.Link("x", "x")}, "bad hard link", nil},
		{"hard link to nothing", []acitest.File{acitest.Link("x", "y")}, "no such file", nil},
		{"whiteout", []acitest.File{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "rootfs/x"}}}, "would hide", nil},
		{"device number", []acitest.File{{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "rootfs/x", Devmajor: 1 << 20}}}, "out of range", nil},
		{"owner", []acitest.File{uid}, "out of range", nil},
		{"xattr", []acitest.File{xattr}, "extended attributes", nil},
		{"rootfs is a link", []acitest.File{entryOf(tar.TypeSymlink, "rootfs", "/")}, "not a directory", nil},
		{"file in the way", []acitest.File{acitest.Reg("a", "x", 0o644), acitest.Reg("a/b", "y", 0o644)}, "", []string{"/", "a/", "a/b = y"}},
		{"directory becomes file", []acitest.File{acitest.Reg("a/b/c", "x", 0o644), acitest.Reg("a", "y", 0o644)}, "", []string{"/", "a = y"}},
		{"directory becomes link", []acitest.File{acitest.Reg("a/b", "x", 0o644), acitest.Symlink("a", "@"), acitest.Reg("a/c", "y", 0o644)}, "", []string{"/", "a/", "a/c = y"}},
		{"empty link", []acitest.File{entryOf(tar.TypeSymlink, "rootfs/x", "")}, "bad symbolic link", nil},
		{"long name", []acitest.File{acitest.Reg(strings.Repeat("d/", 2100)+"f", "", 0o644)}, "bad entry name", nil},
		{"deep", []acitest.File{acitest.Reg(strings.Repeat("d/", 600)+"f", "", 0o644)}, "", nil},
		{"read only directory", []acitest.File{acitest.Dir("d", 0), acitest.Reg("d/f", "x", 0)}, "", []string{"/", "d/", "d/f = x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := t.TempDir()
			canary := filepath.Join(host, "canary")
			if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
				t.Fatal(err)
			}
			dst := filepath.Join(host, "a", "b", "dst")
			if err := os.MkdirAll(dst, 0o755); err != nil {
				t.Fatal(err)
			}
			files := append([]acitest.File{root}, c.files...)
			for i := range files {
				files[i].Linkname = strings.Replace(files[i].Linkname, "@", host, 1)
			}
			err := extractAll(t.Context(), acitest.Entries(t, files...), dst)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if c.want != nil {
				got := listing(t, dst)
				for i := range got {
					got[i] = strings.Replace(got[i], host, "@", 1)
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
			}
			if data, err := os.ReadFile(canary); err != nil || string(data) != "alive" {
				t.Error("the canary is dead", err)
			}
			if left, _ := os.ReadDir(host); len(left) != 2 {
				t.Errorf("written outside: %v", left)
			}
		})
	}
}

func extractAll(ctx context.Context, data []byte, dst string) error {
	x, err := newExtractor(dst, Limits{}.withDefaults(), nil)
	if err != nil {
		return err
	}
	defer x.close()
	if err := x.image(ctx, bytes.NewReader(data), nil, nil); err != nil {
		return err
	}
	return x.finish()
}

func TestSparse(t *testing.T) {
	// GNU sparse, version 1.0: one block of data at 1 MiB of 8 MiB.
	const size, at = 8 << 20, 1 << 20
	head := "1\n1048576\n512\n"
	body := head + strings.Repeat("\x00", 512-len(head)) + strings.Repeat("d", 512)
	f := acitest.Reg("GNUSparseFile.0/s", body, 0o644)
	f.Name = "rootfs/GNUSparseFile.0/s"
	f.PAXRecords = map[string]string{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "rootfs/s", "GNU.sparse.realsize": "8388608"}
	// The writer of archive/tar refuses these records; write the header under
	// another name and rename it afterwards.
	data := sparseTar(t, f)
	dst := t.TempDir()
	if err := extractAll(t.Context(), data, dst); err != nil {
		t.Fatal(err)
	}
	st, err := sys.Lstatat(sys.CWD, filepath.Join(dst, "s"))
	if err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d in %d blocks", st.Size, st.Blocks)
	}
	got, err := os.ReadFile(filepath.Join(dst, "s"))
	if err != nil || string(got[at:at+512]) != strings.Repeat("d", 512) || got[at+512] != 0 {
		t.Error("content differs", err)
	}
	copied := filepath.Join(t.TempDir(), "c")
	if err := Copy(t.Context(), []string{dst}, copied); err != nil {
		t.Fatal(err)
	}
	if st, err := sys.Lstatat(sys.CWD, filepath.Join(copied, "s")); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("copy: %+v, %v", st, err)
	}
}

// sparseTar builds an archive whose PAX records name a sparse file.
func sparseTar(t *testing.T, f acitest.File) []byte {
	t.Helper()
	records := f.PAXRecords
	f.PAXRecords = map[string]string{}
	for k, v := range records {
		f.PAXRecords[strings.Replace(k, "GNU.sparse", "GNUXsparse", 1)] = v
	}
	data := acitest.Entries(t, acitest.File{Header: tar.Header{Typeflag: tar.TypeDir, Name: "rootfs", Mode: 0o755}}, f)
	return bytes.ReplaceAll(data, []byte("GNUXsparse"), []byte("GNU.sparse"))
}

func TestOverlayOptions(t *testing.T) {
	got, err := Overlay{Lower: []string{`/a:b,c\d`, "/e"}, Upper: "/u", Work: "/w"}.Options()
	if want := `lowerdir=/a\:b\,c\\d:/e,upperdir=/u,workdir=/w`; got != want || err != nil {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	for _, o := range []Overlay{{}, {Lower: []string{"/a"}, Upper: "/u"}, {Lower: []string{strings.Repeat("x", 5000)}}} {
		if _, err := o.Options(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestOverlayMount(t *testing.T) {
	needRoot(t)
	base := filepath.Join(t.TempDir(), `odd:na,me\x`)
	o := Overlay{Lower: []string{filepath.Join(base, "lo:wer")}, Upper: filepath.Join(base, "up,per"), Work: filepath.Join(base, "work")}
	target := filepath.Join(base, "target")
	for _, d := range []string{o.Lower[0], o.Upper, o.Work, target} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := SupportsOverlay(base); err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(filepath.Join(o.Lower[0], "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := o.Mount(target); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("needs CAP_SYS_ADMIN")
		}
		t.Fatal(err)
	}
	defer func() {
		if err := sys.Unmount(target, sys.UmountDetach); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(target, "g"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(target, "f")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(o.Upper, "g")); err != nil {
		t.Error(err)
	}
	if err := SupportsOverlay(target); err == nil {
		t.Error("overlay on overlay is accepted")
	}
}

func TestCheckID(t *testing.T) {
	good := idPrefix + strings.Repeat("a", appc.KeyDigits)
	if err := CheckID(good); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", "deps-", good + "a", strings.ToUpper(good), "../x", "deps-sha512-" + strings.Repeat("z", 64)} {
		if CheckID(id) == nil {
			t.Errorf("%q is accepted", id)
		}
	}
}

func BenchmarkHotPath(b *testing.B) {
	s, trees := open(b)
	key := put(b, s, acitest.Tar(b, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", "x", 0o644)))
	if _, err := trees.Render(b.Context(), key); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := trees.Render(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzExtract(f *testing.F) {
	root := acitest.File{Header: tar.Header{Typeflag: tar.TypeDir, Name: "rootfs", Mode: 0o755}}
	f.Add(acitest.Entries(f, root, acitest.Symlink("e", "/tmp"), acitest.Reg("e/x", "y", 0o644), acitest.Link("h", "e/x")))
	f.Add(acitest.Entries(f, root, acitest.Reg("a/b", "x", 0o644), acitest.Symlink("a", ".."), acitest.Reg("a/c", "y", 0o644)))
	f.Fuzz(func(t *testing.T, data []byte) {
		host := t.TempDir()
		dst := filepath.Join(host, "dst")
		if err := os.Mkdir(dst, 0o755); err != nil {
			t.Fatal(err)
		}
		x, err := newExtractor(dst, Limits{Entries: 1000, Bytes: 1 << 20, Xattrs: 1000}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer x.close()
		if x.image(t.Context(), bytes.NewReader(data), nil, nil) == nil {
			_ = x.finish()
		}
		if left, _ := os.ReadDir(host); len(left) != 1 {
			t.Errorf("written outside: %v", left)
		}
		_ = os.Chmod(dst, 0o755)
	})
}

// TestAgain: a tree that a machine going down may have damaged does not count,
// and is rendered again for who needs it.
func TestAgain(t *testing.T) {
	needRoot(t)
	s, trees := open(t)
	key := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "1"), acitest.Reg("file", "x", 0o644)))
	tree, err := trees.Render(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree.Path(), renderedFile), []byte("another boot"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree.Rootfs(), "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := trees.Get(tree.ID); !errors.Is(err, ErrNotRendered) {
		t.Fatalf("Get: %v, want %v", err, ErrNotRendered)
	}
	again, err := trees.Again(t.Context(), tree.ID)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(again.Rootfs(), "file")); err != nil || string(b) != "x" {
		t.Errorf("the file: %q, %v", b, err)
	}
	if _, err := trees.Again(t.Context(), "deps-sha512-"+strings.Repeat("0", 64)); !errors.Is(err, ErrNotRendered) {
		t.Errorf("a tree that never was: %v, want %v", err, ErrNotRendered)
	}
}

package tree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// TestMetadata checks that everything about files survives rendering and
// copying, as an image of layers whose upper one implies the directories.
// check list: 67, 68
func TestMetadata(t *testing.T) {
	needRoot(t)
	capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	when := time.Unix(1e9, 123456789)
	old := time.Unix(-86400, 0)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2711, Uid: 7, Gid: 8, ModTime: when, PAXRecords: map[string]string{"SCHILY.xattr.user.d": "1"}},
		{Name: "d/su", Typeflag: tar.TypeReg, Mode: 0o6755, Uid: 1 << 31, Gid: 70000, ModTime: old, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.x": "y", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.x": "y",
		}},
		{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/su"},
		{Name: "d/link", Typeflag: tar.TypeSymlink, Linkname: "/nowhere", Uid: 5, Gid: 6, ModTime: when},
		{Name: "d/hardlink", Typeflag: tar.TypeLink, Linkname: "d/link"},
		{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o622, Uid: 9, ModTime: when},
		{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: when},
		{Name: "d/loop", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 7, Devminor: 200, ModTime: when},
		{Name: "d/tmp/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: old},
		{Name: "d/none/", Typeflag: tar.TypeDir, Mode: 0, ModTime: when},
		{Name: "d/none/f", Typeflag: tar.TypeReg, Mode: 0, ModTime: when},
	} {
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, trees := open(t)
	tree, err := trees.Render(t.Context(), putLayered(t, s, buf.Bytes(), layerTar(t, "d/new=1", "h=>d/su", "l=>d/link", "p=>d/fifo")))
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := Copy(t.Context(), tree.Lowers(), dst); err != nil {
		t.Fatal(err)
	}
	stat := func(name string) sys.Stat {
		st, err := sys.Lstatat(sys.CWD, filepath.Join(dst, name))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for _, c := range []struct {
		name       string
		typ, mode  uint32
		uid, gid   uint32
		mtime      time.Time
		attributes []string
	}{
		{"d", sys.S_IFDIR, 0o2711, 7, 8, when, []string{"user.d"}},
		{"d/su", sys.S_IFREG, 0o6755, 1 << 31, 70000, old, []string{"security.capability", "user.x"}},
		{"h", sys.S_IFREG, 0o6755, 1 << 31, 70000, old, []string{"security.capability", "user.x"}},
		{"d/link", sys.S_IFLNK, 0o777, 5, 6, when, nil},
		{"l", sys.S_IFLNK, 0o777, 5, 6, when, nil},
		{"d/fifo", sys.S_IFIFO, 0o622, 9, 0, when, nil},
		{"p", sys.S_IFIFO, 0o622, 9, 0, when, nil},
		{"d/null", sys.S_IFCHR, 0o666, 0, 0, when, nil},
		{"d/loop", sys.S_IFBLK, 0o660, 0, 0, when, nil},
		{"d/tmp", sys.S_IFDIR, 0o1777, 0, 0, old, nil},
		{"d/none", sys.S_IFDIR, 0, 0, 0, when, nil},
		{"d/none/f", sys.S_IFREG, 0, 0, 0, when, nil},
	} {
		st := stat(c.name)
		if st.Type() != c.typ || st.Mode&0o7777 != c.mode || st.UID != c.uid || st.GID != c.gid || !st.Mtime.Equal(c.mtime) {
			t.Errorf("%s: %+v", c.name, st)
		}
		if c.typ != sys.S_IFREG && c.typ != sys.S_IFDIR {
			continue
		}
		f, err := os.Open(filepath.Join(dst, c.name))
		if err != nil {
			t.Fatal(err)
		}
		names, err := sys.Flistxattr(int(f.Fd()))
		f.Close()
		names = slices.DeleteFunc(names, func(n string) bool { return n == "security.selinux" })
		slices.Sort(names)
		if diff := cmp.Diff(c.attributes, names); err != nil || len(c.attributes)+len(names) > 0 && diff != "" {
			t.Errorf("%s: %v %s", c.name, err, diff)
		}
	}
	if st := stat("d/loop"); sys.Major(st.Rdev) != 7 || sys.Minor(st.Rdev) != 200 {
		t.Errorf("d/loop: %+v", st)
	}
	for lower, names := range map[string][2]string{tree.Lowers()[1]: {"d/su", "d/hard"}, dst: {"d/link", "l"}} {
		a, err := sys.Lstatat(sys.CWD, filepath.Join(lower, names[0]))
		b, berr := sys.Lstatat(sys.CWD, filepath.Join(lower, names[1]))
		if err != nil || berr != nil || a.Inode != b.Inode {
			t.Errorf("%v are no hard links any more: %v %v", names, err, berr)
		}
	}

	// A sparse file stays one.
	var sparse bytes.Buffer
	data := strings.Repeat("y", 4096)
	header := func(name string, typ byte, body string) {
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}
		var block bytes.Buffer
		if err := tar.NewWriter(&block).WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		b := block.Bytes() // the writer makes no such headers
		b[156] = typ
		copy(b[148:], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		sparse.Write(b)
		sparse.WriteString(body + strings.Repeat("\x00", -len(body)&511))
	}
	records, hole := "", 1<<20
	for _, r := range []string{"GNU.sparse.size=2101248", "GNU.sparse.numblocks=1", "GNU.sparse.map=1048576,4096"} {
		n := len(r) + 4
		records += string(rune('0'+n/10)) + string(rune('0'+n%10)) + " " + r + "\n"
	}
	header("pax", tar.TypeXHeader, records)
	header("sparse", tar.TypeReg, data)
	sparse.Write(make([]byte, 1024))
	if tree, err = trees.Render(t.Context(), putLayered(t, s, sparse.Bytes())); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "sparse")
	if err := Copy(t.Context(), tree.Lowers(), copied); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{tree.Lowers()[0], copied} {
		got, err := os.ReadFile(filepath.Join(dir, "sparse"))
		if want := strings.Repeat("\x00", hole) + data + strings.Repeat("\x00", hole); err != nil || string(got) != want {
			t.Errorf("%d bytes: %v", len(got), err)
		}
		if used := blocks(t, filepath.Join(dir, "sparse")); used*512 > int64(hole) {
			t.Errorf("%d blocks", used)
		}
	}
}

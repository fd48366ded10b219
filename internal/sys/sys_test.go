package sys

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestOpenat2(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	fd, err := Openat(CWD, dir, O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	for r, want := range map[Resolve]error{Beneath: syscall.EXDEV, NoSymlinks: syscall.ELOOP, InRoot: nil} {
		got, err := Openat2(fd, "link", O_PATH, 0, r)
		if !errors.Is(err, want) {
			t.Errorf("resolve %#x: %v, want %v", r, err, want)
		}
		if err == nil {
			Close(got)
		}
	}
}

func TestMetadata(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	when := time.Unix(-5, 7)
	if err := errors.Join(Fchmod(fd, 0o4711), Futimens(fd, when, when)); err != nil {
		t.Fatal(err)
	}
	st, err := Fstat(fd)
	if err != nil || st.Mode&0o7777 != 0o4711 || !st.Mtime.Equal(when) || !st.Atime.Equal(when) {
		t.Errorf("%+v, %v", st, err)
	}
	if err := Fsetxattr(fd, "user.x", make([]byte, 1000)); err != nil {
		if errors.Is(err, syscall.ENOTSUP) {
			t.Skip("the file system has no extended attributes")
		}
		t.Fatal(err)
	}
	names, err := Flistxattr(fd)
	if err != nil || len(names) == 0 {
		t.Error(names, err)
	}
	if v, err := Fgetxattr(fd, "user.x"); len(v) != 1000 || err != nil {
		t.Error(len(v), err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if ok, err := DirEntryTypes(d); err != nil {
		t.Error(ok, err)
	}
}

func TestCopyData(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	const size = 5 << 20
	for _, off := range []int64{0, 3 << 20, size - 3} {
		if _, err := src.WriteAt([]byte("abc"), off); err != nil {
			t.Fatal(err)
		}
	}
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := CopyData(dst, src, size); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(src.Name())
	b, _ := os.ReadFile(dst.Name())
	if string(a) != string(b) {
		t.Error("the copy differs")
	}
	st, err := Fstat(int(dst.Fd()))
	if err != nil || st.Size != size || st.Blocks*512 >= size {
		t.Errorf("%+v, %v", st, err)
	}
}

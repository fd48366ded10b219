package store

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/acitest"
	"github.com/rkt-systemd/rkt/internal/appc"
)

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "data", "cas"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, data []byte, o ImportOptions) Record {
	t.Helper()
	r, err := s.Import(t.Context(), bytes.NewReader(data), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// check list: 10
func TestImportFormats(t *testing.T) {
	s := open(t)
	plain := append(acitest.Tar(t, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", "hello", 0o644)),
		"data after the end"...)
	want := acitest.ID(t, plain)
	for _, format := range []string{"tar", "gzip", "xz", "zstd"} {
		r := put(t, s, acitest.Compress(t, format, plain), ImportOptions{Source: format})
		if r.ID != want || r.Size != int64(len(plain)) || r.Source != "tar" {
			t.Errorf("%s: %+v, want ID %s", format, r, want)
		}
	}
	b, err := s.ReadBlob(appc.Key(want))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(b); err != nil || !bytes.Equal(got.Bytes(), plain) {
		t.Error("blob differs", err)
	}
	b.Close()
	if left, _ := os.ReadDir(s.TempDir()); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestImportOldFormats(t *testing.T) {
	s := open(t)
	data, err := os.ReadFile("testdata/image.tar.bz2")
	if err != nil {
		t.Fatal(err)
	}
	r := put(t, s, data, ImportOptions{})
	b, err := s.ReadBlob(r.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	plain, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	// Without its magic number an entry's header is that of Unix version 7.
	for off := 0; plain[off] != 0; off += 1024 {
		h := plain[off : off+512]
		clear(h[257:512])
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		if h[156] == '5' {
			off -= 512 // no content
		}
	}
	if r := put(t, s, plain, ImportOptions{}); r.Name != "example.com/old" {
		t.Errorf("%+v", r)
	}
}

func TestImportRefuses(t *testing.T) {
	m := acitest.File{Header: tar.Header{Typeflag: tar.TypeReg, Name: "manifest"}, Data: acitest.Manifest("example.com/a", "")}
	rootfs := acitest.File{Header: tar.Header{Typeflag: tar.TypeDir, Name: "rootfs"}}
	good := acitest.Entries(t, m, rootfs)
	big := strings.Repeat("x", appc.MaxManifest)
	xzBomb := acitest.Compress(t, "xz", good)
	xzBomb[12+2+2] = 37 // dictionary of 768 MiB
	for _, c := range []struct {
		name string
		data []byte
		err  string
	}{
		{"empty", nil, "the file is empty"},
		{"text", bytes.Repeat([]byte("hello\n"), 200), "not a tar archive"},
		{"pgp", append([]byte("-----BEGIN PGP MESSAGE-----\n"), make([]byte, 600)...), "encrypted"},
		{"truncated gzip", acitest.Compress(t, "gzip", good)[:60], "unexpected EOF"},
		{"garbage after gzip", append(acitest.Compress(t, "gzip", good), "garbage of some length"...), "invalid header"},
		{"xz dictionary", xzBomb, "dictionary"},
		{"no manifest", acitest.Entries(t, rootfs), "no manifest"},
		{"no rootfs", acitest.Entries(t, m), "no rootfs"},
		{"rootfs is a file", acitest.Entries(t, m, acitest.File{Header: tar.Header{Typeflag: tar.TypeReg, Name: "rootfs"}}), "not a directory"},
		{"manifest is a link", acitest.Entries(t, acitest.File{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "manifest", Linkname: "/etc/passwd"}}, rootfs), "not a regular file"},
		{"two manifests", acitest.Entries(t, m, m, rootfs), "twice"},
		{"duplicate after cleaning", acitest.Entries(t, m, rootfs, acitest.Reg("a", "", 0), acitest.Reg("./a", "", 0)), "twice"},
		{"rootfsX", acitest.Entries(t, m, rootfs, acitest.File{Header: tar.Header{Typeflag: tar.TypeReg, Name: "rootfsX"}}), "neither"},
		{"dot dot", acitest.Entries(t, m, rootfs, acitest.Reg("../../x", "", 0)), "bad entry name"},
		{"link out", acitest.Entries(t, m, rootfs, acitest.File{Header: tar.Header{Typeflag: tar.TypeLink, Name: "rootfs/x", Linkname: "manifest"}}), "outside rootfs"},
		{"link dot dot", acitest.Entries(t, m, rootfs, acitest.File{Header: tar.Header{Typeflag: tar.TypeLink, Name: "rootfs/x", Linkname: "rootfs/../../x"}}), "bad entry name"},
		{"long component", acitest.Entries(t, m, rootfs, acitest.Reg(strings.Repeat("x", 256), "", 0)), "bad entry name"},
		{"huge manifest", acitest.Entries(t, acitest.File{Header: m.Header, Data: big + "x"}, rootfs), "larger than"},
		{"bad manifest", acitest.Entries(t, acitest.File{Header: m.Header, Data: "{}"}, rootfs), "ACKind"},
		{"truncated tar", good[:len(good)-1500], "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			_, err := s.Import(t.Context(), bytes.NewReader(c.data), ImportOptions{})
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			left, _ := os.ReadDir(s.TempDir())
			records, _ := s.Records()
			if len(left) != 0 || len(records) != 0 {
				t.Errorf("left behind: %v %v", left, records)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	data := acitest.Tar(t, acitest.Manifest("example.com/a", ""), acitest.Reg("f", strings.Repeat("\x00", 1<<20), 0))
	for _, l := range []Limits{{Plain: 1 << 19}, {Entries: 2}} {
		s, err := Open(t.TempDir(), Options{Limits: l})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(t.Context(), bytes.NewReader(acitest.Compress(t, "gzip", data)), ImportOptions{}); err == nil {
			t.Errorf("limits %+v do not hold", l)
		}
	}
}

func TestAdmit(t *testing.T) {
	s := open(t)
	data := acitest.Tar(t, acitest.Manifest("example.com/a", "1"))
	refuse := errors.New("no")
	_, err := s.Import(t.Context(), bytes.NewReader(data), ImportOptions{Admit: func(m *schema.ImageManifest, id string) (Admission, error) {
		if m.Name != "example.com/a" || id != acitest.ID(t, data) {
			t.Errorf("asked about %q %q", m.Name, id)
		}
		return Admission{}, refuse
	}})
	if !errors.Is(err, refuse) {
		t.Fatal(err)
	}
	admit := func(kind string) ImportOptions {
		return ImportOptions{Latest: kind == AdmittedSigned, Admit: func(*schema.ImageManifest, string) (Admission, error) { return Admission{Kind: kind}, nil }}
	}
	for _, c := range []struct{ give, want string }{
		{AdmittedUnsigned, AdmittedUnsigned}, {AdmittedSigned, AdmittedSigned}, {AdmittedUnsigned, AdmittedSigned}, {AdmittedSystem, AdmittedSigned},
	} {
		put(t, s, data, admit(c.give))
		r, err := s.Record(appc.Key(acitest.ID(t, data)))
		if err != nil || r.Admission.Kind != c.want {
			t.Errorf("after %s: %+v, %v", c.give, r, err)
		}
	}
	r, _ := s.Find("example.com/a", nil)
	if !r.Latest {
		t.Error("latest was forgotten")
	}
}

// check list: 1, 2, 22
func TestFindResolveRemove(t *testing.T) {
	s := open(t)
	clock := time.Unix(1e9, 0)
	s.o.Now = func() time.Time { clock = clock.Add(time.Hour); return clock }
	a := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "1")), ImportOptions{Latest: true})
	b := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "2")), ImportOptions{})
	c := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "2"), acitest.Reg("x", "", 0)), ImportOptions{})
	for _, q := range []struct {
		labels map[string]string
		want   string
	}{
		{nil, a.Key}, {map[string]string{"version": "2"}, c.Key}, {map[string]string{"version": "1", "os": "linux"}, a.Key},
		{map[string]string{"version": "3"}, ""}, {map[string]string{"other": ""}, ""},
	} {
		r, err := s.Find("example.com/a", q.labels)
		if r.Key != q.want || (q.want == "") != errors.Is(err, ErrNotFound) {
			t.Errorf("Find(%v) = %s, %v; want %s", q.labels, r.Key, err, q.want)
		}
	}
	var ambiguous *AmbiguousError
	for _, q := range []struct {
		hash string
		ok   func(error) bool
	}{
		{b.ID, nil}, {b.Key, nil}, {strings.ToUpper(b.ID[7:]), func(err error) bool { return err != nil }},
		{"sha512-" + strings.ToUpper(b.ID[7:]), nil}, {b.ID[:7+32], nil}, {b.ID[:100], nil},
		{"sha512-0", func(err error) bool { return errors.Is(err, ErrShortID) }},
		{b.ID[:len(b.ID)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(b.ID, "0")],
			func(err error) bool { return errors.Is(err, ErrNoMatch) }},
		{"sha512-" + strings.Repeat("0", 20), func(err error) bool { return errors.Is(err, ErrNoMatch) && errors.Is(err, ErrNotFound) }},
	} {
		r, err := s.Resolve(q.hash)
		if q.ok == nil && (err != nil || r.Key != b.Key) || q.ok != nil && !q.ok(err) {
			t.Errorf("Resolve(%q) = %q, %v", q.hash, r.Key, err)
		}
	}
	// Two images with the same first two digits.
	prefixes := map[string]bool{}
	for i := 0; ; i++ {
		r := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/n", fmt.Sprint(i))), ImportOptions{})
		if prefixes[r.Key[:9]] {
			if _, err := s.Resolve(r.Key[:9]); !errors.As(err, &ambiguous) || len(ambiguous.Keys) < 2 {
				t.Errorf("Resolve(%q): %v", r.Key[:9], err)
			}
			break
		}
		prefixes[r.Key[:9]] = true
	}

	if err := s.PutRemote(Remote{Source: "https://a", Key: b.Key, ETag: "x"}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Remote("https://a"); err != nil || r.ETag != "x" {
		t.Error(r, err)
	}
	if err := s.Remove(b.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remote("https://a"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.Remove(b.Key); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.ReadBlob(b.Key); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Manifest(b.Key); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestTouch(t *testing.T) {
	s := open(t)
	clock := time.Unix(1e9, 0)
	s.o.Now = func() time.Time { return clock }
	key := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "1")), ImportOptions{}).Key
	for _, c := range []struct{ at, want int64 }{{30, 0}, {90, 90}, {100, 90}} {
		clock = time.Unix(1e9+c.at, 0)
		if err := s.Touch(key); err != nil {
			t.Fatal(err)
		}
		r, _ := s.Record(key)
		if r.LastUsed.Unix() != 1e9+c.want {
			t.Errorf("at %d: last used %v", c.at, r.LastUsed)
		}
	}
	if err := s.SetTreeSize(key, 17); err != nil {
		t.Fatal(err)
	}
	if r, _ := s.Record(key); r.TreeSize != 17 || r.LastUsed.Unix() != 1e9+90 {
		t.Errorf("%+v", r)
	}
}

func TestRebuildAndClean(t *testing.T) {
	s := open(t)
	a := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/a", "1")), ImportOptions{})
	b := put(t, s, acitest.Tar(t, acitest.Manifest("example.com/b", "1")), ImportOptions{})
	os.Remove(s.recordPath(a.Key))
	os.Remove(s.manifestPath(a.Key))
	if n, err := s.Rebuild(context.Background()); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	got, err := s.Find("example.com/a", nil)
	if err != nil || got.ID != a.ID || got.Size != a.Size {
		t.Errorf("%+v, %v", got, err)
	}
	os.Remove(s.recordPath(b.Key))
	stale := filepath.Join(s.TempDir(), "import-x")
	if err := os.WriteFile(stale, []byte("xyz"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Clean(t.Context(), time.Hour); n != 0 || err != nil {
		t.Error("removed young files", n, err)
	}
	s.o.Now = func() time.Time { return time.Now().Add(time.Hour) }
	if n, err := s.Clean(t.Context(), time.Minute); n != b.Size+3 || err != nil {
		t.Errorf("freed %d, %v", n, err)
	}
	if _, err := os.Stat(s.blobPath(b.Key)); err == nil {
		t.Error("orphan stays")
	}
	if _, err := s.Manifest(a.Key); err != nil {
		t.Error(err)
	}
}

func TestConcurrentImports(t *testing.T) {
	s := open(t)
	data := acitest.Tar(t, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", strings.Repeat("x", 1<<20), 0))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r, err := s.Import(t.Context(), bytes.NewReader(data), ImportOptions{})
			if err == nil && i%2 == 0 {
				err = s.Remove(r.Key)
			}
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	records, err := s.Records()
	if err != nil || len(records) > 1 {
		t.Error(records, err)
	}
}

func BenchmarkRecords(b *testing.B) {
	s := open(b)
	for i := range 1000 {
		key := fmt.Sprintf("sha512-%x", bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i)), 8))
		if err := s.putRecord(Record{Key: key, ID: key + key[7:], Name: "example.com/a", Labels: map[string]string{"os": "linux", "arch": "amd64"}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if r, err := s.Records(); len(r) != 1000 || err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add(acitest.Tar(f, acitest.Manifest("example.com/a", "1"), acitest.Reg("f", "x", 0)))
	f.Add(acitest.Compress(f, "gzip", acitest.Tar(f, acitest.Manifest("example.com/a", "1"))))
	f.Add(acitest.Compress(f, "xz", acitest.Tar(f, acitest.Manifest("example.com/a", "1"))))
	s, err := Open(f.TempDir(), Options{Limits: Limits{Plain: 1 << 24}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := s.Import(t.Context(), bytes.NewReader(data), ImportOptions{})
		if err == nil {
			if err := s.Remove(r.Key); err != nil {
				t.Error(err)
			}
		}
	})
}

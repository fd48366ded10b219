package keystore

import (
	"bytes"
	"crypto/elliptic"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/rkt-systemd/rkt/internal/acitest"
)

func check(t *testing.T, s *Store, name string, data, sig []byte, want string) {
	t.Helper()
	signer, err := s.Check(name, bytes.NewReader(data), bytes.NewReader(sig))
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want == "" && signer == nil:
		t.Errorf("%s: no signer", name)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: error %v, want %q", name, err, want)
	}
}

const unknown = "signature made by unknown entity"

// check list: 32, 33, 36
func TestPrefixes(t *testing.T) {
	sys, loc := t.TempDir(), t.TempDir()
	s := New(sys, loc)
	key, other := acitest.NewKey(t, "a"), acitest.NewKey(t, "b")
	data := bytes.Repeat([]byte("image"), 100000)
	sig := key.Sign(t, data)
	check(t, s, "acme.com/services", data, sig, unknown)
	added, err := s.Add("acme.com/services", key.Public(t))
	if err != nil || len(added) != 1 || added[0].Path != filepath.Join(loc, "trustedkeys/prefix.d/acme.com/services", key.Fingerprint()) {
		t.Fatal(added, err)
	}
	if _, err := s.Add("acme.com/services", other.Public(t)); err != nil {
		t.Fatal(err)
	}
	check(t, s, "acme.com/services", data, sig, "")
	check(t, s, "acme.com/services", data, key.SignBinary(t, data), "")
	check(t, s, "acme.com/services/web/auth", data, sig, "")
	check(t, s, "acme.com/services2", data, sig, unknown)
	check(t, s, "acme.com/other", data, sig, unknown)
	check(t, s, "acme.com", data, sig, unknown)
	check(t, s, "acme.com/services", append(data, 'x'), sig, "does not match")
	check(t, s, "acme.com/services", data, nil, "no signature")
	check(t, s, "acme.com/services", data, []byte("no signature at all"), "signature")
	check(t, s, "acme.com/services", data, key.Public(t), "holds a")
	check(t, s, "acme.com/../x", data, sig, "bad name")
	if ok, err := s.HasPrefixKey("acme.com/services/x"); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, _ := s.HasPrefixKey("acme.com"); ok {
		t.Error("a key of a deeper prefix counts")
	}
}

// check list: 32, 34
func TestRootAndMasks(t *testing.T) {
	sys, loc := t.TempDir(), t.TempDir()
	s := New(sys, loc)
	key := acitest.NewKey(t, "a")
	data := []byte("image")
	sig := key.Sign(t, data)
	if _, err := New("", sys).Add("", key.Public(t)); err != nil {
		t.Fatal(err)
	}
	check(t, s, "any.com/thing", data, sig, "")
	if ok, _ := s.HasPrefixKey("any.com/thing"); ok {
		t.Error("a root key counts")
	}
	mask := filepath.Join(loc, "trustedkeys/root.d", key.Fingerprint())
	if err := os.MkdirAll(filepath.Dir(mask), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mask, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, s, "any.com/thing", data, sig, unknown)
	// A prefix key is read later.
	if _, err := New("", sys).Add("any.com", key.Public(t)); err != nil {
		t.Fatal(err)
	}
	check(t, s, "any.com/thing", data, sig, "")
	check(t, s, "other.com/thing", data, sig, unknown)
	if err := os.Remove(mask); err != nil {
		t.Fatal(err)
	}
	check(t, s, "other.com/thing", data, sig, "")
	keys, err := s.List()
	if err != nil || len(keys) != 2 || !keys[0].Root || keys[1].Prefix != "any.com" {
		t.Error(keys, err)
	}
	// A file named otherwise spoils the whole store.
	if err := os.WriteFile(filepath.Join(filepath.Dir(mask), strings.Repeat("0", 40)), key.Public(t), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, s, "other.com/thing", data, sig, "not the key's fingerprint")
}

func TestExpiredAndRevoked(t *testing.T) {
	s := New("", t.TempDir())
	data := []byte("image")
	then := time.Now().Add(-48 * time.Hour)
	old := acitest.NewKeyAt(t, "old", then, 3600)
	var sig bytes.Buffer
	if err := detachSign(&sig, old, data, &packet.Config{Time: func() time.Time { return then }}); err != nil {
		t.Fatal(err)
	}
	gone := acitest.NewKey(t, "gone")
	goneSig := gone.Sign(t, data)
	if err := gone.Entity.RevokeKey(packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*acitest.Key{old, gone} {
		if _, err := s.Add("", k.Public(t)); err != nil {
			t.Fatal(err)
		}
	}
	check(t, s, "a.com/b", data, sig.Bytes(), "expired")
	check(t, s, "a.com/b", data, goneSig, "revoked")
}

func TestFormatFingerprint(t *testing.T) {
	got := FormatFingerprint("8b86de38890ddb7291867b025210bd8888182190")
	if want := "8B86 DE38 890D DB72 9186  7B02 5210 BD88 8818 2190"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzKey(f *testing.F) {
	f.Add(acitest.NewKey(f, "a").Public(f))
	pub, _ := pemOf(f, ecKey(f, elliptic.P256()))
	f.Add(pub)
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := ReadKeys(data)
		if err == nil && len(keys) == 0 {
			t.Error("no keys and no error")
		}
	})
}

func FuzzSignature(f *testing.F) {
	key := acitest.NewKey(f, "a")
	s := New("", f.TempDir())
	if _, err := s.Add("", key.Public(f)); err != nil {
		f.Fatal(err)
	}
	f.Add(key.Sign(f, []byte("image")))
	f.Add(key.SignBinary(f, []byte("image")))
	f.Add(bytes.Repeat(key.SignBinary(f, []byte("image")), 3))
	f.Fuzz(func(t *testing.T, sig []byte) {
		if _, err := s.Check("a.com/b", strings.NewReader("another"), bytes.NewReader(sig)); err == nil {
			t.Error("a signature of other data is good")
		}
	})
}

func TestClean(t *testing.T) {
	local := t.TempDir()
	dir := filepath.Join(local, "trustedkeys", "prefix.d", "example.com")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := New("", local)
	for _, name := range []string{".abc.tmp123", "abc"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		before time.Time
		want   int
	}{{time.Now().Add(-time.Hour), 2}, {time.Now().Add(time.Hour), 1}} {
		if err := s.Clean(c.before); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != c.want {
			t.Errorf("Clean(%v) leaves %v, %v; want %d files", c.before, entries, err, c.want)
		}
	}
}

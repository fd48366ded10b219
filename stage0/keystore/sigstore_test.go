package keystore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/acitest"
)

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func pemOf(t testing.TB, public crypto.PublicKey) (data []byte, fpr string) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), hex.EncodeToString(sum[:])
}

func ecKey(t testing.TB, c elliptic.Curve) crypto.PublicKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

func names(t *testing.T, s *Store, name string) string {
	t.Helper()
	keys, err := s.PublicKeys(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range keys {
		if k.Public == nil || filepath.Base(k.Path) != k.Fingerprint {
			t.Errorf("%+v", k)
		}
		out = append(out, k.Fingerprint[:8])
	}
	return strings.Join(out, " ")
}

// check list: 33, 34
func TestPublicKeysOfPrefixes(t *testing.T) {
	system, local := t.TempDir(), t.TempDir()
	s := New(system, local)
	data, fpr := pemOf(t, ecKey(t, elliptic.P256()))
	const prefix = "registry.example.com:5000/team/app"
	added, err := s.Add(prefix, data)
	if err != nil || len(added) != 1 || added[0].Path != filepath.Join(local, "trustedkeys/prefix.d", prefix, fpr) || added[0].Type != Sigstore {
		t.Fatal(added, err)
	}
	if got, _ := os.ReadFile(added[0].Path); !bytes.Equal(got, data) {
		t.Errorf("%s", got)
	}
	for name, want := range map[string]string{
		prefix: fpr[:8], prefix + "/deeper": fpr[:8], prefix + "2": "", "registry.example.com:5000/team": "", "registry.example.com/team/app": "",
	} {
		if got := names(t, s, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// OpenPGP and sigstore keys lie side by side and do not mind each other.
	gpg := acitest.NewKey(t, "a")
	for _, p := range []string{"", "example.com/app"} {
		for _, k := range [][]byte{gpg.Public(t), data} {
			if _, err := s.Add(p, k); err != nil {
				t.Fatal(err)
			}
		}
	}
	check(t, s, "example.com/app", []byte("image"), gpg.Sign(t, []byte("image")), "")
	if got := names(t, s, "example.com/other"); got != fpr[:8] {
		t.Error("a root key does not count", got)
	}
	if list, err := s.List(); err != nil || len(list) != 5 {
		t.Error(list, err)
	}
	// A mask takes a system key out.
	sys, sysFpr := pemOf(t, ecKey(t, elliptic.P384()))
	write(t, filepath.Join(system, "trustedkeys/root.d", sysFpr), sys)
	if got := names(t, s, "example.org"); !strings.Contains(got, sysFpr[:8]) {
		t.Error(got)
	}
	done, err := s.Remove("", false, sysFpr)
	if err != nil || len(done) != 1 || !done[0].Masked {
		t.Fatal(done, err)
	}
	if got := names(t, s, "example.org"); strings.Contains(got, sysFpr[:8]) {
		t.Error("a masked key counts")
	}
	if _, err := s.Remove("", false, sysFpr); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	write(t, filepath.Join(system, "trustedkeys/root.d", strings.Repeat("0", 64)), sys)
	if _, err := s.PublicKeys("example.org"); err == nil || !strings.Contains(err.Error(), "not the key's fingerprint") {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	s := New("", t.TempDir())
	key := acitest.NewKey(t, "a")
	for _, p := range []string{"", "a.com", "b.com"} {
		if _, err := s.Add(p, key.Public(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		prefix string
		root   bool
		left   int
	}{{"a.com", false, 2}, {"", true, 1}, {"", false, 0}} {
		if _, err := s.Remove(c.prefix, c.root, key.Fingerprint()); err != nil {
			t.Error(err)
		}
		if list, err := s.List(); err != nil || len(list) != c.left {
			t.Error(c, list, err)
		}
		if _, err := s.Remove(c.prefix, c.root, key.Fingerprint()); c.left == 0 && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestSigstoreKeysThatAreRefused(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("no weak keys to be had:", err)
	}
	weakPEM, _ := pemOf(t, weak.Public())
	p224, _ := pemOf(t, ecKey(t, elliptic.P224()))
	good, _ := pemOf(t, ecKey(t, elliptic.P521()))
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPEM, _ := pemOf(t, ed)
	for _, c := range []struct{ name, prefix, data, want string }{
		{"P-521", "a.com", string(good), ""},
		{"Ed25519", "a.com/b__c", string(edPEM), ""},
		{"two", "a.com:1", string(good) + string(edPEM), ""},
		{"weak RSA", "a.com", string(weakPEM), "weak: RSA with 1024 bits"},
		{"weak curve", "a.com", string(p224), "weak: elliptic curve"},
		{"private", "a.com", string(good) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PRIVATE KEY"},
		{"broken", "a.com", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"},
		{"no end", "a.com", "-----BEGIN PUBLIC KEY-----\nAAAA\n", "not a public key"},
		{"traversal", "a.com/../x", string(good), "bad name prefix"},
		{"dots", "..", string(good), "bad name prefix"},
		{"absolute", "/etc", string(good), "bad name prefix"},
		{"port", "a.com:x/y", string(good), "bad name prefix"},
		{"upper case", "a.com/B", string(good), "bad name prefix"},
		{"long", "a.com/" + strings.Repeat("a", 600), string(good), "bad name prefix"},
	} {
		_, err := New("", t.TempDir()).Add(c.prefix, []byte(c.data))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

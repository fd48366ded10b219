// Package acitest makes images, signatures and keys for tests. Only tests may
// import it.
//
// Exported:
//
//	Build(t, dir, manifest, files) path           plain tar; Tar(t, manifest, files) []byte
//	Manifest(name, version string, extra ...string) string
//	Compress(t, format, data) []byte              gzip, xz, zstd or tar
//	NewKey(t, name) *Key; (*Key) Public() armoured, Sign(t, data) armoured, SignFile(t, path) path
package acitest

import (
	"archive/tar"
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// File is one entry below rootfs. The zero Header fields get defaults.
type File struct {
	tar.Header
	Data string
}

// Manifest makes an image manifest for linux/amd64; extra is appended to its
// members (`"app":{…}`).
func Manifest(name, version string, extra ...string) string {
	labels := `{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}`
	if version != "" {
		labels += `,{"name":"version","value":"` + version + `"}`
	}
	members := append([]string{
		`"acKind":"ImageManifest"`, `"acVersion":"0.8.11"`, `"name":"` + name + `"`, `"labels":[` + labels + `]`,
	}, extra...)
	return "{" + strings.Join(members, ",") + "}"
}

// Reg is a regular file below rootfs.
func Reg(name, data string, mode int64) File {
	return File{tar.Header{Typeflag: tar.TypeReg, Name: "rootfs/" + name, Mode: mode}, data}
}

// Dir is a directory below rootfs.
func Dir(name string, mode int64) File {
	return File{tar.Header{Typeflag: tar.TypeDir, Name: "rootfs/" + name, Mode: mode}, ""}
}

// Symlink is a symbolic link below rootfs.
func Symlink(name, target string) File {
	return File{tar.Header{Typeflag: tar.TypeSymlink, Name: "rootfs/" + name, Linkname: target, Mode: 0o777}, ""}
}

// Link is a hard link below rootfs.
func Link(name, target string) File {
	return File{tar.Header{Typeflag: tar.TypeLink, Name: "rootfs/" + name, Linkname: "rootfs/" + target}, ""}
}

// Mtime is the time of entries that name none.
func Mtime() time.Time { return time.Unix(1234567890, 123456789) }

// Entries makes a tar of exactly these entries.
func Entries(t testing.TB, files ...File) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := f.Header
		h.Size = int64(len(f.Data))
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = Mtime()
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.Data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Tar makes a plain ACI: rootfs, files, manifest.
func Tar(t testing.TB, manifest string, files ...File) []byte {
	t.Helper()
	all := append([]File{{tar.Header{Typeflag: tar.TypeDir, Name: "rootfs", Mode: 0o755}, ""}}, files...)
	return Entries(t, append(all, File{tar.Header{Typeflag: tar.TypeReg, Name: "manifest", Mode: 0o644}, manifest})...)
}

// Build writes an ACI, compressed with gzip, to dir and returns its path.
func Build(t testing.TB, dir, manifest string, files ...File) string {
	t.Helper()
	path := filepath.Join(dir, ID(t, Tar(t, manifest, files...))[7:23]+".aci")
	if err := os.WriteFile(path, Compress(t, "gzip", Tar(t, manifest, files...)), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// ID is the image ID of a plain tar.
func ID(t testing.TB, plain []byte) string {
	t.Helper()
	sum := sha512.Sum512(plain)
	return "sha512-" + hex.EncodeToString(sum[:])
}

// Compress compresses data: gzip, xz, zstd; tar leaves it as it is.
func Compress(t testing.TB, format string, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	var err error
	switch format {
	case "tar":
		return data
	case "gzip":
		w := gzip.NewWriter(&buf)
		_, err = w.Write(data)
		if err == nil {
			err = w.Close()
		}
	case "xz":
		var w *xz.Writer
		if w, err = xz.NewWriter(&buf); err == nil {
			if _, err = w.Write(data); err == nil {
				err = w.Close()
			}
		}
	case "zstd":
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(&buf); err == nil {
			if _, err = w.Write(data); err == nil {
				err = w.Close()
			}
		}
	default:
		t.Fatalf("unknown format %q", format)
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Key is a throw-away signing key.
type Key struct {
	Entity *openpgp.Entity
}

// NewKey makes a key; a lifetime of 0 never expires.
func NewKey(t testing.TB, name string) *Key {
	t.Helper()
	return NewKeyAt(t, name, time.Now().Add(-time.Hour), 0)
}

// NewKeyAt makes a key created at a time, with a lifetime in seconds.
func NewKeyAt(t testing.TB, name string, created time.Time, lifetime uint32) *Key {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.com", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return created }, KeyLifetimeSecs: lifetime,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Key{e}
}

// Fingerprint is the primary key's, in lower-case hex.
func (k *Key) Fingerprint() string { return hex.EncodeToString(k.Entity.PrimaryKey.Fingerprint) }

// Public is the armoured public key.
func (k *Key) Public(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := armor.Encode(&buf, openpgp.PublicKeyType, nil)
	if err == nil {
		if err = k.Entity.Serialize(w); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Sign makes an armoured detached signature.
func (k *Key) Sign(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&buf, k.Entity, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// SignBinary makes a detached signature without armour.
func (k *Key) SignBinary(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := openpgp.DetachSign(&buf, k.Entity, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// SignFile signs the file and writes the signature beside it (.aci.asc).
func (k *Key) SignFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sig := strings.TrimSuffix(path, ".aci") + ".aci.asc"
	if err := os.WriteFile(sig, k.Sign(t, data), 0o644); err != nil {
		t.Fatal(err)
	}
	return sig
}

package keystore

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/rkt-systemd/rkt/internal/acitest"
)

const vectorName = "example.com/app"

// signers are the keys of the vectors; all but stranger and elsewhere are
// trusted for example.com.
type signers struct {
	eddsa, rsa, p256, p384, v6, subkey, two, weak, secp, expired, revoked, subRevoked, subExpired, certify, stranger, elsewhere *acitest.Key
}

func at(d time.Duration) func() time.Time {
	t := time.Now().Add(d)
	return func() time.Time { return t }
}

func makeKey(t testing.TB, name string, c packet.Config) *acitest.Key {
	t.Helper()
	if c.Time == nil {
		c.Time = at(-48 * time.Hour)
	}
	e, err := openpgp.NewEntity(name, "", name+"@example.com", &c)
	if err != nil {
		t.Fatal(err)
	}
	return &acitest.Key{Entity: e}
}

func newSigners(t testing.TB) signers {
	t.Helper()
	ed := packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}
	with := func(change func(*packet.Config)) packet.Config {
		c := ed
		change(&c)
		return c
	}
	curve := func(name packet.Curve) packet.Config {
		return packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: name}
	}
	s := signers{
		eddsa: makeKey(t, "eddsa", ed), rsa: makeKey(t, "rsa", packet.Config{RSABits: 2048}), two: makeKey(t, "two", ed),
		p256: makeKey(t, "p256", curve(packet.CurveNistP256)), p384: makeKey(t, "p384", curve(packet.CurveNistP384)), secp: makeKey(t, "secp", curve(packet.CurveSecP256k1)),
		v6:   makeKey(t, "v6", with(func(c *packet.Config) { c.Algorithm, c.V6Keys = packet.PubKeyAlgoEd25519, true })),
		weak: makeKey(t, "weak", packet.Config{RSABits: 1024, MinRSABits: 1024}), subkey: makeKey(t, "subkey", ed),
		expired: makeKey(t, "expired", with(func(c *packet.Config) { c.KeyLifetimeSecs = 3600 })), revoked: makeKey(t, "revoked", ed),
		subRevoked: makeKey(t, "sub-revoked", ed), subExpired: makeKey(t, "sub-expired", ed), certify: makeKey(t, "certify", ed),
		stranger: makeKey(t, "stranger", ed), elsewhere: makeKey(t, "elsewhere", ed),
	}
	sub := func(k *acitest.Key, lifetime uint32) {
		c := packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: at(-47 * time.Hour), KeyLifetimeSecs: lifetime}
		if err := k.Entity.AddSigningSubkey(&c); err != nil {
			t.Fatal(err)
		}
	}
	sub(s.subkey, 0)
	sub(s.subRevoked, 0)
	sub(s.subExpired, 3600)
	return s
}

// revoke is done once signatures were made: revoked keys do not sign.
func (s signers) revoke(t testing.TB) {
	t.Helper()
	if err := s.revoked.Entity.RevokeKey(packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
	subs := s.subRevoked.Entity.Subkeys
	if err := s.subRevoked.Entity.RevokeSubkey(&subs[len(subs)-1], packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
}

func (s signers) store(t testing.TB) *Store {
	t.Helper()
	store := New("", t.TempDir())
	for _, k := range []*acitest.Key{s.eddsa, s.rsa, s.p256, s.p384, s.v6, s.subkey, s.two, s.expired, s.revoked, s.subRevoked, s.subExpired, s.certify} {
		if _, err := store.Add("example.com", k.Public(t)); err != nil {
			t.Fatal(err)
		}
	}
	// Add refuses weak keys; somebody put them there all the same.
	for _, k := range []*acitest.Key{s.weak, s.secp} {
		if _, err := store.Add("example.com", k.Public(t)); err == nil || !strings.Contains(err.Error(), "weak") {
			t.Errorf("a weak key is added: %v", err)
		}
		write(t, dirOf(store.local, "example.com")+"/"+k.Fingerprint(), k.Public(t))
	}
	if _, err := store.Add("example.org", s.elsewhere.Public(t)); err != nil {
		t.Fatal(err)
	}
	return store
}

func signWith(t testing.TB, k *acitest.Key, data []byte, c packet.Config) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := openpgp.DetachSign(&buf, k.Entity, bytes.NewReader(data), &c); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func armour(t testing.TB, kind string, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := armor.Encode(&buf, kind, map[string]string{"Comment": "a comment"})
	if err == nil {
		if _, err = w.Write(data); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func concat(parts ...[]byte) []byte { return slices.Concat(parts...) }

// patch changes octets of the body of a signature packet of the old or new format.
func patch(sig []byte, offset int, value byte) []byte {
	out := slices.Clone(sig)
	header := 2
	if sig[0]&0x40 == 0 {
		header += int(sig[0] & 3)
	} else if sig[1] >= 192 {
		header++
	}
	out[header+offset] = value
	return out
}

type vector struct {
	name string
	sig  []byte
	want string // "" is good
}

func vectors(t testing.TB, s signers, data []byte) []vector {
	t.Helper()
	none := packet.Config{}
	good := signWith(t, s.eddsa, data, none)
	bad := signWith(t, s.eddsa, append(slices.Clone(data), 'x'), none)
	twoGood := signWith(t, s.two, data, none)
	unknownSig := signWith(t, s.stranger, data, none)
	otherName := signWith(t, s.elsewhere, data, none)
	expired := signWith(t, s.expired, data, packet.Config{Time: at(-47*time.Hour - 30*time.Minute)})
	sha1 := patch(signWith(t, s.rsa, data, none), 3, 2) // nobody makes such signatures any more
	literal := func(body string) []byte {
		return append([]byte{0xcb, byte(len(body) + 6)}, "b\x00\x00\x00\x00\x00"+body...)
	}
	var text, clear, inline bytes.Buffer
	if err := openpgp.DetachSignText(&text, s.eddsa.Entity, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	w, err := clearsign.Encode(&clear, s.eddsa.Entity.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err = openpgp.Sign(&inline, s.eddsa.Entity, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	notation := func(critical bool) packet.Config {
		return packet.Config{SignatureNotations: []*packet.Notation{{Name: "x@example.com", Value: []byte("y"), IsCritical: critical, IsHumanReadable: true}}}
	}
	asc := armour(t, openpgp.SignatureType, good)
	list := []vector{
		{"binary", good, ""},
		{"armoured", asc, ""},
		{"armoured, CRLF", bytes.ReplaceAll(asc, []byte("\n"), []byte("\r\n")), ""},
		{"text before the armour", concat([]byte("Hello,\n\n"), asc), ""},
		{"text after the armour", concat(asc, []byte("\nBye\n")), ""},
		{"RSA", signWith(t, s.rsa, data, none), ""},
		{"RSA, SHA-512", signWith(t, s.rsa, data, packet.Config{DefaultHash: crypto.SHA512}), ""},
		{"RSA, SHA-384", signWith(t, s.rsa, data, packet.Config{DefaultHash: crypto.SHA384}), ""},
		{"ECDSA P-256", signWith(t, s.p256, data, none), ""},
		{"ECDSA P-384", signWith(t, s.p384, data, none), ""},
		{"v6", signWith(t, s.v6, data, packet.Config{V6Keys: true}), ""},
		{"v6, armoured", armour(t, openpgp.SignatureType, signWith(t, s.v6, data, packet.Config{V6Keys: true})), ""},
		{"subkey", signWith(t, s.subkey, data, none), ""},
		{"of long ago", signWith(t, s.eddsa, data, packet.Config{Time: at(-40 * time.Hour)}), ""},
		{"lifetime not over", signWith(t, s.eddsa, data, packet.Config{SigLifetimeSecs: 3600}), ""},
		{"notation", signWith(t, s.eddsa, data, notation(false)), ""},
		{"two good", concat(good, twoGood), ""},
		{"stranger first", concat(unknownSig, good), ""},
		{"stranger last", concat(good, unknownSig), ""},
		{"bad first", concat(bad, twoGood), ""},
		{"expired key first", concat(expired, good), ""},
		{"of another prefix first", concat(otherName, good), ""},
		{"weak first", concat(sha1, good), ""},
		{"unsupported first", concat(patch(good, 0, 9), twoGood), ""},

		{"other data", bad, "does not match"},
		{"two bad", concat(bad, bad), "does not match"},
		{"bad and stranger", concat(bad, unknownSig), "does not match"},
		{"stranger", unknownSig, unknown},
		{"strangers", concat(unknownSig, unknownSig, unknownSig), unknown},
		{"of another prefix", otherName, unknown},
		{"expired key", expired, "is expired"},
		{"revoked key", signWith(t, s.revoked, data, none), "is revoked"},
		{"revoked subkey", signWith(t, s.subRevoked, data, none), "is revoked"},
		{"expired subkey", signWith(t, s.subExpired, data, packet.Config{Time: at(-46*time.Hour - 30*time.Minute)}), "is expired"},
		{"weak RSA", signWith(t, s.weak, data, none), "RSA with 1024 bits"},
		{"unfit curve", signWith(t, s.secp, data, none), "unfit elliptic curve"},
		{"SHA-1", sha1, "weak hash algorithm SHA-1"},
		{"MD5", patch(good, 3, 1), "cannot be checked"},
		{"RIPEMD-160", patch(good, 3, 3), "cannot be checked"},
		{"unknown hash", patch(good, 3, 99), "cannot be checked"},
		{"another hash than was used", patch(good, 3, 10), "does not match"},
		{"unknown algorithm", patch(good, 2, 99), "cannot be checked"},
		{"another algorithm", patch(good, 2, 1), "signature"},
		{"unknown version", patch(good, 0, 9), "cannot be checked"},
		{"version 3", patch(good, 0, 3), "signature"},
		{"expired", signWith(t, s.eddsa, data, packet.Config{Time: at(-40 * time.Hour), SigLifetimeSecs: 3600}), "the signature is expired"},
		{"from the future", signWith(t, s.eddsa, data, packet.Config{Time: at(24 * time.Hour)}), "in the future"},
		{"before the key", signWith(t, s.subkey, data, packet.Config{Time: at(200 * 24 * time.Hour)}), "in the future"},
		{"critical notation", signWith(t, s.eddsa, data, notation(true)), "critical notation"},
		{"text document", text.Bytes(), "only signatures of binary documents"},
		{"type: text", patch(good, 1, 0x01), "only signatures of binary documents"},
		{"type: standalone", patch(good, 1, 0x02), "only signatures of binary documents"},
		{"type: certification", patch(good, 1, 0x10), "only signatures of binary documents"},
		{"type: subkey binding", patch(good, 1, 0x18), "only signatures of binary documents"},
		{"type: timestamp", patch(good, 1, 0x40), "only signatures of binary documents"},
		{"cleartext", clear.Bytes(), "signature"},
		{"inline", inline.Bytes(), "something else than signatures"},
		{"inline, armoured", armour(t, openpgp.SignatureType, inline.Bytes()), "something else than signatures"},
		{"a literal before", concat(literal("image"), good), "something else than signatures"},
		{"a literal after", concat(good, literal("image")), "something else than signatures"},
		{"garbage before", concat([]byte("garbage"), good), "signature"},
		{"garbage after", concat(good, []byte("garbage")), "signature"},
		{"zeros after", concat(good, make([]byte, 100)), "signature"},
		{"a key", s.eddsa.Public(t), "holds a"},
		{"a key as a signature", armour(t, openpgp.SignatureType, []byte{0xc6, 1, 4}), "signature"},
		{"empty", nil, "holds no signature"},
		{"white space", []byte(" \n\t\n"), "holds no signature"},
		{"empty armour", armour(t, openpgp.SignatureType, nil), "signature"},
		{"marker packets alone", []byte{0xca, 3, 'P', 'G', 'P'}, "holds no signature"},
		{"broken checksum", bytes.Replace(asc, []byte("\n="), []byte("\n=AAAA"), 1), "signature"},
		{"many", bytes.Repeat(unknownSig, maxSignatures+1), "more than 32 signatures"},
		{"huge", bytes.Repeat([]byte{'a'}, maxSignature+1), "larger than"},
		{"huge length", []byte{0xc2, 0xff, 0xff, 0xff, 0xff, 0xff, 4}, "signature"},
		{"partial lengths without end", bytes.Repeat([]byte{0xc2, 0xe1, 0, 0}, 1000), "signature"},
		{"HTML", []byte("<html><body>404 not found</body></html>"), "signature"},
		{"zeros", make([]byte, 1000), "signature"},
	}
	for _, n := range []int{1, 2, 5, 20, len(good) / 2, len(good) - 1} {
		list = append(list, vector{fmt.Sprintf("truncated to %d", n), good[:n], "signature"})
	}
	for _, n := range []int{30, 100, len(asc) / 2, len(asc) - 40} {
		list = append(list, vector{fmt.Sprintf("armour truncated to %d", n), asc[:n], "signature"})
	}
	for _, back := range []int{1, 10, 40, 60} {
		flipped := slices.Clone(good)
		flipped[len(flipped)-back] ^= 4
		list = append(list, vector{fmt.Sprintf("a bit changed %d from the end", back), flipped, "signature"})
	}
	return list
}

// check list: 31, 32, 36
func TestSignatureVectors(t *testing.T) {
	s := newSigners(t)
	data := bytes.Repeat([]byte("an image\r\n"), 50_000)
	list := vectors(t, s, data)
	s.revoke(t)
	store := s.store(t)
	if len(list) < 60 {
		t.Errorf("only %d vectors", len(list))
	}
	for _, v := range list {
		t.Run(v.name, func(t *testing.T) {
			check(t, store, vectorName, data, v.sig, v.want)
			if v.want == "" {
				check(t, store, "example.org/app", data, v.sig, map[bool]string{true: "", false: "signature"}[v.name == "of another prefix first"])
				check(t, store, vectorName, data[1:], v.sig, "does not match")
			}
		})
	}
}

func TestAbortedCheckLeavesNothingRunning(t *testing.T) {
	s := New("", t.TempDir())
	key := acitest.NewKey(t, "a")
	if _, err := s.Add("", key.Public(t)); err != nil {
		t.Fatal(err)
	}
	v, err := s.Begin(bytes.NewReader(key.Sign(t, []byte("image"))))
	if err != nil {
		t.Fatal(err)
	}
	v.Abort()
	if err := <-v.hashed; err == nil {
		t.Error("an aborted check ends without an error")
	}
	v.hashed <- errors.New("aborted")
	if n, err := v.Write([]byte("x")); n != 1 || err != nil {
		t.Error(n, err)
	}
	if _, err := v.Finish("a.com/b"); err == nil {
		t.Error("an aborted check succeeds")
	}
}

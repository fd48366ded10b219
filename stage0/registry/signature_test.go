package registry

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

func pemKey(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func parseKey(t *testing.T, public crypto.PublicKey) Key {
	t.Helper()
	k, err := ParseKey(pemKey(t, public))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t *testing.T, s crypto.Signer, message []byte) []byte {
	t.Helper()
	var opts crypto.SignerOpts = crypto.SHA256
	if _, ok := s.(ed25519.PrivateKey); ok {
		opts = crypto.Hash(0)
	} else {
		sum := sha256.Sum256(message)
		message = sum[:]
	}
	sig, err := s.Sign(rand.Reader, message, opts)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func signers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	all := map[string]crypto.Signer{}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		all[c.Params().Name] = k
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	all["RSA"] = r
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all["Ed25519"] = e
	return all
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// weakRSA is a public key of 1024 bits, which Go itself refuses to make.
const weakRSA = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDf5WyKmWl5bHYmYv1hTTwqQCEo
1VCBSCd9QLWsn+pVVYg1DFMDU2HOyJxQ9VHY6UZIOUFGNxlPaN/GqPqlqmKRnQrM
1m1fDhDkkgJyJmd5iPzC1rdPmLsvTGzWyDZbAzpA5aOV8xLMTuZ5BvRSbQdQFkTd
6dqGkVsxV1NvTVSC0QIDAQAB
-----END PUBLIC KEY-----
`

func TestParseKey(t *testing.T) {
	good := pemKey(t, ecKey(t).Public())
	block, _ := pem.Decode(good)
	sum := sha256.Sum256(block.Bytes)
	k, err := ParseKey(append(good, " \n\n"...))
	if err != nil || k.Fingerprint != hex.EncodeToString(sum[:]) {
		t.Errorf("%+v, %v", k, err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	retype := func(typ string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}) }
	for _, tt := range []struct {
		name string
		data []byte
		err  string
	}{
		{"empty", nil, "no PEM block"},
		{"text", []byte("hello"), "no PEM block"},
		{"OpenPGP", []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"), ""},
		{"private key", retype("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("x")), "the PEM block is"},
		{"certificate", retype("CERTIFICATE", block.Bytes), "the PEM block is"},
		{"two keys", append(bytes.Clone(good), good...), "one key"},
		{"rubbish after", append(bytes.Clone(good), 'x'), "one key"},
		{"truncated", retype("PUBLIC KEY", block.Bytes[:20]), "reading public key"},
		{"trailing DER", retype("PUBLIC KEY", append(bytes.Clone(block.Bytes), 0)), "reading public key"},
		{"P-224", pemKey(t, p224.Public()), "too weak"},
		{"RSA 1024", []byte(weakRSA), "too weak"},
		{"huge", bytes.Repeat([]byte(" "), maxKeyFile+1), "larger"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if k, err := ParseKey(tt.data); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v, %v, want %q", k, err, tt.err)
			}
		})
	}
}

func simpleSigning(ref, digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, ref, digest, payloadType)
}

// sigLayer is one signature as cosign stores it.
type sigLayer struct {
	payload   []byte
	sig       string // base64
	mediaType string
	change    func(d map[string]any)
}

func (s *site) attach(t *testing.T, repo, digest string, layers ...sigLayer) {
	t.Helper()
	list := []any{}
	for _, l := range layers {
		if l.mediaType == "" {
			l.mediaType = typeSimpleSigning
		}
		d := s.blob(l.mediaType, l.payload)
		m := map[string]any{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size, "annotations": map[string]string{sigAnnotation: l.sig}}
		if l.change != nil {
			l.change(m)
		}
		list = append(list, m)
	}
	conf := s.blob(oci.TypeConfig, []byte("{}"))
	s.put(repo, strings.Replace(digest, ":", "-", 1)+".sig", oci.TypeManifest, mustJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": oci.TypeManifest, "config": conf, "layers": list,
	}))
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestGoodSignatures(t *testing.T) {
	for name, k := range signers(t) {
		s := newSite(t, true)
		d, _ := s.image(t, "acme/web", "1", "amd64", []byte("x"))
		scope := s.host + "/acme/web"
		other := ecKey(t)
		payload := simpleSigning(scope, d.Digest)
		s.attach(t, "acme/web", d.Digest,
			sigLayer{payload: payload, sig: b64(sign(t, other, payload))}, // of somebody else
			sigLayer{payload: payload, sig: b64(sign(t, k, payload))})
		r := open(t, client(t, s), scope+":1")
		img, err := r.Image(soon(t), amd64)
		if err != nil {
			t.Fatal(err)
		}
		key := parseKey(t, k.Public())
		key.Source = "/etc/key"
		got, err := r.Verify(soon(t), img, []Key{parseKey(t, ecKey(t).Public()), key})
		want := Signer{Fingerprint: key.Fingerprint, Source: "/etc/key", Digest: d.Digest, Identity: scope}
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestPSS(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("message"))
	sig, err := rsa.SignPSS(rand.Reader, k, crypto.SHA256, sum[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := parseKey(t, k.Public()).verify([]byte("message"), sig); err != nil {
		t.Error(err)
	}
	if err := parseKey(t, k.Public()).verify([]byte("massage"), sig); err == nil {
		t.Error("another message is signed")
	}
}

// The hub's names are one; a tag in the signature must be the tag asked for.
func TestIdentities(t *testing.T) {
	const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for _, tt := range []struct {
		ref, signed string
		ok          bool
	}{
		{"redis:7", "redis", true},
		{"redis:7", "docker.io/library/redis", true},
		{"redis:7", "index.docker.io/library/redis", true},
		{"redis:7", "registry-1.docker.io/library/redis:7", true},
		{"redis:7", "redis:6", false},
		{"redis:7@" + digest, "redis:6", false},
		{"redis@" + digest, "redis:6", true},
		{"redis:7", "redis@" + digest, true},
		{"redis:7", "redis@" + strings.Replace(digest, "a", "b", 1), false},
		{"redis:7", "docker.io/redis/redis", false},
		{"redis:7", "quay.io/library/redis", false},
		{"a.com/x:1", "a.com:443/x", false},
		{"a.com/x:1", "A.COM/x", true},
		{"a.com/x:1", "a.com/x/y", false},
		{"a.com/x:1", "a.com/xy", false},
		{"a.com/x:1", "", false},
		{"a.com/x:1", "a.com/", false},
		{"a.com/x:1", "a.com/x\n", false},
		{"a.com/x:1", "a.com/../a.com/x", false},
	} {
		ref, err := oci.ParseReference(tt.ref)
		if err != nil {
			t.Fatal(err)
		}
		v := &verifier{ref: ref, digest: digest, names: []string{ref.Scope()}}
		if err := v.identity(tt.signed); (err == nil) != tt.ok {
			t.Errorf("%s signed as %q: %v, want ok %v", tt.ref, tt.signed, err, tt.ok)
		}
	}
}

// TestBadSignatures: no vector admits an image; each tells why.
func TestBadSignatures(t *testing.T) {
	k, stranger := ecKey(t), ecKey(t)
	all := signers(t)
	type world struct {
		t             *testing.T
		s             *site
		scope, digest string
		other         string // the digest of another image
	}
	signed := func(w world, payload []byte) sigLayer {
		return sigLayer{payload: payload, sig: b64(sign(w.t, k, payload))}
	}
	payloadOf := func(format string) func(w world) []sigLayer {
		return func(w world) []sigLayer {
			text := strings.NewReplacer("SCOPE", w.scope, "DIGEST", w.digest, "TYPE", payloadType).Replace(format)
			return []sigLayer{signed(w, []byte(text))}
		}
	}
	good := func(w world) []byte { return simpleSigning(w.scope, w.digest) }
	for _, tt := range []struct {
		name   string
		layers func(w world) []sigLayer
		err    string
	}{
		{"none", nil, "has no signature for it"},
		{"empty manifest", func(world) []sigLayer { return nil }, "has no signature for it"},
		{"of a stranger", func(w world) []sigLayer {
			return []sigLayer{{payload: good(w), sig: b64(sign(w.t, stranger, good(w)))}}
		}, "by none of the keys"},
		{"empty", func(w world) []sigLayer { return []sigLayer{{payload: good(w)}} }, "0 characters"},
		{"not base64", func(w world) []sigLayer { return []sigLayer{{payload: good(w), sig: "!!!!"}} }, "not base64"},
		{"truncated base64", func(w world) []sigLayer {
			l := signed(w, good(w))
			l.sig = l.sig[:len(l.sig)-3]
			return []sigLayer{l}
		}, "not base64"},
		{"base64 with loose bits", func(w world) []sigLayer { return []sigLayer{{payload: good(w), sig: "AB=="}} }, "not base64"},
		{"truncated", func(w world) []sigLayer {
			sig := sign(w.t, k, good(w))
			return []sigLayer{{payload: good(w), sig: b64(sig[:len(sig)-1])}}
		}, "by none of the keys"},
		{"with a byte more", func(w world) []sigLayer {
			return []sigLayer{{payload: good(w), sig: b64(append(sign(w.t, k, good(w)), 0))}}
		}, "by none of the keys"},
		{"one bit off", func(w world) []sigLayer {
			sig := sign(w.t, k, good(w))
			sig[len(sig)-1] ^= 1
			return []sigLayer{{payload: good(w), sig: b64(sig)}}
		}, "by none of the keys"},
		{"zero", func(w world) []sigLayer {
			return []sigLayer{{payload: good(w), sig: b64([]byte{0x30, 6, 2, 1, 0, 2, 1, 0})}}
		}, "by none of the keys"},
		{"huge", func(w world) []sigLayer {
			return []sigLayer{{payload: good(w), sig: strings.Repeat("A", 100000)}}
		}, "100000 characters"},
		{"of another algorithm: Ed25519", func(w world) []sigLayer {
			return []sigLayer{{payload: good(w), sig: b64(sign(w.t, all["Ed25519"], good(w)))}}
		}, "by none of the keys"},
		{"of another algorithm: RSA", func(w world) []sigLayer {
			return []sigLayer{{payload: good(w), sig: b64(sign(w.t, all["RSA"], good(w)))}}
		}, "by none of the keys"},
		{"of another hash", func(w world) []sigLayer {
			sum := sha512.Sum512(good(w))
			sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA512)
			if err != nil {
				w.t.Fatal(err)
			}
			return []sigLayer{{payload: good(w), sig: b64(sig)}}
		}, "by none of the keys"},
		{"of the digest instead of the payload", func(w world) []sigLayer {
			return []sigLayer{{payload: good(w), sig: b64(sign(w.t, k, []byte(w.digest)))}}
		}, "by none of the keys"},
		{"an HMAC with the public key", func(w world) []sigLayer {
			sum := sha256.Sum256(append(pemKey(w.t, k.Public()), good(w)...))
			return []sigLayer{{payload: good(w), sig: b64(sum[:])}}
		}, "by none of the keys"},
		{"payload changed afterwards", func(w world) []sigLayer {
			l := signed(w, good(w))
			l.payload = append(l.payload, ' ')
			return []sigLayer{l}
		}, "by none of the keys"},
		{"of another image", func(w world) []sigLayer { return []sigLayer{signed(w, simpleSigning(w.scope, w.other))} }, "it is for the digest"},
		{"of another repository", func(w world) []sigLayer {
			return []sigLayer{signed(w, simpleSigning(w.scope+"2", w.digest))}
		}, "it is for the image"},
		{"of a parent", func(w world) []sigLayer {
			return []sigLayer{signed(w, simpleSigning(strings.TrimSuffix(w.scope, "/web"), w.digest))}
		}, "it is for the image"},
		{"of another tag", func(w world) []sigLayer { return []sigLayer{signed(w, simpleSigning(w.scope+":2", w.digest))} }, `it is for the tag "2"`},
		{"of no name", func(w world) []sigLayer { return []sigLayer{signed(w, simpleSigning("", w.digest))} }, "no name of an image"},
		{"of a digest in capitals", func(w world) []sigLayer {
			return []sigLayer{signed(w, simpleSigning(w.scope, strings.ToUpper(w.digest)))}
		}, "it is for the digest"},
		{"another type", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"image":{"docker-manifest-digest":"DIGEST"},"type":"x"}}`), "its type is"},
		{"no type", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"image":{"docker-manifest-digest":"DIGEST"}}}`), "its type is"},
		{"no identity", payloadOf(`{"critical":{"image":{"docker-manifest-digest":"DIGEST"},"type":"TYPE"}}`), "identity is no JSON object"},
		{"no image", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"type":"TYPE"}}`), "image is no JSON object"},
		{"identity is a list", payloadOf(`{"critical":{"identity":["SCOPE"],"image":{"docker-manifest-digest":"DIGEST"},"type":"TYPE"}}`), "identity is no JSON object"},
		{"unknown critical member", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"image":{"docker-manifest-digest":"DIGEST"},"type":"TYPE","until":"2020"}}`), `unknown member "until"`},
		{"unknown top member", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"image":{"docker-manifest-digest":"DIGEST"},"type":"TYPE"},"x":1}`), `unknown member "x"`},
		{"unknown member of the identity", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE","x":1},"image":{"docker-manifest-digest":"DIGEST"},"type":"TYPE"}}`), `unknown member "x"`},
		{"digest twice", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"image":{"docker-manifest-digest":"sha256:00","docker-manifest-digest":"DIGEST"},"type":"TYPE"}}`), "given twice"},
		{"digest twice in other letters", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"image":{"Docker-manifest-digest":"sha256:00","docker-manifest-digest":"DIGEST"},"type":"TYPE"}}`), "given twice"},
		{"members in other letters", payloadOf(`{"Critical":{"identity":{"docker-reference":"SCOPE"},"image":{"docker-manifest-digest":"DIGEST"},"type":"TYPE"}}`), `unknown member "Critical"`},
		{"data after the payload", payloadOf(`{"critical":{"identity":{"docker-reference":"SCOPE"},"image":{"docker-manifest-digest":"DIGEST"},"type":"TYPE"}}{}`), "data after the end"},
		{"payload is no JSON", payloadOf("SCOPE DIGEST"), "bad JSON"},
		{"payload is a string", payloadOf(`"SCOPE DIGEST"`), "payload is no JSON object"},
		{"deep payload", payloadOf(strings.Repeat("[", 1000)), "too deep"},
		{"payload not UTF-8", payloadOf("{\"optional\":\"\xff\"}"), "not UTF-8"},
		{"another media type", func(w world) []sigLayer {
			l := signed(w, good(w))
			l.mediaType = oci.TypeLayer
			return []sigLayer{l}
		}, "unknown type"},
		{"huge payload", func(w world) []sigLayer {
			return []sigLayer{signed(w, append(good(w), bytes.Repeat([]byte(" "), maxPayload)...))}
		}, "more than 65536"},
		{"payload of another size", func(w world) []sigLayer {
			l := signed(w, good(w))
			l.change = func(d map[string]any) { d["size"] = len(l.payload) + 1 }
			return []sigLayer{l}
		}, "cannot be read"},
		{"payload of another digest", func(w world) []sigLayer {
			l := signed(w, good(w))
			w.s.blobs[w.other] = l.payload
			l.change = func(d map[string]any) { d["digest"] = w.other }
			return []sigLayer{l}
		}, "tampered"},
		{"payload at a bad digest", func(w world) []sigLayer {
			l := signed(w, good(w))
			l.change = func(d map[string]any) { d["digest"] = "sha256:../../manifests/1" }
			return []sigLayer{l}
		}, "bad digest"},
		{"negative size", func(w world) []sigLayer {
			l := signed(w, good(w))
			l.change = func(d map[string]any) { d["size"] = -1 }
			return []sigLayer{l}
		}, "a signature of -1 bytes"},
		{"layers of wrong types", func(w world) []sigLayer {
			l := signed(w, good(w))
			l.change = func(d map[string]any) { d["annotations"] = "x" }
			return []sigLayer{l}
		}, "not the JSON"},
		{"good one after 64 bad ones", func(w world) []sigLayer {
			var all []sigLayer
			for range maxSignatures {
				all = append(all, sigLayer{payload: []byte("junk"), sig: "AAAA"})
			}
			return append(all, signed(w, good(w)))
		}, "more than 64 signatures"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, true)
			d, _ := s.image(t, "acme/web", "1", "amd64", []byte("x"))
			other, _ := s.image(t, "acme/web", "2", "amd64", []byte("y"))
			w := world{t, s, s.host + "/acme/web", d.Digest, other.Digest}
			if tt.layers != nil {
				s.attach(t, "acme/web", d.Digest, tt.layers(w)...)
			}
			r := open(t, client(t, s), w.scope+":1")
			got, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, []Key{parseKey(t, k.Public()), parseKey(t, all["P-384"].Public())})
			if got != (Signer{}) {
				t.Errorf("signed by %+v", got)
			}
			wantError(t, err, tt.err, `verifying signature of "`+w.scope+`:1"`)
			var sig *SignatureError
			if !errors.As(err, &sig) || sig.Hint() == "" {
				t.Errorf("%T", err)
			}
			if errors.Is(err, ErrUnsigned) != (sig.Found == 0) {
				t.Errorf("found %d", sig.Found)
			}
		})
	}
}

func TestGoodSignatureAfterJunk(t *testing.T) {
	k := ecKey(t)
	s := newSite(t, true)
	d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
	var layers []sigLayer
	for i := range maxSignatures - 1 {
		layers = append(layers, sigLayer{payload: fmt.Appendf(nil, "junk %d", i), sig: "AAAA"})
	}
	payload := simpleSigning(s.host+"/a", d.Digest)
	s.attach(t, "a", d.Digest, append(layers, sigLayer{payload: payload, sig: b64(sign(t, k, payload))})...)
	r := open(t, client(t, s), s.host+"/a:1")
	if _, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, []Key{parseKey(t, k.Public())}); err != nil {
		t.Error(err)
	}
}

// Keys that are too weak, or none at all, verify nothing.
func TestUselessKeys(t *testing.T) {
	k := ecKey(t)
	s := newSite(t, true)
	d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
	payload := simpleSigning(s.host+"/a", d.Digest)
	s.attach(t, "a", d.Digest, sigLayer{payload: payload, sig: b64(sign(t, k, payload))})
	r := open(t, client(t, s), s.host+"/a:1")
	_, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, nil)
	wantError(t, err, "no key is trusted")
	block, _ := pem.Decode([]byte(weakRSA))
	weak, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	_, err = VerifySignature(soon(t), r, r.Reference(), d.Digest, []Key{{Public: weak}, {Public: nil}, {Public: ed25519.PublicKey("short")}, {Public: k}})
	wantError(t, err, "too weak", "not supported", "malformed", "no key is trusted")
	if _, err := VerifySignature(soon(t), r, r.Reference(), "sha256:x", []Key{parseKey(t, k.Public())}); err == nil {
		t.Error("a bad digest")
	}
}

// A registry that cannot be asked is not one without signatures.
func TestSignaturesUnavailable(t *testing.T) {
	s := newSite(t, true)
	d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".sig") {
			w.WriteHeader(503)
			return true
		}
		return false
	}
	r := open(t, client(t, s), s.host+"/a:1")
	_, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, []Key{parseKey(t, ecKey(t).Public())})
	wantError(t, err, "looking for signatures", "503")
	if errors.Is(err, ErrUnsigned) {
		t.Error("it may be signed")
	}
}

// The index may be signed, or the manifest that was picked from it.
func TestSignedIndex(t *testing.T) {
	k := ecKey(t)
	keys := []Key{parseKey(t, k.Public())}
	s := newSite(t, true)
	d, _ := s.image(t, "a", "", "amd64", []byte("x"))
	index := s.put("a", "1", oci.TypeIndex, mustJSON(t, map[string]any{"schemaVersion": 2, "mediaType": oci.TypeIndex, "manifests": []any{
		map[string]any{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size, "platform": map[string]any{"os": "linux", "architecture": "amd64"}},
	}}))
	r := open(t, client(t, s), s.host+"/a:1")
	img, err := r.Image(soon(t), amd64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(soon(t), img, keys); !errors.Is(err, ErrUnsigned) {
		t.Error(err)
	}
	for _, digest := range []string{d.Digest, index.Digest} {
		payload := simpleSigning(s.host+"/a", digest)
		s.attach(t, "a", digest, sigLayer{payload: payload, sig: b64(sign(t, k, payload))})
		if got, err := r.Verify(soon(t), img, keys); err != nil || got.Digest != digest {
			t.Errorf("%+v, %v, want %s", got, err, digest)
		}
	}
}

// What a location or a mirror is called does not matter for mirrors, and counts
// as a name of the image for a location: the operator said so.
func TestSignatureNames(t *testing.T) {
	k := ecKey(t)
	mirror, origin := newSite(t, true), newSite(t, true)
	for _, tt := range []struct {
		signed string
		ok     bool
	}{{"example.com/acme/web", true}, {origin.host + "/up/web", true}, {mirror.host + "/m/web", false}} {
		d, _ := mirror.image(t, "m/web", "1", "amd64", []byte("x"))
		payload := simpleSigning(tt.signed, d.Digest)
		mirror.attach(t, "m/web", d.Digest, sigLayer{payload: payload, sig: b64(sign(t, k, payload))})
		c := client(t, mirror, origin)
		c.Config = &config.Config{Registries: map[string]config.Registry{"example.com/acme": {
			Prefix: "example.com/acme", Location: origin.host + "/up", Mirrors: []config.Mirror{{Location: mirror.host + "/m"}},
		}}}
		r := open(t, c, "example.com/acme/web:1")
		img, err := r.Image(soon(t), amd64)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Verify(soon(t), img, []Key{parseKey(t, k.Public())}); (err == nil) != tt.ok {
			t.Errorf("signed as %s: %v", tt.signed, err)
		}
	}
}

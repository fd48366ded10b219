package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/stage0/oci"
)

// refer stores a bundle that refers to a digest: in the list of referrers,
// under the fallback tag.
func (s *site) refer(t *testing.T, repo, digest string, bundles ...[]byte) {
	t.Helper()
	list := []any{}
	for _, b := range bundles {
		m := s.put(repo, "", oci.TypeManifest, mustJSON(t, map[string]any{
			"schemaVersion": 2, "mediaType": oci.TypeManifest, "artifactType": typeBundle,
			"config": s.blob("application/vnd.oci.empty.v1+json", []byte("{}")), "layers": []any{s.blob(typeBundle, b)},
		}))
		list = append(list, map[string]any{"mediaType": m.MediaType, "digest": m.Digest, "size": m.Size, "artifactType": typeBundle})
	}
	s.put(repo, strings.Replace(digest, ":", "-", 1), oci.TypeIndex, mustJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": oci.TypeIndex, "manifests": list,
	}))
}

type object = map[string]any

// statementFor is what cosign 3 signs.
func statementFor(digest, name string) object {
	subject := object{"digest": object{"sha256": strings.TrimPrefix(digest, "sha256:")}}
	if name != "" {
		subject["name"] = name
	}
	return object{"_type": "https://in-toto.io/Statement/v1", "predicateType": predicateSign, "subject": []any{subject}, "predicate": object{}}
}

func pae(typ string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(typ), typ, len(payload), payload)
}

func material() object { return object{"publicKey": object{"hint": "x"}} }

func envelope(t *testing.T, sign func(message []byte) []byte, statement object) object {
	t.Helper()
	payload := mustJSON(t, statement)
	return object{"mediaType": typeBundle, "verificationMaterial": material(), "dsseEnvelope": object{
		"payload": b64(payload), "payloadType": typeStatement, "signatures": []any{object{"sig": b64(sign(pae(typeStatement, payload)))}},
	}}
}

func TestGoodBundles(t *testing.T) {
	for name, k := range signers(t) {
		for _, how := range []string{"fallback tag", "referrers"} {
			s := newSite(t, true)
			d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
			raw, err := hex.DecodeString(strings.TrimPrefix(d.Digest, "sha256:"))
			if err != nil {
				t.Fatal(err)
			}
			mine := func(m []byte) []byte { return sign(t, k, m) }
			keys := []Key{parseKey(t, k.Public())}
			r := open(t, client(t, s), s.host+"/a:1")
			if how == "referrers" {
				s.hook = func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasPrefix(r.URL.Path, "/v2/a/referrers/") {
						return false
					}
					w.Header().Set("Content-Type", oci.TypeIndex)
					_, _ = w.Write(s.docs["a:"+strings.Replace(d.Digest, ":", "-", 1)].data)
					return true
				}
			}
			for i, b := range []object{
				envelope(t, mine, statementFor(d.Digest, "")),
				envelope(t, mine, statementFor(d.Digest, s.host+"/a")),
				{"mediaType": typeBundleOld, "verificationMaterial": material(), "messageSignature": object{
					"messageDigest": object{"algorithm": "SHA2_256", "digest": b64(raw)}, "signature": b64(sign(t, k, s.docs["a:1"].data)),
				}},
			} {
				s.refer(t, "a", d.Digest, []byte("junk"), mustJSON(t, b))
				got, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, keys)
				if err != nil || got.Fingerprint != keys[0].Fingerprint || (got.Identity != "") != (i == 1) {
					t.Errorf("%s, %s, bundle %d: %+v, %v", name, how, i, got, err)
				}
			}
		}
	}
}

func TestBadBundles(t *testing.T) {
	k, stranger := ecKey(t), ecKey(t)
	mine := func(m []byte) []byte { return sign(t, k, m) }
	with := func(o object, key string, v any) object { o[key] = v; return o }
	for _, tt := range []struct {
		name   string
		bundle func(s *site, digest string) any
		err    string
	}{
		{"of a stranger", func(_ *site, d string) any {
			return envelope(t, func(m []byte) []byte { return sign(t, stranger, m) }, statementFor(d, ""))
		}, "by none of the keys"},
		{"without pre-authentication encoding", func(_ *site, d string) any {
			return envelope(t, func(m []byte) []byte { return sign(t, k, mustJSON(t, statementFor(d, ""))) }, statementFor(d, ""))
		}, "by none of the keys"},
		{"signed as another type", func(_ *site, d string) any {
			return envelope(t, func(m []byte) []byte { return sign(t, k, pae("text/plain", mustJSON(t, statementFor(d, "")))) }, statementFor(d, ""))
		}, "by none of the keys"},
		{"another payload type", func(_ *site, d string) any {
			b := envelope(t, mine, statementFor(d, ""))
			b["dsseEnvelope"].(object)["payloadType"] = "text/plain"
			return b
		}, "no statement with one signature"},
		{"two signatures", func(_ *site, d string) any {
			b := envelope(t, mine, statementFor(d, ""))
			e := b["dsseEnvelope"].(object)
			e["signatures"] = append(e["signatures"].([]any), object{"sig": "AAAA"})
			return b
		}, "no statement with one signature"},
		{"no signature", func(_ *site, d string) any {
			b := envelope(t, mine, statementFor(d, ""))
			b["dsseEnvelope"].(object)["signatures"] = []any{}
			return b
		}, "no statement with one signature"},
		{"empty signature", func(_ *site, d string) any {
			return envelope(t, func([]byte) []byte { return nil }, statementFor(d, ""))
		}, "0 characters"},
		{"payload not base64", func(_ *site, d string) any {
			b := envelope(t, mine, statementFor(d, ""))
			b["dsseEnvelope"].(object)["payload"] = "!"
			return b
		}, "statement is not base64"},
		{"another digest", func(s *site, _ string) any {
			d, _ := s.image(t, "a", "2", "amd64", []byte("y"))
			return envelope(t, mine, statementFor(d.Digest, ""))
		}, "names another digest"},
		{"another name", func(_ *site, d string) any { return envelope(t, mine, statementFor(d, "example.com/other")) }, "it is for the image"},
		{"no subject", func(_ *site, d string) any {
			return envelope(t, mine, with(statementFor(d, ""), "subject", []any{}))
		}, "names another digest"},
		{"many subjects", func(_ *site, d string) any {
			list := make([]any, 100)
			for i := range list {
				list[i] = object{"digest": object{"sha256": strings.TrimPrefix(d, "sha256:")}}
			}
			return envelope(t, mine, with(statementFor(d, ""), "subject", list))
		}, "more than 64 subjects"},
		{"digest of another algorithm", func(_ *site, d string) any {
			return envelope(t, mine, with(statementFor(d, ""), "subject", []any{object{"digest": object{"sha512": strings.TrimPrefix(d, "sha256:")}}}))
		}, "names another digest"},
		{"a list of holes", func(_ *site, d string) any {
			return envelope(t, mine, with(statementFor(d, ""), "predicateType", "https://cosign.sigstore.dev/attestation/vuln/v1"))
		}, "not a signature"},
		{"no predicate type", func(_ *site, d string) any {
			return envelope(t, mine, with(statementFor(d, ""), "predicateType", ""))
		}, "not a signature"},
		{"another statement type", func(_ *site, d string) any {
			return envelope(t, mine, with(statementFor(d, ""), "_type", "x"))
		}, "its type is"},
		{"keyless", func(_ *site, d string) any {
			return with(envelope(t, mine, statementFor(d, "")), "verificationMaterial", object{"certificate": object{"rawBytes": "AAAA"}})
		}, "keyless"},
		{"another bundle version", func(_ *site, d string) any {
			return with(envelope(t, mine, statementFor(d, "")), "mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.1")
		}, "unknown type"},
		{"both kinds", func(_ *site, d string) any {
			return with(envelope(t, mine, statementFor(d, "")), "messageSignature", object{})
		}, "exactly one signature"},
		{"neither kind", func(*site, string) any { return object{"mediaType": typeBundle, "verificationMaterial": material()} }, "exactly one signature"},
		{"message of another digest", func(s *site, _ string) any {
			sum := sha256.Sum256([]byte("y"))
			return object{"mediaType": typeBundle, "verificationMaterial": material(), "messageSignature": object{
				"messageDigest": object{"algorithm": "SHA2_256", "digest": b64(sum[:])}, "signature": b64(sign(t, k, s.docs["a:1"].data)),
			}}
		}, "for another digest"},
		{"message signed as another", func(s *site, d string) any {
			raw, _ := hex.DecodeString(strings.TrimPrefix(d, "sha256:"))
			return object{"mediaType": typeBundle, "verificationMaterial": material(), "messageSignature": object{
				"messageDigest": object{"algorithm": "SHA2_256", "digest": b64(raw)}, "signature": b64(sign(t, k, []byte("y"))),
			}}
		}, "by none of the keys"},
		{"message of another algorithm", func(s *site, d string) any {
			raw, _ := hex.DecodeString(strings.TrimPrefix(d, "sha256:"))
			return object{"mediaType": typeBundle, "verificationMaterial": material(), "messageSignature": object{
				"messageDigest": object{"algorithm": "SHA2_512", "digest": b64(raw)}, "signature": b64(sign(t, k, s.docs["a:1"].data)),
			}}
		}, "for another digest"},
		{"huge", func(*site, string) any { return strings.Repeat("x", maxBundle) }, "more than 1048576"},
		{"wrong types", func(*site, string) any { return object{"mediaType": 1} }, "not the JSON that is expected"},
		{"twice the envelope", func(_ *site, d string) any {
			b := mustJSON(t, envelope(t, mine, statementFor(d, "")))
			return json.RawMessage(strings.Replace(string(b), `{"`, `{"DSSEEnvelope":{},"`, 1))
		}, "given twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, true)
			d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
			s.refer(t, "a", d.Digest, mustJSON(t, tt.bundle(s, d.Digest)))
			r := open(t, client(t, s), s.host+"/a:1")
			got, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, []Key{parseKey(t, k.Public())})
			if got != (Signer{}) {
				t.Errorf("signed by %+v", got)
			}
			wantError(t, err, tt.err)
			if errors.Is(err, ErrUnsigned) {
				t.Error("there was something")
			}
		})
	}
}

// Lists of referrers that lie, or are none.
func TestHostileReferrers(t *testing.T) {
	key := parseKey(t, ecKey(t).Public())
	for _, tt := range []struct {
		name  string
		index func(d oci.Descriptor) any
		err   string
	}{
		{"no list", func(oci.Descriptor) any { return object{} }, "has no signature"},
		{"not JSON", func(oci.Descriptor) any { return "x" }, "has no signature"},
		{"other artifacts", func(d oci.Descriptor) any {
			return object{"manifests": []any{object{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size, "artifactType": "text/sbom"}}}
		}, "has no signature"},
		{"bad digests", func(oci.Descriptor) any { return object{"manifests": []any{object{"digest": "../../x"}}} }, "has no signature"},
		{"absent bundles", func(oci.Descriptor) any {
			return object{"manifests": []any{object{"digest": "sha256:" + strings.Repeat("0", 64), "artifactType": typeBundle}}}
		}, "cannot be read"},
		{"very many", func(d oci.Descriptor) any {
			return object{"manifests": make([]object, maxReferrers+1)}
		}, "more than 1024 entries"},
		{"the image itself, often", func(d oci.Descriptor) any {
			list := make([]any, 100)
			for i := range list {
				list[i] = object{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size}
			}
			return object{"manifests": list}
		}, "more than 64 signatures"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, true)
			d, _ := s.image(t, "a", "1", "amd64", []byte("x"))
			s.put("a", strings.Replace(d.Digest, ":", "-", 1), oci.TypeIndex, mustJSON(t, tt.index(d)))
			r := open(t, client(t, s), s.host+"/a:1")
			_, err := VerifySignature(soon(t), r, r.Reference(), d.Digest, []Key{key})
			wantError(t, err, tt.err)
			if n := len(s.requests()); n > 80 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(string(simpleSigning("a.com/x", "sha256:"+strings.Repeat("a", 64))))
	f.Add(`{"critical":null}`)
	f.Add(`[[[[`)
	ref, err := oci.ParseReference("a.com/x:1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v := &verifier{ref: ref, digest: "sha256:" + strings.Repeat("a", 64), digits: strings.Repeat("a", 64), names: []string{"a.com/x"}}
		if _, err := v.payload([]byte(s)); err == nil && (!strings.Contains(s, "critical") && !strings.Contains(s, `\u`)) {
			t.Errorf("%q is a signature's payload", s)
		}
		_, _ = v.statement([]byte(s)) // must not panic
	})
}

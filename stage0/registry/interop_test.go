package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/oci"
)

// run runs a program to its end.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// distribution is Debian's docker-registry, started for a test.
type distribution struct {
	host, dir, ca string
}

func startDistribution(t *testing.T, secure, password bool) distribution {
	t.Helper()
	d := distribution{dir: t.TempDir()}
	conf := "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: " + filepath.Join(d.dir, "data") + "\n"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.host = l.Addr().String()
	l.Close()
	conf += "http:\n  addr: " + d.host + "\n"
	if secure {
		cert, key := d.certificates(t)
		conf += "  tls:\n    certificate: " + cert + "\n    key: " + key + "\n"
	}
	if password {
		file := filepath.Join(d.dir, "htpasswd")
		writeFile(t, file, run(t, "htpasswd", "-Bbn", "user", "pass"))
		conf += "auth:\n  htpasswd:\n    realm: test\n    path: " + file + "\n"
	}
	writeFile(t, filepath.Join(d.dir, "config.yml"), []byte(conf))
	cmd := exec.Command("docker-registry", "serve", filepath.Join(d.dir, "config.yml"))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has nothing to tidy up
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry: %s", log.String())
		}
	})
	// It has no way to say that it is ready.
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", d.host)
		if err == nil {
			conn.Close()
			return d
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		if err := sleep(t.Context(), 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

// certificates makes an authority of its own and a certificate by it.
func (d *distribution) certificates(t *testing.T) (cert, key string) {
	t.Helper()
	authority, server := ecKey(t), ecKey(t)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, authority.Public(), authority)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, server.Public(), authority)
	if err != nil {
		t.Fatal(err)
	}
	d.ca, cert, key = filepath.Join(d.dir, "certs", "ca.crt"), filepath.Join(d.dir, "server.pem"), filepath.Join(d.dir, "key.pem")
	writeFile(t, d.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}))
	writeFile(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}))
	writeFile(t, key, keyPEM(t, server))
	return cert, key
}

// layout writes an OCI layout with an image for each architecture.
func layout(t *testing.T, archs ...string) string {
	t.Helper()
	dir := t.TempDir()
	blob := func(mediaType string, data []byte) map[string]any {
		sum := sha256.Sum256(data)
		writeFile(t, filepath.Join(dir, "blobs/sha256", hex.EncodeToString(sum[:])), data)
		return map[string]any{"mediaType": mediaType, "digest": oci.Digest(data), "size": len(data)}
	}
	var entries []any
	for _, arch := range archs {
		var plain, packed bytes.Buffer
		tw := tar.NewWriter(&plain)
		body := bytes.Repeat([]byte(arch+" is the architecture\n"), 1000)
		if err := tw.WriteHeader(&tar.Header{Name: "arch", Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(body); err != nil {
			t.Fatal(err)
		}
		zw := gzip.NewWriter(&packed)
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := zw.Write(plain.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		conf := blob(oci.TypeConfig, mustJSON(t, map[string]any{
			"os": "linux", "architecture": arch, "config": map[string]any{"Cmd": []string{"/x"}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{oci.Digest(plain.Bytes())}},
		}))
		m := blob(oci.TypeManifest, mustJSON(t, map[string]any{
			"schemaVersion": 2, "mediaType": oci.TypeManifest, "config": conf, "layers": []any{blob(oci.TypeLayerGzip, packed.Bytes())},
		}))
		m["platform"] = map[string]any{"os": "linux", "architecture": arch}
		entries = append(entries, m)
	}
	top := entries[0].(map[string]any)
	if len(entries) > 1 {
		top = blob(oci.TypeIndex, mustJSON(t, map[string]any{"schemaVersion": 2, "mediaType": oci.TypeIndex, "manifests": entries}))
	}
	delete(top, "platform")
	top["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "x"}
	writeFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	writeFile(t, filepath.Join(dir, "index.json"), mustJSON(t, map[string]any{"schemaVersion": 2, "manifests": []any{top}}))
	return dir
}

// sign stores a signature as cosign does.
func (d distribution) sign(t *testing.T, repo, digest, payload string, sig []byte) {
	t.Helper()
	base, c := "http://"+d.host, http.DefaultClient
	if d.ca != "" {
		data, err := os.ReadFile(d.ca)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(data)
		base, c = "https://"+d.host, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	}
	do := func(method, target, mediaType string, body []byte) string {
		t.Helper()
		req, err := http.NewRequest(method, target, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("user", "pass")
		req.Header.Set("Content-Type", mediaType)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s", method, target, resp.Status)
		}
		return resp.Header.Get("Location")
	}
	blob := func(mediaType string, data []byte) object {
		t.Helper()
		to := do(http.MethodPost, base+"/v2/"+repo+"/blobs/uploads/", "", nil)
		do(http.MethodPut, to+"&digest="+url.QueryEscape(oci.Digest(data)), "application/octet-stream", data)
		return object{"mediaType": mediaType, "digest": oci.Digest(data), "size": len(data)}
	}
	data, err := os.ReadFile(payload)
	if err != nil {
		t.Fatal(err)
	}
	layer := blob(typeSimpleSigning, data)
	layer["annotations"] = object{sigAnnotation: b64(sig)}
	do(http.MethodPut, base+"/v2/"+repo+"/manifests/"+strings.Replace(digest, ":", "-", 1)+".sig", oci.TypeManifest, mustJSON(t, object{
		"schemaVersion": 2, "mediaType": oci.TypeManifest, "config": blob(oci.TypeConfig, []byte("{}")), "layers": []any{layer},
	}))
}

// TestDistribution pulls from Debian's docker-registry what Debian's skopeo
// pushed, and openssl signed: over http without a password, over TLS with a private
// authority and a password.
// check list: 26, 29, 63, 64
func TestDistribution(t *testing.T) {
	for _, tool := range []string{"docker-registry", "skopeo", "htpasswd", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	single, multi := layout(t, "amd64"), layout(t, "s390x", "amd64", "arm64")
	secret, payload := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "payload")
	run(t, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", secret)
	key, err := ParseKey(run(t, "openssl", "pkey", "-in", secret, "-pubout"))
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure %v", secure), func(t *testing.T) {
			d := startDistribution(t, secure, secure)
			push := func(from, to string, args ...string) {
				t.Helper()
				if secure {
					args = append(args, "--dest-cert-dir", filepath.Dir(d.ca), "--dest-creds", "user:pass")
				} else {
					args = append(args, "--dest-tls-verify=false")
				}
				run(t, "skopeo", append([]string{"--insecure-policy", "copy", "oci:" + from + ":x", "docker://" + d.host + "/" + to}, args...)...)
			}
			push(single, "acme/web:1")
			push(single, "acme/zstd:1", "--dest-compress-format", "zstd")
			push(single, "acme/docker:1", "--format", "v2s2")
			push(multi, "acme/multi:1", "--all")

			c := &Client{Timeouts: quick(), Config: &config.Config{Registries: map[string]config.Registry{}}}
			defer c.CloseIdle()
			if secure {
				c.Config.Registries[d.host] = config.Registry{Prefix: d.host, CA: d.ca}
				_, err := open(t, c, d.host+"/acme/web:1").Image(soon(t), amd64)
				if wantError(t, err, "asks for credentials"); !errors.Is(err, ErrUnauthorized) {
					t.Error(err)
				}
				c = &Client{Timeouts: c.Timeouts, Config: &config.Config{Registries: c.Config.Registries, DockerAuth: map[string]config.BasicSecret{d.host: {User: "user", Password: "pass"}}}}
			} else {
				c.InsecureHTTP = true
			}
			defer c.CloseIdle()
			for _, name := range []string{"acme/web:1", "acme/zstd:1", "acme/docker:1", "acme/multi:1"} {
				r := open(t, c, d.host+"/"+name)
				digest, err := r.Head(soon(t))
				if err != nil {
					t.Fatal(err)
				}
				pinned := open(t, c, d.host+"/"+strings.TrimSuffix(name, ":1")+"@"+digest)
				for _, r := range []*Repository{r, pinned} {
					img, err := r.Image(soon(t), amd64)
					if err != nil {
						t.Fatal(err)
					}
					if digest != img.ManifestDigest && digest != img.Index || !strings.Contains(string(img.Config), `"amd64"`) {
						t.Errorf("%s: %+v", name, img)
					}
					l := img.Layers[0]
					whole, err := readBlob(soon(t), r, l.Descriptor, 0)
					if err != nil || oci.CheckDigest(l.Digest, whole) != nil {
						t.Fatal(err)
					}
					rest, err := readBlob(soon(t), r, l.Descriptor, 17)
					if err != nil || !bytes.Equal(rest, whole[17:]) {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
			r := open(t, c, d.host+"/acme/web:1")
			img, err := r.Image(soon(t), amd64)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, payload, simpleSigning(d.host+"/acme/web", img.ManifestDigest))
			d.sign(t, "acme/web", img.ManifestDigest, payload, run(t, "openssl", "dgst", "-sha256", "-sign", secret, payload))
			signer, err := r.Verify(soon(t), img, []Key{key})
			if err != nil || signer.Fingerprint != key.Fingerprint || signer.Identity != d.host+"/acme/web" {
				t.Errorf("%+v, %v", signer, err)
			}
			unsigned := open(t, c, d.host+"/acme/multi:1")
			img, err = unsigned.Image(soon(t), amd64)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := unsigned.Verify(soon(t), img, []Key{key}); !errors.Is(err, ErrUnsigned) {
				t.Error(err)
			}
		})
	}
}

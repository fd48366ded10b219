package oci

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// obj is a JSON document in the making.
type obj = map[string]any

func doc(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func digestOf(s string) string { return Digest([]byte(s)) }

func descriptor(mediaType, content string) obj {
	return obj{"mediaType": mediaType, "digest": digestOf(content), "size": len(content)}
}

// goodConfig has as many layers as n.
func goodConfig(n int) obj {
	ids := []string{}
	for i := range n {
		ids = append(ids, digestOf(fmt.Sprint("plain", i)))
	}
	return obj{
		"os": "linux", "architecture": "amd64", "created": "2026-01-02T03:04:05Z",
		"rootfs": obj{"type": "layers", "diff_ids": ids},
		"config": obj{"Cmd": []string{"/bin/sh"}, "Env": []string{"PATH=/bin"}},
	}
}

func goodManifest(t testing.TB, config []byte, n int) obj {
	layers := []obj{}
	for i := range n {
		layers = append(layers, descriptor(TypeLayerGzip, fmt.Sprint("layer", i)))
	}
	return obj{
		"schemaVersion": 2, "mediaType": TypeManifest,
		"config": obj{"mediaType": TypeConfig, "digest": Digest(config), "size": len(config)},
		"layers": layers,
	}
}

func platform(os, arch, variant string) obj {
	p := obj{"os": os, "architecture": arch}
	if variant != "" {
		p["variant"] = variant
	}
	return p
}

func entry(name string, p obj) obj {
	d := descriptor(TypeManifest, name)
	if p != nil {
		d["platform"] = p
	}
	return d
}

func index(entries ...obj) obj {
	return obj{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": entries}
}

// check list: 63
func TestSelectPicksTheBestVariantThatRuns(t *testing.T) {
	attestation := entry("attestation", platform("unknown", "unknown", ""))
	reference := entry("reference", platform("linux", "amd64", ""))
	reference["annotations"] = obj{"vnd.docker.reference.type": "attestation-manifest"}
	all := index(reference, attestation,
		entry("arm5", platform("linux", "arm", "v5")), entry("arm7", platform("linux", "arm", "v7")),
		entry("arm6", platform("linux", "arm", "v6")), entry("arm64", platform("linux", "arm64", "v8")),
		entry("amd64v3", platform("linux", "amd64", "v3")), entry("amd64", platform("linux", "amd64", "")),
		entry("amd64 again", platform("linux", "amd64", "")), entry("windows", platform("windows", "amd64", "")),
		entry("386", platform("linux", "386", "")))
	for _, c := range []struct {
		platform string
		index    obj
		want     string // content of the entry, or part of the error
		fails    bool
	}{
		{"linux/amd64", all, "amd64", false},
		{"linux/amd64/v2", all, "amd64", false},
		{"linux/amd64/v4", all, "amd64v3", false},
		{"linux/arm", all, "arm7", false},
		{"linux/arm/v6", all, "arm6", false},
		{"linux/arm64", all, "arm64", false},
		{"linux/aarch64", all, "arm64", false},
		{"linux/386", all, "386", false},
		{"linux/riscv64", all, "there is one for linux/386, linux/amd64, linux/amd64/v3, linux/arm/v5", true},
		{"linux/amd64", index(), "offers no images", true},
		{"linux/amd64", index(attestation, reference), "offers no images", true},
		{"linux/amd64", index(entry("one", nil)), "one", false},
		{"linux/amd64", index(entry("one", nil), entry("two", nil)), "name no platform", true},
	} {
		p, err := ParsePlatform(c.platform)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Select(doc(t, c.index), p)
		if c.fails {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Select(%s): %v, %v, want error %q", c.platform, d, err, c.want)
			}
		} else if err != nil || d.Digest != digestOf(c.want) {
			t.Errorf("Select(%s) = %v, %v, want %q", c.platform, d, err, c.want)
		}
	}
}

func TestNewImage(t *testing.T) {
	config := doc(t, goodConfig(2))
	manifest := doc(t, goodManifest(t, config, 2))
	img, err := NewImage(manifest, TypeManifest, config, Platform{OS: "linux", Architecture: "amd64"})
	if err != nil || len(img.Layers) != 2 || img.ManifestDigest != Digest(manifest) || img.Layers[1].DiffID != digestOf("plain1") {
		t.Fatalf("NewImage: %+v, %v", img, err)
	}
	if _, err := NewImage(manifest, "", config, Platform{OS: "linux", Architecture: "arm64"}); err == nil ||
		!strings.Contains(err.Error(), "no image for linux/arm64: there is one for linux/amd64") {
		t.Errorf("wrong platform: %v", err)
	}
	if _, err := NewImage(manifest, "", append(config, ' '), Platform{}); err == nil {
		t.Error("a changed configuration is accepted")
	}
	three := doc(t, goodConfig(3))
	if _, err := NewImage(doc(t, goodManifest(t, three, 2)), "", three, Platform{}); err == nil {
		t.Error("a layer is missing, and nobody minds")
	}
}

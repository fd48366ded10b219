package oci

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile is a document that must be refused.
type hostile struct {
	name string
	kind string // manifest, index, config or image (manifest and configuration)
	data []byte
	err  string // part of the message, which says what is wrong
}

func with(m obj, key string, v any) obj {
	if v == nil {
		delete(m, key)
	} else {
		m[key] = v
	}
	return m
}

func raw(s string) []byte { return []byte(s) }

// nested is n opening brackets, and as many closing ones.
func nested(open, closing string, n int) string {
	return strings.Repeat(open, n) + strings.Repeat(closing, n)
}

func hostileManifests(t testing.TB) []hostile {
	config := doc(t, goodConfig(1))
	good := func() obj { return goodManifest(t, config, 1) }
	top := func(key string, v any) []byte { return doc(t, with(good(), key, v)) }
	cfg := func(key string, v any) []byte {
		m := good()
		return doc(t, with(m, "config", with(m["config"].(obj), key, v)))
	}
	layer := func(key string, v any) []byte {
		m := good()
		m["layers"] = []obj{with(m["layers"].([]obj)[0], key, v)}
		return doc(t, m)
	}
	text := string(doc(t, good()))
	digest := digestOf("layer0")
	list := []hostile{
		{"empty", "", nil, "unexpected EOF"},
		{"space", "", raw("  \n "), "unexpected EOF"},
		{"null", "", raw("null"), "not a JSON object"},
		{"list", "", raw("[]"), "not a JSON object"},
		{"text", "", raw(`"x"`), "not a JSON object"},
		{"cut", "", raw(text[:len(text)/2]), "bad JSON"},
		{"two documents", "", raw(text + text), "after the end"},
		{"trailing byte", "", raw(text + "}"), "after the end"},
		{"not UTF-8", "", raw(strings.Replace(text, "sha256", "sha\xff56", 1)), "UTF-8"},
		{"UTF-16", "", raw("\xff\xfe{\x00}\x00"), "UTF-8"},
		{"byte order mark", "", raw("\ufeff" + text), "bad JSON"},
		{"comment", "", raw("//\n" + text), "bad JSON"},
		{"larger than allowed", "", raw(text + strings.Repeat(" ", MaxManifest)), "larger than"},
		{"nested lists", "", raw(nested("[", "]", 100000)), "deeper than"},
		{"nested objects", "", raw(nested(`{"a":`, "}", 100000)), "deeper than"},
		{"a million values", "", raw(`{"x":[` + strings.Repeat("0,", 1000000) + `0]}`), "more than 131072 values"},
		{"empty lists", "", raw(`{"x":[` + strings.Repeat("[],", 1000000) + `0]}`), "more than 131072 values"},
		{"digest twice", "", raw(strings.Replace(text, `"digest":`, `"digest":"`+digest+`","digest":`, 1)), `"digest" is given twice`},
		{"escaped twin", "", raw(strings.Replace(text, `"config":`, `"c\u006fnfig":{},"config":`, 1)), `"config" is given twice`},
		{"layers twice", "", raw(strings.Replace(text, `"layers":`, `"layers":[],"layers":`, 1)), "given twice"},
		{"other case", "", raw(strings.Replace(text, `"layers"`, `"Layers"`, 1)), `must be spelt "layers"`},
		{"twin of other case", "", raw(strings.Replace(text, `"digest":`, `"Digest":"`+digest+`","digest":`, 1)), `must be spelt "digest"`},
		{"Kelvin sign", "", raw(strings.Replace(text, `"schemaVersion"`, `"\u017fchemaVersion"`, 1)), `must be spelt "schemaVersion"`},
		{"no schema version", "", top("schemaVersion", nil), "schemaVersion"},
		{"schema version text", "", top("schemaVersion", "2"), "schemaVersion"},
		{"schema version 3", "", top("schemaVersion", 3), "schema version 3"},
		{"schema 1", "", raw(`{"schemaVersion":1,"name":"x","fsLayers":[{"blobSum":"` + digest + `"}],"history":[]}`), "schema 1"},
		{"schema 1 in disguise", "", top("fsLayers", []obj{}), "schema 1"},
		{"schema 1 by type", "", top("mediaType", typeSignedSchema), "schema 1"},
		{"unknown type", "", top("mediaType", "text/html"), "neither an image manifest"},
		{"type of another type", "", top("mediaType", 5), "not a string"},
		{"type of control characters", "", top("mediaType", "a\x1b[2J"), "control characters"},
		{"long type", "", top("mediaType", strings.Repeat("x", 1<<16)), "longer than"},
		{"type of an index", "", top("mediaType", TypeIndex), "offered as"},
		{"manifest and index", "", top("manifests", []obj{}), "at once"},
		{"index type inside", "", raw(strings.Replace(strings.Replace(text, "layers", "manifests", 1), `"config"`, `"x"`, 1)), "not what its media type"},
		{"docker type offered", "", top("mediaType", TypeDockerManifest), "offered as"},
		{"no config", "", top("config", nil), "names no configuration"},
		{"config of another type", "", top("config", "x"), "not a JSON object"},
		{"artifact", "", cfg("mediaType", "application/vnd.cncf.helm.config.v1+json"), "artifact"},
		{"empty config", "", cfg("mediaType", typeEmpty), "artifact"},
		{"config without type", "", cfg("mediaType", nil), "no media type"},
		{"artifact type", "", top("artifactType", "application/spdx+json"), "artifact"},
		{"config of another digest", "", cfg("digest", "x"), "bad digest"},
		{"config of 8 MiB and one byte", "", cfg("size", MaxConfig+1), "is more than"},
		{"no layers", "", top("layers", []obj{}), "nothing to run"},
		{"layers missing", "", top("layers", nil), "nothing to run"},
		{"layers an object", "", top("layers", obj{}), "not a list"},
		{"layer null", "", top("layers", []any{nil}), "missing"},
		{"layer text", "", top("layers", []any{"x"}), "not a JSON object"},
		{"513 layers", "", doc(t, goodManifest(t, config, MaxLayers+1)), "more than 512"},
		{"layer without type", "", layer("mediaType", nil), "no media type"},
		{"encrypted", "", layer("mediaType", TypeLayerGzip+"+encrypted"), "encrypted"},
		{"encrypted tar", "", layer("mediaType", TypeLayer+"+encrypted"), "encrypted"},
		{"layer of an unknown type", "", layer("mediaType", "application/zip"), "not that of a layer"},
		{"layer that is a manifest", "", layer("mediaType", TypeManifest), "not that of a layer"},
		{"no digest", "", layer("digest", nil), "bad digest"},
		{"sha512", "", layer("digest", "sha512:"+strings.Repeat("a", 128)), `"sha512" is not supported`},
		{"md5", "", layer("digest", "md5:"+strings.Repeat("a", 32)), "not supported"},
		{"upper-case digest", "", layer("digest", strings.ToUpper(digest)), "not supported"},
		{"upper-case digits", "", layer("digest", "sha256:"+strings.Repeat("A", 64)), "bad digest"},
		{"short digest", "", layer("digest", "sha256:abc"), "bad digest"},
		{"long digest", "", layer("digest", digest+"0"), "bad digest"},
		{"digest with a path", "", layer("digest", "sha256:../../../../etc/passwd"), "bad digest"},
		{"digest with a NUL", "", layer("digest", "sha256:"+strings.Repeat("a", 63)+"\x00"), "bad digest"},
		{"huge digest", "", layer("digest", strings.Repeat("a", 1<<20)), "bad digest"},
		{"no size", "", layer("size", nil), "not a number"},
		{"size text", "", layer("size", "5"), "not a number"},
		{"negative size", "", layer("size", -1), "negative"},
		{"huge size", "", layer("size", int64(1)<<62), "is more than"},
		{"size beyond 64 bits", "", raw(strings.Replace(text, `"size":6`, `"size":99999999999999999999`, 1)), "not a number of bytes"},
		{"size with a fraction", "", raw(strings.Replace(text, `"size":6`, `"size":6.5`, 1)), "not a number of bytes"},
		{"size with an exponent", "", raw(strings.Replace(text, `"size":6`, `"size":1e999999999`, 1)), "not a number of bytes"},
		{"url of a file", "", layer("urls", []string{"file:///etc/shadow"}), "bad URL"},
		{"url with credentials", "", layer("urls", []string{"https://u:p@example.com/x"}), "bad URL"},
		{"url without host", "", layer("urls", []string{"https:///x"}), "bad URL"},
		{"many urls", "", layer("urls", make([]string, 17)), "more than 16"},
		{"annotations a list", "", top("annotations", []string{}), "not a JSON object"},
		{"annotation a number", "", top("annotations", obj{"a": 1}), "not a string"},
	}
	m := good()
	other := descriptor(TypeLayerGzip, "layer0")
	other["size"] = 7
	m["layers"] = append(m["layers"].([]obj), other)
	list = append(list, hostile{"one digest with two sizes", "", doc(t, m), "6 before"})
	m = goodManifest(t, config, 3)
	for _, l := range m["layers"].([]obj) {
		l["size"] = MaxLayer / 2
	}
	list = append(list, hostile{"too large together", "", doc(t, m), "bytes together"})
	many := obj{}
	for i := range maxAnnotations + 1 {
		many[fmt.Sprint(i)] = ""
	}
	list = append(list, hostile{"too many annotations", "", top("annotations", many), "more than 1024"})
	for i := range list {
		list[i].kind = "manifest"
	}
	return list
}

func hostileIndexes(t testing.TB) []hostile {
	good := func() obj { return entry("a", platform("linux", "amd64", "")) }
	with1 := func(key string, v any) []byte { return doc(t, index(with(good(), key, v))) }
	text := string(doc(t, index(good())))
	many := index()
	entries := []obj{}
	for i := range MaxEntries + 1 {
		entries = append(entries, entry(fmt.Sprint(i), nil))
	}
	many["manifests"] = entries
	two := good()
	two["size"] = 9
	list := []hostile{
		{"empty", "", nil, "unexpected EOF"},
		{"list", "", raw("[]"), "not a JSON object"},
		{"larger than allowed", "", raw(text + strings.Repeat(" ", MaxManifest)), "larger than"},
		{"1025 entries", "", doc(t, many), "more than 1024"},
		{"index and manifest", "", doc(t, with(index(good()), "config", obj{})), "at once"},
		{"index and layers", "", doc(t, with(index(good()), "layers", []obj{})), "at once"},
		{"manifests an object", "", doc(t, with(index(), "manifests", obj{})), "not a list"},
		{"manifests twice", "", raw(strings.Replace(text, `"manifests":`, `"manifests":[],"manifests":`, 1)), "given twice"},
		{"other case", "", raw(strings.Replace(text, `"manifests":`, `"Manifests":`, 1)), "must be spelt"},
		{"platform in other case", "", raw(strings.Replace(text, `"architecture":`, `"Architecture":`, 1)), "must be spelt"},
		{"entry null", "", doc(t, with(index(), "manifests", []any{nil})), "missing"},
		{"no digest", "", with1("digest", nil), "bad digest"},
		{"sha512", "", with1("digest", "sha512:"+strings.Repeat("a", 128)), "not supported"},
		{"digest with a path", "", with1("digest", "sha256:../x"), "bad digest"},
		{"negative size", "", with1("size", -5), "negative"},
		{"manifest of 4 MiB and one byte", "", with1("size", MaxManifest+1), "is more than"},
		{"platform text", "", with1("platform", "linux/amd64"), "not a JSON object"},
		{"platform of numbers", "", with1("platform", obj{"os": 1, "architecture": 2}), "not a string"},
		{"platform of control characters", "", with1("platform", platform("linux\n", "amd64", "")), "control characters"},
		{"long platform", "", with1("platform", platform("linux", strings.Repeat("x", 1000), "")), "longer than"},
		{"annotations text", "", with1("annotations", "x"), "not a JSON object"},
		{"one digest with two sizes", "", doc(t, index(good(), two)), "1 before"},
		{"docker list in disguise", "", doc(t, with(index(good()), "mediaType", TypeDockerList)), "offered as"},
		{"manifest type", "", doc(t, with(index(good()), "mediaType", TypeManifest)), "offered as"},
		{"schema 1", "", doc(t, with(index(good()), "schemaVersion", 1)), "schema 1"},
	}
	for i := range list {
		list[i].kind = "index"
	}
	return list
}

func hostileConfigs(t testing.TB) []hostile {
	good := func() obj { return goodConfig(1) }
	top := func(key string, v any) []byte { return doc(t, with(good(), key, v)) }
	fs := func(key string, v any) []byte {
		m := good()
		return doc(t, with(m, "rootfs", with(m["rootfs"].(obj), key, v)))
	}
	run := func(key string, v any) []byte {
		m := good()
		return doc(t, with(m, "config", with(m["config"].(obj), key, v)))
	}
	text := string(doc(t, good()))
	list := []hostile{
		{"empty", "", nil, "unexpected EOF"},
		{"list", "", raw("[]"), "not a JSON object"},
		{"null", "", raw("null"), "not a JSON object"},
		{"larger than allowed", "", raw(text + strings.Repeat(" ", MaxConfig)), "larger than"},
		{"nested", "", raw(`{"x":` + nested("[", "]", 100000) + "}"), "deeper than"},
		{"many values", "", raw(`{"history":[` + strings.Repeat("{},", 200000) + `{}]}`), "more than 131072 values"},
		{"config twice", "", raw(strings.Replace(text, `"config":`, `"config":{},"config":`, 1)), "given twice"},
		{"config in other case", "", raw(strings.Replace(text, `"config":`, `"Config":`, 1)), "must be spelt"},
		{"cmd in other case", "", raw(strings.Replace(text, `"Cmd":`, `"CMD":["/evil"],"Cmd":`, 1)), "must be spelt"},
		{"no os", "", top("os", nil), "operating system"},
		{"no architecture", "", top("architecture", nil), "architecture"},
		{"os a number", "", top("os", 5), "not a string"},
		{"os of control characters", "", top("os", "linux\x00"), "control characters"},
		{"long architecture", "", top("architecture", strings.Repeat("x", 65)), "longer than"},
		{"no rootfs", "", top("rootfs", nil), "rootfs"},
		{"rootfs a list", "", top("rootfs", []string{}), "not a JSON object"},
		{"rootfs of another type", "", fs("type", "zip"), `want "layers"`},
		{"diff IDs an object", "", fs("diff_ids", obj{}), "not a list"},
		{"diff ID a number", "", fs("diff_ids", []int{1}), "not a string"},
		{"diff ID sha512", "", fs("diff_ids", []string{"sha512:" + strings.Repeat("a", 128)}), "not supported"},
		{"diff ID with a path", "", fs("diff_ids", []string{"sha256:../../x"}), "bad digest"},
		{"513 diff IDs", "", doc(t, goodConfig(MaxLayers+1)), "more than 512"},
		{"config a list", "", top("config", []string{}), "not a JSON object"},
		{"cmd text", "", run("Cmd", "/bin/sh"), "not a list"},
		{"cmd of numbers", "", run("Cmd", []int{1}), "not a string"},
		{"NUL in cmd", "", run("Cmd", []string{"a\x00b"}), "holds a NUL"},
		{"NUL in entrypoint", "", run("Entrypoint", []string{"a\x00b"}), "holds a NUL"},
		{"NUL in env", "", run("Env", []string{"A=\x00"}), "holds a NUL"},
		{"env an object", "", run("Env", obj{"A": "b"}), "not a list"},
		{"many variables", "", run("Env", make([]string, maxListed+1)), "more than 16384"},
		{"user a number", "", run("User", 0), "not a string"},
		{"user of two lines", "", run("User", "root\nevil"), "control characters"},
		{"long user", "", run("User", strings.Repeat("x", 5000)), "longer than"},
		{"NUL in workdir", "", run("WorkingDir", "/a\x00"), "control characters"},
		{"long workdir", "", run("WorkingDir", strings.Repeat("/x", 4000)), "longer than"},
		{"volumes a list", "", run("Volumes", []string{"/x"}), "not a JSON object"},
		{"ports a list", "", run("ExposedPorts", []string{"80"}), "not a JSON object"},
		{"label a number", "", run("Labels", obj{"a": 1}), "not a string"},
		{"long stop signal", "", run("StopSignal", strings.Repeat("x", 65)), "longer than"},
		{"healthcheck text", "", run("Healthcheck", "x"), "not a JSON object"},
	}
	for i := range list {
		list[i].kind = "config"
	}
	return list
}

// check list: 62
func TestHostileDocumentsAreRefused(t *testing.T) {
	list := append(append(hostileManifests(t), hostileIndexes(t)...), hostileConfigs(t)...)
	if len(list) < 80 {
		t.Errorf("only %d documents", len(list))
	}
	for _, h := range list {
		t.Run(h.kind+"/"+h.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			var err error
			switch h.kind {
			case "manifest":
				_, err = ParseManifest(h.data, TypeManifest)
			case "index":
				_, err = ParseIndex(h.data, TypeIndex)
			case "config":
				_, err = ParseConfig(h.data)
			}
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), h.err) {
				t.Errorf("error %v, want %q", err, h.err)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), control)) {
				t.Errorf("the message is long or holds control characters: %.200q", err)
			}
			// What was allocated in all bounds what was held at once.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 96<<20 || took > 5*time.Second {
				t.Errorf("%d bytes allocated, %v", grown, took)
			}
		})
	}
}

func TestIndexesThatLeadAstrayAreRefused(t *testing.T) {
	blobs := map[string][]byte{}
	add := func(b []byte, mediaType string) obj {
		blobs[Digest(b)] = b
		return obj{"mediaType": mediaType, "digest": Digest(b), "size": len(b)}
	}
	fetch := func(_ context.Context, d Descriptor) ([]byte, error) {
		b, ok := blobs[d.Digest]
		if !ok {
			return nil, fmt.Errorf("there is no %s", d.Digest)
		}
		return b, nil
	}
	config := doc(t, goodConfig(1))
	add(config, TypeConfig)
	arm := goodConfig(1)
	arm["architecture"] = "arm64"
	armConfig := doc(t, arm)
	add(armConfig, TypeConfig)
	good := add(doc(t, goodManifest(t, config, 1)), TypeManifest)
	other := add(doc(t, goodManifest(t, armConfig, 1)), TypeManifest)

	deep := good
	var level [6]obj
	for i := range level {
		deep = add(doc(t, index(deep)), TypeIndex)
		level[i] = deep
	}
	wide := []obj{}
	for i := range 200 {
		o := goodConfig(1)
		o["architecture"], o["author"] = "arm64", fmt.Sprint(i)
		c := doc(t, o)
		add(c, TypeConfig)
		wide = append(wide, add(doc(t, goodManifest(t, c, 1)), TypeManifest))
	}
	lie := add(doc(t, goodManifest(t, config, 1)), TypeManifest)
	lie["platform"] = platform("linux", "arm64", "")
	size := add(doc(t, goodManifest(t, config, 1)), TypeManifest)
	size["size"] = size["size"].(int) + 1
	asIndex := add(doc(t, goodManifest(t, config, 1)), TypeIndex)
	helm := goodManifest(t, config, 1)
	helm["config"] = with(helm["config"].(obj), "mediaType", "application/vnd.cncf.helm.config.v1+json")
	for _, c := range []struct {
		name string
		top  obj
		p    Platform
		err  string
	}{
		{"single", index(good), amd64, ""},
		{"second of no platform", index(other, good), amd64, ""},
		{"three levels", index(level[2]), amd64, ""},
		{"five levels", index(level[4]), amd64, "nested deeper than 4"},
		{"200 entries without platform", index(wide...), amd64, "more than 32 documents"},
		{"none for the platform", index(good), Platform{OS: "linux", Architecture: "s390x"}, "there is one for linux/amd64"},
		{"wrong platform in the index", index(lie), Platform{OS: "linux", Architecture: "arm64"}, "no image for linux/arm64: there is one for linux/amd64"},
		{"wrong size in the index", index(size), amd64, "its descriptor says"},
		{"missing", index(entry("missing", nil)), amd64, "there is no sha256"},
		{"manifest offered as an index", index(asIndex), amd64, "offered as"},
		{"artifact", index(add(doc(t, helm), TypeManifest)), amd64, "artifact"},
	} {
		img, err := Resolve(t.Context(), doc(t, c.top), TypeIndex, c.p, fetch)
		if c.err == "" {
			if err != nil || img.Index != Digest(doc(t, c.top)) || img.ManifestDigest != good["digest"] {
				t.Errorf("%s: %+v, %v", c.name, img, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
	}
	// Whoever serves other bytes than asked for is caught.
	evil := func(_ context.Context, d Descriptor) ([]byte, error) {
		return bytes.Replace(blobs[d.Digest], []byte("amd64"), []byte("arm64"), 1), nil
	}
	if _, err := Resolve(t.Context(), doc(t, goodManifest(t, config, 1)), "", amd64, evil); err == nil || !strings.Contains(err.Error(), "tampered") {
		t.Errorf("changed configuration: %v", err)
	}
}

func FuzzManifest(f *testing.F) {
	for _, h := range hostileManifests(f) {
		if len(h.data) < 4096 {
			f.Add(h.data)
		}
	}
	f.Add(doc(f, goodManifest(f, doc(f, goodConfig(2)), 2)))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data, "")
		if err != nil {
			return
		}
		for _, d := range append(m.Layers, m.Config) {
			if _, err := ParseDigest(d.Digest); err != nil || d.Size < 0 || d.Size > MaxLayer {
				t.Errorf("accepted %+v", d)
			}
		}
		if _, err := ParseIndex(data, ""); err == nil {
			t.Error("it is an index too")
		}
	})
}

func FuzzIndex(f *testing.F) {
	for _, h := range hostileIndexes(f) {
		if len(h.data) < 4096 {
			f.Add(h.data)
		}
	}
	f.Add(doc(f, index(entry("a", platform("linux", "amd64", "v3")), entry("b", nil))))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Select(data, amd64)
		if err != nil {
			return
		}
		if _, err := ParseDigest(d.Digest); err != nil || checkTop(d.MediaType) != nil || d.Size < 0 || d.Size > MaxManifest {
			t.Errorf("selected %+v", d)
		}
	})
}

func FuzzConfig(f *testing.F) {
	for _, h := range hostileConfigs(f) {
		if len(h.data) < 4096 {
			f.Add(h.data)
		}
	}
	f.Add(doc(f, goodConfig(2)))
	f.Add([]byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digestOf("") + `"]},"config":{"User":"a:b","Env":["A=b","c d=e"],"Volumes":{"/x":{}},"ExposedPorts":{"1-2/udp":{}},"StopSignal":"9","Labels":{"a":"b"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := imageOf(t, data, nil)
		if err != nil {
			return
		}
		a, _, err := Convert(img, Naming{Name: "x", Repository: "x"})
		if err != nil {
			return
		}
		b, _, err := Convert(img, Naming{Name: "x", Repository: "x"})
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("converted twice, it differs: %s %s %v", a, b, err)
		}
	})
}

package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func layerDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func kind(k, rest string) string {
	return `{"rktKind":"` + k + `","rktVersion":"v1"` + rest + `}`
}

const basic = `,"type":"basic","credentials":{"user":"u","password":"p"}`

func TestMerge(t *testing.T) {
	system := layerDir(t, map[string]string{
		"auth.d/a.json":        kind("auth", `,"domains":["a.com","b.com","c.com:8443"]`+basic),
		"auth.d/README":        "not JSON",
		"auth.d/x.notjson":     "not JSON",
		"auth.d/sub/auth.json": "not JSON",
		"x/auth.d/a.json":      "not JSON",
		"auth.d/d.json":        kind("dockerAuth", `,"registries":["quay.io","gcr.io"],"credentials":{"user":"u","password":"p"}`),
		"paths.d/p.json":       kind("paths", `,"data":"/d","stage1-images":"/s"`),
		"stage1.d/s.json":      kind("stage1", `,"name":"example.com/s1","version":"1","location":"/x.aci"`),
	})
	local := layerDir(t, map[string]string{
		"auth.d/b.json": kind("auth", `,"domains":["b.com"],"type":"oauth","credentials":{"token":"t"}`),
		"auth.d/d.json": kind("dockerAuth", `,"registries":["gcr.io"],"credentials":{"user":"v","password":"q"}`),
	})
	user := layerDir(t, map[string]string{
		"auth.d/c.json":   kind("auth", `,"domains":["c.com:8443"],"type":"aws","credentials":{"accessKeyID":"k","secretAccessKey":"s"}`),
		"paths.d/p.json":  kind("paths", `,"data":"/user"`),
		"stage1.d/s.json": kind("stage1", `,"location":"https://example.com/y.aci"`),
	})
	got, err := Load(Dirs{system, local, user})
	if err != nil {
		t.Fatal(err)
	}
	up := BasicSecret{"u", "p"}
	want := &Config{
		Auth: map[string]Auth{
			"a.com":      {Type: AuthBasic, Basic: up},
			"b.com":      {Type: AuthOAuth, OAuth: OAuthSecret{"t"}},
			"c.com:8443": {Type: AuthAWS, AWS: AWSSecret{AccessKeyID: "k", SecretAccessKey: "s"}},
		},
		DockerAuth: map[string]BasicSecret{"quay.io": up, "gcr.io": {"v", "q"}},
		Paths:      Paths{"/user", "/s"},
		Stage1:     Stage1{"example.com/s1", "1", "https://example.com/y.aci"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	for _, pretty := range []bool{true, false} {
		out, err := got.JSON(pretty)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string][]map[string]any
		if err := json.Unmarshal(out, &doc); err != nil {
			t.Fatal(err)
		}
		if len(doc) != 1 || len(doc["stage0"]) != 7 || strings.Contains(string(out), "\n") != pretty {
			t.Errorf("config prints %s", out)
		}
		// Every entry is itself a valid file.
		for i, e := range doc["stage0"] {
			data, _ := json.Marshal(e)
			for _, sub := range subdirs() {
				l := &layer{auth: map[string]Auth{}, dockerAuth: map[string]BasicSecret{}, origin: map[string]string{}}
				if strings.HasPrefix(e["rktKind"].(string), strings.TrimSuffix(sub.name, ".d")) {
					if err := l.parse("x", sub, data); err != nil {
						t.Errorf("entry %d: %v", i, err)
					}
				}
			}
		}
	}
}

func TestNothing(t *testing.T) {
	c, err := Load(Dirs{System: "/does/not/exist", Local: t.TempDir()})
	if err != nil || c.DataDir() != "/var/lib/rkt" {
		t.Fatal(c, err)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ name, file, content, err string }{
		{"not JSON", "auth.d/x.json", "{", "unexpected end"},
		{"no kind", "auth.d/x.json", `{"rktVersion":"v1"}`, "no rktKind"},
		{"no version", "auth.d/x.json", `{"rktKind":"auth"}`, "no rktVersion"},
		{"unknown kind", "auth.d/x.json", kind("x", ""), `the kind is "x"; files in auth.d must be of kind auth or dockerAuth`},
		{"unknown version", "auth.d/x.json", `{"rktKind":"auth","rktVersion":"v2"}`, `version "v2" of kind "auth"`},
		{"wrong directory", "paths.d/x.json", kind("auth", ""), "must be of kind paths"},
		{"no domains", "auth.d/x.json", kind("auth", basic), "no domains"},
		{"mistyped domains", "auth.d/x.json", kind("auth", `,"domains":"a.com"`+basic), "cannot unmarshal"},
		{"no type", "auth.d/x.json", kind("auth", `,"domains":["a"]`), "no auth type"},
		{"unknown type", "auth.d/x.json", kind("auth", `,"domains":["a"],"type":"x"`), `unknown auth type "x"`},
		{"no credentials", "auth.d/x.json", kind("auth", `,"domains":["a"],"type":"basic"`), "no credentials"},
		{"empty user", "auth.d/x.json", kind("auth", `,"domains":["a"],"type":"basic","credentials":{"user":"","password":"x"}`), "user is missing"},
		{"empty token", "auth.d/x.json", kind("auth", `,"domains":["a"],"type":"oauth","credentials":{}`), "token is missing"},
		{"empty key", "auth.d/x.json", kind("auth", `,"domains":["a"],"type":"aws","credentials":{"accessKeyID":"x"}`), "secretAccessKey is missing"},
		{"duplicate domain", "auth.d/x.json", kind("auth", `,"domains":["a","a"]`+basic), `domain "a" is already defined`},
		{"no registries", "auth.d/x.json", kind("dockerAuth", `,"registries":[]`), "no registries"},
		{"relative data", "paths.d/x.json", kind("paths", `,"data":"x"`), "not absolute"},
		{"name without version", "stage1.d/x.json", kind("stage1", `,"name":"a"`), "both name and version"},
		{"version without name", "stage1.d/x.json", kind("stage1", `,"version":"a"`), "both name and version"},
		{"relative location", "stage1.d/x.json", kind("stage1", `,"location":"x/y"`), "default stage1 image location is either a relative path or a URL without scheme"},
		{"bad scheme", "stage1.d/x.json", kind("stage1", `,"location":"ftp://x/y"`), "must be one of file, docker"},
		{"layer is a file", "auth.d", "", "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := layerDir(t, map[string]string{c.file: c.content})
			_, err := Load(Dirs{Local: dir})
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), filepath.Join(dir, c.file)) {
				t.Errorf("error %v, want %q and the file's name", err, c.err)
			}
		})
	}
}

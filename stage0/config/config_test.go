package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

// check list: 27
func TestMerge(t *testing.T) {
	system := layerDir(t, map[string]string{
		"auth.d/a.json":        kind("auth", `,"domains":["a.com","b.com","c.com:8443"]`+basic),
		"auth.d/README":        "not JSON",
		"auth.d/x.notjson":     "not JSON",
		"auth.d/sub/auth.json": "not JSON",
		"x/auth.d/a.json":      "not JSON",
		"auth.d/d.json":        kind("dockerAuth", `,"registries":["quay.io","gcr.io"],"credentials":{"user":"u","password":"p"}`),
		"registries.d/q.json":  kind("registry", `,"prefix":"quay.io","blocked":true`),
		"paths.d/p.json":       kind("paths", `,"data":"/d","stage1-images":"/s"`),
		"stage1.d/s.json":      kind("stage1", `,"name":"example.com/s1","version":"1","location":"/x.aci"`),
	})
	local := layerDir(t, map[string]string{
		"registries.d/q.json": kind("registry", `,"prefix":"quay.io","insecure":true`),
		"registries.d/h.json": kind("registry", `,"prefix":"Docker.io/library","location":"cache.example.com:5000/hub","ca":"/ca.pem","verify":"signature",
			"mirrors":[{"location":"m.example.com","pull":"digest-only","insecure":true}],"timeouts":{"connect":"5s","stall":"1m30s"}`),
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
		Registries: map[string]Registry{
			"quay.io": {Prefix: "quay.io", Insecure: true},
			"registry-1.docker.io/library": {
				Prefix: "registry-1.docker.io/library", Location: "cache.example.com:5000/hub", CA: "/ca.pem", Verify: VerifySignature,
				Mirrors:  []Mirror{{Location: "m.example.com", Pull: PullDigest, Insecure: true}},
				Timeouts: RegistryTimeouts{Connect: Duration(5 * time.Second), Stall: Duration(90 * time.Second)},
			},
		},
		Paths:  Paths{"/user", "/s"},
		Stage1: Stage1{"example.com/s1", "1", "https://example.com/y.aci"},
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
		if len(doc) != 1 || len(doc["stage0"]) != 9 || strings.Contains(string(out), "\n") != pretty {
			t.Errorf("config prints %s", out)
		}
		// Every entry is itself a valid file.
		for i, e := range doc["stage0"] {
			data, _ := json.Marshal(e)
			known := false
			for _, sub := range subdirs() {
				if !slices.Contains(sub.kinds, e["rktKind"].(string)) {
					continue
				}
				known = true
				if err := newLayer().parse("x", sub, data); err != nil {
					t.Errorf("entry %d: %v", i, err)
				}
			}
			if !known {
				t.Errorf("entry %d is of no kind: %s", i, data)
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
		{"no prefix", "registries.d/x.json", kind("registry", ""), "prefix is missing"},
		{"prefix with scheme", "registries.d/x.json", kind("registry", `,"prefix":"https://a"`), "has a scheme"},
		{"prefix with star", "registries.d/x.json", kind("registry", `,"prefix":"*.a.com"`), "not of the form HOST[:PORT][/PATH]"},
		{"prefix with dots", "registries.d/x.json", kind("registry", `,"prefix":"a.com/../b"`), "not of the form"},
		{"prefix with newline", "registries.d/x.json", kind("registry", `,"prefix":"a.com\n"`), "not of the form"},
		{"bad location", "registries.d/x.json", kind("registry", `,"prefix":"a","location":"b/"`), `location "b/"`},
		{"mirror without location", "registries.d/x.json", kind("registry", `,"prefix":"a","mirrors":[{}]`), "location of mirror 1 is missing"},
		{"mirror rule", "registries.d/x.json", kind("registry", `,"prefix":"a","mirrors":[{"location":"b","pull":"x"}]`), "all, digest-only, tag-only"},
		{"many mirrors", "registries.d/x.json", kind("registry", `,"prefix":"a","mirrors":[`+strings.TrimSuffix(strings.Repeat(`{"location":"b"},`, 17), ",")+`]`), "at most 16"},
		{"verify word", "registries.d/x.json", kind("registry", `,"prefix":"a","verify":"x"`), "signature, digest, none"},
		{"relative ca", "registries.d/x.json", kind("registry", `,"prefix":"a","ca":"x"`), "not absolute"},
		{"bad time-out", "registries.d/x.json", kind("registry", `,"prefix":"a","timeouts":{"stall":"-1s"}`), "not between"},
		{"time-out without unit", "registries.d/x.json", kind("registry", `,"prefix":"a","timeouts":{"stall":"10"}`), "missing unit"},
		{"registry kind elsewhere", "auth.d/x.json", kind("registry", `,"prefix":"a"`), "must be of kind auth"},
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

func TestDuplicatePrefix(t *testing.T) {
	dir := layerDir(t, map[string]string{
		"registries.d/a.json": kind("registry", `,"prefix":"docker.io"`),
		"registries.d/b.json": kind("registry", `,"prefix":"index.docker.io"`),
	})
	if _, err := Load(Dirs{Local: dir}); err == nil || !strings.Contains(err.Error(), `registry prefix "registry-1.docker.io" is already defined in`) {
		t.Error(err)
	}
}

// check list: 64
func TestRegistryFor(t *testing.T) {
	c := &Config{Registries: map[string]Registry{}}
	for _, p := range []string{"a.com", "a.com/x", "a.com/x/y", "a.com:5000", HubHost + "/library"} {
		c.Registries[p] = Registry{Prefix: p}
	}
	for _, tt := range []struct{ host, repo, want string }{
		{"a.com", "", "a.com"},
		{"A.com", "z", "a.com"},
		{"a.com", "x", "a.com/x"},
		{"a.com", "xx", "a.com"},
		{"a.com", "x/yy", "a.com/x"},
		{"a.com", "x/y/z/w", "a.com/x/y"},
		{"a.com:5000", "x", "a.com:5000"},
		{"a.com:5001", "x", ""},
		{"b.a.com", "x", ""},
		{"docker.io", "library/redis", HubHost + "/library"},
		{"docker.io", "grafana/loki", ""},
	} {
		if r, _ := c.RegistryFor(tt.host, tt.repo); r.Prefix != tt.want {
			t.Errorf("RegistryFor(%q, %q) = %q, want %q", tt.host, tt.repo, r.Prefix, tt.want)
		}
	}
	if _, ok := (*Config)(nil).RegistryFor("a", "b"); ok {
		t.Error("no configuration has a registry")
	}
}

func TestDockerAuthFor(t *testing.T) {
	c := &Config{DockerAuth: map[string]BasicSecret{"docker.io": {"u", "p"}, "quay.io": {"v", "q"}}}
	for host, user := range map[string]string{HubHost: "u", "index.docker.io": "u", "quay.io": "v", "quay.io:443": "", "x.quay.io": ""} {
		if s, _ := c.DockerAuthFor(host); s.User != user {
			t.Errorf("DockerAuthFor(%q) = %q, want %q", host, s.User, user)
		}
	}
}

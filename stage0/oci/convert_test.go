package oci

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/appc"
)

var update = flag.Bool("update", false, "write the golden files")

// imageOf makes an image of a configuration, with layers to suit.
func imageOf(t testing.TB, config []byte, annotations map[string]string) (*Image, error) {
	t.Helper()
	c, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	m := goodManifest(t, config, len(c.DiffIDs))
	if annotations != nil {
		m["annotations"] = annotations
	}
	return NewImage(doc(t, m), "", config, Platform{})
}

// check list: 59
func TestConvert(t *testing.T) {
	dirs, err := filepath.Glob("testdata/convert/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			config, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			ref, err := ParseReference(name + ":1.2")
			if err != nil {
				t.Fatal(err)
			}
			img, err := imageOf(t, config, map[string]string{
				"org.opencontainers.image.revision": "abc", "org.opencontainers.image.stopSignal": "not a name of appc's",
				"com.example.x": "not kept", "org.opencontainers.image.created": "2020-01-01T00:00:00Z",
			})
			if err != nil {
				t.Fatal(err)
			}
			data, warnings, err := Convert(img, ref.Naming())
			if err != nil {
				t.Fatal(err)
			}
			again, _, err := Convert(img, ref.Naming())
			if err != nil || !bytes.Equal(data, again) {
				t.Errorf("converted twice, it differs: %v", err)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, data, "", " "); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&got)
			for _, w := range warnings {
				fmt.Fprintln(&got, "warning:", w)
			}
			golden(t, filepath.Join(dir, "want"), got.Bytes())
			m, _, err := appc.ParseImageManifest(data)
			if err != nil {
				t.Fatal(err)
			}
			if layered, err := appc.Layers(m); err != nil || len(layered.Layers) != len(img.Layers) || layered.Manifest != img.ManifestDigest {
				t.Errorf("layers %+v, %v", layered, err)
			}
			if err := appc.CheckRunnable(m); err != nil || !appc.Converted(m) {
				t.Error(err)
			}
		})
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-update writes it):\n%s", path, diff)
	}
}

// check list: 59
func TestConvertUser(t *testing.T) {
	long := strings.Repeat("a", 300)
	for _, c := range []struct{ in, user, group, err string }{
		{"", "0", "0", ""}, {"0", "0", "0", ""}, {"1000", "1000", "0", ""}, {"1000:1000", "1000", "1000", ""}, {"redis", "redis", "redis", ""},
		{"redis:", "redis", "0", ""}, {":staff", "0", "staff", ""}, {"redis:0", "redis", "0", ""}, {"u:g", "u", "g", ""}, {"4294967294", "4294967294", "0", ""},
		{"-1", "-1", "-1", ""}, {"DOMAIN\\user", "DOMAIN\\user", "DOMAIN\\user", ""},
		{"4294967295", "", "", "out of range"}, {"0:99999999999999999999", "", "", "out of range"}, {"a:b:c", "", "", "USER[:GROUP]"},
		{"/etc/shadow", "", "", "USER[:GROUP]"}, {"a b", "", "", "USER[:GROUP]"}, {long, "", "", "USER[:GROUP]"}, {"a\nb", "", "", "control"},
	} {
		cfg := goodConfig(1)
		cfg["config"] = obj{"User": c.in}
		img, err := imageOf(t, doc(t, cfg), nil)
		var data []byte
		if err == nil {
			data, _, err = Convert(img, Naming{Name: "x", Repository: "x"})
		}
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("user %q: error %v, want %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("user %q: %v", c.in, err)
			continue
		}
		m, _, err := appc.ParseImageManifest(data)
		if err != nil || m.App.User != c.user || m.App.Group != c.group || appc.Annotation(m, AnnotationUser) != c.in {
			t.Errorf("user %q: %q, %q, annotation %q, %v", c.in, m.App.User, m.App.Group, appc.Annotation(m, AnnotationUser), err)
		}
	}
}

func TestConvertRefusesWhatCannotRunHere(t *testing.T) {
	for _, p := range []Platform{{OS: "windows", Architecture: "amd64"}, {OS: "linux", Architecture: "wasm"}, {OS: "linux", Architecture: "mips64le"}} {
		cfg := goodConfig(1)
		cfg["os"], cfg["architecture"] = p.OS, p.Architecture
		img, err := imageOf(t, doc(t, cfg), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Convert(img, Naming{Name: "x"}); err == nil || !strings.Contains(err.Error(), p.String()) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

func TestConvertTakesNoLongerForHostileLists(t *testing.T) {
	cfg := goodConfig(1)
	volumes, ports := obj{}, obj{}
	for i := range maxListed {
		volumes["/"+strings.Repeat("x", 200)+"/"+fmt.Sprint(i)] = obj{}
		ports[fmt.Sprint(i+1, "/tcp")] = obj{}
	}
	cfg["config"] = obj{"Volumes": volumes, "ExposedPorts": ports}
	config := doc(t, cfg)
	start := time.Now()
	img, err := imageOf(t, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Convert(img, Naming{Name: "x"}); err != nil && !strings.Contains(err.Error(), "larger than") {
		t.Error(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestCommand(t *testing.T) {
	cfg := goodConfig(1)
	cfg["config"] = obj{"Entrypoint": []string{"/e", "a"}, "Cmd": []string{"c", "d"}, "Env": []string{"a b=1", "x=2"}}
	img, err := imageOf(t, doc(t, cfg), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := Convert(img, Naming{Name: "x", Repository: "x"})
	if err != nil {
		t.Fatal(err)
	}
	converted, _, err := appc.ParseImageManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	native, _, err := appc.ParseImageManifest([]byte(`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"x","app":{"exec":["/n"],"user":"0","group":"0"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		native     bool
		exec, args string
		want       string
	}{
		{false, "", "", "/e a c d"}, {false, "", "x y", "/e a x y"}, {false, "/p", "", "/p"}, {false, "/p", "x", "/p x"},
		{true, "", "", "/n"}, {true, "", "x", "/n x"}, {true, "/p", "x", "/p x"},
	} {
		m := converted
		if c.native {
			m = native
		}
		got, err := Command(m, strings.Fields(c.exec), strings.Fields(c.args))
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("Command(%+v) = %q, %v", c, got, err)
		}
	}
	if env, err := appc.ExtraEnvironment(converted); err != nil || !slices.Equal(env, []string{"a b=1"}) {
		t.Errorf("extra environment %q, %v", env, err)
	}
}

func TestLayoutNaming(t *testing.T) {
	for _, c := range []struct{ path, tag, name, version string }{
		{"/x/redis-layout", "7", "redis-layout", "7"}, {"/x/My App.tar.gz", "", "my-app", ""}, {"/x/a.tar", "docker.io/library/redis:7", "registry-1.docker.io/library/redis", "7"},
		{"/", "", "image", ""}, {"/x/a", "bad tag", "a", ""},
	} {
		n := LayoutRef{Path: c.path}.Naming(c.tag)
		if n.Name != c.name || n.Version != c.version || n.Repository == "" || appc.CheckName(n.Name) != nil {
			t.Errorf("%+v: %+v", c, n)
		}
	}
}

package appc

import (
	"strings"
	"testing"
)

func manifest(extra string) string {
	return `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/app"` + extra + `}`
}

func app(isolators string) string {
	return manifest(`,"app":{"exec":["/a"],"user":"0","group":"0","isolators":[` + isolators + `]}`)
}

// check list: 76
func TestParseImageManifest(t *testing.T) {
	for _, c := range []struct {
		name, in string
		warn     int
		err      string // "" is success
	}{
		{"minimal", manifest(""), 0, ""},
		{"future version and unknown keys", strings.Replace(manifest(`,"x":{"y":[1]}`), "0.8.11", "9.0.0", 1), 0, ""},
		{"unknown isolator", app(`{"name":"os/linux/no-such","value":"x"}`), 1, ""},
		{"AppArmor", app(`{"name":"os/linux/apparmor-profile","value":{"profile":"web"}}`), 0, ""},
		{"AppArmor without a profile", app(`{"name":"os/linux/apparmor-profile","value":{}}`), 0, "must not be empty"},
		{"AppArmor, two lines", app(`{"name":"os/linux/apparmor-profile","value":{"profile":"a\nb"}}`), 0, "cannot be the name of a profile"},
		{"isolator without value", app(`{"name":"resource/memory"}`), 0, "has no value"},
		{"isolator with null value", app(`{"name":"resource/memory","value": null}`), 0, "has no value"},
		{"isolator without value in capitals", manifest(`,"APP":{"user":"0","group":"0","ISOLATORS":[{"name":"resource/memory"}]}`), 0, ""},
		{"known isolator", app(`{"name":"resource/memory","value":{"limit":"1G"}}`), 0, ""},
		{"bad isolator", app(`{"name":"resource/memory","value":{"limit":"x"}}`), 0, "resource/memory"},
		{"isolators of another type", manifest(`,"app":{"user":"0","group":"0","isolators":{}}`), 0, "isolators"},
		{"isolator null", app(`null`), 0, "not a JSON object"},
		{"dots in name", strings.Replace(manifest(""), "example.com/app", "example.com/../../etc/x", 1), 0, "bad name"},
		{"double slash", strings.Replace(manifest(""), "example.com/app", "example.com//app", 1), 0, "bad name"},
		{"riscv64", manifest(`,"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"riscv64"}]`), 0, ""},
		{"bad arch", manifest(`,"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"z80"}]`), 0, "bad arch"},
		{"relative white list", manifest(`,"pathWhitelist":["etc/x"]`), 0, "not an absolute path"},
		{"mount point without name", manifest(`,"app":{"user":"0","group":"0","mountPoints":[{"path":"/x"}]}`), 0, "has no name"},
		{"relative mount point", manifest(`,"app":{"user":"0","group":"0","mountPoints":[{"name":"x","path":"x"}]}`), 0, "not absolute"},
		{"dependency with bad hash", manifest(`,"dependencies":[{"imageName":"a.com/b","imageID":"sha512-../../etc"}]`), 0, "bad image ID"},
		{"dependency with prefix", manifest(`,"dependencies":[{"imageName":"a.com/b","imageID":"sha512-abcd"}]`), 0, "prefix"},
		{"syntax", "{\n\"acKind\":\n}", 0, "line 3"},
		{"null", "null", 0, "not a JSON object"},
		{"array", "[]", 0, "cannot unmarshal"},
		{"empty", "", 0, "unexpected end"},
		{"trailing", manifest("") + "x", 0, "invalid character"},
		{"kind", strings.Replace(manifest(""), "ImageManifest", "PodManifest", 1), 0, "ACKind"},
		{"large", manifest(`,"x":"` + strings.Repeat("y", MaxManifest) + `"`), 0, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, warnings, err := ParseImageManifest([]byte(c.in))
			switch {
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Fatalf("error %v, want one with %q", err, c.err)
			case c.err == "" && err != nil:
				t.Fatal(err)
			case c.err == "" && err == nil && (m == nil || len(warnings) != c.warn):
				t.Fatalf("warnings %v, want %d", warnings, c.warn)
			}
		})
	}
}

func TestParsePodManifest(t *testing.T) {
	const id = `"sha512-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`
	for _, c := range []struct{ name, in, err string }{
		{"good", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"id":` + id + `}}]}`, ""},
		{"isolator without value", `{"acKind":"PodManifest","acVersion":"0.8.11","isolators":[{"name":"resource/cpu"}]}`, "has no value"},
		{"app isolator without value", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"id":` + id + `},"app":{"user":"0","group":"0","isolators":[{"name":"resource/cpu"}]}}]}`, "has no value"},
		{"bad hash", `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"id":"sha512-../x"}}]}`, "bad image ID"},
	} {
		_, _, err := ParsePodManifest([]byte(c.in))
		if (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
	}
}

func TestCheckRunnable(t *testing.T) {
	for _, c := range []struct{ labels, err string }{
		{`,"labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]`, ""},
		{`,"labels":[{"name":"arch","value":"amd64"}]`, "missing os label in the image manifest"},
		{`,"labels":[{"name":"os","value":"linux"}]`, "missing arch label in the image manifest"},
		{`,"labels":[{"name":"os","value":"freebsd"},{"name":"arch","value":"amd64"}]`, `bad os "freebsd"`},
	} {
		m, _, err := ParseImageManifest([]byte(manifest(c.labels)))
		if err != nil {
			t.Fatal(err)
		}
		err = CheckRunnable(m)
		if (c.err == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("CheckRunnable(%s) = %v, want %q", c.labels, err, c.err)
		}
	}
}

func TestCheckHash(t *testing.T) {
	for in, want := range map[string]string{
		"sha512-ABcd": "abcd", "sha512-": "", "sha512-zz": "", "sha256-ab": "", "sha512-../x": "",
		"sha512-" + strings.Repeat("a", 129): "",
	} {
		got, err := CheckHash(in)
		if got != want || (want == "") != (err != nil) {
			t.Errorf("CheckHash(%q) = %q, %v", in, got, err)
		}
	}
}

func FuzzParseImageManifest(f *testing.F) {
	f.Add([]byte(manifest("")))
	f.Add([]byte(app(`{"name":"resource/memory","value":{"limit":"1G"}}`)))
	f.Add([]byte(app(`{"name":"os/linux/seccomp-retain-set","value":{"set":["@docker/default-whitelist"]}}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _, err := ParseImageManifest(data)
		if err == nil && CheckName(m.Name.String()) != nil {
			t.Errorf("accepted name %q", m.Name)
		}
		_, _, _ = ParsePodManifest(data) // must not panic
	})
}

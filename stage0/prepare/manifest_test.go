package prepare

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage0/image"
)

// testImage makes an image of a name with an app section, or without if "".
func testImage(t *testing.T, name, app string) image.Image {
	t.Helper()
	if app != "" {
		app = `,"app":` + app
	}
	os, arch := appc.HostOSArch()
	m, _, err := appc.ParseImageManifest(fmt.Appendf(nil, `{"acKind":"ImageManifest","acVersion":"0.8.11","name":%q,"labels":[{"name":"os","value":%q},{"name":"arch","value":%q}]%s}`,
		name, os, arch, app))
	if err != nil {
		t.Fatal(err)
	}
	return image.Image{Key: "sha512-" + strings.Repeat("a", 64), ID: "sha512-" + strings.Repeat("a", 128), Name: name, Manifest: m}
}

const basicApp = `{"exec":["/bin/app","arg"],"user":"1","group":"2","environment":[{"name":"A","value":"image"},{"name":"B","value":"image"}],
"isolators":[{"name":"resource/memory","value":{"limit":"1G"}},{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_KILL"]}}]}`

func make1(t *testing.T, p *PodSpec, images ...image.Image) (*schema.PodManifest, error) {
	t.Helper()
	b, apps, err := p.Manifest(images)
	if err != nil {
		return nil, err
	}
	if len(apps) != len(images) {
		t.Errorf("%d apps of %d images", len(apps), len(images))
	}
	m, _, err := appc.ParsePodManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	return m, nil
}

func isolators(t *testing.T, list string) types.Isolators {
	t.Helper()
	i, err := ParseIsolators([]byte("[" + list + "]"))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestManifest(t *testing.T) {
	withApp := func(a AppSpec) *PodSpec { return &PodSpec{Apps: []AppSpec{a}} }
	for _, c := range []struct {
		name string
		spec *PodSpec
		app  string
		got  func(a *types.App, ra *schema.RuntimeApp) any
		want any
	}{
		{"name from the image", withApp(AppSpec{}), basicApp, func(_ *types.App, ra *schema.RuntimeApp) any { return ra.Name.String() }, "my-app"},
		{"name given", withApp(AppSpec{Name: "x"}), basicApp, func(_ *types.App, ra *schema.RuntimeApp) any { return ra.Name.String() }, "x"},
		{"exec of the image", withApp(AppSpec{}), basicApp, func(a *types.App, _ *schema.RuntimeApp) any { return []string(a.Exec) }, []string{"/bin/app", "arg"}},
		{"arguments are added", withApp(AppSpec{Args: []string{"-x", ""}}), basicApp, func(a *types.App, _ *schema.RuntimeApp) any { return []string(a.Exec) }, []string{"/bin/app", "arg", "-x", ""}},
		{"exec replaces all", withApp(AppSpec{Exec: []string{"/other"}, Args: []string{"y"}}), basicApp, func(a *types.App, _ *schema.RuntimeApp) any { return []string(a.Exec) }, []string{"/other", "y"}},
		{"no app section", &PodSpec{Apps: []AppSpec{{Exec: []string{"/x"}}}, UID: 5, GID: 6}, "", func(a *types.App, _ *schema.RuntimeApp) any { return a.User + ":" + a.Group }, "5:6"},
		{"user alone", withApp(AppSpec{User: "9"}), basicApp, func(a *types.App, _ *schema.RuntimeApp) any { return a.User + ":" + a.Group }, "9:2"},
		{"group alone", withApp(AppSpec{Group: "9"}), basicApp, func(a *types.App, _ *schema.RuntimeApp) any { return a.User + ":" + a.Group }, "1:9"},
		{"no supplementary groups", withApp(AppSpec{SupplementaryGIDs: []int{}}), `{"exec":["/x"],"user":"0","group":"0","supplementaryGIDs":[1]}`,
			func(a *types.App, _ *schema.RuntimeApp) any { return len(a.SupplementaryGIDs) }, 0},
		{"environment", &PodSpec{Inherited: [][2]string{{"A", "inherited"}, {"I", "inherited"}, {"bad name", "x"}, {"1", "x"}},
			Environment: [][2]string{{"B", "pod"}, {"C", "pod"}}, Apps: []AppSpec{{Environment: [][2]string{{"C", "app"}, {"D", "app"}}}}}, basicApp,
			func(a *types.App, _ *schema.RuntimeApp) any { return env(a) }, []string{"A=image", "B=pod", "C=app", "D=app", "I=inherited"}},
		{"isolators of the same name", withApp(AppSpec{Isolators: isolators(t, `{"name":"resource/memory","value":{"limit":"2G"}}`)}), basicApp,
			func(a *types.App, _ *schema.RuntimeApp) any { return isolatorNames(a) }, []string{"os/linux/capabilities-retain-set", "resource/memory"}},
		{"isolators of the same kind", withApp(AppSpec{Isolators: isolators(t, `{"name":"os/linux/capabilities-remove-set","value":{"set":["CAP_CHOWN"]}}`)}), basicApp,
			func(a *types.App, _ *schema.RuntimeApp) any { return isolatorNames(a) }, []string{"os/linux/capabilities-remove-set", "resource/memory"}},
		{"an app section of its own", withApp(AppSpec{App: &types.App{Exec: types.Exec{"/own"}, User: "7", Group: "8"}}), basicApp,
			func(a *types.App, _ *schema.RuntimeApp) any {
				return fmt.Sprint(a.Exec, a.User, a.Group, len(a.Environment))
			}, "[/own]780"},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := testImage(t, "example.com/my.app", c.app)
			before, _ := json.Marshal(img.Manifest)
			m, err := make1(t, c.spec, img)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, c.got(m.Apps[0].App, &m.Apps[0])); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if after, _ := json.Marshal(img.Manifest); string(after) != string(before) {
				t.Error("the image's manifest was changed")
			}
			if v, _ := m.Annotations.Get("coreos.com/rkt/stage1/mutable"); v != "false" {
				t.Errorf("mutable annotation %q", v)
			}
		})
	}
}

func env(a *types.App) []string {
	var out []string
	for _, e := range a.Environment {
		out = append(out, e.Name+"="+e.Value)
	}
	slices.Sort(out)
	return out
}

func isolatorNames(a *types.App) []string {
	var out []string
	for _, i := range a.Isolators {
		out = append(out, i.Name.String())
	}
	slices.Sort(out)
	return out
}

func TestManifestErrors(t *testing.T) {
	one := func(a AppSpec) *PodSpec { return &PodSpec{Apps: []AppSpec{a}} }
	for _, c := range []struct {
		name string
		spec *PodSpec
		img  image.Image
		want string
	}{
		{"no apps", &PodSpec{}, image.Image{}, "at least one application"},
		{"no app section", one(AppSpec{}), testImage(t, "a", ""), "has no app section; say what to run (--exec)"},
		{"empty exec", one(AppSpec{}), testImage(t, "a", `{"exec":[],"user":"0","group":"0"}`), `empty "exec"`},
		{"bad name", one(AppSpec{Name: "A b"}), testImage(t, "a", basicApp), `app name "A b"`},
		{"a path as name", one(AppSpec{Name: "../x"}), testImage(t, "a", basicApp), `app name "../x"`},
		{"a newline in the name", one(AppSpec{Name: "x\nExecStart=/evil"}), testImage(t, "a", basicApp), "app name"},
		{"environment name", one(AppSpec{Environment: [][2]string{{"A=B", "x"}}}), testImage(t, "a", basicApp), "cannot be the name of an environment variable"},
		{"environment name with a newline", one(AppSpec{Environment: [][2]string{{"A\nB", "x"}}}), testImage(t, "a", basicApp), "cannot be the name"},
		{"empty environment name", &PodSpec{Environment: [][2]string{{"", "x"}}, Apps: []AppSpec{{}}}, testImage(t, "a", basicApp), "cannot be the name"},
		{"annotation", one(AppSpec{Annotations: [][2]string{{"Bad Name", "x"}}}), testImage(t, "a", basicApp), `annotation "Bad Name"`},
		{"pod annotation", &PodSpec{Annotations: [][2]string{{"", "x"}}, Apps: []AppSpec{{}}}, testImage(t, "a", basicApp), "annotation"},
		{"undeclared volume", one(AppSpec{Mounts: []schema.Mount{{Volume: "v", Path: "/x"}}}), testImage(t, "a", basicApp), `volume "v", which is not declared`},
	} {
		t.Run(c.name, func(t *testing.T) {
			imgs := []image.Image{c.img}
			if len(c.spec.Apps) == 0 {
				imgs = nil
			}
			m, err := make1(t, c.spec, imgs...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v, want an error with %q", m, err, c.want)
			}
		})
	}
	img := testImage(t, "example.com/a", basicApp)
	if _, err := make1(t, &PodSpec{Apps: []AppSpec{{}, {}}}, img, img); err == nil || !strings.Contains(err.Error(), `two apps are named "a"`) {
		t.Errorf("two apps of a name: %v", err)
	}
	var labels types.Labels
	for _, l := range img.Manifest.Labels {
		if l.Name != "os" {
			labels = append(labels, l)
		}
	}
	img.Manifest.Labels = labels
	if _, err := make1(t, &PodSpec{Apps: []AppSpec{{}}}, img); err == nil || !strings.Contains(err.Error(), "os") {
		t.Errorf("an image without os: %v", err)
	}
}

// TestHostileValues: values, unlike names, are anything and arrive unchanged.
func TestHostileValues(t *testing.T) {
	for _, v := range []string{"a\nb", "%i", "$HOME", `"'\`, "", "\t", "ü", "\u2028", "<&>"} {
		m, err := make1(t, &PodSpec{Apps: []AppSpec{{Exec: []string{"/x", v}, Args: []string{v}, Environment: [][2]string{{"V", v}}, UserLabels: [][2]string{{"l", v}}}}},
			testImage(t, "a", basicApp))
		if err != nil {
			t.Errorf("%q: %v", v, err)
			continue
		}
		a := m.Apps[0].App
		got, _ := a.Environment.Get("V")
		if a.Exec[1] != v || a.Exec[2] != v || got != v || a.UserLabels["l"] != v {
			t.Errorf("%q: exec %q, environment %q, label %q", v, a.Exec, got, a.UserLabels["l"])
		}
	}
}

// TestNUL: no process can be given a NUL.
func TestNUL(t *testing.T) {
	for name, a := range map[string]AppSpec{"environment": {Environment: [][2]string{{"V", "a\x00b"}}}, "argument": {Args: []string{"a\x00b"}}} {
		if _, err := make1(t, &PodSpec{Apps: []AppSpec{a}}, testImage(t, "a", basicApp)); err == nil || !strings.Contains(err.Error(), "NUL") {
			t.Errorf("%s: %v, want a NUL refused", name, err)
		}
	}
}

func TestMountOfOwnVolume(t *testing.T) {
	v := types.Volume{Name: "v", Kind: "host", Source: "/srv"}
	if _, err := make1(t, &PodSpec{Apps: []AppSpec{{Mounts: []schema.Mount{{Volume: "v", Path: "/x", AppVolume: &v}}}}}, testImage(t, "a", basicApp)); err != nil {
		t.Error(err)
	}
	if _, err := make1(t, &PodSpec{Volumes: []types.Volume{v}, Apps: []AppSpec{{Mounts: []schema.Mount{{Volume: "v", Path: "/x"}}}}}, testImage(t, "a", basicApp)); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{`[{"name":"os/linux/made-up","value":1}]`, `{}`, `[1]`, `[{}]`, `[]}`} {
		if got, err := ParseIsolators([]byte(bad)); err == nil {
			t.Errorf("ParseIsolators(%s) = %v, want an error", bad, got)
		}
	}
	for _, none := range []string{"", "null"} {
		if got, err := ParseIsolators([]byte(none)); got != nil || err != nil {
			t.Errorf("ParseIsolators(%q) = %v, %v", none, got, err)
		}
	}
	if a, err := ParseApp([]byte(`{"exec":["/x"],"user":"0","group":"0"}`)); err != nil || a.Exec[0] != "/x" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := ParseApp(nil); a != nil || err != nil {
		t.Errorf("%+v, %v", a, err)
	}
	for _, bad := range []string{`{"exec":["x"]}`, `[]`, `{}}`} {
		if a, err := ParseApp([]byte(bad)); err == nil {
			t.Errorf("ParseApp(%s) = %+v, want an error", bad, a)
		}
	}
}

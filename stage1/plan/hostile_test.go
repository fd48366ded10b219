package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/hostile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// Manifests with every member there is. What stands as "«NAME…»" is replaced,
// one at a time; the rest of the mark is the value without an attack. Of marks
// in capitals the value must reach the app's record as it is, if it is taken.
const (
	hostileImage = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"«name|example.com/x»",
"labels":[{"name":"«label name|version»","value":"«label|1»"},{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}],
"annotations":[{"name":"«annotation name|x»","value":"«annotation|y»"},{"name":"created","value":"«created|2020-01-01T00:00:00Z»"},{"name":"homepage","value":"«homepage|http://x/»"},
 {"name":"appc.io/docker/repository","value":"«docker|library/x»"},{"name":"appc.io/docker/imagestopsignal","value":"«stop signal|SIGTERM»"}],
"dependencies":[{"imageName":"«dependency|example.com/d»","labels":[{"name":"«dependency label|version»","value":"«dependency value|2»"}]}],"pathWhitelist":["«whitelist|/x»"],
"app":{"exec":["«EXEC|/bin/a»","«ARG|b»"],"user":"«user|0»","group":"«group|0»","workingDirectory":"«DIR|/w»",
"environment":[{"name":"«env name|N»","value":"«VALUE|v»"}],"mountPoints":[{"name":"«point|vol»","path":"«target|/data»"}],
"ports":[{"name":"«port|http»","protocol":"«protocol|tcp»","port":80}],
"eventHandlers":[{"name":"«handler|pre-start»","exec":["«HANDLER|/bin/h»","«HANDLERARG|c»"]},{"name":"post-stop","exec":["«POSTSTOP|/bin/p»"]}],
"isolators":[{"name":"«isolator|resource/memory»","value":{"limit":"«memory|64M»"}},{"name":"resource/cpu","value":{"limit":"«cpu|500m»"}},
{"name":"os/linux/capabilities-retain-set","value":{"set":["«capability|CAP_KILL»"]}},{"name":"os/linux/seccomp-remove-set","value":{"errno":"«errno|ENOTSUP»","set":["«call|reboot»"]}},
{"name":"os/linux/oom-score-adj","value":5}],
"userAnnotations":{"«user annotation name|k»":"«user annotation|v»"},"userLabels":{"«user label name|k»":"«user label|v»"}}}`
	hostilePod = `{"acKind":"PodManifest","acVersion":"«version|0.8.11»","apps":[{"name":"«app|a»","image":{"id":"«id|sha512-0000000000000000000000000000000000000000000000000000000000000000»","name":"«image|example.com/x»"},
"app":{"exec":["«EXEC|/bin/a»","«ARG|b»"],"user":"«user|0»","group":"«group|0»","workingDirectory":"«DIR|/w»","environment":[{"name":"«env name|N»","value":"«VALUE|v»"}],
 "eventHandlers":[{"name":"pre-start","exec":["«HANDLER|/bin/h»"]}],"mountPoints":[{"name":"vol","path":"/data"}]},
"mounts":[{"volume":"«mount|vol»","path":"«mount path|/data»"}],
"annotations":[{"name":"coreos.com/rkt/stage2/after","value":"«after|a»"},{"name":"coreos.com/rkt/stage2/stdin","value":"«stdin|null»"},{"name":"«annotation|x»","value":"«annotation value|y»"}]}],
"volumes":[{"name":"«volume|vol»","kind":"«kind|host»","source":"«source|/srv»"},{"name":"e","kind":"empty","mode":"«mode|0755»","uid":0,"gid":0}],
"isolators":[{"name":"resource/memory","value":{"limit":"«memory|64M»"}},{"name":"os/unix/sysctl","value":{"«sysctl|net.ipv4.ip_forward»":"«sysctl value|1»"}}],
"annotations":[{"name":"«pod annotation|x»","value":"«pod annotation value|y»"}],"ports":[{"name":"«pod port|p»","hostPort":80,"hostIP":"«host IP|127.0.0.1»"}],
"userAnnotations":{"«user annotation name|k»":"«user annotation|v»"},"userLabels":{"«user label name|k»":"«user label|v»"}}`
)

func planOf(image, pod []byte) (*Plan, error) {
	img, _, err := appc.ParseImageManifest(image)
	if err != nil {
		return nil, err
	}
	p, _, err := appc.ParsePodManifest(pod)
	if err != nil {
		return nil, err
	}
	name := p.Apps[0].Name.String()
	return Make(Input{Run: abi.Run{UUID: uuid, Net: []string{"default"}, ResolvMode: "default", HostsMode: "default", IPC: "auto"},
		Facts: Facts{PodDir: "/var/lib/rkt/pods/run/" + uuid, Machine: "web", InUnit: true, Declared: true, Nspawn: "/usr/bin/systemd-nspawn",
			LogUnit: "rkt@web.service", Register: true, Controllers: []string{"cpu", "io", "memory", "pids"}},
		IDs: map[string]IDs{name: {}}, Pod: p, Images: map[string]*schema.ImageManifest{name: img}})
}

// shape is what a plan has of files, sections and keys, and how many arguments
// nspawn gets. The app is called a whatever its name is.
func shape(t *testing.T, p *Plan) map[string]int {
	t.Helper()
	out := map[string]int{"arguments": len(p.Args), "environment": len(p.Env)}
	for _, f := range p.Files {
		if path.Clean("/"+f.Path) != "/"+f.Path {
			t.Errorf("file %q", f.Path)
		}
		name := f.Path
		for i := range p.Apps {
			name = strings.ReplaceAll(name, p.Apps[i].Name, "a")
		}
		if strings.HasPrefix(name, "rkt/filters/") {
			name = "rkt/filters"
		}
		out[name]++
		if !strings.HasPrefix(f.Path, podfs.UnitDir+"/") {
			continue
		}
		sections, err := unitfile.Parse(string(f.Data))
		if err != nil {
			t.Errorf("%s: %v\n%s", f.Path, err, f.Data)
		}
		for _, s := range sections {
			for _, l := range s.Entries {
				out[name+" ["+s.Name+"] "+l.Key]++
			}
		}
	}
	return out
}

// extra lists what got has and want has not.
func extra(want, got map[string]int) []string {
	var out []string
	for k, n := range got {
		if n > want[k] {
			out = append(out, fmt.Sprintf("%s (%d times, not %d)", k, n, want[k]))
		}
	}
	slices.Sort(out)
	return out
}

// record is all strings of the app's record.
func record(t *testing.T, p *Plan) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			all[v] = true
			if _, value, ok := strings.Cut(v, "="); ok {
				all[value] = true
			}
		case []any:
			for _, v := range v {
				walk(v)
			}
		case map[string]any:
			for v := range maps.Values(v) {
				walk(v)
			}
		}
	}
	file(t, p, podfs.AppRecordDir+"/"+p.Apps[0].Name+".json", func(b []byte) {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		walk(v)
	})
	return all
}

// TestHostileManifests puts every hostile string into every string of the
// manifests: it is refused, or it arrives as it is and adds nothing to what is
// written for systemd.
func TestHostileManifests(t *testing.T) {
	all := hostile.Strings()
	if len(all) < 600 {
		t.Fatalf("only %d strings", len(all))
	}
	usual, err := planOf(hostile.Fill(hostileImage, "", nil), hostile.Fill(hostilePod, "", nil))
	if err != nil {
		t.Fatal(err)
	}
	// without the pod's own app section the image's is in force
	imageOnly := hostilePod[:strings.Index(hostilePod, `"app":{`)] + hostilePod[strings.Index(hostilePod, `"mounts":[`):]
	usualImage, err := planOf(hostile.Fill(hostileImage, "", nil), hostile.Fill(imageOnly, "", nil))
	if err != nil {
		t.Fatal(err)
	}
	verified := 0
	for _, c := range []struct {
		what, template string
		want           map[string]int
		plan           func(text []byte) (*Plan, error)
	}{
		{"image", hostileImage, shape(t, usualImage), func(b []byte) (*Plan, error) { return planOf(b, hostile.Fill(imageOnly, "", nil)) }},
		{"pod", hostilePod, shape(t, usual), func(b []byte) (*Plan, error) { return planOf(hostile.Fill(hostileImage, "", nil), b) }},
	} {
		for _, mark := range hostile.Marks(c.template) {
			t.Run(c.what+"/"+mark, func(t *testing.T) {
				taken := 0
				for i, s := range all {
					if testing.Short() && i%10 != 0 || mark == "after" && strings.Contains(s, ",") {
						continue // that is a list
					}
					p, err := c.plan(hostile.Fill(c.template, mark, hostile.JSONText(s)))
					if err != nil {
						if text := err.Error(); len(text) > 4500 || strings.ContainsAny(text, "\x00\x1b\n") {
							t.Errorf("%.80q: the error is unfit to be shown: %.300q", s, text)
						}
						continue
					}
					taken++
					if more := extra(c.want, shape(t, p)); len(more) > 0 {
						t.Errorf("%.80q adds %q", s, more)
					}
					if s != "" && mark == strings.ToUpper(mark) && !record(t, p)[s] {
						t.Errorf("%.80q did not arrive", s)
					}
					if taken%97 == 1 && verified < 60 {
						verified++
						verify(t, p)
					}
				}
				t.Logf("%d taken", taken)
			})
		}
	}
}

package entrypoint

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/abi"
)

// TestPlan: the answer is what would run, with users out of the image's layers,
// and nothing is written.
func TestPlan(t *testing.T) {
	upper, lower := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(lower, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": "www:x:33:34::/:/bin/sh\n", "group": "www:x:34:\n"} {
		if err := os.WriteFile(filepath.Join(lower, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pod := `{"acVersion":"0.8.11","acKind":"PodManifest","apps":[{"name":"a","image":{"id":"sha512-` + strings.Repeat("a", 64) + `"},"readOnlyRootFS":true,
		"mounts":[{"volume":"v","path":"/data"}]}],"volumes":[{"name":"v","kind":"host","source":"/srv","readOnly":true}]}`
	image := `{"acVersion":"0.8.11","acKind":"ImageManifest","name":"example.com/a","app":{"exec":["/bin/a"],"user":"www","group":"www",
		"isolators":[{"name":"os/linux/capabilities-retain-set","value":{"set":["CAP_KILL"]}}]}}`
	dir := filepath.Join(t.TempDir(), "pods/run/x")
	q := abi.PlanRequest{Args: []string{"--net=none", "--hostname=web", "--private-users=524288:65536", "00000000-0000-4000-8000-000000000000"}, Dir: dir, Machine: "web",
		Unit: "rkt@web.service", Pod: json.RawMessage(pod), Apps: []abi.PlanApp{{Name: "a", Manifest: json.RawMessage(image), Roots: []string{upper, lower}}}}
	ask := func() (*abi.Plan, error) {
		b, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Plan(bytes.NewReader(b), &out); err != nil {
			return nil, err
		}
		p := &abi.Plan{}
		return p, json.Unmarshal(out.Bytes(), p)
	}
	p, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	command := strings.Join(p.Command, " ")
	for _, want := range []string{"systemd-nspawn --quiet --settings=no --directory=" + dir + "/stage1/rootfs --machine=web", "--keep-unit", "--private-users=524288:65536", "--hostname=web"} {
		if !strings.Contains(command, want) {
			t.Errorf("%s lacks %s", command, want)
		}
	}
	if len(p.Apps) != 1 {
		t.Fatalf("apps %+v", p.Apps)
	}
	a := p.Apps[0]
	if a.UID != 33 || a.GID != 34 || strings.Join(a.Capabilities, " ") != "CAP_KILL" || !a.ReadOnlyRoot || !a.MaskedPaths || a.Filter != "default" ||
		len(a.Mounts) != 1 || a.Mounts[0] != (abi.PlanMount{Source: "/srv", Target: "/data", ReadOnly: true}) {
		t.Errorf("app %+v", a)
	}
	found := false
	for _, f := range p.Files {
		found = found || f.Path == "rkt/units/a.service" && strings.Contains(f.Text, "[Service]")
	}
	if !found {
		t.Errorf("no unit among %d files", len(p.Files))
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the pod's directory: %v", err)
	}

	// The upper layer's users hide the lower's.
	if err := os.MkdirAll(filepath.Join(upper, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "etc/passwd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), `user "www" is not in the image's /etc/passwd`) {
		t.Errorf("a user that is hidden: %v", err)
	}
	q.Apps = nil
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "its image is not given") {
		t.Errorf("without an image: %v", err)
	}
	if err := Plan(strings.NewReader("{"), &bytes.Buffer{}); err == nil {
		t.Error("half a request is no error")
	}
}

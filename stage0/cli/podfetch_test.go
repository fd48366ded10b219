package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

// TestAllPods: --all means every pod that the generator makes units for, each once.
func TestAllPods(t *testing.T) {
	const apps = `{"apps": [{"image": "a"}]`
	root := t.TempDir()
	for name, text := range map[string]string{
		"plain.json":              apps + `}`,
		"masked.json":             "",
		"bad name.json":           apps + `}`,
		"none@.json":              apps + `}`,
		"default@.json":           apps + `, "systemd": {"install": {"DefaultInstance": "x"}}}`,
		"reset@.json":             apps + `}`,
		"reset@.json.d/1.json":    `{"systemd": {"install": {"DefaultInstance": "y"}}}`,
		"both@.json":              apps + `, "systemd": {"install": {"DefaultInstance": "x"}}}`,
		"both@x.json.d/1.json":    `{"rkt": {"hostname": "x"}}`,
		"both@y.json.d/1.json":    `{"rkt": {"hostname": "y"}}`,
		"file@.json":              apps + `, "systemd": {"install": {"DefaultInstance": "x"}}}`,
		"file@x.json":             apps + `}`,
		"file@x.json.d/1.json":    `{"rkt": {"hostname": "x"}}`,
		"hidden@.json":            apps + `, "systemd": {"install": {"DefaultInstance": "x"}}}`,
		"hidden@x.json":           "",
		"broken@.json":            `{"apps": 7, "systemd": {"install": {"DefaultInstance": "x"}}}`,
		"nothing@.json":           "",
		"nothing@x.json.d/1.json": `{"rkt": {"hostname": "x"}}`,
	} {
		path := filepath.Join(root, "etc/rkt/pods", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	x, err := podfile.Scan(podfile.SearchOptions{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	// The generator makes units for a broken pod, too, and who asks for all is to hear of it.
	want := []string{"both@x", "both@y", "broken@x", "default@x", "file@x", "plain", "reset@y"}
	if d := cmp.Diff(want, allPods(x)); d != "" {
		t.Error(d)
	}
}

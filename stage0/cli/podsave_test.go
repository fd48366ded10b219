package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

// TestSavedVariables: a pod file is private when it has variables that the pod was
// given, not when it has those of its image alone.
func TestSavedVariables(t *testing.T) {
	const (
		id    = "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69"
		image = `{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a","app":{"exec":["/a"],"user":"0","group":"0","environment":[{"name":"PATH","value":"/bin"}]}}`
		m     = `{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"web","image":{"id":"sha512-%s"},"app":{"exec":["/b"],"user":"5","group":"0","environment":[%s]}}]}`
	)
	for environment, want := range map[string]bool{
		"": false, `{"name":"PATH","value":"/bin"}`: false, `{"name":"PATH","value":"/bin"},{"name":"TOKEN","value":"x"}`: true, `{"name":"PATH","value":"/sbin"}`: true,
	} {
		a := testApp()
		a.dir = t.TempDir()
		p := filepath.Join(a.dir, "pods", podfs.Run, id)
		for name, text := range map[string]string{
			podfs.PodManifest: fmt.Sprintf(m, strings.Repeat("ab", 32), environment), podfs.PodCreated: "", podfs.StartOptions: `{"net":["none"]}`,
			filepath.Join(podfs.AppInfo("web"), podfs.ManifestFile): image,
		} {
			file := filepath.Join(p, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		pods, _, err := a.pods()
		if err != nil {
			t.Fatal(err)
		}
		d, err := a.findPod(pods, id)
		if err != nil {
			t.Fatal(err)
		}
		file, private, err := a.saved(d, false)
		d.Close()
		if err != nil || private != want || len(file.Apps) != 1 {
			t.Errorf("[%s]: %v %v, want %v", environment, private, err, want)
		}
	}
}

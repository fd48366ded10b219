package generator_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/podunit"
)

// TestSecretsAreForRoot: what a pod file sets is in one file that only root can
// read, and in no unit.
func TestSecretsAreForRoot(t *testing.T) {
	root, out := t.TempDir(), t.TempDir()
	dir := filepath.Join(root, "etc/rkt/pods")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := `{"apps":[{"image":"example.com/a","credentials":["db"]}],"rkt":{"credentials":{"db":{"set":"s3cr3t 100%"}}}}`
	if err := os.WriteFile(filepath.Join(dir, "web.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again over its own output
		if log := run(root, out); len(log) > 0 {
			t.Error(log)
		}
	}
	file := podunit.CredentialDir + "/web/db"
	for name, text := range snapshot(t, out) {
		if strings.Contains(text, "s3cr3t") != (name == file) {
			t.Errorf("%s: %q", name, text)
		}
	}
	unit, err := os.ReadFile(filepath.Join(out, "rkt@web.service.d/50-rkt.conf"))
	if err != nil || !strings.Contains(string(unit), "LoadCredential=db:/run/systemd/generator/"+file+"\n") {
		t.Errorf("%v\n%s", err, unit)
	}
	for name, want := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir, podunit.CredentialDir: 0o700 | os.ModeDir} {
		if st, err := os.Stat(filepath.Join(out, name)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v, want mode %v", name, st, err, want)
		}
	}
}

package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// TestInstallImported: pod files with secrets are for root alone, and no pod file
// gets more readers than it had.
func TestInstallImported(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pods")
	a := testApp()
	a.dir = t.TempDir()
	path := filepath.Join(dir, "a.json")
	for _, c := range []struct {
		name    string
		had     os.FileMode // 0: no file, with the text "old"
		text    string
		private bool
		want    os.FileMode
	}{
		{"new", 0, "new", false, 0o644},
		{"new and private", 0, "new", true, 0o600},
		{"replaced", 0o644, "new", false, 0o644},
		{"replaced by a private one", 0o644, "new", true, 0o600},
		{"made private", 0o600, "new", false, 0o600},
		{"for a group", 0o640, "new", false, 0o640},
		{"the same", 0o640, "old", false, 0o640},
		{"the same but private", 0o644, "old", true, 0o600},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if c.had != 0 {
			if err := os.WriteFile(path, []byte("old"), c.had); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.had); err != nil {
				t.Fatal(err)
			}
		}
		r := &imported{Pods: []importedPod{{Name: "a", Path: path, Private: c.private, text: []byte(c.text)}}}
		if err := a.installImported(t.Context(), r, dir, &importOptions{writeOptions: writeOptions{replace: true}}); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		b, err := os.ReadFile(path)
		if err != nil || string(b) != c.text {
			t.Errorf("%s: %q %v", c.name, b, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != c.want {
			t.Errorf("%s: %v %v, want %v", c.name, st.Mode(), err, c.want)
		}
	}
}

package podjson

import (
	"os"
	"path/filepath"
	"testing"
)

// TestInstallMode: a file that is replaced gets no more readers than it had.
func TestInstallMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	for _, c := range []struct{ had, mode, want os.FileMode }{
		{0, 0o644, 0o644}, {0, 0o600, 0o600}, {0o644, 0o644, 0o644}, {0o644, 0o600, 0o600}, {0o600, 0o644, 0o600}, {0o640, 0o644, 0o640}, {0o444, 0o644, 0o644},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if c.had != 0 {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.had); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Install(dir, "a", []byte("{}"), c.mode == 0o600, true); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != c.want {
			t.Errorf("%v: %v %v", c, st.Mode(), err)
		}
	}
}

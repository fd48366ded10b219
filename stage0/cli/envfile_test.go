package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong with a file of secrets is said without them.
func TestEnvironmentFileErrorsHideValues(t *testing.T) {
	for text, want := range map[string]string{
		"A=1\nhunter2\n":           "env:2: the line is not NAME=VALUE",
		"=hunter2\n":               "env:1: the line is not NAME=VALUE",
		"hunter2=1\n\nhunter2=2\n": "env:3: the line sets a name again",
	} {
		path := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := environmentFile(path, map[string]bool{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

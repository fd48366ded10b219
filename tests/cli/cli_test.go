// Package cli runs the rkt program as its users do: scripts in testdata/*.txtar,
// with temporary directories and without systemd.
package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts builds rkt once and runs every script with $RKT_DIRS, the flags
// that keep rkt inside the script's own directory.
func TestScripts(t *testing.T) {
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, "../../stage0/cmd/rkt", "../../stage0/cmd/rkt-import")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building rkt: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			e.Setenv("RKT_IMPORT_PROGRAM", filepath.Join(bin, "rkt-import"))
			for _, d := range []string{"data", "etc", "lib"} {
				if err := os.Mkdir(filepath.Join(e.WorkDir, d), 0o755); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Geteuid() == 0, nil
		},
	})
}

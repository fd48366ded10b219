//go:build boot

package boot

import (
	"os"
	"path/filepath"
)

// linkTree makes links/ with links as hostile images have them, all meaning /real.
func linkTree(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "links"), 0o755); err != nil {
		return err
	}
	for name, target := range map[string]string{"abs": "/real", "up": "../../../../../../real"} {
		if err := os.Symlink(target, filepath.Join(dir, "links", name)); err != nil {
			return err
		}
	}
	return nil
}

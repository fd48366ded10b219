package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

// leavingFile in the pod's network directory tells that a tear-down began.
const leavingFile = "leaving"

// begun notes that a tear-down begins, and tells whether the set-up never came
// to its end, or a tear-down began before: plugins may then have been killed.
func begun(podDir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(podDir, podfs.NetInfo))
	interrupted := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(filepath.Join(podDir, podfs.NetDir, leavingFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("noting the tear-down of the network: %w", err)
	}
	return interrupted, f.Close()
}

package entrypoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// asRoot calls f with what it makes belonging to the root of the pod. The
// goroutine must be locked to its thread.
func asRoot(ids abi.IDRange, f func() error) error {
	if ids.Count == 0 {
		return f()
	}
	return sys.AsOwner(ids.Shift, ids.Shift, f)
}

// openNetwork makes up for capabilities that the pod's private users do not
// have over its network namespace, which is the host's root's, as plugins need
// it to be: in there everybody may bind low ports, and the pod's groups ping.
// The thread must be in the namespace.
func openNetwork(dir string, ids abi.IDRange) error {
	for _, s := range [][2]string{
		{"ipv4/ip_unprivileged_port_start", "0"},
		{"ipv4/ping_group_range", fmt.Sprintf("%d %d", ids.Shift, ids.Shift+ids.Count-1)},
	} {
		err := os.WriteFile(filepath.Join(dir, s[0]), []byte(s[1]), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("opening low ports and ping to the pod's private users: %w", err)
		}
	}
	return nil
}

// giveToPod makes a file that this program opened in the pod belong to the
// pod's root, if that is not the host's.
func giveToPod(f *os.File) error {
	b, err := os.ReadFile(podfs.PrivateUsers)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ids, err := abi.ParseIDRange(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	return f.Chown(int(ids.Shift), -1)
}

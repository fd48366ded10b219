package netreg

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/lock"
)

const (
	// LeaseDir is where the plugin host-local keeps the addresses of the built-in
	// networks, HostLocalDir where it does if it is not told.
	LeaseDir     = "/var/lib/rkt/cni"
	HostLocalDir = "/var/lib/cni/networks"
)

// RemoveLeases frees the addresses that host-local has given to a pod in a network.
func RemoveLeases(dir, network, uuid string) error {
	return removeLeases(filepath.Join(dir, network), func(id string) bool { return id == uuid }, func(string) {})
}

// removeLeases frees the addresses in a network's directory whose holder is gone,
// and those that a host-local which was killed left without a holder.
func removeLeases(dir string, gone func(id string) bool, removed func(file string)) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	var f *os.File // host-local's own lock, once there is something to do
	for _, e := range entries {
		// host-local cannot have ":" in names where it does not need to, and takes what ParseAddr takes
		if _, err := netip.ParseAddr(e.Name()); err != nil || !e.Type().IsRegular() {
			continue
		}
		name := filepath.Join(dir, e.Name())
		free := func() bool {
			id, ok := holder(name)
			return ok && (id == "" || gone(id))
		}
		if !free() {
			continue
		}
		if f == nil {
			if f, err = lock.Path(filepath.Join(dir, "lock"), lock.Exclusive); err != nil {
				return fmt.Errorf("locking the addresses in %q: %w", dir, err)
			}
			defer f.Close()
		}
		if !free() {
			continue // another pod has got the address meanwhile: host-local writes who it is under the lock
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("freeing an address: %w", err)
		}
		removed(name)
	}
	return nil
}

// holder is the container that has a lease, "" if its file is empty, and false if
// it cannot be told.
func holder(name string) (string, bool) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", false
	}
	id, _, _ := strings.Cut(string(b), "\n")
	id = strings.TrimSpace(id)
	return id, id != "" || len(b) == 0
}

package entrypoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

// nspawn keeps a lock file for its root directory, named for device and inode,
// and removes it when it ends; a killed one cannot.
var nspawnLockName = regexp.MustCompile(`^inode-[0-9]+:[0-9]+$`)

const nspawnLocks = "/run/systemd/nspawn/locks"

// nspawnLock is the name of the lock file for the pod's mounted root.
func nspawnLock() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(podfs.Stage1Rootfs, &st); err != nil {
		return "", fmt.Errorf("looking at the pod's root: %w", err)
	}
	return fmt.Sprintf("inode-%d:%d", st.Dev, st.Ino), nil
}

// removeNspawnLock removes what this pod's nspawn left in dir. Device numbers
// come again: a file that is locked belongs to another, and is left alone.
// nspawn itself looks, once it has the lock, whether the file was removed.
func removeNspawnLock(dir string) error {
	b, err := os.ReadFile(podfs.NspawnLock)
	if err != nil || !nspawnLockName.Match(b) {
		return nil // it ended before nspawn was started
	}
	f, err := os.OpenFile(filepath.Join(dir, string(b)), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	// systemd takes record locks of the open file description, not flock(2).
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
		return nil // in use
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

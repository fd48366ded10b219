// Package atomicfile writes files that other processes read: they see the old
// content or the new, never a part, and after a crash the same holds.
//
// Every package may import it.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// WriteFile replaces path by a file with the given content and mode (the umask
// is ignored): temporary file in the same directory, fsync, rename, fsync of
// the directory.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, true)
}

// WriteFileNoSync is WriteFile without the fsyncs: for files that a reboot
// makes worthless anyway.
func WriteFileNoSync(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, false)
}

func write(path string, data []byte, mode os.FileMode, sync bool) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp*")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %q: %w", path, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	failpoint.Hit("atomicfile/written")
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	failpoint.Hit("atomicfile/renamed")
	if sync {
		// The file is in place; only its durability is in doubt.
		if serr := sys.SyncDir(dir); serr != nil {
			return fmt.Errorf("writing %q: %w", path, serr)
		}
	}
	return nil
}

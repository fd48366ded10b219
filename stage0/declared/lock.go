package declared

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/rkt-systemd/rkt/internal/lock"
)

// lock serializes changes of the records.
func (p *Pod) lock() (io.Closer, error) {
	for _, dir := range []string{Root(p.data), p.dir, p.path("generations")} {
		if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making room for the record of pod %q: %w", p.Name, err)
		}
	}
	l, err := p.open("lock", lock.File)
	if err != nil {
		return nil, fmt.Errorf("locking the record of pod %q: %w", p.Name, err)
	}
	return l, nil
}

// ErrUpdating means that an update of the pod is under way.
var ErrUpdating = errors.New("an update or rollback of the pod is under way")

// Updating makes the caller the pod's updater until it closes the result, or dies.
func (p *Pod) Updating() (io.Closer, error) {
	l, err := p.lock() // makes the directories
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return p.tryUpdating()
}

func (p *Pod) tryUpdating() (io.Closer, error) {
	u, err := p.open("updating", lock.TryFile)
	if errors.Is(err, lock.ErrLocked) {
		return nil, fmt.Errorf("pod %q: %w", p.Name, ErrUpdating)
	}
	return u, err
}

// open opens and locks a lock file that only root can open: who holds
// "updating" decides how long a trial lasts. Remove unlinks the files, so the
// one that was locked is compared with the one that is there.
func (p *Pod) open(name string, take func(*os.File, lock.Mode) error) (io.Closer, error) {
	const maxTries = 1000
	for range maxTries {
		f, err := os.OpenFile(p.path(name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := take(f, lock.Exclusive); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		have, err := f.Stat()
		if err == nil {
			var now os.FileInfo
			if now, err = os.Stat(p.path(name)); err == nil && os.SameFile(have, now) {
				return f, nil
			}
		}
		if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("locking %q: it keeps being replaced", p.path(name))
}

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
	l, err := lock.Private(p.path("lock"), lock.Exclusive)
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

// tryUpdating takes the lock that decides how long a trial lasts.
func (p *Pod) tryUpdating() (io.Closer, error) {
	u, err := lock.TryPrivate(p.path("updating"), lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) {
		return nil, fmt.Errorf("pod %q: %w", p.Name, ErrUpdating)
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

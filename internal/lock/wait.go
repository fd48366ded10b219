package lock

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// pollEvery is how long Wait pauses.
const pollEvery = 100 * time.Millisecond

// TryPrivate is TryPath for a file that only its owner can open (mode 0600), and
// so lock: on one that others may read, any of them could keep the lock for ever.
func TryPrivate(path string, m Mode) (*os.File, error) {
	const flags = os.O_RDWR | syscall.O_NOFOLLOW
	f, err := os.OpenFile(path, flags|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return open(path, flags, m, true)
}

// Wait tries until it gets a lock, or ctx ends, which flock would not notice. The
// first time that somebody else has the lock it calls waiting.
func Wait(ctx context.Context, try func() (*os.File, error), waiting func()) (*os.File, error) {
	l, err := try()
	if !errors.Is(err, ErrLocked) {
		return l, err
	}
	waiting()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for errors.Is(err, ErrLocked) {
		select {
		case <-tick.C:
			l, err = try()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l, err
}

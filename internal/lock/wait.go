package lock

import (
	"context"
	"errors"
	"os"
	"time"
)

// pollEvery is how long Wait pauses.
const pollEvery = 100 * time.Millisecond

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

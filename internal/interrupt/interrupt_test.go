package interrupt

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

func TestWatch(t *testing.T) {
	ctx, w := Watch(context.Background())
	if err := ctx.Err(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), ErrInterrupted) {
		t.Errorf("cause %v, want %v", context.Cause(ctx), ErrInterrupted)
	}
	if err := w.Release(); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Release() = %v, want %v", err, ErrInterrupted)
	}
}

func TestReleaseQuiet(t *testing.T) {
	_, w := Watch(context.Background())
	if err := w.Release(); err != nil {
		t.Errorf("Release() = %v without a signal", err)
	}
	var none *Watcher
	if err := none.Release(); err != nil {
		t.Errorf("Release() of nil = %v", err)
	}
}

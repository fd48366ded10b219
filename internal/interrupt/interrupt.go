// Package interrupt turns SIGINT and SIGTERM into a cancelled context, for
// programs that end by becoming another program: a signal that arrives while
// one is being prepared must neither be lost nor reach only the successor.
//
// Programs (cmd/*) make a Watcher and hand it down.
package interrupt

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// ErrInterrupted means that the user or the service manager asked to stop.
var ErrInterrupted = errors.New("interrupted")

// Watcher catches the signals.
type Watcher struct {
	signals chan os.Signal
	ask     chan chan os.Signal
}

// Watch starts to catch. The context is cancelled by the first signal.
func Watch(parent context.Context) (context.Context, *Watcher) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &Watcher{make(chan os.Signal, 1), make(chan chan os.Signal)}
	signal.Notify(w.signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		var got os.Signal
		for {
			select {
			case s := <-w.signals:
				if got == nil {
					got = s
					cancel(ErrInterrupted)
				}
			case reply := <-w.ask:
				if got == nil {
					select {
					case got = <-w.signals:
						cancel(ErrInterrupted)
					default:
					}
				}
				reply <- got
			}
		}
	}()
	return ctx, w
}

func (w *Watcher) caught() os.Signal {
	reply := make(chan os.Signal)
	w.ask <- reply
	return <-reply
}

// Release gives the signals back to their default, death, right before the
// process becomes another program. It fails if one was caught until then.
func (w *Watcher) Release() error {
	if w == nil {
		return nil
	}
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	if w.caught() != nil {
		return ErrInterrupted
	}
	return nil
}

// Die ends the process by the signal that was caught, if any: a shell sees
// that its Ctrl-C worked, and systemd that its SIGTERM was obeyed.
func (w *Watcher) Die() {
	s := w.caught()
	if s == nil {
		return
	}
	signal.Reset(os.Interrupt, syscall.SIGTERM)
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		if p.Signal(s) == nil {
			select {} // the signal is on its way
		}
	}
}

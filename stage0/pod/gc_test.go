package pod

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

func collector(t *testing.T, p *Pods) *Collector {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	return &Collector{Pods: p, Release: func(context.Context, *Pod) error { return nil }, Log: log, Out: io.Discard, Now: time.Now}
}

func left(t *testing.T, p *Pods) []string {
	t.Helper()
	names, err := filepath.Glob(p.path("*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestCollectAbandoned: check list: pod-lifecycle 2
func TestCollectAbandoned(t *testing.T) {
	for _, phase := range []string{podfs.Embryo, podfs.Prepare, podfs.Prepared, podfs.Run, podfs.ExitedGarbage, podfs.Garbage} {
		t.Run(phase, func(t *testing.T) {
			p := Open(t.TempDir())
			if err := p.MkDirs(); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(p.path(phase, NewUUID()), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := collector(t, p).Collect(t.Context(), Options{}); err != nil {
				t.Fatal(err)
			}
			if l := left(t, p); len(l) > 0 {
				t.Errorf("left: %q", l)
			}
		})
	}
}

func TestCollectWithin(t *testing.T) {
	p := Open(t.TempDir())
	if err := p.MkDirs(); err != nil {
		t.Fatal(err)
	}
	for _, phase := range []string{podfs.Embryo, podfs.Prepared, podfs.ExitedGarbage} {
		if err := os.Mkdir(p.path(phase, NewUUID()), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := collector(t, p).Collect(t.Context(), Options{Grace: time.Hour, ExpirePrepared: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if l := left(t, p); len(l) != 3 {
		t.Errorf("left: %q, want all three", l)
	}
}

// A pod whose resources cannot be released is kept, since its directory says
// what they are, but not forever.
func TestCollectUnreleased(t *testing.T) {
	p := Open(t.TempDir())
	if err := p.MkDirs(); err != nil {
		t.Fatal(err)
	}
	id := NewUUID()
	if err := os.Mkdir(p.path(podfs.Run, id), 0o750); err != nil {
		t.Fatal(err)
	}
	c := collector(t, p)
	c.Release = func(context.Context, *Pod) error { return errors.New("no") }
	for range 2 {
		if err := c.Collect(t.Context(), Options{}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(p.path(podfs.ExitedGarbage, id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Remove(t.Context(), id); err == nil {
		t.Error("Remove says nothing")
	}
	c.Now = func() time.Time { return time.Now().Add(releaseAge) }
	if err := c.Collect(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	if l := left(t, p); len(l) > 0 {
		t.Errorf("left: %q", l)
	}
}

func TestCreateWhileCollected(t *testing.T) {
	p := Open(t.TempDir())
	if err := p.MkDirs(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		for range 200 {
			h, err := p.Create(NewUUID())
			if err == nil {
				err = h.Close()
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	c := collector(t, p)
	for {
		if err := c.Collect(t.Context(), Options{}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}

// What was released when the pod was marked is not released again.
func TestReleaseOnce(t *testing.T) {
	p := Open(t.TempDir())
	if err := p.MkDirs(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.path(podfs.Run, NewUUID()), 0o750); err != nil {
		t.Fatal(err)
	}
	c := collector(t, p)
	n := 0
	c.Release = func(context.Context, *Pod) error { n++; return nil }
	if err := c.Collect(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	if l := left(t, p); n != 1 || len(l) > 0 {
		t.Errorf("released %d times, left: %q", n, l)
	}
}

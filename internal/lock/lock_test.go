package lock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestModes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name          string
		first, second Mode
		ok            bool
	}{
		{"two readers", Shared, Shared, true},
		{"a reader and a writer", Shared, Exclusive, false},
		{"a writer and a reader", Exclusive, Shared, false},
		{"two writers", Exclusive, Exclusive, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := TryDir(dir, c.first)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			b, err := TryDir(dir, c.second)
			switch {
			case c.ok && err != nil:
				t.Error(err)
			case !c.ok && !errors.Is(err, ErrLocked):
				t.Errorf("%v, want ErrLocked", err)
			}
			if b != nil {
				b.Close()
			}
		})
	}
}

func TestReleasedByClose(t *testing.T) {
	dir := t.TempDir()
	a, err := Dir(dir, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		b, err := Dir(dir, Exclusive) // waits
		if err == nil {
			err = b.Close()
		}
		got <- err
	}()
	a.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestUnlock(t *testing.T) {
	file := filepath.Join(t.TempDir(), "l")
	a, err := Path(file, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := Unlock(a); err != nil {
		t.Fatal(err)
	}
	b, err := TryPath(file, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

func TestMissing(t *testing.T) {
	if _, err := TryDir(filepath.Join(t.TempDir(), "none"), Shared); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want os.ErrNotExist", err)
	}
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := TryDir(file, Shared); err == nil {
		t.Error("a plain file is locked as a directory")
	}
}

// TestUnlinked: cleaners unlink lock files. Whoever holds the file at the path
// is alone, however often it was replaced.
func TestUnlinked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "l")
	var wg sync.WaitGroup
	var mu sync.Mutex
	holders, rounds := 0, 0
	for range 4 {
		wg.Go(func() {
			for range 50 {
				f, err := Path(file, Exclusive)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				holders++
				rounds++
				if holders != 1 {
					t.Errorf("%d holders", holders)
				}
				mu.Unlock()
				mu.Lock()
				holders--
				mu.Unlock()
				if err := os.Remove(file); err != nil {
					t.Error(err)
				}
				f.Close()
			}
		})
	}
	wg.Wait()
	if rounds != 200 && !t.Failed() {
		t.Errorf("%d rounds", rounds)
	}
}

func TestPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, err := TryPrivate(path, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if st, err := a.Stat(); err != nil || st.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", st.Mode(), err)
	}
	if _, err := TryPrivate(path, Exclusive); !errors.Is(err, ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := TryPrivate(link, Exclusive); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("through a link: %v", err)
	}
}

func TestWait(t *testing.T) {
	dir := t.TempDir()
	a, err := Dir(dir, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	try := func() (*os.File, error) { return TryDir(dir, Exclusive) }
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Wait(ctx, try, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that of the context", err)
	}
	b, err := Wait(t.Context(), try, func() { a.Close() })
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

package bus

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/godbus/dbus/v5"
)

// TestDialSilent: a server that accepts and never answers holds nobody up.
func TestDialSilent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	closed := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			closed <- err
			return
		}
		buf := make([]byte, 64)
		_, _ = conn.Read(buf) // the client speaks first; then it is left waiting
		cancel()
		for err == nil {
			_, err = conn.Read(buf)
		}
		closed <- nil
	}()
	if _, err := Dial(ctx, "unix:path="+path); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial = %v, want %v", err, context.Canceled)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestError(t *testing.T) {
	for name, want := range map[string]error{
		"org.freedesktop.machine1.NoSuchMachine":   ErrNotFound,
		"org.freedesktop.systemd1.NoSuchUnit":      ErrNotFound,
		"org.freedesktop.DBus.Error.UnknownMethod": ErrUnsupported,
		"org.freedesktop.DBus.Error.AccessDenied":  ErrDenied,
		"System.Error.EEXIST":                      ErrExists,
	} {
		err := Error(dbus.Error{Name: name, Body: []any{"text"}})
		if !errors.Is(err, want) || err.Error() != "text ("+name+")" {
			t.Errorf("Error(%s) = %v, want %v", name, err, want)
		}
	}
	if err := Error(dbus.ErrClosed); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Error(closed) = %v", err)
	}
	if Error(nil) != nil {
		t.Error("Error(nil) is an error")
	}
}

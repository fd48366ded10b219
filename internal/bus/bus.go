// Package bus dials the system's D-Bus and maps the errors of its services to
// values that Go code branches on. It and package machined are the only ones
// that see godbus.
package bus

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/godbus/dbus/v5"
)

// SystemAddress is where the system bus listens when the environment variable
// DBUS_SYSTEM_BUS_ADDRESS does not say otherwise.
const SystemAddress = "unix:path=/run/dbus/system_bus_socket"

var (
	// ErrUnavailable means that there is no bus, or nobody on it serves the
	// name that was called.
	ErrUnavailable = errors.New("D-Bus service is not available")
	// ErrNotFound means that the service does not know the object.
	ErrNotFound = errors.New("not found")
	// ErrExists means that an object of that name exists already.
	ErrExists = errors.New("exists already")
	// ErrDenied means that policy refuses the call.
	ErrDenied = errors.New("access denied")
	// ErrUnsupported means that this version of the service lacks the method.
	ErrUnsupported = errors.New("not supported by this version of the service")
)

// Dial connects to the bus at address, or to the system bus when it is empty.
// A connection is private to the caller, who closes it. The context ends the
// dialling, not the connection.
func Dial(ctx context.Context, address string) (*Conn, error) {
	if address == "" {
		address = os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	}
	if address == "" {
		address = SystemAddress
	}
	type result struct {
		conn *dbus.Conn
		err  error
	}
	done := make(chan result, 1)
	// The connection's own context: ending it closes the socket, so that a
	// server which accepts and never answers holds nothing up.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		conn, err := dial(life, address)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			end()
			return nil, r.err
		}
		return &Conn{Conn: r.conn, end: end}, nil
	case <-ctx.Done():
		end()
		return nil, fmt.Errorf("connecting to D-Bus at %q: %w", address, ctx.Err())
	}
}

// Conn is a connection.
type Conn struct {
	*dbus.Conn
	end context.CancelFunc
}

// Close ends the connection.
func (c *Conn) Close() error {
	defer c.end()
	return c.Conn.Close()
}

func dial(ctx context.Context, address string) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connecting to D-Bus at %q: %w (%w)", address, err, ErrUnavailable)
	}
	if err := conn.Auth(nil); err != nil {
		_ = conn.Close() // the other error counts
		return nil, fmt.Errorf("authenticating to D-Bus at %q: %w", address, err)
	}
	if err := conn.Hello(); err != nil {
		_ = conn.Close() // the other error counts
		return nil, fmt.Errorf("greeting D-Bus at %q: %w", address, err)
	}
	return conn, nil
}

// Error wraps err, which a D-Bus call returned, so that errors.Is finds the
// sentinel of this package its D-Bus name stands for.
func Error(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, dbus.ErrClosed) {
		return fmt.Errorf("%w (%w)", err, ErrUnavailable)
	}
	var de dbus.Error
	if !errors.As(err, &de) {
		return err
	}
	msg := de.Error()
	if s := sentinel(de.Name); s != nil {
		return &nameError{name: de.Name, msg: msg, is: s}
	}
	return &nameError{name: de.Name, msg: msg}
}

// Name returns the D-Bus name of an error that Error returned, or "".
func Name(err error) string {
	var ne *nameError
	if errors.As(err, &ne) {
		return ne.name
	}
	return ""
}

// nameError keeps the D-Bus name with the message, which alone often says
// nothing.
type nameError struct {
	name, msg string
	is        error
}

func (e *nameError) Error() string {
	if e.msg == "" || e.msg == e.name {
		return e.name
	}
	return e.msg + " (" + e.name + ")"
}

func (e *nameError) Unwrap() error { return e.is }

func sentinel(name string) error {
	switch name {
	case "org.freedesktop.machine1.NoSuchMachine",
		"org.freedesktop.machine1.NoMachineForPID",
		"org.freedesktop.machine1.NoSuchImage",
		"org.freedesktop.systemd1.NoSuchUnit",
		"org.freedesktop.systemd1.NoUnitForPID",
		"org.freedesktop.DBus.Error.UnknownObject":
		return ErrNotFound
	case "org.freedesktop.machine1.MachineExists",
		"org.freedesktop.systemd1.UnitExists",
		"System.Error.EEXIST":
		return ErrExists
	case "org.freedesktop.DBus.Error.AccessDenied",
		"org.freedesktop.DBus.Error.AuthFailed",
		"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
		"System.Error.EPERM", "System.Error.EACCES":
		return ErrDenied
	case "org.freedesktop.DBus.Error.UnknownMethod",
		"org.freedesktop.DBus.Error.UnknownInterface",
		"org.freedesktop.DBus.Error.UnknownProperty":
		return ErrUnsupported
	case "org.freedesktop.DBus.Error.ServiceUnknown",
		"org.freedesktop.DBus.Error.NameHasNoOwner",
		"org.freedesktop.DBus.Error.NoReply",
		"org.freedesktop.DBus.Error.Disconnected",
		"org.freedesktop.DBus.Error.Spawn.ExecFailed",
		"org.freedesktop.systemd1.ShuttingDown":
		return ErrUnavailable
	}
	return nil
}

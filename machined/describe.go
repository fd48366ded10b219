package machined

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/rkt-systemd/rkt/internal/bus"
)

// isGone reports whether err says that the machine ended meanwhile.
func isGone(err error) bool {
	return errors.Is(err, ErrNotFound)
}

// describe reads all properties of a machine object in one call.
func (c *Client) describe(ctx context.Context, path dbus.ObjectPath) (Machine, error) {
	props := map[string]dbus.Variant{}
	call := c.conn.Object(service, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, machineIface)
	if err := bus.Error(call.Err); err != nil {
		// Every machine object has properties: one without is none any more.
		if errors.Is(err, ErrUnsupported) {
			err = ErrNotFound
		}
		return Machine{}, err
	}
	if err := call.Store(&props); err != nil {
		return Machine{}, err
	}
	m := Machine{
		Name:          property[string](props, "Name"),
		UUID:          formatUUID(property[[]byte](props, "Id")),
		Class:         property[string](props, "Class"),
		Service:       property[string](props, "Service"),
		Unit:          property[string](props, "Unit"),
		Leader:        int(property[uint32](props, "Leader")),
		RootDirectory: property[string](props, "RootDirectory"),
		State:         property[string](props, "State"),
	}
	for _, i := range property[[]int32](props, "NetworkInterfaces") {
		m.NetworkInterfaces = append(m.NetworkInterfaces, int(i))
	}
	if us := property[uint64](props, "Timestamp"); us > 0 {
		m.Timestamp = time.UnixMicro(int64(us))
	}
	return m, nil
}

// property returns a property, or the zero value when it is missing or of
// another type: later versions of machined may drop or change some.
func property[T any](props map[string]dbus.Variant, name string) T {
	v, _ := props[name].Value().(T)
	return v
}

func formatUUID(b []byte) string {
	if len(b) != 16 {
		return ""
	}
	zero := true
	for _, c := range b {
		zero = zero && c == 0
	}
	if zero {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Package machined is a typed client of systemd-machined
// (org.freedesktop.machine1(5)): it lists, finds, signals and ends machines,
// and registers those that have no nspawn to register them.
//
// Every call takes a context. A host without bus or without machined gives
// ErrUnavailable, and the caller decides what that means; a machine that is
// not there gives ErrNotFound. One owner registers a pod: nspawn or rkt.
//
// It may be imported by stage0 and stage1, and imports only internal packages.
package machined

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/rkt-systemd/rkt/internal/bus"
)

// Errors of every call, the same values as those of internal/bus.
var (
	ErrUnavailable = bus.ErrUnavailable
	ErrNotFound    = bus.ErrNotFound
	ErrExists      = bus.ErrExists
	ErrDenied      = bus.ErrDenied
	ErrUnsupported = bus.ErrUnsupported
)

const (
	service      = "org.freedesktop.machine1"
	managerPath  = dbus.ObjectPath("/org/freedesktop/machine1")
	managerIface = "org.freedesktop.machine1.Manager"
	machineIface = "org.freedesktop.machine1.Machine"
)

// Machine is a registered machine.
type Machine struct {
	Name string
	// UUID is in the 8-4-4-4-12 form, empty when the machine has none.
	UUID string
	// Class is "container", "vm" or "host".
	Class string
	// Service is who runs it: "rkt", "systemd-nspawn", "libvirt-qemu".
	Service string
	// Unit is the unit of the machine on the host.
	Unit          string
	Leader        int
	RootDirectory string
	// State is "opening", "running" or "closing".
	State string
	// NetworkInterfaces are host interface indices.
	NetworkInterfaces []int
	Timestamp         time.Time
}

// Registration describes a machine to register.
type Registration struct {
	Name string
	// UUID is in the 8-4-4-4-12 form, or empty.
	UUID          string
	Service       string // "" means "rkt"
	Class         string // "" means "container"
	Leader        int
	RootDirectory string
	// NetworkInterfaces are the host ends of the machine's interfaces.
	NetworkInterfaces []int
	// Scope makes machined put the leader into a scope unit of its own in
	// machine.slice; otherwise the machine stays in the leader's unit.
	Scope bool
	// Description is the scope's; used with Scope only.
	Description string
}

// Whom Kill sends its signal to.
const (
	Leader = "leader"
	All    = "all"
)

// Client is a connection to machined.
type Client struct {
	conn *bus.Conn
}

// Options say how to connect; the zero value means the system bus.
type Options struct {
	// Address is a D-Bus address.
	Address string
}

// Open connects to machined over the system bus. machined itself is started
// by the first call.
func Open(ctx context.Context) (*Client, error) { return OpenWith(ctx, Options{}) }

// OpenWith is Open with options.
func OpenWith(ctx context.Context, opts Options) (*Client, error) {
	conn, err := bus.Dial(ctx, opts.Address)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) manager() dbus.BusObject { return c.conn.Object(service, managerPath) }

// call calls a method of the manager and stores what it returns.
func (c *Client) call(ctx context.Context, method string, args []any, out ...any) error {
	call := c.manager().CallWithContext(ctx, managerIface+"."+method, 0, args...)
	if call.Err != nil {
		return bus.Error(call.Err)
	}
	if len(out) == 0 {
		return nil
	}
	return call.Store(out...)
}

// List returns all machines but the host itself.
func (c *Client) List(ctx context.Context) ([]Machine, error) {
	var entries []struct {
		Name, Class, Service string
		Path                 dbus.ObjectPath
	}
	if err := c.call(ctx, "ListMachines", nil, &entries); err != nil {
		return nil, fmt.Errorf("listing machines: %w", err)
	}
	machines := make([]Machine, 0, len(entries))
	for _, e := range entries {
		if e.Class == "host" {
			continue
		}
		m, err := c.describe(ctx, e.Path)
		if isGone(err) {
			continue // ended since the list was made
		}
		if err != nil {
			return nil, fmt.Errorf("reading machine %q: %w", e.Name, err)
		}
		machines = append(machines, m)
	}
	return machines, nil
}

// ByName returns the machine of a name.
func (c *Client) ByName(ctx context.Context, name string) (Machine, error) {
	return c.get(ctx, "GetMachine", name)
}

// ByLeader returns the machine that a process belongs to, be it the leader or
// another one of it.
func (c *Client) ByLeader(ctx context.Context, pid int) (Machine, error) {
	return c.get(ctx, "GetMachineByPID", uint32(pid))
}

// ByUUID returns the machine of a UUID in the 8-4-4-4-12 form.
func (c *Client) ByUUID(ctx context.Context, uuid string) (Machine, error) {
	machines, err := c.List(ctx)
	if err != nil {
		return Machine{}, err
	}
	for _, m := range machines {
		if m.UUID != "" && strings.EqualFold(m.UUID, uuid) {
			return m, nil
		}
	}
	return Machine{}, fmt.Errorf("machine of UUID %q: %w", uuid, ErrNotFound)
}

func (c *Client) get(ctx context.Context, method string, arg any) (Machine, error) {
	var path dbus.ObjectPath
	err := c.call(ctx, method, []any{arg}, &path)
	if err == nil {
		var m Machine
		if m, err = c.describe(ctx, path); err == nil {
			return m, nil
		}
		if isGone(err) {
			err = ErrNotFound
		}
	}
	return Machine{}, fmt.Errorf("finding machine %v: %w", quoted(arg), err)
}

func quoted(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("of PID %v", v)
}

// Leader returns the PID, on the host, of a machine's first process.
func (c *Client) Leader(ctx context.Context, name string) (int, error) {
	m, err := c.ByName(ctx, name)
	return m.Leader, err
}

// Addresses returns the addresses of a machine, without loopback. There are
// none for a machine that uses the host's network.
func (c *Client) Addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	var entries []struct {
		Family int32
		Addr   []byte
	}
	if err := c.call(ctx, "GetMachineAddresses", []any{name}, &entries); err != nil {
		if bus.Name(err) == "org.freedesktop.machine1.NoPrivateNetworking" {
			return nil, nil
		}
		return nil, fmt.Errorf("reading addresses of machine %q: %w", name, err)
	}
	addrs := make([]netip.Addr, 0, len(entries))
	for _, e := range entries {
		if a, ok := netip.AddrFromSlice(e.Addr); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// Terminate ends a machine at once, killing all its processes.
func (c *Client) Terminate(ctx context.Context, name string) error {
	if err := c.call(ctx, "TerminateMachine", []any{name}); err != nil {
		return fmt.Errorf("terminating machine %q: %w", name, err)
	}
	return nil
}

// Kill sends a signal to a machine's processes; who is Leader or All.
func (c *Client) Kill(ctx context.Context, name, who string, signal int) error {
	if err := c.call(ctx, "KillMachine", []any{name, who, int32(signal)}); err != nil {
		return fmt.Errorf("sending signal %d to machine %q: %w", signal, name, err)
	}
	return nil
}

// Register registers a machine. With Scope it uses CreateMachineWithNetwork,
// otherwise RegisterMachineWithNetwork, which leaves the cgroup alone.
func (c *Client) Register(ctx context.Context, r Registration) error {
	id, err := uuidBytes(r.UUID)
	if err != nil {
		return fmt.Errorf("registering machine %q: %w", r.Name, err)
	}
	if r.Service == "" {
		r.Service = "rkt"
	}
	if r.Class == "" {
		r.Class = "container"
	}
	ifs := make([]int32, 0, len(r.NetworkInterfaces))
	for _, i := range r.NetworkInterfaces {
		ifs = append(ifs, int32(i))
	}
	args := []any{r.Name, id, r.Service, r.Class, uint32(r.Leader), r.RootDirectory, ifs}
	method := "RegisterMachineWithNetwork"
	if r.Scope {
		method = "CreateMachineWithNetwork"
		props := []struct {
			Name  string
			Value dbus.Variant
		}{}
		if r.Description != "" {
			props = append(props, struct {
				Name  string
				Value dbus.Variant
			}{"Description", dbus.MakeVariant(r.Description)})
		}
		args = append(args, props)
	}
	var path dbus.ObjectPath
	if err := c.call(ctx, method, args, &path); err != nil {
		return fmt.Errorf("registering machine %q: %w", r.Name, err)
	}
	return nil
}

// Unregister removes a registration and leaves the processes alone. It is not
// an error if there is none.
func (c *Client) Unregister(ctx context.Context, name string) error {
	err := c.call(ctx, "UnregisterMachine", []any{name})
	if err != nil && !isGone(err) {
		return fmt.Errorf("unregistering machine %q: %w", name, err)
	}
	return nil
}

// uuidBytes turns a UUID, with or without dashes, into machined's 16 bytes;
// none at all is an empty array.
func uuidBytes(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 0 && len(b) != 16 {
		return nil, fmt.Errorf("%q is no UUID", s)
	}
	return b, nil
}

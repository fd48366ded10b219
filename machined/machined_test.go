package machined_test

import (
	"bufio"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/machined"
)

const (
	managerIface = "org.freedesktop.machine1.Manager"
	uuid         = "8d3fffdd-f79e-4a23-8ffd-19f9ccaa4d6b"
)

// fake is a machined with the methods the client calls.
type fake struct {
	conn *dbus.Conn

	mu       sync.Mutex
	machines map[string]map[string]dbus.Variant
	calls    []string
}

type entry struct {
	Name, Class, Service string
	Path                 dbus.ObjectPath
}

func objectPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/machine1/machine/" + strings.ReplaceAll(strings.ReplaceAll(name, "-", "_2d"), ".", "_2e"))
}

func noSuch(name string) *dbus.Error {
	return dbus.NewError("org.freedesktop.machine1.NoSuchMachine", []any{"No machine '" + name + "' known"})
}

func (f *fake) ListMachines() ([]entry, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []entry{{".host", "host", "", objectPath(".host")}, {"ended", "container", "rkt", objectPath("ended")}}
	for name, p := range f.machines {
		out = append(out, entry{name, p["Class"].Value().(string), p["Service"].Value().(string), objectPath(name)})
	}
	return out, nil
}

func (f *fake) GetMachine(name string) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.machines[name] == nil {
		return "/", noSuch(name)
	}
	return objectPath(name), nil
}

func (f *fake) GetMachineByPID(pid uint32) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, p := range f.machines {
		if p["Leader"].Value() == pid {
			return objectPath(name), nil
		}
	}
	return "/", dbus.NewError("org.freedesktop.machine1.NoMachineForPID", []any{"PID does not belong to any known machine."})
}

type address struct {
	Family int32
	Addr   []byte
}

func (f *fake) GetMachineAddresses(name string) ([]address, *dbus.Error) {
	if name == "hostnet" {
		return nil, dbus.NewError("org.freedesktop.machine1.NoPrivateNetworking", []any{"Machine hostnet does not use private networking"})
	}
	return []address{{2, []byte{10, 1, 2, 3}}, {10, netip.MustParseAddr("fd00::1").AsSlice()}, {2, []byte{1}}}, nil
}

func (f *fake) record(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

func (f *fake) TerminateMachine(name string) *dbus.Error {
	if name == "gone" {
		return noSuch(name)
	}
	f.record("terminate " + name)
	return nil
}

func (f *fake) KillMachine(name, who string, signal int32) *dbus.Error {
	if who == "all" {
		return dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"no"})
	}
	f.record("kill " + name + " " + who)
	return nil
}

func (f *fake) UnregisterMachine(name string) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.machines[name] == nil {
		return noSuch(name)
	}
	delete(f.machines, name)
	return nil
}

func (f *fake) add(name string, id []byte, service, class string, leader uint32, root string, ifs []int32, unit string) {
	props := map[string]dbus.Variant{
		"Name": dbus.MakeVariant(name), "Id": dbus.MakeVariant(id), "Class": dbus.MakeVariant(class),
		"Service": dbus.MakeVariant(service), "Unit": dbus.MakeVariant(unit), "Leader": dbus.MakeVariant(leader),
		"RootDirectory": dbus.MakeVariant(root), "State": dbus.MakeVariant("running"),
		"NetworkInterfaces": dbus.MakeVariant(ifs), "Timestamp": dbus.MakeVariant(uint64(1700000000000000)),
	}
	f.mu.Lock()
	f.machines[name] = props
	f.mu.Unlock()
	_ = f.conn.Export(properties{props}, objectPath(name), "org.freedesktop.DBus.Properties")
}

func (f *fake) RegisterMachineWithNetwork(name string, id []byte, service, class string, leader uint32, root string, ifs []int32) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	exists := f.machines[name] != nil
	f.mu.Unlock()
	if exists {
		return "/", dbus.NewError("org.freedesktop.machine1.MachineExists", []any{"Machine '" + name + "' already exists"})
	}
	f.add(name, id, service, class, leader, root, ifs, "rkt@"+name+".service")
	return objectPath(name), nil
}

type unitProperty struct {
	Name  string
	Value dbus.Variant
}

func (f *fake) CreateMachineWithNetwork(name string, id []byte, service, class string, leader uint32, root string, ifs []int32, props []unitProperty) (dbus.ObjectPath, *dbus.Error) {
	for _, p := range props {
		f.record("property " + p.Name)
	}
	f.add(name, id, service, class, leader, root, ifs, "machine-"+name+".scope")
	return objectPath(name), nil
}

type properties struct{ props map[string]dbus.Variant }

func (p properties) GetAll(iface string) (map[string]dbus.Variant, *dbus.Error) { return p.props, nil }

// privateBus starts a dbus-daemon of our own and returns its address.
func privateBus(t *testing.T) string {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("dbus-daemon is not installed")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "bus.conf")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path=` + dir + `/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>`
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--config-file="+conf, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// setup starts bus and fake and opens a client.
func setup(t *testing.T) (*machined.Client, *fake, context.Context) {
	t.Helper()
	addr := privateBus(t)
	conn, err := dbus.Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{conn: conn, machines: map[string]map[string]dbus.Variant{}}
	if err := conn.Export(f, "/org/freedesktop/machine1", managerIface); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.machine1", 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c, err := machined.OpenWith(ctx, machined.Options{Address: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); cancel(); _ = conn.Close() })
	return c, f, ctx
}

func TestClient(t *testing.T) {
	c, f, ctx := setup(t)
	reg := machined.Registration{Name: "web-1", UUID: uuid, Leader: 42, RootDirectory: "/r", NetworkInterfaces: []int{3}}
	if err := c.Register(ctx, reg); err != nil {
		t.Fatal(err)
	}
	if err := c.Register(ctx, reg); !errors.Is(err, machined.ErrExists) {
		t.Errorf("second registration: %v", err)
	}
	want := machined.Machine{Name: "web-1", UUID: uuid, Class: "container", Service: "rkt", Unit: "rkt@web-1.service", Leader: 42,
		RootDirectory: "/r", State: "running", NetworkInterfaces: []int{3}, Timestamp: time.Unix(1700000000, 0)}
	for name, get := range map[string]func() (machined.Machine, error){
		"ByName":   func() (machined.Machine, error) { return c.ByName(ctx, "web-1") },
		"ByLeader": func() (machined.Machine, error) { return c.ByLeader(ctx, 42) },
		"ByUUID":   func() (machined.Machine, error) { return c.ByUUID(ctx, strings.ToUpper(uuid)) },
		"List": func() (machined.Machine, error) {
			ms, err := c.List(ctx)
			if len(ms) != 1 {
				t.Errorf("List returned %v", ms)
				return machined.Machine{}, err
			}
			return ms[0], err
		},
	} {
		got, err := get()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if pid, err := c.Leader(ctx, "web-1"); pid != 42 || err != nil {
		t.Errorf("Leader = %d, %v", pid, err)
	}
	addrs, err := c.Addresses(ctx, "web-1")
	if err != nil || len(addrs) != 2 || addrs[0] != netip.MustParseAddr("10.1.2.3") || addrs[1] != netip.MustParseAddr("fd00::1") {
		t.Errorf("Addresses = %v, %v", addrs, err)
	}
	if addrs, err := c.Addresses(ctx, "hostnet"); len(addrs) != 0 || err != nil {
		t.Errorf("Addresses = %v, %v", addrs, err)
	}
	if err := c.Terminate(ctx, "web-1"); err != nil {
		t.Error(err)
	}
	if err := c.Kill(ctx, "web-1", machined.Leader, 15); err != nil {
		t.Error(err)
	}
	if err := c.Register(ctx, machined.Registration{Name: "vm", Class: "vm", Scope: true, Description: "Pod vm"}); err != nil {
		t.Error(err)
	}
	if m, err := c.ByName(ctx, "vm"); err != nil || m.Class != "vm" || m.Unit != "machine-vm.scope" || m.UUID != "" {
		t.Errorf("ByName = %v, %v", m, err)
	}
	if err := c.Unregister(ctx, "web-1"); err != nil {
		t.Error(err)
	}
	if err := c.Unregister(ctx, "web-1"); err != nil {
		t.Errorf("second Unregister: %v", err)
	}
	wantCalls := []string{"terminate web-1", "kill web-1 leader", "property Description"}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := cmp.Diff(wantCalls, f.calls); d != "" {
		t.Error(d)
	}
}

func TestErrors(t *testing.T) {
	c, _, ctx := setup(t)
	for _, e := range []struct {
		name string
		err  error
		want error
		text string
	}{
		{"ByName", second(c.ByName(ctx, "x")), machined.ErrNotFound, `finding machine "x": No machine 'x' known (org.freedesktop.machine1.NoSuchMachine)`},
		{"ByLeader", second(c.ByLeader(ctx, 1)), machined.ErrNotFound, "finding machine of PID 1: PID does not belong"},
		{"ByUUID", second(c.ByUUID(ctx, uuid)), machined.ErrNotFound, `machine of UUID "8d3fffdd`},
		{"Terminate", c.Terminate(ctx, "gone"), machined.ErrNotFound, `terminating machine "gone"`},
		{"Kill", c.Kill(ctx, "x", machined.All, 9), machined.ErrDenied, `sending signal 9 to machine "x"`},
		{"Register", c.Register(ctx, machined.Registration{Name: "x", UUID: "zz"}), nil, `registering machine "x": "zz" is no UUID`},
	} {
		if e.err == nil || e.want != nil && !errors.Is(e.err, e.want) || !strings.HasPrefix(e.err.Error(), e.text) {
			t.Errorf("%s: %v, want %v with %q", e.name, e.err, e.want, e.text)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestUnavailable(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := machined.OpenWith(ctx, machined.Options{Address: "unix:path=/nowhere/bus"}); !errors.Is(err, machined.ErrUnavailable) {
		t.Errorf("no bus: %v", err)
	}
	c, err := machined.OpenWith(ctx, machined.Options{Address: privateBus(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.List(ctx); !errors.Is(err, machined.ErrUnavailable) {
		t.Errorf("no machined: %v", err)
	}
	done, cancel2 := context.WithCancel(ctx)
	cancel2()
	if _, err := machined.OpenWith(done, machined.Options{Address: "unix:path=/nowhere"}); err == nil {
		t.Error("a cancelled context dialled")
	}
}

package systemd

import (
	"context"
	"fmt"
	"maps"
	"slices"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/rkt-systemd/rkt/internal/bus"
)

// Setting is a directive of a unit file: KEY=VALUE, in systemd's own words.
type Setting struct{ Key, Value string }

// Command is one for ExecStart= and the like.
type Command struct {
	Argv []string
	// MayFail ignores how it ends, as "-" before a command does.
	MayFail bool
}

// Service describes a transient service.
type Service struct {
	Unit        string
	Description string
	// ExecStart and ExecStopPost know no specifiers, but variables ("$").
	ExecStart, ExecStopPost Command
	WorkingDirectory        string
	// LogExtraFields are NAME=VALUE.
	LogExtraFields []string
	// Settings may repeat a key: a list grows, of others the last counts.
	Settings []Setting
}

// StartTransient makes a transient service, starts it, and waits until it is
// ready or has failed; see Do.
func (m *Manager) StartTransient(ctx context.Context, s Service) error {
	// What the manager says of a unit it has no file for are the defaults of all
	// properties, and with them their types: those of this version of systemd.
	defaults, err := m.conn.GetAllPropertiesContext(ctx, s.Unit)
	if err != nil {
		return fmt.Errorf("asking for unit %s: %w", s.Unit, bus.Error(err))
	}
	if state, _ := defaults["LoadState"].(string); state != "not-found" {
		return fmt.Errorf("unit %s: %w (load state %q)", s.Unit, bus.ErrExists, state)
	}
	values := map[string]any{}
	for _, st := range s.Settings {
		name, v, err := convert(defaults, values, st)
		if err != nil {
			return fmt.Errorf("%s=%s: %w", st.Key, st.Value, err)
		}
		values[name] = v
	}
	props := []sd.Property{sd.PropDescription(s.Description)}
	add := func(name string, v any) { props = append(props, sd.Property{Name: name, Value: dbus.MakeVariant(v)}) }
	add("ExecStart", []command{wire(s.ExecStart)})
	if len(s.ExecStopPost.Argv) > 0 {
		add("ExecStopPost", []command{wire(s.ExecStopPost)})
	}
	if s.WorkingDirectory != "" {
		add("WorkingDirectory", s.WorkingDirectory)
	}
	if len(s.LogExtraFields) > 0 {
		var fields [][]byte
		for _, f := range s.LogExtraFields {
			fields = append(fields, []byte(f))
		}
		add("LogExtraFields", fields)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		add(name, values[name])
	}
	return m.job(ctx, s.Unit, func(done chan<- string) error {
		_, err := m.conn.StartTransientUnitContext(ctx, s.Unit, "fail", props, done)
		return err
	})
}

// command is a(sasb) of D-Bus. (ExecStartEx, which can do without variables, is
// not read back by systemd 252 after a daemon-reload.)
type command struct {
	Path    string
	Args    []string
	MayFail bool
}

func wire(c Command) command { return command{c.Argv[0], c.Argv, c.MayFail} }

// Package systemd is a typed client of the host's service manager
// (org.freedesktop.systemd1(5)): it starts, stops and restarts units and waits
// for it, tells their state, and makes transient ones.
//
// Every call takes a context. Errors are those of internal/bus.
package systemd

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/rkt-systemd/rkt/internal/bus"
)

// Manager is a connection to the service manager.
type Manager struct {
	conn  *sd.Conn
	close func()
}

// Connect connects to the host's service manager.
func Connect(ctx context.Context) (*Manager, error) {
	var mu sync.Mutex
	var conns []*bus.Conn
	closeAll := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close() // nothing is lost with it
		}
		conns = nil
	}
	conn, err := sd.NewConnection(func() (*dbus.Conn, error) {
		c, err := bus.Dial(ctx, "")
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
		return c.Conn, nil
	})
	if err != nil {
		closeAll()
		return nil, fmt.Errorf("connecting to the service manager: %w", bus.Error(err))
	}
	return &Manager{conn, closeAll}, nil
}

// Close ends the connection.
func (m *Manager) Close() {
	m.conn.Close()
	m.close()
}

// Action is what to do with a unit.
type Action string

// Actions; those with "try" leave a unit alone that is not running.
const (
	Start           Action = "start"
	Stop            Action = "stop"
	Restart         Action = "restart"
	TryRestart      Action = "try-restart"
	ReloadOrRestart Action = "reload-or-restart"
)

// JobError means that a job ended without having done what it was for.
type JobError struct {
	Unit string
	// Result is systemd's word: "failed", "timeout", "dependency", "canceled" …
	Result string
}

func (e *JobError) Error() string {
	return fmt.Sprintf("the job for unit %s ended with result %q", e.Unit, e.Result)
}

// Do carries out an action on a unit and waits for the end of its job. A job
// that does not succeed gives a *JobError. When the context ends, the job goes
// on without anybody waiting.
func (m *Manager) Do(ctx context.Context, action Action, unit string) error {
	call := map[Action]func(context.Context, string, string, chan<- string) (int, error){
		Start: m.conn.StartUnitContext, Stop: m.conn.StopUnitContext, Restart: m.conn.RestartUnitContext,
		TryRestart: m.conn.TryRestartUnitContext, ReloadOrRestart: m.conn.ReloadOrRestartUnitContext,
	}[action]
	return m.job(ctx, unit, func(done chan<- string) error {
		_, err := call(ctx, unit, "replace", done)
		return err
	})
}

func (m *Manager) job(ctx context.Context, unit string, call func(done chan<- string) error) error {
	done := make(chan string, 1)
	if err := call(done); err != nil {
		return bus.Error(err)
	}
	select {
	case result := <-done:
		if result != "done" && result != "skipped" {
			return &JobError{unit, result}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for unit %s: %w", unit, ctx.Err())
	}
}

// Reload has the manager read its unit files again and run its generators.
func (m *Manager) Reload(ctx context.Context) error {
	if err := m.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("reloading the service manager: %w", bus.Error(err))
	}
	return nil
}

// ResetFailed forgets that a unit has failed, and its count of starts.
func (m *Manager) ResetFailed(ctx context.Context, unit string) error {
	return bus.Error(m.conn.ResetFailedUnitContext(ctx, unit))
}

// State is what the manager knows of a service.
type State struct {
	// LoadState is "loaded", "not-found", "masked" or "bad-setting".
	LoadState string
	// ActiveState is "active", "activating", "inactive", "failed" or another.
	ActiveState string
	SubState    string
	// Result is "success" or why the service failed.
	Result string
	// Invocation is the id of the current or last run, 32 hex digits, or empty.
	Invocation string
	// Restarts counts the restarts that Restart= has brought.
	Restarts uint32
	MainPID  int
	// Status is the text of sd_notify's STATUS=.
	Status string
	// ExitStatus is that of the last main process that ended.
	ExitStatus int
	// Restart is the setting: "no", "on-failure", "always" …
	Restart string
	// Job says that a job of the unit waits or runs.
	Job bool
}

// State tells the state of a service. One that does not exist is "not-found".
func (m *Manager) State(ctx context.Context, unit string) (State, error) {
	p, err := m.conn.GetAllPropertiesContext(ctx, unit)
	if err != nil {
		return State{}, fmt.Errorf("asking for unit %s: %w", unit, bus.Error(err))
	}
	text := func(key string) string { s, _ := p[key].(string); return s }
	s := State{LoadState: text("LoadState"), ActiveState: text("ActiveState"), SubState: text("SubState"), Result: text("Result"), Status: text("StatusText"), Restart: text("Restart")}
	if id, ok := p["InvocationID"].([]byte); ok {
		s.Invocation = hex.EncodeToString(id)
	}
	s.Restarts, _ = p["NRestarts"].(uint32)
	if job, ok := p["Job"].([]any); ok && len(job) > 0 {
		id, _ := job[0].(uint32)
		s.Job = id != 0
	}
	if pid, ok := p["MainPID"].(uint32); ok {
		s.MainPID = int(pid)
	}
	if status, ok := p["ExecMainStatus"].(int32); ok {
		s.ExitStatus = int(status)
	}
	return s, nil
}

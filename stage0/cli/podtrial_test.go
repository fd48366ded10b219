package cli

import (
	"testing"

	"github.com/rkt-systemd/rkt/internal/systemd"
)

// TestWatch: a restart by systemd is noticed, whatever the state says by then.
func TestWatch(t *testing.T) {
	type step struct {
		systemd.State
		up   bool
		good bool
	}
	st := func(active, sub, id string, restarts uint32, pid int) systemd.State {
		return systemd.State{ActiveState: active, SubState: sub, Invocation: id, Restarts: restarts, MainPID: pid}
	}
	for name, c := range map[string]struct {
		w     watch
		steps []step
	}{
		"good":                   {watch{old: "a"}, []step{{st("deactivating", "stop", "a", 0, 1), false, true}, {st("activating", "start", "b", 0, 2), false, true}, {st("active", "running", "b", 0, 2), true, true}}},
		"not started":            {watch{old: "a"}, []step{{st("active", "running", "a", 0, 1), true, false}}},
		"ended":                  {watch{old: "a"}, []step{{st("active", "running", "b", 0, 2), true, true}, {st("failed", "failed", "b", 0, 0), true, false}}},
		"restarted and up again": {watch{old: "a"}, []step{{st("active", "running", "b", 0, 2), true, true}, {st("active", "running", "c", 1, 3), true, false}}},
		"restarted in its start": {watch{old: "a"}, []step{{st("activating", "start", "b", 0, 2), false, true}, {st("activating", "start", "c", 1, 3), false, false}}},
		"about to be restarted":  {watch{old: "a"}, []step{{st("activating", "auto-restart", "b", 0, 0), false, false}}},
		"another main process":   {watch{old: "a"}, []step{{st("active", "running", "b", 0, 2), true, true}, {st("active", "running", "b", 0, 3), true, false}}},
		"a start that was on its way": {watch{old: "a", spare: true}, []step{{st("activating", "auto-restart", "a", 3, 0), false, true}, {st("activating", "start", "b", 4, 2), false, true},
			{st("activating", "start", "c", 0, 3), false, true}, {st("active", "running", "c", 0, 3), true, true}}},
		"only one such": {watch{old: "a", spare: true}, []step{{st("activating", "start", "b", 4, 2), false, true}, {st("activating", "start", "c", 0, 3), false, true},
			{st("activating", "start", "d", 1, 4), false, false}}},
	} {
		for i, s := range c.steps {
			if err := c.w.look(s.State, s.up); (err == nil) != s.good {
				t.Errorf("%s, step %d: %v", name, i, err)
			}
		}
	}
}

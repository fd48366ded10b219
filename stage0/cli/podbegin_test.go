package cli

import (
	"testing"

	"github.com/rkt-systemd/rkt/internal/systemd"
)

func TestStatesOfAPod(t *testing.T) {
	for _, tt := range []struct {
		s             systemd.State
		between, runs bool
	}{
		{systemd.State{ActiveState: "active"}, false, true},
		{systemd.State{ActiveState: "active", Job: true}, false, true},
		{systemd.State{ActiveState: "reloading"}, false, true},
		{systemd.State{ActiveState: "activating", SubState: "auto-restart"}, false, true},
		{systemd.State{ActiveState: "activating", Job: true}, false, true},
		{systemd.State{ActiveState: "deactivating"}, true, false}, // Restart= may start it again
		{systemd.State{ActiveState: "inactive"}, false, false},
		{systemd.State{ActiveState: "failed"}, false, false},
		{systemd.State{ActiveState: "inactive", Job: true}, true, false},
	} {
		if betweenStates(tt.s) != tt.between || running(tt.s) != tt.runs {
			t.Errorf("%+v: between states %t, running %t", tt.s, betweenStates(tt.s), running(tt.s))
		}
	}
}

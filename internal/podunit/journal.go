package podunit

import (
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podlog"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

// logNamespace has the journald of the pod's namespace there, as LogNamespace=
// would. That itself would give the unit a mount namespace of its own.
func logNamespace(u *unitfile.File, p *podfile.Pod) {
	if p.Rkt.LogNamespace == "" {
		return
	}
	for _, unit := range podlog.Units(p.Rkt.LogNamespace) {
		u.Set("Unit", "Requires", unit)
		u.Set("Unit", "After", unit)
	}
}

// Package pod keeps pods on disk: a pod's state is the directory it lies in
// and whether that directory is locked; a change of state is a rename. There
// is no other record, so a crash at any instruction leaves a state that every
// command understands. docs/pod-lifecycle.md describes states and transitions.
//
// Changing methods hang on a Handle, which owns the lock.
package pod

import "github.com/rkt-systemd/rkt/internal/podfs"

// State is a pod's state as users see it.
type State string

// The states, in the order a pod passes them.
const (
	Embryo         State = "embryo"
	Preparing      State = "preparing"
	AbortedPrepare State = "aborted prepare"
	Prepared       State = "prepared"
	Running        State = "running"
	Exited         State = "exited"
	ExitedGarbage  State = "exited garbage"
	ExitedDeleting State = "exited deleting"
	Garbage        State = "garbage"
	Deleting       State = "deleting"
	// Gone is a pod that vanished while it was looked at.
	Gone State = "gone"
)

// phases are the directories in the order pods move through them.
func phases() []string {
	return []string{podfs.Embryo, podfs.Prepare, podfs.Prepared, podfs.Run, podfs.ExitedGarbage, podfs.Garbage}
}

// stateOf is the whole truth about a pod: its directory and its lock. Embryos
// and prepared pods may be locked for a moment by who moves them on.
func stateOf(phase string, locked bool) State {
	type key struct {
		phase  string
		locked bool
	}
	s, ok := map[key]State{
		{podfs.Embryo, false}: Embryo, {podfs.Embryo, true}: Embryo,
		{podfs.Prepare, true}: Preparing, {podfs.Prepare, false}: AbortedPrepare,
		{podfs.Prepared, false}: Prepared, {podfs.Prepared, true}: Prepared,
		{podfs.Run, true}: Running, {podfs.Run, false}: Exited,
		{podfs.ExitedGarbage, false}: ExitedGarbage, {podfs.ExitedGarbage, true}: ExitedDeleting,
		{podfs.Garbage, false}: Garbage, {podfs.Garbage, true}: Deleting,
	}[key{phase, locked}]
	if !ok {
		return Gone
	}
	return s
}

// AfterRun reports whether the pod has ended or never ran and never will.
func (s State) AfterRun() bool {
	switch s {
	case Exited, ExitedGarbage, ExitedDeleting, Garbage, Deleting:
		return true
	}
	return false
}

// Finished reports whether nothing more will happen in the pod.
func (s State) Finished() bool { return s.AfterRun() || s == AbortedPrepare || s == Gone }

// Ran reports whether the pod was started at some time.
func (s State) Ran() bool {
	switch s {
	case Running, Exited, ExitedGarbage, ExitedDeleting:
		return true
	}
	return false
}

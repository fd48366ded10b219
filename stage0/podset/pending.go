package podset

import (
	"slices"

	"github.com/rkt-systemd/rkt/internal/systemd"
)

// Merge puts together the actions that an earlier transaction has left and those
// of the next one. Stops are carried out before all others.
func Merge(left, next []Action) []Action { return append(Left(left, next), next...) }

// Left are those of the actions that an earlier transaction has left that the next
// one neither has itself nor supersedes.
func Left(left, next []Action) []Action {
	has := func(all []Action, verb systemd.Action, unit string) bool {
		return slices.Contains(all, Action{string(verb), unit})
	}
	return slices.DeleteFunc(slices.Clone(left), func(a Action) bool {
		switch {
		case slices.Contains(next, a):
			return true
		case a.Verb == string(systemd.Stop):
			// A unit that left starts again is stopped for the sake of others.
			return has(next, systemd.TryRestart, a.Unit) && !has(left, systemd.Start, a.Unit)
		default:
			return has(next, systemd.Stop, a.Unit)
		}
	})
}

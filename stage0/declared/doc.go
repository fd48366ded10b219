// Package declared keeps, for every declared pod, which images its references
// were resolved to: its generations. A start runs what the current generation
// records, so that it needs no registry; an update is a new generation on
// trial, which becomes the current one or gives way to the one before.
//
//	/var/lib/rkt/declared/NAME/current          which generation counts
//	/var/lib/rkt/declared/NAME/generations/N.json
//	/var/lib/rkt/declared/NAME/history          one JSON object a line
//	/var/lib/rkt/declared/NAME/lock, updating   locks
//
// A trial lasts as long as its updater holds the lock "updating": when power
// goes or somebody kills the updater, the trial is over and the generation
// before it counts again. Nothing has to run for that.
//
// Only stage0/cli imports it.
package declared

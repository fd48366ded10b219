package declared

import (
	"slices"
	"time"

	"github.com/rkt-systemd/rkt/stage0/store"
)

// State of a generation.
type State string

const (
	Good  State = "good"
	Trial State = "trial"
	Bad   State = "bad"
	// Abandoned is a generation whose trial was interrupted: nothing is known of it.
	Abandoned State = "abandoned"
)

// App is an app with the image its reference was resolved to.
type App struct {
	Name string `json:"name"`
	// Ref is the reference as the pod file has it.
	Ref string `json:"ref"`
	// ID is the image's ID, which pins everything in it.
	ID string `json:"id"`
	// Digest is the digest that the registry has for it; "" where there is none.
	Digest string `json:"digest,omitempty"`
	// Admitted is how it was verified that the reference means this image
	// (store.Admission.Kind).
	Admitted string `json:"admitted,omitempty"`
	// File is the local file as it was then, for references to files: a file
	// that changed is resolved again.
	File *store.FileID `json:"file,omitempty"`
}

// Generation is a set of images that a pod was or is run with.
type Generation struct {
	Number  int       `json:"generation"`
	Created time.Time `json:"created"`
	// State is Good also of one that was never on trial.
	State State `json:"state"`
	// Reason says why it is bad, or abandoned.
	Reason string `json:"reason,omitempty"`
	Apps   []App  `json:"apps"`
}

// Current says what the next start runs.
type Current struct {
	Generation int `json:"generation"`
	// Previous is what a rollback goes to, 0 for nothing.
	Previous int   `json:"previous,omitempty"`
	State    State `json:"state"`
	// Restore says that the pod has still to be restarted with this generation.
	Restore bool  `json:"restore,omitempty"`
	Apps    []App `json:"apps"`
	// Last is the newest event. It gets into the history after the record: should
	// its writer be killed in between, the next one adds it.
	Last *Event `json:"last,omitempty"`
}

// Event is a line of the history.
type Event struct {
	Seq        int       `json:"seq"`
	Time       time.Time `json:"time"`
	Event      string    `json:"event"`
	Generation int       `json:"generation"`
	From       int       `json:"from,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Apps       []App     `json:"apps,omitempty"`
}

// Events of the history.
const (
	EventRecorded   = "recorded"    // resolved by a start or a fetch
	EventTrial      = "trial"       // an update was started
	EventUpdated    = "updated"     // it proved good
	EventRolledBack = "rolled-back" // it did not, or somebody asked for it
	EventFailed     = "failed"      // not even the generation before starts
)

// App finds an app's record for a reference; nil if it was never resolved.
func (c *Current) App(name, ref string) *App {
	if c == nil {
		return nil
	}
	i := slices.IndexFunc(c.Apps, func(a App) bool { return a.Name == name && a.Ref == ref })
	if i < 0 {
		return nil
	}
	return &c.Apps[i]
}

// SameImages says whether two lists of apps run the same images.
func SameImages(a, b []App) bool {
	return slices.EqualFunc(a, b, func(x, y App) bool { return x.Name == y.Name && x.ID == y.ID })
}

// same says whether nothing of a record changed.
func same(a, b []App) bool {
	return slices.EqualFunc(a, b, func(x, y App) bool {
		files := x.File == y.File || x.File != nil && y.File != nil && *x.File == *y.File
		x.File, y.File = nil, nil
		return files && x == y
	})
}

// seen gives the apps of a generation the files that others of the same
// references were made from: a generation gone back to must not be taken for
// one whose files changed since.
func seen(apps, newer []App) []App {
	out := slices.Clone(apps)
	for i := range out {
		for _, n := range newer {
			if n.Name == out[i].Name && n.Ref == out[i].Ref && n.File != nil {
				out[i].File = n.File
			}
		}
	}
	return out
}

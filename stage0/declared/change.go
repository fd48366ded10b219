package declared

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// ErrChanged means that the record is not what it was when a trial began.
var ErrChanged = errors.New("the record changed meanwhile")

// Reasons of what was abandoned.
const (
	reasonKilled      = "its updater was interrupted"
	reasonKilledTwice = "its updater was interrupted, for the second time with these images"
)

// ForStart is what a start is to run. A trial whose updater is gone is over:
// then the generation before it is the current one again, and over is true.
// starts says that the caller is a start: else the pod, if it runs, has still
// to be restarted for that.
func (p *Pod) ForStart(starts bool) (c *Current, over bool, err error) {
	c, err = p.Current()
	if err != nil || c == nil || c.State != Trial {
		return c, false, err
	}
	l, err := p.lock()
	if err != nil {
		return nil, false, err
	}
	defer l.Close()
	if c, err = p.Current(); err != nil || c == nil || c.State != Trial {
		return c, false, err
	}
	// The lock of the record is held: whoever is the updater is a real one, none
	// that does what is done here.
	u, err := p.tryUpdating()
	if errors.Is(err, ErrUpdating) {
		return c, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer u.Close()
	c, err = p.changeLocked(func(c *Current) (*Current, *Event, error) { return p.revert(c, Abandoned, reasonKilled, !starts) })
	return c, true, err
}

// Interrupted ends a trial that a killed updater left, if there is one; only
// the pod's updater may call it. The pod has to be restarted for that, if it runs.
func (p *Pod) Interrupted() (*Current, error) {
	c, err := p.Current()
	if err != nil || c == nil || c.State != Trial {
		return c, err
	}
	return p.change(func(c *Current) (*Current, *Event, error) { return p.revert(c, Abandoned, reasonKilled, true) })
}

// BeforeTrial is what the record says when the trial is over that it may tell
// of. Nothing is written.
func (p *Pod) BeforeTrial(c *Current) (*Current, error) {
	if c == nil || c.State != Trial {
		return c, nil
	}
	g, err := p.Generation(c.Previous)
	if err != nil {
		return nil, err
	}
	return &Current{Generation: c.Previous, State: Good, Apps: seen(g.Apps, c.Apps), Last: c.Last}, nil
}

// Record notes what references were resolved to where there was no record, or
// another pod file: a new generation, and no trial. A record that says the same
// is left alone.
func (p *Pod) Record(apps []App, keep int) (*Current, error) {
	c, err := p.Current()
	if err != nil {
		return nil, err
	}
	return p.RecordSince(c, apps, keep)
}

// RecordSince is Record for apps that were resolved when seen was the record.
// Should it have changed meanwhile, the change counts: a start that read what
// was on trial must not bring that back once the trial has failed.
func (p *Pod) RecordSince(seen *Current, apps []App, keep int) (*Current, error) {
	c, err := p.Current()
	if err != nil {
		return nil, err
	}
	if c != nil && c.State != Trial && same(c.Apps, apps) {
		return c, nil
	}
	c, err = p.change(func(c *Current) (*Current, *Event, error) {
		switch {
		case c != nil && c.State == Trial, !c.unchanged(seen):
			// What runs on trial is what its updater recorded.
			return nil, nil, nil
		case c != nil && SameImages(c.Apps, apps):
			next := *c
			next.Apps = apps
			g, err := p.Generation(c.Generation)
			if err != nil {
				return nil, nil, err
			}
			g.Apps = apps
			return &next, nil, p.putGeneration(*g)
		}
		n, err := p.next(c)
		if err != nil {
			return nil, nil, err
		}
		if err := p.putGeneration(Generation{Number: n, Created: p.Now().UTC(), State: Good, Apps: apps}); err != nil {
			return nil, nil, err
		}
		next := &Current{Generation: n, State: Good, Apps: apps}
		e := &Event{Event: EventRecorded, Generation: n, Apps: apps}
		if c != nil {
			next.Previous, next.Restore, e.From = c.Generation, c.Restore, c.Generation
		}
		return next, e, nil
	})
	if err != nil {
		return c, err
	}
	return c, p.prune(keep)
}

// unchanged says that no event came to a record since.
func (c *Current) unchanged(seen *Current) bool {
	if c == nil || seen == nil {
		return c == seen
	}
	return c.Generation == seen.Generation && c.State == seen.State && c.seq() == seen.seq()
}

func (c *Current) seq() int {
	if c.Last == nil {
		return 0
	}
	return c.Last.Seq
}

// Try begins a trial of apps, for which n is the generation, or 0 for a new
// one. Only the pod's updater may call it.
func (p *Pod) Try(apps []App, n int) (*Current, error) {
	return p.change(func(c *Current) (*Current, *Event, error) {
		if c == nil || c.State == Trial {
			return nil, nil, ErrChanged
		}
		if n == 0 {
			var err error
			if n, err = p.next(c); err != nil {
				return nil, nil, err
			}
			if err := p.putGeneration(Generation{Number: n, Created: p.Now().UTC(), State: Trial, Apps: apps}); err != nil {
				return nil, nil, err
			}
		} else {
			apps = seen(apps, c.Apps)
		}
		return &Current{Generation: n, Previous: c.Generation, State: Trial, Apps: apps},
			&Event{Event: EventTrial, Generation: n, From: c.Generation, Apps: apps}, nil
	})
}

// Commit ends a trial: its generation is good. event is EventUpdated, or
// EventRolledBack with the reason.
func (p *Pod) Commit(event, reason string, keep int) (*Current, error) {
	c, err := p.change(func(c *Current) (*Current, *Event, error) {
		if c == nil || c.State != Trial {
			return nil, nil, ErrChanged
		}
		if err := p.mark(c.Generation, Good, ""); err != nil {
			return nil, nil, err
		}
		if event == EventRolledBack {
			// Whoever goes back does not want to be brought here again unasked.
			if err := p.mark(c.Previous, Bad, reason); err != nil {
				return nil, nil, err
			}
		}
		next := *c
		next.State = Good
		return &next, &Event{Event: event, Generation: c.Generation, From: c.Previous, Reason: reason}, nil
	})
	if err != nil {
		return c, err
	}
	return c, p.prune(keep)
}

// Revert ends a trial: its generation is bad, and the one before is current
// again. The pod has to be restarted for that.
func (p *Pod) Revert(reason string) (*Current, error) {
	return p.change(func(c *Current) (*Current, *Event, error) { return p.revert(c, Bad, reason, true) })
}

// Abandon ends a trial that its updater was told to end: the generation before
// is current again, as after Revert, and nothing is held against the other.
func (p *Pod) Abandon(reason string) (*Current, error) {
	return p.change(func(c *Current) (*Current, *Event, error) { return p.revert(c, Abandoned, reason, true) })
}

func (p *Pod) revert(c *Current, s State, reason string, restore bool) (*Current, *Event, error) {
	if c == nil || c.State != Trial {
		return nil, nil, ErrChanged
	}
	before, err := p.Generation(c.Previous)
	if err != nil {
		return nil, nil, err
	}
	g, err := p.Generation(c.Generation)
	if err != nil {
		return nil, nil, err
	}
	if s == Abandoned && reason == reasonKilled {
		// Images that take the updater along, or the host, must not do so for ever.
		twice, err := p.killedBefore(g)
		if err != nil {
			return nil, nil, err
		}
		if twice {
			s, reason = Bad, reasonKilledTwice
		}
	}
	// A generation that proved good once, and was gone back to, stays good.
	if s == Bad || g.State != Good {
		if err := p.mark(c.Generation, s, reason); err != nil {
			return nil, nil, err
		}
	}
	// Who was killed in the middle of Commit may have said otherwise.
	if err := p.mark(c.Previous, Good, ""); err != nil {
		return nil, nil, err
	}
	next := &Current{Generation: c.Previous, State: Good, Restore: restore, Apps: seen(before.Apps, c.Apps)}
	if next.Previous, err = p.before(c.Previous); err != nil {
		return nil, nil, err
	}
	return next, &Event{Event: EventRolledBack, Generation: c.Previous, From: c.Generation, Reason: reason}, nil
}

// killedBefore says whether the updater was killed in a trial of the same
// images before.
func (p *Pod) killedBefore(g *Generation) (bool, error) {
	gs, err := p.Generations()
	return slices.ContainsFunc(gs, func(o Generation) bool {
		return o.Number != g.Number && o.State == Abandoned && o.Reason == reasonKilled && SameImages(o.Apps, g.Apps)
	}), err
}

// Adopt makes a new generation the current one without a trial, for a pod that
// does not run.
func (p *Pod) Adopt(apps []App, keep int) (*Current, error) {
	c, err := p.Record(apps, keep)
	if err == nil && c != nil && c.State == Trial {
		err = ErrChanged
	}
	return c, err
}

// Go makes an existing generation the current one without a trial, for a pod
// that does not run.
func (p *Pod) Go(n int, reason string) (*Current, error) {
	return p.change(func(c *Current) (*Current, *Event, error) {
		if c == nil || c.State == Trial {
			return nil, nil, ErrChanged
		}
		g, err := p.Generation(n)
		if err != nil {
			return nil, nil, err
		}
		if err := errors.Join(p.mark(n, Good, ""), p.mark(c.Generation, Bad, reason)); err != nil {
			return nil, nil, err
		}
		return &Current{Generation: n, Previous: c.Generation, State: Good, Apps: seen(g.Apps, c.Apps)},
			&Event{Event: EventRolledBack, Generation: n, From: c.Generation, Reason: reason}, nil
	})
}

// Restored notes that the pod runs the current generation again, or starts with
// it when it is started.
func (p *Pod) Restored() error {
	_, err := p.change(func(c *Current) (*Current, *Event, error) {
		if c == nil || !c.Restore {
			return nil, nil, nil
		}
		next := *c
		next.Restore = false
		return &next, nil, nil
	})
	return err
}

// Failed notes in the history that the current generation does not start.
func (p *Pod) Failed(reason string) error {
	_, err := p.change(func(c *Current) (*Current, *Event, error) {
		if c == nil {
			return nil, nil, nil
		}
		return c, &Event{Event: EventFailed, Generation: c.Generation, Reason: reason}, nil
	})
	return err
}

func (p *Pod) mark(n int, s State, reason string) error {
	g, err := p.Generation(n)
	if err != nil {
		return err
	}
	if g.State == s && g.Reason == reason {
		return nil
	}
	g.State, g.Reason = s, reason
	return p.putGeneration(*g)
}

// before is the newest good generation older than n, 0 without one.
func (p *Pod) before(n int) (int, error) {
	gs, err := p.Generations()
	for _, g := range gs {
		if g.Number < n && g.State == Good {
			return g.Number, err
		}
	}
	return 0, err
}

// BadGeneration finds the bad generation of the same images, nil without one.
func (p *Pod) BadGeneration(apps []App) (*Generation, error) {
	gs, err := p.Generations()
	for _, g := range gs {
		if g.State == Bad && SameImages(g.Apps, apps) {
			return &g, nil
		}
	}
	return nil, err
}

// prune removes the oldest generations, so that keep good ones, the newest bad
// and the newest abandoned one stay. Those that the record names always stay.
func (p *Pod) prune(keep int) error {
	if keep <= 0 {
		keep = Keep
	}
	l, err := p.lock()
	if err != nil {
		return err
	}
	defer l.Close()
	p.sweep()
	c, err := p.Current()
	if err != nil || c == nil {
		return err
	}
	gs, err := p.Generations()
	if err != nil {
		return err
	}
	good, bad, abandoned := 0, 0, 0
	for _, g := range gs {
		// A trial that the record does not name never began: its updater was killed.
		n, most := &bad, 1
		switch g.State {
		case Good:
			n, most = &good, keep
		case Abandoned:
			n = &abandoned
		}
		*n++
		if slices.Contains([]int{c.Generation, c.Previous}, g.Number) || *n <= most {
			continue
		}
		if err := os.Remove(p.generationPath(g.Number)); err != nil {
			return fmt.Errorf("removing generation %d of pod %q: %w", g.Number, p.Name, err)
		}
	}
	return nil
}

// sweep removes what killed writers left. The caller holds the lock, as they did.
func (p *Pod) sweep() {
	for _, pattern := range []string{".*.tmp*", "generations/.*.tmp*"} {
		left, _ := filepath.Glob(p.path(pattern)) // the pattern is good
		for _, path := range left {
			_ = os.Remove(path) // the next one tries again
		}
	}
}

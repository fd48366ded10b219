package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/stage0/declared"
)

// begin makes this process the pod's updater, and ends what an interrupted one
// left. The record of a pod that has none, and runs, is what it runs.
func (u *updater) begin(ctx context.Context, p *podfile.Pod) (*declared.Pod, *declared.Current, func(), error) {
	d, err := declared.Open(u.st.dir, p.Name)
	if err != nil {
		return nil, nil, nil, err
	}
	l, err := d.Updating()
	if err != nil {
		return nil, nil, nil, err
	}
	unlock := func() { _ = l.Close() } // it is only a lock
	c, err := u.interrupted(ctx, p, d)
	if err == nil && c == nil {
		c, err = u.fromRunning(d, p)
	}
	if err != nil {
		unlock()
		return nil, nil, nil, err
	}
	return d, c, unlock, nil
}

// interrupted ends what an updater left that was killed, and starts the pod with
// what it ran before. One that does not run is not started for that; one that
// failed is, since the trial may have been why.
func (u *updater) interrupted(ctx context.Context, p *podfile.Pod, d *declared.Pod) (*declared.Current, error) {
	if u.o.check {
		c, err := d.Current()
		if err != nil {
			return nil, err
		}
		return d.BeforeTrial(c)
	}
	c, err := d.Interrupted()
	if err != nil || c == nil || !c.Restore {
		return c, err
	}
	s, err := u.steady(ctx, p)
	if err != nil {
		return nil, err
	}
	// It may have been started meanwhile.
	if c, err = d.Current(); err != nil || c == nil || !c.Restore {
		return c, err
	}
	if !running(s) && s.ActiveState != "failed" {
		return c, d.Restored()
	}
	u.a.log.Warnf("an update of pod %q was interrupted: going back to generation %d", p.Name, c.Generation)
	return c, u.restore(ctx, p, d)
}

// steady is the state of a pod's unit that is not about to be another one:
// whether a pod that is ending runs, Restart= and waiting jobs decide.
func (u *updater) steady(ctx context.Context, p *podfile.Pod) (systemd.State, error) {
	timeout, _ := u.o.of(p)
	for end := time.Now().Add(timeout); ; {
		s, err := u.m.State(ctx, p.UnitName())
		if err != nil || !betweenStates(s) {
			return s, err
		}
		if time.Now().After(end) {
			return s, fmt.Errorf("pod %q is still %s after %s; try again when it has ended", p.Name, s.ActiveState, timeout)
		}
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}

// betweenStates says that a unit is ending, or that what is to become of it
// waits in a job.
func betweenStates(s systemd.State) bool {
	return s.ActiveState == "deactivating" || s.Job && !running(s)
}

// fromRunning records what a pod runs that was started before there were
// records.
func (u *updater) fromRunning(d *declared.Pod, p *podfile.Pod) (*declared.Current, error) {
	run, err := u.runningPod(p.Name)
	if run == nil || err != nil {
		return nil, err
	}
	defer run.Close()
	m, err := run.Manifest()
	if err != nil || len(m.Apps) != len(p.Apps) {
		return nil, err
	}
	var apps []declared.App
	for i := range m.Apps {
		rec, err := u.st.store.Resolve(m.Apps[i].Image.ID.String())
		if err != nil {
			return nil, nil //nolint:nilerr // then there is nothing to go back to
		}
		apps = append(apps, declared.App{Name: appKey(p, i), Ref: appRef(p.Apps[i].Image), ID: rec.ID, Admitted: rec.Admission.Kind})
	}
	if u.o.check {
		return &declared.Current{State: declared.Good, Apps: apps}, nil
	}
	return d.Record(apps, p.Rkt.Update.Keep)
}

// running says that a unit is up, or on its way there by itself.
func running(s systemd.State) bool {
	return s.ActiveState == "active" || s.ActiveState == "activating" || s.ActiveState == "reloading"
}

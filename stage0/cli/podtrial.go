package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/machined"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

// watchEvery is how often a pod on trial is looked at.
const watchEvery = 100 * time.Millisecond

// haltAfter is how long a pod that was just starting may take to shut down
// until it is told again, with the signal that nspawn is given as --kill-signal.
const (
	haltAfter  = 2 * time.Second
	haltSignal = 34 + 3 // SIGRTMIN+3
)

// MESSAGE_IDs of what an update does to a pod; the catalog
// explains them.
const (
	messageUpdated    = "c2b2a7d1f3f54b0f9a3f1a5a0d3e7b61"
	messageRolledBack = "5d0e0c4a9b1f4f5d8f5e2b7d6c1a9e42"
	messageFailed     = "9f6d3b0e7a2c4c1e8d4b5a6f7e8091a3"
)

// trial restarts a pod with apps and judges it. n is their generation, 0 for a
// new one; event says what it is called when all goes well.
func (u *updater) trial(ctx context.Context, p *podfile.Pod, d *declared.Pod, apps []declared.App, n int, event, why string, r *updateJSON) error {
	timeout, settle := u.o.of(p)
	c, err := d.Try(apps, n)
	if err != nil {
		return fmt.Errorf("pod %q: %w", p.Name, err)
	}
	failpoint.Hit("update/trial")
	u.log(p, c).Infof("pod %q: trying generation %d", p.Name, c.Generation)
	bad, end := u.judge(ctx, p, timeout, settle), d.Revert
	if ctx.Err() != nil {
		// Whoever interrupts an update wants what was there before; that still has
		// to be started.
		bad, end = errors.New("the update was interrupted"), d.Abandon
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
	}
	failpoint.Hit("update/judged")
	if bad == nil {
		c, err := d.Commit(event, why, p.Rkt.Update.Keep)
		if err != nil {
			return err
		}
		failpoint.Hit("update/committed")
		r.Result, r.Generation, r.Previous = resultUpdated, c.Generation, c.Previous
		return nil
	}
	tried := c.Generation
	if c, err = end(bad.Error()); err != nil {
		return err
	}
	failpoint.Hit("update/reverted")
	r.Result, r.Generation, r.Previous = resultRolled, c.Generation, c.Previous
	r.Reason = fmt.Sprintf("generation %d: %v", tried, bad)
	return u.restore(ctx, p, d)
}

// restore starts the pod with the generation that it was brought back to.
func (u *updater) restore(ctx context.Context, p *podfile.Pod, d *declared.Pod) error {
	timeout, _ := u.o.of(p)
	failpoint.Hit("update/restoring")
	if bad := u.judge(ctx, p, timeout, 0); bad != nil {
		err := fmt.Errorf("pod %q was brought back to what it ran before, but does not start: %w", p.Name, bad)
		return errors.Join(err, d.Failed(bad.Error()))
	}
	return d.Restored()
}

// judge restarts a pod's unit and tells what is wrong with it then; nil when it
// is ready within the time-out, and stays up and healthy for the time to settle.
func (u *updater) judge(ctx context.Context, p *podfile.Pod, timeout, settle time.Duration) error {
	unit := p.UnitName()
	extend := timeout + settle + time.Minute
	if u.a.Getenv("NOTIFY_SOCKET") != "" {
		// A manager that does not listen is no reason to stop.
		_, _ = daemon.SdNotify(false, fmt.Sprintf("STATUS=Trying pod %s\nEXTEND_TIMEOUT_USEC=%d", p.Name, extend.Microseconds()))
	}
	// Failures before the trial do not count against it.
	if err := u.m.ResetFailed(ctx, unit); err != nil {
		u.a.log.WithError(err).Debug("resetting the unit, ignoring")
	}
	before, err := u.m.State(ctx, unit)
	if err != nil {
		return err
	}
	start, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	job := make(chan error, 1)
	go func() { job <- u.m.Do(start, systemd.Restart, unit) }()
	// A unit between two states may be started by Restart= before it is by this job.
	w := watch{old: before.Invocation, spare: before.ActiveState == "activating" || before.ActiveState == "deactivating"}
	deaf := time.Now().Add(haltAfter)
	for done := false; !done; {
		select {
		case err := <-job:
			done = true
			if err != nil && start.Err() != nil && ctx.Err() == nil {
				err = fmt.Errorf("not ready within %s", timeout)
			}
			if err != nil {
				return u.explain(ctx, unit, err)
			}
		case <-time.After(watchEvery):
		}
		s, err := u.m.State(ctx, unit)
		if err != nil {
			return err
		}
		switch {
		case s.SubState != "stop-sigterm":
			deaf = time.Now().Add(haltAfter)
		case w.spare && time.Now().After(deaf):
			deaf = time.Now().Add(haltAfter)
			u.halt(ctx, p)
		}
		if err := w.look(s, done); err != nil {
			return u.explain(ctx, unit, err)
		}
	}
	end, patience := time.Now().Add(settle), time.Now().Add(timeout)
	for {
		waiting, err := u.health(p.Name)
		if err != nil {
			return err
		}
		if now := time.Now(); waiting != "" {
			if now.After(patience) {
				return fmt.Errorf("app %q was not found healthy within %s", waiting, timeout)
			}
			end = now.Add(max(settle, watchEvery)) // it settles once all are healthy
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		select {
		case <-time.After(min(left, watchEvery)):
		case <-ctx.Done():
			return ctx.Err()
		}
		s, err := u.m.State(ctx, unit)
		if err != nil {
			return err
		}
		if err := w.look(s, true); err != nil {
			return u.explain(ctx, unit, err)
		}
	}
}

// halt tells a pod once more to shut down. One that Restart= was just starting
// when its unit was stopped may not have heard it: what nspawn sends to PID 1
// before the pod's systemd listens is lost. To a pod that is on its way down it
// means nothing.
func (u *updater) halt(ctx context.Context, p *podfile.Pod) {
	c, err := machined.Open(ctx)
	if err == nil {
		err = c.Kill(ctx, p.MachineName(), machined.Leader, haltSignal)
		c.Close()
	}
	if err != nil {
		u.a.log.WithError(err).Debug("telling the pod again to shut down, ignoring")
	}
}

// watch notices that a unit was restarted, whatever its state says: with
// Restart= it is soon active again.
type watch struct {
	old, run string
	restarts uint32
	pid      int
	// spare is a start that is none of the job's.
	spare bool
}

func (w *watch) look(s systemd.State, up bool) error {
	switch {
	case s.Invocation == w.old || s.Invocation == "":
		if up {
			return fmt.Errorf("the unit is %s, and was not started again", s.ActiveState)
		}
		return nil
	case w.run == "":
		w.run, w.restarts = s.Invocation, s.Restarts
	case (s.Invocation != w.run || s.Restarts > w.restarts) && w.spare && !up:
		w.run, w.restarts, w.spare = s.Invocation, s.Restarts, false
	case s.Invocation != w.run || s.Restarts > w.restarts:
		return errors.New("it ended, and systemd started it again")
	}
	if !up && w.spare {
		return nil
	}
	if s.SubState == "auto-restart" || s.SubState == "auto-restart-queued" {
		return errors.New("it ended, and systemd is about to start it again")
	}
	if !up {
		return nil
	}
	if s.ActiveState != "active" && s.ActiveState != "reloading" {
		return fmt.Errorf("it is not up any more, but %s", s.ActiveState)
	}
	if w.pid == 0 {
		w.pid = s.MainPID
	}
	if s.MainPID != w.pid {
		return errors.New("its main process is another one")
	}
	return nil
}

// explain adds what the manager knows of why a unit is not up.
func (u *updater) explain(ctx context.Context, unit string, err error) error {
	s, serr := u.m.State(context.WithoutCancel(ctx), unit)
	if serr != nil || s.Result == "success" || s.Result == "" {
		return err
	}
	if s.Result == "exit-code" {
		return fmt.Errorf("%w (exit status %d)", err, s.ExitStatus)
	}
	return fmt.Errorf("%w (%s)", err, s.Result)
}

// health looks at the apps of a pod that is up: none may have failed or be
// unhealthy. It names one whose first check has not succeeded yet.
func (u *updater) health(name string) (waiting string, err error) {
	d, err := u.runningPod(name)
	if err != nil || d == nil {
		return "", err
	}
	defer d.Close()
	m, err := d.Manifest()
	if err != nil {
		return "", err
	}
	for i := range m.Apps {
		app := m.Apps[i].Name.String()
		if code, ended := d.ExitStatus(app); ended && code != 0 {
			return "", fmt.Errorf("app %q ended with status %d", app, code)
		}
		switch h, _ := d.AppHealth(app); {
		case h.State == "unhealthy" && h.Output != "":
			return "", fmt.Errorf("app %q is unhealthy: %s", app, h.Output)
		case h.State == "unhealthy":
			return "", fmt.Errorf("app %q is unhealthy", app)
		case h.State == "starting":
			waiting = app
		}
	}
	return waiting, nil
}

// runningPod is the running pod of a declared name, nil without one.
func (u *updater) runningPod(name string) (*pod.Pod, error) {
	pods := pod.Open(u.st.dir)
	id, err := pods.NewestOf(name)
	if err != nil {
		return nil, nil //nolint:nilerr // none ever ran
	}
	d, err := pods.Get(id)
	if err != nil {
		return nil, err
	}
	if d.State != pod.Running {
		d.Close()
		return nil, nil
	}
	return d, nil
}

func (u *updater) log(p *podfile.Pod, c *declared.Current) *logrus.Entry {
	return u.a.log.WithFields(logrus.Fields{journal.KeyPodName: p.Name, "generation": c.Generation})
}

// tell says the outcome, and notes it in the journal wherever standard error goes.
func (u *updater) tell(r updateJSON) {
	l := u.a.log.WithFields(logrus.Fields{journal.KeyPodName: r.Name, "generation": r.Generation})
	id, level, text := "", logrus.InfoLevel, ""
	switch r.Result {
	case resultUpdated:
		id, text = messageUpdated, fmt.Sprintf("pod %q runs generation %d", r.Name, r.Generation)
	case resultRolled:
		id, level, text = messageRolledBack, logrus.ErrorLevel, fmt.Sprintf("pod %q is back at generation %d: %s", r.Name, r.Generation, r.Reason)
	case resultFailed:
		id, level, text = messageFailed, logrus.ErrorLevel, fmt.Sprintf("updating pod %q: %s", r.Name, r.Reason)
	case resultSkipped:
		level, text = logrus.WarnLevel, fmt.Sprintf("pod %q is not updated: %s", r.Name, r.Reason)
	default:
		return
	}
	if id != "" {
		l = l.WithField(journal.KeyMessageID, id)
	}
	l.Log(level, text)
	if id == "" || journal.StderrIsJournal() || u.o.check {
		return
	}
	w, err := journal.NewWriter("")
	if err != nil {
		u.a.log.WithError(err).Debug("not writing to the journal, ignoring")
		return
	}
	defer w.Close()
	l = logrus.NewEntry(logrus.New()).WithFields(l.Data)
	l.Logger.SetOutput(io.Discard)
	l.Logger.AddHook(journal.NewHook(w, "rkt"))
	l.Log(level, text)
}

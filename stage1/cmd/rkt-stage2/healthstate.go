package main

import (
	"time"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// firstWait is the time between the first two checks of an app that starts; it
// doubles up to StartInterval, so that an app that is up soon is known to be.
const firstWait = 100 * time.Millisecond

// healthMachine is what is known of an app's health, and when to look again. It
// has no clock.
type healthMachine struct {
	h        *launch.Health
	state    string
	begun    time.Time
	quick    time.Duration // the last wait while the app starts
	failures int           // in a row
}

func newHealthMachine(h *launch.Health, now time.Time) healthMachine {
	return healthMachine{h: h, state: launch.Starting, begun: now}
}

// deadline is when an app that has not been healthy yet is given up: as if it
// had been looked at once an interval after its start period.
func (m *healthMachine) deadline() time.Time {
	return m.begun.Add(m.h.StartPeriod + time.Duration(m.h.Retries)*m.h.Interval)
}

// result takes what a check found and reports whether the app's state changed,
// or its action is due again.
func (m *healthMachine) result(now time.Time, ok bool) bool {
	if ok {
		m.failures = 0
		changed := m.state != launch.Healthy
		m.state = launch.Healthy
		return changed
	}
	m.failures++
	switch m.state {
	case launch.Starting:
		if now.Before(m.deadline()) {
			return false
		}
	case launch.Healthy:
		if m.failures < m.h.Retries {
			return false
		}
	default:
		// the action may have failed, or not helped
		if m.h.Action != launch.RestartApp || m.failures < m.h.Retries {
			return false
		}
	}
	m.state, m.failures = launch.Unhealthy, 0
	return true
}

// wait is the time until the next check.
func (m *healthMachine) wait(now time.Time) time.Duration {
	if m.state != launch.Starting {
		return m.h.Interval
	}
	m.quick = min(max(2*m.quick, firstWait), m.h.StartInterval)
	return max(min(m.quick, m.deadline().Sub(now)), 10*time.Millisecond)
}

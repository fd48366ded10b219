package podfile

import (
	"time"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/timespan"
)

// Policies of updates.
const (
	UpdateRegistry = "registry" // ask the image's source
	UpdateLocal    = "local"    // look into the store alone
	UpdateNever    = "never"
)

const updatePolicies = " registry local never "

// Update says how the pod is updated. A zero field means the default.
type Update struct {
	// Policy is "" when nothing was said: then only who asks for it by name gets
	// an update, and the timer leaves the pod alone.
	Policy string
	// Timeout is how long a new generation may take until it is ready, Settle how
	// long it has to stay so.
	Timeout time.Duration
	// Settle is nil when absent: zero is a value of its own.
	Settle *time.Duration
	// Keep is how many generations stay.
	Keep int
}

// update reads "rkt.update": a policy, or an object.
func (p *parser) update(v *jsonpos.Value, path string) {
	u := &p.pod.Rkt.Update
	if v.Kind == jsonpos.String {
		u.Policy = p.oneOf(v, path, updatePolicies)
		return
	}
	if v.Kind != jsonpos.Object {
		p.wrongType(v, path, "a policy (registry, local or never) or an object")
		return
	}
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "policy":
			u.Policy = p.oneOf(m.Value, at, updatePolicies)
		case "timeout":
			u.Timeout = p.span(m.Value, at, time.Second)
		case "settle":
			d := p.span(m.Value, at, 0)
			u.Settle = &d
		case "keep":
			n, _ := p.integer(m.Value, at, 1, 100)
			u.Keep = int(n)
		default:
			p.unknown(m, path, rktUpdateKeys)
		}
	}
}

// span reads a time span of at least least and at most a day.
func (p *parser) span(v *jsonpos.Value, path string, least time.Duration) time.Duration {
	s, ok := p.systemdValue(v, path)
	if !ok {
		return 0
	}
	d, ok := timespan.Parse(s)
	if !ok || d < least || d > 24*time.Hour {
		p.errorf(v, path, quote(s), " is no time span from ", least.String(), " to a day, like \"30s\" or \"2min\" (see systemd.time(7))")
		return 0
	}
	return d
}

// UpdatePolicy is the policy of one app: its own, else the pod's.
func (p *Pod) UpdatePolicy(app *App) string {
	if app.Update != "" {
		return app.Update
	}
	return p.Rkt.Update.Policy
}

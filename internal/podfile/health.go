package podfile

import (
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/apphealth"
	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/timespan"
)

// keepNullHealth makes "health": null, which means that there is no check even
// if the image has one, something other than an absent member.
func keepNullHealth(root *jsonpos.Value) {
	apps := root.Member("apps")
	if apps == nil {
		return
	}
	for _, app := range apps.Items {
		for i := range app.Members {
			if m := &app.Members[i]; m.Key == "health" && m.Value.Kind == jsonpos.Null {
				m.Value = &jsonpos.Value{Kind: jsonpos.Bool, Pos: m.Value.Pos}
			}
		}
	}
}

// health reads how the health of an app is found out.
func (p *parser) health(v *jsonpos.Value, path string) *apphealth.Check {
	if v.Kind == jsonpos.Bool && !v.Bool {
		return &apphealth.Check{None: true}
	}
	if v.Kind != jsonpos.Object {
		p.wrongType(v, path, "an object, or null for none")
		return nil
	}
	c := &apphealth.Check{}
	before := len(p.problems)
	for _, m := range v.Members {
		at := join(path, m.Key)
		switch m.Key {
		case "exec":
			if c.Exec, _ = p.strings(m.Value, at); len(c.Exec) == 0 {
				p.errorf(m.Value, at, "names no program")
			}
		case "http":
			if c.HTTP, _ = p.word(m.Value, at); c.HTTP != "" {
				if _, err := apphealth.ParseHTTP(c.HTTP); err != nil {
					p.errorf(m.Value, at, quote(c.HTTP), ": ", err.Error())
				}
			}
		case "tcp":
			if m.Value.Kind == jsonpos.Number {
				c.TCP = m.Value.Text
			} else {
				c.TCP, _ = p.word(m.Value, at)
			}
			if _, err := apphealth.ParseTCP(c.TCP); c.TCP != "" && err != nil {
				p.errorf(m.Value, at, quote(c.TCP), " is no PORT or ADDRESS:PORT: ", err.Error())
			}
		case "notify":
			if c.Notify, _ = p.boolean(m.Value, at); !c.Notify && m.Value.Kind == jsonpos.Bool {
				p.errorf(m.Value, at, "can only be true")
			}
		case "interval":
			c.Interval = p.healthSpan(m.Value, at, apphealth.MinTime)
		case "timeout":
			c.Timeout = p.healthSpan(m.Value, at, apphealth.MinTime)
		case "startPeriod":
			c.StartPeriod = p.healthSpan(m.Value, at, 0)
		case "startInterval":
			c.StartInterval = p.healthSpan(m.Value, at, apphealth.MinTime)
		case "retries":
			n, _ := p.integer(m.Value, at, 1, apphealth.MaxRetries)
			c.Retries = int(n)
		case "action":
			c.Action = p.oneOf(m.Value, at, " none restart-app restart-pod ")
		default:
			p.unknown(m, path, appHealthKeys)
		}
	}
	if !Failed(p.problems[before:]) {
		if msg := c.Validate(); msg != "" {
			p.errorf(v, path, msg)
		}
	}
	return c
}

// healthSpan returns a time span of systemd from lo to a day.
func (p *parser) healthSpan(v *jsonpos.Value, path string, lo time.Duration) time.Duration {
	s, ok := p.systemdValue(v, path)
	if !ok {
		return 0
	}
	d, ok := timespan.Parse(strings.TrimSpace(s))
	if !ok || d < lo || d > apphealth.MaxTime {
		p.errorf(v, path, quote(s), " is no time span from ", lo.String(), " to 24h, like \"30s\" or \"1min 30s\" (see systemd.time(7))")
		return 0
	}
	return d
}

// checkReady says so when a pod that is ready when its apps are healthy can have
// no app whose health anybody knows; images may bring their own.
func (p *parser) checkReady(v *jsonpos.Value) {
	if p.pod.Rkt.Ready != apphealth.ReadyHealthy {
		return
	}
	for _, a := range p.pod.Apps {
		if a.Health == nil || !a.Health.None {
			return
		}
	}
	p.errorf(v.Member("ready"), "rkt.ready", "is \"healthy\", and no app has a health check")
}

package podfile

import (
	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/podlog"
)

// logNamespace reads the journald of the host that takes the apps' lines.
func (p *parser) logNamespace(v *jsonpos.Value, path string) string {
	s, ok := p.word(v, path)
	if !ok {
		return ""
	}
	if msg := podlog.CheckNamespace(s); msg != "" {
		p.errorf(v, path, quote(s), ": ", msg)
		return ""
	}
	return s
}

// checkJournal refuses what cannot be had together.
func (p *parser) checkJournal(v *jsonpos.Value) {
	if o := &p.pod.Rkt; o.Journal == podlog.Guest && o.LogNamespace != "" {
		p.errorf(v.Member("logNamespace"), "rkt.logNamespace", "is one of the host's journals, and \"journal\": \"guest\" is the pod's own")
	}
}

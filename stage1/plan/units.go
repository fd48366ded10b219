package plan

import (
	"fmt"
	"path"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// unit writes the app's service. Everything the app itself sees is the
// launcher's; the unit has order, limits and outcome.
func (p *Plan) unit(joining bool, ra *schema.RuntimeApp, img *schema.ImageManifest, s *launch.Spec, limits []limit, own []appunit.Directive) error {
	u := unitfile.New("rkt stage1")
	u.Set("Unit", "Description", fmt.Sprintf("App %s (%s)", s.Name, appc.DisplayName(img)))
	u.Add("Unit", "DefaultDependencies", "no")
	if !s.Mutable {
		u.Add("Unit", "Wants", "pod.target")
		u.Add("Unit", "After", "pod.target")
	}
	if joining {
		needNetwork(u)
	}
	u.Add("Unit", "Conflicts", "shutdown.target")
	u.Add("Unit", "Before", "shutdown.target")
	switch {
	case s.Mutable: // nothing that an app does ends the pod
	case s.Restarts:
		// FailureAction= takes effect before a restart, OnFailure= when there is none.
		u.Add("Unit", "OnFailure", "gave-up@"+s.Name+".service")
	default:
		// The first app that fails ends the pod with its status.
		u.Add("Unit", "FailureAction", "exit")
	}
	keys := abi.OrderAnnotations()
	for _, key := range []string{"After", "Before", "Requires", "Wants", "BindsTo", "PartOf"} {
		v, ok := ra.Annotations.Get(keys[key])
		if !ok {
			continue
		}
		for other := range strings.SplitSeq(v, ",") {
			if _, err := types.NewACName(other); err != nil {
				return fmt.Errorf("annotation %s: %w", keys[key], err)
			}
			u.Add("Unit", key, other+".service")
		}
	}
	if s.Sockets {
		u.Add("Unit", "Requires", s.Name+".socket")
		u.Add("Unit", "After", s.Name+".socket")
	}
	if s.Out != "" {
		out := "out@" + s.Name + ".socket"
		u.Add("Unit", "Requires", out)
		u.Add("Unit", "After", out)
	}
	if s.PreStart != nil || s.PostStop != nil {
		hold := "hold@" + s.Name + ".service"
		u.Add("Unit", "Requires", hold)
		u.Add("Unit", "After", hold)
	}
	if s.GuestJournal {
		u.Add("Unit", "Requires", guestJournal)
		u.Add("Unit", "After", guestJournal)
	}
	if s.Health != nil {
		u.Add("Unit", "Wants", healthUnit(s.Name))
	}
	if s.LogPassed {
		u.Add("Service", "Sockets", logSocket(s.Name))
	}
	u.Add("Service", "Type", "notify")
	if sig := appc.Annotation(img, appc.AnnotationDockerStopSignal); sig != "" && appc.Converted(img) {
		u.Add("Service", "KillSignal", sig)
	}
	access := "main"
	if s.Notify {
		access = "all" // a script may have systemd-notify speak for it
	}
	u.Add("Service", "NotifyAccess", access)
	if s.PreStart != nil {
		u.Command("Service", "ExecStartPre", "/rkt-stage2", "handler", s.Name, "pre-start")
	}
	u.Command("Service", "ExecStart", "/rkt-stage2", "app", s.Name)
	if s.PostStop != nil {
		u.Command("Service", "ExecStopPost", "/rkt-stage2", "handler", s.Name, "post-stop")
	}
	u.Command("Service", "ExecStopPost", "/rkt-stage2", "exited", s.Name)
	u.Add("Service", "Restart", "no")
	// An app's own start may take as long as it likes; the host unit has the limit.
	u.Add("Service", "TimeoutStartSec", "infinity")
	u.Add("Service", "SyslogIdentifier", s.Name)
	streamUnits(u, s)
	for _, l := range limits {
		u.Add("Service", l.key, l.value)
	}
	for _, d := range own {
		u.Add(d.Section, d.Key, d.Value)
	}
	for i := range s.Reload {
		u.Command("Service", "ExecReload", "/rkt-stage2", "reload", s.Name, fmt.Sprint(i))
	}
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, s.Name+".service"), 0o644, b)
	return nil
}

// needNetwork has a unit wait until the pod's networks are joined.
func needNetwork(u *unitfile.File) {
	u.Add("Unit", "Requires", "network.service")
	u.Add("Unit", "After", "network.service")
}

// target is what PID 1 starts: it is reached, and the pod ready, when every
// app has started.
func (p *Plan) target(joining bool, healths []string) error {
	u := unitfile.New("rkt stage1")
	u.Add("Unit", "Description", "Pod Started")
	u.Add("Unit", "DefaultDependencies", "no")
	u.Add("Unit", "Wants", "dbus.socket supervisor-ready.service")
	u.Add("Unit", "After", "dbus.socket")
	if joining {
		needNetwork(u)
		// Without networks no app starts; that nobody needs this target then is no success.
		d := unitfile.New("rkt stage1")
		needNetwork(d)
		b, err := d.Bytes()
		if err != nil {
			return err
		}
		p.file(path.Join(podfs.UnitDir, "pod.target.d/10-rkt.conf"), 0o644, b)
	}
	for i := range p.Apps {
		start := starter(&p.Apps[i])
		u.Add("Unit", "Requires", start)
		u.Add("Unit", "After", start)
	}
	for _, h := range healths {
		u.Add("Unit", "Wants", h)
		u.Add("Unit", "After", h)
	}
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, "default.target"), 0o644, b)
	return nil
}

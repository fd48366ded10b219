package plan

import (
	"fmt"
	"path"
	"slices"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// directives takes from the pod file's directives for an app what the launcher
// has to know, and returns those that go into the app's unit.
func directives(ra *schema.RuntimeApp, s *launch.Spec) ([]appunit.Directive, error) {
	text, ok := ra.Annotations.Get(appunit.Annotation)
	if !ok {
		return nil, nil
	}
	all, err := appunit.Decode(text)
	if err != nil {
		return nil, err
	}
	var unit []appunit.Directive
	for _, d := range all {
		switch d.Key {
		case "Type":
			s.Notify = d.Value == "notify"
			continue
		case "ExecReload":
			argv, err := appunit.Command(d.Value)
			if err != nil {
				return nil, err
			}
			s.Reload = append(s.Reload, argv)
			continue
		case "ReloadSignal":
			// a program of the pod's own root, not of the image; Type=notify-reload needs systemd 253
			d = appunit.Directive{Section: "Service", Key: "ExecReload", Value: "/usr/bin/kill -" + d.Value + " $MAINPID"}
		case "Restart":
			s.Restarts = d.Value != "no"
		case "CoredumpFilter":
			s.CoreFilter = true
		case "WatchdogSec":
			s.Watchdog = true
		}
		unit = append(unit, d)
	}
	return unit, nil
}

// Listener is a socket that the host's systemd passed to the pod.
type Listener struct {
	// Protocol is tcp or udp, Address what a socket unit calls it.
	Protocol, Address string
	Port              int
}

// sockets writes the socket unit of an app whose ports are socket-activated:
// the pod's systemd finds the sockets it was passed by their addresses, gives
// them to the app, and starts the app with the first connection.
func (p *Plan) sockets(in Input, app *types.App, s *launch.Spec) error {
	u := unitfile.New("rkt stage1")
	u.Add("Unit", "Description", "Sockets of App "+s.Name)
	u.Add("Unit", "DefaultDependencies", "no")
	u.Add("Unit", "Conflicts", "shutdown.target")
	u.Add("Unit", "Before", "shutdown.target")
	for _, port := range app.Ports {
		if !port.SocketActivated {
			continue
		}
		s.Sockets = true
		key := map[string]string{"tcp": "ListenStream", "udp": "ListenDatagram"}[port.Protocol]
		if key == "" {
			return fmt.Errorf("port %q: sockets of protocol %q cannot be passed to an app, only tcp and udp", port.Name, port.Protocol)
		}
		number := int(port.Port)
		exposed := false
		for _, e := range in.Pod.Ports {
			if e.Name == port.Name {
				number, exposed = int(e.HostPort), true
			}
		}
		found := false
		for _, l := range in.Facts.Listeners {
			if l.Protocol == port.Protocol && l.Port == number {
				u.Add("Socket", key, l.Address)
				p.taken = append(p.taken, l)
				found = true
			}
		}
		switch {
		case !found:
			p.warn("app %q: no socket for port %q (%d/%s) was passed to rkt; the pod listens by itself, in its own network", s.Name, port.Name, number, port.Protocol)
			u.Add("Socket", key, fmt.Sprint(number))
		case !exposed:
			p.warn("app %q: port %q has no port of the host; the socket that listens on its own number %d is taken", s.Name, port.Name, number)
		}
	}
	if !s.Sockets {
		return nil
	}
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, s.Name+".socket"), 0o644, b)
	p.adopters = append(p.adopters, s.Name+".socket")
	return nil
}

// unclaimed warns of sockets that were passed and that no app takes: whoever
// connects to them waits in vain.
func (p *Plan) unclaimed(in Input) {
	for _, l := range in.Facts.Listeners {
		if !slices.ContainsFunc(p.taken, func(t Listener) bool { return t.Protocol == l.Protocol && t.Address == l.Address }) {
			p.warn("nobody takes the socket %s/%s that was passed to rkt: no app has a port with that number of the host and \"socketActivated\"", l.Address, l.Protocol)
		}
	}
}

// adopt has the socket units loaded when PID 1 begins. It hands out the sockets
// that it was passed before it looks at its first job, to units that are loaded
// by then: the root slice always is, and names them.
func (p *Plan) adopt() error {
	if len(p.adopters) == 0 {
		return nil
	}
	u := unitfile.New("rkt stage1")
	for _, unit := range p.adopters {
		u.Add("Unit", "PropagatesReloadTo", unit)
	}
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, "-.slice.d", "10-rkt.conf"), 0o644, b)
	return nil
}

// starter is the unit that makes an app start with the pod.
func starter(s *launch.Spec) string {
	if s.Sockets {
		return s.Name + ".socket"
	}
	return s.Name + ".service"
}

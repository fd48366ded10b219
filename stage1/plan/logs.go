package plan

import (
	"path"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/podlog"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// Log is a stream to the journal for an app. journald believes the unit that
// opens a stream only if it is root on the host, and without it cannot file
// the lines of processes that are gone when it reads them. So in a pod with
// private users the host's side opens the stream and leaves it, as a message
// that is never taken, in a datagram socket; systemd finds this among those
// that nspawn passes by its abstract Address, and passes it to the app, whose
// launcher looks at the message (launch.OpenJournal).
type Log struct {
	App, Unit, Address string
	// Sockets is the directory of journald's.
	Sockets string
}

// logService is started by the streams in the sockets.
const logService = "log.service"

func logSocket(app string) string { return "log@" + app + ".socket" }

func (p *Plan) logs(in Input) error {
	switch {
	case in.Facts.IDs.Count == 0 || GuestJournal(in.Pod):
		return nil
	case in.Run.Mutable:
		return p.logService("log@.service") // for the apps that come later
	}
	for _, s := range p.Apps {
		if err := p.log(&s, "@rkt-log/"+in.Run.UUID+"/"+s.Name, logService); err != nil {
			return err
		}
		p.adopters = append(p.adopters, logSocket(s.Name))
	}
	return p.logService(logService)
}

// LogDir has the sockets for the streams of apps that were added to a running
// pod: systemd makes them, and the host's side sends the streams.
const LogDir = "/run/rkt/log"

// lateLogs does so for the apps that are added. Each has a service of its own:
// systemd starts no socket of a service that runs already.
func (p *Plan) lateLogs(in Input) error {
	if in.Facts.IDs.Count == 0 {
		return nil
	}
	for i := range p.Apps {
		if err := p.log(&p.Apps[i], path.Join(LogDir, p.Apps[i].Name), "log@"+p.Apps[i].Name+".service"); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) log(s *launch.Spec, address, service string) error {
	p.Logs = append(p.Logs, Log{App: s.Name, Unit: s.LogUnit, Address: address, Sockets: podlog.Sockets(p.logNamespace)})
	u := unitfile.New("rkt stage1")
	u.Add("Unit", "Description", "Journal Stream of App "+s.Name)
	u.Add("Unit", "DefaultDependencies", "no")
	u.Add("Socket", "ListenDatagram", address)
	u.Add("Socket", "FileDescriptorName", launch.LogSocketName)
	// the message makes systemd start something: a service that does nothing and stays
	u.Add("Socket", "Service", service)
	u.Add("Socket", "TriggerLimitIntervalSec", "0")
	if !strings.HasPrefix(address, "@") {
		u.Add("Socket", "SocketMode", "0600")
		u.Add("Socket", "RemoveOnStop", "yes")
	}
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, logSocket(s.Name)), 0o644, b)
	return nil
}

func (p *Plan) logService(name string) error {
	u := unitfile.New("rkt stage1")
	u.Add("Unit", "Description", "Journal Streams")
	u.Add("Unit", "DefaultDependencies", "no")
	u.Add("Service", "Type", "oneshot")
	u.Add("Service", "RemainAfterExit", "yes")
	u.Add("Service", "ExecStop", "/rkt-stage2") // never stopped; systemd wants one command at least
	b, err := u.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, name), 0o644, b)
	return nil
}

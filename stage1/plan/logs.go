package plan

import (
	"path"

	"github.com/rkt-systemd/rkt/internal/podfs"
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
}

func logSocket(app string) string { return "log@" + app + ".socket" }

func (p *Plan) logs(in Input) error {
	if in.Facts.IDs.Count == 0 || in.Run.Mutable {
		return nil // apps that come later cannot be passed anything
	}
	// sockets are given to units that are loaded when PID 1 begins: the root slice is, and names them
	slice := unitfile.New("rkt stage1")
	for _, s := range p.Apps {
		l := Log{App: s.Name, Unit: s.LogUnit, Address: "@rkt-log/" + in.Run.UUID + "/" + s.Name}
		p.Logs = append(p.Logs, l)
		u := unitfile.New("rkt stage1")
		u.Add("Unit", "Description", "Journal Stream of App "+s.Name)
		u.Add("Unit", "DefaultDependencies", "no")
		u.Add("Socket", "ListenDatagram", l.Address)
		u.Add("Socket", "FileDescriptorName", launch.LogSocketName)
		// the message makes systemd start something: a service that does nothing and stays
		u.Add("Socket", "Service", "log.service")
		u.Add("Socket", "TriggerLimitIntervalSec", "0")
		b, err := u.Bytes()
		if err != nil {
			return err
		}
		p.file(path.Join(podfs.UnitDir, logSocket(s.Name)), 0o644, b)
		slice.Add("Unit", "PropagatesReloadTo", logSocket(s.Name))
	}
	b, err := slice.Bytes()
	if err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, "-.slice.d", "10-rkt.conf"), 0o644, b)
	u := unitfile.New("rkt stage1")
	u.Add("Unit", "Description", "Journal Streams")
	u.Add("Unit", "DefaultDependencies", "no")
	u.Add("Service", "Type", "oneshot")
	u.Add("Service", "RemainAfterExit", "yes")
	u.Add("Service", "ExecStop", "/rkt-stage2") // never stopped; systemd wants one command at least
	if b, err = u.Bytes(); err != nil {
		return err
	}
	p.file(path.Join(podfs.UnitDir, "log.service"), 0o644, b)
	return nil
}

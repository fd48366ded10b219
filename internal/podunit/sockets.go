package podunit

import (
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/unitfile"
)

const socketsTarget = "sockets.target.wants/"

// sockets makes the units that wait for connections: that of the pod's socket
// section, and two for every port that is activated.
func sockets(p *podfile.Pod, opts Options) (Output, error) {
	var out Output
	add := func(name string, u *unitfile.File) error {
		data, err := u.Bytes()
		if err != nil {
			return err
		}
		out.Files = append(out.Files, File{Path: name, Data: data})
		if strings.HasSuffix(name, ".socket") {
			out.Links = append(out.Links, Link{socketsTarget + name, "../" + name})
		}
		return nil
	}
	if len(p.Socket) > 0 {
		u := begin(p, "Sockets of Pod "+p.Name)
		u.Set("Socket", "Service", p.UnitName())
		addDirectives(u, "Socket", p.Socket)
		if err := add(p.SocketName(), u); err != nil {
			return out, err
		}
	}
	for i := range p.Ports {
		port := &p.Ports[i]
		if !port.Activate {
			continue
		}
		name := podfile.ProxyUnit(p.Name, port.Name)
		if err := add(name+".socket", proxySocket(p, port)); err != nil {
			return out, err
		}
		if err := add(name+".service", proxyService(p, port, name, opts)); err != nil {
			return out, err
		}
	}
	return out, nil
}

// begin makes a unit of its own for the pod.
func begin(p *podfile.Pod, description string) *unitfile.File {
	u := unitfile.New(generator + " from " + strings.Join(p.Files, ", "))
	u.Set("Unit", "Description", description)
	u.Add("Unit", "Documentation", "man:rkt.pod(5)")
	if len(p.Files) > 0 {
		u.Set("Unit", "SourcePath", p.Files[0])
	}
	return u
}

func proxySocket(p *podfile.Pod, port *podfile.Port) *unitfile.File {
	u := begin(p, "Port "+port.Name+" of Pod "+p.Name)
	number := strconv.Itoa(int(port.HostPort))
	switch ip := port.HostIP; {
	case ip == "":
		u.Add("Socket", "ListenStream", number)
	case strings.Contains(ip, ":"):
		u.Set("Socket", "ListenStream", "["+ip+"]:"+number)
	default:
		u.Set("Socket", "ListenStream", ip+":"+number)
	}
	if port.HostIP != "" {
		// sockets are there before the network is
		u.Add("Socket", "FreeBind", "yes")
	}
	return u
}

func proxyService(p *podfile.Pod, port *podfile.Port, name string, opts Options) *unitfile.File {
	pod := p.UnitName()
	u := begin(p, "Proxy to Port "+port.Name+" of Pod "+p.Name)
	// Wants=, not Requires=: of a pod that cannot start the proxy tells the
	// client, who would otherwise wait while systemd tries for ever.
	u.Set("Unit", "Wants", pod)
	u.Set("Unit", "After", name+".socket "+pod)
	// The proxy holds the listening socket, too, and the pod's namespace.
	u.Set("Unit", "Requires", name+".socket")
	u.Set("Unit", "PartOf", pod)
	u.Set("Unit", "StopPropagatedFrom", pod)
	// The socket and the pod have limits; each start here was a connection.
	u.Add("Unit", "StartLimitIntervalSec", "0")
	u.Add("Service", "Type", "notify")
	args := []string{"pod", "proxy", p.Name, port.Name}
	if port.IdleTime != "" {
		args = append(args[:2:2], append([]string{"--idle-time=" + port.IdleTime}, args[2:]...)...)
	}
	u.Command("Service", "ExecStart", opts.rkt(), args...)
	// As long as that of the pod: its app may be slow to listen.
	u.Add("Service", "TimeoutStartSec", "5min")
	slice := "machine.slice"
	for _, d := range p.Service {
		if d.Key == "Slice" && len(d.Values) > 0 && d.Values[len(d.Values)-1] != "" && !strings.Contains(d.Values[len(d.Values)-1], "%") {
			slice = d.Values[len(d.Values)-1]
		}
	}
	u.Add("Service", "Slice", slice)
	u.Add("Service", "SyslogIdentifier", "rkt")
	u.Set("Service", "LogExtraFields", "RKT_POD_NAME="+p.Name)
	// What it takes to enter a network namespace and to become nobody.
	u.Add("Service", "CapabilityBoundingSet", "CAP_SYS_ADMIN CAP_SETUID CAP_SETGID")
	for _, kv := range [][2]string{{"NoNewPrivileges", "yes"}, {"RestrictNamespaces", "net"}, {"RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"},
		{"SystemCallArchitectures", "native"}, {"MemoryDenyWriteExecute", "yes"}, {"LockPersonality", "yes"}, {"RestrictRealtime", "yes"}, {"RestrictSUIDSGID", "yes"}} {
		u.Add("Service", kv[0], kv[1])
	}
	return u
}

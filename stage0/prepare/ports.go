package prepare

import (
	"fmt"
	"net"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
)

// AppPort changes a port of the image, or adds one. A zero or nil field stays.
type AppPort struct {
	Name            string
	Port, Count     uint
	Protocol        string
	SocketActivated *bool
}

// layPorts lays ports over those of an image, by name.
func layPorts(base []types.Port, over []AppPort) ([]types.Port, error) {
	out := append([]types.Port(nil), base...)
	for _, o := range over {
		name, err := types.NewACName(o.Name)
		if err != nil {
			return nil, fmt.Errorf("port %q: %w", o.Name, err)
		}
		var p *types.Port
		for i := range out {
			if out[i].Name == *name {
				p = &out[i]
			}
		}
		if p == nil {
			if o.Port == 0 {
				return nil, fmt.Errorf("port %q: the image has no port of this name; say its \"port\"", o.Name)
			}
			out = append(out, types.Port{Name: *name, Protocol: "tcp", Count: 1})
			p = &out[len(out)-1]
		}
		if o.Port != 0 {
			p.Port = o.Port
		}
		if o.Count != 0 {
			p.Count = o.Count
		}
		if o.Protocol != "" {
			p.Protocol = o.Protocol
		}
		if o.SocketActivated != nil {
			p.SocketActivated = *o.SocketActivated
		}
	}
	return out, nil
}

// activated says which port of the pod each activated port leads to, and
// refuses what a proxy cannot do.
func (p *PodSpec) activated(m *schema.PodManifest) ([]types.ExposedPort, error) {
	var out []types.ExposedPort
	for _, e := range p.Activated {
		if e.PodPort == nil {
			pp, err := appc.PodPort(m, e.Name, func(ra *schema.RuntimeApp) *types.App { return ra.App })
			if err != nil {
				return nil, err
			}
			e.PodPort = &pp
		}
		switch pp := e.PodPort; {
		case pp.Protocol != "tcp":
			return nil, fmt.Errorf("port %q: \"activate\" is for tcp only, not for %s: without connections nobody can tell who is answered", e.Name, pp.Protocol)
		case pp.SocketActivated:
			return nil, fmt.Errorf("port %q: its app takes sockets from systemd (socketActivated) and needs no proxy; leave out \"activate\" and write a \"systemd\": {\"socket\": …}", e.Name)
		case p.HostNetwork && pp.Port == e.HostPort:
			return nil, fmt.Errorf("port %q: with the host's network the app itself listens on %d; \"hostPort\" must be another", e.Name, e.HostPort)
		}
		for _, f := range m.Ports {
			pp := f.PodPort
			if pp == nil {
				found, err := appc.PodPort(m, f.Name, func(ra *schema.RuntimeApp) *types.App { return ra.App })
				if err != nil {
					continue // stage1 says so
				}
				pp = &found
			}
			if pp.Protocol == "tcp" && f.HostPort == e.HostPort && overlap(f.HostIP, e.HostIP) {
				return nil, fmt.Errorf("port %q: %d of the host is forwarded to port %q already", e.Name, e.HostPort, f.Name)
			}
		}
		out = append(out, e)
	}
	return out, nil
}

func overlap(a, b net.IP) bool {
	return a == nil || b == nil || a.IsUnspecified() || b.IsUnspecified() || a.Equal(b)
}

// annotateActivated records the activated ports in the manifest.
func (p *PodSpec) annotateActivated(m *schema.PodManifest) error {
	ports, err := p.activated(m)
	if err != nil || len(ports) == 0 {
		return err
	}
	text, err := abi.FormatActivatedPorts(ports)
	if err != nil {
		return err
	}
	m.Annotations.Set(abi.AnnotationActivatedPorts, text)
	return nil
}

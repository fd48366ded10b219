package cli

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// parsePort reads NAME:[HOSTIP:]HOSTPORT.
func parsePort(s string) (types.ExposedPort, error) {
	var p types.ExposedPort
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return p, fmt.Errorf("%q is not in name:[ip:]port format", s)
	}
	name, err := types.NewACName(parts[0])
	if err != nil {
		return p, fmt.Errorf("%q is not a valid port name", parts[0])
	}
	p.Name = *name
	if len(parts) == 3 {
		if p.HostIP = net.ParseIP(parts[1]); p.HostIP == nil {
			return p, fmt.Errorf("%q is not a valid IP", parts[1])
		}
	}
	n, err := strconv.ParseUint(parts[len(parts)-1], 10, 16)
	if err != nil || n == 0 {
		return p, fmt.Errorf("%q is not a valid port number", parts[len(parts)-1])
	}
	p.HostPort = uint(n)
	return p, nil
}

// portJSON is a port of the host that leads to a pod.
type portJSON struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	// HostIP is empty for all addresses of the host, PodIP when the pod has none
	// or shares the host's.
	HostIP   string `json:"host_ip,omitempty"`
	HostPort uint   `json:"host_port"`
	PodIP    string `json:"pod_ip,omitempty"`
	PodIP6   string `json:"pod_ip6,omitempty"`
	PodPort  uint   `json:"pod_port"`
	// SocketActivated ports are sockets that the app takes, Activated ones have
	// a proxy, all others are forwarded.
	SocketActivated bool `json:"socket_activated,omitempty"`
	Activated       bool `json:"activated,omitempty"`
}

// String is the port in rkt status: NAME PROTO HOSTIP:HOSTPORT -> PODIP:PODPORT.
func (p portJSON) String() string {
	join := func(ip, none string, port uint) string {
		if ip == "" {
			return none + ":" + strconv.Itoa(int(port))
		}
		return net.JoinHostPort(ip, strconv.Itoa(int(port)))
	}
	pod := p.PodIP
	if host := net.ParseIP(p.HostIP); pod == "" || p.PodIP6 != "" && host != nil && host.To4() == nil {
		pod = p.PodIP6
	}
	s := p.Name + " " + p.Protocol + " " + join(p.HostIP, "*", p.HostPort) + " -> "
	switch {
	case p.SocketActivated:
		return s + "socket"
	case p.Activated:
		return s + join(pod, "", p.PodPort) + " activated"
	}
	return s + join(pod, "", p.PodPort)
}

// portsOf are the ports of the host that lead to a pod. Ports that cannot be
// are left out: stage1 refused the pod for them.
func portsOf(m *schema.PodManifest, nets []podfs.Network) []portJSON {
	var out []portJSON
	section := func(ra *schema.RuntimeApp) *types.App { return ra.App }
	add := func(e types.ExposedPort, activated bool) {
		pp := e.PodPort
		if pp == nil {
			found, err := appc.PodPort(m, e.Name, section)
			if err != nil {
				return
			}
			pp = &found
		}
		p := portJSON{Name: e.Name.String(), Protocol: pp.Protocol, HostPort: e.HostPort, PodPort: pp.Port, Activated: activated, SocketActivated: pp.SocketActivated}
		if e.HostIP != nil && !e.HostIP.IsUnspecified() {
			p.HostIP = e.HostIP.String()
		}
		for _, n := range nets {
			if n.Forwards && !activated && !pp.SocketActivated {
				p.PodIP, p.PodIP6 = n.IP, n.IP6
			}
		}
		out = append(out, p)
	}
	for _, e := range m.Ports {
		add(e, false)
	}
	text, _ := m.Annotations.Get(abi.AnnotationActivatedPorts)
	activated, err := abi.ParseActivatedPorts(text)
	if err != nil {
		return out
	}
	for _, e := range activated {
		add(e, true)
	}
	return out
}

package compose

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// network chooses the pod's networks and what its names are.
func (s *service) network() {
	c, r := s.conf, s.file.Rkt
	if s.first {
		r.Net = s.joined()
		if c.Hostname != "" || !slices.Equal(r.Net, []string{"host"}) {
			r.Hostname = s.c.hostname(s.name)
		}
		if c.Hostname != "" && r.Hostname != c.Hostname {
			s.note(podimport.Changed, "hostname", "%q is no host name; the pod is called %q", c.Hostname, r.Hostname)
		}
		r.HostsEntries = append(r.HostsEntries, s.c.entries(s.name)...)
		s.forwarded()
	} else {
		if c.Hostname != "" {
			s.note(podimport.Dropped, "hostname", "the pod is called as the service says whose network this one shares")
		}
		if c.MacAddress != "" {
			s.note(podimport.Dropped, "mac_address", "the network is that of another service")
		}
	}
	r.DNS = union(r.DNS, c.DNS)
	r.DNSSearch = union(r.DNSSearch, c.DNSSearch)
	r.DNSOptions = union(r.DNSOptions, c.DNSOpts)
	if s.name != s.services[len(s.services)-1] || slices.Equal(r.Net, []string{"none"}) {
		return
	}
	// networks of rkt name no servers, unlike Docker's
	switch plain := len(r.DNSSearch)+len(r.DNSOptions) == 0 && r.DNSDomain == ""; {
	case len(r.DNS) > 0:
	case plain:
		r.DNS = []string{"host"}
		s.c.once("dns", podimport.Changed, "services."+s.name, "pods have the host's resolv.conf (rkt.dns is \"host\"); if that names a server on 127.0.0.53, which pods do not reach, give rkt.dns the address of another")
	default:
		s.note(podimport.Todo, "dns", "search domains and options need name servers: write their addresses into rkt.dns")
	}
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// joined is the pod's list of networks.
func (s *service) joined() []string {
	c := s.conf
	switch mode := c.NetworkMode; {
	case mode == "host", mode == "none":
		return []string{mode}
	case mode == "bridge" || mode == "default":
		return nil
	case strings.HasPrefix(mode, types.ServicePrefix):
		s.note(podimport.Dropped, "network_mode", "%q goes round in a circle; the pod has the default network", mode)
		return nil
	case mode != "":
		s.note(podimport.Todo, "network_mode", "%q is no service of this project: make the app part of that pod, or give the pod a network; it has the default one", mode)
		return nil
	}
	var out []string
	for _, key := range sortedKeys(c.Networks) {
		n, conf := s.c.nets[key], c.Networks[key]
		switch n.special {
		case "host", "none":
			if len(c.Networks) > 1 {
				s.note(podimport.Dropped, "networks", "%q cannot be joined with others; the others are left out", n.special)
			}
			return []string{n.special}
		case "default":
			out = append(out, "default")
			continue
		}
		name := n.name
		if n.second[s.name] {
			name = n.secondName()
		}
		out = append(out, name+s.args(n, conf, len(c.Networks) == 1))
		s.endpointNotes(key, conf)
	}
	return out
}

// args are the arguments of a network for this pod.
func (s *service) args(n *network, conf *types.ServiceNetworkConfig, only bool) string {
	var args []string
	pod := s.unit.name
	if a := n.addr[pod]; a.IsValid() {
		args = append(args, "IP="+a.String())
	} else if conf != nil && conf.Ipv4Address != "" {
		if a, err := netip.ParseAddr(conf.Ipv4Address); err == nil && a.Is4() {
			args = append(args, "IP="+a.String())
		} else {
			s.note(podimport.Dropped, "networks."+n.key+".ipv4_address", "%q is no address", conf.Ipv4Address)
		}
	}
	mac := ""
	if conf != nil {
		mac = conf.MacAddress
	}
	// Neighbours remember who has an address: a pod that comes back to it comes
	// with the same one of the link, as in Docker.
	if a := n.addr[pod]; mac == "" && a.Is4() && (!only || s.conf.MacAddress == "") {
		b := a.As4()
		mac = fmt.Sprintf("02-42-%02x-%02x-%02x-%02x", b[0], b[1], b[2], b[3])
	}
	if mac == "" && only {
		mac = s.conf.MacAddress
	} else if s.conf.MacAddress != "" && !only {
		s.c.once("mac "+s.name, podimport.Dropped, "services."+s.name+".mac_address", "the pod has several networks: write mac_address of each")
	}
	if mac != "" {
		if ok := strings.Trim(mac, "0123456789abcdefABCDEF:-") == "" && len(mac) == 17; ok {
			args = append(args, "MAC="+strings.ReplaceAll(mac, ":", "-"))
		} else {
			s.note(podimport.Dropped, "mac_address", "%q is no such address", mac)
		}
	}
	if len(args) == 0 {
		return ""
	}
	return ":" + strings.Join(args, ";")
}

func (s *service) endpointNotes(key string, conf *types.ServiceNetworkConfig) {
	if conf == nil {
		return
	}
	at := "networks." + key
	if conf.Ipv6Address != "" {
		s.note(podimport.Dropped, at+".ipv6_address", "the pod's IPv6 address is given out by the network")
	}
	if len(conf.LinkLocalIPs) > 0 {
		s.note(podimport.Dropped, at+".link_local_ips", "not known to rkt's networks")
	}
	if len(conf.DriverOpts) > 0 {
		s.note(podimport.Dropped, at+".driver_opts", "Docker's own")
	}
	if conf.InterfaceName != "" {
		s.note(podimport.Dropped, at+".interface_name", "interfaces are eth0, eth1 …, in the order of the networks' files")
	}
	if conf.Priority != 0 {
		s.note(podimport.Dropped, at+".priority", "networks are joined in the order of their files' names: rename the files below /etc/rkt/net.d")
	}
	if conf.GatewayPriority != 0 && len(s.conf.Networks) == 1 {
		s.note(podimport.Changed, at+".gw_priority", "it has one network")
	}
	if conf.UseServiceNameAlias != nil && !*conf.UseServiceNameAlias {
		s.note(podimport.Changed, at+".use_service_name_alias", "pods of the network find it by its host name and the pod's name all the same")
	}
	if n := s.c.nets[key]; len(conf.Aliases) > 0 && !n.own {
		s.note(podimport.Dropped, at+".aliases", "the network is not of this project, and names in it are host names and pods' names")
	}
}

// forwarded looks at ports of networks from which nothing is forwarded.
func (s *service) forwarded() {
	if len(s.conf.Ports) == 0 {
		return
	}
	inside := len(s.conf.Networks) > 0
	for key := range s.conf.Networks {
		if n := s.c.nets[key]; n == nil || !n.internal {
			inside = false
		}
	}
	if inside {
		s.note(podimport.Changed, "ports", "the networks are internal; rkt forwards the ports all the same, from the host and for it")
	}
}

// publish declares ports of the app, and forwards those of the host to them.
func (s *service) publish() error {
	if len(s.conf.Ports) > maxPorts {
		return fmt.Errorf("%d ports are more than %d", len(s.conf.Ports), maxPorts)
	}
	mode := s.conf.NetworkMode
	if mode == "host" || mode == "none" {
		s.note(podimport.Changed, "ports", "nothing is forwarded with the network %q", mode)
		return nil
	}
	if s.replica > 0 {
		s.c.quiet = false
		s.c.once("replica "+s.name, podimport.Dropped, "services."+s.name+".ports", "only the first replica has them: a port of the host leads to one pod")
		s.c.quiet = true
		return nil
	}
	for i, p := range s.conf.Ports {
		proto := p.Protocol
		if proto == "" {
			proto = "tcp"
		}
		if p.Target == 0 || p.Target > 65535 || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
			return fmt.Errorf("%d/%s is no port", p.Target, p.Protocol)
		}
		key := "ports"
		name := s.port(p.Name, p.Target, proto, i)
		out := map[string]any{"name": name}
		first, _, isRange := strings.Cut(p.Published, "-")
		n, err := strconv.ParseUint(first, 10, 16)
		switch {
		case p.Published == "" || p.Published == "0":
			s.note(podimport.Todo, key, "%d/%s: Docker chooses a port of the host; choose one, and write it into ports: {\"name\": %q, \"hostPort\": …}", p.Target, proto, name)
			continue
		case err != nil || n == 0:
			return fmt.Errorf("%q is no port of the host", p.Published)
		case isRange:
			s.note(podimport.Changed, key, "of the ports %s that Docker would choose from it is %d", p.Published, n)
		}
		out["hostPort"] = n
		if p.HostIP != "" && p.HostIP != "0.0.0.0" {
			a, err := netip.ParseAddr(p.HostIP)
			switch {
			case err != nil:
				return fmt.Errorf("%q is no address of the host", p.HostIP)
			case a == netip.IPv6Loopback():
				s.note(podimport.Dropped, key, "%d: nothing can be forwarded from [::1]; use 127.0.0.1", n)
				continue
			}
			out["hostIP"] = p.HostIP
		}
		if p.Mode != "" && p.Mode != "ingress" && p.Mode != "host" {
			s.note(podimport.Dropped, key, "%q is no mode of a port", p.Mode)
		} else if p.Mode == "host" {
			s.note(podimport.Changed, key, "a port is always that of this host")
		}
		if p.AppProtocol != "" {
			s.note(podimport.Dropped, key, "app_protocol %q is a hint for others; nobody reads it here", p.AppProtocol)
		}
		s.file.Ports = append(s.file.Ports, out)
	}
	return nil
}

// port declares a port of the app under a name that the pod does not have yet.
func (s *service) port(want string, number uint32, proto string, i int) string {
	name := strconv.Itoa(int(number)) + "-" + proto
	if want != "" {
		name = podimport.ACName(want)
	}
	if s.ports[name] {
		name += "-" + podimport.ACName(s.name) + "-" + strconv.Itoa(i)
	}
	s.ports[name] = true
	s.app.Ports = append(s.app.Ports, podjson.AppPort{Name: name, Port: uint(number), Protocol: proto})
	return name
}

// expose declares ports; between pods of a network all are open.
func (s *service) expose() error {
	for i, e := range s.conf.Expose {
		num, proto, ok := strings.Cut(e, "/")
		if !ok {
			proto = "tcp"
		}
		n, err := strconv.ParseUint(num, 10, 16)
		if err != nil || n == 0 {
			s.note(podimport.Dropped, "expose", "%q: between pods of a network all ports are open", e)
			continue
		}
		if !slices.ContainsFunc(s.app.Ports, func(p podjson.AppPort) bool { return p.Port == uint(n) && p.Protocol == proto }) && len(s.app.Ports) < maxPorts {
			s.port("", uint32(n), proto, i)
		}
	}
	return nil
}

func (s *service) extraHosts() error {
	for _, host := range sortedKeys(s.conf.ExtraHosts) {
		for _, ip := range s.conf.ExtraHosts[host] {
			if ip == "host-gateway" {
				if ip = s.gateway(); ip == "" {
					s.note(podimport.Todo, "extra_hosts", "%s: write the host's address into rkt.hostsEntries", host)
					continue
				}
			}
			if _, err := netip.ParseAddr(ip); err != nil || host == "" || strings.ContainsAny(host, " \t#;,=") {
				s.note(podimport.Dropped, "extra_hosts", "%s=%s is no entry of a hosts file", host, ip)
				continue
			}
			s.file.Rkt.HostsEntries = union(s.file.Rkt.HostsEntries, []string{ip + "=" + host})
		}
	}
	return nil
}

// gateway is the host as the pod sees it.
func (s *service) gateway() string {
	conf := s.c.p.Services[s.services[0]]
	if conf.NetworkMode == "host" {
		return "127.0.0.1"
	}
	for _, key := range sortedKeys(conf.Networks) {
		if n := s.c.nets[key]; n != nil && n.own {
			return n.gateway.String()
		}
	}
	return ""
}

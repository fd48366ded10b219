package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/rkt-systemd/rkt/internal/hostnat"
)

// natType is the type of rkt's own plugin in a network's list. It ends a list:
// it masquerades what leaves the network ("ipMasq") and forwards ports
// (capability "portMappings"), by one transaction of nft.
const natType = "rkt-nat"

// nat is that plugin.
type nat struct {
	store *hostnat.Store
	// links finds the host's interface that has an address, among these names if there are any.
	links func(names []string, addr netip.Addr) (string, error)
}

func newNAT() *nat { return &nat{store: hostnat.Host(), links: interfaceWith} }

// interfaceWith finds a link by its address.
func interfaceWith(names []string, addr netip.Addr) (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("listing the host's interfaces: %w", err)
	}
	for _, l := range links {
		if len(names) > 0 && !slices.Contains(names, l.Name) {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
				return l.Name, nil
			}
		}
	}
	return "", nil
}

type natConf struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	IPMasq        bool            `json:"ipMasq"`
	Filter        bool            `json:"filter"`
	OnlyFilter    bool            `json:"onlyFilter"`
	PrevResult    json.RawMessage `json:"prevResult"`
	RuntimeConfig struct {
		PortMappings []struct {
			HostPort      int    `json:"hostPort"`
			ContainerPort int    `json:"containerPort"`
			Protocol      string `json:"protocol"`
			HostIP        string `json:"hostIP"`
		} `json:"portMappings"`
	} `json:"runtimeConfig"`
}

// plugin is what libcni takes for the run of a plugin.
func (n *nat) plugin(ctx context.Context, command, id, ifName string, stdin []byte) ([]byte, error) {
	if id == "" || ifName == "" || strings.ContainsAny(id+ifName, "/\x00") {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("the attachment %q %q has no usable name", id, ifName), "")
	}
	var err error
	switch command {
	case "ADD":
		var c natConf
		if err := json.Unmarshal(stdin, &c); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, err.Error(), "")
		}
		if len(c.PrevResult) == 0 {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, natType+" must come after a plugin that gives addresses", "")
		}
		var r hostnat.Record
		if r, err = n.record(c, id, ifName); err == nil && !r.Empty() {
			err = n.store.Add(ctx, r)
		}
		if err == nil {
			return c.PrevResult, nil
		}
	case "DEL":
		err = n.store.Del(ctx, id, ifName)
	case "CHECK":
	default:
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("command %q is not known", command), "")
	}
	return nil, err
}

// record is what the pod wants, from the configuration and what the plugins
// before gave.
func (n *nat) record(c natConf, id, ifName string) (hostnat.Record, error) {
	r := hostnat.Record{ID: id, IfName: ifName, Network: c.Name}
	if c.CNIVersion == "" {
		c.CNIVersion = "0.1.0"
	}
	prev, err := create.Create(c.CNIVersion, c.PrevResult)
	if err != nil {
		return r, fmt.Errorf("reading the result of the plugins before: %w", err)
	}
	res, err := current.NewResultFromResult(prev)
	if err != nil {
		return r, fmt.Errorf("reading the result of the plugins before: %w", err)
	}
	pod := podAddresses(res)
	if c.IPMasq {
		for _, a := range pod {
			r.Leaving = append(r.Leaving, a.prefix)
		}
	}
	for _, m := range c.RuntimeConfig.PortMappings {
		fs, err := forwards(m.HostIP, m.Protocol, m.HostPort, m.ContainerPort, pod)
		if err != nil {
			return r, err
		}
		r.Forwards = append(r.Forwards, fs...)
	}
	if c.OnlyFilter {
		r.OnlyFilter = true
	}
	r.Filter = c.Filter && len(r.Forwards) > 0
	if r.OnlyFilter {
		if !r.Filter {
			r.Forwards = nil
		}
		return r, r.Check()
	}
	if i := slices.IndexFunc(r.Forwards, func(f hostnat.Forward) bool { return f.Pod.Addr().Is4() }); i >= 0 {
		if r.Localnet, err = n.localnet(res, pod, r.Forwards[i].Pod); err != nil {
			return r, err
		}
	}
	return r, r.Check()
}

type podAddress struct {
	prefix  netip.Prefix
	gateway netip.Addr
}

// podAddresses are those of the pod's own interfaces.
func podAddresses(res *current.Result) []podAddress {
	var out []podAddress
	for _, ip := range res.IPs {
		if ip == nil {
			continue
		}
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(res.Interfaces) && res.Interfaces[*i].Sandbox == "" {
			continue // the host's
		}
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		ones, bits := ip.Address.Mask.Size()
		if a = a.Unmap(); !ok || bits == 0 || ones > a.BitLen() {
			continue
		}
		if bits > a.BitLen() { // an IPv4 address with a mask of 128 bits
			ones -= bits - a.BitLen()
		}
		gw, _ := netip.AddrFromSlice(ip.Gateway)
		if p := netip.PrefixFrom(a, ones); p.IsValid() {
			out = append(out, podAddress{p, gw.Unmap()})
		}
	}
	return out
}

// forwards are the ways to one port of the pod.
func forwards(hostIP, protocol string, hostPort, podPort int, pod []podAddress) ([]hostnat.Forward, error) {
	if hostPort < 1 || hostPort > 65535 || podPort < 1 || podPort > 65535 {
		return nil, fmt.Errorf("port %d to %d: a port is a number from 1 to 65535", hostPort, podPort)
	}
	var host netip.Addr
	if hostIP != "" {
		var err error
		if host, err = netip.ParseAddr(hostIP); err != nil {
			return nil, fmt.Errorf("port %d: %q is no IP address", hostPort, hostIP)
		}
		host = host.Unmap()
	}
	f := hostnat.Forward{HostPort: uint16(hostPort), PodPort: uint16(podPort), Protocol: strings.ToLower(protocol)}
	if host.IsValid() && !host.IsUnspecified() {
		f.HostIP = host
	}
	var out []hostnat.Forward
	for _, v4 := range []bool{true, false} {
		if host.IsValid() && host.Is4() != v4 {
			continue
		}
		for _, a := range pod {
			if a.prefix.Addr().Is4() == v4 && !a.prefix.Addr().IsLinkLocalUnicast() {
				f.Pod = a.prefix
				out = append(out, f)
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("port %d/%s of %s cannot be forwarded: the pod has no address of that family in this network", hostPort, f.Protocol, orAll(hostIP))
	}
	return out, nil
}

func orAll(hostIP string) string {
	if hostIP == "" {
		return "the host"
	}
	return hostIP
}

// localnet is the host's interface by which the pod is reached.
func (n *nat) localnet(res *current.Result, pod []podAddress, to netip.Prefix) (string, error) {
	i := slices.IndexFunc(pod, func(a podAddress) bool { return a.prefix == to })
	gw := pod[i].gateway
	if !gw.IsValid() {
		return "", fmt.Errorf("ports cannot be forwarded: the network has no gateway on this host by which to reach %s", to.Addr())
	}
	var hosts []string
	for _, l := range res.Interfaces {
		if l != nil && l.Sandbox == "" {
			hosts = append(hosts, l.Name)
		}
	}
	// Each pod of a point-to-point network has a host's end with that address.
	name, err := n.links(hosts, gw)
	if err == nil && name == "" && len(hosts) > 0 {
		name, err = n.links(nil, gw)
	}
	if err != nil {
		return "", err
	}
	if name == "" {
		return "", fmt.Errorf("ports cannot be forwarded: no interface found with IP %s, the gateway of the network: the host cannot reach the pod by it", gw)
	}
	return name, nil
}

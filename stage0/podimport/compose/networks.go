package compose

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

const netDir = "/etc/rkt/net.d"

// network is a network of the project.
type network struct {
	key, name string
	// own: its configuration is made here.
	own      bool
	special  string // host, none or default in place of a network of that name
	internal bool
	subnet   netip.Prefix
	subnet6  netip.Prefix
	gateway  netip.Addr
	conf     types.NetworkConfig
	// fixed: the pods have addresses of their own choice, so that they can be named.
	fixed bool
	addr  map[string]netip.Addr // by pod
	// second are the services whose default route is that of another network.
	second map[string]bool
}

// gives says whether a network gives its pods a default route.
func (n *network) gives() bool { return n.own && !n.internal }

// secondName is what pods join that have their default route elsewhere: the same
// bridge, without a route.
func (n *network) secondName() string { return n.name + "-second" }

// networks decides about all networks that are used, and makes their files.
func (c *converter) networks() error {
	used := map[string]bool{}
	for name, s := range c.p.Services {
		if len(c.pods[name]) == 0 || c.host[name] != name {
			continue
		}
		for key := range s.Networks {
			used[key] = true
		}
	}
	var taken []netip.Prefix
	for _, key := range sortedKeys(c.p.Networks) {
		if !used[key] {
			continue
		}
		n, err := c.network(key, taken)
		if err != nil {
			return fmt.Errorf("network %q: %w", key, err)
		}
		c.nets[key] = n
		if n.own {
			taken = append(taken, n.subnet)
		}
	}
	c.defaultRoutes()
	for _, key := range sortedKeys(c.nets) {
		n := c.nets[key]
		if !n.own {
			continue
		}
		if err := c.addresses(n); err != nil {
			return fmt.Errorf("network %q: %w", key, err)
		}
		text, err := c.conflist(n, n.name, n.gives())
		if err != nil {
			return fmt.Errorf("network %q: %w", key, err)
		}
		c.file(netDir+"/"+n.name+".conflist", text, 0o644)
		if len(n.second) == 0 {
			continue
		}
		if text, err = c.conflist(n, n.secondName(), false); err != nil {
			return fmt.Errorf("network %q: %w", key, err)
		}
		c.file(netDir+"/"+n.secondName()+".conflist", text, 0o644)
	}
	return nil
}

// defaultRoutes sees to it that no pod is given two default routes, which would
// be an error: in all its networks but one it gets none.
func (c *converter) defaultRoutes() {
	for _, name := range sortedKeys(c.p.Services) {
		s := c.p.Services[name]
		if len(c.pods[name]) == 0 || c.host[name] != name {
			continue
		}
		var best *network
		priority := 0
		for _, key := range sortedKeys(s.Networks) {
			n, conf := c.nets[key], s.Networks[key]
			if !n.gives() {
				continue
			}
			p := 0
			if conf != nil {
				p = conf.GatewayPriority
			}
			if best == nil || p > priority {
				if best != nil {
					best.second[name] = true
				}
				best, priority = n, p
				continue
			}
			n.second[name] = true
		}
	}
}

func (c *converter) network(key string, taken []netip.Prefix) (*network, error) {
	conf := c.p.Networks[key]
	at := "networks." + key
	n := &network{key: key, name: conf.Name, conf: conf, internal: conf.Internal, addr: map[string]netip.Addr{}, second: map[string]bool{}}
	if n.name == "" {
		n.name = c.p.Name + "_" + key
	}
	if !validNet(n.name) {
		return nil, fmt.Errorf("its name %q is none that rkt takes: it may have letters, digits and \"-_.\"", n.name)
	}
	c.networkNotes(at, conf)
	switch {
	case conf.Driver == "host" || bool(conf.External) && n.name == "host":
		n.special = "host"
		return n, nil
	case conf.Driver == "none" || conf.Driver == "null" || bool(conf.External) && n.name == "none":
		n.special = "none"
		return n, nil
	case bool(conf.External) && n.name == "bridge":
		n.special = "default"
		return n, nil
	case bool(conf.External):
		c.note(podimport.Todo, at+".external", "the network %q has to be there: rkt network list shows it, or import the project that makes it", n.name)
		return n, nil
	}
	switch n.name {
	case "host", "none", "all", "default", "default-restricted":
		return nil, fmt.Errorf("its name %q has a meaning of its own in rkt; give it another one", n.name)
	}
	n.own = true
	if err := n.pools(c, at, taken); err != nil {
		return nil, err
	}
	return n, nil
}

// pools finds the subnets: those of the file, or one made of the name.
func (n *network) pools(c *converter, at string, taken []netip.Prefix) error {
	for _, pool := range n.conf.Ipam.Config {
		if pool == nil || pool.Subnet == "" {
			continue
		}
		p, err := netip.ParsePrefix(pool.Subnet)
		if err != nil {
			return fmt.Errorf("reading its subnet: %w", err)
		}
		p = p.Masked()
		switch {
		case p.Addr().Is4() && !n.subnet.IsValid():
			if p.Bits() > 29 {
				return fmt.Errorf("its subnet %s has no room for pods", p)
			}
			n.subnet = p
			if pool.Gateway != "" {
				if n.gateway, err = netip.ParseAddr(pool.Gateway); err != nil || !p.Contains(n.gateway) {
					return fmt.Errorf("its gateway %q is no address of %s", pool.Gateway, p)
				}
			}
		case p.Addr().Is6() && !n.subnet6.IsValid():
			n.subnet6 = p
		default:
			c.note(podimport.Dropped, at+".ipam.config", "%s: a network has one subnet of a family", p)
		}
	}
	for i := 0; !n.subnet.IsValid() && i < 1000; i++ {
		name := n.name
		if i > 0 {
			name += "/" + strconv.Itoa(i)
		}
		v4, _ := podimport.Subnet(name)
		p, err := netip.ParsePrefix(v4)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(taken, p.Overlaps) {
			n.subnet = p
			c.note(podimport.Changed, at, "its pods are in %s, a subnet chosen by its name (%s/%s.conflist): change that if the subnet is in use", p, netDir, n.name)
		}
	}
	if !n.subnet.IsValid() {
		return errors.New("no subnet is free for it")
	}
	if n.conf.EnableIPv6 != nil && *n.conf.EnableIPv6 && !n.subnet6.IsValid() {
		_, v6 := podimport.Subnet(n.name)
		p, err := netip.ParsePrefix(v6)
		if err != nil {
			return err
		}
		n.subnet6 = p
	}
	if !n.gateway.IsValid() {
		n.gateway = n.subnet.Addr().Next()
	}
	return nil
}

// addresses decides whether the names that rkt itself gives to pods are all that
// this network's pods are known by, and chooses addresses for them if not.
func (c *converter) addresses(n *network) error {
	var pods []string
	of := map[string]string{}
	why := ""
	for _, name := range sortedKeys(c.p.Services) {
		s := c.p.Services[name]
		conf, in := s.Networks[n.key]
		if !in || c.host[name] != name {
			continue
		}
		for _, pod := range c.pods[name] {
			pods, of[pod] = append(pods, pod), name
		}
		if conf != nil && conf.Ipv4Address != "" && len(c.pods[name]) > 0 {
			a, err := netip.ParseAddr(conf.Ipv4Address)
			if err != nil || !n.subnet.Contains(a) || a == n.gateway {
				return fmt.Errorf("the address %q of service %q is none of %s", conf.Ipv4Address, name, n.subnet)
			}
			n.addr[c.pods[name][0]], why = a, "a service has an address of its own"
		}
		for _, want := range c.known(name, n.key) {
			if !slices.Contains(c.automatic(name), want) {
				why = fmt.Sprintf("%q is another name of service %q", want, name)
			}
		}
		for _, link := range s.Links {
			if to, alias, ok := strings.Cut(link, ":"); ok && alias != to {
				why = fmt.Sprintf("%q is what service %q calls %q", alias, name, to)
			}
		}
	}
	for _, name := range sortedKeys(n.second) {
		why = fmt.Sprintf("service %q has its default route by another network", name)
	}
	if why == "" {
		return nil
	}
	n.fixed = true
	taken := map[netip.Addr]bool{n.gateway: true}
	for _, a := range n.addr {
		taken[a] = true
	}
	for _, pool := range n.conf.Ipam.Config {
		if pool == nil {
			continue
		}
		for _, v := range pool.AuxiliaryAddresses {
			if a, err := netip.ParseAddr(v); err == nil {
				taken[a] = true
			}
		}
	}
	next := n.gateway
	for _, pod := range pods {
		if n.addr[pod].IsValid() {
			continue
		}
		for taken[next] {
			next = next.Next()
		}
		if !n.subnet.Contains(next.Next()) {
			return fmt.Errorf("%s has no room for %d pods", n.subnet, len(pods))
		}
		n.addr[pod], taken[next] = next, true
	}
	c.note(podimport.Changed, "networks."+n.key, "its pods have fixed addresses, and their names stand in rkt.hostsEntries of the others: %s", why)
	return nil
}

// validNet says whether a network can have a name.
func validNet(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && (i == 0 || !strings.Contains("_.-", s[i:i+1])) {
			return false
		}
	}
	return true
}

// conflist is the network's file.
func (c *converter) conflist(n *network, name string, route bool) (string, error) {
	type m = map[string]any
	first, last := rangeOf(n.subnet)
	pool := m{"subnet": n.subnet.String(), "gateway": n.gateway.String()}
	for _, p := range n.conf.Ipam.Config {
		if p == nil || p.IPRange == "" {
			continue
		}
		r, err := netip.ParsePrefix(p.IPRange)
		if err != nil || !n.subnet.Contains(r.Addr()) {
			c.note(podimport.Dropped, "networks."+n.key+".ipam.config", "ip_range %q is no part of %s", p.IPRange, n.subnet)
			continue
		}
		// Fixed addresses outside of the range would be refused.
		if n.fixed {
			c.note(podimport.Dropped, "networks."+n.key+".ipam.config", "ip_range is not needed: all pods have fixed addresses")
			continue
		}
		lo, hi := rangeOf(r.Masked())
		if r.Masked().Addr() == n.subnet.Addr() {
			lo = first
		}
		if hi.Compare(last) > 0 {
			hi = last
		}
		pool["rangeStart"], pool["rangeEnd"] = lo.String(), hi.String()
	}
	ranges := [][]m{{pool}}
	routes := []m{{"dst": "0.0.0.0/0"}}
	if n.subnet6.IsValid() {
		ranges = append(ranges, []m{{"subnet": n.subnet6.String()}})
		routes = append(routes, m{"dst": "::/0"})
	}
	sum := sha256.Sum256([]byte(n.name))
	plugin := m{"type": "bridge", "bridge": "rkt-" + hex.EncodeToString(sum[:5])}
	ipam := m{"type": "host-local", "dataDir": "/var/lib/rkt/cni", "ranges": ranges}
	switch n.conf.Driver {
	case "macvlan", "ipvlan":
		plugin = m{"type": n.conf.Driver}
		if parent := n.conf.DriverOpts["parent"]; parent != "" {
			plugin["master"] = parent
		}
		if mode := n.conf.DriverOpts["macvlan_mode"] + n.conf.DriverOpts["ipvlan_mode"]; mode != "" {
			plugin["mode"] = mode
		}
	default:
		plugin["isGateway"] = true
		if route {
			plugin["ipMasq"] = true
		}
	}
	if route {
		ipam["routes"] = routes
	}
	if mtu, err := strconv.Atoi(n.conf.DriverOpts["com.docker.network.driver.mtu"]); err == nil && mtu > 0 {
		plugin["mtu"] = mtu
	}
	if br := n.conf.DriverOpts["com.docker.network.bridge.name"]; br != "" && len(br) < 16 && plugin["bridge"] != nil && validNet(br) {
		plugin["bridge"] = br
	}
	plugin["ipam"] = ipam
	b, err := json.MarshalIndent(m{"cniVersion": "1.0.0", "name": name, "plugins": []m{plugin}}, "", "  ")
	return string(b) + "\n", err
}

// rangeOf are the first and last addresses of a subnet that a pod can have.
func rangeOf(p netip.Prefix) (first, last netip.Addr) {
	a := p.Addr().As4()
	end := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(a[:], end-1)
	return p.Addr().Next(), netip.AddrFrom4(a)
}

// networkNotes reports what a network loses.
func (c *converter) networkNotes(at string, conf types.NetworkConfig) {
	switch conf.Driver {
	case "", "bridge", "default", "host", "none", "null", "macvlan", "ipvlan":
	default:
		c.note(podimport.Changed, at+".driver", "%q is not known to rkt; the network is a bridge of this host", conf.Driver)
	}
	for _, key := range sortedKeys(conf.DriverOpts) {
		switch key {
		case "parent", "macvlan_mode", "ipvlan_mode", "com.docker.network.driver.mtu", "com.docker.network.bridge.name":
		default:
			c.note(podimport.Dropped, at+".driver_opts", "the option %q is Docker's own; see docs/networking.md for what a network's file can have", key)
		}
	}
	if conf.Attachable {
		c.note(podimport.Changed, at+".attachable", "any pod can join a network of rkt")
	}
	if len(conf.Labels) > 0 {
		c.note(podimport.Dropped, at+".labels", "networks have no labels")
	}
	if conf.EnableIPv4 != nil && !*conf.EnableIPv4 {
		c.note(podimport.Dropped, at+".enable_ipv4", "the network keeps its IPv4 subnet")
	}
	if d := conf.Ipam.Driver; d != "" && d != "default" {
		c.note(podimport.Dropped, at+".ipam.driver", "%q is not known; addresses are given out by host-local", d)
	}
	if len(conf.Ipam.Options) > 0 {
		c.note(podimport.Dropped, at+".ipam.options", "host-local has no such options")
	}
	for _, p := range conf.Ipam.Config {
		if p != nil && len(p.AuxiliaryAddresses) > 0 {
			c.note(podimport.Changed, at+".ipam.config", "aux_addresses are left out when fixed addresses are chosen, but not reserved: give the network a rangeStart beyond them")
		}
	}
}

package quadlet

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// network handles networks, ports and names of a container or a pod.
func (k *container) network(e entry) (bool, error) {
	o := k.rkt()
	switch e.key {
	case "Network":
		k.join(e)
	case "IP", "IP6":
		if _, err := netip.ParseAddr(e.value); err != nil {
			return true, err
		}
		k.later(func() error { k.address(e, e.value); return nil })
	case "NetworkAlias":
		k.name(e, e.value)
	case "HostName":
		if !k.hostName(e.value) {
			return true, fmt.Errorf("%q is no host name", e.value)
		}
		if o.Hostname != "" && o.Hostname != e.value {
			k.note(podimport.Changed, e, "a pod has one host name, which is %s: podman's ContainerName= and HostName= are the same here", e.value)
		}
		o.Hostname = e.value
	case "PublishPort":
		k.later(func() error { return k.publish(e) })
	case "ExposeHostPort":
		k.later(func() error { return k.expose(e) })
	case "DNS":
		o.DNS = append(o.DNS, strings.Fields(e.value)...)
	case "DNSOption":
		o.DNSOptions = append(o.DNSOptions, strings.Fields(e.value)...)
	case "DNSSearch":
		o.DNSSearch = append(o.DNSSearch, strings.Fields(e.value)...)
	case "AddHost":
		for _, w := range strings.Fields(e.value) {
			names, ip, ok := strings.Cut(w, ":")
			ip = strings.Trim(ip, "[]")
			if _, err := netip.ParseAddr(ip); !ok || err != nil {
				k.note(podimport.Todo, e, "%q has no address; the host is the gateway of the pod's network (172.16.28.1 in the default one)", w)
				continue
			}
			for _, name := range strings.Split(names, ";") {
				o.HostsEntries = append(o.HostsEntries, ip+"="+name)
			}
		}
	default:
		return false, nil
	}
	return true, nil
}

// later runs f when all units are read; an error becomes a line of the report.
func (k *container) later(f func() error) { k.t.later = append(k.t.later, f) }

func (k *container) hostNetwork() bool {
	return slices.Contains(k.rkt().Net, "host") || k.u.get("Container", "Network") == "host"
}

// join handles Network=.
func (k *container) join(e entry) {
	name, opts, _ := strings.Cut(e.value, ":")
	o := k.rkt()
	add := func(n string) {
		if !slices.Contains(o.Net, n) {
			o.Net = append(o.Net, n)
		}
	}
	switch {
	case k.shared:
		k.note(podimport.Dropped, e, "apps of a pod share its network")
		return
	case name == "host" || name == "none":
		add(name)
		return
	case name == "bridge" || name == "podman" || name == "private" || name == "slirp4netns" || name == "pasta":
		add("default")
		if name == "slirp4netns" || name == "pasta" {
			k.note(podimport.Changed, e, "the pod is in the network \"default\", a bridge")
		}
	case name == "container" || strings.HasSuffix(name, ".container") || name == "ns":
		k.note(podimport.Todo, e, "the network of another container: make both apps of one pod file, they then share it")
		return
	default:
		if u := k.c.units[name]; u != nil && u.kind == "network" {
			name = networkName(u)
			if k.u.get("Container", "ContainerName") == "" && k.u.kind == "container" && k.u.get("Container", "HostName") == "" &&
				k.u.get("Container", "NetworkAlias") == "" && !k.u.instanced() {
				k.name(e, "systemd-"+k.u.stem)
			}
		} else if strings.HasSuffix(name, ".network") {
			name = strings.TrimSuffix(name, ".network")
			k.note(podimport.Todo, e, "%s.network is not among the files; import them together, or make /etc/rkt/net.d/%s.conflist", name, name)
		} else {
			k.note(podimport.Todo, e, "the network %q of podman has to be one of rkt: make /etc/rkt/net.d/%s.conflist (docs/networking.md)", name, name)
		}
		add(name)
	}
	for _, opt := range strings.Split(opts, ",") {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "":
		case "ip", "ip6":
			k.netArg(name, "IP", value)
		case "mac":
			k.netArg(name, "MAC", strings.ReplaceAll(value, ":", "-"))
		case "alias":
			k.name(e, value)
		default:
			k.note(podimport.Dropped, e, "%s: interfaces are called eth0, eth1 … in the order of the networks' files", opt)
		}
	}
}

// netArg adds an argument to a network that the pod joins.
func (k *container) netArg(network, key, value string) {
	o := k.rkt()
	for i, n := range o.Net {
		if n == network || strings.HasPrefix(n, network+":") {
			sep := ":"
			if n != network {
				sep = ";"
			}
			o.Net[i] += sep + key + "=" + value
		}
	}
}

// address is that of the pod in its only network.
func (k *container) address(e entry, ip string) {
	o := k.rkt()
	if len(o.Net) != 1 || o.Net[0] == "host" || o.Net[0] == "none" || strings.Contains(ip, ":") || strings.Contains(o.Net[0], "IP=") {
		k.note(podimport.Todo, e, "write the address to its network: \"net\": \"NAME:IP=%s\"", ip)
		return
	}
	name, _, _ := strings.Cut(o.Net[0], ":")
	k.netArg(name, "IP", ip)
}

// portApp is the app that a port of the pod is declared by. All of a pod share
// their network, so that it does not matter which one it is.
func (k *container) portApp() *podjson.App {
	if k.u.kind == "pod" && len(k.t.apps) > 0 {
		return &k.t.apps[0].app
	}
	return &k.app
}

// publish handles PublishPort=.
func (k *container) publish(e entry) error {
	spec, protocol, _ := strings.Cut(e.value, "/")
	if net := k.rkt().Net; slices.Contains(net, "host") || slices.Contains(net, "none") {
		k.note(podimport.Dropped, e, "in this network no ports are forwarded; with the host's the app has them itself")
		return nil
	}
	ip, rest := "", spec
	if strings.HasPrefix(spec, "[") {
		end := strings.Index(spec, "]:")
		if end < 0 {
			return fmt.Errorf("%q is no port", e.value)
		}
		ip, rest = spec[1:end], spec[end+2:]
	} else if strings.Count(spec, ":") == 2 {
		ip, rest, _ = strings.Cut(spec, ":")
	}
	host, app, ok := strings.Cut(rest, ":")
	if !ok {
		app, host = host, ""
	}
	if ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return err
		}
		if a.Is6() && a.IsLoopback() {
			k.note(podimport.Dropped, e, "Linux cannot forward from [::1]; publish at 127.0.0.1, or use \"activate\"")
			return nil
		}
		if a.IsUnspecified() && a.Is4() {
			ip = "" // all of the host
		}
	}
	if host == "" {
		k.note(podimport.Todo, e, "podman chooses a port of the host by chance; choose one: \"ports\": [\"%s-tcp:PORT\"]", app)
		host = "0"
	}
	first, last, err := portRange(app)
	if err != nil {
		return err
	}
	hostFirst, hostLast, err := portRange(host)
	if err != nil {
		return err
	}
	if host != "0" && last-first != hostLast-hostFirst {
		return fmt.Errorf("%q: the ranges are not of one length", e.value)
	}
	if last-first >= 1000 {
		k.note(podimport.Todo, e, "more than 1000 ports: use the host's network (\"net\": \"host\"), or fewer")
		return nil
	}
	for i := uint(0); i <= last-first; i++ {
		p := podimport.Port{HostIP: ip, App: first + i, Protocol: strings.ToLower(protocol)}
		if host != "0" {
			p.Host = hostFirst + i
		}
		if err := podimport.Publish(k.t.pod, k.portApp(), p); err != nil {
			return err
		}
	}
	return nil
}

// expose handles ExposeHostPort=, which only declares.
func (k *container) expose(e entry) error {
	spec, protocol, _ := strings.Cut(e.value, "/")
	first, last, err := portRange(spec)
	if err != nil {
		return err
	}
	if last-first >= 100 {
		k.note(podimport.Dropped, e, "ports need no declaration to be reached from a network")
		return nil
	}
	for n := first; n <= last; n++ {
		if err := podimport.Publish(k.t.pod, k.portApp(), podimport.Port{App: n, Protocol: protocol}); err != nil {
			return err
		}
	}
	return nil
}

func portRange(s string) (first, last uint, err error) {
	a, b, ok := strings.Cut(s, "-")
	x, err := strconv.ParseUint(a, 10, 16)
	if err != nil || !ok {
		return uint(x), uint(x), err
	}
	y, err := strconv.ParseUint(b, 10, 16)
	if err == nil && y < x {
		err = fmt.Errorf("%q is no range", s)
	}
	return uint(x), uint(y), err
}

// networkName is the name under rkt of a .network.
func networkName(u *unit) string {
	name := u.get("Network", "NetworkName")
	if name == "" {
		name = u.stem
	}
	name = podimport.FileName(name)
	if slices.Contains([]string{"default", "default-restricted", "host", "none", "all"}, name) {
		name += "-net"
	}
	return name
}

// networkOptions are what a .network says.
type networkOptions struct {
	driver, mtu, parent, mode, vlan string
	bridge                          string
	internal, v6                    bool
	subnets, gateways, ranges, dns  []string
	ipam                            string

	u *unit
	// noRoute says that its pods get their default route by another network.
	noRoute bool
}

// network makes a configuration of CNI of a .network.
func (c *converter) network(u *unit) {
	o := &networkOptions{driver: "bridge", u: u}
	c.nets[networkName(u)] = o
	for _, e := range u.entries {
		if e.section != "Network" {
			if e.section != "Unit" && e.section != "Install" && e.section != "Service" && e.section != "Quadlet" && !strings.HasPrefix(e.section, "X-") {
				c.note(podimport.Dropped, e, "no such section is known")
			} else if e.section == "Service" {
				c.note(podimport.Dropped, e, "a network has no unit: it is made when the first pod joins it")
			}
			continue
		}
		e.value = c.text(u, e)
		c.networkKey(u, e, o)
	}
}

// networks writes the files of all networks.
func (c *converter) networks() {
	c.routes()
	for _, name := range slices.Sorted(maps.Keys(c.nets)) {
		o := c.nets[name]
		text, err := o.conflist(c, o.u, name)
		if err != nil {
			c.r.Note(podimport.Todo, o.u.path, 0, o.u.file, "no configuration could be made of it (%v): write /etc/rkt/net.d/%s.conflist", err, name)
			continue
		}
		c.r.Files = append(c.r.Files, podimport.File{Path: "/etc/rkt/net.d/" + name + ".conflist", Text: text, Mode: 0o644, From: o.u.path})
	}
}

// routes sees to it that no pod gets two default routes, which Linux refuses: of
// several networks of a pod that one keeps it whose other pods need it most.
func (c *converter) routes() {
	members := map[string][]string{} // pods by network
	of := map[string][]string{}
	for _, p := range c.r.Pods {
		if p.File.Rkt == nil {
			continue
		}
		for _, n := range p.File.Rkt.Net {
			name, _, _ := strings.Cut(n, ":")
			if o := c.nets[name]; name == "default" || o != nil && !o.internal {
				of[p.Name] = append(of[p.Name], name)
				members[name] = append(members[name], p.Name)
			}
		}
	}
	alone := func(net string) (pods []string) {
		for _, p := range members[net] {
			if len(of[p]) == 1 {
				pods = append(pods, p)
			}
		}
		return pods
	}
	for _, p := range slices.Sorted(maps.Keys(of)) {
		best := ""
		for _, n := range of[p] {
			switch o := c.nets[n]; {
			case n == "default":
				best = n
			case o.noRoute || best == "default":
			case best == "" || len(alone(n)) > len(alone(best)):
				best = n
			}
		}
		for _, n := range of[p] {
			o := c.nets[n]
			if n == best || o == nil || o.noRoute {
				continue
			}
			o.noRoute = true
			level, text := podimport.Changed, ""
			if pods := alone(n); len(pods) > 0 {
				level, text = podimport.Todo, "; "+strings.Join(pods, ", ")+" has no other network, and with it no way out: join it to one, if it needs that"
			}
			c.r.Note(level, o.u.path, 0, o.u.file, "the network gives no default route, since pods of it (%s) are in others, too%s", p, text)
		}
	}
}

func (c *converter) networkKey(u *unit, e entry, o *networkOptions) {
	switch e.key {
	case "NetworkName", "ServiceName":
	case "Driver":
		o.driver = e.value
	case "Subnet":
		o.subnets = append(o.subnets, e.value)
	case "Gateway":
		o.gateways = append(o.gateways, e.value)
	case "IPRange":
		o.ranges = append(o.ranges, e.value)
	case "DNS":
		o.dns = append(o.dns, strings.Fields(e.value)...)
	case "Internal":
		o.internal = isTrue(e.value)
	case "IPv6":
		o.v6 = isTrue(e.value)
	case "InterfaceName":
		o.bridge = e.value
	case "IPAMDriver":
		if o.ipam = e.value; o.ipam != "host-local" && o.ipam != "dhcp" && o.ipam != "none" {
			c.note(podimport.Dropped, e, "%q is not known", e.value)
			o.ipam = ""
		}
	case "DisableDNS":
		if isTrue(e.value) {
			c.note(podimport.Dropped, e, "pods of a network find each other by name through their hosts files, always")
		}
	case "NetworkDeleteOnStop":
		c.note(podimport.Dropped, e, "the bridge stays; it goes with ip link delete")
	case "Label", "ContainersConfModule", "GlobalArgs":
		c.note(podimport.Dropped, e, "a network's file has no place for it")
	case "Options", "PodmanArgs":
		words, err := e.words()
		if err != nil {
			c.note(podimport.Dropped, e, "it cannot be read: %v", err)
			return
		}
		for _, w := range words {
			for _, opt := range strings.Split(strings.TrimPrefix(strings.TrimPrefix(w, "--opt="), "--"), ",") {
				c.networkOption(e, opt, o)
			}
		}
	default:
		c.note(podimport.Dropped, e, "the key is not known")
	}
}

func (c *converter) networkOption(e entry, opt string, o *networkOptions) {
	key, value, _ := strings.Cut(opt, "=")
	switch key {
	case "mtu", "com.docker.network.driver.mtu":
		o.mtu = value
	case "parent":
		o.parent = value
	case "mode", "macvlan_mode", "ipvlan_mode":
		o.mode = value
	case "vlan":
		o.vlan = value
	case "com.docker.network.bridge.name":
		o.bridge = value
	case "internal":
		o.internal = value == "" || isTrue(value)
	case "ipv6":
		o.v6 = true
	case "subnet":
		o.subnets = append(o.subnets, value)
	case "gateway":
		o.gateways = append(o.gateways, value)
	case "ip-range":
		o.ranges = append(o.ranges, value)
	case "disable-dns":
		c.note(podimport.Dropped, e, "pods of a network find each other by name, always")
	default:
		c.note(podimport.Dropped, e, "%s: see the network's plugin for a counterpart", opt)
	}
}

// conflist is the file of net.d.
func (o *networkOptions) conflist(c *converter, u *unit, name string) (string, error) {
	v4, v6 := podimport.Subnet(name)
	if len(o.subnets) == 0 && (o.driver == "bridge" || o.ipam != "dhcp" && o.ipam != "none" && o.driver != "macvlan" && o.driver != "ipvlan") {
		o.subnets = []string{v4}
		c.r.Note(podimport.Changed, u.path, 0, "Network.Subnet", "the network has the addresses %s, chosen by its name; podman takes the next free ones", v4)
	}
	if o.v6 && !slices.ContainsFunc(o.subnets, func(s string) bool { return strings.Contains(s, ":") }) {
		o.subnets = append(o.subnets, v6)
	}
	var ranges [][]map[string]string
	var routes []map[string]string
	for i, s := range o.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return "", err
		}
		r := map[string]string{"subnet": p.Masked().String()}
		if i < len(o.gateways) {
			r["gateway"] = o.gateways[i]
		}
		if i < len(o.ranges) {
			if err := setRange(r, o.ranges[i]); err != nil {
				return "", err
			}
		}
		ranges = append(ranges, []map[string]string{r})
		dst := "0.0.0.0/0"
		if p.Addr().Is6() {
			dst = "::/0"
		}
		routes = append(routes, map[string]string{"dst": dst})
	}
	ipam := map[string]any{"type": "host-local", "dataDir": "/var/lib/rkt/cni", "ranges": ranges}
	if !o.internal && !o.noRoute {
		ipam["routes"] = routes
	}
	if o.ipam == "dhcp" || o.ipam == "" && len(ranges) == 0 {
		ipam = map[string]any{"type": "dhcp"}
		c.r.Note(podimport.Todo, u.path, 0, "Network.IPAMDriver", "addresses come by DHCP: the CNI plugin dhcp has to run as a daemon")
	}
	if o.ipam == "none" {
		ipam = map[string]any{}
	}
	plugin := map[string]any{"type": o.driver, "ipam": ipam}
	switch o.driver {
	case "bridge":
		if o.bridge == "" {
			o.bridge = "rkt-" + name
		}
		if len(o.bridge) > 15 {
			o.bridge = strings.TrimRight(o.bridge[:15], "-_.")
		}
		plugin["bridge"] = o.bridge
		plugin["isGateway"] = true
		if !o.internal && !o.noRoute {
			plugin["ipMasq"] = true
		}
		if n, err := strconv.Atoi(o.vlan); err == nil {
			plugin["vlan"] = n
		}
	case "macvlan", "ipvlan":
		if o.parent == "" {
			c.r.Note(podimport.Todo, u.path, 0, "Network.Options", "name the interface of the host in /etc/rkt/net.d/%s.conflist: \"master\"", name)
		} else {
			plugin["master"] = o.parent
		}
		if o.mode != "" {
			plugin["mode"] = o.mode
		}
	default:
		return "", fmt.Errorf("the driver %q is not known", o.driver)
	}
	if n, err := strconv.Atoi(o.mtu); err == nil {
		plugin["mtu"] = n
	}
	if len(o.dns) > 0 {
		plugin["dns"] = map[string]any{"nameservers": o.dns}
	}
	b, err := json.MarshalIndent(map[string]any{"cniVersion": "1.0.0", "name": name, "plugins": []any{plugin}}, "", "  ")
	return string(b) + "\n", err
}

// setRange limits the addresses: a prefix, or FIRST-LAST.
func setRange(r map[string]string, s string) error {
	if first, last, ok := strings.Cut(s, "-"); ok {
		r["rangeStart"], r["rangeEnd"] = first, last
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return err
	}
	p = p.Masked()
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	last[len(last)-1] &^= 1 // not the broadcast address
	end, _ := netip.AddrFromSlice(last)
	r["rangeStart"], r["rangeEnd"] = p.Addr().Next().String(), end.String()
	return nil
}

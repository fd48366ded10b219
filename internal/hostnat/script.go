// Package hostnat masquerades pods and forwards ports to them, by nftables.
package hostnat

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// table is the table, of family inet, that holds all that rkt has nftables do.
const table = "inet rkt"

// Record is what one pod wants of one network, as it stands in the host's records.
type Record struct {
	ID       string         `json:"id"`
	IfName   string         `json:"ifName"`
	Network  string         `json:"network"`
	Leaving  []netip.Prefix `json:"leaving,omitempty"` // addresses that are masqueraded outside their subnet
	Forwards []Forward      `json:"forwards,omitempty"`
	// Localnet is the host's interface by which the host's loopback addresses
	// reach the pod; Restore tells that its parameter was off before.
	Localnet string `json:"localnet,omitempty"`
	Restore  bool   `json:"restore,omitempty"`
	// Filter has iptables let the forwarded connections through; OnlyFilter
	// leaves forwarding to others.
	Filter     bool `json:"filter,omitempty"`
	OnlyFilter bool `json:"onlyFilter,omitempty"`
}

// Forward leads a port of the host to one of the pod.
type Forward struct {
	// HostIP is the only address that is forwarded; the zero value stands for
	// all those of the family of Pod.
	HostIP   netip.Addr   `json:"hostIP,omitzero"`
	HostPort uint16       `json:"hostPort"`
	Protocol string       `json:"protocol"`
	Pod      netip.Prefix `json:"pod"`
	PodPort  uint16       `json:"podPort"`
}

// Empty tells that there is nothing to be done.
func (r Record) Empty() bool { return len(r.Leaving) == 0 && len(r.Forwards) == 0 }

// Check holds for whatever may come near a script: addresses and numbers are
// typed, this is for the rest.
func (r Record) Check() error {
	if r.Localnet != "" && !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$`).MatchString(r.Localnet) {
		return fmt.Errorf("%q is not the name of an interface that nftables can be given", r.Localnet)
	}
	for _, p := range r.Leaving {
		if !p.IsValid() || p.Addr().Zone() != "" {
			return fmt.Errorf("%q is not an address", p)
		}
	}
	for _, f := range r.Forwards {
		switch {
		case !f.Pod.IsValid() || f.Pod.Addr().Zone() != "" || f.HostIP.Zone() != "":
			return fmt.Errorf("the port %d is forwarded to %q by %q, which are not addresses", f.HostPort, f.Pod, f.HostIP)
		case f.HostIP.IsValid() && f.HostIP.Is4() != f.Pod.Addr().Is4():
			return fmt.Errorf("the port %d of %s cannot be forwarded to %s: they are of different families", f.HostPort, f.HostIP, f.Pod.Addr())
		case f.HostPort == 0 || f.PodPort == 0:
			return fmt.Errorf("port %d to %d: a port is a number from 1 to 65535", f.HostPort, f.PodPort)
		}
		switch f.Protocol {
		case "tcp", "udp", "sctp":
		default:
			return fmt.Errorf("protocol %q cannot be forwarded; tcp, udp and sctp can", f.Protocol)
		}
	}
	return nil
}

// clash finds a record that forwards a port which r forwards too.
func (r Record) clash(others []Record) error {
	for _, o := range others {
		for _, a := range r.Forwards {
			for _, b := range o.Forwards {
				if a.Protocol == b.Protocol && a.HostPort == b.HostPort && a.HostIP == b.HostIP && a.Pod.Addr().Is4() == b.Pod.Addr().Is4() {
					return fmt.Errorf("port %d/%s of the host is forwarded to pod %s already", a.HostPort, a.Protocol, o.ID)
				}
			}
		}
	}
	return nil
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// elements are what a record puts into the sets and maps of the table.
func (r Record) elements() []string {
	var out []string
	if r.OnlyFilter {
		return nil
	}
	for _, p := range r.Leaving {
		out = append(out, fmt.Sprintf("leaving%s { %s }", family(p.Addr()), p.Addr()))
	}
	for _, f := range r.Forwards {
		v, pod := family(f.Pod.Addr()), f.Pod.Addr()
		key := fmt.Sprintf("all%s { ", v)
		if f.HostIP.IsValid() {
			key = fmt.Sprintf("one%s { %s . ", v, f.HostIP)
		}
		out = append(out, fmt.Sprintf("%s%s . %d : %s . %d }", key, f.Protocol, f.HostPort, pod, f.PodPort),
			fmt.Sprintf("forwarded%s { %s . %s . %d }", v, pod, f.Protocol, f.PodPort))
	}
	if r.Localnet != "" {
		out = append(out, fmt.Sprintf("localnet { %q }", r.Localnet))
	}
	return out
}

// subnets are those for which there are rules.
func subnets(records []Record) (leaving, hairpin []netip.Prefix) {
	for _, r := range records {
		if r.OnlyFilter {
			continue
		}
		for _, p := range r.Leaving {
			leaving = append(leaving, p.Masked())
		}
		for _, f := range r.Forwards {
			hairpin = append(hairpin, f.Pod.Masked())
		}
	}
	unique := func(p []netip.Prefix) []netip.Prefix {
		slices.SortFunc(p, netip.Prefix.Compare)
		return slices.Compact(p)
	}
	return unique(leaving), unique(hairpin)
}

// addScript adds a record to a table that holds the others' already. It is the
// quick way: the kernel has nothing to wait for. ok is false if rules of
// subnets are missing; it fails if somebody has removed the table.
func addScript(r Record, others []Record) (script string, ok bool) {
	if len(others) == 0 {
		return "", false
	}
	leaving, hairpin := subnets([]Record{r})
	haveLeaving, haveHairpin := subnets(others)
	for _, p := range leaving {
		if !slices.Contains(haveLeaving, p) {
			return "", false
		}
	}
	for _, p := range hairpin {
		if !slices.Contains(haveHairpin, p) {
			return "", false
		}
	}
	var b strings.Builder
	for _, e := range r.elements() {
		b.WriteString("add element " + table + " " + e + "\n")
	}
	return b.String(), true
}

// Script makes the table hold what the records say, and nothing else,
// whatever there was before. Without records the table goes.
func Script(records ...Record) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if !slices.ContainsFunc(records, func(r Record) bool { return !r.Empty() && !r.OnlyFilter }) {
		line("add table %s", table)
		line("delete table %s", table)
		return b.String()
	}
	line("add table %s", table)
	sets := []struct{ kind, name, typ string }{
		{"map", "one4", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"},
		{"map", "all4", "inet_proto . inet_service : ipv4_addr . inet_service"},
		{"map", "one6", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service"},
		{"map", "all6", "inet_proto . inet_service : ipv6_addr . inet_service"},
		{"set", "forwarded4", "ipv4_addr . inet_proto . inet_service"},
		{"set", "forwarded6", "ipv6_addr . inet_proto . inet_service"},
		{"set", "leaving4", "ipv4_addr"},
		{"set", "leaving6", "ipv6_addr"},
		{"set", "localnet", "ifname"},
	}
	for _, s := range sets {
		line("add %s %s %s { type %s; }", s.kind, table, s.name, s.typ)
	}
	chains := []struct{ name, hook string }{
		{"guard", "filter hook prerouting priority -300"},
		{"prerouting", "nat hook prerouting priority -100"},
		{"output", "nat hook output priority -100"},
		{"postrouting", "nat hook postrouting priority 100"},
		{"ports", ""},
	}
	for _, c := range chains {
		if c.hook == "" {
			line("add chain %s %s", table, c.name)
		} else {
			line("add chain %s %s { type %s; policy accept; }", table, c.name, c.hook)
		}
	}
	for _, c := range chains {
		line("flush chain %s %s", table, c.name)
	}
	for _, s := range sets {
		line("flush %s %s %s", s.kind, table, s.name)
	}
	rule := func(chain, text string) { line("add rule %s %s %s", table, chain, text) }
	// What may leave the loopback interface for the pods must not come in from them.
	rule("guard", `iifname @localnet ip daddr 127.0.0.0/8 drop`)
	rule("guard", `iifname @localnet ip saddr 127.0.0.0/8 drop`)
	rule("prerouting", `fib daddr type local jump ports`)
	// The kernel delivers no answer from elsewhere to ::1, and has no setting for
	// it like route_localnet: refused at once beats an answer that never comes.
	rule("output", `ip6 daddr ::1 return`)
	rule("output", `fib daddr type local jump ports`)
	rule("ports", `dnat ip to ip daddr . meta l4proto . th dport map @one4`)
	rule("ports", `dnat ip to meta l4proto . th dport map @all4`)
	rule("ports", `dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6`)
	rule("ports", `dnat ip6 to meta l4proto . th dport map @all6`)
	// From the host itself: its loopback addresses lead nowhere in the pod, and the
	// pod may have no route but to the gateway.
	rule("postrouting", `ct status dnat fib saddr type local ip daddr . meta l4proto . th dport @forwarded4 masquerade`)
	rule("postrouting", `ct status dnat fib saddr type local ip6 daddr . meta l4proto . th dport @forwarded6 masquerade`)
	leaving, hairpin := subnets(records)
	words := func(p netip.Prefix) (ip, v string) {
		if p.Addr().Is4() {
			return "ip", "4"
		}
		return "ip6", "6"
	}
	for _, p := range hairpin {
		// From the pod itself, or from a neighbour who would be answered directly.
		ip, v := words(p)
		rule("postrouting", fmt.Sprintf(`ct status dnat %[1]s saddr %[2]s %[1]s daddr %[2]s %[1]s daddr . meta l4proto . th dport @forwarded%[3]s masquerade`, ip, p, v))
	}
	for _, p := range leaving {
		ip, _ := words(p)
		rule("postrouting", fmt.Sprintf(`%[1]s saddr %[2]s %[1]s daddr %[2]s return`, ip, p))
	}
	rule("postrouting", `ip saddr @leaving4 ip daddr != 224.0.0.0/4 masquerade`)
	rule("postrouting", `ip6 saddr @leaving6 ip6 daddr != ff00::/8 masquerade`)
	seen := map[string]bool{}
	for _, r := range records {
		for _, e := range r.elements() {
			if !seen[e] {
				line("add element %s %s", table, e)
			}
			seen[e] = true
		}
	}
	return b.String()
}

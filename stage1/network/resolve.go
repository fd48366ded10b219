package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/rkt-systemd/rkt/internal/netsettings"
)

// chained is the version of CNI that lists get to which rkt adds a plugin that
// older versions do not have.
const chained = "1.0.0"

// resolver makes the lists that ADD gets, and that are saved for DEL, out of
// what is configured.
type resolver struct {
	settings netsettings.Settings
	backend  backend
	iptables bool
	// firewall tells whether the plugin of that name is needed.
	firewall bool
	// supports tells whether a plugin knows a version of CNI.
	supports func(ctx context.Context, plugin, version string) (bool, error)
}

// resolve completes the lists of the selected networks. warnings are for the user.
func (r resolver) resolve(ctx context.Context, nets []Network, ports, bandwidth bool) (out []Network, warnings []string, err error) {
	out = slices.Clone(nets)
	forward := forwarding(nets)
	for i := range out {
		n := &out[i]
		warnings = append(warnings, n.Notes...)
		if n.Builtin {
			err = r.builtin(n, ports && i == forward)
		} else {
			err = r.configured(ctx, n, ports && i == forward)
		}
		if err == nil && bandwidth {
			err = r.bandwidth(ctx, n, &warnings)
		}
		if err == nil && ports && i == forward {
			err = hairpin(n)
		}
		if err == nil && r.firewall {
			err = r.filter(ctx, n, &warnings)
		}
		if err == nil && r.firewall && r.iptables && ports && i == forward {
			err = r.accept(n)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("network %q: %w", n.List.Name, err)
		}
	}
	return out, warnings, nil
}

var errNoTool = errors.New("this needs nft or iptables: install the package nftables (or iptables)")

func (r resolver) builtin(n *Network, ports bool) error {
	if r.backend == byNothing {
		switch {
		case n.List.Name == defaultNet:
			return fmt.Errorf("it hides the pod's address from other hosts; %w, or use --net=%s, --net=none or --net=host", errNoTool, restrictedNet)
		case ports:
			return fmt.Errorf("ports are to be forwarded; %w", errNoTool)
		}
	}
	list, err := parse([]byte(builtin(n.List.Name, r.backend)))
	n.List = list
	return err
}

// configured leaves the list as it is, but for what it lacks to forward ports,
// and what this host cannot do in the way it says.
func (r resolver) configured(ctx context.Context, n *Network, ports bool) error {
	if err := r.takeOver(n); err != nil {
		return err
	}
	if !ports || declares(n.List, "portMappings") {
		return nil
	}
	add := map[string]any{"capabilities": map[string]bool{"portMappings": true}}
	switch r.backend {
	case byNFT:
		if has(n.List, natType) { // one is enough: it keeps one record for a pod's interface
			return edit(n, func(typ string, keys map[string]json.RawMessage) {
				if typ == natType {
					keys["capabilities"] = json.RawMessage(`{"portMappings":true}`)
				}
			})
		}
		// it reads every version
		add["type"] = natType
		return appendPlugin(n, n.List.CNIVersion, add)
	case byIPTables:
		add["type"] = "portmap"
		v, err := r.raised(ctx, n.List)
		if err != nil {
			return fmt.Errorf("ports are to be forwarded by the plugin portmap: %w", err)
		}
		return appendPlugin(n, v, add)
	}
	return fmt.Errorf("ports are to be forwarded; %w", errNoTool)
}

// takeOver has rkt do what the plugins would do by iptables where that is not
// installed, or not wanted.
func (r resolver) takeOver(n *Network) error {
	if r.backend != byNFT || (r.iptables && r.settings.NAT != netsettings.NFTables) {
		return nil
	}
	var plugins []json.RawMessage
	masq, changed := false, false
	for _, p := range n.List.Plugins {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(p.Bytes, &keys); err != nil {
			return err
		}
		_, chosen := fold(keys, "ipMasqBackend")
		_, other := fold(keys, "backend")
		switch typ := p.Network.Type; {
		case slices.Contains([]string{"ptp", "bridge", "macvlan", "ipvlan"}, typ) && truth(keys, "ipMasq") && !chosen:
			masq, changed = true, true
			for k := range keys {
				if strings.EqualFold(k, "ipMasq") {
					delete(keys, k)
				}
			}
		case typ == "portmap" && !other:
			changed = true
			keys = map[string]json.RawMessage{"type": json.RawMessage(`"` + natType + `"`), "capabilities": json.RawMessage(`{"portMappings":true}`)}
		}
		b, err := json.Marshal(keys)
		if err != nil {
			return err
		}
		plugins = append(plugins, b)
	}
	if masq {
		own := slices.IndexFunc(plugins, func(b json.RawMessage) bool { return strings.Contains(string(b), `"`+natType+`"`) })
		if own < 0 {
			plugins = append(plugins, json.RawMessage(`{"type":"`+natType+`","ipMasq":true,"capabilities":{"portMappings":true}}`))
		} else {
			plugins[own] = json.RawMessage(`{"type":"` + natType + `","ipMasq":true,"capabilities":{"portMappings":true}}`)
		}
	}
	if !changed {
		return nil
	}
	return setPlugins(n, n.List.CNIVersion, plugins)
}

// hairpin lets a pod in a bridge reach its own ports by the host's address: the
// bridge then has to send a packet back by the port it came from.
func hairpin(n *Network) error {
	return edit(n, func(typ string, keys map[string]json.RawMessage) {
		_, said := fold(keys, "hairpinMode")
		if typ == "bridge" && !said && !truth(keys, "promiscMode") {
			keys["hairpinMode"] = json.RawMessage("true")
		}
	})
}

// accept has the forwarded connections pass iptables, which drops what it does
// not know: the plugin firewall accepts only what the pod begins.
func (r resolver) accept(n *Network) error {
	if has(n.List, natType) {
		return edit(n, func(typ string, keys map[string]json.RawMessage) {
			if typ == natType {
				keys["filter"] = json.RawMessage("true")
			}
		})
	}
	return appendPlugin(n, n.List.CNIVersion, map[string]any{"type": natType, "onlyFilter": true, "filter": true, "capabilities": map[string]bool{"portMappings": true}})
}

func edit(n *Network, f func(typ string, keys map[string]json.RawMessage)) error {
	var plugins []json.RawMessage
	for _, p := range n.List.Plugins {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(p.Bytes, &keys); err != nil {
			return err
		}
		f(p.Network.Type, keys)
		b, err := json.Marshal(keys)
		if err != nil {
			return err
		}
		plugins = append(plugins, b)
	}
	return setPlugins(n, n.List.CNIVersion, plugins)
}

func truth(keys map[string]json.RawMessage, key string) bool {
	v, _ := fold(keys, key)
	return string(v) == "true"
}

// declares reports whether a plugin of the list takes a capability.
func declares(l *libcni.NetworkConfigList, capability string) bool {
	return slices.ContainsFunc(l.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities[capability] })
}

func has(l *libcni.NetworkConfigList, typ string) bool {
	return slices.ContainsFunc(l.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Type == typ })
}

// bandwidth sees to it that the list limits the pod's traffic.
func (r resolver) bandwidth(ctx context.Context, n *Network, warnings *[]string) error {
	if declares(n.List, "bandwidth") {
		return nil
	}
	if main := n.List.Plugins[0].Network.Type; main == "macvlan" || main == "ipvlan" {
		*warnings = append(*warnings, fmt.Sprintf("the bandwidth of network %q is not limited: a %s has no end on this host where that could be done", n.List.Name, main))
		return nil
	}
	v, err := r.raised(ctx, n.List)
	if err != nil {
		return fmt.Errorf("the pod's bandwidth is to be limited by the plugin bandwidth: %w", err)
	}
	return appendPlugin(n, v, map[string]any{"type": "bandwidth", "capabilities": map[string]bool{"bandwidth": true}})
}

// filter has the firewall let the pod's traffic through.
func (r resolver) filter(ctx context.Context, n *Network, warnings *[]string) error {
	main := n.List.Plugins[0].Network.Type
	if has(n.List, "firewall") || main == "macvlan" || main == "ipvlan" {
		return nil
	}
	v, err := r.raised(ctx, n.List)
	if err != nil {
		*warnings = append(*warnings, fmt.Sprintf("the firewall of this host is not told to let traffic of network %q through: %v", n.List.Name, err))
		return nil
	}
	return appendPlugin(n, v, map[string]any{"type": "firewall"})
}

// raised is the version of a list that gets a plugin to follow its own.
func (r resolver) raised(ctx context.Context, l *libcni.NetworkConfigList) (string, error) {
	if ok, err := version.GreaterThanOrEqualTo(l.CNIVersion, "0.4.0"); err != nil || ok {
		return l.CNIVersion, err
	}
	for _, p := range l.Plugins {
		if p.Network.Type == natType {
			continue
		}
		ok, err := r.supports(ctx, p.Network.Type, chained)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", fmt.Errorf("the list is of CNI version %q, in which plugins cannot follow others, and the plugin %q does not know version %s; use a newer one", l.CNIVersion, p.Network.Type, chained)
		}
	}
	return chained, nil
}

func appendPlugin(n *Network, cniVersion string, plugin map[string]any) error {
	b, err := json.Marshal(plugin)
	if err != nil {
		return err
	}
	var plugins []json.RawMessage
	for _, p := range n.List.Plugins {
		plugins = append(plugins, p.Bytes)
	}
	return setPlugins(n, cniVersion, append(plugins, b))
}

func setPlugins(n *Network, cniVersion string, plugins []json.RawMessage) error {
	c := &conf{name: n.List.Name, plugins: plugins, rest: map[string]json.RawMessage{}}
	if err := json.Unmarshal(n.List.Bytes, &c.rest); err != nil {
		return err
	}
	delete(c.rest, "cniVersions")
	c.rest["cniVersion"] = json.RawMessage(fmt.Sprintf("%q", cniVersion))
	l, err := c.list()
	if err != nil {
		return err
	}
	n.List = l
	return nil
}

// forwarding is the network whose address ports are forwarded to: the first
// that masquerades, else the last.
func forwarding(lists []Network) int {
	for i, n := range lists {
		for _, p := range n.List.Plugins {
			var keys map[string]json.RawMessage
			if json.Unmarshal(p.Bytes, &keys) == nil && truth(keys, "ipMasq") {
				return i
			}
		}
	}
	return len(lists) - 1
}

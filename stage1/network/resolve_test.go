package network

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/rkt-systemd/rkt/internal/netsettings"
)

// TestResolve: what lists become on hosts of all kinds, plugin by plugin.
func TestResolve(t *testing.T) {
	const (
		old    = `{"name":"n","type":"bridge","ipMasq":true}`
		list   = `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp","ipMasq":true},{"type":"portmap","capabilities":{"portMappings":true}}]}`
		ownNAT = `{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"},{"type":"rkt-nat","ipMasq":true}]}`
		vlan   = `{"cniVersion":"1.0.0","name":"n","type":"macvlan","master":"eth0"}`
	)
	for _, c := range []struct {
		name, conf             string
		backend                backend
		iptables, fw, ports    bool
		bandwidth              bool
		nat, want, err, warned string
	}{
		{name: "builtin", conf: "default", backend: byNFT, want: "1.0.0 ptp rkt-nat+ports+masq"},
		{name: "builtin, iptables", conf: "default", backend: byIPTables, iptables: true, want: "1.0.0 ptp+masq portmap+ports"},
		{name: "builtin, nothing", conf: "default", err: "needs nft or iptables"},
		{name: "restricted", conf: "default-restricted", backend: byNFT, want: "1.0.0 ptp rkt-nat+ports"},
		{name: "restricted, nothing", conf: "default-restricted", want: "1.0.0 ptp"},
		{name: "restricted, nothing, ports", conf: "default-restricted", ports: true, err: "ports are to be forwarded"},
		{name: "old one as it is", conf: old, backend: byNFT, iptables: true, want: "0.1.0 bridge+masq"},
		{name: "old one, ports", conf: old, backend: byNFT, iptables: true, ports: true, want: "0.1.0 bridge+hairpin+masq rkt-nat+ports"},
		{name: "old one, ports, iptables", conf: old, backend: byIPTables, iptables: true, ports: true, want: "1.0.0 bridge+hairpin+masq portmap+ports"},
		{name: "old one, no iptables", conf: old, backend: byNFT, want: "0.1.0 bridge rkt-nat+ports+masq"},
		{name: "old one, ports, no iptables", conf: old, backend: byNFT, ports: true, want: "0.1.0 bridge+hairpin rkt-nat+ports+masq"},
		{name: "old one, ports, nothing", conf: old, ports: true, err: "ports are to be forwarded"},
		{name: "list", conf: list, backend: byNFT, iptables: true, ports: true, want: "1.0.0 ptp+masq portmap+ports"},
		{name: "list, no iptables", conf: list, backend: byNFT, ports: true, want: "1.0.0 ptp rkt-nat+ports+masq"},
		{name: "list, nftables wanted", conf: list, backend: byNFT, iptables: true, nat: "nftables", want: "1.0.0 ptp rkt-nat+ports+masq"},
		{name: "own", conf: ownNAT, backend: byNFT, ports: true, want: "1.0.0 ptp rkt-nat+ports+masq"},
		{name: "bandwidth", conf: list, backend: byNFT, iptables: true, bandwidth: true, want: "1.0.0 ptp+masq portmap+ports bandwidth"},
		{name: "bandwidth of an old one", conf: old, backend: byNFT, iptables: true, bandwidth: true, want: "1.0.0 bridge+masq bandwidth"},
		{name: "bandwidth of macvlan", conf: vlan, backend: byNFT, bandwidth: true, want: "1.0.0 macvlan", warned: "is not limited"},
		{name: "firewall", conf: "default", backend: byNFT, iptables: true, fw: true, want: "1.0.0 ptp rkt-nat+ports+masq firewall"},
		{name: "firewall, ports", conf: "default", backend: byNFT, iptables: true, fw: true, ports: true, want: "1.0.0 ptp rkt-nat+filter+ports+masq firewall"},
		{name: "firewall, ports, iptables", conf: "default", backend: byIPTables, iptables: true, fw: true, ports: true, want: "1.0.0 ptp+masq portmap+ports firewall rkt-nat+filter+ports"},
		{name: "firewall of macvlan", conf: vlan, backend: byNFT, iptables: true, fw: true, want: "1.0.0 macvlan"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := Network{}
			text := c.conf
			if !strings.HasPrefix(text, "{") {
				n.Builtin, text = true, builtin(text, byNFT)
			}
			var err error
			if n.List, err = parse([]byte(text)); err != nil {
				t.Fatal(err)
			}
			r := resolver{settings: netsettings.Settings{NAT: c.nat}, backend: c.backend, iptables: c.iptables, firewall: c.fw,
				supports: func(context.Context, string, string) (bool, error) { return true, nil }}
			out, warnings, err := r.resolve(t.Context(), []Network{n}, c.ports, c.bandwidth)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := out[0].List.CNIVersion
			for _, p := range out[0].List.Plugins {
				got += " " + p.Network.Type
				var keys map[string]json.RawMessage
				if err := json.Unmarshal(p.Bytes, &keys); err != nil {
					t.Fatal(err)
				}
				if truth(keys, "filter") {
					got += "+filter"
				}
				if p.Network.Capabilities["portMappings"] {
					got += "+ports"
				}
				if truth(keys, "hairpinMode") {
					got += "+hairpin"
				}
				if truth(keys, "ipMasq") {
					got += "+masq"
				}
			}
			if got != c.want || !strings.Contains(strings.Join(warnings, "\n"), c.warned) {
				t.Errorf("%s, want %s; warnings %q", got, c.want, warnings)
			}
		})
	}
}

func TestRaisedRefuses(t *testing.T) {
	l, err := parse([]byte(`{"name":"n","type":"old-one"}`))
	if err != nil {
		t.Fatal(err)
	}
	r := resolver{supports: func(context.Context, string, string) (bool, error) { return false, nil }}
	if _, err := r.raised(t.Context(), l); err == nil || !strings.Contains(err.Error(), `plugin "old-one" does not know version 1.0.0`) {
		t.Error(err)
	}
}

func TestChooseBackend(t *testing.T) {
	for _, c := range []struct {
		nat, tools string
		want       backend
		err        string
	}{
		{"auto", "nft iptables", byNFT, ""}, {"auto", "nft", byNFT, ""}, {"auto", "iptables", byIPTables, ""}, {"auto", "", byNothing, ""},
		{"iptables", "nft iptables", byIPTables, ""}, {"iptables", "nft", 0, "iptables, which is missing"}, {"nftables", "iptables", 0, "nft is missing"}, {"nftables", "nft", byNFT, ""},
	} {
		got, err := chooseBackend(netsettings.Settings{NAT: c.nat}, func(name string) string {
			if strings.Contains(" "+c.tools+" ", " "+name+" ") {
				return "/x/" + name
			}
			return ""
		})
		if got != c.want && c.err == "" || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s with %q: %d, %v", c.nat, c.tools, got, err)
		}
	}
}

func TestFirewalled(t *testing.T) {
	for said, want := range map[string]bool{"-P FORWARD DROP\\n-A FORWARD -j X": true, "-P FORWARD ACCEPT": false, "": false} {
		tool := script(t, `printf -- '`+said+`\n'`)
		if got, err := firewalled(t.Context(), func(string) string { return tool }, t.TempDir()); got != want || err != nil {
			t.Errorf("%q: %t, %v", said, got, err)
		}
	}
	root := t.TempDir()
	if got, err := firewalled(t.Context(), func(string) string { return "" }, root); got || err != nil {
		t.Errorf("without iptables: %t, %v", got, err)
	}
	if err := os.MkdirAll(filepath.Join(root, "sys/fs/cgroup/system.slice/firewalld.service"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := firewalled(t.Context(), func(string) string { return "" }, root); !got || err != nil {
		t.Errorf("with firewalld: %t, %v", got, err)
	}
}

// FuzzParse: a configuration that is accepted can be saved and read again, and
// names nothing that would leave its directory.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"},{"type":"portmap","capabilities":{"portMappings":true}}]}`))
	f.Add([]byte(`{"Name":"n","Type":"ptp","IPAM":{"type":"host-local"}}`))
	f.Add([]byte(`{"name":"n","cniVersions":["0.3.1","1.0.0"],"plugins":[{"type":"x","ipam":{"type":"../y"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parse(b)
		if err != nil {
			return
		}
		again, err := parse(l.Bytes)
		if err != nil || again.Name != l.Name || again.CNIVersion != l.CNIVersion || len(again.Plugins) != len(l.Plugins) {
			t.Fatalf("%s comes back as %+v, %v", l.Bytes, again, err)
		}
		if strings.ContainsAny(l.Name, "/\x00") || len(l.Plugins) == 0 {
			t.Fatalf("%+v", l)
		}
		for _, p := range l.Plugins {
			if strings.Contains(p.Network.Type+p.Network.IPAM.Type, "/") {
				t.Fatalf("%s", p.Bytes)
			}
		}
	})
}

// FuzzInfo: no result of a plugin breaks what is shown and written.
func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"ips":[{"address":"10.0.0.2/8","gateway":"10.0.0.1"},{"address":"fd00::2/64"}],"dns":{"nameservers":["192.0.2.1"]}}`))
	list, err := parse([]byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"}]}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := create.Create("1.0.0", b)
		if err != nil {
			return
		}
		res, err := current.NewResultFromResult(raw)
		if err != nil || checkResult(res) != nil {
			return
		}
		in := info(&Network{File: "x", List: list}, attachment{IfName: "eth0"}, "x.json", res)
		if _, err := json.Marshal(in); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(resolvConf("n", res))) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch word {
			case "#", "", "nameserver", "search", "options", "domain":
			default:
				t.Fatalf("%q comes of %q", line, b)
			}
		}
		podAddresses(res)
	})
}

package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/netsettings"
)

func TestSelect(t *testing.T) {
	conf := t.TempDir()
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Join(conf, "net.d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(conf, "net.d", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("10-lan.conf", `{"name":"lan","type":"macvlan","master":"eth0","ipam":{"type":"dhcp"}}`)
	put("20-two.conflist", `{"cniVersion":"1.0.0","name":"two","plugins":[{"type":"bridge"},{"type":"portmap"}]}`)
	put("30-again.conf", `{"cniVersion":"0.4.0","name":"lan","type":"bridge"}`)
	put("readme.txt", `not JSON`)
	for _, c := range []struct {
		items, want, err string
	}{
		{"default", "default", ""},
		{"lan,default", "lan default", ""},
		{"default,two:IP=1.2.3.4;A=b", "two(IP=1.2.3.4;A=b) default", ""},
		{"all", "lan two default-restricted default", ""},
		{"all,lan:X=y", "lan(X=y) two default-restricted default", ""},
		{"none", "", ""},
		{"none,lan", "", ""},
		{"", "", "must not be empty"},
		{"lan,lan", "", `duplicate netname "lan"`},
		{"all:x=y", "", "not supported by special netname"},
		{"lan:a:b", "", "invalid arguments"},
		{"nope,neither", "", "networks not found: neither, nope"},
	} {
		got, err := Select(conf, strings.Split(c.items, ","))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want an error with %q", c.items, err, c.err)
			}
			continue
		}
		var names []string
		for _, n := range got {
			s := n.List.Name
			if n.Args != "" {
				s += "(" + n.Args + ")"
			}
			names = append(names, s)
		}
		if err != nil || strings.Join(names, " ") != c.want {
			t.Errorf("%s: %q, %v, want %q", c.items, strings.Join(names, " "), err, c.want)
		}
	}
	all, err := load(conf, netsettings.Default())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if n.List.Name == "lan" && (len(n.List.Plugins) != 1 || n.List.Plugins[0].Network.Type != "macvlan") {
			t.Errorf("lan is %+v, want the first file of that name", n.List)
		}
	}
	for _, bad := range []string{"{", `{"name":"x"}`, `[]`, `{"name":"x","plugins":[]}`} {
		put("99-bad.conf", bad)
		if _, err := Select(conf, []string{"default"}); err == nil || !strings.Contains(err.Error(), "99-bad.conf") {
			t.Errorf("%s: %v, want the file named", bad, err)
		}
	}
}

func TestContained(t *testing.T) {
	for nets, want := range map[string]bool{"host": false, "default": true, "none": true, "lan,host": false, "": true} {
		if got := Contained(strings.Split(nets, ",")); got != want {
			t.Errorf("Contained(%q) = %t", nets, got)
		}
	}
}

func TestForwarding(t *testing.T) {
	lists := func(texts ...string) (out []Network) {
		for _, x := range texts {
			l, err := parse([]byte(x))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, Network{List: l})
		}
		return out
	}
	const plain, masq = `{"name":"a","type":"ptp"}`, `{"name":"b","type":"ptp","ipMasq":true}`
	for _, c := range []struct {
		in   []Network
		want int
	}{{lists(plain, masq, masq), 1}, {lists(plain, plain), 1}, {lists(masq), 0}, {nil, -1}} {
		if got := forwarding(c.in); got != c.want {
			t.Errorf("%d networks: %d, want %d", len(c.in), got, c.want)
		}
	}
}

func TestRuntimeConf(t *testing.T) {
	rc := runtimeConf("u", "/run/netns/x", attachment{IfName: "eth1", Args: "IP=1.2.3.4;junk;B=c=d", Ports: []Port{{HostPort: 80, PodPort: 8080, Protocol: "tcp", HostIP: "127.0.0.1"}}})
	if len(rc.Args) != 2 || rc.Args[1] != [2]string{"B", "c=d"} || rc.ContainerID != "u" || rc.IfName != "eth1" {
		t.Errorf("%+v", rc)
	}
	m, ok := rc.CapabilityArgs["portMappings"].([]map[string]any)
	if !ok || len(m) != 1 || m[0]["hostIP"] != "127.0.0.1" || m[0]["containerPort"] != 8080 {
		t.Errorf("%+v", rc.CapabilityArgs)
	}
}

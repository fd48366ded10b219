package network

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/hostnat"
)

var update = flag.Bool("update", false, "write the golden files")

// fakeNAT is the plugin without a kernel: the scripts it would run are kept.
func fakeNAT(t *testing.T) (*nat, *[]string) {
	t.Helper()
	dir := t.TempDir()
	for _, link := range []string{"veth1", "veth2", "rkt0"} {
		conf := filepath.Join(dir, "sys/ipv4/conf", link)
		if err := os.MkdirAll(conf, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(conf, "route_localnet"), []byte("0\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scripts := &[]string{}
	return &nat{
		store: &hostnat.Store{Dir: filepath.Join(dir, "nat"), Sysctl: filepath.Join(dir, "sys"), NFT: func(_ context.Context, s string) error {
			*scripts = append(*scripts, s)
			return nil
		}},
		links: func(names []string, addr netip.Addr) (string, error) {
			if addr != netip.MustParseAddr("172.16.28.1") && addr != netip.MustParseAddr("10.1.0.1") {
				return "", nil
			}
			for _, n := range names {
				if n == "veth1" || n == "veth2" || n == "rkt0" {
					return n, nil
				}
			}
			return "", nil
		},
	}, scripts
}

func natInput(link, addrs, ports string, masq bool) []byte {
	masquerade := "false"
	if masq {
		masquerade = "true"
	}
	return []byte(`{"cniVersion":"1.0.0","name":"n","type":"rkt-nat","ipMasq":` + masquerade + `,"runtimeConfig":{"portMappings":[` + ports + `]},
"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"` + link + `","mac":"00:00:00:00:00:01"},{"name":"eth0","sandbox":"/run/netns/x"}],"ips":[` + addrs + `]}}`)
}

const (
	pod2  = `{"interface":1,"address":"172.16.28.2/24","gateway":"172.16.28.1"}`
	pod3  = `{"interface":1,"address":"172.16.28.3/24","gateway":"172.16.28.1"}`
	pod6  = `{"interface":1,"address":"fd00::2/64","gateway":"fd00::1"}`
	lan   = `{"interface":1,"address":"10.1.0.9/16","gateway":"10.1.0.1"}`
	p80   = `{"hostPort":8080,"containerPort":80,"protocol":"tcp"}`
	p81   = `{"hostPort":8081,"containerPort":80,"protocol":"udp","hostIP":"172.16.28.1"}`
	p82   = `{"hostPort":8082,"containerPort":82,"protocol":"sctp","hostIP":"0.0.0.0"}`
	pV6   = `{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"2001:db8::1"}`
	pV6in = `{"hostPort":8083,"containerPort":80,"protocol":"TCP","hostIP":"::"}`
)

// TestNATScripts compares what nft gets in the life of some pods.
func TestNATScripts(t *testing.T) {
	n, scripts := fakeNAT(t)
	add := func(id string, in []byte) {
		t.Helper()
		out, err := n.plugin(t.Context(), "ADD", id, "eth0", in)
		if err != nil || !strings.Contains(string(out), `"ips"`) {
			t.Fatalf("%s: %s, %v", id, out, err)
		}
	}
	del := func(id string) {
		t.Helper()
		if _, err := n.plugin(t.Context(), "DEL", id, "eth0", []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	localnet := func(link string) string {
		b, err := os.ReadFile(filepath.Join(n.store.Sysctl, "ipv4/conf", link, "route_localnet"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	add("a", natInput("veth1", pod2+","+pod6, p80+","+p81+","+p82+","+pV6+","+pV6in, true))
	add("b", natInput("veth2", pod3, "", true))
	add("c", natInput("rkt0", lan, `{"hostPort":9000,"containerPort":9000,"protocol":"tcp"}`, false))
	if got := localnet("veth1") + localnet("veth2") + localnet("rkt0"); got != "101" {
		t.Errorf("127.0.0.1 reaches the links %s, want 101", got)
	}
	add("nothing", natInput("rkt0", lan, "", false))
	del("nothing")
	del("never there")
	del("a")
	del("a")
	del("c")
	if got := localnet("rkt0"); got != "0" {
		t.Error("127.0.0.1 still reaches the bridge")
	}
	del("b")
	got := strings.Join(*scripts, "\n--\n")
	golden := "testdata/nat.nft"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	left, _ := filepath.Glob(filepath.Join(n.store.Dir, "*.json"))
	if len(left) > 0 {
		t.Errorf("records left: %q", left)
	}
}

// TestNATAfterFlush: the quick way fails if the administrator has flushed the
// tables; then everything comes back. DEL never fails for it.
func TestNATAfterFlush(t *testing.T) {
	n, scripts := fakeNAT(t)
	if _, err := n.plugin(t.Context(), "ADD", "a", "eth0", natInput("veth1", pod2, p80, true)); err != nil {
		t.Fatal(err)
	}
	keep := n.store.NFT
	n.store.NFT = func(ctx context.Context, s string) error {
		_ = keep(ctx, s)
		if !strings.Contains(s, "add table") {
			return errors.New("no such file or directory")
		}
		return nil
	}
	if _, err := n.plugin(t.Context(), "ADD", "b", "eth0", natInput("veth2", pod3, `{"hostPort":8090,"containerPort":80,"protocol":"tcp"}`, true)); err != nil {
		t.Fatal(err)
	}
	if last := (*scripts)[len(*scripts)-1]; len(*scripts) != 3 || !strings.Contains(last, "8080 : 172.16.28.2") || !strings.Contains(last, "8090 : 172.16.28.3") {
		t.Errorf("%d scripts, the last one\n%s", len(*scripts), last)
	}
	// Two ends of one address: the host's interface keeps what the other needs.
	if err := n.store.DelPod(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if last := (*scripts)[len(*scripts)-1]; !strings.Contains(last, "8080 : 172.16.28.2") || strings.Contains(last, "8090") {
		t.Errorf("after the sweep\n%s", last)
	}
	n.store.NFT = func(context.Context, string) error { return errors.New("broken") }
	if _, err := n.plugin(t.Context(), "DEL", "a", "eth0", nil); err == nil {
		t.Error("a DEL that failed says nothing")
	}
	n.store.NFT = keep
	if _, err := n.plugin(t.Context(), "DEL", "a", "eth0", nil); err != nil {
		t.Errorf("DEL again: %v", err)
	}
}

func TestNATRefuses(t *testing.T) {
	port := func(s string) []byte { return natInput("veth1", pod2, s, false) }
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"no result":      {[]byte(`{"cniVersion":"1.0.0","name":"n"}`), "must come after a plugin"},
		"broken":         {[]byte(`{`), "unexpected end"},
		"broken result":  {[]byte(`{"cniVersion":"1.0.0","name":"n","prevResult":7}`), "reading the result"},
		"unknown result": {[]byte(`{"cniVersion":"7.0.0","name":"n","prevResult":{}}`), "reading the result"},
		"port 0":         {port(`{"hostPort":0,"containerPort":80,"protocol":"tcp"}`), "from 1 to 65535"},
		"port of 2^16":   {port(`{"hostPort":1,"containerPort":65536,"protocol":"tcp"}`), "from 1 to 65535"},
		"protocol":       {port(`{"hostPort":1,"containerPort":1,"protocol":"tcp; flush ruleset"}`), "cannot be forwarded"},
		"host address":   {port(`{"hostPort":1,"containerPort":1,"protocol":"tcp","hostIP":"1.2.3"}`), "no IP address"},
		"zone":           {natInput("veth1", pod6, `{"hostPort":1,"containerPort":1,"protocol":"tcp","hostIP":"fe80::1%x { }"}`, false), "not addresses"},
		"family":         {port(pV6), "no address of that family"},
		"no gateway":     {natInput("veth1", `{"address":"10.9.0.2/24"}`, p80, false), "no gateway"},
		"far gateway":    {natInput("veth1", `{"address":"10.9.0.2/24","gateway":"10.9.0.1"}`, p80, false), "no interface found with IP 10.9.0.1"},
	} {
		n, scripts := fakeNAT(t)
		if _, err := n.plugin(t.Context(), "ADD", "a", "eth0", c.in); err == nil || !strings.Contains(err.Error(), c.want) || len(*scripts) > 0 {
			t.Errorf("%s: %v, want %q; %d scripts", name, err, c.want, len(*scripts))
		}
	}
	n, _ := fakeNAT(t)
	if _, err := n.plugin(t.Context(), "ADD", "a", "eth0", port(p80)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.plugin(t.Context(), "ADD", "b", "eth0", natInput("veth2", pod3, p80, false)); err == nil || !strings.Contains(err.Error(), "is forwarded to pod a already") {
		t.Errorf("%v, want the holder named", err)
	}
	for _, bad := range [][2]string{{"", "eth0"}, {"a", ""}, {"../a", "eth0"}, {"a", "x/y"}} {
		if _, err := n.plugin(t.Context(), "DEL", bad[0], bad[1], nil); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, err := n.plugin(t.Context(), "VERSIONS", "a", "eth0", nil); err == nil {
		t.Error("an unknown command is accepted")
	}
}

// FuzzNATScript: whatever a plugin before and the command line say, a script
// has lines of known forms only.
func FuzzNATScript(f *testing.F) {
	f.Add(natInput("veth1", pod2+","+pod6, p80+","+p81, true))
	f.Add([]byte(`{"cniVersion":"0.2.0","name":"x\n","ipMasq":true,"prevResult":{"ip4":{"ip":"10.0.0.2/8","gateway":"10.0.0.1"}}}`))
	f.Add(natInput("veth1", `{"address":"::ffff:1.2.3.4/120"}`, p82, true))
	known := regexp.MustCompile(`^(add|flush|delete) (table|set|map|chain|rule|element) inet rkt( [a-z]+[46]?( .*)?)?$`)
	element := regexp.MustCompile(`^add element inet rkt [a-z]+[46]? \{ ("[A-Za-z0-9_.-]+"|[0-9a-f.:a-z]+( \. [0-9a-z.:]+){0,2}( : [0-9a-f.:]+ \. [0-9]+)?) \}$`)
	rule := regexp.MustCompile(`^add rule inet rkt [a-z]+ [-a-z0-9 .:@/!=]+$`)
	f.Fuzz(func(t *testing.T, in []byte) {
		var c natConf
		if json.Unmarshal(in, &c) != nil || len(c.PrevResult) == 0 {
			return
		}
		n := &nat{links: func(names []string, _ netip.Addr) (string, error) {
			if len(names) > 0 {
				return names[0], nil
			}
			return "", nil
		}}
		r, err := n.record(c, "id", "eth0")
		if err != nil {
			return
		}
		for _, line := range strings.Split(strings.TrimSuffix(hostnat.Script(r), "\n"), "\n") {
			if !known.MatchString(line) || strings.HasPrefix(line, "add element") && !element.MatchString(line) ||
				strings.HasPrefix(line, "add rule") && !rule.MatchString(strings.ReplaceAll(line, "_", "")) {
				t.Fatalf("the line %q comes of %q", line, in)
			}
		}
	})
}

package hostnat

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func forward(pod string) Forward {
	return Forward{HostPort: 80, PodPort: 8080, Protocol: "tcp", Pod: netip.MustParsePrefix(pod)}
}

// TestRecord: what is written comes back, and nothing else is taken for a record.
func TestRecord(t *testing.T) {
	r := Record{ID: "a", IfName: "eth0", Network: "n", Leaving: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/8")},
		Forwards: []Forward{forward("10.0.0.2/8"), {HostIP: netip.MustParseAddr("fd00::1"), HostPort: 1, PodPort: 2, Protocol: "udp", Pod: netip.MustParsePrefix("fd00::2/64")}}, Localnet: "veth-1.x", Restore: true}
	b, err := json.Marshal(r)
	var back Record
	if err != nil || json.Unmarshal(b, &back) != nil || back.Check() != nil || Script(back) != Script(r) {
		t.Errorf("%s, %v:\n%s", b, err, cmp.Diff(Script(r), Script(back)))
	}
	for name, change := range map[string]func(*Record){
		"link":      func(r *Record) { r.Localnet = `v" }; flush ruleset` },
		"wildcard":  func(r *Record) { r.Localnet = "veth*" },
		"long link": func(r *Record) { r.Localnet = "v123456789012345" },
		"protocol":  func(r *Record) { r.Forwards[0].Protocol = "icmp" },
		"port":      func(r *Record) { r.Forwards[0].HostPort = 0 },
		"pod":       func(r *Record) { r.Forwards[0].Pod = netip.Prefix{} },
		"leaving":   func(r *Record) { r.Leaving = []netip.Prefix{{}} },
		"family":    func(r *Record) { r.Forwards[0].HostIP = netip.MustParseAddr("::1") },
		"zone":      func(r *Record) { r.Forwards[1].HostIP = netip.MustParseAddr("fe80::1%x") },
	} {
		bad := r
		bad.Forwards = append([]Forward(nil), r.Forwards...)
		if change(&bad); bad.Check() == nil {
			t.Errorf("%s: %+v is accepted", name, bad)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b-eth0.json"), []byte(`{"localnet":"v*"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Store{Dir: dir}
	if err := s.Add(t.Context(), r); err == nil || !strings.Contains(err.Error(), "b-eth0.json") {
		t.Errorf("%v, want the broken record named", err)
	}
}

func TestClash(t *testing.T) {
	a := Record{ID: "a", Forwards: []Forward{forward("10.0.0.2/8")}}
	for name, c := range map[string]struct {
		f    Forward
		want bool
	}{
		"same":             {forward("10.0.0.3/8"), true},
		"other family":     {forward("fd00::3/64"), false},
		"other protocol":   {Forward{HostPort: 80, PodPort: 1, Protocol: "udp", Pod: netip.MustParsePrefix("10.0.0.3/8")}, false},
		"other port":       {Forward{HostPort: 81, PodPort: 8080, Protocol: "tcp", Pod: netip.MustParsePrefix("10.0.0.3/8")}, false},
		"at one's address": {Forward{HostIP: netip.MustParseAddr("10.9.9.9"), HostPort: 80, PodPort: 1, Protocol: "tcp", Pod: netip.MustParsePrefix("10.0.0.3/8")}, false},
	} {
		if got := (Record{ID: "b", Forwards: []Forward{c.f}}).clash([]Record{a}) != nil; got != c.want {
			t.Errorf("%s: clash %t", name, got)
		}
	}
}

// TestQuickAdd: only what needs no new rule goes the quick way.
func TestQuickAdd(t *testing.T) {
	a := Record{ID: "a", Forwards: []Forward{forward("10.0.0.2/8")}, Leaving: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/8")}}
	for name, c := range map[string]struct {
		r      Record
		others []Record
		want   bool
	}{
		"first":         {a, nil, false},
		"same subnet":   {Record{ID: "b", Leaving: []netip.Prefix{netip.MustParsePrefix("10.0.0.3/8")}}, []Record{a}, true},
		"other subnet":  {Record{ID: "b", Leaving: []netip.Prefix{netip.MustParsePrefix("10.0.0.3/16")}}, []Record{a}, false},
		"first forward": {Record{ID: "b", Forwards: []Forward{forward("10.0.0.3/8")}}, []Record{{Leaving: a.Leaving}}, false},
	} {
		script, ok := addScript(c.r, c.others)
		if ok != c.want || ok && (strings.Contains(script, "rule") || !strings.HasPrefix(script, "add element inet rkt ")) {
			t.Errorf("%s: %t\n%s", name, ok, script)
		}
	}
	if got := Script(); got != "add table inet rkt\ndelete table inet rkt\n" {
		t.Errorf("without records:\n%s", got)
	}
}

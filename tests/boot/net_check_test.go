//go:build boot

package boot

import (
	"strings"
	"testing"
)

// TestNetworkCommands: the list of networks, and the diagnosis of a pod's.
func TestNetworkCommands(t *testing.T) {
	f := life(t)
	f.network("40-mine.conflist", p2p("mine", 3))
	f.network("50-rec.conflist", recorded("rec"))
	f.network("60-old.conf", m{"cniVersion": "0.2.0", "name": "old", "type": "ptp", "ipam": m{"type": "host-local", "subnet": "10.78.4.0/24"}})
	before := f.snapshot()
	f.declare("checked", serverPod("checked", "mine,old,default"))
	f.start("checked")

	list := f.rkt("network", "list")
	for _, want := range [][]string{{"NAME", "TYPE", "SUBNET", "FILE", "PODS"}, {"mine", "ptp", "10.78.3.0/24", "/etc/rkt/net.d/40-mine.conflist", "checked"},
		{"rec", "recorder", "-", "/etc/rkt/net.d/50-rec.conflist", "-"}, {"old", "ptp", "10.78.4.0/24", "/etc/rkt/net.d/60-old.conf", "checked"}} {
		found := false
		for line := range strings.Lines(list) {
			found = found || strings.Join(strings.Fields(line), " ") == strings.Join(want, " ")
		}
		if !found {
			t.Errorf("rkt network list lacks %q:\n%s", want, list)
		}
	}
	contains(t, "rkt network list", list, "default-restricted", "172.31.0.0/16", "172.16.28.0/24")
	for _, n := range object[[]m](t, f.rkt("network", "list", "--format=json")) {
		if n["name"] == "mine" && (n["file"] != "/etc/rkt/net.d/40-mine.conflist" || len(n["pods"].([]any)) != 1) {
			t.Errorf("JSON: %v", n)
		}
	}

	states := func() map[string]string {
		t.Helper()
		out, errs, _ := f.Try("rkt", "network", "check", "--format=json", "checked")
		all := map[string]string{}
		if !strings.HasPrefix(out, "[") {
			t.Fatalf("no JSON: %s%s", out, errs)
		}
		for _, s := range object[[]m](t, out) {
			message, _ := s["message"].(string)
			all[s["network"].(string)] = s["state"].(string) + " " + message
		}
		return all
	}
	s := states()
	equal(t, "mine", s["mine"], "ok ")
	contains(t, "old", s["old"], "not checkable", "0.4.0")
	if strings.HasPrefix(s["default"], "failed") {
		t.Errorf("default: %s", s["default"])
	}
	f.rkt("network", "check", "checked")

	f.sh("ip -n checked addr flush dev eth0")
	contains(t, "without an address", states()["mine"], "failed", `"eth0" has not the address 10.78.3.`)
	f.sh("ip -n checked link delete eth1")
	contains(t, "without an interface", states()["old"], "failed", `no interface "eth1"`)
	f.refused(t, []string{"2 of the pod's networks are not as they were"}, "network", "check", "checked")
	f.sh("ip netns delete checked")
	contains(t, "without the namespace", states()["default"], "failed", `the network namespace "/run/netns/checked" is not there any more`)
	f.forget("checked")
	f.unchanged(before)
}

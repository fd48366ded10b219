package abi

import "testing"

func TestNetworkArgs(t *testing.T) {
	for _, n := range []Network{{}, {Check: "u"}, {Debug: true, LocalConfig: "/x", Check: "u"}, {LocalConfig: "/x"}} {
		if got, err := ParseNetwork(n.Args()); err != nil || got != n {
			t.Errorf("%q: %+v, %v", n.Args(), got, err)
		}
	}
	for _, args := range [][]string{{}, {"check"}, {"check", ""}, {"list", "x"}, {"--x", "list"}} {
		if n, err := ParseNetwork(args); err == nil {
			t.Errorf("%q: %+v", args, n)
		}
	}
}

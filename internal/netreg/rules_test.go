package netreg

import "testing"

func TestMasqueradeChain(t *testing.T) {
	// as made by the plugin "bridge" of Debian
	if got, want := masqueradeChain("default", "2b634ca2-e9aa-4173-89bf-bd694e264ab1"), "CNI-ae8977f3bee24e02037aee7e"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRemoval(t *testing.T) {
	const rules = `-P POSTROUTING ACCEPT
-N CNI-aa
-N CNI-ab
-A POSTROUTING -s 172.16.28.19/32 -m comment --comment "name: \"default\" id: \"x\"" -j CNI-aa
-A POSTROUTING -s 172.16.28.20/32 -m comment --comment "name: \"default\" id: \"y\"" -j CNI-ab
-A CNI-aa -d 172.16.28.0/24 -j ACCEPT
-A CNI-aa ! -d 224.0.0.0/4 -j MASQUERADE
`
	const want = `*nat
-D POSTROUTING -s 172.16.28.19/32 -m comment --comment "name: \"default\" id: \"x\"" -j CNI-aa
-F CNI-aa
-X CNI-aa
COMMIT
`
	if got := removal(rules, "CNI-aa"); got != want {
		t.Errorf("got %s", got)
	}
	if got := removal(rules, "CNI-a"); got != "" {
		t.Errorf("got %s", got)
	}
	if got := removal("-N CNI-c\n", "CNI-c"); got != "*nat\n-F CNI-c\n-X CNI-c\nCOMMIT\n" {
		t.Errorf("got %s", got)
	}
}

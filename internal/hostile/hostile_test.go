package hostile

import "testing"

// TestCases checks that there are enough cases and that names are unique.
func TestCases(t *testing.T) {
	cases := Cases("/decoy")
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.Name] {
			t.Errorf("%q appears twice", c.Name)
		}
		seen[c.Name] = true
		if c.Want != Harmless && c.List != nil {
			t.Errorf("%q has a listing, but may be refused", c.Name)
		}
		if c.Kind == ACI && len(c.Layers) != 1 {
			t.Errorf("%q has %d archives", c.Name, len(c.Layers))
		}
	}
	t.Logf("%d cases", len(cases))
	if len(cases) < 250 {
		t.Errorf("only %d cases", len(cases))
	}
}

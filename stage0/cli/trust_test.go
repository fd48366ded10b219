package cli

import (
	"strings"
	"testing"
)

// check list: 37
func TestYesOrNo(t *testing.T) {
	for _, c := range []struct {
		typed string
		want  bool
		fails bool
		asked int
	}{
		{"yes\n", true, false, 1}, {"no\n", false, false, 1}, {"y\nYES\n\n yes \n", true, false, 4}, {"maybe\nno\nyes\n", false, false, 2}, {"", false, true, 1}, {"yes", false, true, 1},
	} {
		var out strings.Builder
		got, err := yesOrNo(strings.NewReader(c.typed), &out)
		if got != c.want || (err != nil) != c.fails || strings.Count(out.String(), "(yes/no)?") != c.asked {
			t.Errorf("%q: %v, %v, asked %q", c.typed, got, err, out.String())
		}
	}
}

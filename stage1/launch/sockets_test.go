package launch

import (
	"slices"
	"testing"
)

func TestOwnSockets(t *testing.T) {
	for _, c := range []struct {
		n           int
		names, want string
		keep        []int
	}{
		{2, "app.socket:app.socket", "app.socket:app.socket", []int{3, 4}},
		{3, "rkt-log:app.socket:app.socket", "app.socket:app.socket", []int{4, 5}},
		{3, "app.socket:rkt-log:other", "app.socket:other", []int{3, 5}},
		{1, "rkt-log", "", nil},
		{0, "", "", nil},
		{1, "a:b:c", "a", []int{3}},
	} {
		keep, names := ownSockets(c.n, c.names)
		if !slices.Equal(keep, c.keep) || names != c.want {
			t.Errorf("ownSockets(%d, %q) = %v, %q, want %v, %q", c.n, c.names, keep, names, c.keep, c.want)
		}
	}
}

package podunit

import (
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

func TestLimits(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"none", ``, ""},
		{"memory", `[{"name":"resource/memory","value":{"limit":"256M","request":"64Mi"}}]`, "MemoryMax=256000000 MemoryLow=67108864"},
		{"cpu", `[{"name":"resource/cpu","value":{"limit":"1500m"}}]`, "CPUQuota=150%"},
		{"cpu as a number", `[{"name":"resource/cpu","value":{"limit":2}}]`, "CPUQuota=200%"},
		{"shares", `[{"name":"os/linux/cpu-shares","value":512}]`, "CPUWeight=50"},
		{"typing mistake of a suffix", `[{"name":"resource/memory","value":{"limit":"16m"}}]`, ""},
		{"junk", `[{"name":"resource/memory","value":{"limit":"12Q"}},{"name":"resource/memory"},{"value":1},7,null]`, ""},
		{"not a number", `[{"name":"resource/memory","value":{"limit":"nan"}},{"name":"resource/cpu","value":{"limit":"inf"}}]`, ""},
		{"too large", `[{"name":"resource/memory","value":{"limit":"99999999E"}}]`, ""},
		{"no resource", `[{"name":"os/linux/no-new-privileges","value":true}]`, ""},
	} {
		var got []string
		for _, d := range limits(podfile.Raw(c.in)) {
			got = append(got, d.Key+"="+strings.Join(d.Values, ","))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: limits(%s) = %q, want %q", c.name, c.in, g, c.want)
		}
	}
}

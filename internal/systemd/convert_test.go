package systemd

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConvert(t *testing.T) {
	defaults := map[string]any{"MemoryMax": uint64(0), "TimeoutStopUSec": uint64(0), "Nice": int32(0), "Restart": "no", "Delegate": false,
		"LogRateLimitBurst": uint32(0), "After": []string(nil), "Environment": []string(nil), "CPUQuotaPerSecUSec": uint64(0), "IPAddressAllow": [][]any{}}
	for _, c := range []struct {
		key, value string
		name       string
		want       any
	}{
		{"MemoryMax", "64M", "MemoryMax", uint64(64 << 20)},
		{"MemoryMax", "1.5G", "MemoryMax", uint64(3 << 29)},
		{"MemoryMax", "infinity", "MemoryMax", uint64(math.MaxUint64)},
		{"MemoryMax", "50%", "", nil},
		{"MemoryMax", "-1", "", nil},
		{"MemoryMax", "99999999T", "", nil},
		{"TimeoutStopSec", "1min 40s", "TimeoutStopUSec", uint64(100e6)},
		{"TimeoutStopSec", "soon", "", nil},
		{"Nice", "-5", "Nice", int32(-5)},
		{"Nice", "low", "", nil},
		{"Restart", "always", "Restart", "always"},
		{"Delegate", "yes", "Delegate", true},
		{"Delegate", "perhaps", "", nil},
		{"LogRateLimitBurst", "1000000", "LogRateLimitBurst", uint32(1e6)},
		{"After", "a.service  b.service", "After", []string{"a.service", "b.service"}},
		{"Environment", "A=b c", "Environment", []string{"A=b c"}},
		{"Environment", "A", "", nil},
		{"CPUQuota", "50%", "CPUQuotaPerSecUSec", uint64(500000)},
		{"CPUQuota", "50", "", nil},
		{"DeviceAllow", "char-pts rw", "DeviceAllow", []device{{"char-pts", "rw"}}},
		{"RestartForceExitStatus", "133 SIGTERM", "RestartForceExitStatus", exitStatuses{[]int32{133}, []int32{15}}},
		{"RestartForceExitStatus", "NOPE", "", nil},
		{"IPAddressAllow", "any", "", nil},
		{"NoSuchThing", "1", "", nil},
		{"NoSuchSec", "1", "", nil},
	} {
		name, got, err := convert(defaults, nil, Setting{c.key, c.value})
		if (err != nil) != (c.want == nil) {
			t.Errorf("%s=%s: %v, %v", c.key, c.value, got, err)
			continue
		}
		if err == nil && (name != c.name || !cmp.Equal(got, c.want)) {
			t.Errorf("%s=%s: %s=%v, want %s=%v", c.key, c.value, name, got, c.name, c.want)
		}
	}
	name, got, err := convert(defaults, map[string]any{"After": []string{"a.service"}}, Setting{"After", "b.service"})
	if err != nil || name != "After" || !cmp.Equal(got, []string{"a.service", "b.service"}) {
		t.Errorf("a list that grows: %v, %v", got, err)
	}
}

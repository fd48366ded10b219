package timespan

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"5": 5 * time.Second, "5min": 5 * time.Minute, "1h 30min": 90 * time.Minute, "1h30m": 90 * time.Minute, "1.5 s": 1500 * time.Millisecond, "2weeks": 14 * 24 * time.Hour,
		"": -1, "x": -1, "5 parsecs": -1, "infinity": -1, "-5s": -1, "5min x": -1, "1e9": -1, "99999999999weeks": -1, "1..5s": -1,
	} {
		got, ok := Parse(s)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("Parse(%q) = %v, want %v", s, got, want)
		}
	}
}

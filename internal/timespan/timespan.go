// Package timespan reads time spans as systemd.time(7) has them, up to a
// hundred years. It imports only the standard library: the generator links it.
package timespan

import (
	"strconv"
	"strings"
	"time"
)

// Parse reads a time span: "90", "5min", "1h 30min". A number alone is seconds.
func Parse(s string) (time.Duration, bool) {
	const day = 24 * time.Hour
	units := []struct {
		names string
		d     time.Duration
	}{
		{" usec us µs μs ", time.Microsecond}, {" msec ms ", time.Millisecond}, {" seconds second sec s ", time.Second},
		{" minutes minute min m ", time.Minute}, {" hours hour hr h ", time.Hour}, {" days day d ", day}, {" weeks week w ", 7 * day},
	}
	if len(s) > 64 {
		return 0, false
	}
	total := 0.0
	s = strings.TrimSpace(s)
	for first := true; s != "" || first; first = false {
		n := 0
		for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
			n++
		}
		value, err := strconv.ParseFloat(s[:n], 64)
		if err != nil {
			return 0, false
		}
		s = strings.TrimLeft(s[n:], " ")
		n = 0
		for n < len(s) && s[n] != ' ' && !(s[n] >= '0' && s[n] <= '9') {
			n++
		}
		unit := time.Second
		if n > 0 {
			unit = 0
			for _, u := range units {
				if strings.Contains(u.names, " "+s[:n]+" ") {
					unit = u.d
				}
			}
		}
		if unit == 0 {
			return 0, false
		}
		total += value * float64(unit)
		s = strings.TrimLeft(s[n:], " ")
	}
	if total > float64(100*365*day) {
		return 0, false
	}
	return time.Duration(total), true
}

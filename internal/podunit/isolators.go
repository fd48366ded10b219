package podunit

import (
	"math"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/podfile"
)

// limits are the directives that carry out the isolators of a whole pod: they
// bound the unit, and so everything in it. What is no resource, or is not
// understood, is left to stage0, which reports it. Directives the user gives
// come later in the file and win.
func limits(isolators podfile.Raw) []podfile.Directive {
	list, _ := jsonpos.Decode("", isolators)
	if list == nil {
		return nil
	}
	var out []podfile.Directive
	add := func(key, value string) { out = append(out, podfile.Directive{Key: key, Values: []string{value}}) }
	for _, i := range list.Items {
		name, value := i.Member("name"), i.Member("value")
		if name == nil || value == nil {
			continue
		}
		limit, hasLimit := quantity(value.Member("limit"))
		request, hasRequest := quantity(value.Member("request"))
		switch name.Text {
		case "resource/memory":
			if hasLimit && limit >= 4096 {
				add("MemoryMax", strconv.FormatInt(int64(limit), 10))
			}
			if hasRequest && request >= 4096 {
				add("MemoryLow", strconv.FormatInt(int64(request), 10))
			}
		case "resource/cpu":
			if percent := math.Floor(limit * 100); hasLimit && percent >= 1 && percent <= 100*100_000 {
				add("CPUQuota", strconv.FormatInt(int64(percent), 10)+"%")
			}
		case "os/linux/cpu-shares":
			if n, err := strconv.ParseInt(value.Text, 10, 64); err == nil {
				// systemd's own conversion: 1024 shares are weight 100
				add("CPUWeight", strconv.FormatInt(min(max(min(n, 1<<32)*100/1024, 1), 10000), 10))
			}
		}
	}
	return out
}

// quantity reads a resource quantity of the appc spec: a decimal number with a
// suffix, "500m", "64Mi", "1G".
func quantity(v *jsonpos.Value) (float64, bool) {
	if v == nil || v.Kind != jsonpos.String && v.Kind != jsonpos.Number {
		return 0, false
	}
	digits := strings.TrimRight(v.Text, "KMGTPEkmi")
	factor, ok := map[string]float64{"": 1, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}[v.Text[len(digits):]]
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n >= 0) || n*factor >= 1<<62 {
		return 0, false
	}
	return n * factor, true
}

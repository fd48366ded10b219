package pod

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

// Health is what the prober in the pod has found out about an app.
type Health struct {
	State  string // "starting", "healthy" or "unhealthy"
	Since  time.Time
	Output string // of the check that made it unhealthy
}

// AppHealth reads the health of an app; false if it has no check, or the pod does
// not run. Root of the pod could have written the file.
func (d *Pod) AppHealth(app string) (Health, bool) {
	if d.State != Running {
		return Health{}, false
	}
	name, err := d.stage1File(filepath.Join(podfs.HealthDir, app))
	if err != nil {
		return Health{}, false
	}
	b, err := d.ReadFile(name)
	var f struct {
		State, Output string
		Since         int64
	}
	if err != nil || len(b) > 4096 || json.Unmarshal(b, &f) != nil {
		return Health{}, false
	}
	switch f.State {
	case "starting", "healthy", "unhealthy":
	default:
		return Health{}, false
	}
	f.Output = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, f.Output)
	return Health{f.State, time.Unix(0, f.Since), f.Output}, true
}

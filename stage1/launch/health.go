package launch

import "time"

// Health says how the prober in the pod looks at the app; every field has its
// value, none is a default.
type Health struct {
	// Exec is a command of the app; without it, and without Port, the app itself
	// tells systemd.
	Exec []string `json:"exec,omitempty"`
	// Host and Port are where to connect in the pod's network, Host "" for the
	// pod's own addresses; Path is what to get there, "" for nothing.
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`
	Path string `json:"path,omitempty"`

	Interval      time.Duration `json:"interval"`
	Timeout       time.Duration `json:"timeout"`
	StartPeriod   time.Duration `json:"startPeriod"`
	StartInterval time.Duration `json:"startInterval"`
	Retries       int           `json:"retries"`
	// Action is what is done with an app that is unhealthy.
	Action string `json:"action"`
	// Ready has the pod wait until the app is healthy.
	Ready bool `json:"ready,omitempty"`
}

// What Health.Action can be.
const (
	RestartApp = "restart-app"
	RestartPod = "restart-pod"
)

// The health of an app.
const (
	Starting  = "starting"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// HealthDir has a file per app with a check, in the pod's root: HealthState.
const HealthDir = "/rkt/health"

// HealthState is what is known of an app's health.
type HealthState struct {
	State string `json:"state"`
	// Since is when it became that, in nanoseconds since 1970.
	Since int64 `json:"since"`
	// Output is what the check said that made it so.
	Output string `json:"output,omitempty"`
}

// MainProcess is the process ID of the app's main process in its root, 0 if
// there is none.
func MainProcess(app string) int {
	pid, _ := mainProcess(app)
	return pid
}

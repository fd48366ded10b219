package quadlet

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/rkt-systemd/rkt/internal/timespan"
	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// healthKey handles health checks.
func (k *container) healthKey(e entry) (bool, error) {
	span := func(key string) error {
		if e.value == "disable" {
			k.note(podimport.Dropped, e, "a check has an interval always; without a check use HealthCmd=none")
			return nil
		}
		if _, ok := timespan.Parse(e.value); !ok {
			return fmt.Errorf("%q is no time span", e.value)
		}
		k.health[key] = e.value
		return nil
	}
	switch e.key {
	case "HealthCmd":
		switch {
		case e.value == "none":
			k.app.Health = json.RawMessage("null")
		case strings.HasPrefix(e.value, "["):
			var words []string
			if err := json.Unmarshal([]byte(e.value), &words); err != nil {
				return true, err
			}
			k.health["exec"] = command(words)
		default:
			v := e.value
			if w, err := e.words(); err == nil && len(w) == 1 {
				v = w[0] // quoted as a whole
			}
			k.health["exec"] = command([]string{"CMD-SHELL", strings.TrimPrefix(v, "CMD-SHELL ")})
		}
	case "HealthInterval":
		return true, span("interval")
	case "HealthTimeout":
		return true, span("timeout")
	case "HealthStartPeriod":
		return true, span("startPeriod")
	case "HealthRetries":
		n, err := strconv.Atoi(e.value)
		if err != nil {
			return true, err
		}
		if n < 1 {
			n = 1
		}
		k.health["retries"] = n
	case "HealthOnFailure":
		switch e.value {
		case "none":
		case "restart":
			k.health["action"] = "restart-app"
		case "kill", "stop":
			k.health["action"] = "restart-pod"
			k.note(podimport.Changed, e, "the pod ends with status 250, and Restart= of its unit decides (\"action\": \"restart-pod\")")
		default:
			return true, fmt.Errorf("%q is no action", e.value)
		}
	case "HealthStartupInterval":
		return true, span("startInterval")
	case "HealthStartupCmd":
		k.note(podimport.Changed, e, "one check serves the start, too: HealthCmd= runs every \"startInterval\" until it succeeds")
	case "HealthStartupRetries", "HealthStartupSuccess", "HealthStartupTimeout":
		k.note(podimport.Dropped, e, "an app that starts is healthy with the first success; see \"startPeriod\"")
	case "HealthLogDestination", "HealthMaxLogCount", "HealthMaxLogSize":
		k.note(podimport.Dropped, e, "changes of health go to the journal: journalctl -u rkt@%s RKT_HEALTH=unhealthy", k.t.name)
	default:
		return false, nil
	}
	return true, nil
}

// command is a check as Docker writes it.
func command(words []string) []string {
	switch {
	case len(words) > 0 && words[0] == "CMD":
		return words[1:]
	case len(words) > 0 && words[0] == "CMD-SHELL":
		return []string{"/bin/sh", "-c", strings.Join(words[1:], " ")}
	}
	return words
}

func (k *container) healthDone() {
	if len(k.health) == 0 || k.app.Health != nil {
		return
	}
	raw, err := json.Marshal(k.health)
	if err == nil {
		k.app.Health = raw
	}
}

package compose

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// depends orders the pod, or the app in its pod, after others.
func (s *service) depends() error {
	for _, name := range sortedKeys(s.conf.DependsOn) {
		d := s.conf.DependsOn[name]
		key := "depends_on." + name
		if _, there := s.c.p.Services[name]; !there {
			s.note(podimport.Dropped, key, "no profile of that service is on")
			continue
		}
		if len(s.c.pods[name]) == 0 {
			s.note(podimport.Dropped, key, "the service is left out")
			continue
		}
		if slices.Contains(s.services, name) {
			s.unitD.Add("After", podimport.ACName(name))
			s.unitD.Add("Wants", podimport.ACName(name))
			if d.Condition == types.ServiceConditionHealthy || d.Condition == types.ServiceConditionCompletedSuccessfully {
				s.note(podimport.Changed, key, "both are apps of one pod, where one starts when the other has started, healthy or not")
			}
			continue
		}
		for _, pod := range s.c.pods[name] {
			other := "rkt@" + pod + ".service"
			if d.Condition == types.ServiceConditionCompletedSuccessfully {
				other = completed(pod)
			}
			s.depend("After", other)
			switch {
			case d.Condition == types.ServiceConditionCompletedSuccessfully:
				s.c.once("completed "+name, podimport.Changed, "services."+s.name+"."+key, "%s runs the pod %s and waits for its end, once after each boot", other, pod)
				if d.Required {
					s.depend("Requires", other)
				} else {
					s.depend("Wants", other)
				}
				continue
			case d.Condition == types.ServiceConditionHealthy && d.Required:
				s.depend("Requires", other)
			default:
				s.depend("Wants", other)
			}
			if d.Restart {
				s.depend("PartOf", other)
			}
		}
	}
	return nil
}

// completed is the unit of the host that runs a pod to its end: rkt@POD.service is
// started when the pod runs, and what comes after it does not wait any longer.
func completed(pod string) string { return "rkt-completed@" + pod + ".service" }

// health is the check; others may wait for it.
func (s *service) health() error {
	h := s.conf.HealthCheck
	if h.Disable || len(h.Test) > 0 && h.Test[0] == "NONE" {
		s.app.Health = json.RawMessage("false")
		return nil
	}
	out := map[string]any{}
	if len(h.Test) > 1 {
		out["exec"] = append([]string{}, h.Test[1:]...)
		if h.Test[0] == "CMD-SHELL" {
			out["exec"] = []string{"/bin/sh", "-c", strings.Join(h.Test[1:], " ")}
		}
	}
	wait := 0.0
	set := func(key string, d *types.Duration, low time.Duration) {
		if d == nil || *d == 0 {
			return
		}
		t := max(min(time.Duration(*d), 24*time.Hour), low)
		out[key] = seconds(types.Duration(t)).text
	}
	set("interval", h.Interval, 100*time.Millisecond)
	set("timeout", h.Timeout, 100*time.Millisecond)
	set("startPeriod", h.StartPeriod, 0)
	set("startInterval", h.StartInterval, 100*time.Millisecond)
	retries, interval := 3.0, 30.0
	if h.Retries != nil && *h.Retries > 0 {
		retries = float64(min(*h.Retries, 1000))
		out["retries"] = uint64(retries)
	}
	if h.Interval != nil && *h.Interval > 0 {
		interval = seconds(*h.Interval).seconds
	}
	if h.StartPeriod != nil {
		wait = seconds(*h.StartPeriod).seconds
	}
	if len(out) > 0 {
		b, err := json.Marshal(out)
		if err != nil {
			return err
		}
		s.app.Health = b
	}
	if wait += retries * interval; s.c.healthy[s.name] && wait > 240 {
		s.file.Systemd.Service.Set("TimeoutStartSec", strconv.Itoa(int(min(wait, 86400))+60)+"s")
	}
	return nil
}

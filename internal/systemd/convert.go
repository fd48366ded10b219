package systemd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rkt-systemd/rkt/internal/timespan"
	"golang.org/x/sys/unix"
)

// exitStatuses is (aiai) of D-Bus: exit statuses and signals.
type exitStatuses struct{ Status, Signal []int32 }

// device is an element of a(ss).
type device struct{ Path, Rights string }

// convert makes of a directive the property it stands for: its name on the bus
// and its value, of the type that the manager's default has. have are the values
// so far, which a list is added to.
func convert(defaults, have map[string]any, s Setting) (string, any, error) {
	name := s.Key
	switch s.Key {
	case "CPUQuota":
		n, ok := strings.CutSuffix(s.Value, "%")
		f, err := strconv.ParseFloat(n, 64)
		if !ok || err != nil || f <= 0 {
			return "", nil, errors.New("want a percentage of one processor, as 50%")
		}
		return "CPUQuotaPerSecUSec", uint64(f * 10000), nil
	case "SuccessExitStatus", "RestartForceExitStatus", "RestartPreventExitStatus":
		v, err := statuses(s.Value)
		return name, v, err
	case "DeviceAllow":
		path, rights, _ := strings.Cut(strings.TrimSpace(s.Value), " ")
		list, _ := have[name].([]device)
		return name, append(slices.Clone(list), device{path, strings.TrimSpace(rights)}), nil
	case "KillSignal", "RestartKillSignal", "FinalKillSignal", "WatchdogSignal":
		n, err := signal(s.Value)
		return name, n, err
	}
	if stem, ok := strings.CutSuffix(s.Key, "Sec"); ok {
		if _, known := defaults[stem+"USec"]; known {
			v, err := span(s.Value)
			return stem + "USec", v, err
		}
	}
	def, ok := defaults[name]
	if !ok {
		return "", nil, errors.New("this version of systemd has no such property for services")
	}
	v, err := typed(def, have[name], s)
	return name, v, err
}

// typed converts by the type of the default.
func typed(def, have any, s Setting) (any, error) {
	switch def.(type) {
	case bool:
		return boolean(s.Value)
	case string:
		return s.Value, nil
	case int32:
		n, err := strconv.ParseInt(s.Value, 10, 32)
		return int32(n), number(err)
	case uint32:
		n, err := strconv.ParseUint(s.Value, 10, 32)
		return uint32(n), number(err)
	case uint64:
		return size(s.Value)
	case []string:
		list, _ := have.([]string)
		words := strings.Fields(s.Value)
		if s.Key == "Environment" {
			if !strings.Contains(s.Value, "=") {
				return nil, errors.New("want NAME=VALUE")
			}
			words = []string{s.Value}
		}
		return append(slices.Clone(list), words...), nil
	}
	return nil, errors.New("rkt cannot set this property of a transient unit; declare the pod instead (rkt pod create)")
}

func number(err error) error {
	if err != nil {
		return errors.New("want a number")
	}
	return nil
}

func boolean(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, errors.New("want yes or no")
}

// size reads a number with the suffixes of sizes, to base 1024.
func size(s string) (uint64, error) {
	if s == "infinity" {
		return math.MaxUint64, nil
	}
	factor := uint64(1)
	text := strings.TrimSuffix(s, "B")
	if text != "" {
		if i := strings.IndexByte("KMGTPE", text[len(text)-1]); i >= 0 {
			factor = 1 << (10 * (i + 1))
			text = text[:len(text)-1]
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < 0 || f*float64(factor) >= math.MaxUint64 || math.IsNaN(f) {
		return 0, errors.New("want a number, with K, M, G or T after it if it is a size, or infinity")
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return n * factor, nil
	}
	return uint64(f * float64(factor)), nil
}

func span(s string) (uint64, error) {
	if s == "infinity" {
		return math.MaxUint64, nil
	}
	d, ok := timespan.Parse(s)
	if !ok {
		return 0, errors.New("want a time span, as 90 or 1min 30s")
	}
	return uint64(d / time.Microsecond), nil
}

func statuses(s string) (exitStatuses, error) {
	v := exitStatuses{[]int32{}, []int32{}}
	for _, w := range strings.Fields(s) {
		if n, err := strconv.ParseUint(w, 10, 8); err == nil {
			v.Status = append(v.Status, int32(n))
		} else if n, err := signal(w); err == nil {
			v.Signal = append(v.Signal, n)
		} else {
			return v, fmt.Errorf("%q is neither an exit status nor a signal", w)
		}
	}
	return v, nil
}

func signal(s string) (int32, error) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil && n > 0 && n <= 64 {
		return int32(n), nil
	}
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(s, "SIG")); n != syscall.Signal(0) {
		return int32(n), nil
	}
	return 0, fmt.Errorf("%q is no signal", s)
}

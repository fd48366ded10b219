package plan

import (
	"fmt"

	"github.com/appc/spec/schema/types"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// limit is a directive for the app's unit.
type limit struct{ key, value string }

func (p *Plan) isolators(s *launch.Spec, isolators types.Isolators, run abi.Run) ([]limit, error) {
	var limits []limit
	var retain, remove []string
	noNew := false
	for _, i := range isolators {
		switch v := i.Value().(type) {
		case *types.ResourceMemory:
			if l := v.Limit(); l != nil {
				limits = append(limits, limit{"MemoryMax", fmt.Sprint(l.Value())})
			}
			if r := v.Request(); r != nil {
				limits = append(limits, limit{"MemoryLow", fmt.Sprint(r.Value())})
			}
		case *types.ResourceCPU:
			if l := v.Limit(); l != nil {
				if l.MilliValue() < 10 {
					return nil, fmt.Errorf("resource/cpu: a limit of %s is less than a hundredth of a processor", l.String())
				}
				limits = append(limits, limit{"CPUQuota", fmt.Sprintf("%d%%", l.MilliValue()/10)})
			}
		case *types.LinuxCPUShares:
			// systemd's own conversion of shares to weights (1024 shares are weight 100)
			limits = append(limits, limit{"CPUWeight", fmt.Sprint(min(max(int64(*v)*100/1024, 1), 10000))})
		case *types.LinuxOOMScoreAdj:
			limits = append(limits, limit{"OOMScoreAdjust", fmt.Sprint(int(*v))})
		case *types.LinuxCapabilitiesRetainSet:
			retain = append(retain, capNames(v.Set())...)
		case *types.LinuxCapabilitiesRevokeSet:
			remove = append(remove, capNames(v.Set())...)
		case *types.LinuxNoNewPrivileges:
			noNew = noNew || bool(*v)
		case *types.LinuxSeccompRetainSet, *types.LinuxSeccompRemoveSet:
			if !run.DisableSeccomp {
				return nil, fmt.Errorf("isolator %q is not supported yet; --insecure-options=seccomp runs the app without a filter of its own", i.Name)
			}
		default:
			p.warn("app %q: isolator %q is not applied", s.Name, i.Name)
		}
	}
	s.NoNewPrivileges = noNew
	if !run.DisableSeccomp {
		s.Filter = FilterDir + "/app.bpf"
	}
	var err error
	s.Caps, err = capabilities(retain, remove)
	if run.DisableCaps {
		s.Caps = launch.AllCaps
	}
	return limits, err
}

// FilterDir holds the compiled filters in the pod's root.
const FilterDir = "/rkt/filters"

func capNames(set []types.LinuxCapability) []string {
	var out []string
	for _, c := range set {
		out = append(out, string(c))
	}
	return out
}

func capabilities(retain, remove []string) (uint64, error) {
	if len(retain) > 0 && len(remove) > 0 {
		return 0, fmt.Errorf("a capabilities retain set and a remove set exclude each other")
	}
	set := launch.DefaultCaps()
	if len(retain) > 0 {
		set = 0
	}
	for _, n := range retain {
		b, ok := launch.CapByName(n)
		if !ok {
			return 0, fmt.Errorf("capability %q is not known", n)
		}
		set |= b
	}
	for _, n := range remove {
		b, ok := launch.CapByName(n)
		if !ok {
			return 0, fmt.Errorf("capability %q is not known", n)
		}
		set &^= b
	}
	return set, nil
}

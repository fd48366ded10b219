package plan

import (
	"math"
	"slices"

	"github.com/appc/spec/schema/types"
)

// Bandwidth is what the pod's network lets pass each way, in bits a second; 0
// is no limit. The pod's own isolator counts, else those of its apps: they
// share one network, so the largest is the pod's, if all of them have one.
func Bandwidth(in Input) uint64 {
	if v, ok := bandwidth(in.Pod.Isolators); ok {
		return v
	}
	var most uint64
	for i := range in.Pod.Apps {
		v, ok := bandwidth(appOf(in, i).Isolators)
		if !ok {
			return 0
		}
		most = max(most, v)
	}
	return most
}

func appOf(in Input, i int) types.App {
	app := in.Pod.Apps[i].App
	if m := in.Images[in.Pod.Apps[i].Name.String()]; app == nil && m != nil {
		app = m.App
	}
	if app == nil {
		return types.App{}
	}
	return *app
}

// bandwidth is the last isolator of its kind, which has bytes a second.
func bandwidth(isolators types.Isolators) (bits uint64, ok bool) {
	for _, i := range isolators {
		v, is := i.Value().(*types.ResourceNetworkBandwidth)
		if !is || v.Limit() == nil || v.Limit().Value() < 1 {
			continue
		}
		bits, ok = uint64(min(v.Limit().Value(), math.MaxInt64/8))*8, true
	}
	return bits, ok
}

// warnBandwidth says where a limit cannot be kept as it is written.
func (p *Plan) warnBandwidth(in Input) {
	_, ofPod := bandwidth(in.Pod.Isolators)
	var with, without []string
	for i := range in.Pod.Apps {
		name := in.Pod.Apps[i].Name.String()
		if _, ok := bandwidth(appOf(in, i).Isolators); ok {
			with = append(with, name)
		} else {
			without = append(without, name)
		}
	}
	const name = types.ResourceNetworkBandwidthName
	switch {
	case !ofPod && len(with) == 0:
	case slices.Contains(in.Run.Net, "host"):
		p.warn("isolator %q is not applied: the pod uses the host's network", name)
	case ofPod && len(with) > 0:
		p.warn("isolator %q of app %q is not applied: the pod's own is, and apps share the pod's network", name, with[0])
	case ofPod || len(in.Pod.Apps) == 1:
	case len(without) > 0:
		p.warn("isolator %q of app %q is not applied: apps share the pod's network, and app %q has no limit; give the pod one", name, with[0], without[0])
	default:
		p.warn("apps share the pod's network: the largest %q of them, %d bits a second, is the whole pod's", name, Bandwidth(in))
	}
}

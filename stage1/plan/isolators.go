package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/appc/spec/schema/types"
	"github.com/appc/spec/schema/types/resource"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// page is the least memory that can be limited.
const page = 4096

// limit is a directive for the app's unit.
type limit struct{ key, value string }

// isolators turns an app's isolators into directives of its unit and entries
// of its record. docs/isolators.md has the table.
func (p *Plan) isolators(s *launch.Spec, isolators types.Isolators, in Input) ([]limit, error) {
	var limits []limit
	var retain, remove []string
	var calls *callFilter
	for _, i := range isolators {
		switch v := i.Value().(type) {
		case *types.ResourceMemory, *types.ResourceCPU, *types.LinuxCPUShares:
			l, err := resourceLimits(i)
			if err != nil {
				return nil, err
			}
			limits = append(limits, l...)
			p.controller(in, fmt.Sprintf("app %q: ", s.Name), i.Name, map[string]string{"resource/memory": "memory"}[i.Name.String()])
		case *types.LinuxOOMScoreAdj:
			limits = append(limits, limit{"OOMScoreAdjust", fmt.Sprint(int(*v))})
		case *types.ResourceBlockBandwidth:
			l, err := p.block(s, in, i.Name, v.Limit(), "rbps", "wbps")
			if err != nil {
				return nil, err
			}
			limits = append(limits, l...)
		case *types.ResourceBlockIOPS:
			l, err := p.block(s, in, i.Name, v.Limit(), "riops", "wiops")
			if err != nil {
				return nil, err
			}
			limits = append(limits, l...)
		case *types.LinuxCapabilitiesRetainSet:
			retain = append(retain, capNames(v.Set())...)
		case *types.LinuxCapabilitiesRevokeSet:
			remove = append(remove, capNames(v.Set())...)
		case *types.LinuxNoNewPrivileges:
			s.NoNewPrivileges = s.NoNewPrivileges || bool(*v)
		case types.LinuxSeccompSet:
			if calls != nil {
				return nil, fmt.Errorf("it has more than one isolator of system calls")
			}
			calls = newCallFilter(i.Name.String(), v)
		case *types.LinuxSELinuxContext:
			if !in.Facts.SELinux {
				p.warn("app %q: %s isolator set but SELinux is disabled in the kernel, skipping", s.Name, i.Name)
				continue
			}
			s.SELinux = fmt.Sprintf("%s:%s:%s:%s", v.User(), v.Role(), v.Type(), v.Level())
		case *appc.AppArmorProfile:
			switch {
			case !in.Facts.AppArmor:
				p.warn("app %q: %s isolator set but AppArmor is disabled in the kernel, skipping", s.Name, i.Name)
			case !slices.Contains(in.Facts.AppArmorProfiles, v.Profile()):
				return nil, fmt.Errorf("the AppArmor profile %q is not loaded; load it (apparmor_parser -r FILE)", v.Profile())
			default:
				s.AppArmor = v.Profile()
			}
		case *types.UnixSysctl:
			p.warn("app %q: isolator %q belongs to the pod and is not applied to an app", s.Name, i.Name)
		case *types.ResourceNetworkBandwidth: // Bandwidth is for the pod
			if v.Limit() == nil || v.Limit().Value() < 1 {
				return nil, fmt.Errorf("%s: it has no limit that lets anything pass", i.Name)
			}
		default:
			p.warn("app %q: isolator %q is not known and not applied", s.Name, i.Name)
		}
	}
	var err error
	if s.Caps, err = capabilities(retain, remove); err != nil {
		return nil, err
	}
	if !in.Run.DisableSeccomp {
		if err := p.filter(s, calls); err != nil {
			return nil, err
		}
	}
	if in.Run.DisableCaps {
		s.Caps = launch.AllCaps
	}
	return limits, nil
}

// controller warns when the kernel cannot carry out an isolator. The directive
// is written all the same: systemd skips it.
func (p *Plan) controller(in Input, who string, name types.ACIdentifier, controller string) bool {
	if controller == "" {
		controller = "cpu"
	}
	if slices.Contains(in.Facts.Controllers, controller) {
		return true
	}
	p.warn("%s%s isolator set but support disabled in the kernel, skipping", who, name)
	return false
}

// maxCPU is more processors than there are; systemd ignores much larger numbers
// instead of refusing them.
const maxCPU = 100_000

// resourceLimits are the directives of memory and processor isolators.
func resourceLimits(i types.Isolator) ([]limit, error) {
	var out []limit
	switch v := i.Value().(type) {
	case *types.ResourceMemory:
		for _, q := range []struct {
			key string
			q   *resource.Quantity
		}{{"MemoryMax", v.Limit()}, {"MemoryLow", v.Request()}} {
			if q.q == nil {
				continue
			}
			if q.q.Value() < page {
				return nil, fmt.Errorf("resource/memory: %s is less than a page; \"m\" means a thousandth, write M or Mi", q.q.String())
			}
			out = append(out, limit{q.key, fmt.Sprint(q.q.Value())})
		}
	case *types.ResourceCPU:
		if l := v.Limit(); l != nil {
			if l.MilliValue() < 10 {
				return nil, fmt.Errorf("resource/cpu: a limit of %s is less than a hundredth of a processor", l.String())
			}
			if l.MilliValue() > maxCPU*1000 {
				return nil, fmt.Errorf("resource/cpu: a limit of %s is more than %d processors", l.String(), maxCPU)
			}
			out = append(out, limit{"CPUQuota", fmt.Sprintf("%d%%", l.MilliValue()/10)})
		}
	case *types.LinuxCPUShares:
		// systemd's own conversion of shares to weights (1024 shares are weight 100)
		out = append(out, limit{"CPUWeight", fmt.Sprint(min(max(min(int64(*v), 1<<32)*100/1024, 1), 10000))})
	}
	return out, nil
}

// block limits reading and writing on each of the host's disks. The unit has
// the controller turned on, the launcher sets the numbers.
func (p *Plan) block(s *launch.Spec, in Input, name types.ACIdentifier, q *resource.Quantity, keys ...string) ([]limit, error) {
	if q == nil {
		return nil, fmt.Errorf("%s: it has no limit", name)
	}
	if q.Value() < 1 {
		return nil, fmt.Errorf("%s: a limit of %s lets nothing pass", name, q.String())
	}
	if !p.controller(in, fmt.Sprintf("app %q: ", s.Name), name, "io") {
		return nil, nil
	}
	if len(in.Facts.Disks) == 0 {
		p.warn("app %q: %s isolator set, but this host has no disk that could be limited, skipping", s.Name, name)
		return nil, nil
	}
	for _, d := range in.Facts.Disks {
		line := d
		for _, k := range keys {
			line += fmt.Sprintf(" %s=%d", k, q.Value())
		}
		s.IOMax = append(s.IOMax, line)
	}
	return []limit{{"IOAccounting", "yes"}}, nil
}

// podIsolators carries out those of the whole pod.
func (p *Plan) podIsolators(in Input) error {
	for _, i := range in.Pod.Isolators {
		switch v := i.Value().(type) {
		case *types.ResourceMemory, *types.ResourceCPU, *types.LinuxCPUShares:
			l, err := resourceLimits(i)
			if err != nil {
				return fmt.Errorf("the pod's isolators: %w", err)
			}
			p.controller(in, "the pod's ", i.Name, map[string]string{"resource/memory": "memory"}[i.Name.String()])
			switch {
			case in.Facts.Declared: // the generator made directives of the unit of it
			case in.Facts.InUnit:
				p.warn("isolator %q of the whole pod is not applied; limit the unit instead (systemctl set-property, systemd.resource-control(5))", i.Name)
			default:
				for _, l := range l {
					p.properties = append(p.properties, l.key+"="+l.value)
				}
			}
		case *types.UnixSysctl:
			if err := p.sysctl(in, *v); err != nil {
				return fmt.Errorf("the pod's isolator %s: %w", i.Name, err)
			}
		case *types.ResourceNetworkBandwidth: // Bandwidth is for the network
			if v.Limit() == nil || v.Limit().Value() < 1 {
				return fmt.Errorf("the pod's isolator %s: it has no limit that lets anything pass", i.Name)
			}
		default:
			p.warn("isolator %q of the whole pod is not applied", i.Name)
		}
	}
	return nil
}

// SysctlFile holds kernel parameters of the pod's IPC namespace in its root, as
// lines of PATH=VALUE; its PID 1 sets them.
const SysctlFile = "rkt/sysctl"

// Parameter is a kernel parameter, its path relative to /proc/sys.
type Parameter struct{ Path, Value string }

// sysctl accepts the parameters that belong to the pod's own namespaces.
func (p *Plan) sysctl(in Input, v map[string]string) error {
	var lines []string
	for key, value := range v {
		name := key
		if dot, slash := strings.IndexByte(key, '.'), strings.IndexByte(key, '/'); dot >= 0 && (slash < 0 || dot < slash) {
			// as sysctl.d(5): the first separator says which of the two it is
			name = strings.Map(func(r rune) rune {
				switch r {
				case '.':
					return '/'
				case '/':
					return '.'
				}
				return r
			}, key)
		}
		if name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_-./@") != "" ||
			slices.ContainsFunc(strings.Split(name, "/"), func(e string) bool { return e == "" || e == "." || e == ".." }) {
			return fmt.Errorf("%q cannot be the name of a kernel parameter", key)
		}
		if strings.ContainsAny(value, "\n\x00") {
			return fmt.Errorf("%q: the value %q is not one line", key, value)
		}
		ipc := strings.HasPrefix(name, "fs/mqueue/")
		for _, prefix := range []string{"kernel/shm", "kernel/msg", "kernel/sem"} {
			ipc = ipc || strings.HasPrefix(name, prefix)
		}
		switch {
		case strings.HasPrefix(name, "net/") && slices.Contains(in.Run.Net, "host"):
			return fmt.Errorf("%q would change the host's network, which this pod uses", key)
		case ipc && in.Run.IPC == "parent":
			return fmt.Errorf("%q would change the host's IPC, which this pod uses", key)
		case !ipc && !strings.HasPrefix(name, "net/"):
			return fmt.Errorf("%q belongs to the whole host; net.*, kernel.shm*, kernel.msg*, kernel.sem* and fs.mqueue.* are a pod's own", key)
		}
		if ipc {
			lines = append(lines, name+"="+value)
		} else {
			p.NetParameters = append(p.NetParameters, Parameter{name, value})
		}
	}
	slices.SortFunc(p.NetParameters, func(a, b Parameter) int { return strings.Compare(a.Path, b.Path) })
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	p.file(SysctlFile, 0o600, []byte(strings.Join(lines, "\n")+"\n"))
	return nil
}

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

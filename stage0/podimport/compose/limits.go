package compose

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// span is a duration as systemd writes it.
type span struct {
	text    string
	seconds float64
}

func seconds(d types.Duration) span {
	t := time.Duration(d)
	out := span{seconds: t.Seconds()}
	switch {
	case t <= 0:
		out.text = "0s"
	case t%time.Second == 0:
		out.text = strconv.FormatInt(int64(t/time.Second), 10) + "s"
	default:
		out.text = strconv.FormatInt(max(int64(t/time.Millisecond), 1), 10) + "ms"
	}
	return out
}

// resources are the bounds of memory, processors and processes; compose has two
// places for them, and compose-go makes sure that they agree.
func (s *service) resources() {
	c := s.conf
	mem, low, cpus, pids := c.MemLimit, c.MemReservation, c.CPUS, c.PidsLimit
	if c.Deploy != nil {
		if l := c.Deploy.Resources.Limits; l != nil {
			mem, cpus, pids = max(mem, l.MemoryBytes), max(cpus, l.NanoCPUs.Value()), max(pids, l.Pids)
			s.requested("deploy.resources.limits", l)
		}
		if r := c.Deploy.Resources.Reservations; r != nil {
			low = max(low, r.MemoryBytes)
			if r.NanoCPUs != 0 {
				s.note(podimport.Dropped, "deploy.resources.reservations.cpus", "processors cannot be reserved; give the pod a larger CPUWeight=")
			}
			if r.Pids != 0 {
				s.note(podimport.Dropped, "deploy.resources.reservations.pids", "processes cannot be reserved")
			}
			s.requested("deploy.resources.reservations", r)
		}
	}
	if mem > 0 {
		s.serviceD.Add("MemoryMax", strconv.FormatInt(int64(mem), 10))
	}
	if low > 0 {
		s.serviceD.Add("MemoryLow", strconv.FormatInt(int64(low), 10))
	}
	switch swap := c.MemSwapLimit; {
	case swap < 0:
		s.serviceD.Add("MemorySwapMax", "infinity")
	case swap > 0 && mem > 0 && swap >= mem:
		s.serviceD.Add("MemorySwapMax", strconv.FormatInt(int64(swap-mem), 10))
	case swap > 0:
		s.note(podimport.Dropped, "memswap_limit", "it counts memory and swap together, and has no meaning without mem_limit")
	}
	period := c.CPUPeriod
	if period <= 0 {
		period = 100_000
	}
	switch {
	case cpus > 0:
		s.serviceD.Add("CPUQuota", percent(float64(cpus)*100))
		if c.CPUQuota != 0 {
			s.note(podimport.Dropped, "cpu_quota", "cpus is given, too, and counts")
		}
	case c.CPUQuota > 0:
		s.serviceD.Add("CPUQuota", percent(float64(c.CPUQuota)*100/float64(period)))
	case c.CPUQuota < 0:
		s.note(podimport.Changed, "cpu_quota", "no bound is what an app has without it")
	}
	if c.CPUPeriod > 0 {
		s.serviceD.Add("CPUQuotaPeriodSec", strconv.FormatInt(min(max(c.CPUPeriod, 1000), 1_000_000), 10)+"us")
	}
	if c.CPUShares > 0 {
		s.serviceD.Add("CPUWeight", strconv.FormatInt(min(max(c.CPUShares*100/1024, 1), 10_000), 10))
	} else if c.CPUShares < 0 {
		s.note(podimport.Dropped, "cpu_shares", "%d is no weight", c.CPUShares)
	}
	if c.CPUSet != "" {
		if strings.Trim(c.CPUSet, "0123456789,-") == "" {
			s.file.Systemd.Service.Set("AllowedCPUs", strings.ReplaceAll(c.CPUSet, ",", " "))
		} else {
			s.note(podimport.Dropped, "cpuset", "%q is no list of processors", c.CPUSet)
		}
	}
	switch {
	case pids > 0:
		s.serviceD.Add("TasksMax", strconv.FormatInt(pids, 10))
	case pids < 0:
		s.serviceD.Add("TasksMax", "infinity")
	}
}

func (s *service) requested(key string, r *types.Resource) {
	if len(r.Devices) > 0 {
		s.note(podimport.Dropped, key+".devices", "rkt knows no GPUs: give the pod their device nodes and libraries as volumes of the host")
	}
	if len(r.GenericResources) > 0 {
		s.note(podimport.Dropped, key+".generic_resources", "of Docker's swarm")
	}
}

// percent has as much precision as systemd takes.
func percent(f float64) string {
	return strconv.FormatFloat(max(float64(int64(f*100))/100, 0.01), 'f', -1, 64) + "%"
}

// deploy reports what of a swarm's service a host alone has no use for; the rest
// is read by resources, restart and names.
func (s *service) deploy() error {
	d := s.conf.Deploy
	switch d.Mode {
	case "", "replicated":
	default:
		s.note(podimport.Changed, "deploy.mode", "%q: there is this host, and the pod runs on it", d.Mode)
	}
	if len(d.Labels) > 0 {
		s.note(podimport.Dropped, "deploy.labels", "of the swarm's service, which there is not; labels of the service itself are kept")
	}
	if d.UpdateConfig != nil {
		s.note(podimport.Dropped, "deploy.update_config", "write rkt.update into the pod file: a pod that does not become healthy goes back to the images before")
	}
	if d.RollbackConfig != nil {
		s.note(podimport.Dropped, "deploy.rollback_config", "rkt pod rollback goes back to the images before")
	}
	if p := d.Placement; len(p.Constraints)+len(p.Preferences) > 0 || p.MaxReplicas != 0 {
		s.note(podimport.Dropped, "deploy.placement", "there is this host alone; conditions of systemd.unit(5) can keep a pod from starting on others")
	}
	if d.EndpointMode != "" {
		s.note(podimport.Dropped, "deploy.endpoint_mode", "of the swarm's service; pods are found by their names")
	}
	return nil
}

// restart is the pod's; an app that shares its pod is restarted in it.
func (s *service) restart() {
	c := s.conf
	mode, attempts, _ := strings.Cut(c.Restart, ":")
	var delay, window string
	if c.Deploy != nil && c.Deploy.RestartPolicy != nil {
		p := c.Deploy.RestartPolicy
		switch p.Condition {
		case "none":
			mode = "no"
		case "on-failure":
			mode = "on-failure"
		default:
			mode = "always"
		}
		if p.Delay != nil {
			delay = seconds(*p.Delay).text
		}
		if p.MaxAttempts != nil {
			attempts = strconv.FormatUint(*p.MaxAttempts, 10)
		}
		if p.Window != nil {
			window = seconds(*p.Window).text
		}
		if c.Restart != "" {
			s.note(podimport.Dropped, "restart", "deploy.restart_policy is given, too, and counts")
		}
	}
	directive := ""
	switch mode {
	case "", "no", "false":
	case "always", "unless-stopped":
		directive = "always"
	case "on-failure":
		directive = "on-failure"
	default:
		s.note(podimport.Dropped, "restart", "%q is no policy", c.Restart)
	}
	if s.first && directive == "always" && !s.c.done[s.name] {
		s.file.Systemd.Install.Set("WantedBy", "multi-user.target")
	}
	if directive == "" {
		return
	}
	unit, service := &s.unitD, &s.serviceD
	if s.first && len(s.services) == 1 {
		unit, service = &s.file.Systemd.Unit, &s.file.Systemd.Service
	}
	if mode == "unless-stopped" {
		s.c.once("unless-stopped", podimport.Changed, "services."+s.name+".restart",
			"unless-stopped is as always: at boot a pod is started even if it was stopped by hand; systemctl disable has no effect, systemctl mask has")
	}
	service.Add("Restart", directive)
	if delay == "" {
		delay = "2s"
	}
	service.Add("RestartSec", delay)
	n, err := strconv.ParseUint(attempts, 10, 31)
	switch {
	case err == nil && n > 0:
		if window == "" || window == "0s" {
			window = "1h"
		}
		// the first start counts
		unit.Add("StartLimitBurst", strconv.FormatUint(n+1, 10))
		unit.Add("StartLimitIntervalSec", window)
		s.note(podimport.Changed, "restart", "given up after %d restarts within %s", n, window)
	default:
		if attempts != "" && err != nil {
			s.note(podimport.Dropped, "restart", "%q is no number of restarts", attempts)
		}
		unit.Add("StartLimitIntervalSec", "0")
	}
}

func (s *service) ulimits() error {
	const known = " core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack as "
	for _, name := range sortedKeys(s.conf.Ulimits) {
		l := s.conf.Ulimits[name]
		if l == nil || !strings.Contains(known, " "+name+" ") {
			s.note(podimport.Dropped, "ulimits."+name, "systemd has no such limit; see Limit…= in systemd.exec(5)")
			continue
		}
		soft, hard := l.Soft, l.Hard
		if l.Single != 0 || soft == 0 && hard == 0 {
			soft, hard = l.Single, l.Single
		}
		value := bound(soft)
		if soft != hard {
			value += ":" + bound(hard)
		}
		s.serviceD.Add("Limit"+strings.ToUpper(name), value)
	}
	return nil
}

func bound(n int) string {
	if n < 0 {
		return "infinity"
	}
	return strconv.Itoa(n)
}

func (s *service) sysctls() error {
	values := map[string]string{}
	for _, name := range sortedKeys(s.conf.Sysctls) {
		ok := false
		for _, p := range []string{"net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."} {
			ok = ok || strings.HasPrefix(name, p)
		}
		if !ok || s.conf.NetworkMode == "host" && strings.HasPrefix(name, "net.") {
			s.note(podimport.Dropped, "sysctls", "%q belongs to the host: set it in /etc/sysctl.d", name)
			continue
		}
		values[name] = s.conf.Sysctls[name]
	}
	if len(values) > 0 {
		s.isolator = append(s.isolator, isolator{"os/unix/sysctl", values})
	}
	return nil
}

// blkio bounds disks for the whole pod: only the host knows their paths.
func (s *service) blkio() error {
	b := s.conf.BlkioConfig
	if b.Weight > 0 {
		s.serviceD.Add("IOWeight", strconv.Itoa(min(max(int(b.Weight), 1), 10_000)))
	}
	add := func(key string, all []types.ThrottleDevice) {
		for _, d := range all {
			if !plainPath(d.Path) {
				s.note(podimport.Dropped, "blkio_config", "%q is no path of a device", d.Path)
				continue
			}
			s.file.Systemd.Service.Add(key, escape(d.Path)+" "+strconv.FormatInt(int64(d.Rate), 10))
		}
	}
	add("IOReadBandwidthMax", b.DeviceReadBps)
	add("IOReadIOPSMax", b.DeviceReadIOps)
	add("IOWriteBandwidthMax", b.DeviceWriteBps)
	add("IOWriteIOPSMax", b.DeviceWriteIOps)
	for _, d := range b.WeightDevice {
		if !plainPath(d.Path) {
			s.note(podimport.Dropped, "blkio_config", "%q is no path of a device", d.Path)
			continue
		}
		s.file.Systemd.Service.Add("IODeviceWeight", escape(d.Path)+" "+strconv.Itoa(max(int(d.Weight), 1)))
	}
	return nil
}

// plainPath is a path that a unit can name without quoting.
func plainPath(s string) bool {
	return strings.HasPrefix(s, "/") && !strings.ContainsAny(s, " \t\n\r\"'\\") && len(s) < 4000
}

// defaultCaps is what apps have in rkt, as in Docker.
func defaultCaps() []string {
	return strings.Fields("AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT")
}

// capabilities are the default set with those added and without those dropped.
func (s *service) capabilities() {
	c := s.conf
	if c.Privileged {
		s.file.Rkt.Profile = "trusted"
		s.note(podimport.Changed, "privileged", "the pod has the profile \"trusted\": nearly all capabilities, no filter of system calls and the host's user ids, but not all devices: list those under devices")
		if len(c.CapAdd)+len(c.CapDrop) > 0 {
			s.note(podimport.Dropped, "cap_add", "the profile says which capabilities there are")
		}
		return
	}
	if len(c.CapAdd)+len(c.CapDrop) == 0 {
		return
	}
	set := map[string]bool{}
	for _, name := range defaultCaps() {
		set[name] = true
	}
	name := func(s string) string { return strings.TrimPrefix(strings.ToUpper(s), "CAP_") }
	if slices.ContainsFunc(c.CapDrop, func(s string) bool { return name(s) == "ALL" }) {
		clear(set)
	}
	for _, n := range c.CapDrop {
		delete(set, name(n))
	}
	for _, n := range c.CapAdd {
		switch n = name(n); {
		case n == "ALL":
			s.file.Rkt.Profile = "trusted"
			s.note(podimport.Changed, "cap_add", "the pod has the profile \"trusted\", which gives nearly all capabilities, and no filter of system calls")
			return
		case strings.Trim(n, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" || n == "":
			s.note(podimport.Dropped, "cap_add", "%q is no capability", n)
		default:
			set[n] = true
			// what reaches beyond the pod has no effect with user ids of its own
			if n != "SYS_PTRACE" && !slices.Contains(defaultCaps(), n) && s.private == nil {
				s.hostUsers()
				s.note(podimport.Changed, "cap_add", "%s has no effect in a pod with user ids of its own: rkt.privateUsers is false", n)
			}
		}
	}
	if len(set) == 0 {
		var all []string
		for _, n := range defaultCaps() {
			all = append(all, "CAP_"+n)
		}
		s.iso = append(s.iso, isolator{"os/linux/capabilities-remove-set", map[string]any{"set": all}})
		return
	}
	var keep []string
	for _, n := range sortedKeys(set) {
		keep = append(keep, "CAP_"+n)
	}
	s.iso = append(s.iso, isolator{"os/linux/capabilities-retain-set", map[string]any{"set": keep}})
}

func (s *service) security() error {
	for _, opt := range s.conf.SecurityOpt {
		key, value, _ := strings.Cut(strings.Replace(opt, "=", ":", 1), ":")
		switch {
		case key == "no-new-privileges" && value != "false":
			s.iso = append(s.iso, isolator{"os/linux/no-new-privileges", true})
		case key == "no-new-privileges":
		case key == "seccomp" && value == "unconfined":
			s.iso = append(s.iso, isolator{"os/linux/seccomp-retain-set", map[string]any{"set": []string{"@appc.io/all"}}})
		case key == "seccomp":
			s.note(podimport.Dropped, "security_opt", "the app has rkt's filter of system calls, not that of %q; see docs/isolators.md for one of its own", value)
		case key == "apparmor" && value == "unconfined":
			s.note(podimport.Changed, "security_opt", "apps have no AppArmor profile unless they ask for one")
		case key == "apparmor" && value != "":
			s.iso = append(s.iso, isolator{"os/linux/apparmor-profile", map[string]any{"profile": value}})
		default:
			s.note(podimport.Dropped, "security_opt", "%q has no counterpart; see docs/isolators.md", opt)
		}
	}
	return nil
}

func (s *service) devices() error {
	for _, d := range s.conf.Devices {
		if !strings.HasPrefix(d.Source, "/") {
			s.note(podimport.Dropped, "devices", "%q: devices are named by paths", d.Source)
			continue
		}
		target := d.Target
		if target == "" {
			target = d.Source
		}
		readOnly := d.Permissions != "" && !strings.Contains(d.Permissions, "w")
		s.mount(target, d.Source[strings.LastIndexByte(d.Source, '/')+1:], map[string]any{"kind": "host", "source": d.Source}, readOnly)
		if !strings.HasPrefix(d.Source, "/dev/") {
			s.file.Systemd.Service.Add("DeviceAllow", escape(d.Source)+" rw")
		}
		if s.private == nil {
			s.hostUsers()
			s.note(podimport.Changed, "devices", "what counts for %s is its owner and mode on the host, hence rkt.privateUsers is false", d.Source)
		}
	}
	return nil
}

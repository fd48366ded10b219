package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/bounded"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/hostsfile"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/netreg"
	"github.com/rkt-systemd/rkt/internal/netsettings"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

func join(ctx context.Context, c Config, lists []Network, path string) (*Result, error) {
	res := &Result{}
	infos := []podfs.Network{}
	if len(c.Ports) > 0 && len(lists) == 0 {
		return nil, errors.New("ports cannot be forwarded: no network gives the pod an address (--net=none)")
	}
	s, err := loadSettings(c.LocalConfig)
	if err != nil {
		return nil, err
	}
	dirs := PluginDirs(c.LocalConfig, s.PluginDirs...)
	plugins := newRunner()
	if lists, res.Warnings, err = prepare(ctx, c, s, dirs, plugins, lists); err != nil {
		return nil, err
	}
	forward := forwarding(lists)
	for i := range lists {
		n := &lists[i]
		a := attachment{Conf: n.List.Bytes, IfName: fmt.Sprintf("eth%d", i), Args: n.Args, Bandwidth: c.Bandwidth, Path: dirs}
		if i == forward {
			a.Ports = c.Ports
		}
		name := fmt.Sprintf("%02d-%s.json", i, n.File)
		b, err := json.Marshal(a)
		if err == nil {
			err = atomicfile.WriteFileNoSync(filepath.Join(c.PodDir, podfs.NetDir, name), b, 0o640)
		}
		if err != nil {
			return nil, err
		}
		failpoint.Hit("network/recorded")
		r, err := add(ctx, c.PodDir, c.UUID, plugins, s, n.List, a, path)
		if err != nil {
			err = fmt.Errorf("joining network %q: %w", n.List.Name, err)
			if a.Refused = said(err); a.Refused {
				if b, merr := json.Marshal(a); merr == nil {
					err = errors.Join(err, atomicfile.WriteFileNoSync(filepath.Join(c.PodDir, podfs.NetDir, name), b, 0o640))
				}
			}
			return nil, err
		}
		failpoint.Hit("network/added")
		infos = append(infos, info(n, a, name, r))
		if len(r.DNS.Nameservers) > 0 || len(r.DNS.Search) > 0 || len(r.DNS.Options) > 0 || r.DNS.Domain != "" {
			if res.ResolvConf == nil {
				res.ResolvConf = resolvConf(n.List.Name, r)
			} else {
				res.Warnings = append(res.Warnings, fmt.Sprintf("network %s plugin specified DNS configuration, but DNS already supplied", n.List.Name))
			}
		}
	}
	b, err := json.Marshal(infos)
	if err != nil {
		return nil, err
	}
	return res, atomicfile.WriteFileNoSync(filepath.Join(c.PodDir, podfs.NetInfo), b, 0o644)
}

// prepare makes the lists that plugins get, and looks for all plugins before
// the first one runs.
func prepare(ctx context.Context, c Config, s netsettings.Settings, dirs []string, run *runner, lists []Network) ([]Network, []string, error) {
	if len(lists) == 0 {
		return lists, nil, nil
	}
	ctx, cancel := bounded.Limited(ctx, s.Wait())
	defer cancel()
	r := resolver{settings: s, iptables: bounded.FindTool("iptables") != "", firewall: s.Firewall == netsettings.On}
	var err error
	if r.backend, err = chooseBackend(s, bounded.FindTool); err != nil {
		return nil, nil, err
	}
	if s.Firewall == netsettings.Auto {
		if r.firewall, err = firewalled(ctx, bounded.FindTool, "/"); err != nil {
			return nil, nil, fmt.Errorf("asking iptables whether it forwards: %w", err)
		}
	}
	r.supports = func(ctx context.Context, plugin, want string) (bool, error) {
		path, err := run.FindInPath(plugin, dirs)
		if err != nil {
			return false, err
		}
		v, err := invoke.GetVersionInfo(ctx, path, run)
		if err != nil {
			return false, fmt.Errorf("asking plugin %q for its versions: %w", plugin, err)
		}
		return slices.Contains(v.SupportedVersions(), want), nil
	}
	lists, warnings, err := r.resolve(ctx, lists, len(c.Ports) > 0, c.Bandwidth > 0)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range lists {
		for _, p := range n.List.Plugins {
			for _, typ := range []string{p.Network.Type, p.Network.IPAM.Type} {
				if typ == "" {
					continue
				}
				if _, err := run.FindInPath(typ, dirs); err != nil {
					return nil, nil, fmt.Errorf("network %q: %w", n.List.Name, err)
				}
			}
		}
	}
	return lists, warnings, nil
}

func runtimeConf(uuid, netns string, a attachment) *libcni.RuntimeConf {
	rc := &libcni.RuntimeConf{ContainerID: uuid, NetNS: netns, IfName: a.IfName, CapabilityArgs: map[string]any{}}
	common := true
	for kv := range strings.SplitSeq(a.Args, ";") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		rc.Args = append(rc.Args, [2]string{k, v})
		switch k {
		case "IP":
			rc.CapabilityArgs["ips"] = strings.Split(v, ",")
		case "MAC":
			rc.CapabilityArgs["mac"] = v
		case "GATEWAY":
		default:
			common = false
		}
	}
	if common && len(rc.Args) > 0 {
		// All plugins of a list get them, and each knows but those of its own.
		rc.Args = append(rc.Args, [2]string{"IgnoreUnknown", "1"})
	}
	if len(a.Ports) > 0 {
		var maps []map[string]any
		for _, p := range a.Ports {
			m := map[string]any{"hostPort": p.HostPort, "containerPort": p.PodPort, "protocol": p.Protocol}
			if p.HostIP != "" {
				m["hostIP"] = p.HostIP
			}
			maps = append(maps, m)
		}
		rc.CapabilityArgs["portMappings"] = maps
	}
	if a.Bandwidth > 0 {
		burst := burst(a.Bandwidth)
		rc.CapabilityArgs["bandwidth"] = map[string]uint64{"ingressRate": a.Bandwidth, "ingressBurst": burst, "egressRate": a.Bandwidth, "egressBurst": burst}
	}
	return rc
}

// burst is what may pass at once, in bits: a twentieth of a second's, but
// several packets, and no more than the kernel's filter holds.
func burst(rate uint64) uint64 { return min(max(rate/20, 40*1500*8), 1<<31) }

func client(podDir string, dirs []string, run *runner) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(dirs, filepath.Join(podDir, podfs.NetDir, "cache"), run)
}

// lockNetwork waits until no other pod joins or leaves the network: plugins
// lock for themselves at best, and by one at a time each is faster.
func lockNetwork(ctx context.Context, name string) (func(), error) {
	if err := os.MkdirAll(netreg.Dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(netreg.Dir, ".lock-"+name)
	if f, err := lock.TryPath(path, lock.Exclusive); err == nil {
		return func() { f.Close() }, nil
	}
	type outcome struct {
		f   *os.File
		err error
	}
	got := make(chan outcome, 1)
	go func() {
		f, err := lock.Path(path, lock.Exclusive)
		got <- outcome{f, err}
	}()
	select {
	case o := <-got:
		if o.err != nil {
			return nil, fmt.Errorf("waiting for other pods of the network: %w", o.err)
		}
		return func() { o.f.Close() }, nil
	case <-ctx.Done():
		go func() {
			if o := <-got; o.err == nil {
				o.f.Close()
			}
		}()
		return nil, fmt.Errorf("waiting for other pods of the network: %w", context.Cause(ctx))
	}
}

func add(ctx context.Context, podDir, uuid string, run *runner, s netsettings.Settings, list *libcni.NetworkConfigList, a attachment, netns string) (*current.Result, error) {
	unlock, err := lockNetwork(ctx, list.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ctx, cancel := bounded.Limited(ctx, s.Wait())
	defer cancel()
	r, err := client(podDir, a.Path, run).AddNetworkList(ctx, list, runtimeConf(uuid, netns, a))
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, errors.New("its plugins gave no result")
	}
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, fmt.Errorf("its plugins gave a result that cannot be read: %w", err)
	}
	return res, checkResult(res)
}

// checkResult bounds what a plugin's result brings into files of the pod.
func checkResult(r *current.Result) error {
	const most = 100
	if len(r.IPs) > most || len(r.Interfaces) > most || len(r.DNS.Nameservers)+len(r.DNS.Search)+len(r.DNS.Options) > most {
		return fmt.Errorf("its plugins gave more than %d addresses, interfaces or names", most)
	}
	for _, ip := range r.IPs {
		if ip == nil || len(ip.Address.IP) == 0 {
			return errors.New("its plugins gave an address that is none")
		}
	}
	for _, i := range r.Interfaces {
		if i == nil {
			return errors.New("its plugins gave an interface that is none")
		}
	}
	for _, word := range slices.Concat(r.DNS.Nameservers, r.DNS.Search, r.DNS.Options, []string{r.DNS.Domain}) {
		if strings.ContainsFunc(word, func(c rune) bool { return c <= ' ' || c == 0x7f }) || len(word) > 255 {
			return fmt.Errorf("its plugins gave %s for resolv.conf, which is not one word", bounded.Quote([]byte(word)))
		}
	}
	return nil
}

func info(n *Network, a attachment, file string, r *current.Result) podfs.Network {
	in := podfs.Network{NetName: n.List.Name, NetConf: podfs.NetDir + "/" + file, IfName: a.IfName, Args: a.Args, Forwards: len(a.Ports) > 0}
	if len(n.List.Plugins) > 0 {
		in.PluginPath = n.List.Plugins[0].Network.Type
	}
	for _, ip := range r.IPs {
		switch v4 := ip.Address.IP.To4(); {
		case v4 != nil && in.IP == "":
			in.IP, in.Mask = v4.String(), net.IP(ip.Address.Mask).String()
		case v4 == nil && in.IP6 == "":
			in.IP6 = ip.Address.IP.String()
		}
	}
	return in
}

func resolvConf(name string, r *current.Result) []byte {
	return []byte(hostsfile.Resolv{Servers: r.DNS.Nameservers, Search: r.DNS.Search, Options: r.DNS.Options, Domain: r.DNS.Domain}.
		String("Generated by rkt from network " + name))
}

// del leaves a network by the list that was joined. A plugin that fails does
// not keep the others from it, and each has its own time.
func del(ctx context.Context, podDir, uuid, localConfig, netns, file string, interrupted bool, warn func(string)) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var a attachment
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("reading %q: %w", file, err)
	}
	list, err := libcni.NetworkConfFromBytes(a.Conf)
	if err != nil {
		return fmt.Errorf("reading %q: %w", file, err)
	}
	s, err := loadSettings(localConfig)
	if err != nil {
		s = netsettings.Default() // settings that broke since must not keep the pod
	}
	if len(a.Path) == 0 {
		a.Path = PluginDirs(localConfig, s.PluginDirs...)
	}
	unlock, err := lockNetwork(ctx, list.Name)
	if err != nil {
		return fmt.Errorf("leaving network %q: %w", list.Name, err)
	}
	defer unlock()
	run := newRunner()
	left, lost := withoutLost(run, a.Path, list)
	if err := delList(ctx, client(podDir, a.Path, run), run, s, left, runtimeConf(uuid, netns, a), a.Path); err != nil {
		err = fmt.Errorf("leaving network %q: %w", list.Name, err)
		if !a.Refused || !said(err) {
			return err
		}
		// It did not join, and says why it cannot leave: asking again is no use.
		if serr := sweep(ctx, list, uuid); serr != nil {
			return errors.Join(err, serr)
		}
		warn(err.Error())
		return nil
	}
	if len(lost) > 0 {
		return leaveWithout(ctx, list.Name, uuid, lost, warn)
	}
	cached := filepath.Join(podDir, podfs.NetDir, "cache", "results", fmt.Sprintf("%s-%s-%s", list.Name, uuid, a.IfName))
	if err := os.Remove(cached); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if interrupted {
		ctx, cancel := bounded.Limited(ctx, s.Wait())
		defer cancel()
		return netreg.RemoveRules(ctx, list.Name, uuid, false)
	}
	return nil
}

// said reports whether the error is what plugins themselves say, and nothing else.
func said(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(many.Unwrap(), func(e error) bool { return !said(e) })
	}
	if _, ok := err.(*types.Error); ok {
		return true
	}
	inner := errors.Unwrap(err)
	return inner != nil && said(inner)
}

// sweep removes what standard plugins leave outside the namespace.
func sweep(ctx context.Context, list *libcni.NetworkConfigList, uuid string) error {
	var all []lostPlugin
	for _, p := range list.Plugins {
		all = append(all, lostPlugin{conf: p})
	}
	return leaveWithout(ctx, list.Name, uuid, all, func(string) {})
}

// delList is libcni's DelNetworkList that goes on after a failure.
func delList(ctx context.Context, cni *libcni.CNIConfig, run *runner, s netsettings.Settings, list *libcni.NetworkConfigList, rc *libcni.RuntimeConf, dirs []string) error {
	inject := map[string]any{"name": list.Name, "cniVersion": list.CNIVersion}
	if ok, err := version.GreaterThanOrEqualTo(list.CNIVersion, "0.4.0"); err == nil && ok {
		// a result that was not cached any more is no reason to leave anything
		if prev, err := cni.GetNetworkListCachedResult(list, rc); err == nil && prev != nil {
			inject["prevResult"] = prev
		}
	}
	args := &invoke.Args{Command: "DEL", ContainerID: rc.ContainerID, NetNS: rc.NetNS, PluginArgs: rc.Args, IfName: rc.IfName, Path: strings.Join(dirs, ":")}
	var errs []error
	for _, p := range slices.Backward(list.Plugins) {
		with := map[string]any{}
		for name, on := range p.Network.Capabilities {
			if v, ok := rc.CapabilityArgs[name]; ok && on {
				with[name] = v
			}
		}
		if inject["runtimeConfig"] = with; len(with) == 0 {
			delete(inject, "runtimeConfig")
		}
		err := func() error {
			path, err := run.FindInPath(p.Network.Type, dirs)
			if err != nil {
				return err
			}
			conf, err := libcni.InjectConf(p, inject)
			if err != nil {
				return err
			}
			ctx, cancel := bounded.Limited(ctx, s.Wait())
			defer cancel()
			return invoke.ExecPluginWithoutResult(ctx, path, conf.Bytes, args, run)
		}()
		if err != nil {
			errs = append(errs, fmt.Errorf("plugin %q failed (delete): %w", p.Network.Type, err))
		}
	}
	return errors.Join(errs...)
}

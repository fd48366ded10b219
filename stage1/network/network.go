// Package network gives a pod its network namespace and connects it with CNI
// plugins. What was done is written to the pod directory before it is done, so
// that Teardown can undo it after any crash, also when the configuration has
// changed since. It runs in rkt-stage1 only; nothing else sees libcni.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/hostsfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// pluginTimeout bounds one run of a plugin chain; DHCP alone may take 30 s.
const pluginTimeout = 60 * time.Second

// Config says which networks a pod is to join.
type Config struct {
	PodDir      string
	LocalConfig string
	UUID        string
	// Nets are items "name" or "name:ARGS".
	Nets  []string
	Ports []Port
}

// Port forwards a port of the host to one of the pod.
type Port struct {
	HostIP   string
	HostPort int
	PodPort  int
	Protocol string
}

// attachment is what DEL needs, saved before ADD.
type attachment struct {
	Conf   json.RawMessage `json:"conf"`
	IfName string          `json:"ifName"`
	Args   string          `json:"args,omitempty"`
	Ports  []Port          `json:"ports,omitempty"`
}

// Contained reports whether nets ask for a network namespace of the pod's own.
func Contained(nets []string) bool { return !slices.Contains(nets, "host") }

// Result is what a set-up gave.
type Result struct {
	// ResolvConf is generated from the first network that names resolvers.
	ResolvConf []byte
	Warnings   []string
}

func netnsPath(uuid string) string { return "/run/netns/rkt-" + uuid }

// Setup makes the pod's network namespace, moves the calling thread into it
// (the goroutine must be locked to it) and joins the networks. On failure
// everything is undone.
func Setup(ctx context.Context, c Config) (*Result, error) {
	lists, err := Select(c.LocalConfig, c.Nets)
	if err != nil {
		return nil, err
	}
	path := netnsPath(c.UUID)
	if err := atomicfile.WriteFileNoSync(filepath.Join(c.PodDir, podfs.Netns), []byte(path), 0o644); err != nil {
		return nil, err
	}
	failpoint.Hit("network/netns-recorded")
	if err := newNamespace(path); err != nil {
		return nil, errors.Join(fmt.Errorf("making the network namespace: %w", err), Teardown(context.WithoutCancel(ctx), c.PodDir, c.UUID, c.LocalConfig))
	}
	failpoint.Hit("network/netns-made")
	type outcome struct {
		res *Result
		err error
	}
	// Plugins run in the host's network namespace: a goroutine of its own is
	// on a thread that never left it.
	done := make(chan outcome)
	go func() {
		res, err := join(ctx, c, lists, path)
		done <- outcome{res, err}
	}()
	o := <-done
	if o.err != nil {
		return nil, errors.Join(o.err, Teardown(context.WithoutCancel(ctx), c.PodDir, c.UUID, c.LocalConfig))
	}
	return o.res, nil
}

func join(ctx context.Context, c Config, lists []Network, path string) (*Result, error) {
	res := &Result{}
	infos := []podfs.Network{}
	forward := forwarding(lists)
	if len(c.Ports) > 0 && forward < 0 {
		return nil, errors.New("ports cannot be forwarded: no network gives the pod an address (--net=none)")
	}
	if err := os.MkdirAll(filepath.Join(c.PodDir, podfs.NetDir), 0o750); err != nil {
		return nil, err
	}
	for i := range lists {
		n := &lists[i]
		a := attachment{Conf: n.List.Bytes, IfName: fmt.Sprintf("eth%d", i), Args: n.Args}
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
		r, err := add(ctx, c, n.List, a, path)
		if err != nil {
			return nil, fmt.Errorf("joining network %q: %w", n.List.Name, err)
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

// forwarding is the network whose address ports are forwarded to: the first
// that masquerades, else the last.
func forwarding(lists []Network) int {
	for i, n := range lists {
		var conf struct {
			IPMasq bool `json:"ipMasq"`
		}
		if len(n.List.Plugins) > 0 && json.Unmarshal(n.List.Plugins[0].Bytes, &conf) == nil && conf.IPMasq {
			return i
		}
	}
	return len(lists) - 1
}

func runtimeConf(uuid, netns string, a attachment) *libcni.RuntimeConf {
	rc := &libcni.RuntimeConf{ContainerID: uuid, NetNS: netns, IfName: a.IfName}
	for kv := range strings.SplitSeq(a.Args, ";") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			rc.Args = append(rc.Args, [2]string{k, v})
		}
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
		rc.CapabilityArgs = map[string]any{"portMappings": maps}
	}
	return rc
}

func client(podDir, localConfig string) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(PluginDirs(localConfig), filepath.Join(podDir, podfs.NetDir, "cache"), nil)
}

func add(ctx context.Context, c Config, list *libcni.NetworkConfigList, a attachment, netns string) (*current.Result, error) {
	for _, p := range list.Plugins {
		if err := findPlugin(c.LocalConfig, p.Network.Type); err != nil {
			return nil, err
		}
		if p.Network.IPAM.Type != "" {
			if err := findPlugin(c.LocalConfig, p.Network.IPAM.Type); err != nil {
				return nil, err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	r, err := client(c.PodDir, c.LocalConfig).AddNetworkList(ctx, list, runtimeConf(c.UUID, netns, a))
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(r)
}

func info(n *Network, a attachment, file string, r *current.Result) podfs.Network {
	in := podfs.Network{NetName: n.List.Name, NetConf: podfs.NetDir + "/" + file, IfName: a.IfName, Args: a.Args}
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

// Teardown leaves every network recorded in the pod directory and removes the
// namespace. It may be repeated; what is gone already is no error.
func Teardown(ctx context.Context, podDir, uuid, localConfig string) error {
	// As in Setup: the caller's thread may be in the pod's network namespace,
	// the plugins have to run in the host's.
	done := make(chan error)
	go func() { done <- teardown(ctx, podDir, uuid, localConfig) }()
	return <-done
}

func teardown(ctx context.Context, podDir, uuid, localConfig string) error {
	b, err := os.ReadFile(filepath.Join(podDir, podfs.Netns))
	if errors.Is(err, os.ErrNotExist) {
		return nil // the host's network, or torn down before
	}
	if err != nil {
		return err
	}
	path := string(b)
	if path != netnsPath(uuid) {
		return fmt.Errorf("%s names %q, which is not this pod's network namespace", podfs.Netns, path)
	}
	netns := path
	if !isNamespace(path) {
		netns = "" // after a reboot; plugins then release what they keep elsewhere
	}
	dir := filepath.Join(podDir, podfs.NetDir)
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	// without a namespace plugins do not find the addresses whose rules are to go
	interrupted := netns == ""
	if len(names) > 0 && !interrupted {
		if interrupted, err = begun(podDir); err != nil {
			return err
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	var errs []error
	for _, name := range names {
		if err := del(ctx, podDir, uuid, localConfig, netns, name, interrupted); err != nil {
			errs = append(errs, err)
			continue
		}
		failpoint.Hit("network/deleted")
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := removeNamespace(path); err != nil {
		errs = append(errs, fmt.Errorf("removing the network namespace: %w", err))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return os.Remove(filepath.Join(podDir, podfs.Netns))
}

func del(ctx context.Context, podDir, uuid, localConfig, netns, file string, interrupted bool) error {
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
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	if err := client(podDir, localConfig).DelNetworkList(ctx, list, runtimeConf(uuid, netns, a)); err != nil {
		return fmt.Errorf("leaving network %q: %w", list.Name, err)
	}
	if interrupted {
		return sweepMasquerade(ctx, list.Name, uuid)
	}
	return nil
}

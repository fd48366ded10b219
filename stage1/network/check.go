package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/bounded"
	"github.com/rkt-systemd/rkt/internal/netreg"
	"github.com/rkt-systemd/rkt/internal/netsettings"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// List tells of the networks that pods can be put into.
func List(localConfig string) ([]abi.ConfiguredNetwork, error) {
	nets, err := Select(localConfig, []string{"all"})
	if err != nil {
		return nil, err
	}
	out := []abi.ConfiguredNetwork{}
	for _, n := range nets {
		c := abi.ConfiguredNetwork{Name: n.List.Name, File: n.place}
		for _, p := range n.List.Plugins {
			c.Types = append(c.Types, p.Network.Type)
			c.Subnets = append(c.Subnets, subnets(p.Bytes)...)
		}
		out = append(out, c)
	}
	return out, nil
}

// subnets are those that host-local gives addresses of.
func subnets(conf []byte) []string {
	type one struct {
		Subnet string `json:"subnet"`
	}
	var c struct {
		IPAM struct {
			one
			Ranges [][]one `json:"ranges"`
		} `json:"ipam"`
	}
	if json.Unmarshal(conf, &c) != nil {
		return nil // of another plugin's form
	}
	var out []string
	for _, set := range append([][]one{{c.IPAM.one}}, c.IPAM.Ranges...) {
		for _, r := range set {
			if r.Subnet != "" && !slices.Contains(out, r.Subnet) {
				out = append(out, r.Subnet)
			}
		}
	}
	return out
}

// Check looks whether what a running pod's networks made is still there: the
// namespace, the interfaces with their addresses, and what plugins find by CHECK
// from what was saved at ADD. It changes nothing.
func Check(ctx context.Context, podDir, uuid, localConfig string) ([]abi.NetworkState, error) {
	noted, err := os.ReadFile(filepath.Join(podDir, podfs.Netns))
	if errors.Is(err, os.ErrNotExist) {
		return []abi.NetworkState{}, nil // the host's network
	}
	if err != nil {
		return nil, err
	}
	r, err := netreg.Lookup(netreg.Dir, uuid)
	if err != nil {
		return nil, err
	}
	netns := ours(r, string(noted), uuid)
	var infos []podfs.Network
	b, err := os.ReadFile(filepath.Join(podDir, podfs.NetInfo))
	if err == nil {
		err = json.Unmarshal(b, &infos)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the pod's networks: %w", err)
	}
	s, err := loadSettings(localConfig)
	if err != nil {
		return nil, err
	}
	out := []abi.NetworkState{}
	for _, in := range infos {
		state := abi.NetworkState{Network: in.NetName, Interface: in.IfName, State: abi.NetworkOK}
		if netns == "" {
			state.State, state.Message = abi.NetworkFailed, fmt.Sprintf("the network namespace %q is not there any more", noted)
		} else if err := checkLink(netns, in); err != nil {
			state.State, state.Message = abi.NetworkFailed, err.Error()
		} else {
			state.State, state.Message = checkPlugins(ctx, podDir, uuid, localConfig, netns, s, in)
		}
		out = append(out, state)
	}
	return out, nil
}

// checkPlugins has the plugins of a network look.
func checkPlugins(ctx context.Context, podDir, uuid, localConfig, netns string, s netsettings.Settings, in podfs.Network) (state, message string) {
	fail := func(err error) (string, string) { return abi.NetworkFailed, err.Error() }
	b, err := os.ReadFile(filepath.Join(podDir, podfs.NetDir, filepath.Base(in.NetConf)))
	if err != nil {
		return fail(err)
	}
	var a attachment
	if err := json.Unmarshal(b, &a); err != nil {
		return fail(err)
	}
	list, err := libcni.NetworkConfFromBytes(a.Conf)
	if err != nil {
		return fail(err)
	}
	if list.DisableCheck {
		return abi.NetworkNotCheckable, "its configuration says so (disableCheck)"
	}
	if len(a.Path) == 0 {
		a.Path = PluginDirs(localConfig, s.PluginDirs...)
	}
	ctx, cancel := bounded.Limited(ctx, s.Wait())
	defer cancel()
	err = client(podDir, a.Path, newRunner()).CheckNetworkList(ctx, list, runtimeConf(uuid, netns, a))
	switch {
	case err == nil:
		return abi.NetworkOK, ""
	case errors.Is(err, libcni.ErrorCheckNotSupp):
		return abi.NetworkNotCheckable, "plugins check from version 0.4.0 on"
	case strings.Contains(err.Error(), "could not check ipv6 dnat"):
		// plugins before release 1.3.0, pods without IPv6
		return abi.NetworkNotCheckable, "this version of the plugin portmap cannot check pods that have only IPv4"
	}
	return fail(err)
}

// checkLink looks for the interface and its addresses in the pod's namespace.
func checkLink(netns string, in podfs.Network) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not to be used again
		done <- func() error {
			ns, err := os.Open(netns)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the pod's network namespace: %w", err)
			}
			link, err := net.InterfaceByName(in.IfName)
			if err != nil {
				return fmt.Errorf("the pod has no interface %q", in.IfName)
			}
			addrs, err := link.Addrs()
			if err != nil {
				return err
			}
			for _, want := range []string{in.IP, in.IP6} {
				if want != "" && !slices.ContainsFunc(addrs, func(a net.Addr) bool {
					n, ok := a.(*net.IPNet)
					return ok && n.IP.Equal(net.ParseIP(want))
				}) {
					return fmt.Errorf("the interface %q has not the address %s", in.IfName, want)
				}
			}
			if link.Flags&net.FlagUp == 0 {
				return fmt.Errorf("the interface %q is down", in.IfName)
			}
			return nil
		}()
	}()
	return <-done
}

package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"github.com/rkt-systemd/rkt/internal/netreg"
)

// lostPlugin is one of a list that was there when the pod was started.
type lostPlugin struct {
	conf    *libcni.PluginConfig
	missing string // the program
}

// withoutLost is the list without the plugins whose programs are gone: one of
// them would keep the others from being asked.
func withoutLost(run *runner, dirs []string, list *libcni.NetworkConfigList) (*libcni.NetworkConfigList, []lostPlugin) {
	var lost []lostPlugin
	left := *list
	left.Plugins = nil
	for _, p := range list.Plugins {
		missing := ""
		for _, program := range []string{p.Network.IPAM.Type, p.Network.Type} {
			if program == "" {
				continue
			}
			if _, err := run.FindInPath(program, dirs); err != nil {
				missing = program
			}
		}
		if missing == "" {
			left.Plugins = append(left.Plugins, p)
		} else {
			lost = append(lost, lostPlugin{p, missing})
		}
	}
	return &left, lost
}

// leaveWithout does what the lost plugins would have done, as far as rkt knows
// how: interfaces go with the namespace.
func leaveWithout(ctx context.Context, network, uuid string, lost []lostPlugin, warn func(string)) error {
	var names []string
	errs := []error{netreg.RemoveRules(ctx, network, uuid, true), netreg.RemoveIFB(network, uuid)}
	for _, l := range lost {
		if !slices.Contains(names, l.missing) {
			names = append(names, l.missing)
		}
		var conf struct {
			IPAM struct {
				Type    string `json:"type"`
				DataDir string `json:"dataDir"`
			} `json:"ipam"`
		}
		if json.Unmarshal(l.conf.Bytes, &conf) == nil && conf.IPAM.Type == "host-local" {
			dir := conf.IPAM.DataDir
			if dir == "" {
				dir = netreg.HostLocalDir
			}
			errs = append(errs, netreg.RemoveLeases(dir, network, uuid))
		}
	}
	warn(fmt.Sprintf("leaving network %q: the plugins %s have been removed since the pod was started; its interfaces, addresses of host-local and the standard plugins' "+
		"firewall rules are removed without them, other things that they made may stay", network, strings.Join(names, ", ")))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leaving network %q without its plugins: %w", network, err)
	}
	return nil
}

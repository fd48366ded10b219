package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rkt-systemd/rkt/internal/bounded"
	"github.com/rkt-systemd/rkt/internal/netsettings"
)

// backend is by what rkt masquerades and forwards ports.
type backend int

const (
	byNothing backend = iota
	byNFT
	byIPTables
)

// chooseBackend goes by the settings, then by what is installed.
func chooseBackend(s netsettings.Settings, tool func(string) string) (backend, error) {
	nft, iptables := tool("nft") != "", tool("iptables") != ""
	switch {
	case s.NAT == netsettings.NFTables && !nft:
		return byNothing, errors.New(`the setting "nat" asks for nftables, but nft is missing; install the package nftables`)
	case s.NAT == netsettings.IPTables && !iptables:
		return byNothing, errors.New(`the setting "nat" asks for iptables, which is missing; install the package iptables`)
	case nft && s.NAT != netsettings.IPTables:
		return byNFT, nil
	case iptables && s.NAT != netsettings.NFTables:
		return byIPTables, nil
	}
	return byNothing, nil
}

// missingPlugin says where a plugin was looked for and what package has the
// usual ones.
func missingPlugin(name string, dirs []string) error {
	b, _ := os.ReadFile("/etc/os-release")
	return fmt.Errorf("could not find plugin %q in %s; %s", name, strings.Join(dirs, ":"), pluginPackage(string(b)))
}

// pluginPackage names the package of this distribution.
func pluginPackage(release string) string {
	var ids []string
	for line := range strings.Lines(release) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch v = strings.Trim(v, `"'`); k {
		case "ID":
			ids = append([]string{v}, ids...)
		case "ID_LIKE":
			ids = append(ids, strings.Fields(v)...)
		}
	}
	for _, id := range ids {
		install := ""
		switch id {
		case "debian", "ubuntu":
			install = "apt install containernetworking-plugins"
		case "fedora", "rhel", "centos":
			install = "dnf install containernetworking-plugins"
		case "arch":
			install = "pacman -S cni-plugins"
		case "suse", "opensuse", "sles":
			install = "zypper install cni-plugins"
		case "alpine":
			install = "apk add cni-plugins"
		case "gentoo":
			install = "emerge net-misc/cni-plugins"
		default:
			continue
		}
		return "the standard ones are in a package: " + install
	}
	return "the standard ones are in the package containernetworking-plugins or cni-plugins"
}

// firewalled finds out whether traffic of pods needs to be let through: a
// firewall daemon runs, or iptables forwards nothing that is not accepted.
func firewalled(ctx context.Context, tool func(string) string, root string) (bool, error) {
	if _, err := os.Stat(filepath.Join(root, "sys/fs/cgroup/system.slice/firewalld.service")); err == nil {
		return true, nil
	}
	iptables := tool("iptables")
	if iptables == "" {
		return false, nil
	}
	out, err := bounded.Run(ctx, bounded.Process{Path: iptables, Args: []string{"-w", "10", "-S", "FORWARD"}, Env: bounded.Environ(os.Environ())})
	if err != nil {
		if errors.Is(err, bounded.ErrOutput) {
			return strings.HasPrefix(string(out), "-P FORWARD DROP"), nil
		}
		if ctx.Err() != nil {
			return false, err
		}
		return false, nil // no such table in this kernel: then it drops nothing
	}
	return strings.HasPrefix(string(out), "-P FORWARD DROP"), nil
}

package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
)

// Network is a selected network.
type Network struct {
	File string // base name of the configuration, for order and records
	List *libcni.NetworkConfigList
	Args string
}

// builtins are the networks rkt knows without configuration. Their addresses
// are kept apart from other CNI users' (dataDir): host-local's records are
// keyed by the network's name alone, and "default" is a common one.
func builtins() map[string]string {
	return map[string]string{
		"99-default.conflist": `{"cniVersion":"1.0.0","name":"default","plugins":[
{"type":"ptp","ipMasq":true,"ipam":{"type":"host-local","dataDir":"/var/lib/rkt/cni","subnet":"172.16.28.0/24","routes":[{"dst":"0.0.0.0/0"}]}},
{"type":"portmap","capabilities":{"portMappings":true}}]}`,
		"99-default-restricted.conflist": `{"cniVersion":"1.0.0","name":"default-restricted","plugins":[
{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":"/var/lib/rkt/cni","subnet":"172.31.0.0/16"}},
{"type":"portmap","capabilities":{"portMappings":true}}]}`,
	}
}

// PluginDirs is where plugins are looked for, the first that has one wins.
func PluginDirs(localConfig string) []string {
	return []string{filepath.Join(localConfig, "net.d"), "/usr/lib/rkt/plugins/net", "/usr/lib/cni", "/usr/libexec/cni",
		"/opt/cni/bin", "/usr/local/lib/cni", "/usr/local/libexec/cni"}
}

func findPlugin(localConfig, name string) error {
	if name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%q is not a plugin name", name)
	}
	dirs := PluginDirs(localConfig)
	for _, d := range dirs {
		if st, err := os.Stat(filepath.Join(d, name)); err == nil && st.Mode().IsRegular() {
			return nil
		}
	}
	return fmt.Errorf("could not find plugin %q in %s; the standard ones are in the package containernetworking-plugins (Debian), containernetworking-plugins or cni-plugins elsewhere",
		name, strings.Join(dirs, ":"))
}

// Select loads the configured networks and returns those asked for, in the
// order of their file names.
func Select(localConfig string, items []string) ([]Network, error) {
	type want struct {
		args string
		seen bool
	}
	wanted := map[string]*want{}
	for _, it := range items {
		name, args, _ := strings.Cut(it, ":")
		switch {
		case name == "":
			return nil, errors.New("netname must not be empty")
		case wanted[name] != nil:
			return nil, fmt.Errorf("found duplicate netname %q", name)
		case args != "" && (name == "all" || name == "host" || name == "none"):
			return nil, fmt.Errorf("arguments are not supported by special netname %q", name)
		case strings.Contains(args, ":"):
			return nil, fmt.Errorf("network %q provided with invalid arguments: %q", name, args)
		}
		wanted[name] = &want{args: args}
	}
	if wanted["none"] != nil {
		return nil, nil
	}
	all, err := load(localConfig)
	if err != nil {
		return nil, err
	}
	var out []Network
	for _, n := range all {
		w := wanted[n.List.Name]
		if w == nil && wanted["all"] == nil {
			continue
		}
		if w != nil {
			w.seen = true
			n.Args = w.args
		}
		out = append(out, n)
	}
	var missing []string
	for name, w := range wanted {
		if !w.seen && name != "all" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("networks not found: %s (configured in %s)", strings.Join(missing, ", "), filepath.Join(localConfig, "net.d"))
	}
	return out, nil
}

// load reads all networks: those of the administrator, then the vendor's, then
// the built-in ones; the first of a name wins.
func load(localConfig string) ([]Network, error) {
	byName := map[string]Network{}
	for _, dir := range []string{filepath.Join(localConfig, "net.d"), "/usr/lib/rkt/net.d"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("reading networks: %w", err)
		}
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if e.IsDir() || (ext != ".conf" && ext != ".conflist") {
				continue
			}
			file := filepath.Join(dir, e.Name())
			st, err := os.Stat(file)
			if err != nil || !st.Mode().IsRegular() || st.Size() > 1<<20 {
				return nil, fmt.Errorf("network configuration %q is not a regular file of at most 1 MiB", file)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			list, err := parse(b)
			if err != nil {
				return nil, fmt.Errorf("network configuration %q: %w", file, err)
			}
			if _, ok := byName[list.Name]; !ok {
				byName[list.Name] = Network{File: e.Name(), List: list}
			}
		}
	}
	for file, text := range builtins() {
		list, err := parse([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("built-in network %q: %w", file, err)
		}
		if _, ok := byName[list.Name]; !ok {
			byName[list.Name] = Network{File: file, List: list}
		}
	}
	out := make([]Network, 0, len(byName))
	for _, n := range byName {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Network) int { return strings.Compare(a.File, b.File) })
	return out, nil
}

// parse reads a configuration list, or a single configuration as a list of one.
func parse(b []byte) (*libcni.NetworkConfigList, error) {
	var probe struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(b, &probe); err != nil {
		return nil, err
	}
	if probe.Plugins != nil {
		return libcni.NetworkConfFromBytes(b)
	}
	// A single configuration is a list of one; the list has its version and name.
	var one struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
	}
	if err := json.Unmarshal(b, &one); err != nil {
		return nil, err
	}
	if one.CNIVersion == "" {
		one.CNIVersion = "0.1.0"
	}
	list, err := json.Marshal(map[string]any{"cniVersion": one.CNIVersion, "name": one.Name, "plugins": []json.RawMessage{b}})
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(list)
}

package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/libcni"

	"github.com/rkt-systemd/rkt/internal/netsettings"
)

const (
	maxConf  = 1 << 20
	maxFiles = 1000
	maxName  = 200 // host-local makes a directory of it

	vendorNets = "/usr/lib/rkt/net.d"
)

// Network is a selected network.
type Network struct {
	File string // base name of the configuration, for order and records
	List *libcni.NetworkConfigList
	Args string
	// Builtin tells that the list is rkt's own, which fits it to the host.
	Builtin bool
	// place is the whole path of the configuration, "" for a built-in one.
	place string
	// Notes are for the user, if the network is used.
	Notes []string
}

const (
	defaultNet    = "default"
	restrictedNet = "default-restricted"
)

// builtin makes the list of a network that rkt knows without configuration.
// Their addresses are kept apart from other CNI users' (dataDir): host-local's
// records are keyed by the network's name alone, and "default" is a common one.
func builtin(name string, b backend) string {
	ipam, masq := `{"type":"host-local","dataDir":"/var/lib/rkt/cni","subnet":"172.16.28.0/24","routes":[{"dst":"0.0.0.0/0"}]}`, true
	if name == restrictedNet {
		ipam, masq = `{"type":"host-local","dataDir":"/var/lib/rkt/cni","subnet":"172.31.0.0/16"}`, false
	}
	const list = `{"cniVersion":"1.0.0","name":"%s","plugins":[{"type":"ptp","ipMasq":%t,"ipam":%s}%s]}`
	switch b {
	case byNFT:
		return fmt.Sprintf(list, name, false, ipam, fmt.Sprintf(`,{"type":%q,"ipMasq":%t,"capabilities":{"portMappings":true}}`, natType, masq))
	case byIPTables:
		return fmt.Sprintf(list, name, masq, ipam, `,{"type":"portmap","capabilities":{"portMappings":true}}`)
	}
	return fmt.Sprintf(list, name, masq, ipam, "")
}

func loadSettings(localConfig string) (netsettings.Settings, error) {
	return netsettings.Load(netsettings.SystemDir, localConfig)
}

// PluginDirs is where plugins are looked for, the first that has one wins.
func PluginDirs(localConfig string, more ...string) []string {
	dirs := append([]string{filepath.Join(localConfig, "net.d"), "/usr/lib/rkt/plugins/net"}, more...)
	return append(dirs, "/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin", "/usr/local/lib/cni", "/usr/local/libexec/cni")
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
		for kv := range strings.SplitSeq(args, ";") {
			if k, _, ok := strings.Cut(kv, "="); kv != "" && (!ok || k == "") {
				return nil, fmt.Errorf("network %q provided with invalid arguments: %q is not of the form KEY=VALUE", name, kv)
			}
		}
		wanted[name] = &want{args: args}
	}
	if wanted["none"] != nil {
		return nil, nil
	}
	s, err := loadSettings(localConfig)
	if err != nil {
		return nil, err
	}
	all, err := load(localConfig, s)
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
		dirs := append([]string{filepath.Join(localConfig, "net.d"), vendorNets}, s.ConfDirs...)
		return nil, fmt.Errorf("networks not found: %s (configured in %s)", strings.Join(missing, ", "), strings.Join(dirs, ", "))
	}
	return out, nil
}

// load reads all networks: those of the administrator, then the vendor's, then
// those of directories that other programs share, then the built-in ones; the
// first of a name wins.
func load(localConfig string, s netsettings.Settings) ([]Network, error) {
	var out []Network
	find := func(name string) int {
		return slices.IndexFunc(out, func(n Network) bool { return n.List.Name == name })
	}
	own := []string{filepath.Join(localConfig, "net.d"), vendorNets}
	for _, dir := range slices.Concat(own, s.ConfDirs) {
		nets, err := loadDir(dir, !slices.Contains(own, dir))
		if err != nil {
			return nil, err
		}
		for _, n := range nets {
			if find(n.List.Name) < 0 {
				out = append(out, n)
			}
		}
	}
	for _, name := range []string{defaultNet, restrictedNet} {
		if i := find(name); i >= 0 {
			out[i].Notes = append(out[i].Notes, fmt.Sprintf("overriding %q network with one from %s", name, filepath.Dir(out[i].File)))
			continue
		}
		list, err := parse([]byte(builtin(name, byNFT)))
		if err != nil {
			return nil, fmt.Errorf("built-in network %q: %w", name, err)
		}
		out = append(out, Network{File: "99-" + name + ".conflist", List: list, Builtin: true})
	}
	for i := range out {
		out[i].File = filepath.Base(out[i].File)
	}
	slices.SortStableFunc(out, func(a, b Network) int { return strings.Compare(a.File, b.File) })
	return out, nil
}

// loadDir reads the networks of one directory; their File is the whole path.
// What is broken in a directory that others share concerns only who uses it.
func loadDir(dir string, shared bool) ([]Network, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading networks: %w", err)
	}
	if len(entries) > maxFiles {
		return nil, fmt.Errorf("reading networks: %q has more than %d entries", dir, maxFiles)
	}
	var out []Network
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || (ext != ".conf" && ext != ".conflist") {
			continue
		}
		file := filepath.Join(dir, e.Name())
		list, err := loadFile(file)
		if err != nil {
			if shared {
				continue
			}
			return nil, fmt.Errorf("network configuration %q: %w", file, err)
		}
		if i := slices.IndexFunc(out, func(n Network) bool { return n.List.Name == list.Name }); i >= 0 {
			out[i].Notes = append(out[i].Notes, fmt.Sprintf("%q network already defined, ignoring %s", list.Name, e.Name()))
			continue
		}
		out = append(out, Network{File: file, place: file, List: list})
	}
	return out, nil
}

// loadFile reads a network, with the plugins that lie in a directory of its
// name beside the file.
func loadFile(file string) (*libcni.NetworkConfigList, error) {
	b, err := readConf(file)
	if err != nil {
		return nil, err
	}
	c, err := decode(b)
	if err != nil {
		return nil, err
	}
	if (c.isList || filepath.Ext(file) == ".conflist") && !c.onlyInlined {
		c.isList = true
		dir := filepath.Join(filepath.Dir(file), c.name)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return nil, fmt.Errorf("reading its plugins: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() || filepath.Ext(e.Name()) != ".conf" {
				continue
			}
			b, err := readConf(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, fmt.Errorf("reading its plugin %q: %w", e.Name(), err)
			}
			if err := json.Unmarshal(b, &map[string]any{}); err != nil {
				return nil, fmt.Errorf("its plugin %q: %w", filepath.Join(dir, e.Name()), err)
			}
			c.plugins = append(c.plugins, b)
		}
	}
	return c.list()
}

func readConf(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxConf {
		return nil, fmt.Errorf("it is not a regular file of at most %d bytes", maxConf)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err == nil && len(b) > maxConf {
		err = fmt.Errorf("it has more than %d bytes", maxConf)
	}
	return b, err
}

// parse reads a configuration list, or a single configuration as a list of one.
func parse(b []byte) (*libcni.NetworkConfigList, error) {
	c, err := decode(b)
	if err != nil {
		return nil, err
	}
	return c.list()
}

// conf is a configuration on its way to a list: what libcni would read only
// if it were spelt exactly is found in any case, as it always was.
type conf struct {
	name        string
	isList      bool
	onlyInlined bool
	plugins     []json.RawMessage
	rest        map[string]json.RawMessage // other keys of the list
}

func decode(b []byte) (*conf, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, err
		}
		return nil, errors.New("it is no JSON object")
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(b, &top); err != nil {
		return nil, err
	}
	known := []string{"cniVersion", "cniVersions", "name", "plugins", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"}
	c := &conf{rest: map[string]json.RawMessage{}}
	for _, key := range known {
		for k, v := range top {
			if strings.EqualFold(k, key) && (k == key || top[key] == nil) {
				c.rest[key] = v
			}
		}
	}
	name, there := c.rest["name"]
	if !there {
		return nil, errors.New("it has no name")
	}
	if err := json.Unmarshal(name, &c.name); err != nil {
		return nil, errors.New("its name is not a string")
	}
	if err := checkName(c.name); err != nil {
		return nil, err
	}
	var only any
	if v, ok := c.rest["loadOnlyInlinedPlugins"]; ok {
		if err := json.Unmarshal(v, &only); err != nil {
			return nil, err
		}
		s, _ := only.(string)
		c.onlyInlined = only == true || strings.EqualFold(s, "true")
	}
	if v, ok := c.rest["plugins"]; ok {
		c.isList = true
		if err := json.Unmarshal(v, &c.plugins); err != nil {
			return nil, fmt.Errorf("its plugins are not a list: %w", err)
		}
		delete(c.rest, "plugins")
		return c, nil
	}
	c.plugins = []json.RawMessage{b}
	_, typed := fold(top, "type")
	if !typed {
		c.plugins = nil // perhaps a list whose plugins lie beside it
		return c, nil
	}
	for key := range c.rest {
		if key != "name" && key != "cniVersion" && key != "cniVersions" {
			delete(c.rest, key)
		}
	}
	return c, nil
}

func fold(m map[string]json.RawMessage, key string) (json.RawMessage, bool) {
	for k, v := range m {
		if strings.EqualFold(k, key) {
			return v, true
		}
	}
	return nil, false
}

// checkName holds a network's name to what CNI allows, and to what the command
// line can say.
func checkName(name string) error {
	switch {
	case name == "all" || name == "host" || name == "none":
		return fmt.Errorf("its name %q has a meaning of its own on the command line; give the network another one", name)
	case len(name) > maxName:
		return fmt.Errorf("its name is longer than %d bytes", maxName)
	case !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`).MatchString(name):
		return fmt.Errorf("its name %q is not one: a name has letters, digits, _ . and -, and begins with a letter or a digit", name)
	}
	return nil
}

// list makes the list that plugins are run by and that is saved.
func (c *conf) list() (*libcni.NetworkConfigList, error) {
	if len(c.plugins) == 0 {
		return nil, errors.New("it has no plugins")
	}
	rest := c.rest
	if _, ok := rest["cniVersion"]; !ok {
		if _, ok := rest["cniVersions"]; !ok {
			rest["cniVersion"] = json.RawMessage(`"0.1.0"`)
		}
	}
	plugins := make([]json.RawMessage, len(c.plugins))
	for i, p := range c.plugins {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(p, &keys); err != nil || keys == nil {
			return nil, fmt.Errorf("its plugin number %d is no JSON object", i+1)
		}
		for k := range keys {
			// libcni puts these in again: the list's
			if strings.EqualFold(k, "name") || strings.EqualFold(k, "cniVersion") || strings.EqualFold(k, "cniVersions") {
				delete(keys, k)
			}
		}
		b, err := json.Marshal(keys)
		if err != nil {
			return nil, err
		}
		plugins[i] = b
	}
	b, err := json.Marshal(plugins)
	if err != nil {
		return nil, err
	}
	rest["plugins"] = b
	whole, err := json.Marshal(rest)
	if err != nil {
		return nil, err
	}
	l, err := libcni.NetworkConfFromBytes(whole)
	if err != nil {
		return nil, err
	}
	for _, p := range l.Plugins {
		for _, t := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if strings.ContainsAny(t, "/\x00") {
				return nil, fmt.Errorf("%q is not a plugin name", t)
			}
		}
	}
	return l, nil
}

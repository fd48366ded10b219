// Package netsettings reads how the administrator wants networks to be made:
// the configuration files of kind "network".
package netsettings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// Kind is the rktKind of these files.
	Kind = "network"
	// Subdir is where they lie, below a directory of configuration.
	Subdir  = "network.d"
	version = "v1"

	// SystemDir is the distribution's layer, below the administrator's.
	SystemDir = "/usr/lib/rkt"

	maxFile = 1 << 20

	defaultTimeout = 60 * time.Second
	maxTimeout     = time.Hour
)

// What may stand for Settings.NAT and Settings.Firewall.
const (
	Auto     = "auto"
	NFTables = "nftables"
	IPTables = "iptables"
	On       = "on"
	Off      = "off"
)

// Settings are the keys of a file; absent ones leave what a weaker file says.
type Settings struct {
	// ConfDirs are searched for networks after rkt's own directories.
	ConfDirs []string `json:"confDirs,omitempty"`
	// PluginDirs are searched for plugins before those of distributions.
	PluginDirs []string `json:"pluginDirs,omitempty"`
	// NAT says by what rkt masquerades and forwards ports.
	NAT string `json:"nat,omitempty"`
	// Firewall says whether the plugin "firewall" ends each network's list.
	Firewall string `json:"firewall,omitempty"`
	// Timeout bounds one run of a network's plugins.
	Timeout string `json:"timeout,omitempty"`
}

// Default is what holds without any file.
func Default() Settings {
	return Settings{NAT: Auto, Firewall: Auto, Timeout: defaultTimeout.String()}
}

// Wait is Timeout as a duration.
func (s Settings) Wait() time.Duration {
	if d, err := time.ParseDuration(s.Timeout); err == nil && d > 0 {
		return d
	}
	return defaultTimeout
}

// Overlay is s with what stronger says.
func (s Settings) Overlay(stronger Settings) Settings {
	if stronger.ConfDirs != nil {
		s.ConfDirs = stronger.ConfDirs
	}
	if stronger.PluginDirs != nil {
		s.PluginDirs = stronger.PluginDirs
	}
	if stronger.NAT != "" {
		s.NAT = stronger.NAT
	}
	if stronger.Firewall != "" {
		s.Firewall = stronger.Firewall
	}
	if stronger.Timeout != "" {
		s.Timeout = stronger.Timeout
	}
	return s
}

// Load reads the files of each directory of configuration, the weakest first.
func Load(dirs ...string) (Settings, error) {
	s := Default()
	for _, dir := range dirs {
		entries, err := os.ReadDir(filepath.Join(dir, Subdir))
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return s, fmt.Errorf("reading the network settings: %w", err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), ".json") {
				continue
			}
			file := filepath.Join(dir, Subdir, e.Name())
			b, err := read(file)
			if err != nil {
				return s, fmt.Errorf("reading the network settings: %w", err)
			}
			one, err := Parse(b)
			if err != nil {
				return s, fmt.Errorf("network settings %q: %w", file, err)
			}
			s = s.Overlay(one)
		}
	}
	return s, nil
}

func read(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%q is larger than %d bytes", file, maxFile)
	}
	return b, err
}

// Parse reads one file.
func Parse(b []byte) (Settings, error) {
	var v struct {
		Kind    string `json:"rktKind"`
		Version string `json:"rktVersion"`
		Settings
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return Settings{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Settings{}, errors.New("there is more than one JSON value")
	}
	switch {
	case v.Kind != Kind:
		return Settings{}, fmt.Errorf("the rktKind is %q; files in %s must be of kind %s", v.Kind, Subdir, Kind)
	case v.Version != version:
		return Settings{}, fmt.Errorf("version %q of kind %q is not known; only %q is", v.Version, v.Kind, version)
	}
	return v.Settings, v.check()
}

func (s Settings) check() error {
	for key, dirs := range map[string][]string{"confDirs": s.ConfDirs, "pluginDirs": s.PluginDirs} {
		for _, d := range dirs {
			// a colon would be two directories in CNI_PATH
			if !filepath.IsAbs(d) || strings.ContainsAny(d, ":\x00") {
				return fmt.Errorf("%s: %q is not an absolute path without a colon", key, d)
			}
		}
	}
	switch s.NAT {
	case "", Auto, NFTables, IPTables:
	default:
		return fmt.Errorf("nat is %q; it must be %s, %s or %s", s.NAT, Auto, NFTables, IPTables)
	}
	switch s.Firewall {
	case "", Auto, On, Off:
	default:
		return fmt.Errorf("firewall is %q; it must be %s, %s or %s", s.Firewall, Auto, On, Off)
	}
	if s.Timeout != "" {
		if d, err := time.ParseDuration(s.Timeout); err != nil || d <= 0 || d > maxTimeout {
			return fmt.Errorf("timeout is %q; it must be a time above 0 and of at most %s, like 60s", s.Timeout, maxTimeout)
		}
	}
	return nil
}

package entrypoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// runtimeConfig is how a mutable pod was started, for apps that come later. It
// lies in the pod directory, where the pod cannot write.
type runtimeConfig struct {
	PrivateUsers    string
	Hostname        string
	Debug           bool
	Mutable         bool
	ResolvConfMode  string
	EtcHostsMode    string
	NetList         []string
	IPCMode         string
	InsecureOptions struct{ DisablePaths, DisableCapabilities, DisableSeccomp bool }
	// LogUnit is the unit of the host that the pod's processes are in.
	LogUnit string
}

// keepConfig writes the file, for mutable pods only.
func keepConfig(in plan.Input) error {
	r := in.Run
	if !r.Mutable {
		return nil
	}
	c := runtimeConfig{PrivateUsers: r.PrivateUsers, Hostname: r.Hostname, Debug: r.Debug, Mutable: true, ResolvConfMode: r.ResolvMode,
		EtcHostsMode: r.HostsMode, NetList: r.Net, IPCMode: r.IPC, LogUnit: in.Facts.LogUnit}
	c.InsecureOptions.DisablePaths, c.InsecureOptions.DisableCapabilities, c.InsecureOptions.DisableSeccomp = r.DisablePaths, r.DisableCaps, r.DisableSeccomp
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return atomicfile.WriteFileNoSync(podfs.RuntimeConfig, b, 0o640)
}

// readConfig is the inverse of keepConfig: what run was called with, and the
// unit for the journal.
func readConfig(uuid string) (abi.Run, string, error) {
	b, err := os.ReadFile(podfs.RuntimeConfig)
	if errors.Is(err, os.ErrNotExist) {
		return abi.Run{}, "", errors.New("the pod is not mutable: apps can be added to one that rkt app sandbox has started")
	}
	if err != nil {
		return abi.Run{}, "", err
	}
	var c runtimeConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return abi.Run{}, "", fmt.Errorf("reading how the pod was started: %w", err)
	}
	o := c.InsecureOptions
	return abi.Run{Debug: c.Debug, Net: c.NetList, PrivateUsers: c.PrivateUsers, Hostname: c.Hostname, DisableCaps: o.DisableCapabilities,
		DisablePaths: o.DisablePaths, DisableSeccomp: o.DisableSeccomp, ResolvMode: c.ResolvConfMode, HostsMode: c.EtcHostsMode, Mutable: c.Mutable,
		IPC: c.IPCMode, UUID: uuid}, c.LogUnit, nil
}

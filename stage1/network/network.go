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
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
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

// Namespace is a pod's network namespace that has not joined its networks yet.
type Namespace struct {
	c     Config
	lists []Network
	path  string
}

// Open selects the pod's networks, makes its network namespace and moves the
// calling thread into it (the goroutine must be locked to it). On failure
// everything is undone.
func Open(ctx context.Context, c Config) (*Namespace, error) {
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
	return &Namespace{c: c, lists: lists, path: path}, nil
}

// Join has the plugins connect the namespace. On failure everything is undone,
// the namespace included.
func (n *Namespace) Join(ctx context.Context) (*Result, error) {
	type outcome struct {
		res *Result
		err error
	}
	// Plugins run in the host's network namespace: a goroutine of its own is
	// on a thread that never left it.
	done := make(chan outcome)
	go func() {
		res, err := join(ctx, n.c, n.lists, n.path)
		done <- outcome{res, err}
	}()
	o := <-done
	if o.err != nil {
		return nil, errors.Join(o.err, Teardown(context.WithoutCancel(ctx), n.c.PodDir, n.c.UUID, n.c.LocalConfig))
	}
	return o.res, nil
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

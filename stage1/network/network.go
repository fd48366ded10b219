// Package network gives a pod its network namespace and connects it with CNI
// plugins. What was done is written to the pod directory, and to the host's
// register of networks, before it is done, so that Teardown can undo it after any
// crash, also when the configuration has changed since. It runs in rkt-stage1
// only; nothing else sees libcni.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/netreg"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// Config says which networks a pod is to join.
type Config struct {
	PodDir      string
	LocalConfig string
	UUID        string
	// Machine is the pod's name at machined, and that of its namespace; empty for
	// the default one. Other pods know the pod by it and by Hostname.
	Machine, Hostname string
	// Hosts is the hosts file of the apps before other pods are named in it; nil
	// where they do not see such a file.
	Hosts []byte
	// Nets are items "name" or "name:ARGS".
	Nets  []string
	Ports []Port
	// Bandwidth bounds what comes and goes, in bits a second; 0 does not.
	Bandwidth uint64
}

func (c *Config) machine() string {
	if c.Machine == "" {
		return podfs.DefaultMachine(c.UUID)
	}
	return c.Machine
}

// names are those that can stand in the hosts files of other pods.
func (c *Config) names() []string {
	var out []string
	for _, n := range []string{c.machine(), c.Hostname} {
		if netreg.ValidName(n) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// Port forwards a port of the host to one of the pod.
type Port struct {
	HostIP   string
	HostPort int
	PodPort  int
	Protocol string
}

func (p Port) registered() netreg.Port {
	return netreg.Port{Protocol: p.Protocol, HostIP: p.HostIP, HostPort: p.HostPort, PodPort: p.PodPort}
}

// Overlaps says whether two ports would be forwarded from the same one.
func (p Port) Overlaps(q Port) bool { return overlap(p.registered(), q.registered()) }

// Name is the port as messages have it.
func (p Port) Name() string {
	ip := p.HostIP
	if ip == "" {
		ip = "0.0.0.0"
	}
	return fmt.Sprintf("%s-%s:%d", p.Protocol, ip, p.HostPort)
}

// attachment is what DEL needs, saved before ADD.
type attachment struct {
	Conf   json.RawMessage `json:"conf"`
	IfName string          `json:"ifName"`
	Args   string          `json:"args,omitempty"`
	Ports  []Port          `json:"ports,omitempty"`

	// Refused tells that a plugin said at ADD why it cannot be done.
	Refused   bool     `json:"refused,omitempty"`
	Bandwidth uint64   `json:"bandwidth,omitempty"`
	Path      []string `json:"path,omitempty"` // where the plugins were looked for
}

// Contained reports whether nets ask for a network namespace of the pod's own.
func Contained(nets []string) bool { return !slices.Contains(nets, "host") }

// Joins reports whether nets ask for networks that other pods may be in, too.
func Joins(nets []string) bool { return Contained(nets) && !slices.Contains(nets, "none") }

// Result is what a set-up gave.
type Result struct {
	// ResolvConf is generated from the first network that names resolvers.
	ResolvConf []byte
	Warnings   []string
}

// Namespace is a pod's network namespace that has not joined its networks yet.
type Namespace struct {
	c     Config
	lists []Network
	path  string
}

// Open selects the pod's networks, takes its ports, makes its network namespace
// and moves the calling thread into it (the goroutine must be locked to it). On
// failure everything is undone.
func Open(ctx context.Context, c Config) (*Namespace, error) {
	lists, err := Select(c.LocalConfig, c.Nets)
	if err != nil {
		return nil, err
	}
	path, err := netreg.NamespacePath(c.machine())
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.PodDir, podfs.NetDir), 0o750); err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFileNoSync(filepath.Join(c.PodDir, podfs.Netns), []byte(path), 0o644); err != nil {
		return nil, err
	}
	failpoint.Hit("network/netns-recorded")
	undo := func(err error) error {
		return errors.Join(err, Teardown(context.WithoutCancel(ctx), c.PodDir, c.UUID, c.LocalConfig))
	}
	if err := claim(ctx, c, lists, path); err != nil {
		return nil, undo(err)
	}
	failpoint.Hit("network/claimed")
	if err := newNamespace(c.UUID, path); err != nil {
		return nil, undo(fmt.Errorf("making the network namespace: %w", err))
	}
	failpoint.Hit("network/netns-made")
	return &Namespace{c: c, lists: lists, path: path}, nil
}

// Join has the plugins connect the namespace. On failure everything is undone,
// the namespace included. As long as it works it holds a lock that Teardown waits
// for.
func (n *Namespace) Join(ctx context.Context) (*Result, error) {
	type outcome struct {
		res *Result
		err error
	}
	// Plugins run in the host's network namespace: a goroutine of its own is
	// on a thread that never left it.
	done := make(chan outcome)
	go func() {
		res, err := n.join(ctx)
		done <- outcome{res, err}
	}()
	o := <-done
	return o.res, o.err
}

func (n *Namespace) join(ctx context.Context) (*Result, error) {
	c := n.c
	held, err := beginJoin(c.PodDir)
	if err != nil {
		return nil, errors.Join(err, Teardown(context.WithoutCancel(ctx), c.PodDir, c.UUID, c.LocalConfig))
	}
	defer held.Close()
	// A pod that was killed may have been torn down before this process came so far.
	if _, err := os.Lstat(filepath.Join(c.PodDir, podfs.Netns)); err != nil {
		return nil, fmt.Errorf("the pod has ended meanwhile: %w", err)
	}
	res, err := join(ctx, c, n.lists, n.path)
	if err == nil && len(n.lists) > 0 {
		failpoint.Hit("network/joined")
		err = publish(c.PodDir, c.UUID)
		failpoint.Hit("network/published")
	}
	if err != nil {
		return nil, errors.Join(err, teardown(context.WithoutCancel(ctx), c.PodDir, c.UUID, c.LocalConfig, func(string) {}))
	}
	return res, nil
}

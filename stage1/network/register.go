package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/rkt-systemd/rkt/internal/hostnat"
	"github.com/rkt-systemd/rkt/internal/netreg"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// claim takes for the pod what only one pod of the host can have: the place of
// its namespace and its ports. It runs in the network namespace of the host.
func claim(ctx context.Context, c Config, lists []Network, path string) error {
	r := &netreg.Record{UUID: c.UUID, Pod: c.PodDir, Machine: c.machine(), Names: c.names(), Netns: path, Hosts: c.Hosts != nil}
	for _, p := range c.Ports {
		r.Ports = append(r.Ports, p.registered())
	}
	for i := range lists {
		r.Networks = append(r.Networks, netreg.Network{Name: lists[i].List.Name})
	}
	if r.Hosts {
		if err := netreg.MakeHosts(r, c.Hosts); err != nil {
			return err
		}
	}
	l, err := netreg.Lock(netreg.Dir)
	if err != nil {
		return err
	}
	var former []*netreg.Record
	err = func() (err error) {
		defer l.Unlock()
		if former, err = portsFree(l, r); err != nil {
			return err
		}
		if err := takePlace(l, path, r.UUID); err != nil {
			return err
		}
		return l.Put(r)
	}()
	var taken *takenError
	if errors.As(err, &taken) {
		taken.find(ctx)
	}
	if err != nil {
		return err
	}
	return release(ctx, c, former)
}

// release tears down the networks of pods that have ended, and still have ports
// that this pod takes: their rules would come first.
func release(ctx context.Context, c Config, former []*netreg.Record) error {
	for _, r := range former {
		err := hostnat.Host().DelPod(ctx, r.UUID)
		if dir := r.Place(); err == nil && dir != "" {
			err = Teardown(ctx, dir, r.UUID, c.LocalConfig)
		}
		if err != nil {
			return fmt.Errorf("taking ports from %s, which has ended: %w", r.Describe(), err)
		}
	}
	return nil
}

// portsFree looks for another pod, and for a program of the host, that has one
// of the ports. Pods that have ended, and were not torn down yet, give theirs up.
func portsFree(l *netreg.Locked, r *netreg.Record) (former []*netreg.Record, err error) {
	if len(r.Ports) == 0 {
		return nil, nil
	}
	all, err := l.All()
	if err != nil {
		return nil, err
	}
	for _, p := range r.Ports {
		for _, other := range all {
			if other.UUID == r.UUID {
				continue
			}
			for _, q := range other.Ports {
				switch {
				case !overlap(p, q) || slices.Contains(former, other):
				case other.Alive():
					return nil, fmt.Errorf("port %s is in use by %s", portName(p), other.Describe())
				default:
					former = append(former, other)
				}
			}
		}
		if taken := listening(p); taken != nil {
			return nil, taken
		}
	}
	return former, nil
}

func portName(p netreg.Port) string {
	ip := p.HostIP
	if ip == "" {
		ip = "0.0.0.0"
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return fmt.Sprintf("%s %s:%d", p.Protocol, ip, p.HostPort)
	}
	return p.Protocol + " " + netip.AddrPortFrom(a, uint16(p.HostPort)).String()
}

// overlap says whether two forwarded ports would meet the same packets.
func overlap(p, q netreg.Port) bool {
	if p.Protocol != q.Protocol || p.HostPort != q.HostPort {
		return false
	}
	for _, a := range hostAddrs(p.HostIP) {
		for _, b := range hostAddrs(q.HostIP) {
			if a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

// hostAddrs are the addresses that a port is forwarded from: without one all,
// of both families.
func hostAddrs(ip string) []netip.Addr {
	if a, err := netip.ParseAddr(ip); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// takePlace sees to it that nothing is at the path of the pod's namespace. What a
// pod that has ended left there is taken from it; its tear-down sees that.
func takePlace(l *netreg.Locked, path, uuid string) error {
	all, err := l.All()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(r *netreg.Record) bool { return r.Netns == path && r.UUID != uuid })
	there := sys.Namespace(path)
	if i < 0 {
		if there != 0 {
			return foreign(path)
		}
		return nil // not even an empty file that an unmounted one left is in the way
	}
	owner := all[i]
	if owner.Alive() {
		return fmt.Errorf("the network namespace %q is in use by %s", path, owner.Describe())
	}
	if there != 0 && there != owner.Inode {
		return foreign(path)
	}
	if err := sys.UnbindNamespace(path); err != nil {
		return fmt.Errorf("removing the network namespace of %s, which has ended: %w", owner.Describe(), err)
	}
	former := *owner
	former.Netns, former.Inode = "", 0
	return l.Put(&former)
}

func foreign(path string) error {
	return fmt.Errorf("the network namespace %q is not rkt's: remove it with \"ip netns delete %s\", or give the pod another name", path, filepath.Base(path))
}

// noteInode adds the namespace's number to the pod's record, before the namespace
// is bound: from then on it is known what may be unmounted.
func noteInode(uuid string, inode uint64) error {
	return change(uuid, func(l *netreg.Locked, r *netreg.Record) error {
		n := *r
		n.Inode = inode
		return l.Put(&n)
	})
}

// publish notes the addresses in the pod's net-info.json, and names the pod to
// those it shares a network with.
func publish(podDir, uuid string) error {
	b, err := os.ReadFile(filepath.Join(podDir, podfs.NetInfo))
	if err != nil {
		return err
	}
	var infos []podfs.Network
	if err := json.Unmarshal(b, &infos); err != nil {
		return fmt.Errorf("reading %s: %w", podfs.NetInfo, err)
	}
	return change(uuid, func(l *netreg.Locked, r *netreg.Record) error {
		n := *r
		n.Networks = nil
		for _, in := range infos {
			joined := netreg.Network{Name: in.NetName}
			for _, ip := range []string{in.IP, in.IP6} {
				if ip != "" {
					joined.IPs = append(joined.IPs, ip)
				}
			}
			n.Networks = append(n.Networks, joined)
		}
		return l.Publish(&n)
	})
}

// change works on the record of a pod, if it has one.
func change(uuid string, f func(*netreg.Locked, *netreg.Record) error) error {
	l, err := netreg.Lock(netreg.Dir)
	if err != nil {
		return err
	}
	defer l.Unlock()
	r, err := l.Get(uuid)
	if err != nil {
		return err
	}
	if r == nil {
		return fmt.Errorf("the register %q has no record of pod %s", netreg.Dir, uuid)
	}
	return f(l, r)
}

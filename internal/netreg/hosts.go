package netreg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/hostsfile"
)

// maxHosts bounds what is read of a hosts file.
const maxHosts = 4 << 20

// MakeHosts makes the hosts file of a pod, which its apps then see; other pods
// are not in it yet. It is never replaced later: it is mounted.
func MakeHosts(r *Record, base []byte) error {
	name := r.HostsFile()
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return fmt.Errorf("making the pod's hosts file: %w", err)
	}
	_, err = f.Write(hostsfile.WithPeers(base, nil))
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("making the pod's hosts file: %w", err)
	}
	return nil
}

// Publish notes the addresses that a pod has got, and tells the pods of its
// networks and itself.
func (l *Locked) Publish(r *Record) error {
	if err := l.Put(r); err != nil {
		return err
	}
	return l.tell(r)
}

// Leave removes the record of a pod, and its names from the hosts files of
// others.
func (l *Locked) Leave(r *Record) error {
	if err := l.Remove(r.UUID); err != nil {
		return err
	}
	return l.tell(r)
}

// Hide takes a pod out of the hosts files of others and keeps its record.
func (l *Locked) Hide(r *Record) error {
	former := *r
	r.Networks = slices.Clone(r.Networks)
	for i := range r.Networks {
		r.Networks[i].IPs = nil
	}
	if err := l.Put(r); err != nil {
		return err
	}
	return l.tell(&former)
}

// tell writes the hosts files of the pods that share a network with r, and its
// own as long as it is in the register.
func (l *Locked) tell(r *Record) error {
	all, err := l.All()
	if err != nil {
		return err
	}
	byNetwork := peers(all)
	var errs []error
	for _, p := range all {
		if !p.Hosts || p.UUID != r.UUID && !shares(p, r) {
			continue
		}
		// A pod that ended meanwhile has moved on: nobody reads its file.
		if err := rewrite(p.HostsFile(), p, byNetwork); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("naming the pods of its networks in the hosts file of pod %s: %w", p.UUID, err))
		}
	}
	return errors.Join(errs...)
}

func shares(a, b *Record) bool {
	return slices.ContainsFunc(a.Networks, func(n Network) bool {
		return len(n.IPs) > 0 && slices.ContainsFunc(b.Networks, func(m Network) bool { return m.Name == n.Name && len(m.IPs) > 0 })
	})
}

// peer is a pod in a network.
type peer struct {
	r   *Record
	ips []netip.Addr
}

// peers sorts the pods by network; in each by name.
func peers(all []*Record) map[string][]peer {
	out := map[string][]peer{}
	for _, r := range all {
		if len(r.Names) == 0 {
			continue
		}
		for _, n := range r.Networks {
			p := peer{r: r}
			for _, ip := range n.IPs {
				if a, err := netip.ParseAddr(ip); err == nil {
					p.ips = append(p.ips, a)
				}
			}
			if len(p.ips) > 0 {
				out[n.Name] = append(out[n.Name], p)
			}
		}
	}
	for _, list := range out {
		slices.SortStableFunc(list, func(a, b peer) int { return strings.Compare(a.r.Names[0], b.r.Names[0]) })
	}
	return out
}

// entries are the other pods as r sees them: each by its addresses in the first
// network, in the order of r's, that both are in; of IPv4 and IPv6 what r has.
func entries(r *Record, byNetwork map[string][]peer) []hostsfile.Entry {
	var out []hostsfile.Entry
	seen := map[string]bool{r.UUID: true}
	for _, n := range r.Networks {
		var v4, v6 bool
		for _, ip := range n.IPs {
			v6 = v6 || strings.Contains(ip, ":")
			v4 = v4 || !strings.Contains(ip, ":")
		}
		if !v4 && !v6 {
			continue
		}
		for _, p := range byNetwork[n.Name] {
			if seen[p.r.UUID] {
				continue
			}
			for _, ip := range p.ips {
				if ip.Is4() && v4 || ip.Is6() && v6 {
					out = append(out, hostsfile.Entry{IP: ip.String(), Names: p.r.Names})
				}
			}
		}
		for _, p := range byNetwork[n.Name] {
			seen[p.r.UUID] = true
		}
	}
	return out
}

// rewrite writes the other pods into a hosts file, in place, since it is mounted.
// One write makes it whole for whoever reads it at that moment; what a longer
// one left behind is cut off after it.
func rewrite(name string, r *Record, byNetwork map[string][]peer) error {
	f, err := os.OpenFile(name, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() > maxHosts {
		return errors.New("it is no regular file of a sensible size")
	}
	old, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	text := hostsfile.WithPeers(old, entries(r, byNetwork))
	if bytes.Equal(old, text) {
		return nil
	}
	if len(text) < len(old) {
		// Readers between write and cut see empty lines, not half of old ones.
		padded := append(slices.Clone(text), bytes.Repeat([]byte("\n"), len(old)-len(text))...)
		if _, err := f.WriteAt(padded, 0); err != nil {
			return err
		}
		return f.Truncate(int64(len(text)))
	}
	_, err = f.WriteAt(text, 0)
	return err
}

package netreg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/hostnat"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// Sweep removes what pods have left whose directories are gone, so that nobody
// tears their networks down: directories removed by hand, and those that gc gave up.
type Sweep struct {
	// Dir is the register, Pods the directory of the pods of one data directory.
	// Pods of others are left alone: theirs may be on a disk that is not there now.
	Dir, Pods string
	// LeaseDirs hold the addresses that host-local has given out. In the first are
	// only those of rkt's networks.
	LeaseDirs []string
	// NAT has what is forwarded and masqueraded by nftables; nil for none.
	NAT *hostnat.Store
	// Log is told what was removed.
	Log func(string)
}

// Run sweeps; a second one finds nothing.
func (s *Sweep) Run(ctx context.Context) error {
	orphans, err := s.orphans()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range orphans {
		if err := s.remove(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("removing the network of pod %s, whose directory is gone: %w", r.UUID, err))
		}
	}
	return errors.Join(append(errs, s.forwards(ctx), s.leases())...)
}

// orphans are the records of pods that are gone. Files that are no records go at
// once: what a process that was killed was writing, under the lock that is held now.
func (s *Sweep) orphans() ([]*Record, error) {
	if _, err := os.Lstat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil // no pod had a network since the host was booted
	}
	l, err := Lock(s.Dir)
	if err != nil {
		return nil, err
	}
	defer l.Unlock()
	all, err := l.All()
	if err != nil {
		return nil, err
	}
	for _, name := range l.Broken {
		if ValidUUID(name) {
			if findPod(s.Pods, name) != "" {
				continue // its tear-down removes it
			}
			s.Log(fmt.Sprintf("removing the network record of pod %s, which cannot be read", name))
		}
		if err := os.RemoveAll(filepath.Join(l.dir, name)); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(r *Record) bool { return !s.orphan(r) }), nil
}

func (s *Sweep) orphan(r *Record) bool {
	return filepath.Dir(filepath.Dir(r.Pod)) == s.Pods && r.Place() == ""
}

// remove removes what an orphan has: first what its record is needed for.
func (s *Sweep) remove(ctx context.Context, r *Record) error {
	s.Log(fmt.Sprintf("removing the network of pod %s, whose directory is gone", r.UUID))
	for _, n := range r.Networks {
		if err := RemoveRules(ctx, n.Name, r.UUID, true); err != nil {
			return err
		}
		if err := RemoveIFB(n.Name, r.UUID); err != nil {
			return err
		}
	}
	if s.NAT != nil {
		if err := s.NAT.DelPod(ctx, r.UUID); err != nil {
			return err
		}
	}
	failpoint.Hit("network/orphan-rules")
	l, err := Lock(s.Dir)
	if err != nil {
		return err
	}
	defer l.Unlock()
	now, err := l.Get(r.UUID)
	if err != nil || now == nil || !s.orphan(now) {
		return err
	}
	// another pod may have taken the place, and another program the name
	if now.Netns != "" && now.Inode != 0 && sys.Namespace(now.Netns) == now.Inode {
		if err := sys.UnbindNamespace(now.Netns); err != nil {
			return err
		}
	}
	if err := l.RemovePlaceholder(now); err != nil {
		return err
	}
	failpoint.Hit("network/orphan-netns")
	// The addresses last: only then can others have them.
	for _, n := range now.Networks {
		for _, dir := range s.LeaseDirs {
			if err := RemoveLeases(dir, n.Name, r.UUID); err != nil {
				return err
			}
		}
	}
	return l.Leave(now)
}

// forwards removes what is forwarded to pods that nothing is known of.
func (s *Sweep) forwards(ctx context.Context) error {
	if s.NAT == nil {
		return nil
	}
	ids, err := s.NAT.Pods()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !s.unknown(id) {
			continue
		}
		s.Log(fmt.Sprintf("removing the ports and masquerading of pod %s, whose directory is gone", id))
		if err := s.NAT.DelPod(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// leases frees addresses of rkt's own networks that no pod has any more.
func (s *Sweep) leases() error {
	if len(s.LeaseDirs) == 0 {
		return nil
	}
	networks, err := os.ReadDir(s.LeaseDirs[0])
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range networks {
		// An address is given out after its pod was noted, and freed before it is forgotten.
		err := removeLeases(filepath.Join(s.LeaseDirs[0], n.Name()), s.unknown, func(file string) {
			s.Log(fmt.Sprintf("freed the address %s of network %s: its pod is gone", filepath.Base(file), n.Name()))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unknown says whether something is that of a pod that nothing is known of.
func (s *Sweep) unknown(id string) bool {
	if !ValidUUID(id) {
		return false
	}
	if _, err := os.Lstat(filepath.Join(s.Dir, id)); !errors.Is(err, os.ErrNotExist) {
		return false
	}
	// a pod of another data directory whose rkt kept no register
	if p, err := NamespacePath("rkt-" + id); err != nil || sys.Namespace(p) != 0 {
		return false
	}
	return findPod(s.Pods, id) == ""
}

// RemoveIFB removes the device of the plugin bandwidth, if there is one.
func RemoveIFB(network, id string) error {
	if err := sys.RemoveLink(IFB(network, id)); err != nil {
		return fmt.Errorf("removing the interface %q: %w", IFB(network, id), err)
	}
	return nil
}

package hostnat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/bounded"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
)

// Dir has the records of the host. It goes with the kernel's tables when the
// host reboots.
const Dir = "/run/rkt/nat"

// Store holds what each pod wants. The table is made to hold it: so a removal
// needs to know nothing but whose it is, and a table that somebody has flushed
// comes back with the next change.
type Store struct {
	Dir string
	// NFT runs a script in one transaction.
	NFT func(ctx context.Context, script string) error
	// Filter makes the chain of iptables and ip6tables that lets these pass.
	Filter func(ctx context.Context, records []Record) error
	// Sysctl is where the kernel's parameters of networks lie.
	Sysctl string
}

// Host is the store of this host.
func Host() *Store { return &Store{Dir: Dir, NFT: runNFT, Filter: filter, Sysctl: "/proc/sys/net"} }

func runNFT(ctx context.Context, script string) error {
	path := bounded.FindTool("nft")
	if path == "" {
		return errors.New("nft is missing; install the package that has it (nftables)")
	}
	var said strings.Builder
	_, err := bounded.Run(ctx, bounded.Process{Path: path, Args: []string{"-f", "-"}, Stdin: []byte(script), Env: bounded.Environ(os.Environ()),
		Messages: &bounded.Lines{To: &said}})
	if err != nil {
		return fmt.Errorf("nft: %w: %s", err, bounded.Shorten(strings.TrimSpace(said.String()), bounded.MaxLine))
	}
	return nil
}

func (s *Store) file(id, ifName string) string { return filepath.Join(s.Dir, id+"-"+ifName+".json") }

// locked runs f while nobody else changes records or table.
func (s *Store) locked(f func() error) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	l, err := lock.Path(filepath.Join(s.Dir, ".lock"), lock.Exclusive)
	if err != nil {
		return fmt.Errorf("waiting for other changes of the packet filter: %w", err)
	}
	defer l.Close()
	return f()
}

// others are the records of all attachments but one.
func (s *Store) others(id, ifName string) ([]Record, error) {
	names, err := filepath.Glob(filepath.Join(s.Dir, "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []Record
	for _, name := range names {
		if name == s.file(id, ifName) {
			continue
		}
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var r Record
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err == nil {
			err = r.Check()
		}
		if err != nil {
			return nil, fmt.Errorf("reading the record %q: %w", name, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Add has the kernel do what a record says.
func (s *Store) Add(ctx context.Context, r Record) error {
	return s.locked(func() error {
		others, err := s.others(r.ID, r.IfName)
		if err != nil {
			return err
		}
		if err := r.clash(others); err != nil {
			return err
		}
		if r.Localnet != "" {
			on, err := s.localnetOn(r.Localnet)
			if err != nil {
				return err
			}
			r.Restore = !on || slices.ContainsFunc(others, func(o Record) bool { return o.Localnet == r.Localnet && o.Restore })
		}
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := atomicfile.WriteFileNoSync(s.file(r.ID, r.IfName), b, 0o600); err != nil {
			return err
		}
		failpoint.Hit("nat/recorded")
		if !r.OnlyFilter {
			script, quick := addScript(r, others)
			if quick {
				err = s.NFT(ctx, script)
			}
			if !quick || err != nil && ctx.Err() == nil {
				// the first of its network, or somebody has flushed the table
				err = s.NFT(ctx, Script(append(others, r)...))
			}
		}
		if err == nil && r.Filter {
			err = s.Filter(ctx, append(others, r))
		}
		if err != nil {
			return err
		}
		failpoint.Hit("nat/added")
		if r.Localnet == "" || !r.Restore {
			return nil
		}
		return s.setLocalnet(r.Localnet, true)
	})
}

// Del undoes Add. It needs to know nothing but whose it is, and may be repeated.
func (s *Store) Del(ctx context.Context, id, ifName string) error {
	if _, err := os.Lstat(s.file(id, ifName)); errors.Is(err, fs.ErrNotExist) {
		return nil // never added, removed before, or the host has rebooted
	}
	return s.locked(func() error {
		b, err := os.ReadFile(s.file(id, ifName))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("reading the record %q: %w", s.file(id, ifName), err)
		}
		others, err := s.others(id, ifName)
		if err != nil {
			return err
		}
		if !r.OnlyFilter {
			if err := s.NFT(ctx, Script(others...)); err != nil {
				return err
			}
		}
		if r.Filter {
			if err := s.Filter(ctx, others); err != nil {
				return err
			}
		}
		failpoint.Hit("nat/deleted")
		if r.Localnet != "" && r.Restore && !slices.ContainsFunc(others, func(o Record) bool { return o.Localnet == r.Localnet }) {
			if err := s.setLocalnet(r.Localnet, false); err != nil {
				return err
			}
		}
		return os.Remove(s.file(id, ifName))
	})
}

func (s *Store) localnetFile(link string) string {
	return filepath.Join(s.Sysctl, "ipv4/conf", link, "route_localnet")
}

func (s *Store) localnetOn(link string) (bool, error) {
	b, err := os.ReadFile(s.localnetFile(link))
	if err != nil {
		return false, fmt.Errorf("asking whether 127.0.0.1 may reach the pod: %w", err)
	}
	return strings.TrimSpace(string(b)) == "1", nil
}

func (s *Store) setLocalnet(link string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	err := os.WriteFile(s.localnetFile(link), []byte(value), 0o644)
	if !on && errors.Is(err, fs.ErrNotExist) {
		return nil // the interface went with the pod
	}
	if err != nil {
		return fmt.Errorf("letting 127.0.0.1 reach the pod: %w", err)
	}
	return nil
}

// Pods are those that have records.
func (s *Store) Pods() ([]string, error) {
	all, err := s.others("", "")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range all {
		if !slices.Contains(ids, r.ID) {
			ids = append(ids, r.ID)
		}
	}
	return ids, nil
}

// DelPod removes all that a pod has, whose directory is gone.
func (s *Store) DelPod(ctx context.Context, id string) error {
	all, err := s.others("", "")
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range all {
		if r.ID == id {
			errs = append(errs, s.Del(ctx, r.ID, r.IfName))
		}
	}
	return errors.Join(errs...)
}

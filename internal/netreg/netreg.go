// Package netreg is the host-wide register of pods with a network namespace of
// their own: who has which namespace, which ports of the host and which
// addresses. It is what port clashes, the names that pods know each other by and
// the search for orphans rest on. Pods of all data directories are in it.
//
// A record is a small file of JSON named by the pod's UUID. It is written before
// the namespace is made and removed when all is torn down; all lie below /run and
// are gone after a reboot, like what they tell of. One lock guards changes.
//
// Every package may import it.
package netreg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
)

const (
	// Dir is the register of the host.
	Dir = "/run/rkt/net"
	// NamespaceDir is where ip-netns(8) looks for namespaces.
	NamespaceDir = "/run/netns"
	lockFile     = ".lock"
)

// Limits of a record: far above what a pod needs.
const (
	maxRecord   = 1 << 20
	maxPorts    = 16384
	maxNetworks = 256
	maxNames    = 64
)

// Record is what the register knows of a pod.
type Record struct {
	UUID string `json:"-"`
	// Pod is the pod's directory when it was started.
	Pod     string `json:"pod"`
	Machine string `json:"machine"`
	// Names are those that other pods find it by.
	Names []string `json:"names,omitempty"`
	// Netns is the path that its namespace is bound to; "" when it has none any
	// more. Inode is the namespace's number, 0 as long as nothing was bound.
	Netns string `json:"netns,omitempty"`
	Inode uint64 `json:"inode,omitempty"`
	Ports []Port `json:"ports,omitempty"`
	// Networks are those it is about to join or has joined, in order.
	Networks []Network `json:"networks,omitempty"`
	// Hosts says that the pod has a hosts file that names other pods.
	Hosts bool `json:"hosts,omitempty"`
}

// Port is a port of the host that is forwarded to the pod.
type Port struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	HostIP   string `json:"hostIP,omitempty"`
	HostPort int    `json:"hostPort"`
	PodPort  int    `json:"podPort"`
}

// Network is a network with the pod's addresses there; none before it is joined.
type Network struct {
	Name string   `json:"name"`
	IPs  []string `json:"ips,omitempty"`
}

// HostsFile is the pod's hosts file on the host.
func (r *Record) HostsFile() string {
	return filepath.Join(r.Pod, podfs.NetDir, podfs.NetHosts)
}

var (
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$`)
	fileForm = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,255}$`)
)

// ValidUUID says whether s can name a record.
func ValidUUID(s string) bool { return uuidForm.MatchString(s) }

// NamespacePath is where the namespace of a machine is bound.
func NamespacePath(machine string) (string, error) {
	if !fileForm.MatchString(machine) || machine == "." || machine == ".." {
		return "", fmt.Errorf("%q cannot name a network namespace", machine)
	}
	return filepath.Join(NamespaceDir, machine), nil
}

// check refuses a record that this package would not have written: what it
// names is unmounted, removed and written to.
func (r *Record) check() error {
	if !filepath.IsAbs(r.Pod) || filepath.Clean(r.Pod) != r.Pod || filepath.Base(r.Pod) != r.UUID {
		return fmt.Errorf("%q is not the directory of pod %s", r.Pod, r.UUID)
	}
	if r.Netns != "" {
		if p, err := NamespacePath(filepath.Base(r.Netns)); err != nil || p != r.Netns {
			return fmt.Errorf("%q is no place of a network namespace", r.Netns)
		}
	}
	if len(r.Ports) > maxPorts || len(r.Networks) > maxNetworks || len(r.Names) > maxNames {
		return errors.New("there is too much of something")
	}
	for _, n := range r.Names {
		if !ValidName(n) {
			return fmt.Errorf("%q is no host name", n)
		}
	}
	for _, n := range r.Networks {
		if n.Name == "" || len(n.IPs) > maxNames || strings.ContainsAny(n.Name, "/\x00\n") || n.Name == "." || n.Name == ".." {
			return fmt.Errorf("%q is no network with addresses", n.Name)
		}
		for _, ip := range n.IPs {
			if a, err := netip.ParseAddr(ip); err != nil || a.Zone() != "" {
				return fmt.Errorf("%q is no address", ip)
			}
		}
	}
	return nil
}

// ValidName says whether a name can stand in a hosts file.
func ValidName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 64 || strings.Trim(label, "-") != label || strings.ContainsFunc(label, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
		}) {
			return false
		}
	}
	// "10" and "10.1" would be taken for addresses
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.Trim(last, "0123456789") != ""
}

// Locked is the register while no other process changes it.
type Locked struct {
	dir  string
	f    *os.File
	all  []*Record
	read bool
	// Broken are files of the directory that are no records.
	Broken []string
}

// Lock waits until the register is free. dir is Dir but in tests.
func Lock(dir string) (*Locked, error) {
	f, err := lock.Path(filepath.Join(dir, lockFile), lock.Exclusive)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(dir), 0o755); err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err == nil {
			f, err = lock.Path(filepath.Join(dir, lockFile), lock.Exclusive)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("locking the register of networks %q: %w", dir, err)
	}
	return &Locked{dir: dir, f: f}, nil
}

// Unlock lets others change the register.
func (l *Locked) Unlock() { l.f.Close() }

// All are the records, ordered by UUID. Files that are none are left out.
func (l *Locked) All() ([]*Record, error) {
	if l.read {
		return l.all, nil
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("reading the register of networks: %w", err)
	}
	for _, e := range entries {
		if !ValidUUID(e.Name()) {
			if !strings.HasPrefix(e.Name(), lockFile) {
				l.Broken = append(l.Broken, e.Name())
			}
			continue
		}
		r, err := read(l.dir, e.Name())
		if err != nil {
			l.Broken = append(l.Broken, e.Name())
			continue
		}
		l.all = append(l.all, r)
	}
	l.read = true
	return l.all, nil
}

// Get is the record of a pod; nil if it has none, or none that can be read.
func (l *Locked) Get(uuid string) (*Record, error) {
	all, err := l.All()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.UUID == uuid {
			return r, nil
		}
	}
	return nil, nil
}

// Lookup is the record of a pod without the lock; nil without an error if it has
// none.
func Lookup(dir, uuid string) (*Record, error) {
	if !ValidUUID(uuid) {
		return nil, nil
	}
	r, err := read(dir, uuid)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// RemovePlaceholder removes the file that a namespace was to be bound to, if none
// is, or not any more.
func (l *Locked) RemovePlaceholder(r *Record) error {
	if r.Netns == "" {
		return nil
	}
	if _, err := os.Lstat(r.Netns); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return sys.OnHost(func() error {
		if sys.Namespace(r.Netns) != 0 {
			return nil
		}
		if err := os.Remove(r.Netns); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}

func read(dir, uuid string) (*Record, error) {
	f, err := os.OpenFile(filepath.Join(dir, uuid), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("it is larger than %d bytes", maxRecord)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the network record of pod %s: %w", uuid, err)
	}
	r := &Record{UUID: uuid}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("reading the network record of pod %s: %w", uuid, err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("reading the network record of pod %s: %w", uuid, err)
	}
	return r, nil
}

// Put writes the record of a pod.
func (l *Locked) Put(r *Record) error {
	if !ValidUUID(r.UUID) {
		return fmt.Errorf("noting the pod's network: %q is no UUID", r.UUID)
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("noting the network of pod %s: %w", r.UUID, err)
	}
	all, err := l.All()
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = atomicfile.WriteFileNoSync(filepath.Join(l.dir, r.UUID), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("noting the network of pod %s: %w", r.UUID, err)
	}
	i, found := slices.BinarySearchFunc(all, r.UUID, func(a *Record, id string) int { return strings.Compare(a.UUID, id) })
	if found {
		l.all[i] = r
	} else {
		l.all = slices.Insert(l.all, i, r)
	}
	return nil
}

// Remove removes the record of a pod, if there is one.
func (l *Locked) Remove(uuid string) error {
	if err := os.Remove(filepath.Join(l.dir, uuid)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l.all = slices.DeleteFunc(l.all, func(r *Record) bool { return r.UUID == uuid })
	return nil
}

// Place finds the pod's directory, which moves on through the phases of its
// life; "" if there is none any more.
func (r *Record) Place() string { return findPod(filepath.Dir(filepath.Dir(r.Pod)), r.UUID) }

func findPod(pods, uuid string) string {
	for _, phase := range []string{podfs.Embryo, podfs.Prepare, podfs.Prepared, podfs.Run, podfs.ExitedGarbage, podfs.Garbage} {
		dir := filepath.Join(pods, phase, uuid)
		// an error other than "not there" says nothing about the pod
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return dir
		}
	}
	return ""
}

// Alive says whether the pod runs: somebody holds the lock on its directory.
func (r *Record) Alive() bool {
	dir := r.Place()
	if dir == "" {
		return false
	}
	f, err := lock.TryDir(dir, lock.Shared)
	if err == nil {
		f.Close()
		return false
	}
	return !errors.Is(err, os.ErrNotExist)
}

// Describe names the pod for people.
func (r *Record) Describe() string {
	dir := r.Place()
	text := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) > 512 {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	name := r.UUID
	if n := text(podfs.DeclaredName); n != "" {
		name = n
	}
	if u := text(podfs.UnitName); u != "" {
		return fmt.Sprintf("pod %s (%s)", name, u)
	}
	return "pod " + name
}

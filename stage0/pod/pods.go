package pod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
)

var (
	// ErrNotFound means that no pod has the UUID.
	ErrNotFound = errors.New("no such pod")
	// ErrEmptyUUID means that an empty prefix was given, which would match everything.
	ErrEmptyUUID = errors.New("UUID cannot be empty")
	// ErrState means that the pod is not in a state that allows what was asked.
	ErrState = errors.New("pod is not in the right state")
)

// Pods are the pods of a data directory.
type Pods struct {
	dir string
}

// Open opens the pods of a data directory; nothing needs to exist yet.
func Open(dataDir string) *Pods { return &Pods{filepath.Join(dataDir, "pods")} }

// Dir is the directory that has those of the phases.
func (p *Pods) Dir() string { return p.dir }

func (p *Pods) path(phase, uuid string) string { return filepath.Join(p.dir, phase, uuid) }

// MkDirs makes the directories of all phases.
func (p *Pods) MkDirs() error {
	for _, ph := range phases() {
		if err := os.MkdirAll(filepath.Join(p.dir, ph), 0o750); err != nil {
			return err
		}
	}
	return nil
}

// Handle is a pod directory held under its exclusive lock.
type Handle struct {
	UUID string

	pods  *Pods
	phase string
	lock  *os.File
}

// Dir is where the pod's directory is now.
func (h *Handle) Dir() string { return h.pods.path(h.phase, h.UUID) }

// LockFile is the open, locked directory; stage1 inherits it.
func (h *Handle) LockFile() *os.File { return h.lock }

// Close gives the lock up.
func (h *Handle) Close() error { return h.lock.Close() }

// Create makes a new pod and leaves it preparing.
func (p *Pods) Create(uuid string) (*Handle, error) {
	if !ValidUUID(uuid) {
		return nil, fmt.Errorf("%q is not a UUID", uuid)
	}
	// A collector may take the directory in the moment before it is locked.
	for range 20 {
		h, err := p.create(uuid)
		if !errors.Is(err, os.ErrNotExist) {
			return h, err
		}
	}
	return nil, fmt.Errorf("making the pod directory of %s: it keeps being removed", uuid)
}

func (p *Pods) create(uuid string) (*Handle, error) {
	err := os.Mkdir(p.path(podfs.Embryo, uuid), 0o750)
	if errors.Is(err, os.ErrNotExist) {
		if err = p.MkDirs(); err == nil {
			err = os.Mkdir(p.path(podfs.Embryo, uuid), 0o750)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making the pod directory: %w", err)
	}
	failpoint.Hit("pod/embryo")
	// waits for a collector that holds it: then it is gone, and its name free
	f, err := lock.Dir(p.path(podfs.Embryo, uuid), lock.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("locking the new pod: %w", err)
	}
	h := &Handle{UUID: uuid, pods: p, phase: podfs.Embryo, lock: f}
	failpoint.Hit("pod/locked")
	if err := h.move(podfs.Prepare); err != nil {
		h.Close()
		return nil, err
	}
	failpoint.Hit("pod/preparing")
	return h, nil
}

// move renames the pod's directory to another phase. A rename is atomic, and
// state that a power cut takes back is still a state; only ToPrepared, whose
// outcome was promised to the user, waits for the disk.
func (h *Handle) move(phase string) error {
	if err := os.Rename(h.Dir(), h.pods.path(phase, h.UUID)); err != nil {
		return fmt.Errorf("moving pod %s to %s: %w", h.UUID, phase, err)
	}
	h.phase = phase
	return nil
}

// ToPrepared makes a preparing pod ready for run-prepared, durably, and gives
// the lock up.
func (h *Handle) ToPrepared() error {
	if err := sys.Syncfs(h.lock); err != nil {
		return fmt.Errorf("writing pod %s to disk: %w", h.UUID, err)
	}
	failpoint.Hit("pod/synced")
	if err := h.move(podfs.Prepared); err != nil {
		return err
	}
	failpoint.Hit("pod/prepared")
	if err := sys.SyncDir(filepath.Dir(h.Dir())); err != nil {
		return err
	}
	return h.Close()
}

// ToRun moves a preparing or prepared pod to running; the lock is kept.
func (h *Handle) ToRun() error {
	err := h.move(podfs.Run)
	failpoint.Hit("pod/run")
	return err
}

// TakePrepared locks a prepared pod for running. Of several callers one wins,
// the others get ErrState at once.
func (p *Pods) TakePrepared(uuid string) (*Handle, error) {
	f, err := lock.TryDir(p.path(podfs.Prepared, uuid), lock.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w: it is run by another rkt, or not prepared", uuid, ErrState)
	}
	return &Handle{UUID: uuid, pods: p, phase: podfs.Prepared, lock: f}, nil
}

// Pod is a pod as it was when it was looked at. Its files are read relative to
// an open directory, so that they stay readable when the pod moves on.
type Pod struct {
	UUID  string
	State State

	pods  *Pods
	phase string
	root  *os.Root
}

// Close releases the directory.
func (d *Pod) Close() { d.root.Close() }

// Dir is where the directory was.
func (d *Pod) Dir() string { return d.pods.path(d.phase, d.UUID) }

// Get looks at the pod with the UUID. Pods only move forward, so looking in
// the order of the phases also finds one that moves meanwhile.
func (p *Pods) Get(uuid string) (*Pod, error) {
	for _, ph := range phases() {
		root, err := os.OpenRoot(p.path(ph, uuid))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("opening pod %s: %w", uuid, err)
		}
		d := &Pod{UUID: uuid, pods: p, phase: ph, root: root}
		if err := d.probe(); err != nil {
			root.Close()
			return nil, err
		}
		// it may have moved between the opening and the look at its lock
		if _, err := os.Lstat(d.Dir()); errors.Is(err, os.ErrNotExist) {
			root.Close()
			continue
		}
		return d, nil
	}
	return nil, fmt.Errorf("pod %s: %w", uuid, ErrNotFound)
}

func (d *Pod) probe() error {
	locked := false
	if d.phase != podfs.Embryo && d.phase != podfs.Prepared {
		f, err := d.root.Open(".")
		if err != nil {
			return err
		}
		defer f.Close()
		err = lock.TryFile(f, lock.Shared)
		if err != nil && !errors.Is(err, lock.ErrLocked) {
			return fmt.Errorf("probing pod %s: %w", d.UUID, err)
		}
		locked = err != nil
	}
	d.State = stateOf(d.phase, locked)
	return nil
}

// Refresh looks at the pod again.
func (d *Pod) Refresh() error {
	n, err := d.pods.Get(d.UUID)
	if errors.Is(err, ErrNotFound) {
		d.State = Gone
		return nil
	}
	if err != nil {
		return err
	}
	d.root.Close()
	*d = *n
	return nil
}

// WaitUnlocked blocks until the lock that a preparing or running pod holds is
// released.
func (d *Pod) WaitUnlocked() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return lock.File(f, lock.Shared)
}

// listed are the phases whose pods users can name.
func listed() []string {
	return []string{podfs.Prepare, podfs.Prepared, podfs.Run, podfs.ExitedGarbage}
}

// uuids lists the pods in the phases, sorted, each once.
func (p *Pods) uuids(in []string) ([]string, error) {
	var all []string
	for _, ph := range in {
		f, err := os.Open(filepath.Join(p.dir, ph))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing pods: %w", err)
		}
		names, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("listing pods: %w", err)
		}
		for _, n := range names {
			if ValidUUID(n) {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// List looks at every pod users can name. Pods that vanish meanwhile are left
// out. The caller closes them.
func (p *Pods) List() ([]*Pod, error) {
	ids, err := p.uuids(listed())
	if err != nil {
		return nil, err
	}
	var out []*Pod
	var errs []error
	for _, id := range ids {
		d, err := p.Get(id)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			errs = append(errs, err)
		case slices.Contains(listed(), d.phase):
			out = append(out, d)
		default:
			d.Close()
		}
	}
	return out, errors.Join(errs...)
}

// Resolve finds the one pod whose UUID begins with prefix.
func (p *Pods) Resolve(prefix string) (string, error) {
	if prefix == "" {
		return "", ErrEmptyUUID
	}
	prefix = strings.ToLower(prefix)
	if ValidUUID(prefix) {
		for _, ph := range listed() {
			if _, err := os.Lstat(p.path(ph, prefix)); err == nil {
				return prefix, nil
			}
		}
	}
	ids, err := p.uuids(listed())
	if err != nil {
		return "", err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, prefix) })
	switch len(ids) {
	case 0:
		return "", fmt.Errorf("no matches found for %q", prefix)
	case 1:
		return ids[0], nil
	}
	return "", fmt.Errorf("ambiguous UUID %q: %d matches", prefix, len(ids))
}

// NewestOf finds the newest pod of a declared name, running ones first.
func (p *Pods) NewestOf(name string) (string, error) {
	all, err := p.List()
	if err != nil && len(all) == 0 {
		return "", err
	}
	best := ""
	var bestKey [2]int64
	for _, d := range all {
		if d.DeclaredName() == name {
			key := [2]int64{0, d.Created().UnixNano()}
			if d.State == Running {
				key[0] = 1
			}
			if best == "" || slices.Compare(key[:], bestKey[:]) > 0 {
				best, bestKey = d.UUID, key
			}
		}
		d.Close()
	}
	if best == "" {
		return "", fmt.Errorf("pod %q: %w", name, ErrNotFound)
	}
	return best, nil
}

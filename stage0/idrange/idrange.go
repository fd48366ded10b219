// Package idrange gives every pod with a user namespace a range of user and
// group ids of its own. The record of a range is a file in the pod's
// directory, and there is no other: a range is taken exactly as long as a
// pod's directory, of whatever state, has the record.
package idrange

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// Count is how many ids a range has; ranges begin at multiples of it.
const Count = 1 << 16

// region is a part of the ids in which ranges are looked for, by the first ids
// of its first and last range.
type region struct{ first, last uint32 }

// The first region is free by the conventions of systemd (UIDS-GIDS.md): above
// what systemd-nspawn, machined and nsresourced give to containers, below the
// foreign ids. Only when it is full ranges are taken where nspawn takes some.
func regions() [2]region { return [2]region{{0x70000000, 0x7FFD0000}, {0x00080000, 0x6FFF0000}} }

// Host is where the ids of the host are looked up.
type Host struct {
	// Users are files in the form of passwd(5) and group(5).
	Users []string
	// Subordinate are files in the form of subuid(5).
	Subordinate []string
	// Nspawn has a lock file per range that a systemd-nspawn has picked.
	Nspawn string
}

// System is the running host.
func System() Host {
	return Host{Users: []string{"/etc/passwd", "/etc/group"}, Subordinate: []string{"/etc/subuid", "/etc/subgid"}, Nspawn: "/run/systemd/nspawn-uid"}
}

// Allocate finds a range for the pod being prepared in podDir and records it
// there. Of any number of processes each gets another.
func Allocate(h Host, dataDir, podDir string) (abi.IDRange, error) {
	l, err := lock.Path(filepath.Join(dataDir, "locks", "idRangeLock"), lock.Exclusive)
	if err != nil {
		return abi.IDRange{}, err
	}
	defer l.Close()
	taken, err := h.taken()
	if err != nil {
		return abi.IDRange{}, err
	}
	if err := recorded(dataDir, taken); err != nil {
		return abi.IDRange{}, err
	}
	for _, r := range regions() {
		// a random one: ids that come again at once may meet files of the pod before
		n := (r.last-r.first)/Count + 1
		start := rand.Uint32N(n)
		for i := range n {
			shift := r.first + (start+i)%n*Count
			if taken[shift/Count] || h.picked(shift) {
				continue
			}
			got := abi.IDRange{Shift: shift, Count: Count}
			err := atomicfile.WriteFileNoSync(filepath.Join(podDir, podfs.PrivateUsers), []byte(got.String()+"\n"), 0o640)
			return got, err
		}
	}
	return abi.IDRange{}, errors.New("no range of 65536 user ids is free; collect ended pods with rkt gc")
}

// Of is the range recorded in a pod's directory; none is recorded for a pod
// without a user namespace.
func Of(podDir string) (abi.IDRange, error) {
	b, err := os.ReadFile(filepath.Join(podDir, podfs.PrivateUsers))
	if errors.Is(err, os.ErrNotExist) {
		return abi.IDRange{}, nil
	}
	if err != nil {
		return abi.IDRange{}, err
	}
	r, err := abi.ParseIDRange(strings.TrimSpace(string(b)))
	if err != nil {
		return r, fmt.Errorf("reading %q: %w", filepath.Join(podDir, podfs.PrivateUsers), err)
	}
	return r, nil
}

// recorded notes the ranges of all pods. A pod that moves meanwhile is met
// later, since the directories are in the order that pods take.
func recorded(dataDir string, taken map[uint32]bool) error {
	for _, phase := range []string{podfs.Embryo, podfs.Prepare, podfs.Prepared, podfs.Run, podfs.ExitedGarbage, podfs.Garbage} {
		dir := filepath.Join(dataDir, "pods", phase)
		d, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			return err
		}
		for _, n := range names {
			// one that cannot be read cannot run either
			if r, err := Of(filepath.Join(dir, n)); err == nil && r.Count > 0 {
				mark(taken, uint64(r.Shift), uint64(r.Count))
			}
		}
	}
	return nil
}

// picked says whether a systemd-nspawn has the range.
func (h Host) picked(shift uint32) bool {
	_, err := os.Lstat(filepath.Join(h.Nspawn, fmt.Sprint(shift)))
	return err == nil
}

package prepare

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage0/idrange"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// PrivateUsers says whether a pod gets a user namespace of its own.
type PrivateUsers int

// Without one the pod's root is the host's; it is an error if one is wanted and
// the kernel has none; where it is the default the pod then goes without, and
// the user is told.
const (
	NoPrivateUsers PrivateUsers = iota
	WantPrivateUsers
	DefaultPrivateUsers
)

// userns is a user namespace made once for all mounts of a pod.
type userns struct {
	ids  abi.IDRange
	file *os.File
}

func (u *userns) of(ids abi.IDRange) (*os.File, error) {
	if u.file != nil && u.ids == ids {
		return u.file, nil
	}
	maps := []sys.IDMap{{Inside: 0, Outside: ids.Shift, Count: ids.Count}}
	f, err := sys.UserNamespace(maps, maps)
	if err == nil {
		*u = userns{ids, f}
	}
	return f, err
}

// allocate gives the pod a range of ids and sees whether it is of use here.
func (p *Preparer) allocate(dir string, want PrivateUsers) (abi.IDRange, error) {
	none := abi.IDRange{}
	if want == NoPrivateUsers {
		return none, nil
	}
	ids, err := idrange.Allocate(idrange.System(), p.DataDir, dir)
	if err != nil {
		return none, fmt.Errorf("finding a range of user ids: %w", err)
	}
	_, err = p.ns.of(ids)
	if err == nil {
		return ids, nil
	}
	if want == WantPrivateUsers {
		return none, fmt.Errorf("private users: %w", err)
	}
	p.Warn(fmt.Sprintf("the pod runs without private users, its root is the host's: %v", err))
	return none, os.Remove(filepath.Join(dir, podfs.PrivateUsers))
}

// mapping decides how the trees get into the pod's range: by mounts, or, where
// the kernel or the file system cannot, by copies with other owners. It returns
// whether overlays are used, and the range that copies are made in, if any.
func (p *Preparer) mapping(dir string, ids abi.IDRange, r Request, overlay bool) (bool, abi.IDRange, error) {
	ns, err := p.ns.of(ids)
	if err != nil {
		return overlay, ids, err
	}
	t, err := p.Trees.Find(r.Stage1.Key)
	if err != nil {
		return overlay, ids, err
	}
	from := dir
	if overlay {
		from = t.Lowers()[0]
	}
	if err := tree.SupportsIDMap(from, ns, overlay); err != nil {
		p.Warn(fmt.Sprintf("the images are copied for this pod, and the copies given to its private users, which takes time and room: %v", err))
		return false, ids, nil
	}
	return overlay, abi.IDRange{}, nil
}

// mapCopies shows the pod's copied trees in its range, unless they were copied
// into it.
func (p *Preparer) mapCopies(dir string, ids abi.IDRange) error {
	if ids.Count == 0 {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, podfs.PrivateUsersCopied)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ns, err := p.ns.of(ids)
	if err != nil {
		return err
	}
	return tree.MountMapped(filepath.Join(dir, podfs.Stage1Rootfs), ns)
}

// AsRoot calls f with what it makes belonging to the root of the pod.
func AsRoot(ids abi.IDRange, f func() error) error {
	if ids.Count == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return sys.AsOwner(ids.Shift, ids.Shift, f)
}

package entrypoint

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// idMaps are the maps of ids for the pod's volumes.
type idMaps struct {
	ids  abi.IDRange
	warn func(string, ...any)
	// same shows the ids of disks unchanged in the pod; made when it is needed.
	same *os.File
}

func (i *idMaps) close() {
	if i.same != nil {
		i.same.Close()
	}
}

// apply makes the detached mount of a host's directory or file show the owner
// that the volume asks for.
func (i *idMaps) apply(tree int, m plan.Mount, st *unix.Stat_t) error {
	var ns *os.File
	var err error
	kind := st.Mode & unix.S_IFMT
	switch {
	case m.Owner == abi.OwnerApp:
		if ns, err = i.app(m, st); err != nil {
			return err
		}
		defer ns.Close()
	case m.Owner == abi.OwnerHost, i.ids.Count == 0:
		return nil
	case m.Owner == "" && kind != unix.S_IFDIR && kind != unix.S_IFREG:
		return nil // a device's or a socket's rights are those of its mode
	default:
		if i.same == nil {
			if i.same, err = sys.UserNamespace(one(0, i.ids.Shift, i.ids.Count), one(0, i.ids.Shift, i.ids.Count)); err != nil {
				return err
			}
		}
		ns = i.same
	}
	err = sys.IDMapMount(tree, ns, m.Recursive)
	if errors.Is(err, sys.ErrNoIDMap) && m.Owner == "" {
		i.warn("app %q: the files of volume %q (%s) belong to nobody in the pod, which has private users: %v; "+
			`owner=host says that this is meant, "privateUsers": false does without them`, m.App, m.Volume, m.Source, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("giving it the owner %q: %w", m.Owner, err)
	}
	return nil
}

// app maps the owner and group of the source, and no others, to the app's.
func (i *idMaps) app(m plan.Mount, st *unix.Stat_t) (*os.File, error) {
	return sys.UserNamespace(one(st.Uid, m.UID, 1), one(st.Gid, m.GID, 1))
}

func one(inside, outside, count uint32) []sys.IDMap {
	return []sys.IDMap{{Inside: inside, Outside: outside, Count: count}}
}

package entrypoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/rootpath"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// apply writes the plan's files and makes its mounts. The mounts are made in
// the mount namespace that stage0 gave the pod, so nothing of them outlives it.
func apply(p *plan.Plan, ids abi.IDRange, warn func(string, ...any)) error {
	if err := os.Symlink("nspawn", podfs.Flavor); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return applyTo(place{root: podfs.Stage1Rootfs}, p, ids, warn)
}

// place is where the pod's root is: in the mount namespace of this process, or
// in that of the running pod.
type place struct {
	root string
	live *sys.MountNS // nil in one's own
}

// app is an app's root.
func (l place) app(name string) string {
	return filepath.Join(l.root, podfs.Stage2Dir, name, podfs.RootfsDir)
}

func (l place) write(name string, data []byte, mode os.FileMode) error {
	if l.live != nil {
		return atomicfile.WriteFileNoSync(name, data, mode) // somebody may look at any time
	}
	return os.WriteFile(name, data, mode)
}

func (l place) attach(tree int, target *os.File) error {
	if l.live != nil {
		return l.live.Attach(tree, target)
	}
	return unix.MoveMount(tree, "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func applyTo(l place, p *plan.Plan, ids abi.IDRange, warn func(string, ...any)) error {
	maps := idMaps{ids: ids, warn: warn}
	defer maps.close()
	if err := asRoot(ids, func() error { return writeFiles(l, p, ids) }); err != nil {
		return err
	}
	for _, e := range p.Empty {
		if err := emptyVolume(e); err != nil {
			return fmt.Errorf("making the empty volume %q: %w", e.Name, err)
		}
	}
	for _, m := range p.Mounts {
		if err := mount(l, m, &maps); err != nil {
			return fmt.Errorf("mounting volume %q at %q in app %q: %w", m.Volume, m.Target, m.App, err)
		}
	}
	return nil
}

// writeFiles makes the files and directories in the pod's root.
func writeFiles(l place, p *plan.Plan, ids abi.IDRange) error {
	for _, f := range p.Files {
		name := filepath.Join(l.root, f.Path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := l.write(name, f.Data, os.FileMode(f.Mode)); err != nil {
			return err
		}
	}
	for _, d := range []string{podfs.StatusDir, podfs.HealthDir} {
		if err := os.MkdirAll(filepath.Join(l.root, d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range p.Dirs {
		if err := makeDir(l, d, ids); err != nil {
			return fmt.Errorf("making the working directory %q of app %q: %w", d.Path, d.App, err)
		}
	}
	return nil
}

// makeDir makes a directory in an app's root.
func makeDir(l place, d plan.Dir, ids abi.IDRange) error {
	root, err := rootpath.Open(l.app(d.App))
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.MkdirAll(d.Path, rootpath.Dir{Mode: 0o755, UID: ids.Shift, GID: ids.Shift})
	if err != nil {
		return err
	}
	return dir.Close()
}

func emptyVolume(e plan.EmptyVolume) error {
	if err := os.MkdirAll(podfs.SharedVolumes, 0o755); err != nil {
		return err
	}
	dir := filepath.Join(podfs.SharedVolumes, e.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil // shared by another app
		}
		return err
	}
	if err := os.Chown(dir, e.UID, e.GID); err != nil {
		return err
	}
	return unix.Chmod(dir, e.Mode)
}

// mount shows the source in the app. The source is cloned as a detached mount
// first: what was looked at is what is mounted. The target is found by the
// kernel inside the app's root, whatever links the image holds.
func mount(l place, m plan.Mount, maps *idMaps) error {
	ids := maps.ids
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	attr := uint(unix.AT_EMPTY_PATH)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
		attr |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	if err != nil {
		return fmt.Errorf("opening the source %q: %w", m.Source, err)
	}
	defer unix.Close(tree)
	if l.live != nil {
		// as all mounts of a pod are: what is mounted below it in the pod stays there
		if err := unix.MountSetattr(tree, "", attr|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_SLAVE}); err != nil {
			return fmt.Errorf("making it a mount of the pod: %w", err)
		}
	}
	if m.ReadOnly {
		if err := unix.MountSetattr(tree, "", attr, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("making it read-only: %w", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	if err := maps.apply(tree, m, &st); err != nil {
		return err
	}
	return attachVolume(l, tree, m, ids, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// attachVolume mounts a detached tree at its target in the app's root.
func attachVolume(l place, tree int, m plan.Mount, ids abi.IDRange, dir bool) error {
	root, err := rootpath.Open(l.app(m.App))
	if err != nil {
		return err
	}
	defer root.Close()
	var target *os.File
	err = asRoot(ids, func() (err error) {
		if dir {
			target, err = root.MkdirAll(m.Target, rootpath.Dir{UID: ids.Shift, GID: ids.Shift})
		} else {
			target, err = root.MkFile(m.Target, rootpath.Dir{UID: ids.Shift, GID: ids.Shift})
		}
		return err
	})
	if err != nil {
		return err
	}
	defer target.Close()
	var at, top unix.Stat_t
	if err := errors.Join(unix.Fstat(int(target.Fd()), &at), unix.Fstat(root.Fd(), &top)); err != nil {
		return err
	}
	if at.Dev == top.Dev && at.Ino == top.Ino {
		return fmt.Errorf("%q leads to the root of the app, which no volume may cover", m.Target)
	}
	if (at.Mode&unix.S_IFMT == unix.S_IFDIR) != dir {
		return fmt.Errorf("of %q and the source %q one is a directory, the other is not", m.Target, m.Source)
	}
	return l.attach(tree, target)
}

package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rkt-systemd/rkt/internal/sys"
)

// Overlay describes an overlay mount.
type Overlay struct {
	Lower []string // top first
	Upper string   // none with Work: a read-only overlay, of two lowers at least
	Work  string
	Label string // SELinux context of the mount, or ""
	// IDMap is a user namespace through whose map the lower directories are seen,
	// nil for none; they are attached for a moment at At, a directory in a mount
	// namespace of the caller's own: older kernels take no detached ones.
	IDMap *os.File
	At    string
}

// maxOptions is what mount(2) copies of its data: a page, with its final NUL.
const maxOptions = 4095

// Options is the data string for mount(2), with what is special in paths escaped.
func (o Overlay) Options() (string, error) {
	if len(o.Lower) == 0 {
		return "", errors.New("an overlay needs a lower directory")
	}
	if (o.Upper == "") != (o.Work == "") {
		return "", errors.New("an overlay needs both upper and work directory, or neither")
	}
	lower := make([]string, len(o.Lower))
	for i, l := range o.Lower {
		lower[i] = escape(l)
	}
	opts := "lowerdir=" + strings.Join(lower, ":")
	if o.Upper != "" {
		opts += ",upperdir=" + escape(o.Upper) + ",workdir=" + escape(o.Work)
	}
	if o.Label != "" {
		if strings.ContainsAny(o.Label, "\"\\") {
			return "", fmt.Errorf("bad SELinux label %q", o.Label)
		}
		opts += `,context="` + o.Label + `"`
	}
	if len(opts) > maxOptions {
		return "", fmt.Errorf("the overlay's paths are %d bytes long together, more than %d", len(opts), maxOptions)
	}
	return opts, nil
}

// escape protects what overlayfs splits its options at.
func escape(p string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(p)
}

// Mount mounts the overlay on target. Several lower directories are given by
// descriptor: the paths of many layers would not fit into what mount(2) takes.
func (o Overlay) Mount(target string) error {
	if o.IDMap != nil {
		return o.mountMapped(target)
	}
	if len(o.Lower) > 1 {
		lower := make([]string, 0, len(o.Lower))
		for _, l := range o.Lower {
			fd, err := sys.Openat(sys.CWD, l, sys.O_PATH|sys.O_DIRECTORY|sys.O_NOFOLLOW, 0)
			if err != nil {
				return fmt.Errorf("mounting overlay on %q: %w", target, err)
			}
			defer sys.Close(fd)
			lower = append(lower, sys.ProcPath(fd))
		}
		o.Lower = lower
	}
	opts, err := o.Options()
	if err == nil {
		err = sys.Mount("overlay", target, "overlay", 0, opts)
	}
	if err != nil {
		return fmt.Errorf("mounting overlay on %q: %w", target, err)
	}
	return nil
}

// mountMapped mounts the overlay over idmapped copies of its lower mounts. The
// overlay keeps copies of its own of these, so they can go again at once.
func (o Overlay) mountMapped(target string) (err error) {
	lower := make([]string, 0, len(o.Lower))
	attached := 0
	defer func() {
		for range attached {
			err = errors.Join(err, sys.UnmountLazy(o.At))
		}
	}()
	for _, l := range o.Lower {
		t, err := sys.CloneTree(l, false)
		if err == nil {
			defer t.Close()
			err = sys.IDMapMount(int(t.Fd()), o.IDMap, false)
		}
		if err == nil {
			err = sys.AttachTree(t, o.At) // one over the other: they are used by descriptor
		}
		if err != nil {
			return fmt.Errorf("mounting overlay on %q: mapping the ids of %q: %w", target, l, err)
		}
		attached++
		lower = append(lower, sys.ProcPath(int(t.Fd())))
	}
	o.Lower, o.IDMap = lower, nil
	opts, err := o.Options()
	if err == nil {
		err = sys.Mount("overlay", target, "overlay", 0, opts)
	}
	if err != nil {
		return fmt.Errorf("mounting overlay on %q over idmapped layers: %w", target, err)
	}
	return nil
}

// MountMapped shows the tree at dir with its ids mapped, on itself.
func MountMapped(dir string, userns *os.File) error {
	t, err := sys.CloneTree(dir, true)
	if err == nil {
		defer t.Close()
		err = sys.IDMapMount(int(t.Fd()), userns, true)
	}
	if err == nil {
		err = sys.AttachTree(t, dir)
	}
	if err != nil {
		return fmt.Errorf("mapping the ids of %q: %w", dir, err)
	}
	return nil
}

// SupportsIDMap says why the ids of what lies in dir cannot be mapped by
// mounts, or nil. With overlay it is about layers of an overlay.
func SupportsIDMap(dir string, userns *os.File, overlay bool) error {
	t, err := sys.CloneTree(dir, false)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := sys.IDMapMount(int(t.Fd()), userns, false); err != nil {
		return err
	}
	if overlay && !sys.KernelAtLeast(5, 19) {
		return errors.New("the kernel's overlayfs takes no idmapped layers; Linux 5.19 and later do")
	}
	return nil
}

// SupportsOverlay says why a data directory cannot carry overlays, or nil.
func SupportsOverlay(dataDir string) error {
	if !sys.HasFilesystem("overlay") {
		return errors.New("the kernel does not support overlayfs")
	}
	dir := dataDir
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	info, err := sys.Statfs(dir)
	if err != nil {
		return err
	}
	for name, magic := range map[string]int64{"overlayfs": sys.OverlayMagic, "ZFS": sys.ZFSMagic, "AUFS": sys.AUFSMagic, "NFS": sys.NFSMagic} {
		if info.Type == magic {
			return fmt.Errorf("%q is on %s, which overlayfs cannot write to", dataDir, name)
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	ok, err := sys.DirEntryTypes(d)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%q is on a file system that does not report the types of directory entries (d_type)", dataDir)
	}
	return nil
}

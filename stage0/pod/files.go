package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

// maxFile bounds what is read of a pod's files.
const maxFile = 4 << 20

// ReadFile reads a file of the pod.
func (d *Pod) ReadFile(name string) ([]byte, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return b, err
}

func (d *Pod) text(name string) string {
	b, err := d.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Has reports whether the pod has the file.
func (d *Pod) Has(name string) bool {
	_, err := d.root.Lstat(name)
	return err == nil
}

// DeclaredName is the name of the pod file the pod was made from, or "".
func (d *Pod) DeclaredName() string { return d.text(podfs.DeclaredName) }

// Machine is the pod's name at machined.
func (d *Pod) Machine() string {
	if m := d.text(podfs.MachineName); m != "" {
		return m
	}
	return podfs.DefaultMachine(d.UUID)
}

// Unit is the unit the pod was started as, "" if by hand.
func (d *Pod) Unit() string { return d.text(podfs.UnitName) }

// PrivateUsers are the ids of the host that are the pod's, SHIFT:COUNT; "" if
// its root is the host's.
func (d *Pod) PrivateUsers() string { return d.text(podfs.PrivateUsers) }

// Scope is the scope machined makes for a pod that was started by hand.
func (d *Pod) Scope() string { return podfs.Scope(d.Machine()) }

// Manifest reads the pod manifest.
func (d *Pod) Manifest() (*schema.PodManifest, error) {
	b, err := d.ReadFile(podfs.PodManifest)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest of pod %s: %w", d.UUID, err)
	}
	m, _, err := appc.ParsePodManifest(b)
	return m, err
}

// AppImage reads the image manifest of an app.
func (d *Pod) AppImage(app string) (*schema.ImageManifest, error) {
	b, err := d.ReadFile(filepath.Join(podfs.AppInfo(app), podfs.ManifestFile))
	if err != nil {
		return nil, err
	}
	m, _, err := appc.ParseImageManifest(b)
	return m, err
}

// Created is when the pod was prepared; zero if unknown.
func (d *Pod) Created() time.Time {
	if t := d.mtime(podfs.PodCreated); !t.IsZero() {
		return t
	}
	return d.mtime(podfs.PodManifest)
}

// Started is when the pod was started; zero if it was not, or is only being.
func (d *Pod) Started() time.Time {
	if t := d.mtime(podfs.Pid); !t.IsZero() {
		return t
	}
	return d.mtime(podfs.Ppid)
}

// Marked is when gc marked the pod, which the rename records as the
// directory's change time; zero before.
func (d *Pod) Marked() time.Time {
	if d.phase != podfs.ExitedGarbage && d.phase != podfs.Garbage {
		return time.Time{}
	}
	return d.ctime()
}

func (d *Pod) ctime() time.Time {
	fi, err := d.root.Stat(".")
	if err != nil {
		return time.Time{}
	}
	st := fi.Sys().(*syscall.Stat_t)
	return time.Unix(st.Ctim.Unix())
}

func (d *Pod) mtime(name string) time.Time {
	fi, err := d.root.Lstat(name)
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

// Stage1Tree is the tree id of the pod's stage1 image.
func (d *Pod) Stage1Tree() string { return d.text(podfs.Stage1TreeID) }

// Trees are the ids of all trees the pod refers to.
func (d *Pod) Trees() []string {
	var out []string
	if t := d.Stage1Tree(); t != "" {
		out = append(out, t)
	}
	f, err := d.root.Open(podfs.AppsInfo)
	if err != nil {
		return out
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, n := range names {
		if t := d.text(filepath.Join(podfs.AppInfo(n), podfs.TreeStoreIDFile)); t != "" {
			out = append(out, t)
		}
	}
	return out
}

// stage1File reads a file that stage1 wrote in its root: with overlay that is
// the upper directory, readable also when nothing is mounted.
func (d *Pod) stage1File(name string) (string, error) {
	if d.Has(podfs.OverlayPrepared) {
		return filepath.Join(podfs.Upper(d.Stage1Tree(), ""), name), nil
	}
	return filepath.Join(podfs.Stage1Rootfs, name), nil
}

// ExitStatus is the recorded status of an app.
func (d *Pod) ExitStatus(app string) (int, bool) {
	name, err := d.stage1File(filepath.Join(podfs.StatusDir, app))
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(d.text(name))
	return n, err == nil
}

// AppTimes are when an app of a mutable pod was added, started last and has
// ended since; zero where it was not.
func (d *Pod) AppTimes(app string) (created, started, ended time.Time) {
	name, err := d.stage1File(filepath.Join(podfs.StatusDir, app))
	if err != nil {
		return
	}
	return d.mtime(name + "-created"), d.mtime(name + "-started"), d.mtime(name)
}

// Ready reports whether the supervisor has said that the pod is up.
func (d *Pod) Ready() bool {
	name, err := d.stage1File(podfs.SupervisorStatus)
	if err != nil {
		return false
	}
	t, err := d.root.Readlink(name)
	return err == nil && t == "ready"
}

// Networks are those the pod joined.
func (d *Pod) Networks() []podfs.Network {
	if d.State == Garbage || d.State == Deleting {
		return nil
	}
	b, err := d.ReadFile(podfs.NetInfo)
	if err != nil {
		return nil
	}
	var n []podfs.Network
	if json.Unmarshal(b, &n) != nil {
		return nil
	}
	return n
}

// ErrNoPID means that the pod's first process is not known (yet).
var ErrNoPID = errors.New("the pod has no process yet")

// PID is the pod's first process as the contract gives it: the pid file, or
// the only child of the process in ppid.
func (d *Pod) PID() (int, error) {
	if t := d.text(podfs.Pid); t != "" {
		return strconv.Atoi(t)
	}
	t := d.text(podfs.Ppid)
	if t == "" {
		return 0, ErrNoPID
	}
	ppid, err := strconv.Atoi(t)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", podfs.Ppid, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", ppid, ppid))
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrNoPID
	}
	if err != nil {
		return 0, err
	}
	kids := strings.Fields(string(b))
	switch len(kids) {
	case 0:
		return 0, ErrNoPID
	case 1:
		return strconv.Atoi(kids[0])
	}
	return 0, fmt.Errorf("process %d has %d children; the pod's first process cannot be told", ppid, len(kids))
}

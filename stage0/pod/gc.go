package pod

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// Collector marks and deletes pods.
type Collector struct {
	Pods *Pods
	// Release frees what an ended pod holds outside its directory: it runs the
	// stage1 gc entrypoint. It may run more than once for a pod.
	Release func(ctx context.Context, d *Pod) error
	Log     logrus.FieldLogger
	// Out gets a line for every pod that is deleted.
	Out io.Writer
	// Now is the clock.
	Now func() time.Time
}

// Options are the limits of a collection.
type Options struct {
	// Grace is how long a marked pod stays; 0 deletes at once.
	Grace time.Duration
	// ExpirePrepared is how long a prepared pod waits to be run.
	ExpirePrepared time.Duration
	// MarkOnly stops after marking.
	MarkOnly bool
}

const (
	// embryoAge is how old an abandoned embryo must be, unless the grace period is
	// shorter: one that is being made is locked a few instructions after it
	// appears, and made again if it is taken before.
	embryoAge = time.Hour
	// releaseAge is how long a pod is kept whose resources cannot be released: its
	// directory alone says what they are.
	releaseAge = 24 * time.Hour
)

// Collect marks ended pods, then deletes those whose time has come. What one
// pod makes impossible is logged and does not stop the others.
func (c *Collector) Collect(ctx context.Context, o Options) error {
	if err := c.eachIn(podfs.Run, func(id string) error { return c.Mark(ctx, id) }); err != nil {
		return err
	}
	if err := c.eachIn(podfs.Prepare, func(id string) error {
		return c.moveUnlocked(podfs.Prepare, podfs.Garbage, id, "failed prepare")
	}); err != nil {
		return err
	}
	if o.MarkOnly {
		return nil
	}
	old := func(phase, id string, age time.Duration) bool {
		d, err := c.Pods.Get(id)
		if err != nil || d.phase != phase {
			return false
		}
		defer d.Close()
		return age == 0 || c.Now().After(d.ctime().Add(age))
	}
	if err := c.eachIn(podfs.Prepared, func(id string) error {
		if !old(podfs.Prepared, id, o.ExpirePrepared) {
			return nil
		}
		return c.moveUnlocked(podfs.Prepared, podfs.Garbage, id, "expired prepared pod")
	}); err != nil {
		return err
	}
	if err := c.eachIn(podfs.Embryo, func(id string) error {
		if !old(podfs.Embryo, id, min(embryoAge, o.Grace)) {
			return nil
		}
		return c.moveUnlocked(podfs.Embryo, podfs.Garbage, id, "abandoned pod")
	}); err != nil {
		return err
	}
	if err := c.eachIn(podfs.ExitedGarbage, func(id string) error {
		if !old(podfs.ExitedGarbage, id, o.Grace) {
			c.Log.Debugf("pod %q not removed: still within its grace period", id)
			return nil
		}
		return c.sweep(ctx, podfs.ExitedGarbage, id)
	}); err != nil {
		return err
	}
	return c.eachIn(podfs.Garbage, func(id string) error { return c.sweep(ctx, podfs.Garbage, id) })
}

func (c *Collector) eachIn(phase string, f func(id string) error) error {
	ids, err := c.Pods.uuids([]string{phase})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := f(id); err != nil {
			c.Log.Errorf("pod %s: %v, ignoring", id, err)
		}
	}
	return nil
}

// Mark releases what an ended pod holds and moves it to exited-garbage. A pod
// that runs is left alone.
func (c *Collector) Mark(ctx context.Context, id string) error {
	d, err := c.Pods.Get(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if d.State != Exited {
		return nil
	}
	if err := c.Release(ctx, d); err != nil {
		// it is tried again when the pod is deleted
		c.Log.Errorf("pod %s: releasing its resources: %v, ignoring", id, err)
	} else {
		// Without the mark, on a full disk say, it is done again.
		_ = d.root.WriteFile(podfs.ReleasedMarker, nil, 0o640)
	}
	failpoint.Hit("gc/released")
	c.Log.Infof("moving pod %q to garbage", id)
	return c.rename(podfs.Run, podfs.ExitedGarbage, id)
}

// moveUnlocked moves a pod nobody works on.
func (c *Collector) moveUnlocked(from, to, id, what string) error {
	f, err := lock.TryDir(c.Pods.path(from, id), lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c.Log.Infof("moving %s %q to garbage", what, id)
	return c.rename(from, to, id)
}

func (c *Collector) rename(from, to, id string) error {
	if err := os.MkdirAll(filepath.Join(c.Pods.dir, to), 0o750); err != nil {
		return err
	}
	err := os.Rename(c.Pods.path(from, id), c.Pods.path(to, id))
	if errors.Is(err, os.ErrNotExist) {
		return nil // somebody else was first
	}
	failpoint.Hit("gc/marked")
	return err
}

// sweep deletes a pod unless somebody else is at it.
func (c *Collector) sweep(ctx context.Context, phase, id string) error {
	dir := c.Pods.path(phase, id)
	f, err := lock.TryDir(dir, lock.Exclusive)
	if errors.Is(err, lock.ErrLocked) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintf(c.Out, "Garbage collecting pod %q\n", id)
	return c.remove(ctx, phase, id)
}

// remove deletes a locked pod: first what is outside, then mounts, then the
// stage1 root, the rest last, so that what is left after a crash can still be
// told to be a pod.
func (c *Collector) remove(ctx context.Context, phase, id string) error {
	root, err := os.OpenRoot(c.Pods.path(phase, id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d := &Pod{UUID: id, State: ExitedDeleting, pods: c.Pods, phase: phase, root: root}
	defer d.Close()
	if phase == podfs.ExitedGarbage && !d.Has(podfs.ReleasedMarker) {
		if err := c.Release(ctx, d); err != nil {
			err = fmt.Errorf("releasing its resources: %w", err)
			if c.Now().Before(d.ctime().Add(releaseAge)) {
				return fmt.Errorf("%w; the next gc tries again", err)
			}
			c.Log.Errorf("pod %s: %v, ignoring", id, err)
		}
	}
	failpoint.Hit("gc/sweep-released")
	if err := unmountBelow(d.Dir()); err != nil {
		return err
	}
	for _, name := range []string{podfs.Stage1Rootfs, podfs.Overlay, podfs.SharedVolumes} {
		if err := root.RemoveAll(name); err != nil {
			return fmt.Errorf("deleting %s: %w", name, err)
		}
		failpoint.Hit("gc/part-removed")
	}
	if err := os.RemoveAll(d.Dir()); err != nil {
		return fmt.Errorf("deleting pod %s: %w", id, err)
	}
	return nil
}

// Remove deletes a pod at once, in any state but preparing and running.
func (c *Collector) Remove(ctx context.Context, id string) error {
	d, err := c.Pods.Get(id)
	if err != nil {
		return err
	}
	state := d.State
	d.Close()
	switch state {
	case Running:
		return fmt.Errorf("pod %s is running; stop it first: rkt stop %s", id, id)
	case Preparing:
		return fmt.Errorf("pod %s is being prepared", id)
	case Exited:
		if err := c.Mark(ctx, id); err != nil {
			return err
		}
	case AbortedPrepare:
		err = c.moveUnlocked(podfs.Prepare, podfs.Garbage, id, "failed prepare")
	case Prepared:
		err = c.moveUnlocked(podfs.Prepared, podfs.Garbage, id, "prepared pod")
	}
	if err != nil {
		return err
	}
	phase := podfs.ExitedGarbage
	if _, err := os.Lstat(c.Pods.path(podfs.Garbage, id)); err == nil {
		phase = podfs.Garbage
	}
	f, err := lock.Dir(c.Pods.path(phase, id), lock.Exclusive)
	if errors.Is(err, os.ErrNotExist) {
		if d, err := c.Pods.Get(id); err == nil {
			d.Close()
			return fmt.Errorf("pod %s: %w: it is now %s", id, ErrState, d.State)
		}
		return nil // another rkt deleted it meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return c.remove(ctx, phase, id)
}

// unmountBelow unmounts whatever is mounted in a pod's directory, children
// first. Our own flavours leave nothing there; others may.
func unmountBelow(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var points []string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) < 5 {
			continue
		}
		if p := unescapeMount(fields[4]); strings.HasPrefix(p, real+"/") {
			points = append(points, p)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	slices.Reverse(points)
	for _, p := range points {
		if err := sys.UnmountLazy(p); err != nil {
			return fmt.Errorf("unmounting %q: %w", p, err)
		}
	}
	return nil
}

// unescapeMount undoes the octal escapes of mountinfo (proc(5)).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/netreg"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// joiningFile in the pod's network directory has the process that joins.
const joiningFile = "joining"

// How long a tear-down waits for a join that it asked to end, before it kills it;
// and for another tear-down.
const (
	joinPatience     = 10 * time.Second
	teardownPatience = 2 * time.Minute
)

// beginJoin locks the pod's network directory for joining.
func beginJoin(podDir string) (*os.File, error) {
	dir := filepath.Join(podDir, podfs.NetDir)
	f, err := lock.TryDir(dir, lock.Exclusive)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, joiningFile), []byte(strconv.Itoa(os.Getpid())), 0o640)
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("locking the pod's networks: %w", err)
	}
	return f, nil
}

// endJoin locks the pod's network directory for tear-down. A process that is
// still joining is asked to end, and killed if it does not. nil without an error:
// there is no such directory.
func endJoin(ctx context.Context, podDir string) (*os.File, error) {
	dir := filepath.Join(podDir, podfs.NetDir)
	file := filepath.Join(dir, joiningFile)
	end := time.Now().Add(teardownPatience)
	var asked time.Time
	for {
		f, err := lock.TryDir(dir, lock.Exclusive)
		if err == nil {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				f.Close()
				return nil, err
			}
			return f, nil
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if !errors.Is(err, lock.ErrLocked) {
			return nil, fmt.Errorf("locking the pod's networks: %w", err)
		}
		switch {
		case asked.IsZero():
			asked = time.Now()
			signalJoiner(dir, file, unix.SIGTERM)
		case time.Since(asked) > joinPatience:
			signalJoiner(dir, file, unix.SIGKILL)
		}
		if time.Now().After(end) {
			return nil, errors.New("locking the pod's networks: another program is at them and does not end")
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("locking the pod's networks: %w", ctx.Err())
		}
	}
}

// signalJoiner sends a signal to the process that the file names, as long as the
// lock is held: without a holder the number may be anyone's.
func signalJoiner(dir, file string, sig unix.Signal) {
	b, err := os.ReadFile(file)
	if err != nil {
		return // another tear-down has the lock
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 || pid == os.Getpid() {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if f, err := lock.TryDir(dir, lock.Shared); err == nil {
		f.Close()
		return
	}
	_ = unix.PidfdSendSignal(fd, sig, nil, 0) // the lock tells when it has gone
}

// Teardown leaves every network recorded in the pod directory and removes the
// namespace. It may be repeated; what is gone already is no error. What could not
// be done as usual, but was done, is said to warn.
func Teardown(ctx context.Context, podDir, uuid, localConfig string, warn ...func(string)) error {
	// The caller's thread may be in the pod's network namespace, the plugins
	// have to run in the host's.
	done := make(chan error)
	go func() {
		held, err := endJoin(ctx, podDir)
		if err == nil {
			if held != nil {
				defer held.Close()
			}
			err = teardown(ctx, podDir, uuid, localConfig, func(s string) {
				for _, w := range warn {
					w(s)
				}
			})
		}
		done <- err
	}()
	return <-done
}

// teardown is Teardown on a thread in the host's network namespace, with the lock
// on the pod's network directory held.
func teardown(ctx context.Context, podDir, uuid, localConfig string, warn func(string)) error {
	noted, err := os.ReadFile(filepath.Join(podDir, podfs.Netns))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r, rerr := netreg.Lookup(netreg.Dir, uuid)
	if rerr != nil {
		warn(rerr.Error())
	}
	if noted == nil && r == nil && rerr == nil {
		return nil // the host's network, or torn down before
	}
	path := ours(r, string(noted), uuid)
	netns := path // "" after a reboot, for one; plugins then release what they keep elsewhere
	dir := filepath.Join(podDir, podfs.NetDir)
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.json"))
	if err != nil {
		return err
	}
	// without a namespace plugins do not find the addresses whose rules are to go
	interrupted := netns == ""
	if len(names) > 0 && !interrupted {
		if interrupted, err = begun(podDir); err != nil {
			return err
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	var errs []error
	for _, name := range names {
		if err := del(ctx, podDir, uuid, localConfig, netns, name, interrupted, warn); err != nil {
			errs = append(errs, err)
			continue
		}
		failpoint.Hit("network/deleted")
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if path != "" {
		if err := sys.UnbindNamespace(path); err != nil {
			errs = append(errs, fmt.Errorf("removing the network namespace: %w", err))
		}
	}
	failpoint.Hit("network/netns-removed")
	if len(errs) > 0 {
		// What is left is tried again; but nobody is to look for this pod any more.
		return errors.Join(append(errs, unregister(uuid, true))...)
	}
	if err := unregister(uuid, false); err != nil {
		return err
	}
	failpoint.Hit("network/unregistered")
	if err := os.Remove(filepath.Join(podDir, podfs.Netns)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ours is the path of the pod's namespace as long as it is there and the pod's: it
// may have been removed by hand, or taken over by a later pod of that name.
func ours(r *netreg.Record, noted, uuid string) string {
	if r == nil {
		// a pod of an rkt that kept no register; no other can have its name
		if p, err := netreg.NamespacePath(podfs.DefaultMachine(uuid)); err == nil && p == noted && sys.Namespace(p) != 0 {
			return p
		}
		return ""
	}
	if r.Netns == "" || sys.Namespace(r.Netns) != r.Inode || r.Inode == 0 {
		return ""
	}
	return r.Netns
}

// unregister removes the pod from the register, or only its names and namespace.
func unregister(uuid string, keep bool) error {
	l, err := netreg.Lock(netreg.Dir)
	if err != nil {
		return err
	}
	defer l.Unlock()
	r, err := l.Get(uuid)
	if err != nil {
		return err
	}
	if r == nil {
		return l.Remove(uuid) // also a record that cannot be read
	}
	if err := l.RemovePlaceholder(r); err != nil {
		return err
	}
	if !keep {
		return l.Leave(r)
	}
	n := *r
	n.Netns, n.Inode = "", 0
	return l.Hide(&n)
}

// escapeGlob has filepath.Glob take a path as it is.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

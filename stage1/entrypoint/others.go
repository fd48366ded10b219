package entrypoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/network"
)

// Stop asks the pod's supervisor to shut down in order, or kills it.
func Stop(args []string) error {
	s, err := abi.ParseStop(args)
	if err != nil {
		return err
	}
	pid, err := readPID(podfs.Ppid)
	if err != nil {
		return err
	}
	if _, err := signalPod(pid, s.Force); err != nil {
		return err
	}
	if s.Force {
		return killScope(s.UUID)
	}
	return nil
}

// readPID reads a process ID from a file of the pod directory.
func readPID(name string) (int, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("reading the pod's process: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s does not hold a process ID", name)
	}
	return pid, nil
}

// signalPod asks a process of the pod to end, or kills it. It says whether the
// process has gone while the pod lives.
func signalPod(pid int, force bool) (gone bool, err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return false, fmt.Errorf("opening process %d: %w", pid, err)
	}
	gone = err != nil
	if !gone {
		defer unix.Close(fd)
	}
	// The number is only as good as the lock: without a holder the process may be anyone's.
	lock, err := os.Open(".")
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return false, nil
	}
	if gone {
		return true, nil
	}
	sig := unix.SIGTERM
	if force {
		sig = unix.SIGKILL
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return false, fmt.Errorf("sending %s to process %d: %w", unix.SignalName(sig), pid, err)
	}
	return false, nil
}

// GC releases what a pod of this flavour holds outside its directory: networks,
// what a killed nspawn left, cgroups. It may be repeated.
func GC(ctx context.Context, env Env, args []string) error {
	g, err := abi.ParseGC(args)
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	errs := []error{killScope(g.UUID), network.Teardown(network.WithTrace(ctx, env.Log.Debugf), dir, g.UUID, g.LocalConfig, warning(env))}
	machine := podfs.DefaultMachine(g.UUID)
	if b, err := os.ReadFile(podfs.MachineName); err == nil {
		machine = strings.TrimSpace(string(b))
	}
	// Another pod may have a name that was chosen by now: then these are its own.
	if machine != "" && filepath.Base(machine) == machine && (machine == podfs.DefaultMachine(g.UUID) || !exists("/run/systemd/machines/"+machine) || registered(machine, g.UUID)) {
		for _, d := range []string{"unix-export", "propagate"} {
			p := filepath.Join("/run/systemd/nspawn", d, machine)
			if d == "unix-export" {
				// a SIGKILLed nspawn 257 leaves it mounted where the pod had no mount namespace of its own
				_ = unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			}
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
				errs = append(errs, err)
			}
		}
	}
	errs = append(errs, removeNspawnLock(nspawnLocks), removeCgroup(g.UUID))
	return errors.Join(errs...)
}

func warning(env Env) func(string) {
	return func(text string) { env.Log.Warn(text) }
}

// scope is the cgroup of the scope unit that machined made for this pod; "" if
// the pod ran in a unit of its own, whose cgroup is systemd's to empty and
// remove, or if another pod has the name by now.
func scope(uuid string) string {
	b, err := os.ReadFile(podfs.Subcgroup)
	if err != nil {
		return "" // failed before it had one, or collected before
	}
	cg := filepath.Clean("/" + strings.TrimSuffix(string(b), "/payload"))
	base := filepath.Base(cg)
	if !strings.HasPrefix(base, "machine-") || !strings.HasSuffix(base, ".scope") {
		return ""
	}
	if b, err := os.ReadFile(podfs.MachineName); err == nil && strings.TrimSpace(string(b)) != podfs.DefaultMachine(uuid) {
		if !registered(filepath.Base(strings.TrimSpace(string(b))), uuid) {
			return ""
		}
	}
	return filepath.Join("/sys/fs/cgroup", cg)
}

// registered says whether machined has the name for this pod.
func registered(machine, uuid string) bool {
	record, err := os.ReadFile("/run/systemd/machines/" + machine)
	return err == nil && strings.Contains(string(record), "\nID="+strings.ReplaceAll(uuid, "-", "")+"\n")
}

// killScope kills what is left in the pod's scope, and waits until it has gone:
// the pod's processes outlive a systemd-nspawn that was killed, and nobody else
// would end them.
func killScope(uuid string) error {
	top := scope(uuid)
	if top == "" {
		return nil
	}
	err := os.WriteFile(filepath.Join(top, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing what is left of the pod in %q: %w", top, err)
	}
	const tries = 50
	for range tries {
		events, err := os.Open(filepath.Join(top, "cgroup.events"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		b := make([]byte, 256)
		n, err := events.Read(b)
		if err == nil && strings.Contains(string(b[:n]), "populated 1") {
			// POLLPRI tells of a change since the read.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, 100)
			events.Close()
			continue
		}
		events.Close()
		return nil
	}
	return fmt.Errorf("processes of the pod in %q do not end after SIGKILL", top)
}

// removeCgroup removes the empty cgroups of a pod whose own scope has gone.
func removeCgroup(uuid string) error {
	top := scope(uuid)
	if top == "" {
		return nil
	}
	var dirs []string
	err := filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := unix.Rmdir(dirs[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing the cgroup %q: %w", dirs[i], err)
		}
	}
	return nil
}

package entrypoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/machined"
	"github.com/rkt-systemd/rkt/stage1/launch"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// flyRecord is the launcher's record of the app, in the pod directory.
const flyRecord = "fly.json"

// FlyRun makes the app's root and becomes the app: on the host, in its network,
// among its processes, without limits. The goroutine must be locked to its thread.
func FlyRun(ctx context.Context, env Env, args []string) error {
	r, err := abi.ParseRun(args)
	if err != nil {
		return err
	}
	describe(env, r.UUID)
	switch {
	case r.PrivateUsers != "":
		return errors.New("fly has no private users")
	case r.Mutable:
		return errors.New("fly has no mutable pods")
	case r.MDSToken != "":
		return errors.New("--mds-token is not supported by fly")
	}
	lock, passed, err := inherited(env)
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	in, err := load(env, r, abi.IDRange{})
	if err != nil {
		return err
	}
	in.Facts = plan.Facts{PodDir: dir, Machine: podfs.DefaultMachine(r.UUID), Listeners: listeners(passed)}
	if b, err := os.ReadFile(podfs.MachineName); err == nil {
		in.Facts.Machine = strings.TrimSpace(string(b))
	}
	in.Facts.InUnit = env.get("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid())
	if in.Facts.InUnit {
		if in.Facts.LogUnit, err = logUnit(in.Facts); err != nil {
			return err
		}
	}
	in.Facts.ResolvConf = hasContent(filepath.Join(podfs.Stage1Rootfs, podfs.ResolvConf))
	p, err := plan.Fly(in)
	if err != nil {
		return err
	}
	s := &p.Apps[0]
	for _, w := range p.Warnings {
		env.Log.Warn(w)
	}
	if err := flyFiles(p, s, r); err != nil {
		return err
	}
	if err := mountCredentials(env, p.Apps, abi.IDRange{}); err != nil {
		return err
	}
	if err := flyRegister(ctx, in); err != nil {
		env.Log.Warnf("the pod is no machine of systemd-machined: %v", err)
	}
	if err := flyStreams(in, s, r.Interactive); err != nil {
		return err
	}
	if err := env.Signals.Release(); err != nil {
		return err
	}
	if err := sys.PassFDs(passed); err != nil {
		return fmt.Errorf("passing sockets on: %w", err)
	}
	// The lock is to be held as long as the app lives, and closed for nobody: the app is the pod.
	return notExecuted(launch.Exec(s, launch.Command{Kind: launch.Main, Argv: s.Exec, Keep: lock}))
}

// notExecuted gives a program that could not be executed the status that it has
// under systemd; what else went wrong is a failure of rkt's.
func notExecuted(err error) error {
	var e *launch.Error
	if errors.As(err, &e) && e.Status == launch.ExitExec {
		fmt.Fprintln(os.Stderr, err)
		return &Ended{Status: launch.ExitExec}
	}
	return err
}

// flyFiles makes the app's root with its volumes and writes the records.
func flyFiles(p *plan.Plan, s *launch.Spec, r abi.Run) error {
	if r.HostsMode == "default" {
		name := filepath.Join(podfs.Stage1Rootfs, "etc/hosts-fallback")
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte("127.0.0.1 localhost localdomain\n"), 0o644); err != nil {
			return err
		}
	}
	if err := launch.FlyRoot(s.Root); err != nil {
		return err
	}
	for _, m := range p.Mounts {
		if err := flyMount(m); err != nil {
			return fmt.Errorf("mounting volume %q at %q in app %q: %w", m.Volume, m.Target, m.App, err)
		}
	}
	rec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	for _, f := range []struct{ name, data string }{{flyRecord, string(rec)}, {podfs.Pgid, strconv.Itoa(unix.Getpgrp()) + "\n"}, {podfs.Pid, pid}} {
		tmp := "." + f.name + ".new"
		if err := os.WriteFile(tmp, []byte(f.data), 0o644); err != nil {
			return err
		}
		if err := os.Rename(tmp, f.name); err != nil {
			return err
		}
	}
	if err := os.Symlink("fly", podfs.Flavor); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// flyMount mounts a volume. What is mounted below a mount point of the host
// shows in both; other directories are only seen.
func flyMount(m plan.Mount) error {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, m.Source, 0, unix.STATX_TYPE, &st); err != nil {
		return fmt.Errorf("opening the source %q: %w", m.Source, err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 || m.ReadOnly {
		return mount(place{root: podfs.Stage1Rootfs}, m, &idMaps{})
	}
	tree, err := launch.HostTree(m.Source, m.Recursive)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attachVolume(place{root: podfs.Stage1Rootfs}, tree, m, abi.IDRange{}, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// flyRegister makes the pod a machine: in the unit that runs it, or in a scope
// that machined makes.
func flyRegister(ctx context.Context, in plan.Input) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := machined.Open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Register(ctx, machined.Registration{Name: in.Facts.Machine, UUID: in.Run.UUID, Leader: os.Getpid(),
		RootDirectory: filepath.Join(in.Facts.PodDir, podfs.AppRootfs(in.Pod.Apps[0].Name.String())), Scope: !in.Facts.InUnit, Description: "rkt pod " + in.Run.UUID})
}

// flyStreams connects the app: to the journal in a unit, else to where rkt is.
func flyStreams(in plan.Input, s *launch.Spec, interactive bool) error {
	if !interactive {
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(null)
		if err := unix.Dup3(null, 0, 0); err != nil {
			return err
		}
	}
	if !in.Facts.InUnit || interactive {
		return nil
	}
	return launch.OpenJournal(s.Name, s.LogUnit, false, s.JournalFrom)
}

// FlyEnter becomes a command in the app, as the app's user.
func FlyEnter(env Env, args []string) error {
	e, err := abi.ParseEnter(args)
	if err != nil {
		return err
	}
	if e.App == "" {
		return errors.New("fly has nothing to enter but the app: --appname is missing")
	}
	b, err := os.ReadFile(flyRecord)
	if err != nil {
		return fmt.Errorf("reading the record of the app: %w", err)
	}
	s := &launch.Spec{}
	if err := json.Unmarshal(b, s); err != nil {
		return fmt.Errorf("reading the record of the app: %w", err)
	}
	c := launch.Command{Kind: launch.Entrant, Argv: e.Cmd, Leader: e.PID, Dir: "/"}
	if e.Cwd {
		c.Dir = ""
	}
	if e.Shell {
		c.Argv = []string{"/bin/sh"}
	}
	if e.User != "" {
		if c.User, err = launch.FindUser(fmt.Sprintf("/proc/%d/root", e.PID), e.User); err != nil {
			return err
		}
	}
	term := env.get("TERM")
	if term == "" {
		term = "vt100"
	}
	c.Env = []string{"TERM=" + term}
	if err := env.Signals.Release(); err != nil {
		return err
	}
	return notExecuted(launch.Exec(s, c))
}

// FlyStop signals the app, or what it left of its process group.
func FlyStop(args []string) error {
	s, err := abi.ParseStop(args)
	if err != nil {
		return err
	}
	pid, err := readPID(podfs.Pid)
	if err != nil {
		return err
	}
	gone, err := signalPod(pid, s.Force)
	if err != nil || !gone {
		return err
	}
	group, err := readPID(podfs.Pgid)
	if err != nil {
		return err
	}
	sig := unix.SIGTERM
	if s.Force {
		sig = unix.SIGKILL
	}
	if err := unix.Kill(-group, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending %s to the process group %d: %w", unix.SignalName(sig), group, err)
	}
	return nil
}

// FlyGC has nothing to free: mounts end with the app, networks are the host's.
func FlyGC(args []string) error {
	_, err := abi.ParseGC(args)
	return err
}

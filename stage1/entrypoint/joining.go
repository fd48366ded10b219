package entrypoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage1/network"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// joinRequest tells the program that joins a pod's networks what to do.
type joinRequest struct {
	UUID       string
	Namespace  *network.Namespace
	Parameters []plan.Parameter
	// ResolvConf says that there is a file for name servers.
	ResolvConf bool
}

// Descriptors of that program beside the standard ones. The outcome goes into
// files that were opened before anything of the pod ran: what the pod makes of
// their names is no matter.
const (
	stateFD  = 3
	resolvFD = 4
)

// What the file of the state says in the end.
const (
	stateJoined = "joined\n"
	stateFailed = "failed\n"
)

// startJoining has another process join the networks, while this one goes on to
// become the supervisor. It is no child: nspawn fails if one ends while it calls machined. In a
// unit it goes into the group of the supervisor: nspawn needs the unit's own to
// be empty. Leave ends it, if that has to be.
func startJoining(env Env, in plan.Input, ns *network.Namespace, params []plan.Parameter) error {
	state, resolv, err := outcomeFiles(in)
	if err != nil {
		return err
	}
	defer state.Close()
	files := []*os.File{state}
	if resolv != nil {
		defer resolv.Close()
		files = append(files, resolv)
	}
	// Nobody else has the file yet. The lock is the other process's, once it has it.
	if err := unix.Flock(int(state.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("locking the state of the network: %w", err)
	}
	request, err := json.Marshal(joinRequest{in.Run.UUID, ns, params, resolv != nil})
	if err != nil {
		return err
	}
	stdin, err := memfile("join", request)
	if err != nil {
		return err
	}
	defer stdin.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	setsid, err := find("setsid", "util-linux")
	if err != nil {
		return err
	}
	// A session of its own: Ctrl-C is the pod's to obey.
	cmd := exec.Command(setsid, "--fork", self, "join")
	if in.Run.Debug {
		cmd.Args = append(cmd.Args, "--debug")
	}
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = stdin, os.Stderr, files
	cmd.Env = env.Environ // what plugins get of it is bounded.Environ's to say
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if in.Facts.InUnit {
		group, err := supervisorCgroup()
		if err != nil {
			return err
		}
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	started := make(chan error)
	go func() { started <- cmd.Run() }() // on a thread in the host's network namespace
	if err := <-started; err != nil {
		return fmt.Errorf("starting the program that joins the networks: %w", err)
	}
	failpoint.Hit("network/joining")
	return nil
}

// outcomeFiles makes the files in the pod's root that the child writes to.
func outcomeFiles(in plan.Input) (state, resolv *os.File, err error) {
	open := func(name string) (f *os.File, err error) {
		err = asRoot(in.Facts.IDs, func() (err error) {
			f, err = os.OpenFile(filepath.Join(podfs.Stage1Rootfs, name), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
			return err
		})
		return f, err
	}
	if state, err = open(podfs.NetworkState); err != nil {
		return nil, nil, fmt.Errorf("making the state of the network: %w", err)
	}
	if !generatesResolv(in) {
		return state, nil, nil
	}
	if resolv, err = open(podfs.ResolvConf); err != nil {
		state.Close()
		return nil, nil, fmt.Errorf("making the pod's resolv.conf: %w", err)
	}
	return state, resolv, nil
}

// generatesResolv reports whether the networks may name the pod's resolvers.
func generatesResolv(in plan.Input) bool {
	return in.Facts.Joining && in.Run.ResolvMode == "default" && !hasContent(filepath.Join(podfs.Stage1Rootfs, podfs.ResolvConf))
}

func supervisorCgroup() (*os.File, error) {
	cg, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join("/sys/fs/cgroup", cg, "supervisor")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("making the supervisor's control group: %w", err)
	}
	return os.Open(dir)
}

func memfile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err = f.Write(data); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// joinFailed reports that the networks could not be joined, as soon as that is
// known: then the pod need not boot to find out. Who failed has said why.
func joinFailed() bool {
	b, err := os.ReadFile(filepath.Join(podfs.Stage1Rootfs, podfs.NetworkState))
	return err == nil && string(b) == stateFailed
}

// Join joins the networks of a pod in the place of the process that starts it,
// which has become the pod's supervisor by the time this ends.
func Join(ctx context.Context, env Env) error {
	var r joinRequest
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil || r.Namespace == nil {
		return fmt.Errorf("reading what to join: %v; this program is run by the entrypoint \"run\"", err)
	}
	describe(env, r.UUID)
	state := os.NewFile(stateFD, podfs.NetworkState)
	unix.CloseOnExec(stateFD)
	if r.ResolvConf {
		unix.CloseOnExec(resolvFD)
	}
	err := join(ctx, env, r)
	if err != nil {
		err = fmt.Errorf("failed to setup network: %w", err)
		if ctx.Err() == nil { // else nobody asks any more
			env.Log.Error(err)
			journal.Settle(env.Log) // the unit may be gone as soon as the pod knows
		}
	}
	word := stateJoined
	if err != nil {
		word = stateFailed
	}
	failpoint.Hit("network/outcome")
	_, werr := state.Write([]byte(word))
	if err == nil && werr == nil {
		werr = state.Chmod(0o755) // network.service need not look further
	}
	if werr != nil && err == nil {
		return fmt.Errorf("telling the pod about its network: %w", werr)
	}
	if err != nil {
		return &Ended{Status: abi.ExitFailure}
	}
	return nil
}

func join(ctx context.Context, env Env, r joinRequest) error {
	res, err := r.Namespace.Join(network.WithTrace(ctx, env.Log.Debugf))
	if err != nil {
		return err
	}
	for _, w := range res.Warnings {
		env.Log.Warn(w)
	}
	if r.ResolvConf && res.ResolvConf != nil {
		_, err = unix.Pwrite(resolvFD, res.ResolvConf, 0)
	}
	if err == nil && len(r.Parameters) > 0 {
		err = inNamespace(r.Namespace.Path(), func() error { return setParameters(r.Parameters) })
	}
	if err != nil {
		return errors.Join(err, r.Namespace.Leave(context.WithoutCancel(ctx)))
	}
	return nil
}

// inNamespace runs f on a thread of its own in a network namespace.
func inNamespace(path string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not to be used again
		done <- func() error {
			ns, err := os.Open(path)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the pod's network namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

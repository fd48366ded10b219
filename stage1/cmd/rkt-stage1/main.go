// Command rkt-stage1 is the nspawn flavour's side of the contract on the host:
// the stage1 image has it under the names run, enter, gc, stop, attach and app-*.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/interrupt"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage1/entrypoint"
)

// The thread that moves between namespaces is the one that executes.
func init() { runtime.LockOSThread() }

func main() {
	var reserved []int
	if slices.ContainsFunc(os.Args[1:], func(a string) bool { return strings.HasPrefix(a, "--private-users=") }) {
		reserved = entrypoint.ReserveDescriptors()
	}
	ctx, signals := interrupt.Watch(context.Background())
	debug := slices.Contains(os.Args[1:], "--debug") || slices.Contains(os.Args[1:], "--debug=true")
	env := entrypoint.Env{Log: journal.NewLogger("stage1", os.Getenv("JOURNAL_STREAM"), debug), Environ: os.Environ(), Signals: signals,
		Reserved: reserved}
	var err error
	name := filepath.Base(os.Args[0])
	if len(os.Args) > 1 && os.Args[1] == "join" {
		name = "join" // by a program that cannot choose the name
	}
	switch name {
	case "run":
		err = entrypoint.Run(ctx, env, os.Args[1:])
	case "join":
		err = entrypoint.Join(ctx, env)
	case "enter":
		err = entrypoint.Enter(env, os.Args[1:])
	case "gc":
		err = entrypoint.GC(ctx, env, os.Args[1:])
	case "fly-run":
		err = entrypoint.FlyRun(ctx, env, os.Args[1:])
	case "fly-enter":
		err = entrypoint.FlyEnter(env, os.Args[1:])
	case "fly-gc":
		err = entrypoint.FlyGC(os.Args[1:])
	case "fly-stop":
		err = entrypoint.FlyStop(os.Args[1:])
	case "attach":
		err = entrypoint.Attach(ctx, env, os.Args[1:])
	case "app-add":
		err = entrypoint.AppAdd(ctx, env, os.Args[1:])
	case "app-start":
		err = entrypoint.AppStart(ctx, env, os.Args[1:])
	case "app-stop":
		err = entrypoint.AppStop(ctx, env, os.Args[1:])
	case "app-rm":
		err = entrypoint.AppRm(ctx, env, os.Args[1:])
	case "network":
		err = entrypoint.Network(ctx, os.Args[1:])
	case "plan":
		err = entrypoint.Plan(os.Stdin, os.Stdout)
	case "stop":
		err = entrypoint.Stop(os.Args[1:])
	default:
		err = fmt.Errorf("unknown entrypoint %q", name)
	}
	var ended *entrypoint.Ended
	if errors.As(err, &ended) {
		if ended.Signal != 0 {
			die(ended.Signal)
		}
		os.Exit(ended.Status)
	}
	if err != nil {
		env.Log.Error(err)
		journal.Settle(env.Log)
		signals.Die()
		os.Exit(abi.ExitFailure)
	}
}

// die ends this process by the signal that ended the command.
func die(s syscall.Signal) {
	signal.Reset(s)
	// Go's runtime keeps its own handlers of SIGSEGV and the like, which would tell of
	// this program's state.
	var def [4]uintptr // struct sigaction: SIG_DFL, no flags, nothing masked
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&def)), 0, 8, 0, 0)
	// the core, if any, is the command's
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	if syscall.Kill(os.Getpid(), s) == nil && s != syscall.SIGCHLD {
		time.Sleep(time.Second) // it takes effect at once
	}
	os.Exit(128 + int(s))
}

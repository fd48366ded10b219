// Command rkt-stage1 is the nspawn flavour's side of the contract on the host:
// the stage1 image has it under the names run, enter, gc and stop.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/interrupt"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage1/entrypoint"
)

// The thread that moves between namespaces is the one that executes.
func init() { runtime.LockOSThread() }

func main() {
	ctx, signals := interrupt.Watch(context.Background())
	debug := slices.Contains(os.Args[1:], "--debug")
	env := entrypoint.Env{Log: journal.NewLogger("stage1", os.Getenv("JOURNAL_STREAM"), debug), Environ: os.Environ(), Signals: signals}
	var err error
	switch name := filepath.Base(os.Args[0]); name {
	case "run":
		err = entrypoint.Run(ctx, env, os.Args[1:])
	case "enter":
		err = entrypoint.Enter(env, os.Args[1:])
	case "gc":
		err = entrypoint.GC(ctx, env, os.Args[1:])
	case "stop":
		err = entrypoint.Stop(os.Args[1:])
	default:
		err = fmt.Errorf("unknown entrypoint %q", name)
	}
	if err != nil {
		env.Log.Error(err)
		journal.Settle(env.Log)
		signals.Die()
		os.Exit(abi.ExitFailure)
	}
}

// Command rkt runs pods of App Container images on systemd hosts.
package main

import (
	"context"
	"os"
	"runtime"

	"golang.org/x/term"

	"github.com/rkt-systemd/rkt/internal/interrupt"
	"github.com/rkt-systemd/rkt/stage0/cli"
)

// The main thread is the one that enters a pod's mount namespace and becomes
// the pod.
func init() { runtime.LockOSThread() }

func main() {
	ctx, signals := interrupt.Watch(context.Background())
	code := cli.Main(ctx, cli.System{Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		PID: os.Getpid(), EUID: os.Geteuid(), Terminal: term.IsTerminal(int(os.Stderr.Fd())), Signals: signals})
	if code != 0 {
		signals.Die()
	}
	os.Exit(code)
}

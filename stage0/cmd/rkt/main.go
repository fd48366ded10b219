// Command rkt runs pods of App Container images on systemd hosts.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/term"

	"github.com/rkt-systemd/rkt/stage0/cli"
)

// The main thread is the one that enters a pod's mount namespace and becomes
// the pod.
func init() { runtime.LockOSThread() }

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, cli.System{Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		PID: os.Getpid(), EUID: os.Geteuid(), Terminal: term.IsTerminal(int(os.Stderr.Fd()))})
	cancel()
	os.Exit(code)
}

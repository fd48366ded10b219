// Command rkt-import is the converter behind rkt pod import. It is a program of
// its own so that rkt, which is started for every pod, does not carry parsers
// of YAML and compose. It reads the files it is given and prints what they
// become as JSON; it writes nothing.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rkt-systemd/rkt/stage0/podimport/sources"
)

func main() {
	var o sources.Options
	f := flag.NewFlagSet("rkt-import", flag.ExitOnError)
	f.StringVar(&o.Name, "name", "", "name of the pod, or of the project")
	f.StringVar(&o.EnvFile, "env-file", "", "file of variables for compose")
	_ = f.Parse(os.Args[1:]) // ends the process itself
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := sources.Convert(ctx, f.Args(), o)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

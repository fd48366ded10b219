// Command rkt-import is the converter behind rkt pod import. It is a program of
// its own so that rkt, which is started for every pod, does not carry parsers
// of YAML and compose.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podimport/compose"
)

func main() {
	r, err := compose.Convert(context.Background(), []podimport.Source{}, nil)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rkt-import:", err)
		os.Exit(1)
	}
}

package entrypoint

import (
	"context"
	"encoding/json"
	"os"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage1/network"
)

// Network tells of the configured networks, or of those of a pod, in JSON.
func Network(ctx context.Context, args []string) error {
	n, err := abi.ParseNetwork(args)
	if err != nil {
		return err
	}
	var out any
	if n.Check == "" {
		out, err = network.List(n.LocalConfig)
	} else {
		dir, derr := os.Getwd()
		if derr != nil {
			return derr
		}
		out, err = network.Check(ctx, dir, n.Check, n.LocalConfig)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// Package compose turns a compose project into pod files. It is apart from
// package podimport because of what its parser brings along.
package compose

import (
	"context"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// Convert turns the project that one or more compose files describe (later ones
// override earlier ones) into one pod for each service.
func Convert(ctx context.Context, files []podimport.Source, env map[string]string) (*podimport.Result, error) {
	var configs []types.ConfigFile
	for _, f := range files {
		configs = append(configs, types.ConfigFile{Filename: f.Path, Content: f.Data})
	}
	if _, err := loader.LoadWithContext(ctx, types.ConfigDetails{ConfigFiles: configs, Environment: env}); err != nil {
		return nil, err
	}
	return &podimport.Result{}, nil
}

// Package compose turns a compose project into pod files. It is apart from
// package podimport because of what its parser brings along.
//
// Each service becomes a pod of its own, but for those that share the network of
// another service: they are apps of its pod. The pods of a project find each
// other by the names of their services, as in compose: they are in networks of
// the same names, and rkt writes the pods of a network into each other's hosts
// files. Nothing of the project's directory is read but files that the project
// includes, extends or takes variables from, and nothing outside of it.
package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/interpolation"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// Limits of a project; no real one comes near them.
const (
	maxServices = 500
	maxReplicas = 100
	maxPorts    = 1000 // of a service
	// compose-go takes time with the square of those that are in one another.
	maxVariables = 500 // in one value
)

// Convert turns the project that one or more compose files describe (later ones
// override earlier ones) into pods. Files called .env or *.env among them are
// variables; those of env win. Of env, COMPOSE_PROJECT_NAME names the project and
// COMPOSE_PROFILES says which profiles are on.
func Convert(ctx context.Context, files []podimport.Source, env map[string]string) (*podimport.Result, error) {
	in, err := newInput(files, env)
	if err != nil {
		return nil, err
	}
	project, err := in.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the compose project %q: %w", in.main().Path, err)
	}
	res, err := convert(in, project)
	if err != nil {
		return nil, fmt.Errorf("converting the compose project %q: %w", in.main().Path, err)
	}
	for _, path := range in.private {
		res.Hide(path)
	}
	return res, nil
}

// load has compose-go read, merge and check the files.
func (in *input) load(ctx context.Context) (*types.Project, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	var configs []types.ConfigFile
	for _, f := range in.files {
		configs = append(configs, types.ConfigFile{Filename: in.abs(f.Path), Content: f.Data})
	}
	details := types.ConfigDetails{WorkingDir: in.dir, ConfigFiles: configs, Environment: maps.Clone(in.env)}
	name, explicit := loader.NormalizeProjectName(in.env["COMPOSE_PROJECT_NAME"]), true
	if name == "" {
		name, explicit = loader.NormalizeProjectName(filepath.Base(in.dir)), false
	}
	if name == "" {
		name = "compose"
	}
	profiles := strings.FieldsFunc(in.env["COMPOSE_PROFILES"], func(r rune) bool { return r == ',' || r == ' ' })
	project, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(name, explicit)
		o.Profiles = profiles
		// files of variables and labels are not read by compose-go: it would read any
		o.SkipResolveEnvironment, o.SkipResolveLabels = true, true
		o.ResourceLoaders = []loader.ResourceLoader{guard{in}}
		o.Interpolate = &interpolation.Options{Substitute: in.substitute, LookupValue: details.LookupEnv, TypeCastMapping: o.Interpolate.TypeCastMapping}
	})
	if err != nil {
		return nil, err
	}
	if len(project.Services) > maxServices {
		return nil, fmt.Errorf("it has %d services, more than %d", len(project.Services), maxServices)
	}
	return project, nil
}

// substitute is compose-go's, but variables that are not set are kept for the
// report.
func (in *input) substitute(text string, mapping template.Mapping) (string, error) {
	if strings.Count(text, "$") > maxVariables {
		return "", fmt.Errorf("a value has more than %d variables", maxVariables)
	}
	for name, v := range template.ExtractVariables(map[string]any{"x": text}, template.DefaultPattern) {
		if _, ok := mapping(name); !ok && v.DefaultValue == "" && v.PresenceValue == "" && !strings.Contains(text, "{"+name+"-") && !strings.Contains(text, "{"+name+":-") {
			in.unset[name] = true
		}
	}
	return template.SubstituteWithOptions(text, mapping, template.WithoutLogging)
}

// input is what a project is made of.
type input struct {
	files []podimport.Source // compose files
	given map[string][]byte  // all files by absolute path
	dir   string             // the project's directory
	env   types.Mapping
	unset map[string]bool
	// allowed are the paths of files that compose-go may read.
	allowed map[string]bool
	lines   lines
	// private are files that were read and that others cannot read.
	private []string
}

func newInput(files []podimport.Source, env map[string]string) (*input, error) {
	in := &input{given: map[string][]byte{}, env: types.Mapping{}, unset: map[string]bool{}, allowed: map[string]bool{}, lines: lines{}}
	if len(files) > podimport.MaxFiles {
		return nil, fmt.Errorf("reading a compose project: %d files are more than %d", len(files), podimport.MaxFiles)
	}
	for _, f := range files {
		if len(f.Data) > podimport.MaxFile {
			return nil, fmt.Errorf("reading %q: it has more than %d bytes", f.Path, podimport.MaxFile)
		}
		if !isEnvFile(f.Path) {
			in.files = append(in.files, f)
		}
	}
	if len(in.files) == 0 {
		return nil, errors.New("reading a compose project: no compose file is given")
	}
	abs, err := filepath.Abs(in.main().Path)
	if err != nil {
		return nil, fmt.Errorf("finding the directory of the compose project %q: %w", in.main().Path, err)
	}
	in.dir = filepath.Dir(abs)
	for _, f := range files {
		in.given[in.abs(f.Path)] = f.Data
		// only .env is the project's own; others are named by env_file
		if filepath.Base(f.Path) != ".env" {
			continue
		}
		vars, err := parseEnv(f.Data, env)
		if err != nil {
			return nil, fmt.Errorf("reading the variables of %q: %w", f.Path, err)
		}
		maps.Copy(in.env, vars)
	}
	maps.Copy(in.env, env)
	return in, nil
}

func (in *input) main() podimport.Source { return in.files[0] }

// abs is the absolute path of a source.
func (in *input) abs(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return filepath.Join(in.dir, path)
}

func isEnvFile(path string) bool {
	base := filepath.Base(path)
	return base == ".env" || strings.HasPrefix(base, ".env.") || strings.HasSuffix(base, ".env")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

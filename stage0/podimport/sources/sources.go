// Package sources finds out what files are, by their names and what is in them,
// and has them converted.
package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podimport/compose"
	"github.com/rkt-systemd/rkt/stage0/podimport/kube"
	"github.com/rkt-systemd/rkt/stage0/podimport/quadlet"
)

// Options are those of rkt pod import that matter to converters.
type Options struct {
	Name    string // of the project, or of the one pod
	EnvFile string
}

// Convert reads files, and those of directories, and converts them. All compose
// files together are one project, all of Quadlet are one set of units.
func Convert(ctx context.Context, paths []string, o Options) (*podimport.Result, error) {
	var found found
	for _, p := range paths {
		if err := found.add(p); err != nil {
			return nil, err
		}
	}
	out := &podimport.Result{Pods: []podimport.Pod{}, Notes: []podimport.Note{}}
	if len(found.units) > 0 {
		read := found.units
		r, err := quadlet.Convert(found.units, func(path string) (podimport.Source, error) {
			abs, err := filepath.Abs(path)
			if err != nil {
				return podimport.Source{}, err
			}
			// YAML of a .kube is not imported by itself, too
			found.kube = slices.DeleteFunc(found.kube, func(s podimport.Source) bool {
				other, err := filepath.Abs(s.Path)
				return err == nil && other == abs
			})
			s, err := found.read(path)
			read = append(read, s)
			return s, err
		})
		if err != nil {
			return nil, err
		}
		hide(r, read)
		out.Join(r)
	}
	if len(found.kube) > 0 {
		r, err := kube.Convert(found.kube, kube.Options{})
		if err != nil {
			return nil, err
		}
		hide(r, found.kube)
		out.Join(r)
	}
	if len(found.compose) > 0 {
		envFile := o.EnvFile
		if beside := filepath.Join(filepath.Dir(found.compose[0].Path), ".env"); envFile == "" {
			if _, err := os.Stat(beside); err == nil {
				envFile = beside
			}
		}
		env, err := variables(envFile)
		if err != nil {
			return nil, err
		}
		for _, kv := range os.Environ() { // these win, as with docker compose
			if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
				env[name] = value
			}
		}
		if o.Name != "" {
			env["COMPOSE_PROJECT_NAME"] = o.Name
		}
		r, err := compose.Convert(ctx, found.compose, env)
		if err != nil {
			return nil, err
		}
		hide(r, found.compose)
		if envFile != "" && podimport.Hidden(envFile) {
			r.Hide(envFile)
		}
		out.Join(r)
	} else if o.Name != "" {
		if len(out.Pods) != 1 {
			return nil, fmt.Errorf("--name names one pod, or a compose project; there are %d pods", len(out.Pods))
		}
		out.Pods[0].Name = o.Name
	}
	if len(out.Pods)+len(out.Files) == 0 && len(out.Notes) == 0 {
		return nil, fmt.Errorf("nothing to import in %q", paths)
	}
	out.Kept()
	out.Sort()
	return out, out.Unique()
}

// hide keeps what private sources became from others.
func hide(r *podimport.Result, read []podimport.Source) {
	said := map[string]bool{}
	for _, s := range read {
		if s.Private && !said[s.Path] {
			said[s.Path] = true
			r.Hide(s.Path)
		}
	}
}

// found are the files by kind.
type found struct {
	units, kube, compose []podimport.Source
	count                int
}

// composeNames are the names by which a compose project is found in a directory,
// the best first.
func composeNames() []string {
	return []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
}

func (f *found) add(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading what to import: %w", err)
	}
	if !st.IsDir() {
		return f.file(path, true)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("reading what to import: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	project := ""
	for _, n := range composeNames() {
		if names[n] {
			project = n
			break
		}
	}
	for _, e := range entries {
		full := filepath.Join(path, e.Name())
		switch {
		case e.IsDir() || strings.HasPrefix(e.Name(), "."):
		case slices.Contains(composeNames(), e.Name()):
			if e.Name() == project {
				err = f.file(full, true)
				stem := strings.TrimSuffix(project, filepath.Ext(project))
				for _, ext := range []string{".yml", ".yaml"} {
					if over := stem + ".override" + ext; err == nil && names[over] {
						err = f.file(filepath.Join(path, over), true)
					}
				}
			}
		case strings.HasPrefix(e.Name(), "compose.") || strings.HasPrefix(e.Name(), "docker-compose."): // overrides, variants: named by hand
		default:
			err = f.file(full, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file adds a file; of what was not named itself only what is known is taken.
func (f *found) file(path string, named bool) error {
	ext := filepath.Ext(path)
	unit := quadlet.Is(path)
	if !unit && ext != ".yaml" && ext != ".yml" && ext != ".json" {
		if named {
			return fmt.Errorf("%q is neither a file of Quadlet (NAME.container, NAME.pod …) nor YAML", path)
		}
		return nil
	}
	s, err := f.read(path)
	if err != nil {
		return err
	}
	if unit {
		f.units = append(f.units, s)
		return nil
	}
	switch kind, err := kindOf(s.Data); {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case kind == "kube":
		f.kube = append(f.kube, s)
	case kind == "compose":
		f.compose = append(f.compose, s)
	case named:
		return fmt.Errorf("%s: it has neither \"services\" (compose) nor \"apiVersion\" and \"kind\" (Kubernetes)", path)
	}
	return nil
}

// read reads a file that somebody named, within limits.
func (f *found) read(path string) (podimport.Source, error) {
	if f.count++; f.count > podimport.MaxFiles {
		return podimport.Source{}, fmt.Errorf("there are more than %d files to import", podimport.MaxFiles)
	}
	data, err := readFile(path)
	return podimport.Source{Path: path, Data: data, Private: podimport.Hidden(path)}, err
}

func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path) // before it is opened: a FIFO would block
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("no regular file")}
	}
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, podimport.MaxFile+1))
	if err == nil && len(data) > podimport.MaxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, podimport.MaxFile)
	}
	return data, err
}

// kindOf tells compose from Kubernetes by the keys of the first document.
func kindOf(data []byte) (string, error) {
	var top yaml.Node
	err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&top)
	if errors.Is(err, io.EOF) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if len(top.Content) == 0 || top.Content[0].Kind != yaml.MappingNode {
		return "", nil
	}
	keys := map[string]bool{}
	for i := 0; i < len(top.Content[0].Content); i += 2 {
		keys[top.Content[0].Content[i].Value] = true
	}
	switch {
	case keys["apiVersion"] && keys["kind"]:
		return "kube", nil
	case keys["services"] || keys["include"]:
		return "compose", nil
	}
	return "", nil
}

// variables reads a file of variables; others of the environment may stand in it.
func variables(path string) (map[string]string, error) {
	if path == "" {
		return map[string]string{}, nil
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading variables: %w", err)
	}
	around := map[string]string{}
	for _, kv := range os.Environ() {
		if name, value, ok := strings.Cut(kv, "="); ok {
			around[name] = value
		}
	}
	env, err := compose.Variables(data, around)
	if err != nil {
		return nil, fmt.Errorf("reading the variables of %s: %w", path, err)
	}
	return env, nil
}

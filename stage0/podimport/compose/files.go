package compose

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
)

// Limits of a YAML file, counted with all that aliases stand for.
const (
	maxNodes    = 100_000
	maxDepth    = 64
	maxIncluded = 100 // files that are included or extended
)

// check reads the compose files for what compose-go would do with them: it finds
// the files that they include and extend, which have to lie in the project's
// directory, and refuses those that would grow without end.
func (in *input) check() error {
	for _, f := range in.files {
		path := in.abs(f.Path)
		in.allow(path)
		if err := in.checkFile(path, f.Path, f.Data, in.dir, true); err != nil {
			return err
		}
	}
	return nil
}

func (in *input) allow(path string) { in.allowed[path] = true }

// checkFile checks one file, and those that it leads to. base is what its
// relative paths begin at.
func (in *input) checkFile(path, shown string, data []byte, base string, top bool) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%q is no YAML: %w", shown, err)
		}
		count := 0
		if err := measure(&doc, 0, &count); err != nil {
			return fmt.Errorf("%q: %w", shown, err)
		}
		if len(doc.Content) == 0 {
			continue
		}
		if top {
			in.lines.add(shown, doc.Content[0], "")
		}
		root := resolved(doc.Content[0])
		if err := in.references(root, base); err != nil {
			return fmt.Errorf("%q: %w", shown, err)
		}
	}
}

// references follows include and extends.
func (in *input) references(root map[string]*yaml.Node, base string) error {
	if n := root["include"]; n != nil {
		for _, item := range items(n) {
			if err := in.include(item, base); err != nil {
				return err
			}
		}
	}
	for _, section := range []string{"services", "jobs"} {
		all := resolved(root[section])
		for _, name := range sortedKeys(all) {
			ext := resolved(resolved(all[name])["extends"])
			file := text(ext["file"])
			if file == "" {
				continue
			}
			if err := in.follow(file, base); err != nil {
				return fmt.Errorf("%s.%s.extends: %w", section, name, err)
			}
		}
	}
	return nil
}

func (in *input) include(item *yaml.Node, base string) error {
	paths, project := items(item), base
	if m := resolved(item); m != nil {
		paths = items(m["path"])
		if p := text(m["project_directory"]); p != "" {
			dir, err := in.inside(p, base)
			if err != nil {
				return fmt.Errorf("include: %w", err)
			}
			project = dir
		} else if len(paths) > 0 && text(paths[0]) != "" {
			dir, err := in.inside(filepath.Dir(text(paths[0])), base)
			if err != nil {
				return fmt.Errorf("include: %w", err)
			}
			project = dir
		}
		for _, e := range items(m["env_file"]) {
			if text(e) == "/dev/null" {
				continue
			}
			if _, err := in.read(text(e), base); err != nil {
				return fmt.Errorf("include: %w", err)
			}
		}
	} else if len(paths) == 1 {
		project = filepath.Dir(filepath.Join(base, text(paths[0])))
	}
	// compose-go reads it without being asked
	if _, err := in.read(".env", project); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("include: %w", err)
	}
	for _, p := range paths {
		if err := in.follow(text(p), base); err != nil {
			return fmt.Errorf("include: %w", err)
		}
	}
	return nil
}

// follow checks a file that another one leads to.
func (in *input) follow(ref, base string) error {
	path, err := in.inside(ref, base)
	if err != nil {
		return err
	}
	if in.allowed[path] {
		return nil
	}
	if in.allow(path); len(in.allowed) > maxIncluded {
		return fmt.Errorf("more than %d files belong to the project", maxIncluded)
	}
	data, err := in.read(path, "/")
	if err != nil {
		return err
	}
	return in.checkFile(path, path, data, filepath.Dir(path), false)
}

// inside is the absolute path of a reference, which has to be in the project's
// directory.
func (in *input) inside(ref, base string) (string, error) {
	if ref == "" || strings.ContainsAny(ref, "$\x00") || strings.Contains(ref, "://") {
		return "", fmt.Errorf("%q is no path of a file: variables and remote resources are not followed; give the file itself", ref)
	}
	path := ref
	if !filepath.IsAbs(path) {
		path = filepath.Join(base, ref)
	}
	path = filepath.Clean(path)
	if rel, err := filepath.Rel(in.dir, path); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%q is outside of the project's directory %q: copy what is needed into it", ref, in.dir)
	}
	return path, nil
}

// read returns a file of the project's directory, from what was given or from the
// disk, without following links out of the directory.
func (in *input) read(ref, base string) ([]byte, error) {
	path, err := in.inside(ref, base)
	if err != nil {
		return nil, err
	}
	if data, ok := in.given[path]; ok {
		return data, nil
	}
	root, err := os.OpenRoot(in.dir)
	if err != nil {
		return nil, fmt.Errorf("opening the project's directory: %w", err)
	}
	defer root.Close()
	rel, err := filepath.Rel(in.dir, path)
	if err != nil {
		return nil, err
	}
	// a FIFO in a file's place would be waited for
	info, err := root.Stat(rel)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %q: it is no file", path)
	}
	f, err := root.Open(rel)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, podimport.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	if len(data) > podimport.MaxFile {
		return nil, fmt.Errorf("reading %q: it has more than %d bytes", path, podimport.MaxFile)
	}
	if !slices.Contains(in.private, path) && podimport.Hidden(path) {
		in.private = append(in.private, path)
	}
	return data, nil
}

// guard stands before compose-go's own reader of files: it takes, to refuse them,
// all paths that check has not found.
type guard struct{ in *input }

func (g guard) Accept(path string) bool {
	for _, p := range []string{path, filepath.Join(g.in.dir, path)} {
		if g.in.allowed[filepath.Clean(p)] {
			return false
		}
	}
	// relative to a directory below: only compose-go knows which
	rel := "/" + filepath.Clean(path)
	for p := range g.in.allowed {
		if filepath.IsLocal(path) && strings.HasSuffix(p, rel) {
			return false
		}
		if !filepath.IsAbs(path) && filepath.Base(p) == filepath.Base(path) {
			return false
		}
	}
	return true
}

func (g guard) Load(_ context.Context, path string) (string, error) {
	return "", fmt.Errorf("%q is no file of the project's directory %q", path, g.in.dir)
}

func (g guard) Dir(path string) string { return filepath.Dir(path) }

// measure counts the nodes of a document as often as they are referred to.
func measure(n *yaml.Node, depth int, count *int) error {
	if *count++; *count > maxNodes {
		return fmt.Errorf("it has more than %d values", maxNodes)
	}
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d levels, or refers to itself", maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		return measure(n.Alias, depth+1, count)
	}
	for _, c := range n.Content {
		if err := measure(c, depth+1, count); err != nil {
			return err
		}
	}
	return nil
}

// resolved returns the members of a mapping, with aliases and merge keys.
func resolved(n *yaml.Node) map[string]*yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	out := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "<<" {
			continue
		}
		merged := []*yaml.Node{n.Content[i+1]}
		if resolved(n.Content[i+1]) == nil {
			merged = items(n.Content[i+1])
		}
		for _, m := range merged {
			for k, v := range resolved(m) {
				if out[k] == nil {
					out[k] = v
				}
			}
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out[n.Content[i].Value] = n.Content[i+1]
	}
	return out
}

// items returns the entries of a list, or the one value that stands for it.
func items(n *yaml.Node) []*yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	}
	return []*yaml.Node{n}
}

func text(n *yaml.Node) string {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// place is where a key stands.
type place struct {
	path string
	line int
}

// lines finds keys by their paths, joined by dots; what overrides comes last.
type lines map[string]place

func (l lines) add(path string, n *yaml.Node, at string) {
	if n == nil || n.Kind != yaml.MappingNode || strings.Count(at, ".") > 5 {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		if at != "" {
			key = at + "." + key
		}
		l[key] = place{path, n.Content[i].Line}
		l.add(path, n.Content[i+1], key)
	}
}

// find returns the place of a key, or of the nearest one above it.
func (l lines) find(key string) place {
	for {
		if p, ok := l[key]; ok {
			return p
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return place{}
		}
		key = key[:i]
	}
}

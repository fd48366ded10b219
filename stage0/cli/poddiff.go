package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podunit"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

// generated is where systemd has the generator's units.
const generated = "/run/systemd/generator"

// maxUnit bounds what is read of a unit.
const maxUnit = 1 << 20

// podDiffJSON is what rkt pod diff tells.
type podDiffJSON struct {
	Name      string `json:"name"`
	Different bool   `json:"different"`
	// Units are files of the generator that a daemon-reload would change.
	Units []diffJSON `json:"units"`
	// Pod is the manifest of the pod that runs, against the one it would get.
	UUID    string    `json:"uuid,omitempty"`
	Pod     *diffJSON `json:"pod,omitempty"`
	Missing []string  `json:"missing,omitempty"`
}

type diffJSON struct {
	Path   string `json:"path"`
	Change string `json:"change"` // added, removed or changed
	Diff   string `json:"diff"`
}

func (a *app) podDiffCmd() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "diff NAME", Short: "Show what has changed since a declared pod was loaded and started", Args: exactArgs(1, "the name of a declared pod"),
		Long: `Compare a pod's file with what is in force: the units that systemctl daemon-reload would change, and the manifest of the pod that
runs with the one it would get from a restart. Nothing is fetched or written.

The exit status is 0 when nothing differs, 1 when something does, 254 when it cannot be told.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			d, err := a.diffPod(cmd, args[0])
			if err != nil {
				return err
			}
			if format != "" {
				err = printJSON(a.Stdout, format, d)
			} else {
				for _, u := range d.Units {
					fmt.Fprint(a.Stdout, u.Diff)
				}
				if d.Pod != nil {
					fmt.Fprint(a.Stdout, d.Pod.Diff)
				}
				for _, m := range d.Missing {
					a.log.Warnf("not compared: %s", m)
				}
			}
			if err == nil && d.Different {
				return &exitError{1}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of diffs")
	return cmd
}

func (a *app) diffPod(cmd *cobra.Command, name string) (*podDiffJSON, error) {
	d := &podDiffJSON{Name: name, Units: []diffJSON{}}
	want, p, err := wantedUnits(name)
	if err != nil {
		return nil, err
	}
	have, err := generatedUnits(name)
	if err != nil {
		return nil, err
	}
	var paths []string
	for path := range want {
		paths = append(paths, path)
	}
	for path := range have {
		if _, ok := want[path]; !ok {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		d.add(&d.Units, path, have, want)
	}
	if p == nil {
		if r, err := a.runningOf(name); err == nil && r != nil {
			r.Close()
			d.Missing = append(d.Missing, "the pod that runs: the file has errors (rkt pod check "+name+")")
		}
		return d, nil
	}
	f, err := a.foresee(cmd.Context(), p)
	if err != nil {
		return nil, fmt.Errorf("pod %q: %w", name, err)
	}
	defer f.close()
	d.Missing = f.Missing
	if f.running == nil {
		if f.running, err = a.runningOf(name); err != nil || f.running == nil {
			return d, err
		}
	}
	d.UUID = f.running.UUID
	if f.Manifest == nil {
		return d, nil
	}
	return d, d.manifests(f.running, f.Manifest)
}

func (d *podDiffJSON) manifests(running *pod.Pod, want []byte) error {
	m, err := running.Manifest()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	old, err := indented(raw)
	if err != nil {
		return err
	}
	now, err := indented(want)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, now) {
		d.Different = true
		path := "pod " + running.UUID
		d.Pod = &diffJSON{Path: path, Change: "changed", Diff: string(diff.Diff("running "+path, old, "after a restart", now))}
	}
	return nil
}

// indented is JSON with the keys of all objects sorted.
func indented(raw []byte) ([]byte, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

func (d *podDiffJSON) add(to *[]diffJSON, path string, have, want map[string]string) {
	old, hasOld := have[path]
	now, hasNow := want[path]
	change := "changed"
	switch {
	case old == now && hasOld == hasNow:
		return
	case !hasOld:
		change = "added"
	case !hasNow:
		change = "removed"
	}
	d.Different = true
	if strings.HasPrefix(path, podunit.CredentialDir+"/") { // nobody may print it
		*to = append(*to, diffJSON{path, change, "secret " + path + " " + change + "\n"})
		return
	}
	*to = append(*to, diffJSON{path, change, string(diff.Diff("loaded/"+path, []byte(old), "file/"+path, []byte(now)))})
}

// wantedUnits are the files and links that the generator would make now. The pod
// is nil when its file has errors.
func wantedUnits(name string) (map[string]string, *podfile.Pod, error) {
	x, err := podfile.Scan(podfile.SearchOptions{})
	if err != nil {
		return nil, nil, err
	}
	files, problems := x.Read(name)
	if podfile.IsMasked(problems) || podfile.IsNotFound(problems) {
		if _, err := os.Lstat(filepath.Join(generated, podfile.UnitName(name)+".d")); err != nil {
			return nil, nil, podfile.FirstError(problems)
		}
		return map[string]string{}, nil, nil // its units go
	}
	var out podunit.Output
	var p *podfile.Pod
	if !podfile.Failed(problems) {
		var more []podfile.Problem
		p, more = podfile.Parse(name, files)
		problems = append(problems, more...)
	}
	if p != nil {
		out, err = podunit.Pod(p, podunit.Options{})
	} else {
		out, err = podunit.Broken(podfile.ParseInstall(name, files), problems, podunit.Options{})
	}
	if err != nil {
		return nil, nil, err
	}
	want := map[string]string{}
	for _, f := range out.Files {
		want[f.Path] = string(f.Data)
	}
	for _, l := range out.Links {
		want[l.Path] = "-> " + l.Target + "\n"
	}
	return want, p, nil
}

// generatedUnits are the files and links of a pod that systemd has loaded.
func generatedUnits(name string) (map[string]string, error) {
	have := map[string]string{}
	ours := func(base string) bool {
		for _, t := range []string{".service", ".socket", ".timer", ".path", ".service.d"} {
			if base == "rkt@"+name+t {
				return true
			}
		}
		return strings.HasPrefix(base, "rkt-proxy-"+unitfile.Escape(name)+"-")
	}
	err := filepath.WalkDir(generated, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(generated, path)
		if err != nil {
			return err
		}
		top, rest, below := strings.Cut(rel, "/")
		switch {
		case rel == podunit.CredentialDir, rel == podunit.CredentialDir+"/"+name: // down there
		case top == podunit.CredentialDir && e.Type().IsRegular() && strings.HasPrefix(rest, name+"/"):
			b, err := readUpTo(path, maxUnit)
			have[rel] = string(b)
			return err
		case e.IsDir() && below, e.IsDir() && !ours(top) && !hasLinks(top) && rel != ".":
			return fs.SkipDir
		case e.IsDir():
		case e.Type()&fs.ModeSymlink != 0 && (ours(rest) || !below):
			target, err := os.Readlink(path)
			if err == nil && (ours(rest) || strings.HasSuffix(rel, "@"+name+".service")) {
				have[rel] = "-> " + target + "\n"
			}
			return err
		case e.Type().IsRegular() && ours(top):
			b, err := readUpTo(path, maxUnit)
			have[rel] = string(b)
			return err
		}
		return nil
	})
	return have, err
}

// hasLinks says whether a directory is one of those for [Install].
func hasLinks(dir string) bool {
	return strings.HasSuffix(dir, ".wants") || strings.HasSuffix(dir, ".requires") || strings.HasSuffix(dir, ".upholds")
}

func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

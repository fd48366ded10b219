package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/podimport"
	"github.com/rkt-systemd/rkt/stage0/podjson"
	"github.com/rkt-systemd/rkt/stage0/podset"
)

const (
	importTimeout = time.Minute
	importOutput  = 64 << 20 // bytes that the converter may print
)

type importOptions struct {
	writeOptions
	strict                bool
	name, envFile, format string
}

func (a *app) podImportCmd() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "import [FLAGS] FILE|DIR…", Short: "Write pod files from what Quadlet, compose or Kubernetes has",
		Long: `Convert declarations of other runtimes to pod files, install them, and have systemd read them. Nothing is fetched and nothing is
started. What a file is tell its name and what is in it:

  NAME.container .pod .volume .network .kube .image .build   units of Quadlet, with the drop-ins in NAME.container.d/
  NAME.timer .path                                           beside NAME.container: what starts it
  YAML with "services"                                       a compose project; several files override one another
  YAML with "apiVersion" and "kind"                          Pods, Deployments … of Kubernetes, with ConfigMaps and Secrets

Of a directory all such files are taken. Files that refer to each other have to be imported together.

Nothing is left out silently: the report on standard error says, for each source, what is carried over by other means (changed), what is
not carried over (dropped), and what is to be done before the pod can run (todo). The pods are checked as by rkt pod check; if one has
an error, or a file is there already, nothing is written. All pod files come into effect together.

The exit status is 0, also with a report; 254 when something failed. With --strict it is 1, and nothing is written, when something
would be dropped.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("import takes files or directories; see rkt help pod import")
			}
			if o.dryRun {
				return nil
			}
			return a.needRoot()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(o.format); err != nil {
				return err
			}
			return a.importPods(cmd.Context(), args, &o)
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.Lookup("dry-run").Usage = "print the files instead of writing them"
	f.Lookup("force").Usage = "replace files that are there"
	f.StringVar(&o.name, "name", "", "the `NAME` of the pod, or of the compose project")
	f.StringVar(&o.envFile, "env-file", "", "a `FILE` of variables for a compose project, in place of its .env")
	f.BoolVar(&o.strict, "strict", false, "write nothing and exit with 1 if something would be dropped")
	f.StringVar(&o.format, "format", "", "`json` or json-pretty instead of text, with everything in it")
	return cmd
}

// imported is what the converter prints: podimport.Result, with pod files as
// text, in the order that they were written in.
type imported struct {
	Pods []importedPod `json:"pods"`
	// Files are others, as networks.
	Files  []podimport.File `json:"files"`
	Notes  []podimport.Note `json:"notes"`
	DryRun bool             `json:"dry_run"`
	// Problems are those that rkt pod check would find.
	Problems []podfile.Problem `json:"problems"`
}

type importedPod struct {
	Name string          `json:"name"`
	Path string          `json:"path"`
	From string          `json:"from"`
	File json.RawMessage `json:"file"`
	// Private: only root may read it.
	Private bool `json:"private,omitempty"`

	text []byte
}

func (a *app) importPods(ctx context.Context, args []string, o *importOptions) error {
	r, err := a.convert(ctx, args, o)
	if err != nil {
		return err
	}
	dir := podfile.DefaultDirs()[0]
	if o.runtime {
		dir = podfile.DefaultDirs()[1]
	}
	r.DryRun, r.Problems = o.dryRun, []podfile.Problem{}
	for i := range r.Pods {
		p := &r.Pods[i]
		if err := podfile.CheckName(p.Name); err != nil {
			return hint(fmt.Errorf("%s: %w", p.From, err), "--name=NAME")
		}
		p.Path = filepath.Join(dir, p.Name+".json")
		var b bytes.Buffer
		if err := json.Indent(&b, p.File, "", "  "); err != nil {
			return fmt.Errorf("%s: %w", p.From, err)
		}
		p.text = append(b.Bytes(), '\n')
		pod, problems := podfile.Parse(p.Name, []podfile.File{{Path: p.Path, Data: p.text}})
		if !podfile.Failed(problems) {
			problems = append(problems, beyondTheFile(pod)...)
		}
		r.Problems = append(r.Problems, problems...)
	}
	for i, f := range r.Files {
		// rkt runs as root, what the names are made of is not its own
		if f.Path != filepath.Clean(f.Path) || !strings.HasPrefix(f.Path, buildinfo.LocalConfig+"/") && !tmpfile(f) {
			return fmt.Errorf("%s: a file %q is not below %s", f.From, f.Path, buildinfo.LocalConfig)
		}
		r.Files[i].Mode &= 0o755
	}
	dropped := slices.ContainsFunc(r.Notes, func(n podimport.Note) bool { return n.Level == podimport.Dropped })
	failed := podfile.Failed(r.Problems)
	refuse := failed || o.strict && dropped
	if !o.dryRun && !refuse {
		err := a.installImported(ctx, r, dir, o)
		if err == nil {
			err = makeDirectories(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	if err := a.printImported(r, o); err != nil {
		return err
	}
	switch {
	case failed:
		return hint(errors.New("nothing was written: a pod that could not be run"), "the errors above name the keys; --dry-run prints the files")
	case refuse:
		return &exitError{1}
	case o.dryRun || len(r.Pods) == 0:
		return nil
	}
	if o.noReload {
		return nil
	}
	var names []string
	for _, p := range r.Pods {
		if !strings.HasSuffix(p.Name, "@") {
			names = append(names, podfile.UnitName(p.Name))
		}
	}
	if len(names) == 0 {
		names = []string{"rkt@" + r.Pods[0].Name + "INSTANCE.service"}
	}
	return a.daemonReload(ctx, strings.Join(names, " "))
}

// tmpfile says that a file makes directories of volumes.
func tmpfile(f podimport.File) bool {
	return filepath.Dir(f.Path) == podimport.TmpfilesDir && strings.HasPrefix(filepath.Base(f.Path), "rkt-volume-")
}

// makeDirectories has the directories of volumes made now, as they are at boot.
func makeDirectories(ctx context.Context, r *imported) error {
	args := []string{"--create"}
	for _, f := range r.Files {
		if tmpfile(f) {
			args = append(args, f.Path)
		}
	}
	if len(args) == 1 {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "systemd-tmpfiles", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("the files are in place, but not the directories of volumes: systemd-tmpfiles: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// convert runs the converter: a program that reads, and prints what it made of it.
func (a *app) convert(ctx context.Context, args []string, o *importOptions) (*imported, error) {
	program := a.Getenv("RKT_IMPORT_PROGRAM")
	if program == "" {
		program = filepath.Join(buildinfo.LibDir, "rkt-import")
	}
	var argv []string
	if o.name != "" {
		argv = append(argv, "--name="+o.name)
	}
	if o.envFile != "" {
		argv = append(argv, "--env-file="+o.envFile)
	}
	ctx, stop := context.WithTimeout(ctx, importTimeout)
	defer stop()
	cmd := exec.CommandContext(ctx, program, append(append(argv, "--"), args...)...)
	// What compose files say may depend on variables; they are the caller's own.
	cmd.Env = a.Environ
	if a.EUID == 0 { // it asks nobody
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	}
	out, errs := &bounded{max: importOutput}, &bounded{max: 1 << 20}
	cmd.Stdout, cmd.Stderr = out, errs
	err := cmd.Run()
	text := strings.TrimSpace(errs.String())
	var exit *exec.ExitError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the converter %q is not installed: %w", program, err)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("converting %s: it takes more than %s", strings.Join(args, " "), importTimeout)
	case errors.As(err, &exit) && text != "":
		return nil, errors.New(text)
	case err != nil:
		return nil, fmt.Errorf("converting %s: %w %s", strings.Join(args, " "), err, text)
	}
	if text != "" {
		a.log.Warn(text)
	}
	r := &imported{}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("what %s printed: %w", program, err)
	}
	if r.Notes == nil {
		r.Notes = []podimport.Note{}
	}
	if r.Files == nil {
		r.Files = []podimport.File{}
	}
	if r.Pods == nil {
		r.Pods = []importedPod{}
	}
	return r, nil
}

// bounded is a buffer that refuses to grow without end.
type bounded struct {
	bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, fmt.Errorf("more than %d bytes of output", b.max)
	}
	return b.Buffer.Write(p)
}

// installImported writes everything: the other files first, which mean nothing
// without the pods, then all pods in one transaction.
func (a *app) installImported(ctx context.Context, r *imported, dir string, o *importOptions) error {
	places, err := a.podPlaces(dir)
	if err != nil {
		return err
	}
	l, err := a.lockPlaces(ctx, places)
	if err != nil {
		return err
	}
	defer l.Close()
	if _, err := places.Finish(); err != nil {
		return err
	}
	sets, err := places.ReadSets()
	if err != nil {
		return err
	}
	set := podset.Set{}
	files := map[string]podset.File{}
	for _, p := range r.Pods {
		rel := p.Name + ".json"
		have, err := places.Read(rel)
		if err != nil {
			return err
		}
		if have != nil && !o.replace && !bytes.Equal(have, p.text) {
			return hint(fmt.Errorf("nothing was written: pod file exists: %s", p.Path), "--force replaces it; --dry-run prints what it would become")
		}
		for _, s := range sets {
			if s.Name != "" && slices.Contains(s.Files, rel) {
				return hint(fmt.Errorf("nothing was written: %s belongs to the set %q", p.Path, s.Name), "--dry-run prints the file; put it there")
			}
		}
		mode := podjson.Mode(p.Path, p.Private)
		st, err := os.Stat(p.Path)
		wide := err == nil && st.Mode().Perm()&^mode&0o077 != 0
		if !bytes.Equal(have, p.text) || wide && p.Private {
			files[rel] = podset.File{Data: p.text, Mode: mode}
		}
	}
	for _, s := range sets {
		if s.Name == "" {
			set.Pending = s.Pending // of an apply that was interrupted
		}
	}
	for _, f := range r.Files {
		have, err := os.ReadFile(f.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && string(have) != f.Text && !o.replace {
			return hint(fmt.Errorf("nothing was written: file exists: %s", f.Path), "--force replaces it; --dry-run prints what it would become")
		}
	}
	for _, f := range r.Files {
		mode := os.FileMode(0o755)
		if f.Mode&0o077 == 0 {
			mode = 0o700
		}
		if f.Private {
			if err := closeDir(f.Path); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(filepath.Dir(f.Path), mode); err != nil {
			return err
		}
		if err := atomicfile.WriteFile(f.Path, []byte(f.Text), os.FileMode(f.Mode)); err != nil {
			return fmt.Errorf("writing %q: %w", f.Path, err)
		}
	}
	if len(files) == 0 {
		return nil
	}
	if err := places.Commit(set, files); err != nil {
		return fmt.Errorf("installing pod files: %w", err)
	}
	return nil
}

// closeDir keeps others from a file whose own mode is for apps: nobody but root
// gets into the directory of its project or pod, as of volumes (NAME in
// /etc/rkt/compose/NAME/…, /etc/rkt/files/NAME/…).
func closeDir(path string) error {
	rel, err := filepath.Rel(buildinfo.LocalConfig, path)
	if err != nil {
		return err
	}
	parts := strings.Split(rel, "/")
	if len(parts) < 3 || parts[0] != "compose" && parts[0] != "files" {
		return nil
	}
	dir := filepath.Join(buildinfo.LocalConfig, parts[0], parts[1])
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// printImported prints files or their paths, and the report.
func (a *app) printImported(r *imported, o *importOptions) error {
	if o.format != "" {
		return printJSON(a.Stdout, o.format, r)
	}
	if o.dryRun {
		for _, f := range r.Files {
			fmt.Fprintf(a.Stdout, "==> %s\n%s\n", f.Path, f.Text)
		}
		for _, p := range r.Pods {
			fmt.Fprintf(a.Stdout, "==> %s\n%s\n", p.Path, p.text)
		}
	} else if !podfile.Failed(r.Problems) {
		for _, f := range r.Files {
			fmt.Fprintln(a.Stdout, f.Path)
		}
		for _, p := range r.Pods {
			fmt.Fprintln(a.Stdout, p.Path)
		}
	}
	// by source, each in its own order
	var sources []string
	for _, n := range r.Notes {
		if !slices.Contains(sources, n.Path) {
			sources = append(sources, n.Path)
		}
	}
	for _, s := range sources {
		fmt.Fprintf(a.Stderr, "%s:\n", s)
		for _, n := range r.Notes {
			if n.Path != s {
				continue
			}
			at := ""
			if n.Line > 0 {
				at = fmt.Sprintf("line %d, ", n.Line)
			}
			fmt.Fprintf(a.Stderr, "  %-8s%s%s: %s\n", n.Level, at, n.Key, n.Text)
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(a.Stderr, "%s: %s\n", p.Severity, p.Error())
	}
	return nil
}

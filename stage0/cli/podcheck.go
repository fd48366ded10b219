package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/msgid"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/image"
)

func (a *app) podCheckCmd() *cobra.Command {
	var format string
	var fail, strict bool
	cmd := &cobra.Command{
		Use: "check [NAME|FILE|DIR…]", Short: "Check pod files",
		Long: `Check pod files: those named, those of a directory, or all in the search path, each with its drop-ins. All problems are
printed, each with file, line, column, JSON path and, where one can be told, what was probably meant. Directives that systemd may not know
are warned of, those that would break a pod are errors.

The exit status is 0 when no file has an error, else 254; warnings count with --strict. It is 254, too, when a file cannot be read or no
pod has the name.

With --format=json the output is one list, empty when nothing is wrong, of objects with severity ("error" or "warning"), file, line and
column (from 1; absent for a file as a whole), path (as "apps[0].image"), message and suggestion.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			problems := []podfile.Problem{}
			checked := 0
			check := func(pod *podfile.Pod, p []podfile.Problem) {
				checked++
				problems = append(problems, append(p, beyondTheFile(pod)...)...)
			}
			if len(args) == 0 {
				entries, err := podfile.List(podfile.SearchOptions{})
				if err != nil {
					return err
				}
				for _, e := range entries {
					if !e.Masked {
						check(podfile.Load(podfile.SearchOptions{}, e.Name))
					}
				}
			}
			for _, arg := range args {
				if err := checkArg(arg, check); err != nil {
					return err
				}
			}
			if format != "" {
				if err := printJSON(a.Stdout, format, problems); err != nil {
					return err
				}
			} else {
				native := fail && a.Getenv("JOURNAL_STREAM") != "" && journal.StderrIsJournal()
				for _, p := range problems {
					if native { // the unit of a broken pod
						a.explain(p, args)
						continue
					}
					fmt.Fprintf(a.Stderr, "%s: %s\n", p.Severity, p.Error())
				}
				if len(problems) == 0 {
					fmt.Fprintf(a.Stdout, "%d pod file(s) checked, no problems\n", checked)
				}
			}
			if podfile.Failed(problems) || strict && len(problems) > 0 || fail {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of lines")
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings count as errors")
	cmd.Flags().BoolVar(&fail, "fail", false, "fail even without problems (for units of pods that were broken at the last daemon-reload)")
	return cmd
}

// explain says a problem so that journalctl -x explains it.
func (a *app) explain(p podfile.Problem, args []string) {
	l := a.log.WithField("file", p.File)
	if len(args) == 1 {
		l = l.WithField(journal.KeyPodName, args[0])
	}
	if p.Severity == podfile.Warning {
		l.WithField(journal.KeyMessageID, msgid.PodFileWarning).Warn("warning: " + p.Error())
		return
	}
	l.WithField(journal.KeyMessageID, msgid.PodFileError).Error("error: " + p.Error())
}

// beyondTheFile is what only stage0 sees: values of isolators, and the like. What
// depends on the host, as files with variables do, is not looked at.
func beyondTheFile(p *podfile.Pod) []podfile.Problem {
	if p == nil {
		return nil
	}
	c := *p
	c.Rkt.EnvironmentFiles = nil
	var out []podfile.Problem
	if _, err := declaredSpec(&c); err != nil {
		out = append(out, podfile.Problem{Severity: podfile.Error, File: p.Files[0], Message: err.Error()})
	}
	so := declaredOptions(&c)
	if _, err := so.check(); err != nil {
		out = append(out, podfile.Problem{Severity: podfile.Error, File: p.Files[0], Path: "rkt", Message: err.Error()})
	}
	for i, ap := range p.Apps {
		if _, err := image.ParseRef(appRef(ap.Image)); err != nil {
			out = append(out, podfile.Problem{Severity: podfile.Error, File: ap.Pos.File, Line: ap.Pos.Line, Column: ap.Pos.Column,
				Path: fmt.Sprintf("apps[%d].image", i), Message: err.Error()})
		}
	}
	return out
}

func checkArg(arg string, check func(*podfile.Pod, []podfile.Problem)) error {
	st, err := os.Stat(arg)
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case err != nil || !strings.ContainsAny(arg, "/.") && isDeclared(arg):
		check(podfile.Load(podfile.SearchOptions{}, arg))
		return nil
	}
	abs, err := filepath.Abs(arg)
	if err != nil {
		return err
	}
	dir, base := filepath.Split(abs)
	dir = filepath.Clean(dir)
	switch {
	case st.IsDir() && strings.HasSuffix(base, ".json.d"): // drop-ins say nothing without their file
		abs = strings.TrimSuffix(abs, ".d")
	case st.IsDir():
		x, err := podfile.Scan(podfile.SearchOptions{Dirs: []string{abs}})
		if err != nil {
			return err
		}
		for _, e := range x.Entries() {
			pod, problems := x.Load(e.Name)
			if !podfile.IsMasked(problems) {
				check(pod, problems)
			}
		}
		return nil
	case strings.HasSuffix(dir, ".json.d"):
		abs = strings.TrimSuffix(dir, ".d")
	}
	// as it would be read where it lies, with its drop-ins
	check(podfile.Load(podfile.SearchOptions{Dirs: []string{filepath.Dir(abs)}}, strings.TrimSuffix(filepath.Base(abs), ".json")))
	return nil
}

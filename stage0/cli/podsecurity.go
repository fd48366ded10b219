package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
)

// podSecurityJSON is what rkt pod security tells.
type podSecurityJSON struct {
	Name    string      `json:"name"`
	Profile string      `json:"profile"`
	Unit    scoreJSON   `json:"unit"`
	Apps    []scoreJSON `json:"apps"`
	// Exposure is that of the app that is exposed most.
	Exposure float64  `json:"exposure"`
	Rating   string   `json:"rating"`
	Missing  []string `json:"missing,omitempty"`
}

func (a *app) podSecurityCmd() *cobra.Command {
	var format string
	var threshold float64
	cmd := &cobra.Command{
		Use: "security NAME", Short: "Score how a declared pod is confined", Args: exactArgs(1, "the name of a declared pod"),
		Long: `Score the exposure of a declared pod from 0 (best) to 10, in the manner of systemd-analyze security: each app as it would be
confined if the pod was started now, and the host's unit as systemd-analyze itself sees it. The unit runs rkt and systemd-nspawn, which need the host, so its
score is high whatever its pod does; the total is that of the app which is exposed most. Nothing is fetched or written; of images that are not there
nothing can be told.

The exit status is 0, with --threshold 1 when the total is above it, and 254 when it cannot be told.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			p, err := a.loadPod(args[0])
			if err != nil {
				return err
			}
			f, err := a.foresee(cmd.Context(), p)
			if err != nil {
				return fmt.Errorf("pod %q: %w", p.Name, err)
			}
			defer f.close()
			j := podSecurityJSON{Name: p.Name, Profile: orElse(p.Rkt.Profile, podfile.ProfileDefault), Unit: scoreUnit(cmd.Context(), p.UnitName()),
				Apps: []scoreJSON{}, Missing: f.Missing}
			if f.Plan != nil {
				traits := podTraits{network: networkOf(p), hostIPC: p.Rkt.IPC == "parent"}
				for _, arg := range f.Plan.Command {
					traits.privateUsers = traits.privateUsers || strings.HasPrefix(arg, "--private-users=")
				}
				for i := range f.Plan.Apps {
					j.Apps = append(j.Apps, scoreApp(&f.Plan.Apps[i], traits))
				}
			}
			for _, s := range j.Apps {
				j.Exposure = max(j.Exposure, s.Exposure)
			}
			j.Rating = rating(j.Exposure)
			if len(j.Apps) == 0 {
				j.Rating = ""
			}
			if format != "" {
				err = printJSON(a.Stdout, format, j)
			} else {
				err = showSecurity(a.Stdout, &j)
			}
			switch {
			case err != nil:
				return err
			case len(j.Apps) == 0:
				return fmt.Errorf("pod %q cannot be judged: %s", p.Name, strings.Join(j.Missing, "; "))
			case cmd.Flags().Changed("threshold") && j.Exposure > threshold:
				return &exitError{1}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of tables")
	cmd.Flags().Float64Var(&threshold, "threshold", 10, "exit with status 1 if the total exposure is above `NUMBER`")
	return cmd
}

func networkOf(p *podfile.Pod) string {
	if len(p.Rkt.Net) == 0 {
		return "default"
	}
	return strings.Join(p.Rkt.Net, ",")
}

func showSecurity(out io.Writer, j *podSecurityJSON) error {
	for _, s := range append([]scoreJSON{j.Unit}, j.Apps...) {
		if s.Missing != "" {
			fmt.Fprintf(out, "%s: %s\n\n", s.Name, s.Missing)
			continue
		}
		if s.Name != j.Unit.Name {
			w := table(out)
			fmt.Fprintln(w, "  \tNAME\tDESCRIPTION\tEXPOSURE")
			for _, f := range s.Findings {
				mark, exposure := "✓", ""
				if !f.Good {
					mark, exposure = "✗", strconv.FormatFloat(f.Exposure, 'f', 1, 64)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, f.Name, f.Description, exposure)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			fmt.Fprintf(out, "→ Exposure of app %s: %.1f %s\n\n", s.Name, s.Exposure, s.Rating)
			continue
		}
		fmt.Fprintf(out, "→ Exposure of unit %s: %.1f %s (see systemd-analyze security %[1]s)\n\n", s.Name, s.Exposure, s.Rating)
	}
	for _, m := range j.Missing {
		fmt.Fprintf(out, "not known yet: %s\n", m)
	}
	if len(j.Apps) > 0 {
		_, err := fmt.Fprintf(out, "→ Overall exposure of pod %s (profile %s): %.1f %s\n", j.Name, j.Profile, j.Exposure, j.Rating)
		return err
	}
	return nil
}

// scoreUnit asks systemd-analyze about the host's unit.
func scoreUnit(ctx context.Context, unit string) scoreJSON {
	out := scoreJSON{Name: unit, Findings: []finding{}}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, "systemd-analyze", "--no-pager", "--json=short", "security", unit).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	var list []struct {
		Set         bool
		Name        string
		Description string
		Exposure    *string
	}
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		out.Missing = "systemd-analyze security: " + err.Error()
		return out
	}
	for _, l := range list {
		f := finding{Name: l.Name, Description: l.Description, Good: l.Set}
		if l.Exposure != nil {
			f.Exposure, _ = strconv.ParseFloat(*l.Exposure, 64) // a dash where it does not apply
		}
		out.Findings = append(out.Findings, f)
	}
	if out.Exposure, err = overall(ctx, unit); err != nil {
		out.Missing = err.Error()
	}
	out.Rating = rating(out.Exposure)
	return out
}

// overall is the total, which only the text has, in its last line: the parts are
// rounded each.
func overall(ctx context.Context, unit string) (float64, error) {
	cmd := exec.CommandContext(ctx, "systemd-analyze", "--no-pager", "security", unit)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "SYSTEMD_COLORS=0"}
	b, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("systemd-analyze security: %w", err)
	}
	_, text, _ := strings.Cut(string(b), "level for "+unit+": ")
	words := strings.Fields(text)
	if len(words) == 0 {
		return 0, errors.New("systemd-analyze security has no total")
	}
	return strconv.ParseFloat(words[0], 64)
}

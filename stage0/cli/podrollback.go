package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/image"
)

func (a *app) podRollbackCmd() *cobra.Command {
	var o updateOptions
	var format string
	cmd := &cobra.Command{
		Use: "rollback NAME [GENERATION]", Short: "Run a declared pod with the images of an earlier generation",
		Long: `Go back to the generation before the current one, or to the one given (rkt pod history lists them), with the same trial as an
update has. The generation that is left counts as bad: rkt pod update --auto does not bring it back. A pod that does not run is
not started.`,
		Args: func(_ *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			if len(args) < 1 || len(args) > 2 {
				return errors.New("rollback takes the name of a declared pod, and maybe a generation; see rkt help pod rollback")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a.insecureGiven = cmd.Flags().Changed("insecure-options")
			o.timeoutGiven, o.settleGiven = cmd.Flags().Changed("timeout"), cmd.Flags().Changed("settle")
			if err := checkFormat(format); err != nil {
				return err
			}
			n := 0
			if len(args) == 2 {
				var err error
				if n, err = strconv.Atoi(args[1]); err != nil || n < 1 {
					return fmt.Errorf("%q is no generation; rkt pod history %s lists them", args[1], args[0])
				}
			}
			u, err := a.newUpdater(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer u.close()
			r := updateJSON{Name: args[0]}
			if err := u.rollback(cmd.Context(), args[0], n, &r); err != nil {
				return err
			}
			u.tell(r)
			return a.printUpdates([]updateJSON{r}, format, false)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

func (u *updater) rollback(ctx context.Context, name string, n int, r *updateJSON) error {
	p, err := u.a.loadPod(name)
	if err != nil {
		return err
	}
	d, c, unlock, err := u.begin(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case c == nil:
		return fmt.Errorf("pod %q has no generations yet: it was never started", name)
	case n == 0 && c.Previous == 0:
		return fmt.Errorf("pod %q has no generation before %d", name, c.Generation)
	case n == 0:
		n = c.Previous
	}
	if n == c.Generation {
		r.Result, r.Generation, r.Previous = resultCurrent, c.Generation, c.Previous
		return nil
	}
	g, err := d.Generation(n)
	if err != nil {
		return hint(err, "rkt pod history %s", name)
	}
	// Everything is checked before anything is touched.
	f, err := u.a.podFetcher(u.st, p)
	if err != nil {
		return err
	}
	cur := &declared.Current{Apps: g.Apps}
	rec := &podRecords{Pod: d, current: cur, log: u.a.log}
	if _, err := eachApp(ctx, u.st, p, func(i int, ref image.Ref) (image.Image, declared.App, error) {
		old := cur.App(appKey(p, i), ref.Text)
		if old == nil {
			return image.Image{}, declared.App{}, fmt.Errorf("generation %d has no image for %q: the pod file was another one then", n, ref.Text)
		}
		return rec.recorded(f, ref, *old)
	}); err != nil {
		return fmt.Errorf("pod %q cannot go back to generation %d: %w", name, n, err)
	}
	r.Apps = changes(c, g.Apps)
	why := fmt.Sprintf("rolled back to generation %d by hand", n)
	state, err := u.steady(ctx, p)
	if err != nil {
		return err
	}
	if !running(state) {
		c, err := d.Go(n, why)
		if err != nil {
			return err
		}
		r.Result, r.Generation, r.Previous = resultRecorded, c.Generation, c.Previous
		return nil
	}
	return u.trial(ctx, p, d, g.Apps, n, declared.EventRolledBack, why, r)
}

// historyJSON is the output of pod history.
type historyJSON struct {
	Name        string                `json:"name"`
	Generation  int                   `json:"generation"`
	State       declared.State        `json:"state,omitempty"`
	Generations []declared.Generation `json:"generations"`
	Events      []declared.Event      `json:"events"`
}

func (a *app) podHistoryCmd() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "history NAME", Short: "Show the generations of a declared pod, and what became of them",
		Args: exactArgs(1, "the name of a declared pod"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			dir, err := a.dataDir()
			if err != nil {
				return err
			}
			d, err := declared.Open(dir, args[0])
			if err != nil {
				return err
			}
			c, err := d.Current()
			if err != nil {
				return err
			}
			out := historyJSON{Name: args[0], Generations: []declared.Generation{}, Events: []declared.Event{}}
			if c == nil {
				return hint(fmt.Errorf("pod %q has no history: it was never started", args[0]), "rkt pod list")
			}
			out.Generation, out.State = c.Generation, c.State
			gs, err := d.Generations()
			if err != nil {
				a.log.Warn(err)
			}
			out.Generations = append(out.Generations, gs...)
			es, err := d.History()
			if err != nil {
				return err
			}
			out.Events = append(out.Events, es...)
			if format != "" {
				return printJSON(a.Stdout, format, out)
			}
			return a.printHistory(out)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

func (a *app) printHistory(h historyJSON) error {
	w := table(a.Stdout)
	fmt.Fprintln(w, " \tGENERATION\tCREATED\tSTATE\tIMAGES\tREASON")
	for _, g := range h.Generations {
		mark := " "
		if g.Number == h.Generation {
			mark = "*"
		}
		var images []string
		for _, ap := range g.Apps {
			images = append(images, ap.Name+"="+shortID(ap.ID, 12, false))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", mark, g.Number, g.Created.Local().Format(timeLayout), g.State, strings.Join(images, ","), orDash(g.Reason))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.Stdout)
	w = table(a.Stdout)
	fmt.Fprintln(w, "TIME\tEVENT\tGENERATION\tFROM\tREASON")
	for _, e := range slices.Backward(h.Events) {
		from := "-"
		if e.From > 0 {
			from = strconv.Itoa(e.From)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", e.Time.Local().Format(timeLayout), e.Event, e.Generation, from, orDash(e.Reason))
	}
	return w.Flush()
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/podlog"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

func (a *app) logsCmd() *cobra.Command {
	var apps []string
	var follow, untilEnd, detach, serve bool
	var lines int
	var since, until, output string
	var more journal.Query
	cmd := &cobra.Command{
		Use: "logs UUID|NAME", Short: "Print what a pod's apps wrote to the journal",
		Long: `Print the lines of a pod from the host's journal. A UUID gives that run of the pod, also after the pod has been
collected; the name of a declared pod gives all its runs, as journalctl -u rkt@NAME does. Members of group rkt may see the logs of pods
without being allowed to read the rest of the journal.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if serve {
				return exactArgs(0, "no arguments with --serve")(cmd, args)
			}
			return exactArgs(1, "one pod")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.serving {
				if err := a.mayServe(cmd.Flags(), args[0]); err != nil {
					return err
				}
			} else if serve {
				return a.serveLogs(cmd.Context(), a.Stdin)
			} else if done, err := a.logsOfOthers(cmd.Context(), cmd.Flags(), args); done || err != nil {
				return err
			}
			if detach {
				return a.detachFollow(args[0])
			}
			q := journal.Query{Follow: follow, Lines: lines}
			if since != "" {
				t, err := parseTime("--since", since, time.Now())
				if err != nil {
					return err
				}
				q.Since = t
			}
			if until != "" {
				t, err := parseTime("--until", until, time.Now())
				if err != nil {
					return err
				}
				q.Until = t
			}
			if err := checkLogOutput(output); err != nil {
				return err
			}
			if untilEnd && (output != "" || more.Reverse || until != "") {
				return errors.New("--until-end cannot be combined with --output, --reverse and --until")
			}
			q.Priority, q.Grep, q.Boot, q.Reverse = more.Priority, more.Grep, more.Boot, more.Reverse
			return a.logs(cmd.Context(), args[0], q, output, apps, untilEnd)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&apps, "app", nil, "only lines of this `APP`; may be repeated")
	f.BoolVarP(&follow, "follow", "f", false, "go on with new lines")
	f.IntVarP(&lines, "lines", "n", 0, "only the newest so many `lines`")
	f.StringVar(&since, "since", "", "only lines since this `time`: 10m, 2h ago, 2006-01-02 15:04:05")
	f.StringVar(&until, "until", "", "only lines until this `time`, as --since")
	f.StringVarP(&output, "output", "o", "", "output `mode` of journalctl(1): short-iso, json, cat, verbose, …")
	f.StringVarP(&more.Priority, "priority", "p", "", "only lines of this `priority` or a more important one: err, warning, 3, a range err..alert")
	f.StringVarP(&more.Grep, "grep", "g", "", "only lines that match this `expression`")
	f.StringVarP(&more.Boot, "boot", "b", "", "only lines of this `boot` of the host: an ID or an offset, 0 for this one")
	f.Lookup("boot").NoOptDefVal = "0"
	f.BoolVarP(&more.Reverse, "reverse", "r", false, "newest lines first")
	f.Bool("no-pager", true, "")
	_ = f.MarkHidden("no-pager") // there is none; for fingers that are used to it
	f.BoolVar(&untilEnd, "until-end", false, "end when the pod does")
	f.BoolVar(&detach, "detach", false, "")
	_ = f.MarkHidden("detach")
	f.BoolVar(&serve, "serve", false, "")
	_ = f.MarkHidden("serve")
	return cmd
}

// checkLogOutput takes the output modes of journalctl.
func checkLogOutput(mode string) error {
	const known = " short short-full short-iso short-iso-precise short-precise short-monotonic short-delta short-unix verbose export json json-pretty json-sse json-seq cat with-unit "
	if mode == "" || strings.Contains(known, " "+mode+" ") && !strings.Contains(mode, " ") {
		return nil
	}
	return fmt.Errorf("--output: %q is none of%s", mode, strings.TrimRight(known, " "))
}

// parseTime takes a duration back from now, or a time.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(strings.TrimSuffix(strings.TrimPrefix(s, "-"), " ago")); err == nil {
		return now.Add(-d), nil
	}
	for _, l := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(l, s, now.Location()); err == nil {
			return t, nil
		}
	}
	switch s {
	case "now":
		return now, nil
	case "today", "yesterday":
		y, m, d := now.Date()
		if s == "yesterday" {
			d--
		}
		return time.Date(y, m, d, 0, 0, 0, 0, now.Location()), nil
	}
	return time.Time{}, fmt.Errorf("%s: %q is neither a duration (10m) nor a time (2006-01-02 15:04:05)", flag, s)
}

func (a *app) logs(ctx context.Context, arg string, q journal.Query, output string, apps []string, untilEnd bool) error {
	pods, _, err := a.pods()
	if err != nil {
		return err
	}
	var d *pod.Pod
	if id, e := pods.Resolve(arg); e == nil {
		if d, err = pods.Get(id); err != nil && !errors.Is(err, pod.ErrNotFound) {
			return err
		}
	} else if errors.Is(e, pod.ErrEmptyUUID) {
		return e
	}
	switch {
	case d != nil:
		defer d.Close()
		scope := ""
		if d.Unit() == "" {
			scope = d.Scope()
		}
		q.Matches = journal.PodMatches(d.UUID, scope, apps...)
		ownJournal(d, &q, apps)
	case pod.ValidUUID(strings.ToLower(arg)):
		// collected: it was a unit's or had a scope of its own; one of them has lines
		id := strings.ToLower(arg)
		q.Namespace = "*" // which it logged to went with it
		q.Matches = journal.PodMatches(id, "", apps...)
		if !hasLines(ctx, q) {
			q.Matches = journal.PodMatches(id, podfs.Scope(podfs.DefaultMachine(id)), apps...)
		}
	default:
		q.Matches = []string{"_SYSTEMD_UNIT=rkt@" + arg + ".service"}
		for _, app := range apps {
			q.Matches = append(q.Matches, "SYSLOG_IDENTIFIER="+app)
		}
		if p, _ := podfile.Load(podfile.SearchOptions{}, arg); p != nil {
			q.Namespace = p.Rkt.LogNamespace
			if p.Rkt.Journal == podlog.Guest {
				newest, err := a.newestRuns()
				if err != nil {
					return err
				}
				r, ok := newest[arg]
				if !ok {
					return fmt.Errorf("pod %q has a journal of its own with every run, and no run of it is there", arg)
				}
				return a.logs(ctx, r.uuid, q, output, apps, untilEnd)
			}
		}
		if untilEnd {
			return errors.New("--until-end needs the UUID of a pod")
		}
		if entries, err := podfile.List(podfile.SearchOptions{}); err == nil && !hasLines(ctx, q) &&
			!slices.ContainsFunc(entries, func(e podfile.Entry) bool { return e.Name == arg }) {
			return fmt.Errorf("no pod is called %q: it is neither declared nor in the journal", arg)
		}
	}
	if untilEnd && d != nil {
		return a.followUntilEnd(ctx, d, q)
	}
	if output != "" {
		return journal.Copy(ctx, q, output, a.Stdout)
	}
	_, err = a.copyLog(ctx, q)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// ownJournal reads where a pod's lines are, if that is not the host's journal.
func ownJournal(d *pod.Pod, q *journal.Query, apps []string) {
	m, err := d.Manifest()
	if err != nil {
		return
	}
	if ns, _ := m.Annotations.Get(podlog.AnnotationNamespace); podlog.CheckNamespace(ns) == "" {
		q.Namespace = ns
	}
	if v, _ := m.Annotations.Get(podlog.AnnotationJournal); v == podlog.Guest {
		// all of it is the pod's
		q.Directory, q.Matches = filepath.Join(d.Dir(), podfs.GuestJournal), nil
		for _, app := range apps {
			q.Matches = append(q.Matches, "SYSLOG_IDENTIFIER="+app)
		}
	}
}

func hasLines(ctx context.Context, q journal.Query) bool {
	q.Follow, q.Lines = false, 1
	r, err := journal.Read(ctx, q)
	if err != nil {
		return false
	}
	defer r.Close()
	_, err = r.Next()
	return err == nil
}

// copyLog prints entries and returns the cursor of the last.
func (a *app) copyLog(ctx context.Context, q journal.Query) (string, error) {
	r, err := journal.Read(ctx, q)
	if err != nil {
		return "", err
	}
	cursor := ""
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return cursor, r.Close()
		}
		if err != nil {
			return cursor, errors.Join(err, r.Close())
		}
		cursor = e.Cursor
		if _, err := fmt.Fprintln(a.Stdout, e.Short()); err != nil {
			return cursor, errors.Join(err, r.Close())
		}
	}
}

// followUntilEnd prints lines as they come until the pod's lock is free, and
// then what the journal still holds: nothing the apps wrote is lost.
func (a *app) followUntilEnd(ctx context.Context, d *pod.Pod, q journal.Query) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if err := d.WaitUnlocked(); err == nil {
			cancel()
		}
	}()
	q.Follow = true
	cursor, err := a.copyLog(ctx, q)
	if err != nil && !errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return err
	}
	q.Follow, q.Sync, q.After = false, true, cursor
	_, err = a.copyLog(context.WithoutCancel(ctx), q)
	return err
}

// follow shows the output of a pod that was started by hand, where the user
// sees it. rkt itself is about to become the pod, so the viewer is started by
// a process that ends at once: the pod's supervisor must have one child only.
func (a *app) follow(uuid string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append(a.dirFlags(), "logs", "--detach", uuid)...)
	cmd.Stdout, cmd.Stderr = a.Stdout, a.Stderr
	return cmd.Run()
}

// detachFollow starts the viewer and leaves it.
func (a *app) detachFollow(uuid string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{}, a.Args...)
	for i, w := range args {
		if w == "--detach" {
			args[i] = "--until-end"
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = a.Stdout, a.Stderr
	// a signal from the terminal is for the pod; the viewer ends with it
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	signal.Ignore(syscall.SIGTTOU)
	return cmd.Start()
}

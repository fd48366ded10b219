package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podunit"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/declared"
	"github.com/rkt-systemd/rkt/stage0/image"
)

// podFetchJSON is one pod in the output of pod fetch.
type podFetchJSON struct {
	Name       string         `json:"name"`
	Generation int            `json:"generation,omitempty"`
	Apps       []declared.App `json:"apps,omitempty"`
	Error      string         `json:"error,omitempty"`
}

// onlineTimeout bounds the wait for the network.
const onlineTimeout = 2 * time.Minute

func (a *app) podFetchCmd() *cobra.Command {
	var all, wait bool
	var format string
	parallel := 4
	cmd := &cobra.Command{
		Use: "fetch [NAME…|--all]", Short: "Fetch the images of declared pods ahead of their start",
		Long: `Fetch, verify and unpack the images of declared pods, and record what their references stand for: from then on the pods start
without a network. What is recorded already is left alone; rkt pod update brings newer images. This is what
rkt-fetch@NAME.service does before a pod's first start.

A pod that fails does not keep the others from being fetched; the exit status tells of it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a.insecureGiven = cmd.Flags().Changed("insecure-options")
			if err := checkFormat(format); err != nil {
				return err
			}
			names, err := a.podNames(args, all)
			if err != nil {
				return err
			}
			if len(names) == 1 {
				journal.SetField(a.log, journal.KeyPodName, names[0])
			}
			if parallel < 1 {
				return errors.New("--parallel: want a number above 0")
			}
			out, err := a.fetchPods(cmd.Context(), names, parallel, wait)
			if err != nil {
				return err
			}
			return a.printFetched(out, format)
		},
		Args: a.rootArgs(),
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "all declared pods")
	f.IntVar(&parallel, "parallel", parallel, "how many pods are fetched at a time")
	f.BoolVar(&wait, "wait-network", false, "when a source cannot be reached and the host is not online yet, wait for that and try again")
	f.StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

// rootArgs takes any arguments from root.
func (a *app) rootArgs() cobra.PositionalArgs {
	return func(*cobra.Command, []string) error { return a.needRoot() }
}

// podNames are the pods that a command is for: those named, or all that are
// declared and are no templates.
func (a *app) podNames(args []string, all bool) ([]string, error) {
	switch {
	case all && len(args) > 0:
		return nil, errors.New("--all and the names of pods exclude each other")
	case !all && len(args) == 0:
		return nil, errors.New("takes the names of declared pods, or --all; rkt pod list shows them")
	case !all:
		return args, nil
	}
	x, err := podfile.Scan(podfile.SearchOptions{})
	if err != nil {
		a.log.Warn(err)
	}
	return allPods(x), nil
}

// allPods are the pods that the generator makes units for, each once.
func allPods(x *podfile.Index) []string {
	var names []string
	for _, e := range x.Entries() {
		switch {
		case e.Bad != "":
		case e.Template:
			names = append(names, templateInstances(x, e.Name)...)
		default:
			names = append(names, e.Name)
		}
	}
	out := names[:0]
	for _, n := range names {
		if _, problems := x.Read(n); !podfile.IsMasked(problems) {
			out = append(out, n)
		}
	}
	return out
}

// templateInstances are the instances of a template that are declared by
// drop-ins of their own or by DefaultInstance=, and not by a file of their own.
func templateInstances(x *podfile.Index, template string) []string {
	names := x.Instances(template)
	// Like the generator: a template with errors still has its instance, which
	// says so.
	files, _ := x.Read(template)
	if d := podunit.DefaultInstance(podfile.ParseInstall(template, files)); d != "" {
		names = append(names, template+d)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), x.Has)
}

// fetchPods fetches pods side by side.
func (a *app) fetchPods(ctx context.Context, names []string, parallel int, wait bool) ([]podFetchJSON, error) {
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	out := make([]podFetchJSON, len(names))
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, name := range names {
		out[i].Name = name
		p, err := a.loadPod(name)
		if err != nil {
			out[i].Error = err.Error()
			continue
		}
		f, err := a.podFetcher(st, p)
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := a.fetchPod(ctx, st, f, p, wait)
			if err != nil {
				out[i].Error = err.Error()
				return
			}
			out[i].Generation, out[i].Apps = c.Generation, c.Apps
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

// fetchPod finds the images of one pod and records them.
func (a *app) fetchPod(ctx context.Context, st *stores, f *image.Fetcher, p *podfile.Pod, wait bool) (*declared.Current, error) {
	rec, err := a.records(st, p.Name, false)
	if err != nil {
		return nil, err
	}
	found, err := rec.resolve(ctx, st, f, p)
	if err != nil && wait && image.Unreachable(err) && a.online(ctx) {
		a.log.Warnf("%v; the host is online now, trying again", err)
		found, err = rec.resolve(ctx, st, f, p)
	}
	if err != nil {
		return nil, err
	}
	return rec.RecordSince(rec.current, found.apps, p.Rkt.Update.Keep)
}

// online waits until the host is online. It reports whether it was not before.
func (a *app) online(ctx context.Context) bool {
	const target = "network-online.target"
	m, err := systemd.Connect(ctx)
	if err != nil {
		a.log.Debugf("not waiting for the network: %v", err)
		return false
	}
	defer m.Close()
	if s, err := m.State(ctx, target); err != nil || s.ActiveState == "active" {
		return false
	}
	if a.Getenv("NOTIFY_SOCKET") != "" {
		// A manager that does not listen is no reason to stop.
		_, _ = daemon.SdNotify(false, fmt.Sprintf("STATUS=Waiting for the network\nEXTEND_TIMEOUT_USEC=%d", (onlineTimeout+time.Minute).Microseconds()))
	}
	ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
	defer cancel()
	if err := m.Do(ctx, systemd.Start, target); err != nil {
		a.log.Warnf("waiting for the network: %v", err)
		return false
	}
	return true
}

func (a *app) printFetched(out []podFetchJSON, format string) error {
	failed := 0
	for _, o := range out {
		if o.Error != "" {
			failed++
			a.log.Errorf("pod %q: %s", o.Name, o.Error)
		}
	}
	switch {
	case format != "":
		if err := printJSON(a.Stdout, format, out); err != nil {
			return err
		}
	case a.Getenv("JOURNAL_STREAM") != "" && journal.StderrIsJournal(): // rkt-fetch@.service: no tables there
		for _, o := range out {
			for _, ap := range o.Apps {
				a.log.Infof("pod %q, generation %d: app %s is image %s", o.Name, o.Generation, ap.Name, shortID(ap.ID, 12, false))
			}
		}
	default:
		w := table(a.Stdout)
		fmt.Fprintln(w, "NAME\tGENERATION\tAPP\tIMAGE")
		for _, o := range out {
			if o.Error != "" {
				fmt.Fprintf(w, "%s\tfailed\t-\t-\n", o.Name)
			}
			for _, ap := range o.Apps {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", o.Name, o.Generation, ap.Name, shortID(ap.ID, 12, false))
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if failed > 0 {
		if failed > 1 || len(out) > 1 {
			a.log.Errorf("%d of %d pods could not be fetched", failed, len(out))
		}
		return errSilent
	}
	return nil
}

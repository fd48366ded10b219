package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/hostnat"
	"github.com/rkt-systemd/rkt/internal/netreg"
	"github.com/rkt-systemd/rkt/stage0/handoff"
	"github.com/rkt-systemd/rkt/stage0/keystore"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

// podArgs are the UUIDs of a command: its arguments, or the content of a file.
func podArgs(args []string, uuidFile string) ([]string, error) {
	if uuidFile == "" {
		return args, nil
	}
	if len(args) > 0 {
		return nil, errors.New("--uuid-file and a UUID exclude each other")
	}
	b, err := os.ReadFile(uuidFile)
	if err != nil {
		return nil, fmt.Errorf("--uuid-file: %w", err)
	}
	return []string{strings.TrimSpace(string(b))}, nil
}

// onePod finds the pod of a command that takes one.
func (a *app) onePod(cmd *cobra.Command, args []string, uuidFile string) (*pod.Pod, error) {
	args, err := podArgs(args, uuidFile)
	if err != nil {
		return nil, err
	}
	if len(args) != 1 {
		return nil, fmt.Errorf("%s takes one pod; see rkt help %s", cmd.Name(), cmd.Name())
	}
	pods, _, err := a.pods()
	if err != nil {
		return nil, err
	}
	return a.findPod(pods, args[0])
}

func (a *app) gcCmd() *cobra.Command {
	var o pod.Options
	var name string
	grace, expire := durationValue{30 * time.Minute}, durationValue{24 * time.Hour}
	cmd := &cobra.Command{
		Use: "gc", Short: "Collect pods that have ended",
		Long: `Collect pods. Ended pods are marked first; what was marked longer ago than the grace period is deleted,
and so are failed prepares, prepared pods nobody ran in time, and what a crash left of downloads and images, after a
day; at once with --grace-period=0.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(0, "no arguments")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.collector()
			if err != nil {
				return err
			}
			if name != "" {
				a.explainCredentials(name)
				return a.markPod(cmd.Context(), c, name)
			}
			o.Grace, o.ExpirePrepared = grace.d, expire.d
			if err := c.Collect(cmd.Context(), o); err != nil || o.MarkOnly {
				return err
			}
			if err := a.sweepNetworks(cmd.Context(), c.Pods); err != nil {
				return err
			}
			return a.cleanStore(cmd.Context(), o.Grace)
		},
	}
	f := cmd.Flags()
	f.Var(&grace, "grace-period", "`duration` a marked pod stays")
	f.Var(&expire, "expire-prepared", "`duration` a prepared pod waits to be run")
	f.BoolVar(&o.MarkOnly, "mark-only", false, "only mark ended pods and release what they hold, delete nothing")
	f.StringVar(&name, "pod", "", "with --mark-only: only the ended pods of this declared `name`")
	return cmd
}

// cleanStore removes what crashes left of images and trusted keys. Partial files of the
// last minute stay in any case: their writers may not have locked them yet.
func (a *app) cleanStore(ctx context.Context, grace time.Duration) error {
	st, err := a.stores()
	if err != nil {
		return err
	}
	age := 24 * time.Hour
	if grace == 0 {
		age = time.Minute
	}
	freed, err := st.store.Clean(ctx, age)
	if freed > 0 {
		a.log.Infof("removed %s of partial images", size(freed, false))
	}
	if err != nil {
		return fmt.Errorf("cleaning the image store: %w", err)
	}
	if err := st.trees.Clean(ctx); err != nil {
		return fmt.Errorf("cleaning the rendered images: %w", err)
	}
	if err := keystore.New(a.systemConfig, a.localConfig).Clean(time.Now().Add(-age)); err != nil {
		return fmt.Errorf("cleaning the trusted keys: %w", err)
	}
	return nil
}

// sweepNetworks removes what pods have left in the host's network whose
// directories are gone.
func (a *app) sweepNetworks(ctx context.Context, pods *pod.Pods) error {
	dir, err := filepath.EvalSymlinks(pods.Dir())
	if errors.Is(err, os.ErrNotExist) {
		return nil // no pod was ever made here
	}
	if err != nil {
		return err
	}
	s := netreg.Sweep{Dir: netreg.Dir, Pods: dir, LeaseDirs: []string{netreg.LeaseDir, netreg.HostLocalDir}, NAT: hostnat.Host(), Log: func(text string) { a.log.Warn(text) }}
	return s.Run(ctx)
}

// markPod is what rkt@.service runs when its pod has ended: the pod of this
// invocation, found without looking at any other, then others of the name that
// a crash left unmarked.
func (a *app) markPod(ctx context.Context, c *pod.Collector, name string) error {
	if id, ok := pod.FromInvocation(a.Getenv("INVOCATION_ID")); ok {
		if d, err := c.Pods.Get(id); err == nil {
			d.Close()
			return c.Mark(ctx, id)
		}
	}
	all, err := c.Pods.List()
	for _, d := range all {
		if d.State == pod.Exited && d.DeclaredName() == name {
			err = errors.Join(err, c.Mark(ctx, d.UUID))
		}
		d.Close()
	}
	return err
}

// durationValue is a flag that also takes a bare 0.
type durationValue struct{ d time.Duration }

func (v *durationValue) String() string { return v.d.String() }
func (v *durationValue) Type() string   { return "duration" }
func (v *durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 90s, 30m or 24h", s)
	}
	if d < 0 {
		return fmt.Errorf("%q is negative", s)
	}
	v.d = d
	return nil
}

func (a *app) rmCmd() *cobra.Command {
	var uuidFile string
	cmd := &cobra.Command{
		Use: "rm UUID|NAME…", Short: "Remove pods at once, whatever their grace period",
		Long: "Remove pods that have ended or never ran. Running pods are refused: stop them first.",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			if len(args) == 0 && uuidFile == "" {
				return errors.New("rm takes the UUIDs or names of pods; see rkt help rm")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.collector()
			if err != nil {
				return err
			}
			c.Out = a.Stderr
			return a.eachPod(args, uuidFile, "remove", func(arg string) error {
				d, err := a.findPod(c.Pods, arg)
				if err != nil {
					return err
				}
				d.Close()
				if err := c.Remove(cmd.Context(), d.UUID); err != nil {
					return err
				}
				fmt.Fprintf(a.Stdout, "%q\n", d.UUID)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&uuidFile, "uuid-file", "", "read the pod's UUID from this `FILE`")
	return cmd
}

// eachPod does something to every pod that is named and goes on after failures.
func (a *app) eachPod(args []string, uuidFile, verb string, f func(arg string) error) error {
	args, err := podArgs(args, uuidFile)
	if err != nil {
		return err
	}
	failed := 0
	for _, arg := range args {
		if err := f(arg); err != nil {
			a.log.Error(err)
			failed++
		}
	}
	if failed > 0 {
		a.log.Errorf("failed to %s %d pod(s)", verb, failed)
		return errSilent
	}
	return nil
}

func (a *app) stopCmd() *cobra.Command {
	var uuidFile string
	var force bool
	cmd := &cobra.Command{
		Use: "stop UUID|NAME…", Short: "Stop running pods",
		Long: `Stop running pods in order: their apps get SIGTERM. A pod that is a service ends as by systemctl stop, except that
a service with Restart=always is started again by systemd.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && uuidFile == "" {
				return errors.New("stop takes the UUIDs or names of pods; see rkt help stop")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachPod(args, uuidFile, "stop", func(arg string) error { return a.stop(cmd.Context(), arg, force) })
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "kill instead of asking")
	cmd.Flags().StringVar(&uuidFile, "uuid-file", "", "read the pod's UUID from this `FILE`")
	return cmd
}

func (a *app) stop(ctx context.Context, arg string, force bool) error {
	pods, _, err := a.pods()
	if err != nil {
		return err
	}
	d, err := a.findPod(pods, arg)
	if err != nil {
		return err
	}
	defer d.Close()
	switch {
	case d.State.AfterRun():
		fmt.Fprintf(a.Stdout, "pod %q is already stopped\n", d.UUID)
		return nil
	case d.State != pod.Running:
		return fmt.Errorf("pod %s is not running but %s", d.UUID, d.State)
	}
	t, m, err := a.stage1Of(d)
	if err != nil {
		return err
	}
	if err := handoff.Stop(ctx, d.Dir(), t.Rootfs(), m, abi.Stop{Force: force, UUID: d.UUID}); err != nil {
		return fmt.Errorf("stopping pod %s: %w", d.UUID, err)
	}
	fmt.Fprintf(a.Stdout, "%q\n", d.UUID)
	return nil
}

// appOf checks the name of an app, or finds it in a pod that has only one.
func appOf(d *pod.Pod, name string) (string, error) {
	m, err := d.Manifest()
	if err != nil {
		return "", err
	}
	var apps []string
	for i := range m.Apps {
		apps = append(apps, m.Apps[i].Name.String())
	}
	switch {
	case name == "" && len(apps) == 1:
		return apps[0], nil
	case name == "" && len(apps) == 0:
		return "", fmt.Errorf("pod %s has no apps", d.UUID)
	case name == "":
		return "", fmt.Errorf("pod %s has several apps: %s; choose one with --app", d.UUID, strings.Join(apps, ", "))
	case !slices.Contains(apps, name):
		return "", fmt.Errorf("pod %s has no app %q; it has: %s", d.UUID, name, strings.Join(apps, ", "))
	}
	return name, nil
}

// waitPID waits for the first process of a pod that is starting, as the
// contract has it: every 100 ms, as long as the pod's lock is held.
func waitPID(ctx context.Context, d *pod.Pod) (int, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := d.Refresh(); err != nil {
			return 0, err
		}
		if d.State != pod.Running {
			return 0, fmt.Errorf("pod %s is not running but %s", d.UUID, d.State)
		}
		pid, err := d.PID()
		if err == nil || !errors.Is(err, pod.ErrNoPID) {
			return pid, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

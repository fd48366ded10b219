package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/appc/spec/schema"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/prepare"
)

// oneApp makes a command that does something to an app of a mutable pod.
func (a *app) oneApp(use, short, long string, f func(ctx context.Context, d *pod.Pod, name string) error) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: use + " UUID|NAME --app=NAME", Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(1, "the UUID or name of a pod")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				return fmt.Errorf("app %s needs --app=NAME", use)
			}
			d, err := a.mutablePod(args[0])
			if err != nil {
				return err
			}
			defer d.Close()
			return f(cmd.Context(), d, name)
		},
	}
	cmd.Flags().StringVar(&name, "app", "", "`name` of the app")
	return cmd
}

func (a *app) appStartCmd() *cobra.Command {
	return a.oneApp("start", "Start an app of a mutable pod, or start it again",
		"Start an app that was added by rkt app add. An app that has ended, or was stopped, can be started again; its status of before is forgotten.",
		func(ctx context.Context, d *pod.Pod, name string) error {
			if d.State != pod.Running {
				return fmt.Errorf("pod %s is not running but %s", d.UUID, d.State)
			}
			if _, err := appOf(d, name); err != nil {
				return err
			}
			err := a.change(ctx, d, false, func(c *prepare.Change) error {
				i := appStatus(d, nil, name, true)
				if i.State == appRunning {
					// or its start was killed: then it is not
					return c.Stage1(abi.AnnotationAppStart, name)
				}
				if err := c.Started(name); err != nil {
					return err
				}
				err := c.Stage1(abi.AnnotationAppStart, name)
				if err != nil && appStatus(d, nil, name, true).State == appRunning {
					return errors.Join(err, c.NotStarted(name))
				}
				return err
			})
			return appError("starting", name, d, err)
		})
}

func (a *app) appStopCmd() *cobra.Command {
	return a.oneApp("stop", "Stop an app of a mutable pod",
		"Stop a running app in order: it gets SIGTERM. rkt app start starts it again.",
		func(ctx context.Context, d *pod.Pod, name string) error {
			switch {
			case d.State.AfterRun():
				fmt.Fprintf(a.Stdout, "pod %q is already stopped\n", d.UUID)
				return nil
			case d.State != pod.Running:
				return fmt.Errorf("pod %s is not running but %s", d.UUID, d.State)
			}
			if _, err := appOf(d, name); err != nil {
				return err
			}
			err := a.change(ctx, d, false, func(c *prepare.Change) error { return c.Stage1(abi.AnnotationAppStop, name) })
			return appError("stopping", name, d, err)
		})
}

func (a *app) appRmCmd() *cobra.Command {
	return a.oneApp("rm", "Remove an app from a mutable pod",
		"Remove an app with its files, its empty volumes and its status. It is stopped first if it runs. Its name can be used again. The pod may have ended.",
		func(ctx context.Context, d *pod.Pod, name string) error {
			err := a.change(ctx, d, true, func(c *prepare.Change) error {
				if d.State != pod.Running && d.State != pod.Exited {
					return fmt.Errorf("the pod is %s", d.State)
				}
				return c.RemoveApp(name)
			})
			return appError("removing", name, d, err)
		})
}

func (a *app) appExecCmd() *cobra.Command {
	cmd := a.execCmd()
	run := cmd.RunE
	cmd.Use = "exec [--app=NAME] [--user=USER] UUID|NAME [--] [CMD [ARG…]]"
	cmd.Long = "Run a command, or without one a shell, in an app: the same as rkt exec.\n" + enterLong
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return run(cmd, args)
		}
		if err := a.needRoot(); err != nil {
			return err
		}
		o := enterOptions{cwd: true}
		o.app, _ = cmd.Flags().GetString("app")
		o.user, _ = cmd.Flags().GetString("user")
		return a.enter(cmd.Context(), o, args[0], nil)
	}
	return cmd
}

func (a *app) appListCmd() *cobra.Command {
	var noLegend bool
	var format string
	cmd := &cobra.Command{
		Use: "list UUID|NAME", Short: "List the apps of a pod and their states", Args: exactArgs(1, "the UUID or name of a pod"),
		Long: "List the apps of a pod: created (never started), running, exited, or unknown.",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			d, m, err := a.podAndManifest(args[0])
			if err != nil {
				return err
			}
			defer d.Close()
			all := []appInfo{}
			for i := range m.Apps {
				info := appStatus(d, &m.Apps[i], m.Apps[i].Name.String(), prepare.Mutable(m))
				info.withMounts(d, m, &m.Apps[i])
				all = append(all, info)
			}
			switch {
			case format != "":
				return printJSON(a.Stdout, format, all)
			case len(all) == 0:
				_, err := fmt.Fprintln(a.Stdout)
				return err
			}
			w := table(a.Stdout)
			if !noLegend {
				fmt.Fprintln(w, "NAME\tSTATE")
			}
			for _, i := range all {
				fmt.Fprintf(w, "%s\t%s\n", i.Name, i.State)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&noLegend, "no-legend", false, "no header line")
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

func (a *app) podAndManifest(arg string) (*pod.Pod, *schema.PodManifest, error) {
	pods, _, err := a.pods()
	if err != nil {
		return nil, nil, err
	}
	d, err := a.findPod(pods, arg)
	if err != nil {
		return nil, nil, err
	}
	m, err := d.Manifest()
	if err != nil {
		d.Close()
	}
	return d, m, err
}

func (a *app) appStatusCmd() *cobra.Command {
	var name, format string
	cmd := &cobra.Command{
		Use: "status UUID|NAME --app=NAME", Short: "Print the status of an app of a pod", Args: exactArgs(1, "the UUID or name of a pod"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			d, m, err := a.podAndManifest(args[0])
			if err != nil {
				return err
			}
			defer d.Close()
			if name, err = appOf(d, name); err != nil {
				return err
			}
			for i := range m.Apps {
				if m.Apps[i].Name.String() == name {
					info := appStatus(d, &m.Apps[i], name, prepare.Mutable(m))
					info.withMounts(d, m, &m.Apps[i])
					if format != "" {
						return printJSON(a.Stdout, format, info)
					}
					return info.print(a.Stdout)
				}
			}
			return fmt.Errorf("pod %s has no app %q any more", d.UUID, name)
		},
	}
	cmd.Flags().StringVar(&name, "app", "", "`name` of the app; needed when the pod has several")
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of lines")
	return cmd
}

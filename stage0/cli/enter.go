package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage0/handoff"
)

const enterLong = `The command runs in the app and as the app does: its root, environment, user, capabilities, system calls, control group and
limits. With a terminal on standard input and output it gets one of its own; otherwise both are passed through. Signals are passed on, and the
exit status is the command's.`

// enterOptions choose an app and how to be in it.
type enterOptions struct {
	app, user string
	cwd       bool
}

func (o *enterOptions) flags(cmd *cobra.Command) {
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&o.app, "app", "", "app to enter; needed when the pod has several")
	cmd.Flags().StringVar(&o.user, "user", "", "`USER[:GROUP]` of the image, names or numbers, instead of the app's; --user=root for root")
}

func (a *app) enterCmd() *cobra.Command {
	var o enterOptions
	cmd := &cobra.Command{
		Use: "enter [--app=NAME] [--user=USER] UUID|NAME [CMD [ARG…]]", Short: "Run a command, or a shell, in an app of a running pod",
		Long: "Run a command in an app, starting in /. Without a command a shell is started.\n" + enterLong,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			if len(args) == 0 {
				return errors.New("enter takes a pod and a command; see rkt help enter")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.enter(cmd.Context(), o, args[0], args[1:]) },
	}
	o.flags(cmd)
	return cmd
}

func (a *app) execCmd() *cobra.Command {
	o := enterOptions{cwd: true}
	cmd := &cobra.Command{
		Use: "exec [--app=NAME] [--user=USER] UUID|NAME [--] CMD [ARG…]", Short: "Run a command in an app of a running pod",
		Long: "Run a command in an app, starting in the app's working directory. Flags may also follow the pod.\n" + enterLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			if len(args) > 0 {
				// flags between the pod and the command
				if err := cmd.Flags().Parse(args[1:]); err != nil {
					return err
				}
				args = append(args[:1:1], cmd.Flags().Args()...)
			}
			if len(args) < 2 {
				return errors.New("exec takes a pod and a command; see rkt help exec")
			}
			return a.enter(cmd.Context(), o, args[0], args[1:])
		},
	}
	o.flags(cmd)
	return cmd
}

func (a *app) enter(ctx context.Context, o enterOptions, arg string, command []string) error {
	pods, _, err := a.pods()
	if err != nil {
		return err
	}
	d, err := a.findPod(pods, arg)
	if err != nil {
		return err
	}
	defer d.Close()
	if o.app, err = appOf(d, o.app); err != nil {
		return err
	}
	e := abi.Enter{App: o.app, User: o.user, Cwd: o.cwd, Cmd: command}
	if len(command) == 0 {
		a.log.Info(`no command specified, assuming "/bin/bash", or the shell that the image has`)
		e.Cmd, e.Shell = []string{"/bin/bash"}, true
	}
	if e.PID, err = waitPID(ctx, d); err != nil {
		return err
	}
	t, s1, err := a.stage1Of(d)
	if err != nil {
		return err
	}
	return handoff.Enter(d.Dir(), t.Rootfs(), s1, e, a.Environ)
}

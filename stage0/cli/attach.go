package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage0/handoff"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

func (a *app) attachCmd() *cobra.Command {
	var name, mode string
	cmd := &cobra.Command{
		Use: "attach [--app=NAME] [--mode=MODE] UUID|NAME", Short: "Connect to the standard streams of an app of a running pod",
		Long: `Connect this terminal, or whatever the standard streams of rkt attach are, with those of an app that were made for it: by
--stdin=stream, --stdin=tty and the like behind the image on the command line of rkt run and rkt prepare, or "stdin": "stream" in a pod file.

MODE is auto for all of them, list to print the endpoints as JSON, or names separated by commas: stdin, stdout and stderr of streams; tty, tty-in
and tty-out of a terminal. A terminal and streams do not go together.

Several clients may be attached to an app at the same time. Each sees what the app writes from then on, not what it wrote before, and what each of
them types reaches the app. One that cannot keep up with the output is disconnected; the app never waits.

rkt attach ends when the app's output does. It can be left at any time, and the app goes on: in a terminal by ^] three times within a
second; with streams by the end of the input (Ctrl-D) or Ctrl-C. Input from a file or a pipe that has ended leaves the output attached. The app
never sees an end of its input.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(1, "the UUID or name of a pod")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := abi.ParseAttachMode(mode)
			if err != nil {
				return fmt.Errorf("--mode: %w", err)
			}
			return a.attach(cmd.Context(), args[0], name, at)
		},
	}
	cmd.Flags().StringVar(&name, "app", "", "`name` of the app; needed when the pod has several")
	cmd.Flags().StringVar(&mode, "mode", "auto", "what to attach to: `MODE` is auto, list, or a list of stdin,stdout,stderr or of tty,tty-in,tty-out")
	return cmd
}

func (a *app) attach(ctx context.Context, arg, name string, at abi.Attach) error {
	pods, _, err := a.pods()
	if err != nil {
		return err
	}
	d, err := a.findPod(pods, arg)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.State != pod.Running {
		return fmt.Errorf("pod %s is not running but %s", d.UUID, d.State)
	}
	if at.App, err = appOf(d, name); err != nil {
		return err
	}
	at.Debug = a.debug
	pid, err := waitPID(ctx, d)
	if err != nil {
		return err
	}
	t, s1, err := a.stage1Of(d)
	if err != nil {
		return err
	}
	if err := a.Signals.Release(); err != nil {
		return err
	}
	return fmt.Errorf("attaching to app %q: %w", at.App, handoff.Attach(d.Dir(), t.Rootfs(), s1, pid, at, a.Getenv("PATH")))
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appunit"
	"github.com/rkt-systemd/rkt/stage0/handoff"
)

func (a *app) podReloadCmd() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "reload [--app=NAME] NAME", Short: "Have the apps of a running pod reload; what systemctl reload rkt@NAME does",
		Long: `Have the apps of a running pod reload their configuration: those with ExecReload= or ReloadSignal= in their systemd section of
the pod file, all at once, or the one that is named.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(1, "the name of a declared pod")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.reload(cmd.Context(), args[0], name) },
	}
	cmd.Flags().StringVar(&name, "app", "", "only this app")
	return cmd
}

func (a *app) reload(ctx context.Context, arg, name string) error {
	pods, _, err := a.pods()
	if err != nil {
		return err
	}
	d, err := a.findPod(pods, arg)
	if err != nil {
		return err
	}
	defer d.Close()
	m, err := d.Manifest()
	if err != nil {
		return err
	}
	command := []string{"/usr/bin/systemctl", "reload"}
	for i := range m.Apps {
		app := m.Apps[i].Name.String()
		text, ok := m.Apps[i].Annotations.Get(appunit.Annotation)
		if !ok || name != "" && name != app {
			continue
		}
		ds, err := appunit.Decode(text)
		if err != nil {
			return fmt.Errorf("app %q: %w", app, err)
		}
		if slices.ContainsFunc(ds, func(d appunit.Directive) bool { return d.Key == "ExecReload" || d.Key == "ReloadSignal" }) {
			command = append(command, app+".service")
		}
	}
	if len(command) == 2 {
		if name != "" {
			return hint(fmt.Errorf("app %q of pod %s cannot be reloaded", name, d.UUID), "set ReloadSignal or ExecReload in apps[].systemd.service of the pod file, and restart the pod")
		}
		return hint(errors.New("no app of the pod can be reloaded"), "set ReloadSignal or ExecReload in apps[].systemd.service of the pod file, and restart the pod")
	}
	e := abi.Enter{Cmd: command}
	if e.PID, err = waitPID(ctx, d); err != nil {
		return err
	}
	t, s1, err := a.stage1Of(d)
	if err != nil {
		return err
	}
	return handoff.Enter(d.Dir(), t.Rootfs(), s1, e, a.Environ)
}

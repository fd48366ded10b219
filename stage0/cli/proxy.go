package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/proxy"
)

func (a *app) podProxyCmd() *cobra.Command {
	var idle string
	cmd := &cobra.Command{
		Use: "proxy [--idle-time=SPAN] NAME PORT", Short: "Answer at a port of a declared pod; what rkt-proxy-NAME-PORT.service does",
		Annotations: map[string]string{inner: "true"},
		Long: `Wait until the app of the running pod NAME listens at its port PORT, enter the pod's network and become
systemd-socket-proxyd, as nobody, with the sockets that systemd passed. The units that run it are made of ports with
"activate" in the pod file. If the pod ends before, the connections that wait are closed.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := a.needRoot(); err != nil {
				return err
			}
			return exactArgs(2, "the name of a declared pod and of its port")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			journal.SetField(a.log, journal.KeyPodName, args[0])
			pods, _, err := a.pods()
			if err != nil {
				return err
			}
			err = proxy.Run(cmd.Context(), proxy.Options{Name: args[0], Port: args[1], IdleTime: idle, Pods: pods,
				Listeners: sys.ListenFDs(os.Getenv), Release: a.Signals.Release, Environ: a.Environ,
				// a unit that is about to end ends the proxy too, which then says whether connections may wait for the next
				Starting: func(ctx context.Context) bool {
					return slices.Contains([]string{"activating", "active", "reloading", "deactivating"}, podUnit(ctx, args[0]).ActiveState)
				},
				Restarts: func(ctx context.Context) bool {
					restart := podUnit(ctx, args[0]).Restart
					return restart != "" && restart != "no"
				}})
			return fmt.Errorf("port %q of pod %q: %w", args[1], args[0], err)
		},
	}
	cmd.Flags().StringVar(&idle, "idle-time", "", "end after this `time` without connections, a time span of systemd")
	return cmd
}

// podUnit is what systemd says of a declared pod's unit, nothing if it does not
// answer. No program is run for that: the service manager, when it stops this
// process, would end that as well.
func podUnit(ctx context.Context, pod string) systemd.State {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m, err := systemd.Connect(ctx)
	if err != nil {
		return systemd.State{}
	}
	defer m.Close()
	st, err := m.State(ctx, podfile.UnitName(pod))
	if err != nil {
		return systemd.State{}
	}
	return st
}

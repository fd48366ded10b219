package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/sys"
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
				Starting: func(ctx context.Context) bool {
					return slices.Contains([]string{"activating", "active", "reloading"}, unitProperty(ctx, "ActiveState", args[0]))
				},
				Restarts: func(ctx context.Context) bool { return unitProperty(ctx, "Restart", args[0]) != "no" }})
			return fmt.Errorf("port %q of pod %q: %w", args[1], args[0], err)
		},
	}
	cmd.Flags().StringVar(&idle, "idle-time", "", "end after this `time` without connections, a time span of systemd")
	return cmd
}

// unitProperty asks systemd about a declared pod's unit; what it does not
// answer counts as "no".
func unitProperty(ctx context.Context, name, pod string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--value", "-p", name, "--", podfile.UnitName(pod)).Output()
	if err != nil {
		return "no"
	}
	return strings.TrimSpace(string(out))
}

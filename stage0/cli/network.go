package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/stage0/handoff"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/pod"
)

func (a *app) networkCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "network", Short: "List networks and check those of a pod"}
	a.group(cmd)
	cmd.AddCommand(a.networkListCmd(), a.networkCheckCmd())
	return cmd
}

func (a *app) networkListCmd() *cobra.Command {
	var noLegend bool
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List the networks that pods can be put into", Args: exactArgs(0, "no arguments"),
		Long: "List the networks that pods can be put into, in the order of their interfaces: those of net.d and the built-in ones, with the running pods in them.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			if err := a.needRoot(); err != nil {
				return err
			}
			nets, err := a.configuredNetworks(cmd.Context())
			if err != nil {
				return err
			}
			if format != "" {
				return printJSON(a.Stdout, format, nets)
			}
			w := table(a.Stdout)
			if !noLegend {
				fmt.Fprintln(w, "NAME\tTYPE\tSUBNET\tFILE\tPODS")
			}
			for _, n := range nets {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, strings.Join(n.Types, ","), dash(strings.Join(n.Subnets, ",")), orElse(n.File, "(built in)"), dash(strings.Join(n.Pods, ",")))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&noLegend, "no-legend", false, "no header line")
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of a table")
	return cmd
}

func dash(s string) string { return orElse(s, "-") }

// listedNetwork is a configured network with the pods in it.
type listedNetwork struct {
	abi.ConfiguredNetwork
	Pods []string `json:"pods"`
}

// configuredNetworks asks the default stage1, which alone knows the rules.
func (a *app) configuredNetworks(ctx context.Context) ([]listedNetwork, error) {
	st, err := a.stores()
	if err != nil {
		return nil, err
	}
	f, err := a.fetcher(st, image.PullNew)
	if err != nil {
		return nil, err
	}
	img, err := f.FindStage1(ctx, image.Stage1Options{})
	if err != nil {
		return nil, err
	}
	t, err := st.trees.Render(ctx, img.Key)
	if err != nil {
		return nil, fmt.Errorf("unpacking the stage1 image: %w", err)
	}
	m, err := t.Manifest()
	if err != nil {
		return nil, err
	}
	var nets []listedNetwork
	if err := handoff.Network(ctx, "/", t.Rootfs(), m, abi.Network{Debug: a.debug, LocalConfig: a.localConfig}, &nets); err != nil {
		return nil, fmt.Errorf("listing networks: %w", err)
	}
	pods, _, err := a.pods()
	if err != nil {
		return nil, err
	}
	all, err := pods.List()
	for _, d := range all {
		if d.State == pod.Running {
			for _, in := range d.Networks() {
				if i := slices.IndexFunc(nets, func(n listedNetwork) bool { return n.Name == in.NetName }); i >= 0 {
					nets[i].Pods = append(nets[i].Pods, orElse(d.DeclaredName(), d.UUID[:8]))
				}
			}
		}
		d.Close()
	}
	for i := range nets {
		slices.Sort(nets[i].Pods)
		if nets[i].Pods == nil {
			nets[i].Pods = []string{}
		}
	}
	return nets, err
}

func (a *app) networkCheckCmd() *cobra.Command {
	var format, uuidFile string
	cmd := &cobra.Command{
		Use: "check UUID|NAME", Short: "Check the networks of a running pod",
		Long: `Check whether what the networks of a running pod made is still there: its namespace, interfaces, addresses, and what
plugins find out themselves. Nothing is changed. A network that is not as it was is a failure.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			if err := a.needRoot(); err != nil {
				return err
			}
			d, err := a.onePod(cmd, args, uuidFile)
			if err != nil {
				return err
			}
			defer d.Close()
			if d.State != pod.Running {
				return fmt.Errorf("pod %s is not running but %s", d.UUID, d.State)
			}
			t, m, err := a.stage1Of(d)
			if err != nil {
				return err
			}
			states := []abi.NetworkState{}
			if err := handoff.Network(cmd.Context(), d.Dir(), t.Rootfs(), m, abi.Network{Debug: a.debug, LocalConfig: a.localConfig, Check: d.UUID}, &states); err != nil {
				return fmt.Errorf("checking the networks of pod %s: %w", d.UUID, err)
			}
			failed := 0
			w := table(a.Stdout)
			for _, s := range states {
				if s.State == abi.NetworkFailed {
					failed++
				}
				fmt.Fprintln(w, strings.TrimRight(strings.Join([]string{s.Network, s.Interface, s.State, s.Message}, "\t"), "\t"))
			}
			if format != "" {
				err = printJSON(a.Stdout, format, states)
			} else {
				err = w.Flush()
			}
			if failed > 0 {
				err = errors.Join(err, fmt.Errorf("%d of the pod's networks are not as they were when it was started; a restart of the pod makes them anew", failed))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`json` or json-pretty instead of lines")
	cmd.Flags().StringVar(&uuidFile, "uuid-file", "", "read the pod's UUID from this `FILE`")
	return cmd
}

package cli

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/appc/spec/schema"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
)

func (a *app) configCmd() *cobra.Command {
	var pretty bool
	cmd := &cobra.Command{
		Use: "config", Short: "Print the merged configuration", Args: exactArgs(0, "no arguments"),
		Long: "Print the configuration of all layers as one JSON object. Secrets are printed in clear.",
		RunE: func(*cobra.Command, []string) error {
			c, err := a.config()
			if err != nil {
				return err
			}
			b, err := c.JSON(pretty)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Stdout, "%s\n", b)
			return nil
		},
	}
	cmd.Flags().BoolVar(&pretty, "pretty-print", true, "indent")
	return cmd
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactArgs(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(a.Stdout, "rkt Version: %s\nappc Version: %s\nGo Version: %s\nGo OS/Arch: %s/%s\nFeatures: +SYSTEMD\n",
				buildinfo.Version, schema.AppContainerVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

func (a *app) completionCmd(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a completion script for bash, zsh or fish",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("completion takes the name of a shell: bash, zsh or fish")
			}
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.Stdout)
			case "fish":
				return root.GenFishCompletion(a.Stdout, true)
			}
			return fmt.Errorf("no completion for the shell %q: bash, zsh and fish are known", args[0])
		},
	}
}

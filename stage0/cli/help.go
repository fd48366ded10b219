package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
)

// printHelp writes a command's help in the sections that users of rkt know.
func printHelp(w io.Writer, c *cobra.Command) {
	section := func(title string) { fmt.Fprintf(w, "%s:\n", title) }
	section("NAME")
	fmt.Fprintf(w, "\t%s - %s\n", c.CommandPath(), c.Short)
	section("\nUSAGE")
	fmt.Fprintf(w, "\t%s\n", strings.TrimSuffix(c.UseLine(), " [flags]"))
	if !c.HasParent() {
		section("\nVERSION")
		fmt.Fprintf(w, "\t%s\n", buildinfo.Version)
	}
	if c.HasAvailableSubCommands() {
		section("\nCOMMANDS")
		t := tabwriter.NewWriter(w, 0, 8, 1, '\t', 0)
		listCommands(t, c, "")
		_ = t.Flush() // an error shows at the next write to w
	}
	if c.Long != "" {
		section("\nDESCRIPTION")
		for line := range strings.SplitSeq(strings.TrimRight(c.Long, "\n"), "\n") {
			fmt.Fprintln(w, strings.TrimRight("\t"+line, "\t"))
		}
	}
	printFlags(w, "OPTIONS", c.NonInheritedFlags())
	printFlags(w, "GLOBAL OPTIONS", c.InheritedFlags())
}

// inner marks commands that units run: they have a manual page, and are not
// among the commands that people are shown.
const inner = "inner"

func listCommands(w io.Writer, c *cobra.Command, prefix string) {
	for _, s := range c.Commands() {
		if !s.IsAvailableCommand() && s.Name() != "help" || s.Annotations[inner] != "" {
			continue
		}
		if s.HasAvailableSubCommands() {
			listCommands(w, s, prefix+s.Name()+" ")
			continue
		}
		fmt.Fprintf(w, "\t%s%s\t%s\n", prefix, s.Name(), s.Short)
	}
}

func printFlags(w io.Writer, title string, f *pflag.FlagSet) {
	if !f.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	t := tabwriter.NewWriter(w, 0, 8, 1, '\t', 0)
	f.VisitAll(func(fl *pflag.Flag) {
		if fl.Hidden || fl.Deprecated != "" {
			return
		}
		name := "--" + fl.Name
		if fl.Shorthand != "" {
			name = "-" + fl.Shorthand + ", " + name
		}
		_, usage := pflag.UnquoteUsage(fl)
		def := fl.DefValue
		switch fl.Value.Type() {
		case "string", "stringArray", "stringSlice":
			def = fmt.Sprintf("%q", strings.TrimSuffix(strings.TrimPrefix(def, "["), "]"))
		}
		if fl.NoOptDefVal != "" && fl.Value.Type() != "bool" {
			if def == `""` {
				def = fmt.Sprintf("%q", fl.NoOptDefVal)
			} else if !strings.HasPrefix(def, `"`) {
				def = fmt.Sprintf("%q", def)
			}
			name += "[=" + def + "]"
		} else {
			name += "=" + def
		}
		fmt.Fprintf(t, "\t%s\t%s\n", name, usage)
	})
	_ = t.Flush() // an error shows at the next write to w
}

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rkt-systemd/rkt/internal/buildinfo"
)

// docgenCmd writes the manual pages of all commands: the build runs it, so
// that page and --help cannot differ.
func (a *app) docgenCmd(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "docgen", Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] != "man" {
				return errors.New("usage: rkt docgen man DIR")
			}
			if err := os.MkdirAll(args[1], 0o755); err != nil {
				return err
			}
			return eachCommand(root, func(c *cobra.Command) error {
				name := strings.ReplaceAll(c.CommandPath(), " ", "-")
				return os.WriteFile(filepath.Join(args[1], name+".1"), manPage(c, name), 0o644)
			})
		},
	}
}

func eachCommand(c *cobra.Command, f func(*cobra.Command) error) error {
	if c.Hidden || c.Name() == "help" {
		return nil
	}
	if err := f(c); err != nil {
		return err
	}
	for _, s := range c.Commands() {
		if err := eachCommand(s, f); err != nil {
			return err
		}
	}
	return nil
}

// roff escapes text for man(7).
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

func manPage(c *cobra.Command, name string) []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`.TH "%s" "1" "" "rkt %s" "rkt - App Container runtime"`, strings.ToUpper(roff(name)), buildinfo.Version)
	p(".SH NAME\n%s \\- %s", roff(name), roff(c.Short))
	p(".SH SYNOPSIS\n.B %s", roff(c.UseLine()))
	if c.Long != "" {
		p(".SH DESCRIPTION")
		for line := range strings.SplitSeq(c.Long, "\n") {
			switch {
			case line == "":
				p(".PP")
			case strings.HasPrefix(line, "  "):
				p(".br\n%s", roff(strings.TrimSpace(line)))
			default:
				p("%s", roff(line))
			}
		}
	}
	if subs := c.Commands(); len(subs) > 0 {
		p(".SH COMMANDS")
		for _, s := range subs {
			if !s.Hidden && s.Name() != "help" {
				p(".TP\n.BR %s (1)\n%s", roff(strings.ReplaceAll(s.CommandPath(), " ", "-")), roff(s.Short))
			}
		}
	}
	options(p, "OPTIONS", c.NonInheritedFlags())
	options(p, "GLOBAL OPTIONS", c.InheritedFlags())
	p(".SH EXIT STATUS")
	p("0 on success, 254 on every failure that rkt detects. A pod that was started gives its own status.")
	if c.HasParent() {
		p(".SH SEE ALSO\n.BR rkt (1)")
	} else {
		p(".SH SEE ALSO\n.BR systemctl (1),\n.BR machinectl (1),\n.BR journalctl (1)")
	}
	return b.Bytes()
}

func options(p func(string, ...any), title string, f *pflag.FlagSet) {
	first := true
	f.VisitAll(func(fl *pflag.Flag) {
		if fl.Hidden || fl.Deprecated != "" || fl.Name == "help" {
			return
		}
		if first {
			p(".SH %s", title)
			first = false
		}
		arg, usage := pflag.UnquoteUsage(fl)
		line := "--" + fl.Name
		if fl.Shorthand != "" {
			line = "-" + fl.Shorthand + ", " + line
		}
		switch {
		case fl.NoOptDefVal != "" && arg != "":
			line += "[=" + arg + "]"
		case arg != "":
			line += "=" + arg
		}
		p(".TP\n.B %s\n%s", roff(line), roff(usage))
	})
}

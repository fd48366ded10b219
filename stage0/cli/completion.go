package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/stage0/declared"
)

// completions lets shells complete the pods that commands take, by what their
// usage lines say: UUID and NAME.
func (a *app) completions(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		a.completions(c)
	}
	_, usage, _ := strings.Cut(cmd.Use, " ")
	usage = strings.TrimPrefix(usage, "[--app=NAME] ")
	many := strings.Contains(usage, "NAME…") || strings.Contains(usage, "[NAME|")
	var names func() []string
	switch {
	case strings.Contains(usage, "UUID"):
		names = a.podWords
	case cmd.Parent() != nil && cmd.Parent().Name() == "pod" && strings.Contains(usage, "NAME"):
		names = declaredWords
	default:
		return
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if strings.Contains(usage, "FILE") || strings.Contains(usage, "CMD") {
		directive = cobra.ShellCompDirectiveDefault
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0 || many:
			return starting(names(), word, args), directive
		case len(args) == 1 && strings.Contains(usage, "[GENERATION]"):
			return starting(a.generationWords(args[0]), word, nil), directive
		}
		return nil, directive
	}
}

// starting are the words that begin like this one, without those given already.
func starting(words []string, prefix string, given []string) []string {
	return slices.DeleteFunc(words, func(w string) bool {
		name, _, _ := strings.Cut(w, "\t")
		return !strings.HasPrefix(name, prefix) || slices.Contains(given, name)
	})
}

// declaredWords are the declared pods, with the files that declare them.
func declaredWords() []string {
	x, err := podfile.Scan(podfile.SearchOptions{})
	if err != nil {
		return nil // there is nobody to tell
	}
	var out []string
	for _, e := range x.Entries() {
		names := []string{e.Name}
		switch {
		case e.Bad != "" || e.Masked:
			continue
		case e.Template:
			names = x.Instances(e.Name)
		}
		for _, n := range names {
			out = append(out, n+"\t"+e.Path)
		}
	}
	return out
}

// podWords are the declared pods and the UUIDs of all pods.
func (a *app) podWords() []string {
	a.setup("completion")
	out := declaredWords()
	pods, _, err := a.pods()
	if err != nil {
		return out
	}
	all, _ := pods.List() // what can be read of them
	for _, d := range all {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s\t%s %s", d.UUID, d.State, d.DeclaredName())))
		d.Close()
	}
	return out
}

// generationWords are the generations of a declared pod.
func (a *app) generationWords(name string) []string {
	dir, err := a.dataDir()
	if err != nil {
		return nil
	}
	d, err := declared.Open(dir, name)
	if err != nil {
		return nil
	}
	gs, _ := d.Generations() // those that can be read
	var out []string
	for _, g := range gs {
		out = append(out, strconv.Itoa(g.Number)+"\t"+string(g.State))
	}
	return out
}

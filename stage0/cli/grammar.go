package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rkt-systemd/rkt/internal/stdio"
)

// appArgs are an image on the command line and what follows it.
type appArgs struct {
	image string
	args  []string
	dash  bool // "--" was given

	name, exec, user, group, workingDir, signature string
	set                                            map[string]bool
	readOnly                                       bool
	groups                                         []int
	mounts                                         []schema.Mount
	owners                                         map[string]string // of volumes of the app alone
	environment                                    [][2]string
	annotations, userAnnotations, userLabels       [][2]string
	memory, cpu                                    string
	cpuShares, oomScore                            int
	capsRetain, capsRemove                         []string
	seccomp                                        *seccompSet
}

// appFlag applies a flag's value to the image before it.
type appFlag struct {
	name, arg, usage string
	apply            func(a *appArgs, v string) error
	repeatable       bool
}

func appFlags() []appFlag {
	str := func(p func(a *appArgs) *string) func(*appArgs, string) error {
		return func(a *appArgs, v string) error { *p(a) = v; return nil }
	}
	pairs := func(p func(a *appArgs) *[][2]string) func(*appArgs, string) error {
		return func(a *appArgs, v string) error {
			kv, err := parsePair(v)
			if err == nil {
				*p(a) = append(*p(a), kv)
			}
			return err
		}
	}
	num := func(p func(a *appArgs) *int) func(*appArgs, string) error {
		return func(a *appArgs, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil {
				return fmt.Errorf("%q is not a number", v)
			}
			*p(a) = n
			return nil
		}
	}
	caps := func(p func(a *appArgs) *[]string) func(*appArgs, string) error {
		return func(a *appArgs, v string) error {
			for c := range strings.SplitSeq(v, ",") {
				*p(a) = append(*p(a), c)
			}
			return nil
		}
	}
	stream := func(name string) appFlag {
		modes := "log, null, stream or tty"
		if name == "stdin" {
			modes = "null, stream or tty"
		}
		return appFlag{name, "MODE", name + " of the app: " + modes + "; see rkt help attach", func(a *appArgs, v string) error {
			if msg := stdio.Check(name, v); msg != "" {
				return errors.New(msg)
			}
			a.annotations = append(a.annotations, [2]string{stdio.Annotation(name), v})
			return nil
		}, false}
	}
	return []appFlag{
		{"name", "NAME", "name of the app", str(func(a *appArgs) *string { return &a.name }), false},
		{"exec", "PATH", "program to run instead of the image's", str(func(a *appArgs) *string { return &a.exec }), false},
		{"user", "USER", "user: number, name, or path whose owner counts", str(func(a *appArgs) *string { return &a.user }), false},
		{"group", "GROUP", "group: number, name, or path", str(func(a *appArgs) *string { return &a.group }), false},
		{"working-dir", "DIR", "working directory", str(func(a *appArgs) *string { return &a.workingDir }), false},
		{"signature", "FILE", "detached signature of the image", str(func(a *appArgs) *string { return &a.signature }), false},
		{"supplementary-gids", "GID,…", "supplementary groups", func(a *appArgs, v string) error {
			a.groups = nil
			for g := range strings.SplitSeq(v, ",") {
				n, err := strconv.ParseUint(g, 10, 31)
				if err != nil {
					return fmt.Errorf("%q is not a group number", g)
				}
				a.groups = append(a.groups, int(n))
			}
			return nil
		}, false},
		{"readonly-rootfs", "BOOL", "make the root file system read-only", func(a *appArgs, v string) (err error) {
			if a.readOnly, err = strconv.ParseBool(v); err != nil {
				err = fmt.Errorf("%q is neither true nor false", v)
			}
			return err
		}, false},
		{"mount", "volume=NAME,target=PATH", "mount a volume in the app; before the first image: in all", func(a *appArgs, v string) error {
			m, err := parseMount(v)
			if err == nil {
				a.mounts = append(a.mounts, m)
			}
			return err
		}, true},
		{"environment", "NAME=VALUE", "environment variable of the app", pairs(func(a *appArgs) *[][2]string { return &a.environment }), true},
		{"annotation", "NAME=VALUE", "annotation of the app", pairs(func(a *appArgs) *[][2]string { return &a.annotations }), true},
		{"user-annotation", "NAME=VALUE", "user annotation of the app", pairs(func(a *appArgs) *[][2]string { return &a.userAnnotations }), true},
		{"user-label", "NAME=VALUE", "user label of the app", pairs(func(a *appArgs) *[][2]string { return &a.userLabels }), true},
		{"memory", "QUANTITY", "memory limit: 64Mi, 1G", str(func(a *appArgs) *string { return &a.memory }), false},
		{"cpu", "QUANTITY", "processor limit: 500m is half a processor", str(func(a *appArgs) *string { return &a.cpu }), false},
		{"cpu-shares", "N", "relative processor weight, 1024 is usual", num(func(a *appArgs) *int { return &a.cpuShares }), false},
		{"oom-score-adj", "N", "-1000 to 1000", num(func(a *appArgs) *int { return &a.oomScore }), false},
		{"caps-retain", "CAP,…", "capabilities to keep, all others are dropped", caps(func(a *appArgs) *[]string { return &a.capsRetain }), false},
		{"caps-remove", "CAP,…", "capabilities to drop from the default set", caps(func(a *appArgs) *[]string { return &a.capsRemove }), false},
		stream("stdin"), stream("stdout"), stream("stderr"),
		{"seccomp", "mode=retain|remove[,errno=E…],NAME,…", "system calls to allow, or to deny; instead of the image's", func(a *appArgs, v string) (err error) {
			a.seccomp, err = parseSeccomp(v)
			return err
		}, false},
	}
}

// seccompSet is the value of --seccomp.
type seccompSet struct {
	mode, errno string
	set         []string
}

func parseSeccomp(v string) (*seccompSet, error) {
	s := &seccompSet{}
	for item := range strings.SplitSeq(v, ",") {
		k, val, ok := strings.Cut(item, "=")
		switch {
		case !ok && item == "":
			return nil, fmt.Errorf("%q has an empty name", v)
		case !ok:
			s.set = append(s.set, item)
		case k == "mode" && s.mode == "" && (val == "retain" || val == "remove"):
			s.mode = val
		case k == "mode":
			return nil, fmt.Errorf("mode is %q, want one of retain and remove", val)
		case k == "errno" && s.errno == "" && val != "":
			s.errno = val
		default:
			return nil, fmt.Errorf("unknown or repeated key %q in %q", k, v)
		}
	}
	if s.mode == "" {
		return nil, fmt.Errorf("%q lacks mode=retain or mode=remove", v)
	}
	if len(s.set) == 0 {
		return nil, fmt.Errorf("%q names no system call", v)
	}
	return s, nil
}

// parsePair reads NAME=VALUE.
func parsePair(v string) ([2]string, error) {
	k, val, ok := strings.Cut(v, "=")
	if !ok || k == "" {
		return [2]string{}, fmt.Errorf("%q is not NAME=VALUE", v)
	}
	return [2]string{k, val}, nil
}

func parseMount(v string) (schema.Mount, error) {
	m := schema.Mount{}
	seen := map[string]bool{}
	for kv := range strings.SplitSeq(v, ",") {
		k, val, ok := strings.Cut(kv, "=")
		if !ok || seen[k] {
			return m, fmt.Errorf("%q is not volume=NAME,target=PATH", v)
		}
		seen[k] = true
		switch k {
		case "volume":
			n, err := types.NewACName(val)
			if err != nil {
				return m, fmt.Errorf("volume %q: %w", val, err)
			}
			m.Volume = *n
		case "target":
			m.Path = val
		default:
			return m, fmt.Errorf("unknown key %q in %q", k, v)
		}
	}
	if m.Volume == "" || m.Path == "" {
		return m, fmt.Errorf("%q needs both volume= and target=", v)
	}
	return m, nil
}

// grammar is a command line of images, each with flags and arguments.
type grammar struct {
	apps []*appArgs
	// all holds mounts given before the first image.
	all appArgs
}

// parseImages parses the arguments of a command that takes images: pod and
// global flags anywhere, app flags after their image, "--" and the app's
// arguments up to "---". own are the app flags the command knows.
func parseImages(cmd *cobra.Command, args []string, own []appFlag, dashAllowed bool) (*grammar, error) {
	g := &grammar{}
	byName := map[string]appFlag{}
	for _, f := range own {
		byName[f.name] = f
	}
	for alias, name := range map[string]string{"cap-retain": "caps-retain", "cap-remove": "caps-remove"} {
		if f, ok := byName[name]; ok {
			byName[alias] = f
		}
	}
	fs := cmd.Flags()
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			n, err := g.dash(args, dashAllowed)
			if err != nil {
				return nil, err
			}
			args = args[n:]
		case word == "---" || word == "":
		case !strings.HasPrefix(word, "-"):
			g.apps = append(g.apps, &appArgs{image: word, set: map[string]bool{}})
		default:
			name, value, has := strings.Cut(strings.TrimPrefix(word, "--"), "=")
			if !strings.HasPrefix(word, "--") {
				return nil, fmt.Errorf("unknown flag %q: flags begin with two dashes", word)
			}
			if name == "help" {
				return nil, pflag.ErrHelp
			}
			app, isApp := byName[name]
			pod := fs.Lookup(name)
			if !isApp && pod == nil {
				return nil, fmt.Errorf("unknown flag --%s", name)
			}
			if !has {
				if pod != nil && pod.NoOptDefVal != "" {
					value = pod.NoOptDefVal
				} else if len(args) > 0 {
					value, args = args[0], args[1:]
				} else {
					return nil, fmt.Errorf("flag --%s needs a value", name)
				}
			}
			if isApp {
				if err := g.apply(app, value); err != nil {
					return nil, fmt.Errorf("--%s: %w", name, err)
				}
			} else if err := fs.Set(name, value); err != nil {
				return nil, fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	for _, a := range g.apps {
		a.mounts = append(a.mounts, g.all.mounts...)
	}
	return g, nil
}

// interactive checks that the images can be run with --interactive.
func (g *grammar) interactive() error {
	if len(g.apps) > 1 {
		return fmt.Errorf("--interactive takes one image, not %d", len(g.apps))
	}
	for _, a := range g.apps {
		for _, s := range stdio.Streams() {
			if a.set[s] {
				return fmt.Errorf("--interactive and --%s exclude each other", s)
			}
		}
	}
	return nil
}

func (g *grammar) dash(rest []string, allowed bool) (int, error) {
	if !allowed {
		return 0, errors.New("arguments after -- are not taken here")
	}
	if len(g.apps) == 0 {
		return 0, errors.New("-- stands before the first image")
	}
	last := g.apps[len(g.apps)-1]
	if last.dash {
		return 0, fmt.Errorf("-- is given twice for image %q", last.image)
	}
	last.dash = true
	for i, w := range rest {
		if w == "---" {
			return i + 1, nil
		}
		last.args = append(last.args, w)
	}
	return len(rest), nil
}

func (g *grammar) apply(f appFlag, value string) error {
	if len(g.apps) == 0 {
		if f.name == "mount" {
			return f.apply(&g.all, value)
		}
		return errors.New("must follow an image")
	}
	a := g.apps[len(g.apps)-1]
	if a.set[f.name] && (f.name == "exec" || f.name == "signature") {
		return fmt.Errorf("is given twice for image %q", a.image)
	}
	a.set[f.name] = true
	return f.apply(a, value)
}

// imagesUsage appends the app flags to a command's help.
func imagesUsage(cmd *cobra.Command, own []appFlag) {
	cmd.DisableFlagParsing = true
	var b strings.Builder
	b.WriteString(cmd.Long)
	b.WriteString("\n\nFlags that follow an image and belong to it:\n")
	for _, f := range own {
		fmt.Fprintf(&b, "  --%-32s %s\n", f.name+"="+f.arg, f.usage)
	}
	cmd.Long = b.String()
}

// parsed runs f with the images of the command line, or prints help.
func parsed(own []appFlag, dash bool, f func(cmd *cobra.Command, g *grammar) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		g, err := parseImages(cmd, args, own, dash)
		if errors.Is(err, pflag.ErrHelp) {
			return cmd.Help()
		}
		if err != nil {
			return err
		}
		// global flags were parsed only now
		if pre := cmd.Root().PersistentPreRunE; pre != nil {
			if err := pre(cmd, nil); err != nil {
				return err
			}
		}
		return f(cmd, g)
	}
}

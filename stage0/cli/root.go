// Package cli is rkt's command line: one file per verb, each turning options
// into one call of the domain packages and the outcome into text or JSON.
// stdout carries results, stderr everything else.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/buildinfo"
	"github.com/rkt-systemd/rkt/internal/interrupt"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage0/config"
	"github.com/rkt-systemd/rkt/stage0/image"
	"github.com/rkt-systemd/rkt/stage0/keystore"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/store"
	"github.com/rkt-systemd/rkt/stage0/tree"
)

// System is what the command line sees of the process it runs in.
type System struct {
	Args    []string // without the program
	Environ []string
	Stdin   *os.File
	Stdout  io.Writer
	Stderr  io.Writer
	PID     int
	EUID    int
	// Terminal says whether standard error is one.
	Terminal bool
	// Signals are given back before rkt becomes a pod; may be nil.
	Signals *interrupt.Watcher
}

// Getenv looks a variable up.
func (s System) Getenv(name string) string {
	for _, kv := range s.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// app is one invocation: global flags and what commands open on demand.
type app struct {
	System
	log *logrus.Logger

	debug           bool
	dir             string
	systemConfig    string
	localConfig     string
	userConfig      string
	insecureOptions string
	trustHTTPS      bool
	// insecureGiven says that --insecure-options was given: it wins over pod files.
	insecureGiven bool
	// serving says that the output goes to somebody who may see less than this process.
	serving bool

	conf     *config.Config
	progress image.Progress
}

// hinted is an error with one thing to do about it.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

func hint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// exitError ends rkt with a status and without a message.
type exitError struct{ status int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// errSilent means that everything was said already.
var errSilent = &exitError{abi.ExitFailure}

// Main runs rkt and returns its exit status: 0, 254 for every failure rkt
// detects, 2 without a command. A pod's own status never comes through here,
// since rkt has become the pod by then.
func Main(ctx context.Context, s System) int {
	s.Args = decodeWords(s.Args)
	// sockets of a pod's unit are for the pod, not for the programs that fetch its images
	sys.HoldFDs(sys.ListenFDs(os.Getenv))
	a := &app{System: s}
	defer func() { journal.Settle(a.log) }()
	root := a.root()
	root.SetArgs(s.Args)
	root.SetOut(s.Stdout)
	root.SetErr(s.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.status
	}
	a.setup(cmd.Name())
	a.report(err)
	return abi.ExitFailure
}

func (a *app) report(err error) {
	a.log.Error(err)
	if text := hintOf(err); text != "" {
		for line := range strings.SplitSeq(text, "\n") {
			fmt.Fprintf(a.Stderr, "hint: %s\n", line)
		}
	}
}

func (a *app) setup(component string) {
	if a.log == nil {
		a.log = journal.NewLogger(component, a.Getenv("JOURNAL_STREAM"), a.debug)
		journal.SetField(a.log, journal.KeyStage, "stage0")
	}
}

func (a *app) root() *cobra.Command {
	cobra.EnablePrefixMatching = true
	root := &cobra.Command{
		Use:           "rkt",
		Short:         "App Container runtime: pods as systemd units",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.setup(cmd.Name())
			if a.dir != "" || cmd.Flags().Changed("dir") {
				if a.dir == "" {
					return errors.New("--dir must not be empty")
				}
				var err error
				if a.dir, err = filepath.Abs(a.dir); err != nil {
					return err
				}
			}
			return nil
		},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(a.Stderr, "rkt: no command given")
			if err := cmd.Help(); err != nil {
				return err
			}
			return &exitError{abi.ExitNoArgs}
		},
	}
	f := root.PersistentFlags()
	f.BoolVar(&a.debug, "debug", false, "print diagnostics")
	f.StringVar(&a.dir, "dir", "", "data `directory` (default: configuration, else "+buildinfo.DataDir+")")
	f.StringVar(&a.systemConfig, "system-config", buildinfo.LibDir, "vendor configuration `directory`")
	f.StringVar(&a.localConfig, "local-config", buildinfo.LocalConfig, "administrator's configuration `directory`")
	f.StringVar(&a.userConfig, "user-config", "", "user's configuration `directory`")
	f.StringVar(&a.insecureOptions, "insecure-options", "none",
		"comma-separated `list` of checks to switch off: none, image, tls, http, pubkey, capabilities, paths, seccomp, all-fetch, all-run, all")
	f.BoolVar(&a.trustHTTPS, "trust-keys-from-https", false, "accept signing keys that were discovered over https without asking")
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { printHelp(a.Stdout, c) })
	root.AddCommand(a.fetchCmd(), a.runCmd(), a.prepareCmd(), a.runPreparedCmd(), a.listCmd(), a.statusCmd(), a.stopCmd(), a.rmCmd(),
		a.gcCmd(), a.enterCmd(), a.execCmd(), a.exportCmd(), a.attachCmd(), a.appCmd(), a.catManifestCmd(), a.imageCmd(), a.trustCmd(), a.configCmd(), a.versionCmd(), a.podCmd(), a.networkCmd(), a.logsCmd(),
		a.completionCmd(root), a.docgenCmd(root))
	a.completions(root)
	return root
}

func didYouMean(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		return fmt.Sprintf("did you mean %s? ", strings.Join(s, ", "))
	}
	return ""
}

// exactArgs is cobra's, with one specific line.
func exactArgs(n int, usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s takes %s; see rkt help %s", cmd.Name(), usage, strings.TrimPrefix(cmd.CommandPath(), "rkt "))
		}
		return nil
	}
}

// group makes a command that only has others below it say so.
func (a *app) group(cmd *cobra.Command) {
	name := cmd.Name()
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q for %s; rkt help %s lists them", args[0], name, name)
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		fmt.Fprintf(a.Stderr, "%s: no command given\n", name)
		if err := cmd.Help(); err != nil {
			return err
		}
		return &exitError{abi.ExitNoArgs}
	}
}

// needRoot comes before every other check of a command.
func (a *app) needRoot() error {
	if a.EUID != 0 {
		return errors.New("cannot run as unprivileged user")
	}
	return nil
}

func (a *app) config() (*config.Config, error) {
	if a.conf != nil {
		return a.conf, nil
	}
	c, err := config.Load(config.Dirs{System: a.systemConfig, Local: a.localConfig, User: a.userConfig})
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	a.conf = c
	return c, nil
}

// dataDir is the data directory with links resolved; it need not exist.
func (a *app) dataDir() (string, error) {
	dir := a.dir
	if dir == "" {
		c, err := a.config()
		if err != nil {
			return "", err
		}
		dir = c.DataDir()
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("data directory %q: %w", dir, err)
	}
	return dir, nil
}

func (a *app) pods() (*pod.Pods, string, error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, "", err
	}
	return pod.Open(dir), dir, nil
}

// stores are what image commands work with.
type stores struct {
	dir   string
	store *store.Store
	trees *tree.Trees
}

func (a *app) stores() (*stores, error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	s, err := store.Open(filepath.Join(dir, "cas"), store.Options{})
	if err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	t, err := tree.Open(s, tree.Options{Warn: func(text string) { a.log.Warn(text) }})
	if err != nil {
		return nil, err
	}
	return &stores{dir, s, t}, nil
}

func (a *app) insecure() (image.Insecure, error) { return image.ParseInsecure(a.insecureOptions) }

func (a *app) fetcher(st *stores, policy image.PullPolicy) (*image.Fetcher, error) {
	insecure, err := a.insecure()
	if err != nil {
		return nil, err
	}
	return a.fetcherWith(st, policy, insecure)
}

// fetcherWith makes a fetcher. All of one invocation share what they show of
// their progress.
func (a *app) fetcherWith(st *stores, policy image.PullPolicy, insecure image.Insecure) (*image.Fetcher, error) {
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	if a.progress == nil {
		a.progress = image.NewProgress(a.Stderr, a.Terminal, a.Getenv("NOTIFY_SOCKET"))
		a.log.SetOutput(image.LogWriter(a.progress, a.log.Out))
	}
	f := &image.Fetcher{Store: st.store, Keys: keystore.New(a.systemConfig, a.localConfig), Config: c, Insecure: insecure, Policy: policy,
		TrustKeysFromHTTPS: a.trustHTTPS, Progress: a.progress, Log: a.log, Ask: a.askKeys}
	if a.EUID == 0 && tree.SupportsOverlay(st.dir) == nil {
		f.Trees = st.trees
	}
	return f, nil
}

// findPod resolves a UUID, a prefix of one, or the name of a declared pod.
func (a *app) findPod(pods *pod.Pods, arg string) (*pod.Pod, error) {
	id, err := pods.Resolve(arg)
	if err != nil && podfile.CheckName(arg) == nil {
		if byName, e := pods.NewestOf(arg); e == nil {
			id, err = byName, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return pods.Get(id)
}

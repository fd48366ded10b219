package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rkt-systemd/rkt/internal/bus"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/systemd"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/units"
)

// detachOptions are those of a pod in a transient unit.
type detachOptions struct {
	detach     bool
	unit       string
	properties []string
}

func (o *detachOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.detach, "detach", false, "run the pod as a transient service; print its UUID when it is ready")
	f.StringVar(&o.unit, "unit", "", "`name` of that service (default rkt-run-RANDOM.service)")
	f.StringArrayVar(&o.properties, "property", nil, "`KEY=VALUE`: a setting of that service, as in a unit file: MemoryMax=1G, Restart=always")
}

// check tells what the options of run do not go with.
func (o *detachOptions) check(po *podOptions, so *startOptions) error {
	switch {
	case !o.detach && (o.unit != "" || len(o.properties) > 0):
		return errors.New("--unit and --property need --detach")
	case !o.detach:
		return nil
	case so.interactive:
		return errors.New("--detach and --interactive exclude each other; rkt attach or rkt enter UUID opens a terminal later")
	case po.inheritEnv:
		return errors.New("--detach and --inherit-env exclude each other: the service has an environment of its own; use --set-env")
	}
	return nil
}

// settings are those of rkt@.service, then those asked for.
func (o *detachOptions) settings() ([]systemd.Setting, error) {
	var out []systemd.Setting
	for _, s := range units.Pod() {
		out = append(out, systemd.Setting{Key: s.Key, Value: s.Value})
	}
	for _, p := range o.properties {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" || v == "" {
			return nil, fmt.Errorf("--property %q is not KEY=VALUE", p)
		}
		if why := orElse(podfile.Refused("unit", k), podfile.Refused("service", k)); why != "" {
			return nil, fmt.Errorf("--property %s=: a pod cannot have it: %s", k, why)
		}
		out = append(out, systemd.Setting{Key: k, Value: v})
	}
	return out, nil
}

// name of the unit.
func (o *detachOptions) name() (string, error) {
	if o.unit == "" {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		return "rkt-run-" + hex.EncodeToString(b[:]) + ".service", nil
	}
	name := o.unit
	if !strings.HasSuffix(name, ".service") {
		name += ".service"
	}
	switch {
	case !unitfile.IsUnitName(name):
		return "", fmt.Errorf("--unit %q is no name of a service", o.unit)
	case strings.HasPrefix(name, "rkt@"):
		return "", fmt.Errorf("--unit %q belongs to a declared pod", o.unit)
	}
	return name, nil
}

// detach has a transient service run what this command line says.
func (a *app) detach(ctx context.Context, o *detachOptions, description string) error {
	settings, err := o.settings()
	if err != nil {
		return err
	}
	unit, err := o.name()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	m, err := systemd.Connect(ctx)
	if err != nil {
		return hint(err, "--detach needs a host that runs systemd; without it, rkt run stays in the foreground")
	}
	defer m.Close()
	err = m.StartTransient(ctx, systemd.Service{
		Unit: unit, Description: description, WorkingDirectory: cwd, Settings: settings,
		ExecStart: systemd.Command{Argv: append([]string{self}, encodeWords(attached(a.Args))...)},
		// as rkt@.service: the pod's end is recorded, whatever it was
		ExecStopPost: systemd.Command{Argv: append([]string{self}, append(a.dirFlags(), "gc", "--mark-only")...), MayFail: true},
	})
	var job *systemd.JobError
	switch {
	case errors.Is(err, bus.ErrExists):
		return hint(fmt.Errorf("--unit: %w", err), "systemctl status %[1]s; if it has failed, systemctl reset-failed %[1]s", unit)
	case errors.As(err, &job):
		a.tail(ctx, unit)
		return hint(err, "journalctl -u %s", unit)
	case err != nil:
		return fmt.Errorf("starting a transient service: %w", err)
	}
	fmt.Fprintf(a.Stderr, "running as %s\n", unit)
	id, err := a.podOfUnit(ctx, m, unit)
	if err == nil {
		fmt.Fprintln(a.Stdout, id)
	}
	return err
}

// podOfUnit is the UUID of the pod that a unit runs, or has just run: systemd
// forgets a transient unit that has ended.
func (a *app) podOfUnit(ctx context.Context, m *systemd.Manager, unit string) (string, error) {
	s, err := m.State(ctx, unit)
	if err != nil {
		return "", err
	}
	if id, ok := pod.FromInvocation(s.Invocation); ok {
		return id, nil
	}
	pods, _, err := a.pods()
	if err != nil {
		return "", err
	}
	all, err := pods.List()
	id, newest := "", time.Time{}
	for _, d := range all {
		if d.Unit() == unit && d.Created().After(newest) {
			id, newest = d.UUID, d.Created()
		}
		d.Close()
	}
	if id == "" {
		return "", hint(errors.Join(fmt.Errorf("unit %s has ended, and its pod is gone", unit), err), "journalctl -u %s", unit)
	}
	return id, nil
}

// dirFlags are the global flags that say where rkt's files are.
func (a *app) dirFlags() []string {
	args := []string{"--local-config=" + a.localConfig, "--system-config=" + a.systemConfig}
	if a.dir != "" {
		args = append(args, "--dir="+a.dir)
	}
	return args
}

// attached is a command line without the flags of detaching. What follows "--"
// is an app's, up to "---".
func attached(args []string) []string {
	var out []string
	theirs := false
	for i := 0; i < len(args); i++ {
		w := args[i]
		switch {
		case theirs:
			theirs = w != "---"
		case w == "--":
			theirs = true
		case w == "--detach", strings.HasPrefix(w, "--detach="), strings.HasPrefix(w, "--unit="), strings.HasPrefix(w, "--property="):
			continue
		case w == "--unit", w == "--property":
			i++
			continue
		}
		out = append(out, w)
	}
	return out
}

// flagEncoded, as the first word, says that the others are encoded.
const flagEncoded = "--percent-encoded"

// encodeWords avoids what a service's command line gives a meaning to, such as
// "$", and semicolons, which systemd 252 writes into the file of a transient unit
// in a way that it does not read back after a daemon-reload.
func encodeWords(words []string) []string {
	if !slices.ContainsFunc(words, func(w string) bool { return strings.ContainsFunc(w, special) }) {
		return words
	}
	out := []string{flagEncoded}
	for _, w := range words {
		var b strings.Builder
		for i := range len(w) {
			if c := w[i]; special(rune(c)) {
				fmt.Fprintf(&b, "%%%02X", c)
			} else {
				b.WriteByte(c)
			}
		}
		out = append(out, b.String())
	}
	return out
}

func special(c rune) bool { return c < ' ' || c == 0x7f || strings.ContainsRune(`;$%\"'`, c) }

// decodeWords undoes encodeWords.
func decodeWords(words []string) []string {
	if len(words) == 0 || words[0] != flagEncoded {
		return words
	}
	var out []string
	for _, w := range words[1:] {
		if plain, err := url.PathUnescape(w); err == nil {
			w = plain
		}
		out = append(out, w)
	}
	return out
}

// tail shows what a unit that did not start has written.
func (a *app) tail(ctx context.Context, unit string) {
	cmd := exec.CommandContext(ctx, "journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=10", "--unit="+unit)
	cmd.Stdout, cmd.Stderr = a.Stderr, a.Stderr
	if err := cmd.Run(); err != nil {
		a.log.Warnf("the journal of %s cannot be shown: %v", unit, err)
	}
}

// ownUnit is the unit whose control group this process is in, or "".
func ownUnit() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			for p := path; p != "/" && p != "."; p = filepath.Dir(p) {
				if base := filepath.Base(p); strings.HasSuffix(base, ".service") && unitfile.IsUnitName(base) {
					return base
				}
			}
		}
	}
	return ""
}

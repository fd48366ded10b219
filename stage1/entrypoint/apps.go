package entrypoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
	"github.com/rkt-systemd/rkt/journal"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// AppAdd makes an app known to a running mutable pod: stage0 has put its tree
// into the pod and its name into the manifest; here follow volumes, filters, its
// record and its units. The app is not started.
func AppAdd(ctx context.Context, env Env, args []string) error {
	a, live, err := appCall(env, args)
	if err != nil {
		return err
	}
	defer live.Close()
	pod, err := podManifest()
	if err != nil {
		return err
	}
	ra := pod.Apps.Get(types.ACName(a.App))
	if ra == nil {
		return fmt.Errorf("the pod has no app %q", a.App)
	}
	l := place{live.Root(), live}
	if err := checkName(l, a.App); err != nil {
		return fmt.Errorf("app %q: %w", a.App, err)
	}
	run, unit, err := readConfig(a.UUID)
	if err != nil {
		return err
	}
	one := *pod
	one.Apps = schema.AppList{*ra}
	in := plan.Input{Run: run, Pod: &one, Images: map[string]*schema.ImageManifest{}, IDs: map[string]plan.IDs{}}
	if run.PrivateUsers != "" {
		if in.Facts.IDs, err = abi.ParseIDRange(run.PrivateUsers); err != nil {
			return err
		}
	}
	if err := loadApp(env, &in, &one.Apps[0], l, in.Facts.IDs); err != nil {
		return err
	}
	if in.Facts.PodDir, err = os.Getwd(); err != nil {
		return err
	}
	in.Facts.LogUnit = unit
	in.Facts.ResolvConf = hasContent(filepath.Join(l.root, podfs.ResolvConf))
	in.Facts.Hosts = exists(filepath.Join(podfs.NetDir, podfs.NetHosts))
	if err := isolation(in, &in.Facts); err != nil {
		return err
	}
	p, err := plan.App(in)
	if err != nil {
		return err
	}
	for _, w := range p.Warnings {
		env.Log.Warn(w)
	}
	if err := compileFilters(env, p, in.Facts.PodDir); err != nil {
		return err
	}
	p.Files = append(p.Files, plan.List(names(pod, "")))
	if err := applyTo(l, p, in.Facts.IDs, env.Log.Warnf); err != nil {
		return err
	}
	if err := supervisor(ctx, env, "daemon-reload"); err != nil {
		return err
	}
	for _, log := range p.Logs {
		if err := supervisor(ctx, env, "start", "log@"+log.App+".socket"); err != nil {
			return err
		}
		if err := lateLog(log, l.root); err != nil {
			return fmt.Errorf("opening the journal for app %q: %w", log.App, err)
		}
	}
	return nil
}

// checkName refuses names of the pod's own units: they were there before any app.
func checkName(l place, app string) error {
	if exists(filepath.Join(l.root, podfs.AppRecordDir, app+".json")) {
		return nil // what an add that was killed has left
	}
	entries, err := os.ReadDir(filepath.Join(l.root, podfs.UnitDir))
	if err != nil {
		return err
	}
	var units []string
	for _, e := range entries {
		units = append(units, e.Name())
	}
	return plan.CheckAppName(app, units)
}

// AppStart starts an app, or starts it again.
func AppStart(ctx context.Context, env Env, args []string) error {
	a, live, err := appCall(env, args)
	if err != nil {
		return err
	}
	defer live.Close()
	unit := plan.Unit(a.App)
	// failures of before do not count against it
	_ = supervisor(ctx, env, "reset-failed", unit) // not loaded, not failed
	if err := supervisor(ctx, env, "start", unit); err != nil {
		return fmt.Errorf("starting app %q: %w", a.App, err)
	}
	return nil
}

// AppStop stops an app that is running.
func AppStop(ctx context.Context, env Env, args []string) error {
	a, live, err := appCall(env, args)
	if err != nil {
		return err
	}
	defer live.Close()
	state, err := query(ctx, env, "show", "--value", "-p", "ActiveState", plan.Unit(a.App))
	if err != nil {
		return err
	}
	switch state {
	case "inactive", "failed":
		return fmt.Errorf("app %q is not running", a.App)
	}
	if err := supervisor(ctx, env, "stop", plan.Unit(a.App)); err != nil {
		return fmt.Errorf("stopping app %q: %w", a.App, err)
	}
	return nil
}

// AppRm stops an app and removes what AppAdd has made, whatever of it there is.
// The mounts go with the app's root, which is stage0's.
func AppRm(ctx context.Context, env Env, args []string) error {
	a, live, err := appCall(env, args)
	if err != nil {
		return err
	}
	defer live.Close()
	l := place{live.Root(), live}
	if !exists(filepath.Join(l.root, podfs.AppRecordDir, a.App+".json")) {
		// Not even its record: then there is no unit, or one of the pod's own.
		if err := checkName(l, a.App); err != nil {
			return nil
		}
	}
	units := plan.Units(a.App)
	up, err := active(ctx, env, units)
	if err != nil {
		return err
	}
	if len(up) > 0 {
		if err := supervisor(ctx, env, append([]string{"stop"}, up...)...); err != nil {
			return fmt.Errorf("stopping app %q: %w", a.App, err)
		}
	}
	pod, err := podManifest()
	if err != nil {
		return err
	}
	list := plan.List(names(pod, a.App))
	run, _, err := readConfig("")
	if err != nil {
		return err
	}
	ids := abi.IDRange{}
	if run.PrivateUsers != "" {
		if ids, err = abi.ParseIDRange(run.PrivateUsers); err != nil {
			return err
		}
	}
	if err := asRoot(ids, func() error { return l.write(filepath.Join(l.root, list.Path), list.Data, os.FileMode(list.Mode)) }); err != nil {
		return err
	}
	root, err := os.OpenRoot(l.root)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range plan.AppFiles(a.App) { // the record, which says that the units are the app's, is the last
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	_ = supervisor(ctx, env, append([]string{"reset-failed"}, units...)...) // those that have not failed are unknown to it
	return supervisor(ctx, env, "daemon-reload")
}

// active are those of the units that are, or are about to be.
func active(ctx context.Context, env Env, units []string) ([]string, error) {
	text, err := query(ctx, env, append([]string{"show", "--value", "-p", "ActiveState"}, units...)...)
	if err != nil {
		return nil, err
	}
	states := strings.Fields(text)
	if len(states) != len(units) {
		return nil, fmt.Errorf("the pod's systemd tells %d states of %d units", len(states), len(units))
	}
	var out []string
	for i, u := range units {
		if states[i] != "inactive" && states[i] != "failed" {
			out = append(out, u)
		}
	}
	return out, nil
}

// appCall reads the arguments of an entrypoint that works in the running pod.
func appCall(env Env, args []string) (abi.App, *sys.MountNS, error) {
	// the lock that stage0 passes on is not for the programs that this one calls
	_ = unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	a, err := abi.ParseApp(args)
	if err != nil {
		return a, nil, err
	}
	if _, err := types.NewACName(a.App); err != nil {
		return a, nil, fmt.Errorf("app %q: %w", a.App, err)
	}
	journal.SetField(env.Log, journal.KeyStage, "stage1")
	if a.UUID != "" {
		journal.SetField(env.Log, journal.KeyPodUUID, a.UUID)
	}
	pid, err := strconv.Atoi(env.get(abi.EnvEnterPID))
	if err != nil || pid <= 1 {
		return a, nil, fmt.Errorf("%s does not hold a process ID: this program is run by rkt", abi.EnvEnterPID)
	}
	live, err := sys.OpenMountNS(pid)
	if err != nil {
		return a, nil, err
	}
	if f, err := podRoot(pid); err != nil { // it looks whether the pod is running
		return a, nil, errors.Join(err, live.Close())
	} else {
		f.Close()
	}
	return a, live, nil
}

func podManifest() (*schema.PodManifest, error) {
	b, err := os.ReadFile(podfs.PodManifest)
	if err != nil {
		return nil, fmt.Errorf("reading the pod manifest: %w", err)
	}
	m, _, err := appc.ParsePodManifest(b)
	return m, err
}

// names are those of the pod's apps but one.
func names(pod *schema.PodManifest, but string) []string {
	var out []string
	for i := range pod.Apps {
		if n := pod.Apps[i].Name.String(); n != but {
			out = append(out, n)
		}
	}
	return out
}

// supervisor has the pod's systemd do something.
func supervisor(ctx context.Context, env Env, args ...string) error {
	_, err := query(ctx, env, args...)
	return err
}

// query calls systemctl in the pod, where it talks to systemd without a bus.
func query(ctx context.Context, env Env, args ...string) (string, error) {
	argv := append([]string{"--pid=" + env.get(abi.EnvEnterPID), "--", "/usr/bin/systemctl", "--no-pager"}, args...)
	cmd := exec.CommandContext(ctx, env.get(abi.EnvEnterCmd), argv...)
	cmd.Env = env.Environ
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(errs.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, strings.ReplaceAll(text, "\n", "; "))
		}
		return "", fmt.Errorf("systemctl %s: %w", args[0], err)
	}
	return strings.TrimSpace(out.String()), nil
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/machined"
	"github.com/rkt-systemd/rkt/stage0/handoff"
	"github.com/rkt-systemd/rkt/stage0/pod"
	"github.com/rkt-systemd/rkt/stage0/tree"

	"github.com/appc/spec/schema"
)

func (a *app) handoff(h *pod.Handle, stage1 *schema.ImageManifest, run abi.Run) error {
	if err := a.Signals.Release(); err != nil {
		return errors.Join(err, h.Close())
	}
	err := handoff.Exec(h.Dir(), stage1, run, h.LockFile(), a.Environ, func(t string) { a.log.Warn(t) })
	return errors.Join(fmt.Errorf("starting the pod: %w", err), h.Close())
}

// stage1Of finds the rendered stage1 of a pod: entrypoints other than run are
// taken from there, where no pod can write.
func (a *app) stage1Of(d *pod.Pod) (*tree.Tree, *schema.ImageManifest, error) {
	st, err := a.stores()
	if err != nil {
		return nil, nil, err
	}
	t, err := st.trees.Again(context.Background(), d.Stage1Tree())
	if err != nil {
		return nil, nil, fmt.Errorf("the stage1 of pod %s: %w", d.UUID, err)
	}
	b, err := d.ReadFile(podfs.Stage1Manifest)
	if err != nil {
		return nil, nil, err
	}
	m, _, err := appc.ParseImageManifest(b)
	return t, m, err
}

// collector is how this command line collects pods.
func (a *app) collector() (*pod.Collector, error) {
	pods, _, err := a.pods()
	if err != nil {
		return nil, err
	}
	return &pod.Collector{Pods: pods, Release: a.release, Log: a.log, Out: a.Stdout, Now: time.Now}, nil
}

// release frees what an ended pod holds outside its directory.
func (a *app) release(ctx context.Context, d *pod.Pod) error {
	if d.Stage1Tree() == "" {
		return a.unregister(ctx, d) // it failed before it had a stage1
	}
	t, m, err := a.stage1Of(d)
	if errors.Is(err, tree.ErrNotRendered) {
		// nothing can be run for it any more: the sweep after the collection has its network
		a.log.Errorf("pod %s: releasing its resources: %v, ignoring", d.UUID, err)
		err = nil
	} else if err == nil {
		err = handoff.GC(ctx, d.Dir(), t.Rootfs(), m, abi.GC{Debug: a.debug, LocalConfig: a.localConfig, UUID: d.UUID})
	}
	return errors.Join(err, a.unregister(ctx, d))
}

// unregister removes the registration that a killed nspawn left: while its
// unit waits to restart, machined keeps the name, and the next start of the
// pod would be refused.
func (a *app) unregister(ctx context.Context, d *pod.Pod) error {
	b, err := os.ReadFile("/run/systemd/machines/" + d.Machine())
	if err != nil {
		return nil // the usual case
	}
	leader, id := 0, ""
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "LEADER="); ok {
			leader, _ = strconv.Atoi(v)
		}
		if v, ok := strings.CutPrefix(line, "ID="); ok {
			id = v
		}
	}
	if id != strings.ReplaceAll(d.UUID, "-", "") && (leader <= 0 || syscall.Kill(leader, 0) == nil) {
		return nil // another pod's, and alive
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := machined.Open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Unregister(ctx, d.Machine()); err != nil && !errors.Is(err, machined.ErrNotFound) {
		return fmt.Errorf("removing the registration of machine %q: %w", d.Machine(), err)
	}
	return nil
}

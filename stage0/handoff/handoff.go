// Package handoff calls the entrypoints of a stage1 image: run and enter
// replace the process, the others are children. It knows the contract
// (internal/abi) and nothing of what is inside a flavour.
package handoff

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// ErrNoEntrypoint means that the stage1 image does not implement what was asked.
var ErrNoEntrypoint = errors.New("not implemented by this pod's stage1 image")

// entrypoint resolves an annotation of the stage1 manifest beneath root.
func entrypoint(m *schema.ImageManifest, annotation, root string) (string, error) {
	v, ok := m.Annotations.Get(annotation)
	if !ok {
		return "", fmt.Errorf("annotation %q: %w", annotation, ErrNoEntrypoint)
	}
	clean := filepath.Clean("/" + v)
	return filepath.Join(root, clean), nil
}

// Version is the interface version of a stage1 image.
func Version(m *schema.ImageManifest) (int, error) {
	v, ok := m.Annotations.Get(abi.AnnotationVer)
	if !ok {
		return 1, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("the stage1 image has interface version %q, which is not a number", v)
	}
	return n, nil
}

// Exec becomes the run entrypoint of the pod in dir, whose lock is passed on.
func Exec(dir string, m *schema.ImageManifest, r abi.Run, lock *os.File, environ []string, warn func(string)) error {
	version, err := Version(m)
	if err != nil {
		return err
	}
	args, withheld := r.Args(version)
	for _, w := range withheld {
		if w == "--mutable" {
			return fmt.Errorf("the stage1 image (interface version %d) cannot run mutable pods", version)
		}
		warn(fmt.Sprintf("the stage1 image has interface version %d, which does not know %s; it is not applied", version, w))
	}
	prog, err := entrypoint(m, abi.AnnotationRun, filepath.Join(dir, podfs.Stage1Rootfs))
	if err != nil {
		return err
	}
	env := make([]string, 0, len(environ)+3)
	for _, kv := range environ {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case abi.EnvLockFD, abi.EnvSELinuxContext, abi.EnvSELinuxMountContext:
		default:
			env = append(env, kv)
		}
	}
	env = append(env, abi.EnvLockFD+"="+strconv.Itoa(int(lock.Fd())), abi.EnvSELinuxContext+"=", abi.EnvSELinuxMountContext+"=")
	if err := sys.Chdir(dir); err != nil {
		return err
	}
	if err := sys.KeepOnExec(lock); err != nil {
		return err
	}
	if err := sys.PassFDs(sys.ListenFDs(os.Getenv)); err != nil {
		return fmt.Errorf("passing sockets on: %w", err)
	}
	return sys.Exec(prog, append([]string{prog}, args...), env)
}

// Enter becomes the enter entrypoint. It is taken from the rendered tree, which
// the pod cannot write, not from the pod's own copy.
func Enter(dir, tree string, m *schema.ImageManifest, e abi.Enter, environ []string) error {
	prog, err := entrypoint(m, abi.AnnotationEnter, tree)
	if err != nil {
		return err
	}
	version, err := Version(m)
	if err != nil {
		return err
	}
	args, withheld := e.Args(version)
	if slices.Contains(withheld, "--user") {
		return fmt.Errorf("the stage1 image (interface version %d) cannot enter as another user", version)
	}
	if err := sys.Chdir(dir); err != nil {
		return err
	}
	return sys.Exec(prog, append([]string{prog}, args...), environ)
}

// Attach becomes the attach entrypoint: one of those that cross into the pod,
// with the caller's standard streams and an environment that says how to enter.
func Attach(dir, tree string, m *schema.ImageManifest, pid int, a abi.Attach, path string) error {
	prog, err := entrypoint(m, abi.AnnotationAttach, tree)
	if err != nil {
		return err
	}
	env, err := crossing(tree, m, pid, path)
	if err != nil {
		return err
	}
	if err := sys.Chdir(dir); err != nil {
		return err
	}
	return sys.Exec(prog, append([]string{prog}, a.Args()...), env)
}

// crossing is the whole environment of an entrypoint that works inside the
// pod whose first process is pid. path is the caller's search path.
func crossing(tree string, m *schema.ImageManifest, pid int, path string) ([]string, error) {
	enter, err := entrypoint(m, abi.AnnotationEnter, tree)
	if err != nil {
		return nil, err
	}
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{abi.EnvEnterCmd + "=" + enter, abi.EnvEnterPID + "=" + strconv.Itoa(pid), "PATH=" + path}, nil
}

// Mutable says what a stage1 image lacks to run mutable pods, or nil.
func Mutable(m *schema.ImageManifest) error {
	version, err := Version(m)
	if err != nil {
		return err
	}
	if version < 5 {
		return fmt.Errorf("the stage1 image (interface version %d) cannot run mutable pods", version)
	}
	for _, a := range abi.MutableEntrypoints() {
		if _, ok := m.Annotations.Get(a); !ok {
			return fmt.Errorf("the stage1 image cannot run mutable pods: annotation %q: %w", a, ErrNoEntrypoint)
		}
	}
	return nil
}

// App runs one of the entrypoints of mutable pods, for the pod whose first
// process is pid. lock stays locked as long as the entrypoint runs, also when
// this process is killed; nil for none.
func App(ctx context.Context, dir, tree string, m *schema.ImageManifest, annotation string, pid int, a abi.App, path string, lock *os.File) error {
	prog, err := entrypoint(m, annotation, tree)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, prog, a.Args()...)
	cmd.Dir = dir
	if cmd.Env, err = crossing(tree, m, pid, path); err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if lock != nil {
		cmd.ExtraFiles = []*os.File{lock}
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == abi.ExitFailure {
		return ErrReported
	}
	if err != nil {
		return fmt.Errorf("running the stage1 entrypoint %q: %w", filepath.Base(prog), err)
	}
	return nil
}

// ErrReported means that an entrypoint has failed and has said why.
var ErrReported = errors.New("stage1 has failed")

// GC runs the gc entrypoint out of the rendered tree.
func GC(ctx context.Context, dir, tree string, m *schema.ImageManifest, g abi.GC) error {
	version, err := Version(m)
	if err != nil {
		return err
	}
	return child(ctx, dir, tree, m, abi.AnnotationGC, g.Args(version))
}

// Stop runs the stop entrypoint out of the rendered tree.
func Stop(ctx context.Context, dir, tree string, m *schema.ImageManifest, s abi.Stop) error {
	return child(ctx, dir, tree, m, abi.AnnotationStop, s.Args())
}

// maxAnswer bounds what an entrypoint tells.
const maxAnswer = 16 << 20

// Network runs the network entrypoint out of a rendered tree, and decodes what it
// tells. dir is the pod directory, where it is about a pod.
func Network(ctx context.Context, dir, tree string, m *schema.ImageManifest, n abi.Network, into any) error {
	prog, err := entrypoint(m, abi.AnnotationNetwork, tree)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, prog, n.Args()...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("running the stage1 entrypoint %q: %w", filepath.Base(prog), err)
	}
	decodeErr := json.NewDecoder(io.LimitReader(out, maxAnswer)).Decode(into)
	_, _ = io.Copy(io.Discard, out) // else it could not end
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == abi.ExitFailure {
		return ErrReported
	}
	if err != nil {
		return fmt.Errorf("running the stage1 entrypoint %q: %w", filepath.Base(prog), err)
	}
	if decodeErr != nil {
		return fmt.Errorf("reading what the stage1 entrypoint %q tells: %w", filepath.Base(prog), decodeErr)
	}
	return nil
}

// Plan runs the plan entrypoint out of a rendered tree.
func Plan(ctx context.Context, tree string, m *schema.ImageManifest, q *abi.PlanRequest) (*abi.Plan, error) {
	prog, err := entrypoint(m, abi.AnnotationPlan, tree)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	var out, stderr limited
	out.max, stderr.max = abi.MaxPlan, 64<<10
	cmd := exec.CommandContext(ctx, prog)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(b), &out, &stderr
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := cmd.Run(); err != nil {
		if text := bytes.TrimSpace(stderr.Bytes()); len(text) > 0 {
			return nil, errors.New(strings.TrimPrefix(string(text), "stage1: "))
		}
		return nil, fmt.Errorf("running the stage1 entrypoint %q: %w", filepath.Base(prog), err)
	}
	p := &abi.Plan{}
	if err := json.Unmarshal(out.Bytes(), p); err != nil {
		return nil, fmt.Errorf("reading what the stage1 entrypoint %q tells: %w", filepath.Base(prog), err)
	}
	return p, nil
}

// limited keeps what is written, and fails beyond a limit.
type limited struct {
	bytes.Buffer
	max int
}

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > l.max {
		return 0, errors.New("it says too much")
	}
	return l.Buffer.Write(b)
}

func child(ctx context.Context, dir, tree string, m *schema.ImageManifest, annotation string, args []string) error {
	prog, err := entrypoint(m, annotation, tree)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, prog, args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running the stage1 entrypoint %q: %w", filepath.Base(prog), err)
	}
	return nil
}

package network

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
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/rkt-systemd/rkt/internal/bounded"
)

const (
	tryAgainFirst = 100 * time.Millisecond
	tryAgainMost  = 5 * time.Second
)

// runner runs CNI plugins for libcni: bounded in time and output, killed with
// all they started if that does not do, and with rkt if rkt is killed.
type runner struct {
	version.PluginDecoder
	// messages gets what plugins write to standard error, line by line.
	messages io.Writer
	nat      *nat
}

func newRunner() *runner { return &runner{messages: os.Stderr, nat: newNAT()} }

// FindInPath finds a plugin; those of rkt itself are in no directory.
func (r *runner) FindInPath(plugin string, paths []string) (string, error) {
	if plugin == natType {
		return natType, nil
	}
	if plugin == "" || strings.Contains(plugin, "/") {
		return "", fmt.Errorf("%q is not a plugin name", plugin)
	}
	for _, d := range paths {
		if st, err := os.Stat(filepath.Join(d, plugin)); err == nil && st.Mode().IsRegular() {
			return filepath.Join(d, plugin), nil
		}
	}
	return "", missingPlugin(plugin, paths)
}

// ExecPlugin runs a plugin once, or again for as long as it says that it
// should be.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var last error
	for wait := tryAgainFirst; ; wait = min(2*wait, tryAgainMost) {
		out, err := r.once(ctx, path, stdin, environ)
		var e *types.Error
		if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater {
			if err != nil && last != nil && ctx.Err() != nil {
				err = last // says more than that the time is over
			}
			return out, err
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, last
		case <-time.After(wait):
		}
	}
}

func (r *runner) once(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	command := lookup(environ, "CNI_COMMAND")
	defer trace(ctx, path, command, stdin)()
	if path == natType {
		return r.nat.plugin(ctx, command, lookup(environ, "CNI_CONTAINERID"), lookup(environ, "CNI_IFNAME"), stdin)
	}
	out, err := bounded.Run(ctx, bounded.Process{Path: path, Stdin: stdin, Env: bounded.Environ(environ),
		Messages: &bounded.Lines{To: r.messages, Prefix: "network plugin " + filepath.Base(path) + ": "}})
	if err != nil {
		return nil, pluginError(err, out)
	}
	if command == "ADD" {
		if trimmed := bytes.TrimSpace(out); len(trimmed) == 0 {
			return nil, errors.New("ended without an error and without a result")
		} else if !json.Valid(trimmed) || trimmed[0] != '{' {
			return nil, fmt.Errorf("printed %s instead of a result", bounded.Quote(out))
		}
	}
	return out, nil
}

// pluginError is what the plugin says of its failure, or else how it failed.
func pluginError(err error, out []byte) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signaled() {
		return err
	}
	var e types.Error
	switch said := json.Unmarshal(out, &e) == nil; {
	case said && e.Msg != "":
		e.Msg, e.Details = bounded.Shorten(e.Msg, bounded.MaxLine), bounded.Shorten(e.Details, bounded.MaxLine)
		return &e
	case said && e.Code != 0:
		return fmt.Errorf("failed with CNI error code %d and no message", e.Code)
	case len(bytes.TrimSpace(out)) == 0:
		return fmt.Errorf("failed with no error message: %w", err)
	}
	return fmt.Errorf("failed (%w), and printed %s instead of an error", err, bounded.Quote(out))
}

func lookup(environ []string, name string) string {
	value := ""
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

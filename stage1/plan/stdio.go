package plan

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/stdio"
	"github.com/rkt-systemd/rkt/internal/unitfile"
	"github.com/rkt-systemd/rkt/stage1/launch"
)

// streams sets where an app's standard streams go.
func (p *Plan) streams(in Input, ra *schema.RuntimeApp, s *launch.Spec) error {
	m, msg := stdio.Parse(ra.Annotations.Get)
	if msg != "" {
		return errors.New(msg)
	}
	if in.Run.Interactive {
		if in.Run.Mutable {
			return errors.New("a mutable pod cannot be interactive")
		}
		if len(in.Pod.Apps) != 1 {
			return fmt.Errorf("only a pod of one app can be interactive, and this one has %d", len(in.Pod.Apps))
		}
		m = stdio.Modes{In: stdio.Interactive, Out: stdio.Interactive, Err: stdio.Interactive}
		s.Console = launch.ConsolePipe
		if in.Facts.Terminal {
			s.Console = launch.ConsoleTTY
		}
	}
	if err := p.logFile(in, ra, s, &m); err != nil {
		return err
	}
	d := stdio.Default()
	for _, f := range []struct {
		to         *string
		mode, unit string
	}{{&s.Stdin, m.In, d.In}, {&s.Stdout, m.Out, d.Out}, {&s.Stderr, m.Err, d.Err}} {
		if f.mode != f.unit {
			*f.to = f.mode
		}
	}
	if m.Out != stdio.Log && m.Err != stdio.Log {
		s.Out = "" // nobody writes to the journal
	}
	if len(m.Endpoints()) > 0 {
		p.file(path.Join(strings.TrimPrefix(stdio.Dir(s.Name), "/"), stdio.EndpointsFile), 0o644, m.Targets(s.Name))
	}
	return nil
}

// streamUnits adds to an app's unit what its streams need.
func streamUnits(u *unitfile.File, s *launch.Spec) {
	m := s.Modes()
	// Not Requires for streams: their helper can be restarted under the app, which
	// would be restarted with it. The launcher sees to it that there is one.
	for _, mux := range []struct{ mode, dep, unit string }{{stdio.Stream, "Wants", "iomux@"}, {stdio.File, "Wants", "iomux@"}, {stdio.TTY, "Requires", "ttymux@"}} {
		if m.Has(mux.mode) {
			u.Add("Unit", mux.dep, mux.unit+s.Name+".service")
			u.Add("Unit", "After", mux.unit+s.Name+".service")
		}
	}
	if s.Console == launch.ConsoleTTY {
		u.Add("Service", "StandardInput", "tty")
		u.Add("Service", "StandardOutput", "tty")
		u.Add("Service", "StandardError", "tty")
		u.Add("Service", "TTYPath", "/dev/console")
		return
	}
	u.Add("Service", "StandardInput", "null")
	// for what goes wrong before the launcher has connected to the journal itself
	u.Add("Service", "StandardOutput", "journal")
	u.Add("Service", "StandardError", "journal")
}

// console is how systemd-nspawn treats its own standard streams: those of an
// app that is interactive are the caller's. "" is nspawn's choice.
func (p *Plan) console(mutable bool) string {
	if mutable {
		return "read-only" // nobody types, and a pod in the background must not touch the terminal
	}
	for _, s := range p.Apps {
		switch s.Console {
		case launch.ConsoleTTY:
			return "interactive"
		case launch.ConsolePipe:
			return "pipe"
		}
	}
	return ""
}

// logFile has the streams that would be logged written to a file, in a pod
// whose log mode says so.
func (p *Plan) logFile(in Input, ra *schema.RuntimeApp, s *launch.Spec, m *stdio.Modes) error {
	if dir, err := logDir(in.Pod); err != nil || dir == "" {
		return err
	}
	file, ok := ra.Annotations.Get(abi.AnnotationLogPath)
	if !ok || file == "" {
		return fmt.Errorf("the pod's log mode wants annotation %q, a file", abi.AnnotationLogPath)
	}
	if path.IsAbs(file) || path.Clean(file) != file || file == ".." || strings.HasPrefix(file, "../") || file == "." || strings.ContainsRune(file, 0) {
		return fmt.Errorf("annotation %s: %q is no file of the log directory", abi.AnnotationLogPath, file)
	}
	s.LogFile = file
	for _, mode := range []*string{&m.Out, &m.Err} {
		if *mode == stdio.Log {
			*mode = stdio.File
		}
	}
	return nil
}

// logDir is the directory of the host for the pod's log files, "" if its logs
// go to the journal.
func logDir(pod *schema.PodManifest) (string, error) {
	mode, ok := pod.Annotations.Get(abi.AnnotationLogMode)
	if !ok {
		return "", nil
	}
	if mode != abi.LogModeK8sPlain {
		return "", fmt.Errorf("annotation %s: %q is no log mode; %s is", abi.AnnotationLogMode, mode, abi.LogModeK8sPlain)
	}
	dir, _ := pod.Annotations.Get(abi.AnnotationLogDir)
	if !path.IsAbs(dir) || path.Clean(dir) != dir || strings.ContainsAny(dir, "\x00\n") {
		return "", fmt.Errorf("annotation %s: %q is no absolute path", abi.AnnotationLogDir, dir)
	}
	return dir, nil
}

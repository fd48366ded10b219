// Package generator turns the declared pods of a host into units, the work of
// rkt-generator (systemd.generator(7)). It runs at every boot before anything
// is mounted and at every daemon-reload, so it reads the pod directories,
// writes below its output directory, and touches nothing else: no network, no
// D-Bus, no /var, no images. The same input gives the same output.
//
// One bad file costs its own pod only, and that pod gets a unit which says
// what is wrong. The input is hostile: there are limits on the number of pods
// and on the bytes read, beyond which pods get such a unit too.
//
// Only its command imports it; it imports podfile and podunit.
package generator

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/podunit"
)

// Limits that keep a run below a second whatever the directories hold.
const (
	maxPods  = 8192
	maxBytes = 16 << 20
)

// Options of a run.
type Options struct {
	// Output is the directory for units, argv[1] of a generator.
	Output string
	// Root is put before the pod directories, for tests.
	Root string
	// Units says where rkt@.service and rkt are.
	Units podunit.Options
	// Log takes a line for the administrator; it may not be nil.
	Log func(line string)
}

type run struct {
	opts  Options
	index *podfile.Index
	left  int // bytes that may still be read
	dirs  map[string]bool
}

// Run generates. It has no error: what cannot be done is logged, and the rest
// is done.
func Run(opts Options) {
	index, err := podfile.Scan(podfile.SearchOptions{Root: opts.Root})
	if err != nil {
		opts.Log(oneLine(err.Error()))
	}
	r := &run{opts: opts, index: index, left: maxBytes, dirs: map[string]bool{}}
	entries := index.Entries()
	if len(entries) > maxPods {
		opts.Log("more than " + strconv.Itoa(maxPods) + " pod files, ignoring those after " + strconv.Quote(entries[maxPods-1].Path))
		entries = entries[:maxPods]
	}
	for _, e := range entries {
		switch {
		case e.Bad != "":
			opts.Log(oneLine(e.Path + ": " + e.Bad + ", ignoring"))
		case e.Template:
			r.template(e)
		default:
			r.pod(e.Name)
		}
	}
}

// template generates the instances of a template that are declared: by
// DefaultInstance= or by drop-ins of their own.
func (r *run) template(e podfile.Entry) {
	p, problems, files := r.load(e.Name)
	r.log(problems)
	if p == nil {
		if files == nil {
			return
		}
		p = podfile.ParseInstall(e.Name, files)
	}
	names := r.index.Instances(e.Name)
	if d := podunit.DefaultInstance(p); d != "" {
		names = append(names, e.Name+d)
	}
	done := map[string]bool{}
	for _, n := range names {
		if !r.index.Has(n) && !done[n] {
			done[n] = true
			r.pod(n)
		}
	}
}

// pod generates one pod.
func (r *run) pod(name string) {
	p, problems, files := r.load(name)
	if p == nil && problems == nil {
		return // masked
	}
	r.log(problems)
	var out podunit.Output
	var err error
	if p != nil {
		out, err = podunit.Pod(p, r.opts.Units)
		if err != nil {
			// podfile lets nothing through that a unit cannot hold; should it
			// yet, the pod must not vanish.
			problems = append(problems, podfile.Problem{File: p.Files[0], Message: err.Error()})
			p = nil
		}
	}
	if p == nil {
		out, err = podunit.Broken(podfile.ParseInstall(name, files), problems, r.opts.Units)
	}
	if err == nil {
		err = r.write(out)
	}
	if err != nil {
		r.opts.Log(oneLine("pod " + strconv.Quote(name) + ": " + err.Error()))
	}
}

// load reads and parses a pod within the limit. Without pod and problems it is
// masked.
func (r *run) load(name string) (*podfile.Pod, []podfile.Problem, []podfile.File) {
	if r.left <= 0 {
		return nil, []podfile.Problem{{File: name + ".json", Message: "not read: the pod files hold more than 16 MiB in all"}}, nil
	}
	files, problems := r.index.Read(name)
	for _, f := range files {
		r.left -= len(f.Data)
	}
	if podfile.IsMasked(problems) {
		return nil, nil, nil
	}
	if podfile.Failed(problems) {
		return nil, problems, files
	}
	p, more := podfile.Parse(name, files)
	return p, append(problems, more...), files
}

func (r *run) log(problems []podfile.Problem) {
	for _, p := range problems {
		r.opts.Log(oneLine(p.Severity.String() + ": " + p.Error()))
	}
}

// write puts the output of one pod in place. Each file appears whole or not at
// all; nothing needs to last, so nothing is synced.
func (r *run) write(out podunit.Output) error {
	for _, f := range out.Files {
		mode, dirMode := uint32(0o644), uint32(0o755)
		if f.Secret {
			mode, dirMode = 0o600, 0o700
		}
		path, err := r.path(f.Path, dirMode)
		if err != nil {
			return err
		}
		// systemd ignores names that begin with a dot.
		tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
		if err := writeNew(tmp, f.Data, mode); err != nil {
			return err
		}
		if err := syscall.Rename(tmp, path); err != nil {
			return &fs.PathError{Op: "rename", Path: path, Err: err}
		}
	}
	for _, l := range out.Links {
		path, err := r.path(l.Path, 0o755)
		if err != nil {
			return err
		}
		err = os.Symlink(l.Target, path)
		if errors.Is(err, fs.ErrExist) {
			if err = os.Remove(path); err == nil {
				err = os.Symlink(l.Target, path)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes a file that must not exist; system calls rather than
// os.File, whose poller costs more than the writing.
func writeNew(path string, data []byte, mode uint32) error {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_EXCL | syscall.O_CLOEXEC
	fd, err := syscall.Open(path, flags, mode)
	if err == syscall.EEXIST {
		// Left by a run that was killed.
		if err = syscall.Unlink(path); err == nil {
			fd, err = syscall.Open(path, flags, mode)
		}
	}
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	for len(data) > 0 && err == nil {
		var n int
		if n, err = syscall.Write(fd, data); err == syscall.EINTR {
			err = nil
			continue
		}
		data = data[max(n, 0):]
	}
	if cerr := syscall.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// path returns the full path for rel and makes its directory.
func (r *run) path(rel string, mode uint32) (string, error) {
	path := filepath.Join(r.opts.Output, rel)
	dir := filepath.Dir(path)
	if !r.dirs[dir] {
		if err := syscall.Mkdir(dir, mode); err != nil && err != syscall.EEXIST {
			if err := os.MkdirAll(dir, os.FileMode(mode)); err != nil {
				return "", err
			}
		}
		r.dirs[dir] = true
	}
	return path, nil
}

// oneLine makes a line for the kernel's log: no control characters, and short
// enough for one record.
func oneLine(s string) string {
	const limit = 800
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

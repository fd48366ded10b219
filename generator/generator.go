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
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/rkt-systemd/rkt/internal/msgid"
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
	// Log takes a message for the administrator; it may not be nil.
	Log func(Message)
}

type run struct {
	opts  Options
	index *podfile.Index
	left  int // bytes that may still be read
	tasks []*task
	out   output
}

// task is what becomes of one pod file. Files are read one after the other, since
// what may be read in all is limited; the rest is done by several at once, and
// what there is to say comes in the order of the files.
type task struct {
	name     string // empty when there are only messages
	files    []podfile.File
	problems []podfile.Problem
	messages []Message
}

// Run generates. It has no error: what cannot be done is logged, and the rest
// is done.
func Run(opts Options) {
	index, err := podfile.Scan(podfile.SearchOptions{Root: opts.Root})
	if err != nil {
		opts.Log(left("", "", err.Error()))
	}
	r := &run{opts: opts, index: index, left: maxBytes, out: output{dir: opts.Output, suffix: "." + strconv.Itoa(os.Getpid()) + ".new", dirs: map[string]bool{}}}
	entries := index.Entries()
	if len(entries) > maxPods {
		opts.Log(left("", "", "more than "+strconv.Itoa(maxPods)+" pod files, ignoring those after "+strconv.Quote(entries[maxPods-1].Path)))
		entries = entries[:maxPods]
	}
	do, wait := r.workers(len(entries))
	for _, e := range entries {
		switch {
		case e.Bad != "":
			r.tasks = append(r.tasks, &task{messages: []Message{left("", e.Path, e.Path+": "+e.Bad+", ignoring")}})
		case e.Template:
			r.template(e, do)
		default:
			r.pod(e.Name, do)
		}
	}
	wait()
	for _, t := range r.tasks {
		for _, m := range t.messages {
			opts.Log(m)
		}
	}
}

// workers returns who does a task, and who waits for all. A few are done at once
// by the caller.
func (r *run) workers(n int) (do func(*task), wait func()) {
	const few = 64
	if n < few {
		return r.guarded, func() {}
	}
	tasks := make(chan *task, few)
	var all sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4) {
		all.Go(func() {
			for t := range tasks {
				r.guarded(t)
			}
		})
	}
	return func(t *task) { tasks <- t }, func() { close(tasks); all.Wait() }
}

// guarded does a task. Should this program be wrong, it costs one pod.
func (r *run) guarded(t *task) {
	defer func() {
		if v := recover(); v != nil {
			text := "panic"
			switch v := v.(type) {
			case error:
				text = v.Error()
			case string:
				text = v
			}
			t.messages = append(t.messages, left(t.name, "", "pod "+strconv.Quote(t.name)+": internal error: "+text))
		}
	}()
	r.generate(t)
}

// template generates the instances of a template that are declared: by
// DefaultInstance= or by drop-ins of their own.
func (r *run) template(e podfile.Entry, do func(*task)) {
	t := r.read(e.Name)
	if t == nil {
		return // masked
	}
	p := t.parse()
	t.log()
	r.tasks = append(r.tasks, &task{messages: t.messages})
	if p == nil {
		if t.files == nil {
			return
		}
		p = podfile.ParseInstall(e.Name, t.files)
	}
	names := r.index.Instances(e.Name)
	if d := podunit.DefaultInstance(p); d != "" {
		names = append(names, e.Name+d)
	}
	done := map[string]bool{}
	for _, n := range names {
		if !r.index.Has(n) && !done[n] {
			done[n] = true
			r.pod(n, do)
		}
	}
}

// pod reads one pod and has it generated.
func (r *run) pod(name string, do func(*task)) {
	if t := r.read(name); t != nil {
		r.tasks = append(r.tasks, t)
		do(t)
	}
}

// read reads a pod within the limit; nil if it is masked.
func (r *run) read(name string) *task {
	t := &task{name: name}
	if r.left <= 0 {
		t.problems = []podfile.Problem{{File: name + ".json", Message: "not read: the pod files hold more than 16 MiB in all"}}
		return t
	}
	t.files, t.problems = r.index.Read(name)
	for _, f := range t.files {
		r.left -= len(f.Data)
	}
	if podfile.IsMasked(t.problems) {
		return nil
	}
	return t
}

// parse returns nil when the pod has errors.
func (t *task) parse() *podfile.Pod {
	if podfile.Failed(t.problems) {
		return nil
	}
	p, more := podfile.Parse(t.name, t.files)
	t.problems = append(t.problems, more...)
	return p
}

func (t *task) log() {
	for _, p := range t.problems {
		id := msgid.PodFileWarning
		if p.Severity == podfile.Error {
			id = msgid.PodFileError
		}
		t.messages = append(t.messages, Message{Text: oneLine(p.Severity.String() + ": " + p.Error()), ID: id, Pod: t.name, File: p.File, Line: p.Line,
			Error: p.Severity == podfile.Error})
	}
}

// generate makes the units of one pod.
func (r *run) generate(t *task) {
	p := t.parse()
	t.log()
	var out podunit.Output
	var err error
	if p != nil {
		out, err = podunit.Pod(p, r.opts.Units)
		if err != nil {
			// podfile lets nothing through that a unit cannot hold; should it
			// yet, the pod must not vanish.
			t.problems = append(t.problems, podfile.Problem{File: p.Files[0], Message: err.Error()})
			p = nil
		}
	}
	if p == nil {
		out, err = podunit.Broken(podfile.ParseInstall(t.name, t.files), t.problems, r.opts.Units)
	}
	if err == nil {
		err = r.out.write(out)
	}
	if err != nil {
		t.messages = append(t.messages, left(t.name, "", "pod "+strconv.Quote(t.name)+": "+err.Error()))
	}
}

// left is about something that was left out.
func left(pod, file, text string) Message {
	return Message{Text: oneLine(text), ID: msgid.PodNotGenerated, Pod: pod, File: file, Error: true}
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

package declared

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// Keep is how many generations stay by default.
const Keep = 3

// maxFile bounds what is read of a record, maxHistory what is kept of a history.
const (
	maxFile    = 1 << 20
	maxHistory = 256 << 10
)

// dirMode lets members of group rkt read.
const dirMode = 0o750

// Root is where the records of all pods are below a data directory.
func Root(dataDir string) string { return filepath.Join(dataDir, "declared") }

// Names are the pods that have records.
func Names(dataDir string) ([]string, error) {
	entries, err := os.ReadDir(Root(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the records of declared pods: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && podfile.CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Pod is the records of one declared pod. Nothing need exist yet.
type Pod struct {
	Name      string
	data, dir string
	// Now is the clock.
	Now func() time.Time
}

// Open gives access to the records of a pod.
func Open(dataDir, name string) (*Pod, error) {
	if err := podfile.CheckName(name); err != nil {
		return nil, err
	}
	return &Pod{Name: name, data: dataDir, dir: filepath.Join(Root(dataDir), name), Now: time.Now}, nil
}

func (p *Pod) path(name string) string { return filepath.Join(p.dir, name) }

func (p *Pod) generationPath(n int) string {
	return filepath.Join(p.dir, "generations", strconv.Itoa(n)+".json")
}

// Current reads which generation counts; nil without an error when nothing was
// ever resolved.
func (p *Pod) Current() (*Current, error) {
	c := &Current{}
	err := readJSON(p.path("current"), c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of pod %q: %w", p.Name, err)
	}
	return c, nil
}

// Changed is when the record was changed last; zero without one.
func (p *Pod) Changed() time.Time {
	if st, err := os.Stat(p.path("current")); err == nil {
		return st.ModTime()
	}
	return time.Time{}
}

// Generation reads one generation.
func (p *Pod) Generation(n int) (*Generation, error) {
	g := &Generation{}
	err := readJSON(p.generationPath(n), g)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pod %q has no generation %d (any more)", p.Name, n)
	}
	if err != nil {
		return nil, fmt.Errorf("reading generation %d of pod %q: %w", n, p.Name, err)
	}
	g.Number = n // the name counts
	return g, nil
}

// Generations reads all generations that are kept, the newest first.
func (p *Pod) Generations() ([]Generation, error) {
	entries, err := os.ReadDir(p.path("generations"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the generations of pod %q: %w", p.Name, err)
	}
	var out []Generation
	var errs []error
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil || n <= 0 || e.Name() != strconv.Itoa(n)+".json" {
			continue
		}
		g, err := p.Generation(n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Generation) int { return b.Number - a.Number })
	return out, errors.Join(errs...)
}

// change reads, changes and writes the record. Generations are written before
// the record that names them, and removed after it.
func (p *Pod) change(f func(c *Current) (*Current, *Event, error)) (*Current, error) {
	l, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return p.changeLocked(f)
}

// changeLocked is change for who holds the lock.
func (p *Pod) changeLocked(f func(c *Current) (*Current, *Event, error)) (*Current, error) {
	c, err := p.Current()
	if err != nil {
		return nil, err
	}
	if err := p.settle(c); err != nil {
		return c, err
	}
	next, event, err := f(c)
	if err != nil || next == nil {
		return c, err
	}
	if c != nil {
		next.Last = c.Last
	}
	if event != nil {
		event.Time = p.Now().UTC()
		event.Seq = 1
		if next.Last != nil {
			event.Seq += next.Last.Seq
		}
		next.Last = event
	}
	if err := writeJSON(p.path("current"), next); err != nil {
		return c, err
	}
	failpoint.Hit("declared/current")
	if event != nil {
		err = p.append(*event)
		failpoint.Hit("declared/history")
	}
	return next, err
}

// settle adds the event that a killed writer did not get into the history, and
// takes back what it said of the current generation before it named another.
func (p *Pod) settle(c *Current) error {
	if c != nil && c.State == Good {
		// A generation that cannot be read says nothing; who needs it tells.
		if g, err := p.Generation(c.Generation); err == nil && g.State != Good {
			if err := p.mark(c.Generation, Good, ""); err != nil {
				return err
			}
		}
	}
	if c == nil || c.Last == nil {
		return nil
	}
	events, err := p.events()
	if err != nil || len(events) > 0 && events[len(events)-1].Seq >= c.Last.Seq {
		return err
	}
	return p.append(*c.Last)
}

func (p *Pod) putGeneration(g Generation) error {
	err := writeJSON(p.generationPath(g.Number), g)
	failpoint.Hit("declared/generation")
	return err
}

// next is the number of a new generation. One that was written and never named,
// since its writer was killed, is used again.
func (p *Pod) next(c *Current) (int, error) {
	gs, err := p.Generations()
	if err != nil {
		return 0, err
	}
	n := 0
	if c != nil {
		n = c.Generation
	}
	for _, g := range gs {
		n = max(n, g.Number)
	}
	return n + 1, nil
}

func readJSON(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = errors.New("the file is too large")
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, append(b, '\n'), 0o640)
}

// History reads the events, the oldest first.
func (p *Pod) History() ([]Event, error) {
	c, err := p.Current()
	if err != nil {
		return nil, err
	}
	out, err := p.events()
	if c != nil && c.Last != nil && (len(out) == 0 || out[len(out)-1].Seq < c.Last.Seq) {
		out = append(out, *c.Last)
	}
	return out, err
}

// events are what the file of the history holds. A last line that a crash tore
// is left out.
func (p *Pod) events() ([]Event, error) {
	b, err := p.readHistory()
	if err != nil {
		return nil, err
	}
	var out []Event
	for line := range bytes.Lines(b) {
		var e Event
		if err := json.Unmarshal(line, &e); err == nil && e.Event != "" {
			out = append(out, e)
		}
	}
	return out, nil
}

func (p *Pod) readHistory() ([]byte, error) {
	f, err := os.Open(p.path("history"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the history of pod %q: %w", p.Name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4*maxHistory))
	if err != nil {
		return nil, fmt.Errorf("reading the history of pod %q: %w", p.Name, err)
	}
	return b[:bytes.LastIndexByte(b, '\n')+1], nil
}

// append adds an event. The file is appended to, whole lines at a time; what a
// crash tore goes first, and half of it when it grows long.
func (p *Pod) append(e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	have, err := p.readHistory()
	if err != nil {
		return err
	}
	path := p.path("history")
	st, err := os.Stat(path)
	if err == nil && st.Size() == int64(len(have)) && len(have) < maxHistory {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return fmt.Errorf("writing the history of pod %q: %w", p.Name, err)
		}
		_, err = f.Write(append(line, '\n'))
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("writing the history of pod %q: %w", p.Name, err)
		}
		return nil
	}
	if len(have) >= maxHistory {
		have = have[len(have)/2:]
		have = have[bytes.IndexByte(have, '\n')+1:]
	}
	return atomicfile.WriteFile(path, append(slices.Clone(have), append(line, '\n')...), 0o640)
}

// Remove forgets everything of the pod, unless somebody updates it.
func (p *Pod) Remove() error {
	u, err := p.Updating()
	if err != nil {
		return err
	}
	defer u.Close()
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("removing the record of pod %q: %w", p.Name, err)
	}
	return sys.SyncDir(filepath.Dir(p.dir))
}

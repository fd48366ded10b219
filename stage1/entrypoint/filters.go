package entrypoint

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/stage1/filter"
	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

// filterCache keeps compiled system call filters below the data directory, one
// file per policy: the SHA-256 of the program, then the program. Not in the image
// store, which a group may write: root alone says what a filter is. It needs no
// lock and no fsync: names are hashes of what the filter is made of, files
// come by rename, and what is not whole is compiled again.
type filterCache struct{ dir string }

// cacheSize bounds the number of files; the least recently made go.
const cacheSize = 256

// newFilterCache finds the cache of the data directory a pod is in.
func newFilterCache(podDir string) filterCache {
	pods := filepath.Dir(filepath.Dir(podDir))
	if filepath.Base(pods) != "pods" {
		return filterCache{} // not below a data directory: nothing is kept
	}
	return filterCache{filepath.Join(filepath.Dir(pods), "filters")}
}

// program returns the encoded program of a policy. A cache that cannot be used
// costs time only: what is wrong with it is returned beside the program.
func (c filterCache) program(f plan.Filter) (prog []byte, cache, err error) {
	file := filepath.Join(c.dir, f.Key)
	if c.dir != "" {
		if prog, cache = readCached(file); prog != nil {
			return prog, nil, nil
		}
	}
	p, err := filtergen.Compile(f.Policy)
	if err != nil {
		return nil, nil, fmt.Errorf("compiling a system call filter: %w", err)
	}
	prog = p.Marshal()
	if c.dir != "" {
		cache = errors.Join(cache, c.keep(file, prog))
	}
	return prog, cache, nil
}

// readCached returns nil if the file is not there or is not whole.
func readCached(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = sha256.Size + 8*unix.BPF_MAXINSNS
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > most || st.Size() <= sha256.Size {
		return nil, fmt.Errorf("%q is not a filter; it is made again", file)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b[sha256.Size:])
	if !bytes.Equal(sum[:], b[:sha256.Size]) {
		return nil, fmt.Errorf("%q is damaged; it is made again", file)
	}
	if _, err := filter.Parse(b[sha256.Size:]); err != nil {
		return nil, err
	}
	return b[sha256.Size:], nil
}

func (c filterCache) keep(file string, prog []byte) error {
	if err := os.Mkdir(c.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	c.trim()
	sum := sha256.Sum256(prog)
	return atomicfile.WriteFileNoSync(file, append(sum[:], prog...), 0o600)
}

// trim removes the oldest files when there are too many, and what a killed
// process left half-written.
func (c filterCache) trim() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	type old struct {
		name string
		time time.Time
	}
	var all []old
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // another process removed it
		}
		if strings.HasPrefix(e.Name(), ".") {
			if time.Since(info.ModTime()) > time.Minute {
				_ = os.Remove(filepath.Join(c.dir, e.Name())) // the next one tries again
			}
			continue
		}
		all = append(all, old{e.Name(), info.ModTime()})
	}
	if len(all) < cacheSize {
		return
	}
	slices.SortFunc(all, func(a, b old) int { return a.time.Compare(b.time) })
	for _, o := range all[:len(all)-cacheSize/2] {
		_ = os.Remove(filepath.Join(c.dir, o.name)) // the next one tries again
	}
}

// compileFilters adds the filters that the plan asks for to its files.
func compileFilters(env Env, p *plan.Plan, podDir string) error {
	c := newFilterCache(podDir)
	for _, f := range p.Filters {
		prog, trouble, err := c.program(f)
		if err != nil {
			return err
		}
		if trouble != nil {
			env.Log.Warnf("keeping a compiled system call filter: %v", trouble)
		}
		p.Files = append(p.Files, plan.File{Path: f.Path, Data: prog, Mode: 0o644})
	}
	return nil
}

// Package podset puts a set of pod files in place as one transaction.
//
// All files are written to DIR/.apply.new, which is then renamed to DIR/.apply:
// that is the moment at which the set counts, for whoever reads pod files
// (package podfile) looks there first. Then the files are copied to their
// places, one by one, and DIR/.apply goes. Killed at any point, or without
// power, either nothing has changed or all of it has; what is left to copy is
// copied by the next transaction, and until then read from DIR/.apply.
//
// Only stage0/cli imports it.
package podset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/internal/atomicfile"
	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfile"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// Places are where pod files and the records of sets are.
type Places struct {
	// Pods is the directory of pod files.
	Pods string
	// Sets is the directory of records.
	Sets string
	// LockFile is LockFile but in tests.
	LockFile string
}

// LockFile is locked by who changes pod files. It is in no directory of pod files,
// which everybody may open and so lock, and who manages /etc would find a file that
// nobody put there; nor in a data directory: all have the same pod files.
const LockFile = "/run/rkt/apply.lock"

// File is a pod file or a drop-in; a nil Data removes it.
type File struct {
	Data []byte
	Mode os.FileMode
}

// Action is something to be done with a unit, once the files are in place.
type Action struct {
	Verb string `json:"verb"`
	Unit string `json:"unit"`
}

// Set is what is remembered of a set.
type Set struct {
	Name string `json:"set"`
	// Files are paths below the directory of pod files.
	Files []string `json:"files"`
	// Pending are actions that nobody has carried out yet.
	Pending []Action `json:"pending,omitempty"`
}

// plan goes with the files of a transaction.
type plan struct {
	Set
	Removed []string `json:"removed,omitempty"`
}

const planFile = ".plan"

func (p Places) pending() string { return filepath.Join(p.Pods, filepath.Base(podfile.PendingDir)) }

// Lock keeps others from changing pod files by a transaction. If somebody else
// is at it, it calls waiting and waits for that.
func (p Places) Lock(ctx context.Context, waiting func()) (*os.File, error) {
	for _, dir := range []string{p.Pods, filepath.Dir(p.LockFile)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making room for pod files: %w", err)
		}
	}
	l, err := lock.Wait(ctx, func() (*os.File, error) { return lock.TryPrivate(p.LockFile, lock.Exclusive) }, waiting)
	if err != nil {
		return nil, fmt.Errorf("locking the directory of pod files %q: %w", p.Pods, err)
	}
	return l, nil
}

// Read returns a file as readers see it, nil when there is none.
func (p Places) Read(rel string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(p.pending(), rel))
	if err == nil && len(data) == 0 {
		return nil, nil // it is being removed
	}
	if errors.Is(err, fs.ErrNotExist) {
		data, err = os.ReadFile(filepath.Join(p.Pods, rel))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}

// Stage writes files to a directory that readers can be given before all
// others. What is removed is an empty file there: it masks.
func Stage(dir string, files map[string]File) error {
	for _, rel := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f := files[rel]
		if f.Data == nil {
			f.Mode = 0o600
		}
		if err := atomicfile.WriteFile(path, f.Data, f.Mode); err != nil {
			return err
		}
	}
	return nil
}

// Commit puts files in place; set is what the set consists of from now on. The
// caller holds the lock, and has finished what an earlier transaction left.
func (p Places) Commit(set Set, files map[string]File) error {
	fresh := p.pending() + ".new"
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	pl := plan{Set: set}
	for _, rel := range slices.Sorted(maps.Keys(files)) {
		if files[rel].Data == nil {
			pl.Removed = append(pl.Removed, rel)
		}
	}
	if err := Stage(fresh, files); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(fresh, planFile), pl); err != nil {
		return err
	}
	failpoint.Hit("apply/staged")
	if err := os.Rename(fresh, p.pending()); err != nil {
		return err
	}
	if err := sys.SyncDir(p.Pods); err != nil {
		return err
	}
	failpoint.Hit("apply/committed")
	_, err := p.Finish()
	return err
}

// Finish copies what a transaction has left to copy; it reports whether there
// was something. The caller holds the lock.
func (p Places) Finish() (bool, error) {
	// What never counted, or does not any more.
	for _, dir := range []string{p.pending() + ".new", p.pending() + ".old"} {
		if err := os.RemoveAll(dir); err != nil {
			return false, err
		}
	}
	var pl plan
	if err := readJSON(filepath.Join(p.pending(), planFile), &pl); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("finishing an interrupted rkt pod apply: %w", err)
	}
	err := filepath.WalkDir(p.pending(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		rel, err := filepath.Rel(p.pending(), path)
		if err != nil {
			return err
		}
		if slices.Contains(pl.Removed, rel) {
			return p.remove(rel)
		}
		return p.place(path, rel)
	})
	if err != nil {
		return true, err
	}
	if err := p.PutSet(pl.Set); err != nil {
		return true, err
	}
	failpoint.Hit("apply/recorded")
	old := p.pending() + ".old"
	if err := os.Rename(p.pending(), old); err != nil {
		return true, err
	}
	failpoint.Hit("apply/placed")
	return true, errors.Join(sys.SyncDir(p.Pods), os.RemoveAll(old))
}

func (p Places) place(from, rel string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	to := filepath.Join(p.Pods, rel)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	sweep(to)
	err = atomicfile.WriteFile(to, data, st.Mode().Perm())
	failpoint.Hit("apply/file")
	return err
}

func (p Places) remove(rel string) error {
	path := filepath.Join(p.Pods, rel)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	failpoint.Hit("apply/removed")
	if dir := filepath.Dir(path); dir != filepath.Clean(p.Pods) {
		_ = os.Remove(dir) // others' drop-ins may be in it
		return nil
	}
	return sys.SyncDir(p.Pods)
}

func (p Places) setPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(p.Sets, hex.EncodeToString(sum[:16])+".json")
}

// PutSet records a set.
func (p Places) PutSet(s Set) error {
	if s.Name == "" && len(s.Pending) == 0 {
		if err := os.Remove(p.setPath("")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(p.Sets, 0o750); err != nil {
		return err
	}
	sweep(p.setPath(s.Name))
	return writeJSON(p.setPath(s.Name), s)
}

// sweep removes what killed writers of a file left beside it; nobody else writes
// it while the lock is held.
func sweep(path string) {
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp*")) // only names of pods are in the pattern
	for _, l := range left {
		_ = os.Remove(l) // the next one tries again
	}
}

// ReadSets reads all sets.
func (p Places) ReadSets() ([]Set, error) {
	paths, err := filepath.Glob(filepath.Join(p.Sets, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []Set
	for _, path := range paths {
		var s Set
		if err := readJSON(path, &s); err != nil {
			return nil, fmt.Errorf("reading the record of a set of pods: %w", err)
		}
		out = append(out, s)
	}
	return out, nil
}

// ReadFile reads a file of a set, with the limits that readers have.
func ReadFile(path string) (File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	if !st.Mode().IsRegular() || st.Size() > jsonpos.MaxSize {
		return File{}, fmt.Errorf("%s is no regular file of 1 MiB at most", path)
	}
	data, err := os.ReadFile(path)
	if data == nil {
		data = []byte{}
	}
	return File{data, st.Mode().Perm() &^ 0o022}, err
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(path, append(b, '\n'), 0o640)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

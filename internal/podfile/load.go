package podfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
)

// DefaultDirs is the search path for declared pods, the strongest first.
func DefaultDirs() []string {
	return []string{"/etc/rkt/pods", "/run/rkt/pods", "/usr/local/lib/rkt/pods", "/usr/lib/rkt/pods"}
}

// PendingDir holds files of a transaction of `rkt pod apply` that are not in
// their places yet. They count already, before all others.
const PendingDir = "/etc/rkt/pods/.apply"

// maxDropIns bounds the drop-ins of one pod.
const maxDropIns = 256

// SearchOptions say where to look; the zero value means this host.
type SearchOptions struct {
	// Root is put before every directory, for tests and foreign trees.
	Root string
	// Dirs is the search path; nil means DefaultDirs.
	Dirs []string
}

// Messages of the problems that say there is no such pod.
const (
	msgNotFound = "no pod file of this name in "
	msgMasked   = "pod is masked"
)

// IsNotFound reports whether the problems say that nobody declares the pod.
func IsNotFound(ps []Problem) bool { return hasMessage(ps, msgNotFound) }

// IsMasked reports whether the problems say that the pod is masked.
func IsMasked(ps []Problem) bool { return hasMessage(ps, msgMasked) }

func hasMessage(ps []Problem, prefix string) bool {
	for _, p := range ps {
		if p.Path == "" && p.Line == 0 && strings.HasPrefix(p.Message, prefix) {
			return true
		}
	}
	return false
}

// Entry is a pod file in the search path.
type Entry struct {
	// Name is the file's name without .json; it ends in "@" for a template.
	Name string
	// Path is the file that counts, without the root of the options.
	Path     string
	Masked   bool
	Template bool
	// Bad says why the file name cannot be a pod's; empty when it can.
	Bad string
}

// File is a file as read: the pod file itself or one of its drop-ins.
type File struct {
	Path string
	Data []byte
}

// Index is what the directories of the search path hold. It is made once, so
// that reading many pods does not probe the directories for each.
type Index struct {
	root    string
	entries map[string]Entry
	// dropIns maps a pod file's name to its NAME.json.d directories.
	dropIns map[string][]string
	// instances maps a template's name to its instances among dropIns.
	instances map[string][]string
}

// Scan lists the search path. A directory that is missing counts as empty;
// one that cannot be read is reported in the error, the others still count.
func Scan(opts SearchOptions) (*Index, error) {
	dirs := opts.Dirs
	if dirs == nil {
		dirs = append([]string{PendingDir}, DefaultDirs()...)
	}
	x := &Index{root: opts.Root, entries: map[string]Entry{}, dropIns: map[string][]string{}, instances: map[string][]string{}}
	var errs []error
	for _, dir := range dirs {
		names, err := readDirNames(filepath.Join(opts.Root, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, errors.New("listing "+strconv.Quote(dir)+": "+cause(err)))
		}
		for _, n := range names {
			if stem, ok := strings.CutSuffix(n, ".json.d"); ok {
				x.addDropIns(stem, filepath.Join(dir, n))
				continue
			}
			stem, ok := strings.CutSuffix(n, ".json")
			if !ok || strings.HasPrefix(n, ".") {
				continue
			}
			if _, ok := x.entries[stem]; ok {
				continue
			}
			e := Entry{Name: stem, Path: filepath.Join(dir, n), Template: strings.HasSuffix(stem, "@")}
			if err := CheckName(stem); err != nil {
				e.Bad = err.Error()
			}
			x.entries[stem] = e
		}
	}
	return x, errors.Join(errs...)
}

// addDropIns notes a directory of drop-ins. Instances are sorted out at once:
// there may be thousands, and as many templates that ask for theirs.
func (x *Index) addDropIns(stem, dir string) {
	if prefix, instance, _ := strings.Cut(stem, "@"); instance != "" && x.dropIns[stem] == nil && CheckName(stem) == nil {
		x.instances[prefix+"@"] = append(x.instances[prefix+"@"], stem)
	}
	x.dropIns[stem] = append(x.dropIns[stem], dir)
}

// readDirNames lists a directory without asking for the type of each entry.
func readDirNames(dir string) ([]string, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

// Entries returns the pod files found, sorted by name. Masked is not filled
// in, since telling it needs a look at each file.
func (x *Index) Entries() []Entry {
	out := make([]Entry, 0, len(x.entries))
	for _, e := range x.entries {
		out = append(out, e)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Has reports whether there is a pod file called name.
func (x *Index) Has(name string) bool {
	_, ok := x.entries[name]
	return ok
}

// Instances returns the instances of a template ("web@") that have drop-ins of
// their own, sorted.
func (x *Index) Instances(template string) []string {
	out := append([]string(nil), x.instances[template]...)
	sort.Strings(out)
	return out
}

// List returns the pod files of the search path, sorted by name.
func List(opts SearchOptions) ([]Entry, error) {
	x, err := Scan(opts)
	out := x.Entries()
	for i := range out {
		out[i].Masked = x.masked(out[i].Path)
	}
	return out, err
}

// masked reports whether path is an empty file or a link to /dev/null.
func (x *Index) masked(path string) bool {
	full, err := x.resolve(path)
	if err == errMasked {
		return true
	}
	if err != nil {
		return false
	}
	st, err := os.Lstat(full)
	return err == nil && st.Mode().IsRegular() && st.Size() == 0
}

// Load reads the pod called name, "web" or "web@x". The pod is nil when there
// is none, when it is masked, or when an error is among the problems.
func Load(opts SearchOptions, name string) (*Pod, []Problem) {
	x, err := Scan(opts)
	if err != nil {
		p, problems := x.Load(name)
		return p, append(problems, Problem{Severity: Warning, File: "", Message: err.Error()})
	}
	return x.Load(name)
}

// Load is the function Load on an index made before.
func (x *Index) Load(name string) (*Pod, []Problem) {
	files, problems := x.Read(name)
	if Failed(problems) {
		return nil, problems
	}
	p, more := Parse(name, files)
	return p, append(problems, more...)
}

// Read reads the pod file called name and its drop-ins. An instance "web@x"
// is read from web@x.json, else from web@.json.
func (x *Index) Read(name string) ([]File, []Problem) {
	if err := CheckName(name); err != nil {
		return nil, []Problem{{File: name + ".json", Message: err.Error()}}
	}
	stems := []string{name}
	if prefix, instance, ok := strings.Cut(name, "@"); ok && instance != "" {
		stems = append(stems, prefix+"@")
	}
	e, ok := x.entries[stems[0]]
	if !ok && len(stems) > 1 {
		e, ok = x.entries[stems[1]]
	}
	if !ok {
		return nil, []Problem{{File: name + ".json", Message: msgNotFound + strings.Join(DefaultDirs(), ", ")}}
	}
	data, err := x.readFile(e.Path)
	if err == errMasked || err == nil && len(data) == 0 {
		return nil, []Problem{{File: e.Path, Message: msgMasked}}
	}
	if err != nil {
		return nil, []Problem{{File: e.Path, Message: err.Error()}}
	}
	files := []File{{e.Path, data}}
	var problems []Problem
	for _, path := range x.dropInPaths(stems, &problems) {
		data, err := x.readFile(path)
		if err == errMasked || err == nil && len(data) == 0 {
			continue
		}
		if err != nil {
			problems = append(problems, Problem{File: path, Message: err.Error()})
			continue
		}
		files = append(files, File{path, data})
	}
	return files, problems
}

// dropInPaths lists the drop-ins of a pod in the order they are merged: by
// file name, those of a template before those of its instance. Of files of
// one name the one in the strongest directory counts, as with systemd's.
func (x *Index) dropInPaths(stems []string, problems *[]Problem) []string {
	var out []string
	for i := len(stems) - 1; i >= 0; i-- {
		found := map[string]string{}
		var names []string
		for _, dir := range x.dropIns[stems[i]] {
			ns, err := readDirNames(filepath.Join(x.root, dir))
			if err != nil && !errors.Is(err, syscall.ENOTDIR) {
				*problems = append(*problems, Problem{Severity: Warning, File: dir, Message: cause(err)})
			}
			for _, n := range ns {
				if _, ok := found[n]; ok || !strings.HasSuffix(n, ".json") || strings.HasPrefix(n, ".") {
					continue
				}
				found[n] = filepath.Join(dir, n)
				names = append(names, n)
			}
		}
		sort.Strings(names)
		for _, n := range names {
			out = append(out, found[n])
		}
	}
	if len(out) > maxDropIns {
		*problems = append(*problems, Problem{File: out[maxDropIns], Message: "pod has more drop-ins than the allowed 256"})
		out = out[:maxDropIns]
	}
	return out
}

var (
	errMasked  = errors.New("masked")
	errRegular = errors.New("not a regular file")
	errSize    = errors.New("file is larger than the allowed 1 MiB")
	errLinks   = errors.New("too many levels of symbolic links")
)

// resolve follows the links of path's last component, below the root, and
// returns a path to open. A link to /dev/null gives errMasked.
func (x *Index) resolve(path string) (string, error) {
	for range 40 {
		full := filepath.Join(x.root, path)
		target, err := os.Readlink(full)
		if err != nil {
			// EINVAL: no link. Anything else shows when the file is opened.
			return full, nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		if path = filepath.Clean(target); path == "/dev/null" {
			return "", errMasked
		}
	}
	return "", errLinks
}

// readFile reads a file of limited size. It never waits: a FIFO or a device
// is opened without blocking and refused. It uses system calls rather than
// os.File, whose poller would cost the generator more than the reading.
func (x *Index) readFile(path string) ([]byte, error) {
	const flags = syscall.O_RDONLY | syscall.O_CLOEXEC | syscall.O_NONBLOCK | syscall.O_NOCTTY
	fd, err := retry(func() (int, error) {
		return syscall.Open(x.full(path), flags|syscall.O_NOFOLLOW, 0)
	})
	if err == syscall.ELOOP {
		full, rerr := x.resolve(path)
		if rerr != nil {
			return nil, rerr
		}
		fd, err = retry(func() (int, error) { return syscall.Open(full, flags, 0) })
	}
	if err == syscall.ENXIO {
		return nil, errRegular
	}
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, errRegular
	}
	if st.Size > jsonpos.MaxSize {
		return nil, errSize
	}
	// The file may grow while it is read: there is room for one byte more than
	// it has, and without that byte it has ended.
	data := make([]byte, 0, st.Size+1)
	for {
		n, err := retry(func() (int, error) { return syscall.Read(fd, data[len(data):cap(data)]) })
		if err != nil {
			return nil, err
		}
		data = data[:len(data)+n]
		if n == 0 || len(data) < cap(data) && int64(len(data)) == st.Size {
			return data, nil
		}
		if len(data) > jsonpos.MaxSize {
			return nil, errSize
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// full is the path to open for a path below the root.
func (x *Index) full(path string) string {
	if x.root == "" {
		return path
	}
	return filepath.Join(x.root, path)
}

// retry calls a system call again when a signal interrupted it.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// cause is the innermost reason of a file error: the problem names the file.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

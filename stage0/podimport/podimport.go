// Package podimport turns the declarations of other runtimes into pod files:
// Quadlet's units, compose projects (package compose), pods of Kubernetes. What
// has no counterpart is never left out silently: it is noted, and the notes are
// the report that rkt pod import prints.
//
// Converters read only what they are given and write nothing.
package podimport

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rkt-systemd/rkt/stage0/podjson"
)

// Source is a file to be converted.
type Source struct {
	Path string
	Data []byte
	// Private: there are users who cannot read it.
	Private bool
}

// Limits of what is read; no real declaration comes near them.
const (
	MaxFile  = 1 << 20 // bytes of one file
	MaxFiles = 1000
)

// Result is what sources become.
type Result struct {
	Pods  []Pod  `json:"pods"`
	Files []File `json:"files,omitempty"`
	Notes []Note `json:"notes"`
}

// Pod is a pod file to be written to /etc/rkt/pods.
type Pod struct {
	Name string       `json:"name"`
	File *podjson.Pod `json:"file"`
	From string       `json:"from"` // path of the source
	// Private says that only root may read it: others cannot read its sources
	// either, or a secret is in it.
	Private bool `json:"private,omitempty"`
}

// File is another file that the pods need: a network of /etc/rkt/net.d, a file
// of variables.
type File struct {
	Path string `json:"path"`
	Text string `json:"text"`
	Mode uint32 `json:"mode"` // permission bits
	From string `json:"from"`
	// Private says that others do not get at it, whatever its mode: it is made of
	// what they cannot read, but apps have to.
	Private bool `json:"private,omitempty"`
}

// Level says how much a note matters.
type Level string

const (
	// Changed is carried over by other means, with a difference worth knowing.
	Changed Level = "changed"
	// Dropped is not carried over: the pod runs without it.
	Dropped Level = "dropped"
	// Todo has to be done by the administrator before the pod can run.
	Todo Level = "todo"
)

// Note is a line of the report.
type Note struct {
	Level Level  `json:"level"`
	Path  string `json:"path"`           // of the source
	Line  int    `json:"line,omitempty"` // 0: not known
	Key   string `json:"key"`            // as the source spells it: Container.AutoUpdate, services.db.deploy
	Text  string `json:"text"`           // what became of it, and what to do
}

func (n Note) String() string {
	at := n.Path
	if n.Line > 0 {
		at = fmt.Sprintf("%s:%d", n.Path, n.Line)
	}
	return fmt.Sprintf("%s: %s: %s: %s", at, n.Level, n.Key, n.Text)
}

// Note adds a line to the report.
func (r *Result) Note(level Level, path string, line int, key, format string, args ...any) {
	r.Notes = append(r.Notes, Note{Level: level, Path: path, Line: line, Key: key, Text: fmt.Sprintf(format, args...)})
}

// Join adds what another converter made.
func (r *Result) Join(o *Result) {
	r.Pods = append(r.Pods, o.Pods...)
	r.Files = append(r.Files, o.Files...)
	r.Notes = append(r.Notes, o.Notes...)
}

// Hide says that others cannot read a source, and must not read what it became.
func (r *Result) Hide(path string) {
	r.Note(Changed, path, 0, "mode", "others cannot read it, nor the pod files that are made of it (mode 0600)")
	for i := range r.Pods {
		r.Pods[i].Private = true
	}
	for i := range r.Files {
		r.Files[i].Private = true
	}
}

// Hidden reports whether there are users who cannot read a file or directory:
// it, or a directory above it, is not for them.
func Hidden(path string) bool {
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return true
	}
	for need := fs.FileMode(0o004); ; need = 0o001 {
		st, err := os.Stat(path)
		if err != nil || st.Mode()&need == 0 {
			return true
		}
		if path == filepath.Dir(path) {
			return false
		}
		path = filepath.Dir(path)
	}
}

// Secret reports whether a variable looks like a secret that is in its value: a
// word of its name says so, and it is neither a switch nor the path of a file.
func Secret(name, value string) bool {
	if slices.Contains([]string{"", "0", "1", "no", "yes", "false", "true"}, strings.ToLower(value)) {
		return false
	}
	name = strings.ToUpper(name)
	// a path, as of a TLS key; what base64 makes has no dot
	if strings.HasSuffix(name, "_FILE") || strings.HasPrefix(value, "/") && strings.Contains(value, ".") {
		return false
	}
	return slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune("_-.", r) }), func(word string) bool {
		return word == "PASS" || word == "PASSWD" || slices.ContainsFunc([]string{"PASSWORD", "SECRET", "TOKEN", "KEY"}, func(end string) bool { return strings.HasSuffix(word, end) })
	})
}

// InFile is what the report says of secrets that are in a pod file.
func InFile(names []string) string {
	slices.Sort(names)
	verb := " is"
	if len(names) > 1 {
		verb = " are"
	}
	return strings.Join(names, ", ") + verb + " in the pod file itself, which therefore only root can read (mode 0600); credentials are safer: docs/credentials.md"
}

// Sort puts the notes into the order of their sources, and of lines in each.
func (r *Result) Sort() {
	first := map[string]int{}
	for i, n := range r.Notes {
		if _, ok := first[n.Path]; !ok {
			first[n.Path] = i
		}
	}
	slices.SortStableFunc(r.Notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(first[a.Path], first[b.Path]), cmp.Compare(a.Line, b.Line))
	})
}

// Unique says whether two sources became one file. Two that are equal are one.
func (r *Result) Unique() error {
	pods := map[string]string{}
	for _, p := range r.Pods {
		if other, ok := pods[p.Name]; ok {
			return fmt.Errorf("%s and %s both become the pod %q; import them one by one, with --name", other, p.From, p.Name)
		}
		pods[p.Name] = p.From
	}
	seen := map[string]File{}
	var files []File
	for _, f := range r.Files {
		other, ok := seen[f.Path]
		if ok && (other.Text != f.Text || other.Mode != f.Mode) {
			return fmt.Errorf("%s and %s both become %s", other.From, f.From, f.Path)
		}
		if !ok {
			seen[f.Path] = f
			files = append(files, f)
		}
	}
	r.Files = files
	return nil
}

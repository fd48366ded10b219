// Package tests holds what is true of the repository as a whole; the
// integration tests lie in its subdirectories.
package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rkt-systemd/rkt/"

type pkg struct {
	ImportPath   string
	Name         string
	Imports      []string
	Deps         []string
	TestImports  []string
	XTestImports []string
	Standard     bool
}

// list asks go for the packages that patterns match, with all build tags of
// the project.
func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Imports,Deps,TestImports,XTestImports,Standard", "-tags=failpoint"}, patterns...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// in reports whether an import path is one of the folders or below one.
func in(path string, folders ...string) bool {
	path = strings.TrimPrefix(path, module)
	return slices.ContainsFunc(folders, func(f string) bool { return path == f || strings.HasPrefix(path, f+"/") })
}

// rule forbids packages of a folder to reach others.
type rule struct {
	from []string // the packages the rule is for; none: all of the project
	not  []string // except these
	// to must not be imported; deep forbids it through others, too.
	to   []string
	deep bool
	why  string
}

func rules() []rule {
	return []rule{
		{from: []string{"stage0"}, to: []string{"stage1", "generator"}, deep: true,
			why: "a stage1 is an image that can be replaced: stage0 knows it by the contract in internal/abi alone"},
		{from: []string{"stage1"}, to: []string{"stage0", "generator"}, deep: true,
			why: "stage1 must work with another stage0 of the same contract"},
		{from: []string{"generator"}, to: []string{"stage0", "stage1", "machined", "journal"}, deep: true,
			why: "the generator runs at every boot and reload, before anything else is there"},
		{from: []string{"generator"}, to: []string{"net/http", "github.com/godbus/dbus/v5", "github.com/containernetworking/cni", "github.com/appc/spec", "github.com/spf13/cobra"}, deep: true,
			why: "no network, no D-Bus and a small program: it is loaded at every boot"},
		{from: []string{"internal"}, to: []string{"stage0", "stage1", "generator", "machined", "journal"}, deep: true,
			why: "internal is what the others share"},
		{from: []string{"machined", "journal"}, to: []string{"stage0", "stage1", "generator"}, deep: true,
			why: "clients of the host's services know nothing of pods on disk"},
		{not: []string{"machined", "internal/bus", "internal/systemd"}, to: []string{"github.com/godbus/dbus/v5"},
			why: "D-Bus has one typed client; callers see Go values"},
		{not: []string{"stage1/network"}, to: []string{"github.com/containernetworking/cni"},
			why: "what CNI did must be recorded to be undone: one package does both"},
		{not: []string{"internal/sys", "internal/systemd", "internal/hostile", "stage1", "journal", "tests"}, to: []string{"golang.org/x/sys/unix"},
			why: "system calls have one home, where EINTR, descriptors and errors are looked after"},
		{not: []string{"stage0/cli", "stage0/cmd"}, to: []string{"github.com/spf13/cobra", "github.com/spf13/pflag"},
			why: "the domain packages do not know the command line"},
		{from: []string{"stage0"}, not: []string{"stage0/cmd"}, to: []string{"stage0/cmd"}, why: "main is the top"},
		{from: []string{"stage0"}, not: []string{"stage0/cmd", "stage0/cli"}, to: []string{"stage0/cli"}, why: "the command line calls the domain, never the other way"},
		{from: []string{"stage0/store", "stage0/tree", "stage0/image", "stage0/keystore", "stage0/config"}, to: []string{"stage0/pod", "stage0/prepare", "stage0/handoff"}, deep: true,
			why: "images know no pods"},
		{from: []string{"stage0/store"}, to: []string{"stage0/tree", "stage0/image", "stage0/keystore", "stage0/config"}, deep: true, why: "the store keeps bytes, whoever brings them"},
		{from: []string{"stage0/pod"}, to: []string{"stage0/image", "stage0/tree", "stage0/store"}, deep: true, why: "a pod is a directory and a lock; what is in it is others'"},
		{from: []string{"stage0/handoff"}, to: []string{"stage0/pod", "stage0/tree", "stage0/image"}, deep: true, why: "the contract needs a directory, a lock and a manifest"},
		{from: []string{"stage1/plan"}, to: []string{"os", "os/exec", "net", "golang.org/x/sys/unix"}, why: "a plan is made without touching anything, so that a test can compare all of it"},
		{from: []string{"internal/podunit"}, to: []string{"os", "os/exec", "net"}, why: "units are made without touching anything"},
		{not: []string{"tests", "internal/acitest"}, to: []string{"testing"}, why: "programs do not carry the test framework"},
	}
}

func TestImports(t *testing.T) {
	all := list(t, "./...")
	for _, r := range rules() {
		found := false
		for _, p := range all {
			if len(r.from) > 0 && !in(p.ImportPath, r.from...) || in(p.ImportPath, r.not...) {
				continue
			}
			found = true
			have := p.Imports
			if r.deep {
				have = p.Deps
			}
			for _, i := range have {
				if in(i, r.to...) {
					t.Errorf("%s imports %s: %s", strings.TrimPrefix(p.ImportPath, module), i, r.why)
				}
			}
		}
		if !found {
			t.Errorf("no package matches the rule for %v: %s", r.from, r.why)
		}
	}
}

// TestStage2 holds what starts in every app of every pod to the standard
// library, x/sys and the launcher.
func TestStage2(t *testing.T) {
	standard := map[string]bool{}
	for _, p := range list(t, "std") {
		standard[p.ImportPath] = true
	}
	for _, d := range list(t, "./stage1/cmd/rkt-stage2")[0].Deps {
		if !standard[d] && !strings.HasPrefix(d, "vendor/") && !strings.HasPrefix(d, "golang.org/x/sys/") && !in(d, "stage1", "internal") {
			t.Errorf("rkt-stage2 links %s", d)
		}
		if slices.Contains([]string{"net", "net/http", "crypto/tls"}, d) {
			t.Errorf("rkt-stage2 links %s", d)
		}
	}
}

// TestPrograms: only commands are programs, so only they end the process.
func TestPrograms(t *testing.T) {
	for _, p := range list(t, "./...") {
		cmd := slices.Contains(strings.Split(p.ImportPath, "/"), "cmd")
		if (p.Name == "main") != cmd && !in(p.ImportPath, "tests") {
			t.Errorf("%s is package %s; programs live in cmd, and nothing else does", p.ImportPath, p.Name)
		}
	}
}

// TestNoExit: a library that ends the process takes the cleaning up of its
// callers with it. Outside of cmd nothing exits, by whatever name.
func TestNoExit(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "vendor" || d.Name() == "testdata" || rel == "build" || rel == "tests" || d.Name() == "cmd") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				x, _ := s.X.(*ast.Ident)
				if x != nil && (x.Name == "os" && s.Sel.Name == "Exit" || x.Name == "log" && strings.HasPrefix(s.Sel.Name, "Fatal")) {
					t.Errorf("%s ends the process with %s.%s; only programs (cmd) do", rel, x.Name, s.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

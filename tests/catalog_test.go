package tests

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestCatalog: every MESSAGE_ID of the sources, a constant of 32 hexadecimal
// digits, is explained in the catalog, and nothing else is.
func TestCatalog(t *testing.T) {
	b, err := os.ReadFile("../journal/rkt.catalog")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, entry := range strings.Split("\n"+string(b), "\n-- ")[1:] {
		id, text, _ := strings.Cut(entry, "\n")
		if !strings.HasPrefix(text, "Subject: ") || !strings.Contains(text, "\nDefined-By: rkt\n") || !strings.Contains(text, "\nDocumentation: man:") || !strings.Contains(text, "\n\n") {
			t.Errorf("the entry of %s lacks a header or a text", id)
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, "\t") || len(line) > 101 {
				t.Errorf("%s: %q is not fit for a terminal", id, line)
			}
		}
		explained = append(explained, id)
	}
	id := regexp.MustCompile("^[0-9a-f]{32}$")
	var used []string
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "vendor" || d.Name() == "testdata" || d.Name() == "build" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if g, ok := n.(*ast.GenDecl); ok && g.Tok == token.CONST {
				ast.Inspect(g, func(n ast.Node) bool {
					if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
						if s, err := strconv.Unquote(l.Value); err == nil && id.MatchString(s) {
							used = append(used, s)
						}
					}
					return true
				})
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(explained)
	slices.Sort(used)
	if used = slices.Compact(used); !slices.Equal(explained, used) {
		t.Errorf("the catalog explains %v\nthe sources have  %v", explained, used)
	}
	if len(used) < 3 {
		t.Errorf("only %d message IDs were found", len(used))
	}
}

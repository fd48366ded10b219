package keys

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rkt-systemd/rkt/internal/jsonpos"
	"github.com/rkt-systemd/rkt/internal/podfile"
)

var update = flag.Bool("update", false, "write the files made from the table")

const (
	manPage  = "../../../docs/man/rkt.pod.5"
	manBegin = ".\\\" keys: made from internal/podfile/keys\n"
	manEnd   = ".\\\" end of keys\n"
)

// TestFiles: what is made from the table is what is checked in.
func TestFiles(t *testing.T) {
	lists, err := Lists()
	if err != nil {
		t.Fatal(err)
	}
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(manPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), manBegin)
	_, after, ok2 := strings.Cut(rest, manEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the keys", manPage)
	}
	man := before + manBegin + Man() + manEnd + after
	for path, want := range map[string][]byte{"../keylists.go": lists, "pod.schema.json": schema, manPage: []byte(man)} {
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s is not what the table says; run go test ./internal/podfile/keys -update (-want +got):\n%s", path, d)
		}
	}
}

func TestRows(t *testing.T) {
	seen := map[string]bool{}
	known := []string{"string", "path", "name", "identifier", "boolean", "integer", "enum", "pattern", "directives", "list", "map", "object", "any", "scalar"}
	for _, k := range Table() {
		if seen[k.Path] || k.Since == "" || !strings.HasSuffix(k.Text, ".") {
			t.Errorf("row %q is there twice, or lacks a version or a sentence", k.Path)
		}
		seen[k.Path] = true
		for _, a := range alternatives(k.Type) {
			for (a.name == "list" || a.name == "map") && slices.Contains(known, a.name) {
				a = alternatives(a.arg)[0]
			}
			if !slices.Contains(known, a.name) {
				t.Errorf("%s: no such type %q", k.Path, a.name)
			}
		}
	}
}

// TestParserKnows: every key of the table is one that the parser takes at that
// place, and a key beside it that is in no table is one that it warns of.
func TestParserKnows(t *testing.T) {
	for _, k := range Table() {
		unknown := func(path string) bool {
			_, problems := podfile.Parse("web", []podfile.File{{Path: "web.json", Data: []byte(document(path))}})
			for _, p := range problems {
				if strings.HasPrefix(p.Message, "unknown key ") || strings.Contains(p.Message, "not supported") {
					return true
				}
			}
			return false
		}
		if unknown(k.Path) {
			t.Errorf("the parser does not take %s", k.Path)
		}
		object, _ := parent(k.Path)
		if other := strings.TrimPrefix(object+".NoSuchKey", "."); !unknown(other) {
			t.Errorf("the parser takes %s", other)
		}
	}
}

// document is a file with nothing but a key and the objects around it.
func document(path string) string {
	open, end := "{", "}"
	parts := strings.Split(path, ".")
	for i, p := range parts {
		name, list := strings.CutSuffix(p, "[]")
		if name == "NAME" {
			name = "x"
		}
		open += strconv.Quote(name) + ":"
		switch {
		case i == len(parts)-1:
			open += "7"
		case list:
			open, end = open+"[{", "}]"+end
		default:
			open, end = open+"{", "}"+end
		}
	}
	return open + end
}

// TestTableKnows: every key on which the parser's sources decide is in the list
// of its object, which is made from the table.
func TestTableKnows(t *testing.T) {
	order, of := objects(Table())
	lists := map[string][]string{}
	for _, path := range order {
		for _, k := range of[path] {
			_, name := parent(k.Path)
			lists[ListName(path)] = append(lists[ListName(path)], name)
		}
	}
	files, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SwitchStmt)
			if !ok {
				return true
			}
			tag, ok := s.Tag.(*ast.SelectorExpr)
			if !ok || tag.Sel.Name != "Key" {
				return true
			}
			list, cases := "", []string(nil)
			for _, c := range s.Body.List {
				for _, e := range c.(*ast.CaseClause).List {
					if lit, ok := e.(*ast.BasicLit); ok {
						text, _ := strconv.Unquote(lit.Value)
						cases = append(cases, text)
					}
				}
			}
			ast.Inspect(s, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok && len(c.Args) == 3 {
					if f, ok := c.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "unknown" {
						if id, ok := c.Args[2].(*ast.Ident); ok {
							list = id.Name
						}
					}
				}
				return true
			})
			if list == "" {
				return true
			}
			found[list] = true
			slices.Sort(cases)
			want := slices.Sorted(slices.Values(lists[list]))
			if d := cmp.Diff(want, cases); d != "" {
				t.Errorf("%s: %s (-table +parser):\n%s", file, list, d)
			}
			return true
		})
	}
	for _, list := range []string{"podKeys", "appKeys", "rktKeys", "volumeKeys", "portKeys", "sectionKeys"} {
		if !found[list] {
			t.Errorf("no switch of the parser has %s", list)
		}
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("pod.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("pod.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valid judges a file that may have comments as an editor does.
func valid(t *testing.T, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	tree, errs := jsonpos.Decode("x", data)
	if len(errs) > 0 || tree == nil {
		t.Fatalf("no JSON: %v", errs)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(tree.AppendJSON(nil)))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// TestSchema: the schema takes every file of the generator's trees that the
// parser takes without a warning, and drop-ins like them.
func TestSchema(t *testing.T) {
	s := compiled(t)
	n := 0
	root := "../../../generator/testdata"
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, ".json") || !strings.Contains(path, "/in/") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		pod, problems := podfile.Parse(name, []podfile.File{{Path: path, Data: data}})
		if pod == nil || slices.ContainsFunc(problems, func(p podfile.Problem) bool { return strings.HasPrefix(p.Message, "unknown key") }) {
			return nil
		}
		n++
		if err := valid(t, s, data); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Errorf("%d files judged, %v", n, err)
	}
}

// TestAgreement: for single values of every kind, what the parser finds wrong in
// their form the schema does, too, and the other way round.
func TestAgreement(t *testing.T) {
	s := compiled(t)
	for _, c := range agreement() {
		text := []byte(c.text)
		_, problems := podfile.Parse("web", []podfile.File{{Path: "web.json", Data: text}})
		good := len(problems) == 0
		err := valid(t, s, text)
		if good != c.good || (err == nil) != c.good {
			t.Errorf("%s\nparser: %v\nschema: %v\nwant good=%v", text, problems, err, c.good)
		}
	}
}

type agreed struct {
	text string
	good bool
}

func agreement() []agreed {
	var out []agreed
	add := func(format string, good bool, values ...string) {
		for _, v := range values {
			out = append(out, agreed{strings.Replace(format, "@", v, 1), good})
		}
	}
	app := `{"apps":[{"image":"a",@}]}`
	add(app, true, `"name":"x-1"`, `"user":0`, `"user":"www"`, `"exec":["/a",""]`, `"environment":{"A":1,"B":true,"C":"x"}`, `"environment":[{"name":"A"}]`,
		`"isolators":[{"name":"resource/memory","value":{"limit":"1G"}}]`, `"ports":[{"name":"p","port":1,"protocol":"udp","socketActivated":true}]`,
		`"readOnlyRootFS":true`, `"workingDirectory":"/x"`, `"stdin":"tty"`, `"stdout":"log"`, `"supplementaryGIDs":[1,2]`, `"user":null`,
		`"mounts":[{"path":"/x","appVolume":"v,kind=empty"}]`, `"mounts":[{"path":"/x","appVolume":{"name":"v","kind":"host","source":"/"}}]`,
		`"systemd":{"service":{"Restart":"always","RestartSec":5,"LimitNOFILE":["1:2"]},"unit":{"StartLimitBurst":3}}`,
		`"app":{"exec":["/a"],"user":"0","group":"0"}`)
	add(app, false, `"name":"X"`, `"name":7`, `"user":-1`, `"user":[]`, `"exec":"/a"`, `"environment":["A=1"]`, `"environment":{"A":[]}`, `"isolators":[{"name":"resource/memory"}]`,
		`"isolators":{}`, `"ports":[{"port":1}]`, `"ports":[{"name":"p","port":65536}]`, `"ports":[{"name":"p","protocol":"icmp"}]`, `"readOnlyRootFS":"yes"`, `"workingDirectory":"x"`,
		`"stdin":"log"`, `"stdout":"file"`, `"mounts":["x:/y"]`, `"systemd":{"service":{"User":"x"}}`, `"systemd":{"service":{"Restart":{}}}`, `"systemd":{"install":{}}`,
		`"nam":"x"`, `"app":{"exec":["/a"]}`, `"image":{}`[:0]+`"mounts":[{"path":"/x","appVolume":{"kind":"empty"}}]`)
	pod := `{"apps":[{"image":"a"}],@}`
	add(pod, true, `"$schema":"/usr/share/rkt/pod.schema.json"`, `"acKind":"PodManifest"`, `"ports":["http:80","http:127.0.0.1:81"]`, `"ports":[{"name":"h","hostPort":80,"hostIP":"::1","activate":true,"idleTime":"5min"}]`,
		`"volumes":["d,kind=host,source=/srv,readOnly=true"]`, `"volumes":["e,kind=empty,mode=0700,uid=5"]`, `"volumes":[{"name":"e","kind":"empty","mode":"0755","gid":7}]`,
		`"systemd":{"unit":{"After":["a.service","b.service"],"X-Own":1},"service":{"MemoryMax":"1G","Nice":-5},"install":{"WantedBy":"a.target"},"socket":{"ListenStream":80}}`,
		`"rkt":{"net":["a","b:IP=10.0.0.1"],"hostname":"x.y","ipc":"parent","pullPolicy":"never","privateUsers":false,"dns":"1.1.1.1","insecureOptions":"image"}`,
		`"rkt":{"environment":{"A":"b"},"environmentFiles":["/a","-/b"]}`, `"rkt":{"environmentFiles":"/a"}`, `"userLabels":{"a":"b"}`, `"annotations":{"a/b":"c"}`, `"rkt":null`)
	add(pod, false, `"acKind":"Pod"`, `"ports":["80"]`, `"ports":["http:1.2.3.4.5:80"]`, `"ports":[{"hostPort":80}]`, `"volumes":["d"]`, `"volumes":["d,kind=disk"]`, `"volumes":["D,kind=empty"]`,
		`"volumes":["d,kind=empty,size=5"]`, `"volumes":[{"name":"e","kind":"tmpfs"}]`, `"volumes":[{"name":"e","kind":"empty","mode":"0999"}]`, `"systemd":{"service":{"ExecStart":"/x"}}`,
		`"systemd":{"unit":{"a b":"c"}}`, `"systemd":{"units":{}}`, `"rkt":{"ipc":"host"}`, `"rkt":{"hostname":"a_b"}`, `"rkt":{"net":{}}`, `"rkt":{"environmentFiles":"a"}`, `"rkt":{"nett":"x"}`,
		`"userLabels":{"a":5}`, `"annotations":{"a":{}}`, `"apps2":[]`)
	return out
}

// TestSchemaText: the schema is plain JSON and says of every key what it is.
func TestSchemaText(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Fatal("no JSON")
	}
	for _, k := range Table() {
		quoted, err := json.Marshal(k.Text)
		if err != nil {
			t.Fatal(err)
		}
		if part := strings.Trim(string(quoted), `"`); !bytes.Contains(text, []byte(part)) && !strings.ContainsAny(k.Text, "<>&") {
			t.Errorf("nothing of %s: %s", k.Path, k.Text)
		}
	}
}

package stdio

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name  string
		given map[string]string
		want  Modes
		bad   string
	}{
		{"nothing given", nil, Modes{Null, Log, Log}, ""},
		{"stream", map[string]string{AnnotationStdin: "stream", AnnotationStdout: "stream"}, Modes{Stream, Stream, Log}, ""},
		{"tty and null", map[string]string{AnnotationStdin: "tty", AnnotationStdout: "tty", AnnotationStderr: "null"}, Modes{TTY, TTY, Null}, ""},
		{"log explicitly", map[string]string{AnnotationStdin: "null", AnnotationStderr: "log"}, Default(), ""},
		{"stdin cannot log", map[string]string{AnnotationStdin: "log"}, Modes{}, `"log" is no mode of stdin: null, stream and tty are`},
		{"interactive is no choice", map[string]string{AnnotationStdout: "interactive"}, Modes{}, `"interactive" is no mode of stdout: log, null, stream and tty are`},
		{"empty", map[string]string{AnnotationStderr: ""}, Modes{}, AnnotationStderr + `: "" is no mode of stderr`},
		{"case counts", map[string]string{AnnotationStdout: "TTY"}, Modes{}, `"TTY"`},
		{"long", map[string]string{AnnotationStdout: strings.Repeat("x", 1000)}, Modes{}, "x…\""},
	} {
		got, msg := Parse(func(n string) (string, bool) { v, ok := c.given[n]; return v, ok })
		if c.bad != "" {
			if !strings.Contains(msg, c.bad) {
				t.Errorf("%s: %q, want %q in it", c.name, msg, c.bad)
			}
		} else if msg != "" || got != c.want {
			t.Errorf("%s: %+v, %q, want %+v", c.name, got, msg, c.want)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		m    Modes
		want string
	}{
		{Default(), `{"version":1,"targets":[]}`},
		{Modes{Stream, Log, Stream}, `{"version":1,"targets":[{"name":"stdin","domain":"unix","address":"/rkt/iottymux/web/sock-stdin"},{"name":"stderr","domain":"unix","address":"/rkt/iottymux/web/sock-stderr"}]}`},
		{Modes{TTY, TTY, TTY}, `{"version":1,"targets":[{"name":"tty","domain":"unix","address":"/rkt/iottymux/web/sock-tty"}]}`},
		{Modes{Stream, TTY, Null}, `{"version":1,"targets":[{"name":"stdin","domain":"unix","address":"/rkt/iottymux/web/sock-stdin"},{"name":"tty","domain":"unix","address":"/rkt/iottymux/web/sock-tty"}]}`},
	} {
		var b bytes.Buffer
		if err := json.Compact(&b, c.m.Targets("web")); err != nil {
			t.Errorf("%+v: %v", c.m, err)
		}
		if d := cmp.Diff(c.want, b.String()); d != "" {
			t.Errorf("%+v: %s", c.m, d)
		}
	}
	var indented bytes.Buffer
	full := Modes{Stream, Stream, TTY}.Targets("a")
	if err := json.Indent(&indented, bytes.TrimSpace(full), "", "  "); err != nil || indented.String()+"\n" != string(full) {
		t.Errorf("not indented as encoding/json does it: %v\n%s", err, full)
	}
}

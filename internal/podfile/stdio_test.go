package podfile

import (
	"testing"

	"github.com/rkt-systemd/rkt/internal/stdio"
)

func TestStdio(t *testing.T) {
	p, ps := parse("web", `{"apps": [{"image": "example.com/a", "stdin": "stream", "stdout": "tty", "stderr": "null"}, {"image": "example.com/b"}]}`)
	if len(ps) > 0 {
		t.Fatal(lines(ps))
	}
	if got, want := p.Apps[0].Stdio, (stdio.Modes{In: "stream", Out: "tty", Err: "null"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := p.Apps[1].Stdio; got != (stdio.Modes{}) {
		t.Errorf("an app that says nothing: %+v", got)
	}
}

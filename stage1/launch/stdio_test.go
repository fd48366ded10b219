package launch

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/stdio"
)

// TestOutByPath: /dev/stdout and /dev/stderr lead to where the stream goes.
func TestOutByPath(t *testing.T) {
	const fifo = "/run/rkt/out/a"
	link := map[string][2]string{"stdout": {"/proc/self/fd/1", "stdout"}, "stderr": {"/proc/self/fd/2", "stderr"}}
	for _, c := range []struct {
		name         string
		s            Spec
		binds, links []string
	}{
		{"no converted image", Spec{}, nil, []string{"stdout", "stderr"}},
		{"converted image", Spec{Out: fifo}, []string{"stdout", "stderr"}, nil},
		{"one streams", Spec{Out: fifo, Stdout: stdio.Stream}, []string{"stderr"}, []string{"stdout"}},
		{"one is dropped", Spec{Out: fifo, Stderr: stdio.Null}, []string{"stdout"}, []string{"stderr"}},
		{"terminal", Spec{Out: fifo, Stdin: stdio.TTY, Stdout: stdio.TTY, Stderr: stdio.TTY}, nil, []string{"stdout", "stderr"}},
	} {
		binds, links := c.s.outByPath()
		var want [][2]string
		for _, l := range c.links {
			want = append(want, link[l])
		}
		if d := cmp.Diff(c.binds, binds) + cmp.Diff(want, links); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestTermEnv(t *testing.T) {
	t.Setenv("TERM", "vt220")
	for _, c := range []struct {
		name string
		s    Spec
		want string
	}{
		{"no terminal", Spec{Stdout: stdio.Stream}, ""},
		{"terminal", Spec{Stdin: stdio.TTY}, "TERM=xterm"},
		{"the image says", Spec{Stdin: stdio.TTY, Env: []string{"TERM=dumb"}}, ""},
		{"the caller's", Spec{Stdin: stdio.Interactive, Console: ConsoleTTY}, "TERM=vt220"},
		{"the caller's pipes", Spec{Stdin: stdio.Interactive, Console: ConsolePipe}, ""},
	} {
		if got := strings.Join(TermEnv(&c.s), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestStreamWithoutHelper: the launcher does not wait for a helper that is not there.
func TestStreamWithoutHelper(t *testing.T) {
	if _, err := openStream("no-such-app", "stdout", stdio.Stream); err == nil || !strings.Contains(err.Error(), "/rkt/iottymux/no-such-app/stage2-stdout") {
		t.Errorf("error %v", err)
	}
	if _, err := openPty(&Spec{Name: "no-such-app"}); err == nil || !strings.Contains(err.Error(), `the terminal of app "no-such-app"`) {
		t.Errorf("error %v", err)
	}
}

package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/rkt-systemd/rkt/journal"
)

// conversation is a connection whose requests are there already.
type conversation struct {
	io.Reader
	answer bytes.Buffer
}

func (c *conversation) Write(b []byte) (int, error) { return c.answer.Write(b) }

func servingApp(t *testing.T) *app {
	return &app{log: journal.NewLogger("test", "", false), dir: t.TempDir(), systemConfig: t.TempDir(), localConfig: t.TempDir()}
}

func TestServedLogs(t *testing.T) {
	for _, c := range []struct{ request, want string }{
		{`{"args": ["--serve", "web"]}`, "no arguments with --serve"},
		{`{"args": ["--detach", "web"]}`, "--detach is not served"},
		{`{"args": ["--dir=/x", "web"]}`, "unknown flag: --dir"},
		{`{"args": ["--local-config=/x", "web"]}`, "unknown flag"},
		{`{"args": ["00000000-0000-4000-8000-000000000000"]}`, "00000000-0000-4000-8000-000000000000"},
		{`{"args": ["../x"]}`, "../x"},
		{`{"args": []}`, "one pod"},
		{`{"args": ["a", "b"]}`, "one pod"},
	} {
		conn := &conversation{Reader: strings.NewReader(c.request + "\n")}
		a := servingApp(t)
		if err := a.serveLogs(t.Context(), conn); err != nil {
			t.Errorf("%s: %v", c.request, err)
			continue
		}
		var out, errs bytes.Buffer
		client := *a
		client.Stdout, client.Stderr = &out, &errs
		if err := client.copyFrames(&conn.answer); err == nil || out.Len() > 0 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%s: %v, %q, %q, want %q", c.request, err, out.String(), errs.String(), c.want)
		}
	}
	for _, bad := range []string{"", "x\n", `{"args": "x"}` + "\n", strings.Repeat("x", maxLogRequest+1) + "\n"} {
		if err := servingApp(t).serveLogs(t.Context(), &conversation{Reader: strings.NewReader(bad)}); err == nil {
			t.Errorf("%.10q is taken for a request", bad)
		}
	}
	for _, bad := range []string{"", "\x01\x00\x00", "\x01\xff\xff\xff\xff", "\x01\x00\x00\x00\x05abc"} {
		a := servingApp(t)
		a.Stdout, a.Stderr = io.Discard, io.Discard
		if err := a.copyFrames(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for an answer", bad)
		}
	}
}

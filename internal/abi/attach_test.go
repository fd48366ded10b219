package abi

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAttachRoundTrip(t *testing.T) {
	for _, c := range []struct {
		a    Attach
		want string
	}{
		{Attach{Action: AttachList, App: "web"}, "--action=list --app=web --debug=false"},
		{Attach{Action: AttachAuto, App: "web", Debug: true}, "--action=auto-attach --app=web --debug=true"},
		{Attach{Action: AttachCustom, App: "web", Stdin: true, Stderr: true},
			"--action=custom-attach --app=web --debug=false --tty-in=false --tty-out=false --stdin=true --stdout=false --stderr=true"},
		{Attach{Action: AttachCustom, App: "web", TTYOut: true},
			"--action=custom-attach --app=web --debug=false --tty-in=false --tty-out=true --stdin=false --stdout=false --stderr=false"},
	} {
		args := c.a.Args()
		if got := strings.Join(args, " "); got != c.want {
			t.Errorf("Args() = %q, want %q", got, c.want)
		}
		if got, err := ParseAttach(args); err != nil || cmp.Diff(c.a, got) != "" {
			t.Errorf("ParseAttach(%q) = %+v, %v", args, got, err)
		}
	}
	for _, bad := range []string{"--action=list", "--action=all --app=a", "--app=a", "--action=list --app=a --stdin=maybe", "--action=list --app=a extra",
		"--action=custom-attach --app=a", "--action=custom-attach --app=a --stdin=true --tty-in=true"} {
		if got, err := ParseAttach(strings.Fields(bad)); err == nil {
			t.Errorf("ParseAttach(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseAttachMode(t *testing.T) {
	for mode, want := range map[string]Attach{
		"auto": {Action: AttachAuto}, "list": {Action: AttachList}, "stdin": {Action: AttachCustom, Stdin: true},
		"stdout,stderr": {Action: AttachCustom, Stdout: true, Stderr: true}, "tty": {Action: AttachCustom, TTYIn: true, TTYOut: true},
		"tty-out": {Action: AttachCustom, TTYOut: true}, "tty-in,tty-out": {Action: AttachCustom, TTYIn: true, TTYOut: true},
	} {
		if got, err := ParseAttachMode(mode); err != nil || got != want {
			t.Errorf("%q: %+v, %v", mode, got, err)
		}
	}
	for _, bad := range []string{"", ",", "stdin,", "tty,stdin", "stdout,tty-in", "auto,stdin", "list,auto", "STDIN", " stdin", "x"} {
		if got, err := ParseAttachMode(bad); err == nil {
			t.Errorf("%q: %+v, want an error", bad, got)
		}
	}
}

func FuzzParseAttach(f *testing.F) {
	f.Add("--action=list --app=web --debug=false")
	f.Add("--action=custom-attach --app=a --stdin --tty-in=0")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAttach(strings.Fields(s))
		if err != nil {
			return
		}
		again, err := ParseAttach(a.Args())
		if a.Action != AttachCustom { // the rest is not passed on
			a = Attach{Action: a.Action, App: a.App, Debug: a.Debug}
		}
		if err != nil || again != a || slices.Contains(a.Args(), "") {
			t.Errorf("%q: %+v, then %+v, %v", s, a, again, err)
		}
	})
}

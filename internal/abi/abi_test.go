package abi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRunRoundTrip(t *testing.T) {
	full := Run{Debug: true, Net: []string{"a", "b:IP=1.2.3.4"}, Interactive: true, PrivateUsers: "65536:65536", MDSToken: "t",
		LocalConfig: "/etc/rkt", Hostname: "h", DisableCaps: true, DisablePaths: true, DisableSeccomp: true,
		ResolvMode: "stage0", HostsMode: "host", Mutable: true, IPC: "parent", UUID: "u"}
	args, withheld := full.Args(Version)
	if len(withheld) != 0 {
		t.Errorf("withheld %v from the newest version", withheld)
	}
	got, err := ParseRun(args)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(full, got); d != "" {
		t.Error(d)
	}
	for version, want := range map[int][]string{
		1: {"--hostname", "--dns-conf-mode", "--mutable", "--ipc"}, 2: {"--dns-conf-mode", "--mutable", "--ipc"},
		4: {"--mutable", "--ipc"}, 5: {"--ipc"}, 6: nil,
	} {
		if _, got := full.Args(version); cmp.Diff(want, got) != "" {
			t.Errorf("version %d: withheld %v, want %v", version, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown": {"--what", "u"}, "two uuids": {"u", "v"}, "no uuid": {"--debug"}, "ipc": {"--ipc=x", "u"},
		"dns": {"--dns-conf-mode=hosts=none", "u"}, "bool": {"--debug=maybe", "u"},
	} {
		if r, err := ParseRun(args); err == nil {
			t.Errorf("%s: ParseRun(%q) = %+v, want an error", name, args, r)
		}
	}
	for name, args := range map[string][]string{"no pid": {"--", "ls"}, "bad pid": {"--pid=x", "--", "ls"}, "no command": {"--pid=1"}} {
		if e, err := ParseEnter(args); err == nil {
			t.Errorf("%s: ParseEnter(%q) = %+v, want an error", name, args, e)
		}
	}
}

func TestOthersRoundTrip(t *testing.T) {
	e := Enter{PID: 7, App: "web", User: "0:0", Cwd: true, Shell: true, Cmd: []string{"ls", "--", "-l"}}
	args, withheld := e.Args(Version)
	if got, err := ParseEnter(args); err != nil || len(withheld) > 0 || cmp.Diff(e, got) != "" {
		t.Error(got, withheld, err)
	}
	if args, withheld = e.Args(6); cmp.Diff([]string{"--pid=7", "--appname=web", "--", "ls", "--", "-l"}, args) != "" || len(withheld) != 3 {
		t.Error(args, withheld)
	}
	g := GC{Debug: true, LocalConfig: "/x", UUID: "u"}
	if got, err := ParseGC(g.Args(5)); err != nil || cmp.Diff(g, got) != "" {
		t.Error(got, err)
	}
	s := Stop{Force: true, UUID: "u"}
	if got, err := ParseStop(s.Args()); err != nil || cmp.Diff(s, got) != "" {
		t.Error(got, err)
	}
}

package appunit

import (
	"slices"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	in := []Directive{{"Service", "Restart", "on-failure"}, {"Unit", "StartLimitBurst", "3"}, {"Service", "ExecReload", `/bin/kill -HUP "$MAINPID"`}}
	out, err := Decode(Encode(in))
	if err != nil || !slices.Equal(in, out) {
		t.Errorf("%v, %v", out, err)
	}
	for _, bad := range []string{"", "{}", "[1]", `[["Service","Restart"]]`, `[["Service","Restart",1]]`, `[["Install","WantedBy","x"]]`, `[["Service","ExecStart","/x"]]`,
		`[["Service","Restart","no\nExecStart=/evil"]]`, `[["Unit","Description","x"]]`, `[["Service","Nice\n[X]","1"]]`} {
		if out, err := Decode(bad); err == nil {
			t.Errorf("Decode(%s) = %v, want an error", bad, out)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ section, key, value, want string }{
		{"service", "Restart", "always", ""}, {"service", "WatchdogSec", "3s", ""}, {"service", "MemoryMax", "1G", ""}, {"unit", "StartLimitBurst", "3", ""},
		{"service", "Type", "notify", ""}, {"service", "ReloadSignal", "HUP", ""}, {"service", "ReloadSignal", "RTMIN+3", ""},
		{"service", "Type", "oneshot", "Type= is exec"},
		{"service", "ReloadSignal", "HUP; reboot", "is no name of a signal"},
		{"service", "ExecReload", "kill", "absolute path"},
		{"service", "ExecReload", `/bin/sh "x`, "quot"},
		{"service", "User", "x", "see the app's user"}, {"service", "ProtectSystem", "yes", "none of those"},
		{"unit", "After", "x", "only dependencies"}, {"service", "a b", "x", "a b"}, {"service", "Nice", "1\n2", "line break"},
	} {
		got := Check(c.section, c.key, c.value)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("Check(%q, %q, %q) = %q, want %q", c.section, c.key, c.value, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`[["Service","Restart","always"]]`)
	f.Add(`[["Unit","StartLimitBurst","1"],["Service","ExecReload","/x 'y' \\x20"]]`)
	f.Fuzz(func(t *testing.T, s string) {
		ds, err := Decode(s)
		if err != nil {
			return
		}
		again, err := Decode(Encode(ds))
		if err != nil || !slices.Equal(ds, again) {
			t.Errorf("%q: %v, then %v, %v", s, ds, again, err)
		}
	})
}

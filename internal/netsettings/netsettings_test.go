package netsettings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, Subdir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, Subdir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	system, local := t.TempDir(), t.TempDir()
	s, err := Load(system, local)
	if d := cmp.Diff(Settings{NAT: "auto", Firewall: "auto", Timeout: "1m0s"}, s); err != nil || d != "" || s.Wait() != time.Minute {
		t.Errorf("without files: %v\n%s", err, d)
	}
	write(t, system, "10.json", `{"rktKind":"network","rktVersion":"v1","confDirs":["/etc/cni/net.d"],"nat":"iptables","timeout":"5s"}`)
	write(t, local, "10.json", `{"rktKind":"network","rktVersion":"v1","nat":"nftables","pluginDirs":["/opt/x"]}`)
	write(t, local, "20.json", `{"rktKind":"network","rktVersion":"v1","firewall":"off"}`)
	write(t, local, "readme", `no JSON`)
	s, err = Load(system, local)
	want := Settings{ConfDirs: []string{"/etc/cni/net.d"}, PluginDirs: []string{"/opt/x"}, NAT: "nftables", Firewall: "off", Timeout: "5s"}
	if d := cmp.Diff(want, s); err != nil || d != "" || s.Wait() != 5*time.Second {
		t.Errorf("%v\n%s", err, d)
	}
	write(t, local, "30.json", `{"rktKind":"network","rktVersion":"v1","nat":"ipfw"}`)
	if _, err := Load(system, local); err == nil || !strings.Contains(err.Error(), "30.json") || !strings.Contains(err.Error(), `nat is "ipfw"`) {
		t.Errorf("%v, want the file and the key named", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{`: "unexpected EOF", `[]`: "cannot unmarshal", `{}`: `the rktKind is ""`,
		`{"rktKind":"paths","rktVersion":"v1"}`:                          `the rktKind is "paths"`,
		`{"rktKind":"network","rktVersion":"v9"}`:                        `version "v9"`,
		`{"rktKind":"network","rktVersion":"v1","confdir":["/x"]}`:       `unknown field "confdir"`,
		`{"rktKind":"network","rktVersion":"v1","confDirs":["x"]}`:       `confDirs: "x" is not an absolute path`,
		`{"rktKind":"network","rktVersion":"v1","pluginDirs":["/a:/b"]}`: `pluginDirs: "/a:/b" is not an absolute path`,
		`{"rktKind":"network","rktVersion":"v1","firewall":"yes"}`:       `firewall is "yes"`,
		`{"rktKind":"network","rktVersion":"v1","timeout":"60"}`:         `timeout is "60"`,
		`{"rktKind":"network","rktVersion":"v1","timeout":"-1s"}`:        `timeout is "-1s"`,
		`{"rktKind":"network","rktVersion":"v1"} {}`:                     "more than one JSON value",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"rktKind":"network","rktVersion":"v1","confDirs":["/etc/cni/net.d"],"nat":"iptables","timeout":"5s"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		if s = Default().Overlay(s); s.check() != nil || s.Wait() <= 0 || s.Wait() > maxTimeout {
			t.Errorf("%s: %+v", b, s)
		}
	})
}

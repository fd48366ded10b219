package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetwork: settings of networks are those of the system and the
// administrator, and are printed.
func TestNetwork(t *testing.T) {
	d := Dirs{System: t.TempDir(), Local: t.TempDir(), User: t.TempDir()}
	for dir, text := range map[string]string{d.System: `"nat":"iptables","timeout":"5s"`, d.Local: `"nat":"nftables"`, d.User: `"nat":"auto"`} {
		if err := os.Mkdir(filepath.Join(dir, "network.d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "network.d/a.json"), []byte(`{"rktKind":"network","rktVersion":"v1",`+text+`}`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.JSON(false)
	if want := `{"rktVersion":"v1","rktKind":"network","nat":"nftables","timeout":"5s"}`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("%s, %v, want %s", b, err, want)
	}
}

package entrypoint

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

func filterOf(t *testing.T, p filtergen.Policy) plan.Filter {
	t.Helper()
	key, err := p.Key()
	if err != nil {
		t.Fatal(err)
	}
	return plan.Filter{Key: key, Policy: p}
}

func TestFilterCache(t *testing.T) {
	data := t.TempDir()
	c := newFilterCache(filepath.Join(data, "pods/run/x"))
	if want := filepath.Join(data, "filters"); c.dir != want {
		t.Fatalf("cache at %q, want %q", c.dir, want)
	}
	f := filterOf(t, filtergen.App())
	want, trouble, err := c.program(f)
	if err != nil || trouble != nil {
		t.Fatal(err, trouble)
	}
	file := filepath.Join(c.dir, f.Key)
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(c.dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	// Another policy under the name: it is the kept program that comes.
	if got, trouble, err := c.program(plan.Filter{Key: f.Key}); err != nil || trouble != nil || !bytes.Equal(got, want) {
		t.Errorf("not taken from the cache: %v, %v", err, trouble)
	}
	for name, damaged := range map[string][]byte{"empty": nil, "cut": kept[:len(kept)-8], "only a sum": kept[:32], "changed": slices.Concat(kept[:40], []byte{1}, kept[41:]), "huge": make([]byte, 1<<20)} {
		if err := os.WriteFile(file, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		got, trouble, err := c.program(f)
		if err != nil || trouble == nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, err, trouble)
		}
		if again, _ := os.ReadFile(file); !bytes.Equal(again, kept) {
			t.Errorf("%s: not repaired", name)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", file); err != nil {
		t.Fatal(err)
	}
	if got, trouble, err := c.program(f); err != nil || trouble == nil || !bytes.Equal(got, want) {
		t.Errorf("a link: %v, %v", err, trouble)
	}
}

func TestFilterCacheElsewhere(t *testing.T) {
	// Where a cache cannot be, filters are compiled all the same.
	for _, c := range []filterCache{newFilterCache("/somewhere/x"), {dir: "/proc/none"}} {
		if prog, _, err := c.program(filterOf(t, filtergen.App())); err != nil || len(prog) == 0 {
			t.Errorf("%q: %v", c.dir, err)
		}
	}
}

// TestFilterCacheRaces: many at once, of more filters than are kept.
func TestFilterCacheRaces(t *testing.T) {
	c := filterCache{filepath.Join(t.TempDir(), "filters")}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range cacheSize {
				p := filtergen.Policy{Deny: []string{"read"}, DenyWith: 0x50000 | uint32(1+i/2+worker%2*500)}
				key, err := p.Key()
				if err == nil {
					_, _, err = c.program(plan.Filter{Key: key, Policy: p})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(c.dir)
	if err != nil || len(entries) > cacheSize+8 {
		t.Errorf("%d files are kept: %v", len(entries), err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestDisks(t *testing.T) {
	dir := t.TempDir()
	for name, real := range map[string]bool{"sda": true, "vda": true, "loop0": false, "dm-0": false} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "dev"), []byte(fmt.Sprintf("%d:0\n", len(name))), 0o644); err != nil {
			t.Fatal(err)
		}
		if real {
			if err := os.Symlink("..", filepath.Join(dir, name, "device")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := disks(dir); !slices.Equal(got, []string{"3:0", "3:0"}) {
		t.Errorf("disks = %q", got)
	}
}

func TestAppArmor(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	profiles := put("profiles", "rkt-web (enforce)\n/usr/bin/a b (complain)\n")
	if on, got := apparmor(put("on", "Y\n"), profiles); !on || !slices.Equal(got, []string{"rkt-web", "/usr/bin/a b"}) {
		t.Errorf("%t, %q", on, got)
	}
	if on, _ := apparmor(put("off", "N\n"), profiles); on {
		t.Error("AppArmor is off and taken for on")
	}
	if on, _ := apparmor(filepath.Join(dir, "none"), profiles); on {
		t.Error("AppArmor is missing and taken for on")
	}
}

package sources

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/stage0/podimport"
)

// TestGolden imports every directory of testdata as rkt pod import DIR does. What
// comes of it passes the check of pod files without an error. -update writes the
// golden files anew.
func TestGolden(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/*")
	dirs = slices.DeleteFunc(dirs, func(d string) bool { return strings.HasSuffix(d, ".golden") })
	if err != nil || len(dirs) < 20 {
		t.Fatal(len(dirs), err)
	}
	containers := 0
	for _, dir := range dirs {
		found, _ := filepath.Glob(dir + "/*.container")
		containers += len(found)
		t.Run(dir, func(t *testing.T) {
			r, err := Convert(context.Background(), []string{dir}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := render(t, r)
			golden := filepath.Clean(dir) + ".golden"
			if update() {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
			again, err := Convert(context.Background(), []string{dir}, Options{})
			if err != nil || render(t, again) != got {
				t.Errorf("it is not the same each time: %v", err)
			}
		})
	}
	if containers < 20 {
		t.Errorf("%d containers", containers)
	}
}

func update() bool { return flag.Lookup("update").Value.String() == "true" }

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write golden files anew")
	flag.Parse()
	os.Exit(m.Run())
}

func render(t *testing.T, r *podimport.Result) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range r.Files {
		fmt.Fprintf(&b, "==> %s %04o\n%s\n", f.Path, f.Mode, f.Text)
	}
	for _, p := range r.Pods {
		text, problems, err := p.File.Bytes(p.Name)
		if err != nil {
			t.Errorf("%s\n%v", text, err)
		}
		for _, pr := range problems {
			t.Errorf("%v", pr)
		}
		fmt.Fprintf(&b, "==> %s.json\n%s\n", p.Name, text)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(&b, n)
	}
	return strings.ReplaceAll(b.String(), here, "HERE")
}

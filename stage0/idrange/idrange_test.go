package idrange

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

func pod(t *testing.T, data, phase, name string) string {
	t.Helper()
	dir := filepath.Join(data, "pods", phase, name)
	for _, d := range []string{dir, filepath.Join(data, "locks")} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// The host's users and their subordinate ids, nspawn's picks and the records
// of pods in every state leave one range: that one is found.
func TestAllocate(t *testing.T) {
	data, etc := t.TempDir(), t.TempDir()
	const free = 0x70050000
	// all of both regions but the first six ranges of the first
	sub := file(t, etc, "subuid", fmt.Sprintf("a:%d:%d\nbroken\n:::\nb:%d:%d\n", 0x70060000, 0x7FFE0000-0x70060000, 0x10000, 0x6FFF0000))
	passwd := file(t, etc, "passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\nodd:x:%d:0::/:/bin/sh\nx\n", 0x70000001))
	group := file(t, etc, "group", fmt.Sprintf("g:x:%d:\n", 0x7001FFFF))
	nspawn := filepath.Join(etc, "nspawn-uid")
	if err := os.Mkdir(nspawn, 0o755); err != nil {
		t.Fatal(err)
	}
	file(t, nspawn, fmt.Sprint(0x70020000), "")
	file(t, pod(t, data, podfs.Prepared, "a"), podfs.PrivateUsers, abi.IDRange{Shift: 0x70030000, Count: Count}.String())
	file(t, pod(t, data, podfs.ExitedGarbage, "b"), podfs.PrivateUsers, abi.IDRange{Shift: 0x70040000, Count: Count}.String()+"\n")
	file(t, pod(t, data, podfs.Run, "unreadable"), podfs.PrivateUsers, "what")
	h := Host{Users: []string{passwd, group, filepath.Join(etc, "missing")}, Subordinate: []string{sub}, Nspawn: nspawn}
	dir := pod(t, data, podfs.Prepare, "new")
	r, err := Allocate(h, data, dir)
	if err != nil || r != (abi.IDRange{Shift: free, Count: Count}) {
		t.Fatalf("got %#x, %v, want %#x", r.Shift, err, free)
	}
	if got, err := Of(dir); err != nil || got != r {
		t.Errorf("recorded is %v, %v", got, err)
	}
	if _, err := Allocate(h, data, pod(t, data, podfs.Prepare, "more")); err == nil || !strings.Contains(err.Error(), "rkt gc") {
		t.Errorf("with nothing free: %v", err)
	}
	// the range is free when the pod's directory is gone, and not before
	garbage := pod(t, data, podfs.Garbage, "new")
	if err := os.RemoveAll(garbage); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, garbage); err != nil {
		t.Fatal(err)
	}
	if _, err := Allocate(h, data, pod(t, data, podfs.Prepare, "more")); err == nil {
		t.Error("the range of a pod that is being removed was given away")
	}
	if err := os.RemoveAll(garbage); err != nil {
		t.Fatal(err)
	}
	if r, err := Allocate(h, data, pod(t, data, podfs.Prepare, "more")); err != nil || r.Shift != free {
		t.Errorf("after the removal: %v, %v", r, err)
	}
}

func TestOf(t *testing.T) {
	dir := t.TempDir()
	if r, err := Of(dir); err != nil || r.Count != 0 {
		t.Errorf("without a record: %v, %v", r, err)
	}
	file(t, dir, podfs.PrivateUsers, "0:65536")
	if _, err := Of(dir); err == nil {
		t.Error("a bad record is taken")
	}
}

// TestProcess is a process of TestProcesses.
func TestProcess(t *testing.T) {
	data, name := os.Getenv("IDRANGE_DATA"), os.Getenv("IDRANGE_POD")
	if data == "" {
		t.Skip("run by TestProcesses")
	}
	for i := range 20 {
		if _, err := Allocate(System(), data, pod(t, data, podfs.Prepare, fmt.Sprintf("%s-%d", name, i))); err != nil {
			t.Fatal(err)
		}
	}
}

// Processes at the same time, one of them killed, get ranges of their own.
func TestProcesses(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestProcess$")
			cmd.Env = append(os.Environ(), "IDRANGE_DATA="+data, fmt.Sprintf("IDRANGE_POD=p%d", i))
			if i == 0 { // dies at some point
				if err := cmd.Start(); err != nil {
					t.Error(err)
				}
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				return
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	seen := map[string]string{}
	records, err := filepath.Glob(filepath.Join(data, "pods", "*", "*", podfs.PrivateUsers))
	if err != nil || len(records) < 100 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, r := range records {
		b, err := os.ReadFile(r)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(b)]; ok {
			t.Errorf("%s and %s have %s", r, other, b)
		}
		seen[string(b)] = r
	}
}

func FuzzSubordinate(f *testing.F) {
	f.Add("a:100000:65536\n")
	f.Add("a:18446744073709551615:18446744073709551615\nb:1:0\n")
	f.Add("root:4294967295:2")
	f.Fuzz(func(t *testing.T, text string) {
		taken := map[uint32]bool{}
		_ = subordinate(strings.NewReader(text), taken)
		_ = users(strings.NewReader(text), taken)
		if len(taken) > 1<<16 {
			t.Errorf("%d ranges", len(taken))
		}
	})
}

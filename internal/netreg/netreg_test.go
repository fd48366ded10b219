package netreg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rkt-systemd/rkt/internal/hostsfile"
	"github.com/rkt-systemd/rkt/internal/lock"
	"github.com/rkt-systemd/rkt/internal/podfs"
)

func id(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// host is a register and a data directory's pods.
type host struct {
	t         *testing.T
	dir, pods string
}

func newHost(t *testing.T) host {
	top := t.TempDir()
	return host{t, filepath.Join(top, "run/rkt/net"), filepath.Join(top, "data/pods")}
}

// pod makes a pod directory with a hosts file and its record.
func (h host) pod(n int, names []string, networks ...Network) *Record {
	h.t.Helper()
	r := &Record{UUID: id(n), Pod: filepath.Join(h.pods, podfs.Run, id(n)), Machine: "m", Names: names, Networks: networks, Hosts: true}
	if err := MakeHosts(r, []byte(hostsfile.Fallback(names[0]))); err != nil {
		h.t.Fatal(err)
	}
	h.with(func(l *Locked) error { return l.Publish(r) })
	return r
}

func (h host) with(f func(l *Locked) error) {
	h.t.Helper()
	l, err := Lock(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	defer l.Unlock()
	if err := f(l); err != nil {
		h.t.Fatal(err)
	}
}

// peers is the part of a pod's hosts file that names others.
func (h host) peers(r *Record) string {
	h.t.Helper()
	b, err := os.ReadFile(r.HostsFile())
	if err != nil {
		h.t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(string(b), hostsfile.Fallback(r.Names[0]))
	if !ok {
		h.t.Errorf("the beginning of the file is changed:\n%s", b)
	}
	_, lines, _ := strings.Cut(rest, "rkt.\n")
	return lines
}

func TestNames(t *testing.T) {
	h := newHost(t)
	a := h.pod(1, []string{"a"}, Network{"x", []string{"10.0.0.2", "fd00::2"}}, Network{"y", []string{"10.1.0.2"}})
	b := h.pod(2, []string{"b", "www.b"}, Network{"y", []string{"10.1.0.3", "fd01::3"}}, Network{"x", []string{"10.0.0.3", "fd00::3"}})
	c := h.pod(3, []string{"c", "LocalHost"}, Network{"y", []string{"10.1.0.4"}})
	d := h.pod(4, []string{"d"}, Network{"z", []string{"10.2.0.2"}})
	e := h.pod(5, []string{"a"}, Network{"y", []string{"10.1.0.5"}}) // the name of another
	f := h.pod(6, []string{"f"}, Network{"y", nil})                  // not joined yet
	check := func(what string, r *Record, want string) {
		t.Helper()
		if diff := cmp.Diff(want, h.peers(r)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("a: b in the first network of a's, c in the second; its own name is its own", a, "10.0.0.3 b www.b\nfd00::3 b www.b\n10.1.0.4 c\n")
	check("b: in its own order", b, "10.1.0.2 a\n10.1.0.5 a\n10.1.0.4 c\n")
	check("c: no IPv6", c, "10.1.0.2 a\n10.1.0.5 a\n10.1.0.3 b www.b\n")
	check("d: alone", d, "")
	check("e", e, "10.1.0.3 b www.b\n10.1.0.4 c\n")
	check("f: has no address", f, "")

	before, err := os.Stat(a.HostsFile())
	if err != nil {
		t.Fatal(err)
	}
	h.with(func(l *Locked) error { return l.Leave(b) })
	check("a without b", a, "10.1.0.4 c\n")
	check("c without b", c, "10.1.0.2 a\n10.1.0.5 a\n")
	after, err := os.Stat(a.HostsFile())
	if err != nil || !os.SameFile(before, after) {
		t.Error("the file was replaced, which the apps do not see")
	}
	h.with(func(l *Locked) error { return l.Hide(c) })
	check("a without c", a, "")
	if r, err := Lookup(h.dir, c.UUID); err != nil || r == nil || r.Networks[0].IPs != nil {
		t.Errorf("a hidden pod's record: %+v, %v", r, err)
	}
	// A pod that is gone is no reason to stop; a link in its place is not followed.
	victim := filepath.Join(t.TempDir(), "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("x\n"), 0o644), os.Remove(e.HostsFile()), os.Symlink(victim, e.HostsFile())); err != nil {
		t.Fatal(err)
	}
	l, err := Lock(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	g := &Record{UUID: id(7), Pod: filepath.Join(h.pods, podfs.Run, id(7)), Names: []string{"g"}, Networks: []Network{{"y", []string{"10.1.0.9"}}}}
	if err := l.Publish(g); err == nil || !strings.Contains(err.Error(), e.UUID) {
		t.Errorf("%v, want an error for the link", err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "x\n" {
		t.Errorf("a link was followed: %q", b)
	}
	check("a with g all the same", a, "10.1.0.9 g\n")
}

// TestManyPods holds the time under the lock to what a hundred pods can bear.
func TestManyPods(t *testing.T) {
	h := newHost(t)
	var last *Record
	const pods = 100
	var longest time.Duration
	for n := range pods {
		start := time.Now()
		last = h.pod(n, []string{fmt.Sprintf("pod-%d", n)}, Network{"default", []string{fmt.Sprintf("172.16.28.%d", n+2)}})
		longest = max(longest, time.Since(start))
	}
	if got := strings.Count(h.peers(last), "\n"); got != pods-1 {
		t.Errorf("%d names, want %d", got, pods-1)
	}
	t.Logf("joining took up to %v", longest)
	start := time.Now()
	h.with(func(l *Locked) error { return l.Leave(last) })
	t.Logf("leaving took %v", time.Since(start))
	if longest > time.Second {
		t.Errorf("joining took up to %v", longest)
	}
}

// TestBroken: files that are no records, or hostile ones, are left out.
func TestBroken(t *testing.T) {
	h := newHost(t)
	h.pod(1, []string{"a"})
	pod := func(n int) string { return filepath.Join(h.pods, podfs.Run, id(n)) }
	for i, text := range []string{"", "{", `{"pod":"/else/where"}`, `{"pod":"` + pod(3) + `"}` /* another's */, "\x00", "[]",
		`{"pod":"` + pod(8) + `","netns":"/run/netns/../../etc/passwd"}`,
		`{"pod":"` + pod(9) + `","netns":"/etc"}`,
		`{"pod":"` + pod(10) + `","names":["a\n10.0.0.1 evil"]}`,
		`{"pod":"` + pod(11) + `","networks":[{"name":"../x","ips":["10.0.0.1"]}]}`,
		`{"pod":"` + pod(12) + `","networks":[{"name":"x","ips":["10.0.0.1 evil"]}]}`,
		`{"pod":"` + pod(13) + `","x":"` + strings.Repeat("x", maxRecord) + `"}`,
		`{"pod":"` + filepath.Dir(pod(14)) + "/./" + id(14) + `"}`,
	} {
		if err := os.WriteFile(filepath.Join(h.dir, id(2+i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(h.dir, id(90)), 0o700), os.Symlink("/dev/zero", filepath.Join(h.dir, id(91))),
		os.WriteFile(filepath.Join(h.dir, "."+id(92)+".tmp123"), []byte("{"), 0o600), os.WriteFile(filepath.Join(h.dir, ".lock-default"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	h.with(func(l *Locked) error {
		all, err := l.All()
		if len(all) != 1 || all[0].UUID != id(1) {
			t.Errorf("%d records are taken for good", len(all))
		}
		if len(l.Broken) != 13+3 {
			t.Errorf("broken: %q", l.Broken)
		}
		return err
	})
	if err := os.MkdirAll(pod(1), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(pod(4), 0o755); err != nil { // its tear-down removes the record
		t.Fatal(err)
	}
	var log []string
	s := Sweep{Dir: h.dir, Pods: h.pods, Log: func(s string) { log = append(log, s) }}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".lock", ".lock-default", id(1), id(4)}, names); diff != "" {
		t.Error(diff)
	}
	n := len(log)
	if err := s.Run(t.Context()); err != nil || len(log) != n {
		t.Errorf("the second sweep: %v, %q", err, log[n:])
	}
}

func TestPutRefuses(t *testing.T) {
	h := newHost(t)
	l, err := Lock(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	for _, r := range []*Record{{UUID: "x", Pod: "/x"}, {UUID: id(1), Pod: "/x/" + id(2)}, {UUID: id(1), Pod: "/x/" + id(1), Netns: "/etc/passwd"}, {UUID: id(1), Pod: "/x/" + id(1), Names: []string{"a b"}}} {
		if err := l.Put(r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{"web": true, "rkt-1": true, "a.b": true, "4web": true, "": false, "a_b": false, "web@1": false, "-a": false, "a-": false, "a..b": false,
		"10.0.0.1": false, "10": false, "a b": false, "a#": false, "a\n": false, strings.Repeat("a", 65): false, strings.Repeat("a.", 140) + "a": false} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestSweep(t *testing.T) {
	h := newHost(t)
	leases := filepath.Join(filepath.Dir(h.pods), "cni")
	lease := func(network, ip string, n int) string {
		name := filepath.Join(leases, network, ip)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(id(n)+"\r\neth0"), 0o644)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	here := h.pod(1, []string{"here"}, Network{"x", []string{"10.0.0.2"}})
	gone := h.pod(2, []string{"gone"}, Network{"x", []string{"10.0.0.3"}})
	marked := h.pod(3, []string{"marked"}, Network{"x", []string{"10.0.0.4"}})
	other := h.pod(4, []string{"other"}, Network{"x", []string{"10.0.0.5"}})
	other.Pod = filepath.Join(filepath.Dir(filepath.Dir(h.pods)), "mnt/pods/run", id(4)) // on a disk that is not there
	h.with(func(l *Locked) error { return l.Put(other) })
	stay := []string{lease("x", "10.0.0.2", 1), lease("x", "10.0.0.4", 3), lease("x", "10.0.0.5", 4), lease("x", "10.0.0.77", 77)}
	go1, go2, go3 := lease("x", "10.0.0.3", 2), lease("x", "10.0.0.66", 66), lease("gone", "fd00::9", 66)
	foreign := filepath.Join(leases, "x", "10.0.0.99")
	if err := os.WriteFile(foreign, []byte("k8s-pod\r\neth0"), 0o644); err != nil {
		t.Fatal(err)
	}
	stay = append(stay, foreign)
	// a host-local that was killed before it wrote whose the address is
	empty := []string{filepath.Join(leases, "x", "10.0.0.100"), filepath.Join(leases, "gone", "10.0.0.100")}
	for _, name := range empty {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.RemoveAll(gone.Pod), os.MkdirAll(filepath.Join(h.pods, podfs.Prepared, id(77)), 0o755),
		os.MkdirAll(filepath.Join(h.pods, podfs.ExitedGarbage), 0o755), os.Rename(marked.Pod, filepath.Join(h.pods, podfs.ExitedGarbage, id(3)))); err != nil {
		t.Fatal(err)
	}
	var log []string
	s := Sweep{Dir: h.dir, Pods: h.pods, LeaseDirs: []string{leases}, Log: func(s string) { log = append(log, s) }}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range stay {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range append(empty, go1, go2, go3) {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s stays", name)
		}
	}
	if len(log) != 4 {
		t.Errorf("log: %q", log)
	}
	if got := h.peers(here); strings.Contains(got, "gone") || !strings.Contains(got, "10.0.0.5 other") {
		t.Errorf("hosts file:\n%s", got)
	}
	h.with(func(l *Locked) error {
		all, err := l.All()
		if len(all) != 3 {
			t.Errorf("%d records", len(all))
		}
		return err
	})
	log = nil
	if err := s.Run(t.Context()); err != nil || len(log) > 0 {
		t.Errorf("the second sweep: %v, %q", err, log)
	}
}

func TestAlive(t *testing.T) {
	h := newHost(t)
	r := h.pod(1, []string{"a"})
	if r.Alive() {
		t.Error("nobody holds the lock")
	}
	f, err := lock.Dir(r.Pod, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Alive() {
		t.Error("the lock is held")
	}
	to := filepath.Join(h.pods, podfs.ExitedGarbage, r.UUID)
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.Rename(r.Pod, to)); err != nil {
		t.Fatal(err)
	}
	if !r.Alive() {
		t.Error("the lock is held; the pod has moved")
	}
	f.Close()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if r.Alive() {
		t.Error("the pod is gone")
	}
}

// TestProcesses: many processes join and leave at once, some are killed.
func TestProcesses(t *testing.T) {
	if dir := os.Getenv("NETREG_TEST_DIR"); dir != "" {
		child(t, dir)
		return
	}
	h := newHost(t)
	watcher := h.pod(9999, []string{"watcher"}, Network{"x", []string{"10.0.255.255"}})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			if n%2 == 1 { // killed at any moment
				ctx, cancel = context.WithTimeout(t.Context(), time.Duration(100+40*n)*time.Millisecond)
			}
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestProcesses$")
			cmd.Env = append(os.Environ(), "NETREG_TEST_DIR="+h.dir, "NETREG_TEST_PODS="+h.pods, fmt.Sprint("NETREG_TEST_N=", n))
			if out, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil {
				t.Errorf("process %d: %v\n%s", n, err, out)
			}
		}()
	}
	wg.Wait()
	// What the killed ones have left is whole, and a sweep finds it.
	if err := os.RemoveAll(filepath.Join(h.pods, podfs.Run)); err != nil {
		t.Fatal(err)
	}
	if err := MakeHosts(watcher, []byte(hostsfile.Fallback("watcher"))); err != nil {
		t.Fatal(err)
	}
	s := Sweep{Dir: h.dir, Pods: h.pods, Log: func(string) {}}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.with(func(l *Locked) error {
		all, err := l.All()
		if len(all) != 1 || len(l.Broken) > 0 {
			t.Errorf("%d records, broken: %q", len(all), l.Broken)
		}
		return err
	})
	if got := h.peers(watcher); got != "" {
		t.Errorf("names stay:\n%s", got)
	}
}

func child(t *testing.T, dir string) {
	h := host{t, dir, os.Getenv("NETREG_TEST_PODS")}
	var n int
	if err := json.Unmarshal([]byte(os.Getenv("NETREG_TEST_N")), &n); err != nil {
		t.Fatal(err)
	}
	for round := range 50 {
		r := h.pod(100*(n+1)+round, []string{fmt.Sprintf("p%d-%d", n, round)}, Network{"x", []string{fmt.Sprintf("10.0.%d.%d", n, round)}})
		if got := h.peers(r); !strings.Contains(got, "10.0.255.255 watcher\n") {
			t.Errorf("hosts file lacks the watcher:\n%s", got)
		}
		h.with(func(l *Locked) error { return l.Leave(r) })
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"pod":"/p/00000000-0000-4000-8000-000000000001","names":["a"],"netns":"/run/netns/a","networks":[{"name":"x","ips":["10.0.0.1"]}],"hosts":true}`))
	f.Add([]byte(`{"ports":[{"hostPort":1e9}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, id(1)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Lookup(dir, id(1))
		if err != nil {
			return
		}
		if r.Netns != "" && (filepath.Dir(r.Netns) != NamespaceDir || filepath.Clean(r.Netns) != r.Netns) {
			t.Errorf("namespace %q", r.Netns)
		}
		text := hostsfile.WithPeers([]byte("127.0.0.1 localhost\n"), entries(&Record{UUID: id(2), Networks: r.Networks}, peers([]*Record{r})))
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 0 && f[0] != "#" && len(f) < 2 {
				t.Errorf("line %q", line)
			}
		}
	})
}

package filtergen

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

func TestResolve(t *testing.T) {
	errnoAnswer := func(e unix.Errno) uint32 { return uint32(unix.SECCOMP_RET_ERRNO) | uint32(e) }
	for _, c := range []struct {
		name string
		Isolator
		kind                   Kind
		allowed, denied, unset string // a call each
		deny, unknown          uint32
		warnings               int
		err                    string
	}{
		{name: "retain all", Isolator: Isolator{Retain: true, Set: []string{"read", "@appc.io/all"}}, kind: None},
		{name: "remove empty", Isolator: Isolator{Set: []string{"read", "@appc.io/empty"}}, kind: Default},
		{name: "remove all", Isolator: Isolator{Set: []string{"@appc.io/all"}}, err: "no call to start the app"},
		{name: "retain, kill", Isolator: Isolator{Retain: true, Set: []string{"read"}}, kind: Own, allowed: "read", denied: "write", deny: filter.KillProcess, unknown: filter.ENOSYS},
		{name: "retain has the calls that start an app", Isolator: Isolator{Retain: true, Set: []string{"@appc.io/empty"}, Errno: "EPERM"}, kind: Own,
			allowed: "execve", denied: "open", deny: filter.EPERM, unknown: filter.ENOSYS},
		{name: "remove, errno", Isolator: Isolator{Set: []string{"mkdir"}, Errno: "EXDEV"}, kind: Own, allowed: "mount", denied: "mkdir", deny: errnoAnswer(unix.EXDEV), unknown: filter.Allow},
		{name: "second name of an errno", Isolator: Isolator{Set: []string{"mkdir"}, Errno: "EWOULDBLOCK"}, kind: Own, allowed: "read", denied: "mkdir", deny: errnoAnswer(unix.EAGAIN), unknown: filter.Allow},
		{name: "unknown errno", Isolator: Isolator{Set: []string{"mkdir"}, Errno: "EX"}, err: `"EX" is the name of no error`},
		{name: "group of systemd", Isolator: Isolator{Set: []string{"@systemd/clock"}}, kind: Own, allowed: "read", denied: "settimeofday", deny: filter.KillProcess, unknown: filter.Allow},
		{name: "group of groups", Isolator: Isolator{Retain: true, Set: []string{"@systemd/system-service"}}, kind: Own, allowed: "mkdir", denied: "mount", deny: filter.KillProcess, unknown: filter.ENOSYS},
		{name: "deny list", Isolator: Isolator{Set: []string{"@docker/default-blacklist"}, Errno: "EPERM"}, kind: Own, allowed: "mkdir", denied: "fsopen", deny: filter.EPERM, unknown: filter.Allow},
		{name: "allow list", Isolator: Isolator{Retain: true, Set: []string{"@rkt/default-whitelist", "mount"}, Errno: "EPERM"}, kind: Own, allowed: "mount", denied: "unshare", deny: filter.EPERM, unknown: filter.ENOSYS},
		{name: "unknown names", Isolator: Isolator{Set: []string{"mkdir", "nosuch", "@nosuch", "@systemd/nosuch", "@x/y"}}, kind: Own, allowed: "read", denied: "mkdir",
			deny: filter.KillProcess, unknown: filter.Allow, warnings: 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind, p, warnings, err := c.Resolve()
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || kind != c.kind || len(warnings) != c.warnings {
				t.Fatalf("Resolve = %v, %q, %v", kind, warnings, err)
			}
			if kind != Own {
				return
			}
			prog := compile(t, p)
			for _, abi := range []string{"x86-64", "x32", "i386"} {
				for call, want := range map[string]uint32{c.allowed: filter.Allow, c.denied: c.deny} {
					archID, nr, ok := number(t, abi, call)
					if !ok {
						t.Fatalf("%s has no %s", abi, call)
					}
					if got, err := prog.Run(archID, nr, [6]uint64{}); err != nil || got != want {
						t.Errorf("%s %s: %#x, %v, want %#x", abi, call, got, err, want)
					}
				}
			}
			if got, _ := prog.Run(ArchX86_64, 1000, [6]uint64{}); got != c.unknown {
				t.Errorf("call 1000: %#x, want %#x", got, c.unknown)
			}
		})
	}
}

// TestCarried: what socketcall and ipc of the 32-bit entry carry is judged by
// its own name.
func TestCarried(t *testing.T) {
	_, deny, _, err := Isolator{Set: []string{"connect", "sendto", "shmat"}, Errno: "EPERM"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	_, allow, _, err := Isolator{Retain: true, Set: []string{"connect", "sendto", "shmat"}, Errno: "EPERM"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	_, whole, _, err := Isolator{Retain: true, Set: []string{"socketcall", "ipc"}, Errno: "EPERM"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	d, a, w := compile(t, deny), compile(t, allow), compile(t, whole)
	for _, c := range []struct {
		nr                uint32
		carried           uint64
		denying, allowing uint32
	}{
		{102, 3, filter.EPERM, filter.Allow},  // connect
		{102, 1, filter.Allow, filter.EPERM},  // socket
		{102, 11, filter.EPERM, filter.Allow}, // sendto
		{102, 9, filter.EPERM, filter.EPERM},  // send: forbidden with sendto, not allowed with it
		{102, 99, filter.Allow, filter.EPERM},
		{117, 21, filter.EPERM, filter.Allow},         // shmat
		{117, 1<<16 | 21, filter.EPERM, filter.Allow}, // another version of it
		{117, 1, filter.Allow, filter.EPERM},          // semop
	} {
		args := [6]uint64{c.carried}
		for _, x := range []struct {
			name string
			prog filter.Program
			want uint32
		}{{"denying", d, c.denying}, {"allowing", a, c.allowing}, {"naming the carrier", w, filter.Allow}} {
			if got, err := x.prog.Run(ArchI386, c.nr, args); err != nil || got != x.want {
				t.Errorf("%s, %d carrying %d: %#x, %v, want %#x", x.name, c.nr, c.carried, got, err, x.want)
			}
		}
	}
}

func TestGroups(t *testing.T) {
	for name := range systemdSets() {
		list := systemd(name)
		for _, n := range list {
			if !Known(n) {
				t.Errorf("%s has %q, which is not known", name, n)
			}
		}
		if len(list) == 0 && !slices.Contains([]string{"@pkey"}, name) {
			t.Errorf("%s is empty", name)
		}
	}
	for _, n := range defaultDenied() {
		if !Known(n) {
			t.Errorf("the default deny list has %q, which is not known", n)
		}
	}
	for _, names := range capCalls() {
		for _, n := range names {
			if !Known(n) {
				t.Errorf("a capability opens %q, which is not known", n)
			}
		}
	}
}

// TestKey: equal policies have one name, others another.
func TestKey(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range []Policy{Pod(), App(), {Allow: []string{"read"}}, {Deny: []string{"read"}}, {Deny: []string{"read"}, Carried: true}, {Deny: []string{"read"}, DenyWith: filter.EPERM}} {
		a, err := p.Key()
		b, _ := p.Key()
		if err != nil || a != b || seen[a] || len(a) != 64 {
			t.Errorf("Key = %q, %q, %v", a, b, err)
		}
		seen[a] = true
	}
}

func BenchmarkCompile(b *testing.B) {
	p := App().Widen([]string{"mlock"})
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKey(b *testing.B) {
	p := App().Widen([]string{"mlock"})
	for b.Loop() {
		if _, err := p.Key(); err != nil {
			b.Fatal(err)
		}
	}
}

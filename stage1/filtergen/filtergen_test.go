package filtergen

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

func compile(t *testing.T, p Policy) filter.Program {
	t.Helper()
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

// number finds a call by name; abi is x86-64, x32 or i386.
func number(t *testing.T, abi, name string) (archID, nr uint32, ok bool) {
	t.Helper()
	find := func(m map[int]string) (uint32, bool) {
		for n, have := range m {
			if have == name {
				return uint32(n), true
			}
		}
		return 0, false
	}
	switch abi {
	case "x86-64":
		nr, ok = find(arch.X86_64.SyscallNumbers)
		return ArchX86_64, nr, ok
	case "x32":
		nr, ok = find(x32Numbers())
		return ArchX86_64, nr | X32Bit, ok
	}
	nr, ok = find(arch.I386.SyscallNumbers)
	return ArchI386, nr, ok
}

func TestKnownCalls(t *testing.T) {
	programs := map[string]filter.Program{"pod": compile(t, Pod()), "app": compile(t, App())}
	for _, c := range []struct {
		call     string
		pod, app uint32
	}{
		{"read", filter.Allow, filter.Allow},
		{"execve", filter.Allow, filter.Allow},
		{"clone3", filter.Allow, filter.Allow},
		{"openat2", filter.Allow, filter.Allow},
		{"futex", filter.Allow, filter.Allow},
		{"mount", filter.Allow, filter.EPERM},
		{"unshare", filter.Allow, filter.EPERM},
		{"setns", filter.Allow, filter.EPERM},
		{"ptrace", filter.Allow, filter.EPERM},
		{"io_uring_setup", filter.Allow, filter.EPERM},
		{"name_to_handle_at", filter.Allow, filter.EPERM},
		{"reboot", filter.Allow, filter.EPERM},
		{"bpf", filter.EPERM, filter.EPERM},
		{"keyctl", filter.EPERM, filter.EPERM},
		{"kexec_load", filter.EPERM, filter.EPERM},
		{"init_module", filter.EPERM, filter.EPERM},
		{"open_by_handle_at", filter.EPERM, filter.EPERM},
		{"perf_event_open", filter.EPERM, filter.EPERM},
		{"settimeofday", filter.EPERM, filter.EPERM},
		{"swapon", filter.EPERM, filter.EPERM},
	} {
		for _, abi := range []string{"x86-64", "x32", "i386"} {
			archID, nr, ok := number(t, abi, c.call)
			if !ok {
				t.Errorf("%s has no %s", abi, c.call)
				continue
			}
			for what, want := range map[string]uint32{"pod": c.pod, "app": c.app} {
				if got, err := programs[what].Run(archID, nr, [6]uint64{}); err != nil || got != want {
					t.Errorf("%s filter, %s %s (%d): %#x, %v, want %#x", what, abi, c.call, nr, got, err, want)
				}
			}
		}
	}
}

// TestWholeTable compares the compiled search with the lists it was made of,
// for every number and some beyond.
func TestWholeTable(t *testing.T) {
	for name, p := range map[string]Policy{"pod": Pod(), "app": App()} {
		prog := compile(t, p)
		for _, a := range []struct {
			abi   string
			id    uint32
			bit   uint32
			names map[int]string
		}{{"x86-64", ArchX86_64, 0, arch.X86_64.SyscallNumbers}, {"x32", ArchX86_64, X32Bit, x32Numbers()}, {"i386", ArchI386, 0, arch.I386.SyscallNumbers}} {
			for nr := range 1200 {
				want := filter.ENOSYS
				switch n := a.names[nr]; {
				case n == "":
				case slices.Contains(p.Allow, n):
					want = filter.Allow
				case slices.Contains(p.Deny, n):
					want = filter.EPERM
				}
				if got, err := prog.Run(a.id, uint32(nr)|a.bit, [6]uint64{}); err != nil || got != want {
					t.Fatalf("%s filter, %s %q (%d): %#x, %v, want %#x", name, a.abi, a.names[nr], nr, got, err, want)
				}
			}
		}
	}
}

func TestOtherArchitectures(t *testing.T) {
	prog := compile(t, Pod())
	for _, id := range []uint32{0, 1, 0xc00000b7, ArchX86_64 ^ 1} {
		if got, err := prog.Run(id, 0, [6]uint64{}); err != nil || got != filter.KillProcess {
			t.Errorf("architecture %#x: %#x, %v, want the process killed", id, got, err)
		}
	}
}

func TestAudit(t *testing.T) {
	prog := compile(t, Pod())
	for _, abi := range []string{"x86-64", "x32", "i386"} {
		archID, nr, _ := number(t, abi, "socket")
		for _, c := range []struct {
			family, proto uint64
			want          uint32
		}{
			{unix.AF_NETLINK, unix.NETLINK_AUDIT, filter.EAFNOSUPPORT}, {unix.AF_NETLINK, unix.NETLINK_ROUTE, filter.Allow},
			{unix.AF_INET, unix.NETLINK_AUDIT, filter.Allow}, {unix.AF_UNIX, 0, filter.Allow},
		} {
			if got, err := prog.Run(archID, nr, [6]uint64{c.family, unix.SOCK_RAW, c.proto}); err != nil || got != c.want {
				t.Errorf("%s socket(%d, _, %d): %#x, %v, want %#x", abi, c.family, c.proto, got, err, c.want)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, p := range []Policy{{Allow: []string{"raed"}}, {Deny: []string{"read", ""}}} {
		if _, err := Compile(p); err == nil || !strings.Contains(err.Error(), "no system call") {
			t.Errorf("Compile(%v): %v, want an unknown name", p, err)
		}
	}
}

// TestPolicies: no call in both lists, none twice; the app's is the pod's with
// less allowed.
func TestPolicies(t *testing.T) {
	pod, app := Pod(), App()
	for name, p := range map[string]Policy{"pod": pod, "app": app} {
		all := slices.Concat(p.Allow, p.Deny)
		slices.Sort(all)
		if n := len(slices.Compact(slices.Clone(all))); n != len(all) {
			t.Errorf("policy %s names a call twice", name)
		}
	}
	for _, n := range app.Allow {
		if !slices.Contains(pod.Allow, n) {
			t.Errorf("an app may %s, its pod may not", n)
		}
	}
	for _, n := range appDenied() {
		if !slices.Contains(pod.Allow, n) {
			t.Errorf("%s is denied to apps though no pod has it", n)
		}
	}
	if len(pod.Allow)+len(pod.Deny) != len(app.Allow)+len(app.Deny) {
		t.Error("the app's policy knows other calls than the pod's")
	}
}

// TestPrograms: both fit the kernel's limit, and every jump stays inside.
func TestPrograms(t *testing.T) {
	for name, p := range map[string]Policy{"pod": Pod(), "app": App(), "empty": {}} {
		prog := compile(t, p)
		if len(prog) > unix.BPF_MAXINSNS/2 {
			t.Errorf("%s: %d instructions", name, len(prog))
		}
		for pc, in := range prog {
			to := []int{pc + 1}
			switch {
			case in.Code == unix.BPF_RET|unix.BPF_K:
				continue
			case in.Code == unix.BPF_JMP|unix.BPF_JA:
				to = []int{pc + 1 + int(in.K)}
			case in.Code&7 == unix.BPF_JMP:
				to = []int{pc + 1 + int(in.Jt), pc + 1 + int(in.Jf)}
			}
			for _, n := range to {
				if n >= len(prog) {
					t.Errorf("%s: instruction %d goes to %d of %d", name, pc, n, len(prog))
				}
			}
		}
	}
}

func TestName(t *testing.T) {
	for want, c := range map[string][2]uint32{"read": {ArchX86_64, 0}, "restart_syscall": {ArchI386, 0}, "": {ArchX86_64, 100000}} {
		if got := Name(c[0], c[1]); got != want {
			t.Errorf("Name(%#x, %d) = %q, want %q", c[0], c[1], got, want)
		}
	}
	if got := Name(ArchX86_64, X32Bit|520); got != "execve" {
		t.Errorf("x32 call 520 is %q", got)
	}
}

func ExampleCompile() {
	p, err := Compile(Policy{Allow: []string{"read"}, Deny: []string{"mount"}})
	if err != nil {
		panic(err)
	}
	for _, nr := range []uint32{0, 165, 1} {
		answer, _ := p.Run(ArchX86_64, nr, [6]uint64{})
		fmt.Printf("%s %#x\n", Name(ArchX86_64, nr), answer)
	}
	// Output:
	// read 0x7fff0000
	// mount 0x50001
	// write 0x50026
}

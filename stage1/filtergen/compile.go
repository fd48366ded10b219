// Package filtergen compiles lists of system call names into filter programs,
// in pure Go, for x86-64 with its 32-bit and x32 entry points. The filters of
// most pods are compiled when the stage1 image is made; those of apps with
// system call isolators before their pod starts, once per filter.
package filtergen

import (
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// Audit architectures and the x32 bit (linux/audit.h, asm/unistd.h).
const (
	ArchX86_64 = 0xc000003e
	ArchI386   = 0x40000003
	X32Bit     = 0x40000000
)

// Policy says what a filter answers, by system call name.
type Policy struct {
	// Allow lists the calls that pass.
	Allow []string
	// Deny lists calls that do not; DenyWith is their answer, 0 for EPERM.
	Deny     []string
	DenyWith uint32
	// Default answers calls that are in neither list, Unknown numbers that this
	// package has no name for. 0 is ENOSYS, as if the kernel did not have them.
	Default, Unknown uint32
	// Carried has the 32-bit entry's socketcall and ipc answered as the calls
	// they carry. A list that names them covers all they carry.
	Carried bool
	// BlockAudit answers EAFNOSUPPORT when a netlink audit socket is made, as
	// systemd-nspawn does: the audit subsystem knows no namespaces.
	BlockAudit bool
}

// offsets in struct seccomp_data
const (
	offNr   = 0
	offArch = 4
	offArg0 = 16
	offArg2 = 32
)

// Compile makes the program. A name that no architecture knows is an error: a
// typing mistake must not open or close anything silently.
func Compile(p Policy) (filter.Program, error) {
	for _, n := range slices.Concat(p.Allow, p.Deny) {
		if !Known(n) {
			return nil, fmt.Errorf("no system call is named %q", n)
		}
	}
	p.DenyWith, p.Default, p.Unknown = or(p.DenyWith, filter.EPERM), or(p.Default, filter.ENOSYS), or(p.Unknown, filter.ENOSYS)
	x64 := table(arch.X86_64.SyscallNumbers, p, 0)
	x32 := table(x32Numbers(), p, X32Bit)
	i386 := table(arch.I386.SyscallNumbers, p, 0)

	native := slices.Concat(p.audit(41, 0), search(x64))
	wide := slices.Concat(p.audit(41, X32Bit), search(x32))
	compat := slices.Concat(p.audit(359, 0), p.carried(), search(i386))

	var b filter.Program
	b = append(b, load(offArch))
	b = append(b, jeq(ArchX86_64, 1), ja(len(native)+len(wide)+2+1))
	b = append(b, load(offNr))
	b = append(b, filter.Insn{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: X32Bit, Jt: 0, Jf: 1}, ja(len(native)))
	b = append(b, native...)
	b = append(b, wide...)
	b = append(b, jeq(ArchI386, 1), ret(filter.KillProcess), load(offNr))
	b = append(b, compat...)
	if len(b) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("filter of %d instructions is too long", len(b))
	}
	return b, nil
}

func or(v, otherwise uint32) uint32 {
	if v == 0 {
		return otherwise
	}
	return v
}

// Known says whether a name is one of a system call, or of a call that only
// the 32-bit entry's socketcall carries.
func Known(name string) bool {
	_, a := arch.X86_64.SyscallNames[name]
	_, b := arch.I386.SyscallNames[name]
	return a || b || name == "send" || name == "recv"
}

func (p Policy) audit(socket uint32, bit uint32) filter.Program {
	if !p.BlockAudit {
		return nil
	}
	return filter.Program{
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: socket | bit, Jt: 0, Jf: 6},
		load(offArg0),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_NETLINK, Jt: 0, Jf: 3},
		load(offArg2),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.NETLINK_AUDIT, Jt: 0, Jf: 1},
		ret(filter.EAFNOSUPPORT),
		load(offNr),
	}
}

// x32Numbers is the x32 table (the kernel's syscall_64.tbl): the numbers below
// 512 are those of x86-64, except for calls that pass pointers or longs in
// memory, which have numbers of their own from 512 on, and calls that x32
// never had.
func x32Numbers() map[int]string {
	own := map[string]bool{"uselib": true, "_sysctl": true, "create_module": true, "get_kernel_syms": true, "query_module": true,
		"vserver": true, "nfsservctl": true, "epoll_ctl_old": true, "epoll_wait_old": true, "set_thread_area": true, "get_thread_area": true}
	for nr, name := range arch.X32.SyscallNumbers {
		if nr >= 512 {
			own[name] = true
		}
	}
	out := map[int]string{}
	for nr, name := range arch.X32.SyscallNumbers {
		if nr >= 512 || !own[name] {
			out[nr] = name
		}
	}
	return out
}

// span answers act for all numbers from first up to the next span's first.
type span struct{ first, act uint32 }

func (p Policy) answers() map[string]uint32 {
	act := map[string]uint32{}
	for _, n := range p.Deny {
		act[n] = p.DenyWith
	}
	for _, n := range p.Allow {
		act[n] = filter.Allow
	}
	return act
}

func table(names map[int]string, p Policy, bit uint32) []span {
	act := p.answers()
	nums := make([]int, 0, len(names))
	for nr := range names {
		nums = append(nums, nr)
	}
	slices.Sort(nums)
	spans := []span{{0, p.Unknown}}
	put := func(first, a uint32) {
		if spans[len(spans)-1].act == a {
			return
		}
		if spans[len(spans)-1].first == first {
			spans = spans[:len(spans)-1]
			if len(spans) > 0 && spans[len(spans)-1].act == a {
				return
			}
		}
		spans = append(spans, span{first, a})
	}
	next := 0
	for _, nr := range nums {
		if nr != next {
			put(uint32(next)|bit, p.Unknown)
		}
		a, ok := act[names[nr]]
		if !ok {
			a = p.Default
		}
		put(uint32(nr)|bit, a)
		next = nr + 1
	}
	put(uint32(next)|bit, p.Unknown)
	return spans
}

// search compiles spans to a binary search that always answers.
func search(s []span) filter.Program {
	if len(s) == 1 {
		return filter.Program{ret(s[0].act)}
	}
	mid := len(s) / 2
	lower, upper := search(s[:mid]), search(s[mid:])
	head := filter.Insn{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: s[mid].first}
	if len(lower) <= 255 {
		head.Jt = uint8(len(lower))
		return slices.Concat(filter.Program{head}, lower, upper)
	}
	head.Jf = 1
	return slices.Concat(filter.Program{head, ja(len(lower))}, lower, upper)
}

func load(off uint32) filter.Insn {
	return filter.Insn{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}
func ret(v uint32) filter.Insn { return filter.Insn{Code: unix.BPF_RET | unix.BPF_K, K: v} }
func ja(n int) filter.Insn     { return filter.Insn{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)} }

// jeq skips n instructions when the accumulator equals k.
func jeq(k uint32, n uint8) filter.Insn {
	return filter.Insn{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: n}
}

// Name is the name of a system call number, "" if there is none.
func Name(archID, nr uint32) string {
	switch {
	case archID == ArchI386:
		return arch.I386.SyscallNumbers[int(nr)]
	case nr&X32Bit != 0:
		return x32Numbers()[int(nr&^X32Bit)]
	}
	return arch.X86_64.SyscallNumbers[int(nr)]
}

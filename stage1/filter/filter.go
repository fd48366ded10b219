// Package filter holds compiled system call filters: classic BPF programs made
// ahead of time, read from a file and installed as they are. Compiling lists
// of names belongs to package filtergen and happens when the stage1 image is
// built. Only rkt-stage2, inside the pod, installs filters.
package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Return values of a filter (seccomp(2)).
const (
	Allow = uint32(unix.SECCOMP_RET_ALLOW)
	EPERM = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	// ENOSYS is what a kernel without the call would say: programs that probe
	// for newer calls then take the older way.
	ENOSYS       = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
	EAFNOSUPPORT = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EAFNOSUPPORT)
	KillProcess  = uint32(unix.SECCOMP_RET_KILL_PROCESS)
)

// Insn is one BPF instruction (struct sock_filter).
type Insn struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// Program is a filter.
type Program []Insn

const insnSize = 8

// Marshal encodes the program in the byte order of little-endian machines.
func (p Program) Marshal() []byte {
	b := make([]byte, 0, len(p)*insnSize)
	for _, i := range p {
		b = binary.LittleEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.LittleEndian.AppendUint32(b, i.K)
	}
	return b
}

// Parse is the inverse of Marshal.
func Parse(b []byte) (Program, error) {
	if len(b) == 0 || len(b)%insnSize != 0 || len(b)/insnSize > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%d bytes are not a filter program", len(b))
	}
	p := make(Program, len(b)/insnSize)
	for n := range p {
		c := b[n*insnSize:]
		p[n] = Insn{binary.LittleEndian.Uint16(c), c[2], c[3], binary.LittleEndian.Uint32(c[4:])}
	}
	return p, nil
}

// Read reads a program from a file.
func Read(path string) (Program, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("reading filter %q: %w", path, err)
	}
	return p, nil
}

// Install puts the program on the calling thread, which must be locked to its
// goroutine, and on everything it executes. It needs CAP_SYS_ADMIN or
// no_new_privs. Several programs stack; the strictest answer wins.
func (p Program) Install() error {
	fprog := unix.SockFprog{Len: uint16(len(p)), Filter: (*unix.SockFilter)(unsafe.Pointer(&p[0]))}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog))); e != 0 {
		return fmt.Errorf("installing a filter of %d instructions: %w", len(p), e)
	}
	return nil
}

// Run evaluates the program for one call: arch is an AUDIT_ARCH value, nr the
// number with the x32 bit where it applies. Tests compare filters with it.
func (p Program) Run(arch, nr uint32, args [6]uint64) (uint32, error) {
	var data [64]byte
	binary.LittleEndian.PutUint32(data[0:], nr)
	binary.LittleEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[16+8*i:], a)
	}
	var acc uint32
	var mem [16]uint32
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		jump := func(cond bool) {
			if cond {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K > 60 {
				return 0, errors.New("load outside the call's data")
			}
			acc = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(acc == in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(acc > in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(acc >= in.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(acc&in.K != 0)
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_ST:
			mem[in.K%16] = acc
		case unix.BPF_LD | unix.BPF_MEM:
			acc = mem[in.K%16]
		case unix.BPF_RET | unix.BPF_K:
			return in.K, nil
		default:
			return 0, fmt.Errorf("instruction %#x at %d is not known", in.Code, pc)
		}
	}
	return 0, errors.New("program ends without an answer")
}

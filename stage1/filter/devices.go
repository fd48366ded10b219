package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Access to a device node (linux/bpf.h).
const (
	DeviceMake  = uint32(1)
	DeviceRead  = uint32(2)
	DeviceWrite = uint32(4)
)

// Device is a rule: who matches it may do what Access says.
type Device struct {
	Block    bool
	Major    uint32
	Minor    uint32
	AnyMinor bool
	Access   uint32
}

// maxDevices bounds a list; a program has far less than the kernel's limit then.
const maxDevices = 256

// ParseDevices reads rules as lines of TYPE MAJOR:MINOR ACCESS, like those of
// cgroup v1: "c 1:3 rwm", "c 136:* rw", "b 8:0 r".
func ParseDevices(text string) ([]Device, error) {
	var out []Device
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		bad := fmt.Errorf("%q is not TYPE MAJOR:MINOR ACCESS", strings.TrimSpace(line))
		if len(f) != 3 || f[0] != "c" && f[0] != "b" || len(out) == maxDevices {
			return nil, bad
		}
		d := Device{Block: f[0] == "b"}
		major, minor, ok := strings.Cut(f[1], ":")
		a, err1 := strconv.ParseUint(major, 10, 12)
		b, err2 := strconv.ParseUint(minor, 10, 20)
		if d.AnyMinor = minor == "*"; d.AnyMinor {
			err2 = nil
		}
		if !ok || err1 != nil || err2 != nil {
			return nil, bad
		}
		d.Major, d.Minor = uint32(a), uint32(b)
		for _, c := range f[2] {
			switch c {
			case 'm':
				d.Access |= DeviceMake
			case 'r':
				d.Access |= DeviceRead
			case 'w':
				d.Access |= DeviceWrite
			default:
				return nil, bad
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// insn is an instruction of the extended BPF (struct bpf_insn).
type insn struct {
	op   uint8
	regs uint8 // source register in the upper half
	off  int16
	imm  int32
}

func (i insn) bytes(b []byte) []byte {
	b = append(b, i.op, i.regs)
	b = binary.LittleEndian.AppendUint16(b, uint16(i.off))
	return binary.LittleEndian.AppendUint32(b, uint32(i.imm))
}

// deviceProgram compiles rules: 1 allows, 0 does not (struct bpf_cgroup_dev_ctx
// has access<<16|type, major, minor).
func deviceProgram(rules []Device) []insn {
	const (
		load, and, shift, move = 0x61, 0x57, 0x77, 0xb7 // of 32 bits from memory; of 64 bits by a constant
		copyReg, jumpNot, exit = 0xbf, 0x55, 0x95
	)
	p := []insn{
		{op: load, regs: 1<<4 | 2},
		{op: load, regs: 1<<4 | 4, off: 4},
		{op: load, regs: 1<<4 | 5, off: 8},
		{op: copyReg, regs: 2<<4 | 3},
		{op: and, regs: 2, imm: 0xffff}, // type
		{op: shift, regs: 3, imm: 16},   // access
	}
	for _, d := range rules {
		kind := int32(2)
		if d.Block {
			kind = 1
		}
		body := []insn{{op: jumpNot, regs: 2, imm: kind}, {op: jumpNot, regs: 4, imm: int32(d.Major)}}
		if !d.AnyMinor {
			body = append(body, insn{op: jumpNot, regs: 5, imm: int32(d.Minor)})
		}
		body = append(body, insn{op: copyReg, regs: 3<<4 | 1}, insn{op: and, regs: 1, imm: int32(^d.Access & 7)}, insn{op: jumpNot, regs: 1},
			insn{op: move, imm: 1}, insn{op: exit})
		for i := range body {
			if body[i].op == jumpNot {
				body[i].off = int16(len(body) - i - 1)
			}
		}
		p = append(p, body...)
	}
	return append(p, insn{op: move}, insn{op: exit})
}

// ConfineDevices lets the processes of a control group make and open device
// nodes by these rules only, besides what its parents allow. It ends with the
// group; it needs CAP_SYS_ADMIN, and does not compare with what a program in
// the group could do later: that would need the same.
func ConfineDevices(cgroup string, rules []Device) error {
	var code []byte
	prog := deviceProgram(rules)
	for _, i := range prog {
		code = i.bytes(code)
	}
	license := []byte("GPL\x00")
	// The kernel is given their addresses as numbers, which the garbage collector does not follow.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	load := struct {
		kind, count                  uint32
		insns, license               uint64
		logLevel, logSize            uint32
		log                          uint64
		kernel, flags                uint32
		name                         [16]byte
		ifindex, expectedAttachKinds uint32
	}{kind: 15 /* BPF_PROG_TYPE_CGROUP_DEVICE */, count: uint32(len(prog)), insns: uint64(uintptr(unsafe.Pointer(&code[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0]))), expectedAttachKinds: attachDevice}
	copy(load.name[:], "rkt_devices")
	// The kernel gives up a load, EAGAIN, whenever a signal is pending, and Go's
	// scheduler sends some to its own threads. Each try is as likely to end well.
	var fd uintptr
	var e unix.Errno
	for range loadTries {
		if fd, _, e = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load)); e != unix.EAGAIN {
			break
		}
	}
	if e != 0 {
		return fmt.Errorf("loading the device rules: %w", e)
	}
	defer unix.Close(int(fd))
	dir, err := unix.Open(cgroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening control group %q: %w", cgroup, err)
	}
	defer unix.Close(dir)
	attach := struct{ target, prog, kind, flags uint32 }{uint32(dir), uint32(fd), attachDevice, unix.BPF_F_ALLOW_MULTI}
	if _, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); e != 0 {
		return fmt.Errorf("setting the device rules of control group %q: %w", cgroup, e)
	}
	return nil
}

const (
	attachDevice = 6 // BPF_CGROUP_DEVICE
	loadTries    = 100
)

// ReadDevices reads a file of rules; without one there are none.
func ReadDevices(name string) ([]Device, bool, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	d, err := ParseDevices(string(b))
	if err != nil {
		return nil, false, fmt.Errorf("reading device rules %q: %w", name, err)
	}
	return d, true, nil
}

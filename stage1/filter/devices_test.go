package filter

import (
	"strings"
	"testing"
)

// run interprets the few instructions that device programs have.
func run(t *testing.T, p []insn, access, major, minor uint32, block bool) bool {
	t.Helper()
	kind := uint64(2)
	if block {
		kind = 1
	}
	ctx := map[int16]uint64{0: uint64(access)<<16 | kind, 4: uint64(major), 8: uint64(minor)}
	var r [11]uint64
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		dst, src := in.regs&15, in.regs>>4
		switch in.op {
		case 0x61:
			r[dst] = ctx[in.off]
		case 0xbf:
			r[dst] = r[src]
		case 0x57:
			r[dst] &= uint64(int64(in.imm))
		case 0x77:
			r[dst] >>= uint(in.imm)
		case 0xb7:
			r[dst] = uint64(in.imm)
		case 0x55:
			if r[dst] != uint64(int64(in.imm)) {
				pc += int(in.off)
			}
		case 0x95:
			return r[0] == 1
		default:
			t.Fatalf("instruction %#x at %d", in.op, pc)
		}
	}
	t.Fatal("the program does not end")
	return false
}

func TestDeviceRules(t *testing.T) {
	rules, err := ParseDevices("c 1:3 rwm\nc 136:* rw\n\nb 8:16 r\nc 5:2 rw\nc 10:229 m\nc 10:229 r\n")
	if err != nil {
		t.Fatal(err)
	}
	p := deviceProgram(rules)
	for _, c := range []struct {
		block        bool
		major, minor uint32
		access       uint32
		want         bool
	}{
		{false, 1, 3, DeviceMake, true},
		{false, 1, 3, DeviceRead | DeviceWrite, true},
		{true, 1, 3, DeviceRead, false},
		{false, 1, 4, DeviceRead, false},
		{false, 136, 0, DeviceRead | DeviceWrite, true},
		{false, 136, 1 << 19, DeviceWrite, true},
		{false, 136, 7, DeviceMake, false},
		{false, 137, 0, DeviceRead, false},
		{true, 8, 16, DeviceRead, true},
		{true, 8, 16, DeviceWrite, false},
		{true, 8, 16, DeviceRead | DeviceWrite, false},
		{true, 8, 0, DeviceRead, false},
		{false, 5, 2, DeviceMake, false},
		{false, 5, 2, DeviceRead | DeviceWrite, true},
		{false, 10, 229, DeviceMake, true},
		{false, 10, 229, DeviceRead, true},
		{false, 10, 229, DeviceWrite, false},
		{false, 10, 237, DeviceMake, false},
	} {
		if got := run(t, p, c.access, c.major, c.minor, c.block); got != c.want {
			t.Errorf("block %t %d:%d access %d: %t, want %t", c.block, c.major, c.minor, c.access, got, c.want)
		}
	}
	if run(t, deviceProgram(nil), DeviceRead, 1, 3, false) {
		t.Error("no rules allow something")
	}
}

func TestParseDevicesRefuses(t *testing.T) {
	for _, bad := range []string{"c 1:3", "x 1:3 rw", "c 1 rw", "c a:b rw", "c 1:3 rwx", "c -1:3 r", "c 99999:1 r", "c *:* r", "c 1:3 rw more", strings.Repeat("c 1:3 r\n", maxDevices+1)} {
		if got, err := ParseDevices(bad); err == nil {
			t.Errorf("ParseDevices(%.20q) = %v, want an error", bad, got)
		}
	}
}

func FuzzParseDevices(f *testing.F) {
	f.Add("c 1:3 rwm\nb 8:* r")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := ParseDevices(text)
		if err != nil {
			return
		}
		for _, r := range rules {
			if !run(t, deviceProgram(rules), r.Access, r.Major, r.Minor, r.Block) {
				t.Errorf("rule %+v is not carried out", r)
			}
		}
	})
}

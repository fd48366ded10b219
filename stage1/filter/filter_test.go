package filter

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	ld  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jeq = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	ret = unix.BPF_RET | unix.BPF_K
)

// sample denies call 5 and allows the others.
func sample() Program {
	return Program{{Code: ld}, {Code: jeq, K: 5, Jf: 1}, {Code: ret, K: EPERM}, {Code: ret, K: Allow}}
}

func TestMarshalParse(t *testing.T) {
	p := sample()
	b := p.Marshal()
	if len(b) != 8*len(p) {
		t.Fatalf("%d bytes for %d instructions", len(b), len(p))
	}
	q, err := Parse(b)
	if err != nil || !slices.Equal(p, q) {
		t.Errorf("Parse(Marshal(%v)) = %v, %v", p, q, err)
	}
	file := filepath.Join(t.TempDir(), "x.bpf")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if q, err = Read(file); err != nil || !slices.Equal(p, q) {
		t.Errorf("Read = %v, %v", q, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, b := range map[string][]byte{"empty": nil, "part of an instruction": make([]byte, 12), "too long": make([]byte, 8*(unix.BPF_MAXINSNS+1))} {
		if p, err := Parse(b); err == nil {
			t.Errorf("%s: Parse gives %d instructions, want an error", name, len(p))
		}
	}
	if _, err := Parse(make([]byte, 8*unix.BPF_MAXINSNS)); err != nil {
		t.Errorf("a program of the largest size: %v", err)
	}
	file := filepath.Join(t.TempDir(), "bad.bpf")
	if err := os.WriteFile(file, []byte("bad"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Read of a bad file: %v, want the file named", err)
	}
	if _, err := Read(file + ".missing"); err == nil {
		t.Error("Read of no file gives no error")
	}
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		nr, want uint32
	}{{5, EPERM}, {4, Allow}, {6, Allow}} {
		if got, err := sample().Run(0, c.nr, [6]uint64{}); err != nil || got != c.want {
			t.Errorf("Run(%d) = %#x, %v, want %#x", c.nr, got, err, c.want)
		}
	}
	for name, p := range map[string]Program{
		"no answer":             {{Code: ld}},
		"jump out":              {{Code: unix.BPF_JMP | unix.BPF_JA, K: 1 << 30}},
		"load out of the call":  {{Code: ld, K: 64}},
		"unknown instruction":   {{Code: 0xffff}},
		"conditional jump past": {{Code: jeq, Jt: 255, Jf: 255}},
	} {
		if got, err := p.Run(0, 0, [6]uint64{}); err == nil {
			t.Errorf("%s: Run = %#x, want an error", name, got)
		}
	}
}

// FuzzRun: whatever a file holds, evaluating it ends, with an answer or an error.
func FuzzRun(f *testing.F) {
	f.Add(sample().Marshal(), uint32(5))
	f.Add(Program{{Code: unix.BPF_JMP | unix.BPF_JA, K: 1<<32 - 2}}.Marshal(), uint32(0))
	f.Add(Program{{Code: unix.BPF_ST, K: 77}, {Code: unix.BPF_LD | unix.BPF_MEM, K: 99}, {Code: ret}}.Marshal(), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, nr uint32) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		if !slices.Equal(p.Marshal(), b) {
			t.Error("Marshal(Parse(b)) is not b")
		}
		_, _ = p.Run(nr, nr, [6]uint64{uint64(nr)})
	})
}

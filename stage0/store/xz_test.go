package store

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// TestXZ reads what other programs write, and nothing that is damaged.
func TestXZ(t *testing.T) {
	plain := bytes.Repeat([]byte("some text, and more of it; "), 20000)
	var lib bytes.Buffer
	w, err := xz.NewWriter(&lib)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	w.Close()
	streams := map[string][]byte{"library": lib.Bytes(), "two streams": append(append(bytes.Clone(lib.Bytes()), 0, 0, 0, 0), lib.Bytes()...)}
	for _, args := range []string{"-6", "-9 --check=sha256", "-0 --check=crc32 --block-size=65536", "-T2 --check=none --block-size=131072"} {
		cmd := exec.Command("xz", append(strings.Fields(args), "-c")...)
		cmd.Stdin = bytes.NewReader(plain)
		out, err := cmd.Output()
		if err != nil {
			t.Logf("xz %s: %v", args, err)
			continue
		}
		streams[args] = out
	}
	for name, data := range streams {
		read := func(data []byte) ([]byte, error) {
			r, err := newXZ(bufio.NewReader(bytes.NewReader(data)))
			if err != nil {
				return nil, err
			}
			return io.ReadAll(r)
		}
		want := plain
		if name == "two streams" {
			want = append(bytes.Clone(plain), plain...)
		}
		if got, err := read(data); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes: %v", name, len(got), err)
		}
		for _, cut := range []int{1, 4, 13, len(data) / 2} {
			if got, err := read(data[:len(data)-cut]); err == nil {
				t.Errorf("%s: cut by %d: accepted, %d bytes", name, cut, len(got))
			}
		}
		for at := 0; at < len(data); at += 1 + len(data)/500 {
			bad := bytes.Clone(data)
			bad[at] ^= 1
			if got, err := read(bad); err == nil && !bytes.Equal(got, want) {
				t.Errorf("%s: changed at %d: accepted", name, at)
			}
		}
	}
}

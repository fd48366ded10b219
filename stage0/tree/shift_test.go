package tree

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rkt-systemd/rkt/internal/sys"
)

func TestCopyShifted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const shift = 0x70000000
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	want := map[string]uint32{"root": shift, "user": shift + 1000, "last": shift + 65535, "far": shift + 65534}
	for name, id := range map[string]int{"root": 0, "user": 1000, "last": 65535, "far": 1 << 20} {
		p := filepath.Join(src, name)
		if err := os.WriteFile(p, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(p, id, id); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, 0o4755); err != nil {
			t.Fatal(err)
		}
	}
	if err := CopyShifted(t.Context(), []string{src}, dst, shift, 65536); err != nil {
		t.Fatal(err)
	}
	for name, id := range want {
		before, err := sys.Lstatat(sys.CWD, filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		st, err := sys.Lstatat(sys.CWD, filepath.Join(dst, name))
		if err != nil || st.UID != id || st.GID != id || st.Mode != before.Mode {
			t.Errorf("%s: %d:%d %o, %v, want %d and %o", name, st.UID, st.GID, st.Mode, err, id, before.Mode)
		}
	}
	if st, err := sys.Lstatat(sys.CWD, dst); err != nil || st.UID != shift {
		t.Errorf("the root belongs to %d, %v", st.UID, err)
	}
}

func TestShiftXattrs(t *testing.T) {
	c := copier{shift: 0x70000000, count: 65536}
	two := "\x01\x00\x00\x02" + "\x00\x04\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	three := "\x01\x00\x00\x03" + two[4:]
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff"
	for _, x := range []struct{ name, value, want string }{
		{"security.capability", two, three + "\x00\x00\x00\x70"},
		{"security.capability", three + "\x05\x00\x00\x00", three + "\x05\x00\x00\x70"},
		{"security.capability", "short", "short"},
		{"system.posix_acl_access", acl + "\x02\x00\x06\x00\xe8\x03\x00\x00", acl + "\x02\x00\x06\x00\xe8\x03\x00\x70"},
		{"system.posix_acl_default", acl + "\x08\x00", acl + "\x08\x00"},
		{"user.x", two, two},
	} {
		if got := c.xattr(x.name, x.value); got != x.want {
			t.Errorf("%s %q: %q, want %q", x.name, x.value, got, x.want)
		}
	}
}

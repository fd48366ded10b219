package entrypoint

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/podfs"
)

func TestRemoveNspawnLock(t *testing.T) {
	for _, tt := range []struct {
		name, record, file string
		locked, gone       bool
	}{
		{"left", "inode-5:6", "inode-5:6", false, true},
		{"another's by now", "inode-5:6", "inode-5:6", true, false},
		{"not there", "inode-5:6", "inode-5:7", false, false},
		{"a bad record", "../inode-5:6", "inode-5:6", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			dir := t.TempDir()
			file := filepath.Join(dir, tt.file)
			for name, text := range map[string]string{podfs.NspawnLock: tt.record, file: ""} {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.locked {
				f, err := os.OpenFile(file, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				l := unix.Flock_t{Type: unix.F_WRLCK}
				if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
					t.Fatal(err)
				}
			}
			if err := removeNspawnLock(dir); err != nil {
				t.Fatal(err)
			}
			if gone := !exists(file); gone != tt.gone {
				t.Errorf("removed: %v, want %v", gone, tt.gone)
			}
		})
	}
}

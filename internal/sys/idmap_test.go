package sys

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func pods(shift uint32) []IDMap { return []IDMap{{0, shift, 65536}} }

func TestUserNamespace(t *testing.T) {
	needRoot(t)
	start := time.Now()
	f, err := UserNamespace(pods(0x70010000), pods(0x70010000))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Logf("made in %v", time.Since(start))
	link, err := os.Readlink(ProcPath(int(f.Fd())))
	if err != nil || !strings.HasPrefix(link, "user:[") {
		t.Errorf("it is %q, %v", link, err)
	}
	// the process that made it possible is gone
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); err != unix.ECHILD {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
	for name, bad := range map[string][]IDMap{"overlap": {{0, 100000, 10}, {5, 200000, 10}}, "none": {{0, 0, 0}}} {
		if f, err := UserNamespace(bad, bad); err == nil {
			f.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// On an idmapped mount the files of a directory belong to the range, and what
// AsOwner makes there lies on disk without the shift.
func TestIDMapMount(t *testing.T) {
	needRoot(t)
	const shift = 0x70020000
	dir, at := t.TempDir(), t.TempDir()
	for name, id := range map[string]int{"root": 0, "user": 1000, "far": 70000} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), id, id); err != nil {
			t.Fatal(err)
		}
	}
	ns, err := UserNamespace(pods(shift), pods(shift))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan struct{})
	go func() { // a thread of its own, never given back: it leaves the test's mounts
		defer close(done)
		runtime.LockOSThread()
		if err := PrivateMounts(); err != nil {
			t.Error(err)
			return
		}
		tree, err := CloneTree(dir, false)
		if err != nil {
			t.Error(err)
			return
		}
		defer tree.Close()
		if err := IDMapMount(int(tree.Fd()), ns, false); err != nil {
			t.Error(err)
			return
		}
		if err := AttachTree(tree, at); err != nil {
			t.Error(err)
			return
		}
		for name, want := range map[string]uint32{"root": shift, "user": shift + 1000, "far": 65534} {
			if st, err := Lstatat(CWD, filepath.Join(at, name)); err != nil || st.UID != want || st.GID != want {
				t.Errorf("%s: %d:%d, %v, want %d", name, st.UID, st.GID, err, want)
			}
		}
		err = AsOwner(shift, shift, func() error {
			if err := os.WriteFile(filepath.Join(at, "made"), nil, 0o600); err != nil {
				return err
			}
			return os.Lchown(filepath.Join(at, "made"), shift+7, shift+8)
		})
		if err != nil {
			t.Error(err)
		}
		if st, err := Lstatat(CWD, filepath.Join(dir, "made")); err != nil || st.UID != 7 || st.GID != 8 {
			t.Errorf("made: %d:%d, %v", st.UID, st.GID, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "after"), nil, 0o600); err != nil {
			t.Error(err)
		}
		if st, err := Lstatat(CWD, filepath.Join(dir, "after")); err != nil || st.UID != 0 || st.GID != 0 {
			t.Errorf("after AsOwner files belong to %d:%d, %v", st.UID, st.GID, err)
		}
	}()
	<-done
}

package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/hostile"
)

const (
	childVariable = "RKT_TEST_HOSTILE_CHILD"
	secret        = "SECRET OF THE HOST"
)

// order is what a child of these tests is to do, alone in its namespaces.
type order struct {
	Spec  Spec
	Decoy string
	// Fly makes the root of the flavour without isolation.
	Fly bool
	// Dirs are working directories to try.
	Dirs []string
	// Programs are to be looked up.
	Programs []string
}

// findings are what it found: that the root was refused, or what is wrong in it.
type findings struct {
	Refused string
	Wrong   []string
	Dirs    map[string]string
	Found   map[string]string
}

// TestHostileChild is no test of its own: it is what the tests below run.
func TestHostileChild(t *testing.T) {
	text := os.Getenv(childVariable)
	if text == "" {
		t.Skip("run by other tests")
	}
	runtime.LockOSThread()
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	f, err := o.obey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\n%s\n", b)
	os.Exit(0)
}

// podRoot makes of the namespace what a pod's is.
func podRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, d := range []string{"/run/systemd/journal", "/run/systemd/inaccessible/dir", "/run/pod"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"/run/systemd/journal/mark", "/run/systemd/inaccessible/reg", "/run/pod/hosts", "/run/pod/resolv.conf", "/run/pod/hostname"} {
		if err := os.WriteFile(f, []byte("of the pod"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (o *order) obey() (*findings, error) {
	if err := podRoot(); err != nil {
		return nil, err
	}
	closeDirectories(-1)
	f := &findings{Dirs: map[string]string{}, Found: map[string]string{}}
	if o.Fly {
		err := FlyRoot(o.Spec.Root)
		if err == nil {
			err = o.Spec.placeFly(Main, 0)
		}
		if err != nil {
			f.Refused = err.Error()
			return f, nil
		}
		f.walk(o)
		return f, nil
	}
	if err := enterRoot(&o.Spec); err != nil {
		f.Refused = err.Error()
		return f, nil
	}
	f.check(o)
	f.walk(o)
	for _, d := range o.Dirs {
		if err := chdir(d); err != nil {
			f.Dirs[d] = err.Error()
		} else if here, _ := os.Readlink("/proc/self/cwd"); !strings.HasPrefix(here, "/proc") {
			f.wrong("the working directory %q leads to %q", d, here)
		}
		_ = os.Chdir("/")
	}
	for _, p := range o.Programs {
		if _, err := lookup(p, nil, "/"); err != nil {
			f.Found[p] = err.Error()
		}
	}
	return f, nil
}

func (f *findings) wrong(format string, args ...any) {
	f.Wrong = append(f.Wrong, fmt.Sprintf(format, args...))
}

// check looks at the root from inside.
func (f *findings) check(o *order) {
	for dir, magic := range map[string]int64{"/proc": unix.PROC_SUPER_MAGIC, "/sys": unix.SYSFS_MAGIC, "/dev": unix.TMPFS_MAGIC, "/dev/pts": 0x1cd1} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Type != magic {
			f.wrong("%s is a file system of type %#x (%v)", dir, st.Type, err)
		}
	}
	for node, minor := range map[string]uint32{"/dev/null": 3, "/dev/zero": 5, "/dev/full": 7, "/dev/random": 8, "/dev/urandom": 9} {
		var st unix.Stat_t
		if err := unix.Lstat(node, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 1 || unix.Minor(st.Rdev) != minor {
			f.wrong("%s is %o %d:%d (%v)", node, st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), err)
		}
	}
	if b, err := os.ReadFile("/run/systemd/journal/mark"); string(b) != "of the pod" {
		f.wrong("the pod's journal is %q, %v", b, err)
	}
}

// walk looks for what is of the host.
func (f *findings) walk(o *order) {
	for _, b := range o.Spec.Binds {
		if got, err := os.ReadFile(b.Target); string(got) != "of the pod" {
			f.wrong("%s is %q, %v", b.Target, got, err)
		}
	}
	if _, err := os.Stat(o.Decoy); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		f.wrong("the host's %s: %v", o.Decoy, err)
	}
	_ = filepath.WalkDir("/", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			f.wrong("%v", err)
		case p == "/proc" || p == "/sys" || p == "/dev":
			return fs.SkipDir
		case d.Type().IsRegular():
			h, err := os.Open(p)
			if err != nil {
				f.wrong("%v", err)
				return nil
			}
			defer h.Close()
			head := make([]byte, 4096)
			n, _ := h.Read(head)
			if bytes.Contains(head[:n], []byte(secret)) {
				f.wrong("%s shows a file of the host", p)
			}
		}
		return nil
	})
}

// child runs an order; files are left to it from descriptor 3 on.
func child(t *testing.T, o order, files ...*os.File) *findings {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestHostileChild$", "-test.timeout=20s")
	cmd.Env = append(os.Environ(), childVariable+"="+string(b))
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, text, _ := bytes.Cut(out, []byte("\n{"))
	f := &findings{}
	if err := json.Unmarshal(append([]byte("{"), text...), f); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return f
}

// decoy is a directory of the host that no image may reach, and what it and
// some other files of the host look like.
func decoy(t *testing.T) (dir string, unchanged func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir = filepath.Join(t.TempDir(), "decoy")
	for name, text := range map[string]string{"secret": secret, "hosts": secret, "resolv.conf": secret, "hostname": secret, "mtab": secret,
		"passwd": "victim:x:4242:4242:" + secret + ":/:/bin/sh\n", "group": "victim:x:4242:victim\n", "systemd/journal/mark": secret, "sub/x": secret} {
		put(t, dir, name, text, 0o640)
	}
	look := func() string {
		var b strings.Builder
		line := func(p string) {
			var st unix.Stat_t
			err := unix.Lstat(p, &st)
			text, _ := os.ReadFile(p)
			fmt.Fprintf(&b, "%s %v %o %d:%d %d %d.%09d %x\n", p, err, st.Mode, st.Uid, st.Gid, st.Size, st.Ctim.Sec, st.Ctim.Nsec, text)
		}
		for _, p := range []string{"/etc", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/etc/mtab", "/run", "/"} {
			line(p)
		}
		_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, _ error) error { line(p); return nil })
		return b.String()
	}
	before := look()
	return dir, func(t *testing.T) {
		t.Helper()
		if after := look(); after != before {
			t.Errorf("the host has changed, from\n%sto\n%s", before, after)
		}
	}
}

func hostileSpec(root string) Spec {
	s := Spec{Name: "app", Root: root, MaskPaths: true}
	for _, n := range []string{"hosts", "resolv.conf", "hostname"} {
		s.Binds = append(s.Binds, Bind{Source: "/run/pod/" + n, Target: "/etc/" + n})
	}
	return s
}

// TestHostileRoots: whatever an image puts where the pod mounts, either the app
// gets its root and nothing else, or the error names the culprit.
func TestHostileRoots(t *testing.T) {
	dir, unchanged := decoy(t)
	roots := hostile.Roots(dir)
	if len(roots) < 40 {
		t.Errorf("only %d roots", len(roots))
	}
	for _, r := range roots {
		t.Run(r.Name, func(t *testing.T) {
			root := t.TempDir()
			if err := r.Make(root); err != nil {
				t.Fatal(err)
			}
			f := child(t, order{Spec: hostileSpec(root), Decoy: dir})
			switch {
			case r.Culprit != "" && !strings.Contains(f.Refused, r.Culprit):
				t.Errorf("refused with %q, which does not name %q", f.Refused, r.Culprit)
			case r.Culprit == "" && f.Refused != "":
				t.Errorf("refused: %s", f.Refused)
			}
			for _, w := range f.Wrong {
				t.Error(w)
			}
			// Without isolation as well: there /run is the image's own.
			root = t.TempDir()
			if err := r.Make(root); err != nil {
				t.Fatal(err)
			}
			f = child(t, order{Spec: hostileSpec(root), Decoy: dir, Fly: true})
			switch {
			case r.Culprit != "" && !strings.HasPrefix(r.Culprit, "/run") && !strings.Contains(f.Refused, r.Culprit):
				t.Errorf("fly: refused with %q, which does not name %q", f.Refused, r.Culprit)
			case r.Culprit == "" && f.Refused != "":
				t.Errorf("fly: refused: %s", f.Refused)
			}
			for _, w := range f.Wrong {
				t.Errorf("fly: %s", w)
			}
			// The databases of users are read by who enters.
			begin := time.Now()
			for _, name := range []string{"victim", "0:victim", "victim:victim", "4242"} {
				if u, err := FindUser(root, name); err == nil && (name != "4242" || u.GID == 4242 || len(u.Groups) > 0) {
					t.Errorf("user %q is %+v", name, u)
				}
			}
			if e := PasswdEntry(root, 4242); e != nil {
				t.Errorf("passwd has %q", e)
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("looking up users took %s", d)
			}
			unchanged(t)
		})
	}
}

// TestLeakedDescriptors: whatever the parent left open, no working directory
// and no program leads there.
func TestLeakedDescriptors(t *testing.T) {
	dir, unchanged := decoy(t)
	tool := put(t, t.TempDir(), "tool", "#!/bin/sh\n", 0o755)
	var files []*os.File
	for i := range 32 {
		name := []string{dir, dir + "/secret", "/", dir + "/sub", tool}[i%5]
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	o := order{Spec: hostileSpec(t.TempDir()), Decoy: dir}
	o.Programs = append(o.Programs, "/proc/self/exe", "/proc/thread-self/exe", "/proc/1/exe", "/proc/self/root/proc/self/exe", "../proc/self/exe")
	for n := 3; n <= 66; n++ {
		o.Dirs = append(o.Dirs, fmt.Sprintf("/proc/self/fd/%d", n))
		o.Programs = append(o.Programs, fmt.Sprintf("/proc/self/fd/%d", n))
	}
	f := child(t, o, files...)
	if f.Refused != "" {
		t.Fatal(f.Refused)
	}
	for _, w := range f.Wrong {
		t.Error(w)
	}
	for _, d := range o.Dirs {
		if !strings.Contains(f.Dirs[d], d) {
			t.Errorf("working directory %s: %q", d, f.Dirs[d])
		}
	}
	for _, p := range o.Programs {
		if !strings.Contains(f.Found[p], "/proc/") {
			t.Errorf("program %s: %q", p, f.Found[p])
		}
	}
	unchanged(t)
}

// TestUserNumbers: what is no number between 0 and 2^32-2 is no user.
func TestUserNumbers(t *testing.T) {
	root := t.TempDir()
	for _, good := range []string{"0", "1", "2147483648", "4294967294", "007"} {
		if _, err := FindUser(root, good); err != nil {
			t.Errorf("user %q: %v", good, err)
		}
	}
	for _, bad := range []string{"-1", "4294967295", "4294967296", "18446744073709551616", "0x0", "+0", "-0", " 0", "0 ", "", "0\n", "0\x00", "1e3", "٣", "0:", "0:-1", "0:+0", "0:4294967295", "0:0:0", ":", ":0", "0o7", "1_0"} {
		if u, err := FindUser(root, bad); err == nil {
			t.Errorf("user %q is %+v", bad, u)
		}
	}
}

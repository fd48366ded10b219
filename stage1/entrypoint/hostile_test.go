package entrypoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/hostile"
	"github.com/rkt-systemd/rkt/internal/podfs"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

const hostileVariable = "RKT_TEST_HOSTILE_MOUNT"

// mountOrder has a child make mounts in a pod's directory.
type mountOrder struct {
	Pod    string
	Mounts []plan.Mount
	Dirs   []plan.Dir
}

// TestHostileMountChild is no test of its own: it is what TestHostileTargets runs.
func TestHostileMountChild(t *testing.T) {
	text := os.Getenv(hostileVariable)
	if text == "" {
		t.Skip("run by another test")
	}
	var o mountOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Chdir(o.Pod); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	p := &plan.Plan{Mounts: o.Mounts, Dirs: o.Dirs}
	if err := apply(p, abi.IDRange{}, func(string, ...any) {}); err != nil {
		fmt.Printf("\nREFUSED %v\n", err)
		os.Exit(0)
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs(podfs.AppRootfs("app"))
	if err != nil {
		t.Fatal(err)
	}
	mounts := 0
	for line := range strings.Lines(string(after)) {
		f := strings.Fields(line)
		if bytes.Contains(before, []byte(line)) {
			continue
		}
		if !strings.HasPrefix(f[4], top+"/") {
			fmt.Printf("\nWRONG a mount at %s, outside of the app's root\n", f[4])
		}
		name := f[4]
		if !strings.HasSuffix(o.Mounts[0].Source, "/file") {
			name += "/file"
		}
		if b, err := os.ReadFile(name); string(b) != "of the volume" {
			fmt.Printf("\nWRONG %s is %q, %v\n", name, b, err)
		}
		mounts++
	}
	if mounts != 1 {
		fmt.Printf("\nWRONG %d mounts\n", mounts)
	}
	fmt.Printf("\nDONE\n")
	os.Exit(0)
}

// hostDecoy is a directory of the host that nothing may reach; the function
// says whether it is as it was.
func hostDecoy(t *testing.T) (string, func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "decoy")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"file": "secret", "sub/file": "secret", "passwd": "victim:x:4242:4242::/:\n", "group": "victim:x:4242:victim\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func() string {
		var b strings.Builder
		add := func(p string) {
			var st unix.Stat_t
			err := unix.Lstat(p, &st)
			fmt.Fprintf(&b, "%s %v %o %d:%d %d %d.%d\n", p, err, st.Mode, st.Uid, st.Gid, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
		}
		for _, p := range []string{"/", "/etc", "/etc/passwd", "/etc/group", "/etc/hosts", "/data"} {
			add(p)
		}
		_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, _ error) error { add(p); return nil })
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

// TestHostileTargets mounts a directory and a file where images have links,
// files and devices: inside the root, or not at all.
func TestHostileTargets(t *testing.T) {
	decoy, unchanged := hostDecoy(t)
	for _, c := range []struct {
		name, target string
		entries      []string
		// refused is what the error names for a directory and for a file, "" for none.
		dir, file string
	}{
		{"nothing", "/data", nil, "", ""},
		{"nothing, deep", "/a/b/c/data", nil, "", ""},
		{"dots", "/../../../../a/../data", nil, "", ""},
		{"relative", "data", nil, "", ""},
		{"directory", "/data", []string{"d /data"}, "", "/data"},
		{"file", "/data", []string{"f /data text"}, "/data", ""},
		{"FIFO", "/data", []string{"p /data"}, "/data", ""},
		{"device", "/data", []string{"z /data"}, "/data", ""},
		{"link", "/data", []string{"l /data $C"}, "", ""},
		{"link to a file", "/data", []string{"l /data $C/file"}, "", ""},
		{"relative link", "/data", []string{"l /data ../../../../../..$C"}, "", ""},
		{"link to itself", "/data", []string{"l /data data"}, "/data", "/data"},
		{"loop of two", "/data", []string{"l /data other", "l /other data"}, "/data", "/data"},
		{"dangling link", "/data", []string{"l /data /none/here"}, "", ""},
		{"link of proc", "/data", []string{"l /data /proc/self/root$C"}, "", ""},
		{"link of proc to the first process", "/data", []string{"l /data /proc/1/root$C"}, "", ""},
		{"link of proc to the working directory", "/data", []string{"l /data /proc/self/cwd"}, "", ""},
		{"link of proc to a descriptor", "/data", []string{"l /data /proc/self/fd/3"}, "", ""},
		{"link to the root", "/data", []string{"l /data /"}, "/data", "/data"},
		{"link at a parent", "/a/b", []string{"l /a $C"}, "", ""},
		{"relative link at a parent", "/a/b", []string{"l /a ../../../../../..$C"}, "", ""},
		{"dangling link at a parent", "/a/b", []string{"l /a none"}, "", ""},
		{"loop at a parent", "/a/b", []string{"l /a a"}, "/a", "/a"},
		{"file at a parent", "/a/b", []string{"f /a text"}, "/a", "/a"},
		{"link in a directory", "/a/b/c", []string{"d /a", "l /a/b ../../../../../..$C"}, "", ""},
		{"dots through a link", "/a/../../../../data", []string{"l /a $C/sub"}, "", ""},
		{"link at /dev", "/dev/x", []string{"l /dev $C"}, "", ""},
		{"link at /proc", "/proc/x", []string{"l /proc $C"}, "", ""},
		{"link at /sys", "/sys/x", []string{"l /sys $C"}, "", ""},
		{"link at /run", "/run/x", []string{"l /run $C"}, "", ""},
		{"link at /etc/passwd", "/etc/passwd", []string{"d /etc", "l /etc/passwd $C/passwd"}, "", ""},
		{"link at /etc", "/etc/x", []string{"l /etc $C"}, "", ""},
		{"forty links", "/l0", links(39), "", ""},
		{"a hundred links", "/l0", links(100), "/l0", "/l0"},
		{"name of 300", "/" + strings.Repeat("n", 300), nil, "nnn", "nnn"},
		{"path of 5000", strings.Repeat("/d", 2500), nil, "/d/d", "/d/d"},
	} {
		for _, kind := range []string{"dir", "file"} {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				pod := t.TempDir()
				root := filepath.Join(pod, podfs.AppRootfs("app"))
				for _, d := range []string{root, filepath.Join(pod, podfs.Stage1Rootfs), filepath.Join(pod, "volume")} {
					if err := os.MkdirAll(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				r := hostile.Root{}
				for _, e := range c.entries {
					r.Entries = append(r.Entries, strings.ReplaceAll(e, "$C", decoy))
				}
				if err := r.Make(root); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(pod, "volume/file"), []byte("of the volume"), 0o644); err != nil {
					t.Fatal(err)
				}
				m := plan.Mount{App: "app", Volume: "data", Source: filepath.Join(pod, "volume"), Target: c.target}
				culprit := c.dir
				if kind == "file" {
					m.Source, culprit = m.Source+"/file", c.file
				}
				out := mountChild(t, mountOrder{Pod: pod, Mounts: []plan.Mount{m}})
				_, refused, is := strings.Cut(out, "REFUSED ")
				switch {
				case culprit == "" && is:
					t.Errorf("refused: %s", refused)
				case culprit != "" && (!is || !strings.Contains(refused, culprit)):
					t.Errorf("%q, which is no error that names %q", out, culprit)
				case !is && !strings.Contains(out, "DONE"), strings.Contains(out, "WRONG"):
					t.Error(out)
				}
				unchanged(t)
			})
		}
	}
}

func links(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("l /l%d l%d", i, i+1))
	}
	return out
}

func mountChild(t *testing.T, o mountOrder) string {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestHostileMountChild$", "-test.timeout=20s")
	cmd.Env = append(os.Environ(), hostileVariable+"="+string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestHostileUsers looks users up in roots made to mislead.
func TestHostileUsers(t *testing.T) {
	decoy, unchanged := hostDecoy(t)
	for _, r := range hostile.Roots(decoy) {
		t.Run(r.Name, func(t *testing.T) {
			root := t.TempDir()
			if err := r.Make(root); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			for _, group := range []string{"0", "victim"} {
				if ids, err := lookup(root, "victim", group, abi.IDRange{}); err == nil || !strings.Contains(err.Error(), `"victim"`) {
					t.Errorf("user victim:%s is %+v, %v", group, ids, err)
				}
			}
			if ids, err := lookup(root, "0", "victim", abi.IDRange{}); err == nil || !strings.Contains(err.Error(), `"victim"`) {
				t.Errorf("group victim is %+v, %v", ids, err)
			}
			if ids, err := dockerLookup(root, "victim"); err == nil {
				t.Errorf("user victim is %+v", ids)
			}
			if ids, err := dockerLookup(root, "4242"); err == nil && (ids.GID == 4242 || len(ids.Groups) > 0) {
				t.Errorf("user 4242 is %+v", ids)
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("it took %s", d)
			}
			unchanged(t)
		})
	}
}

// TestUserNumbers: what is no number below 2^32-1 is no user.
func TestUserNumbers(t *testing.T) {
	root := t.TempDir()
	for _, bad := range []string{"-1", "4294967295", "4294967296", "18446744073709551616", "0x0", "+0", " 0", "0 ", "", "0\n", "0\x00", "٣", "1_0"} {
		if ids, err := lookup(root, bad, "0", abi.IDRange{}); err == nil {
			t.Errorf("user %q is %+v", bad, ids)
		}
		if ids, err := lookup(root, "0", bad, abi.IDRange{}); err == nil {
			t.Errorf("group %q is %+v", bad, ids)
		}
		if ids, err := dockerLookup(root, bad); err == nil && bad != "" {
			t.Errorf("user %q of a converted image is %+v", bad, ids)
		}
	}
	if ids, err := lookup(root, "2147483648", "4294967294", abi.IDRange{}); err != nil || ids.UID != 1<<31 || ids.GID != 1<<32-2 {
		t.Errorf("large numbers are %+v, %v", ids, err)
	}
}

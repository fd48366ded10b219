package entrypoint

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
	"github.com/rkt-systemd/rkt/stage1/plan"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLookup(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/etc/passwd", "root:x:0:0::/root:/bin/sh\nredis:x:101:102::/:\nhuge:x:4294967295:0::/:\nbad:x:one:0::/:\nshort:x\n:x:7:7::/:\n")
	write(t, root+"/etc/group", "root:x:0:\nredis:x:103:\n")
	write(t, root+"/data", "")
	if err := os.Symlink("/etc", root+"/link"); err != nil {
		t.Fatal(err)
	}
	self := uint32(os.Getuid())
	for _, c := range []struct {
		user, group string
		want        plan.IDs
		err         string
	}{
		{"0", "0", plan.IDs{}, ""},
		{"root", "root", plan.IDs{}, ""},
		{"redis", "redis", plan.IDs{UID: 101, GID: 103}, ""},
		{"1000", "redis", plan.IDs{UID: 1000, GID: 103}, ""},
		{"4294967294", "5", plan.IDs{UID: 1<<32 - 2, GID: 5}, ""},
		{"/data", "/data", plan.IDs{UID: self, GID: uint32(os.Getgid())}, ""},
		{"/link/passwd", "0", plan.IDs{UID: self}, ""},
		{"", "0", plan.IDs{}, "the user is not set"},
		{"0", "", plan.IDs{}, "the group is not set"},
		{"nobody", "0", plan.IDs{}, `user "nobody" is not in the image's /etc/passwd`},
		{"0", "wheel", plan.IDs{}, `group "wheel" is not in the image's /etc/group`},
		{"4294967295", "0", plan.IDs{}, "out of range"}, // (uid_t)-1 means "leave alone"
		{"99999999999", "0", plan.IDs{}, "out of range"},
		{"huge", "0", plan.IDs{}, "bad number"},
		{"bad", "0", plan.IDs{}, "bad number"},
		{"short", "0", plan.IDs{}, "is not in the image's"},
		{"/none", "0", plan.IDs{}, `user "/none"`},
	} {
		got, err := lookup(root, c.user, c.group, abi.IDRange{})
		switch {
		case c.err == "" && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("lookup(%q, %q) = %+v, %v, want %+v", c.user, c.group, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("lookup(%q, %q) = %+v, %v, want an error with %q", c.user, c.group, got, err, c.err)
		}
	}
}

// TestLookupHostile: the image's files may be links to the host's, or no files.
func TestLookupHostile(t *testing.T) {
	for name, spoil := range map[string]func(etc string) error{
		"a link to the host's": func(etc string) error { return os.Symlink("/../../../../../etc/passwd", etc+"/passwd") },
		"a directory":          func(etc string) error { return os.Mkdir(etc+"/passwd", 0o755) },
		"too large": func(etc string) error {
			return os.WriteFile(etc+"/passwd", []byte("daemon:x:1:1::/:\n"+strings.Repeat("x", maxUserDB)), 0o644)
		},
	} {
		root := t.TempDir()
		if err := os.Mkdir(root+"/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := spoil(root + "/etc"); err != nil {
			t.Fatal(err)
		}
		if got, err := lookup(root, "daemon", "0", abi.IDRange{}); err == nil {
			t.Errorf("passwd is %s: %+v, want an error", name, got)
		}
	}
}

func TestForwardedPorts(t *testing.T) {
	make := func(ports string) plan.Input {
		m, _, err := appc.ParsePodManifest(fmt.Appendf(nil, `{"acKind":"PodManifest","acVersion":"0.8.11","ports":[%s],"apps":[
{"name":"a","image":{"id":"sha512-%[2]s"},"app":{"exec":["/a"],"user":"0","group":"0","ports":[{"name":"http","port":80,"protocol":"tcp"},{"name":"both","port":1,"protocol":"tcp"}]}},
{"name":"b","image":{"id":"sha512-%[2]s"}}]}`, ports, strings.Repeat("0", 64)))
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := appc.ParseImageManifest([]byte(`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"b","app":{"exec":["/b"],"user":"0","group":"0",
"ports":[{"name":"dns","port":53,"protocol":"udp"},{"name":"both","port":2,"protocol":"udp"}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		return plan.Input{Pod: m, Images: map[string]*schema.ImageManifest{"a": img, "b": img}}
	}
	for _, c := range []struct{ ports, want, err string }{
		{`{"name":"http","hostPort":8080}`, "{ 8080 80 tcp}", ""},
		{`{"name":"dns","hostPort":5353,"hostIP":"127.0.0.1"}`, "{127.0.0.1 5353 53 udp}", ""},
		{`{"name":"x","hostPort":1,"podPort":{"name":"x","port":9,"protocol":"tcp"}}`, "{ 1 9 tcp}", ""},
		{`{"name":"none","hostPort":1}`, "", `port name "none" could not be found in any apps`},
		{`{"name":"both","hostPort":1}`, "", `port name "both" defined multiple apps`},
		{`{"name":"http","hostPort":0}`, "", "is not a valid host port"},
		{`{"name":"http","hostPort":65536}`, "", "is not a valid host port"},
	} {
		got, err := forwardedPorts(make(c.ports))
		switch {
		case c.err == "" && (err != nil || len(got) != 1 || fmt.Sprint(got[0]) != c.want):
			t.Errorf("%s: %v, %v, want %s", c.ports, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %v, %v, want an error with %q", c.ports, got, err, c.err)
		}
	}
}

func TestLockFD(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	d, err := os.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	other, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if fd, err := lockFD(Env{Environ: []string{fmt.Sprintf("RKT_LOCK_FD=%d", d.Fd())}}); err != nil || fd != int(d.Fd()) {
		t.Errorf("%d, %v", fd, err)
	}
	for v, want := range map[string]string{"": "this program is run by rkt", "x": "this program is run by rkt", "0": "this program is run by rkt", "99999": "RKT_LOCK_FD=99999",
		fmt.Sprint(other.Fd()): "is not the pod directory"} {
		if fd, err := lockFD(Env{Environ: []string{abi.EnvLockFD + "=" + v}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %d, %v, want an error with %q", v, fd, err, want)
		}
	}
}

func TestLogUnit(t *testing.T) {
	if got, err := logUnit(plan.Facts{Machine: "rkt-a-b"}); err != nil || got != `machine-rkt\x2da\x2db.scope` {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStopWithoutLock: a process whose number is in ppid is not the pod's when
// nobody holds the pod's lock.
func TestStopWithoutLock(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Stop([]string{"u"}); err == nil || !strings.Contains(err.Error(), "ppid") {
		t.Errorf("no ppid: %v", err)
	}
	write(t, "ppid", "nonsense\n")
	if err := Stop([]string{"u"}); err == nil || !strings.Contains(err.Error(), "does not hold a process ID") {
		t.Errorf("bad ppid: %v", err)
	}
	write(t, "ppid", "1\n")
	if err := Stop([]string{"u"}); err == nil {
		t.Error("process 1 would have been stopped")
	}
	write(t, "ppid", fmt.Sprintln(os.Getpid()))
	if err := Stop([]string{"u"}); err != nil {
		t.Errorf("no lock: %v", err) // and this process lives on
	}
}

func TestScope(t *testing.T) {
	t.Chdir(t.TempDir())
	const id = "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69"
	if got := scope(id); got != "" {
		t.Errorf("without a record: %q", got)
	}
	for text, want := range map[string]string{
		"machine.slice/machine-rkt\\x2dx.scope/payload":     "/sys/fs/cgroup/machine.slice/machine-rkt\\x2dx.scope",
		"machine.slice/rkt@web.service/payload":             "",
		"../../../etc/machine-x.scope/../../passwd/payload": "",
		"": "",
	} {
		write(t, "subcgroup", text)
		if got := scope(id); got != want {
			t.Errorf("scope of %q = %q, want %q", text, got, want)
		}
	}
	write(t, "subcgroup", "machine.slice/machine-web.scope/payload")
	write(t, "machine", "web-of-nobody\n")
	if got := scope(id); got != "" {
		t.Errorf("a scope whose machine another pod may have: %q", got)
	}
}

// TestRunRefuses what this flavour does not do yet, before it touches anything.
func TestRunRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, f := range []string{"--private-users=0:2", "--mds-token=x", "--what"} {
		err := Run(t.Context(), Env{Log: quiet()}, []string{f, "6f1c2b3a-0d4e-4c5b-8a7f-1e2d3c4b5a69"})
		if err == nil || !strings.Contains(err.Error(), strings.SplitN(f, "=", 2)[0]) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// check list: 59
func TestDockerLookup(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/:\nredis:x:999:998::/:\nbad:x:1:x::/:\n",
		"group":  "root:x:0:\nextra:x:500:a,redis\nothers:x:501:redis2\nmore:x:502:redis\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		user string
		want plan.IDs
		err  string
	}{
		{"redis", plan.IDs{UID: 999, GID: 998, Groups: []uint32{500, 502}}, ""},
		{"999", plan.IDs{UID: 999, GID: 998}, ""},
		{"1000", plan.IDs{UID: 1000}, ""},
		{"root", plan.IDs{}, ""},
		{"nobody", plan.IDs{}, `user "nobody" is not in the image's /etc/passwd`},
		{"bad", plan.IDs{}, "no user or group number"},
		{"4294967295", plan.IDs{}, "no user or group number"},
	} {
		got, err := dockerLookup(root, c.user)
		switch {
		case c.err == "" && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("%q: %+v, %v, want %+v", c.user, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: %+v, %v, want an error with %q", c.user, got, err, c.err)
		}
	}
	if got, err := dockerLookup(t.TempDir(), "1000"); err != nil || got.UID != 1000 {
		t.Errorf("an image without /etc/passwd: %+v, %v", got, err)
	}
	if _, err := dockerLookup(t.TempDir(), "redis"); err == nil {
		t.Error("a name without /etc/passwd")
	}
}

package handoff

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/appc/spec/schema"

	"github.com/rkt-systemd/rkt/internal/abi"
	"github.com/rkt-systemd/rkt/internal/appc"
)

// TestMain lets the test become a stage1: run and enter replace the process.
func TestMain(m *testing.M) {
	if what := os.Getenv("HANDOFF_TEST"); what != "" {
		os.Exit(child1(what, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// child1 calls an entrypoint of the pod directory and interface version in args.
func child1(what string, args []string) int {
	dir, version := args[0], args[1]
	m := stage1(version)
	if m == nil {
		return 3
	}
	var err error
	switch what {
	case "run":
		lock, e := os.Open(dir)
		if e != nil {
			return 3
		}
		r := abi.Run{Debug: true, Net: []string{"a", "b"}, Hostname: "h", DisableCaps: true, ResolvMode: "none", IPC: "parent", UUID: "u"}
		env := []string{"KEEP=1", "RKT_LOCK_FD=77", "PATH=/usr/bin:/bin"}
		err = Exec(dir, m, r, lock, env, func(s string) { fmt.Println("warn:", s) })
	case "mutable":
		lock, e := os.Open(dir)
		if e != nil {
			return 3
		}
		err = Exec(dir, m, abi.Run{Mutable: true, UUID: "u"}, lock, nil, func(string) {})
	case "enter":
		err = Enter(dir, filepath.Join(dir, "stage1/rootfs"), m, abi.Enter{PID: 42, App: "a", Cmd: []string{"ls", "-l"}}, []string{"TERM=x", "PATH=/usr/bin:/bin"})
	}
	if what == "attach" {
		err = Attach(dir, filepath.Join(dir, "stage1/rootfs"), m, 42, abi.Attach{Action: abi.AttachCustom, App: "a", Stdin: true}, args[2])
	}
	fmt.Println("error:", err)
	return 1
}

func stage1(version string) *schema.ImageManifest {
	v := ""
	if version != "" {
		v = `,{"name":"coreos.com/rkt/stage1/interface-version","value":"` + version + `"}`
	}
	m, _, err := appc.ParseImageManifest([]byte(`{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/stage1","annotations":[
{"name":"coreos.com/rkt/stage1/run","value":"/ex/run"},{"name":"coreos.com/rkt/stage1/enter","value":"../../ex/enter"},
{"name":"coreos.com/rkt/stage1/gc","value":"/ex/gc"},
{"name":"coreos.com/rkt/stage1/attach","value":"/ex/attach"}` + v + `]}`))
	if err != nil {
		return nil
	}
	return m
}

// podDir makes a pod directory whose stage1 says how it was called.
func podDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ex := filepath.Join(dir, "stage1/rootfs/ex")
	if err := os.MkdirAll(ex, 0o755); err != nil {
		t.Fatal(err)
	}
	script := `#!/bin/sh
echo "args: $*"
echo "cwd: $(pwd)"
echo "path: $PATH"
env | grep -E '^(RKT|KEEP|TERM)' | sort
[ -z "$RKT_LOCK_FD" ] || echo "lock: $(readlink /proc/self/fd/$RKT_LOCK_FD)"
exit ${STATUS:-0}
`
	for _, n := range []string{"run", "enter", "gc", "attach"} {
		if err := os.WriteFile(filepath.Join(ex, n), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func call(t *testing.T, what, dir, version string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, dir, version)
	cmd.Env = append(os.Environ(), "HANDOFF_TEST="+what)
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

func TestRunPerVersion(t *testing.T) {
	dir := podDir(t)
	for version, want := range map[string]string{
		"":  "args: --debug --net=a,b u",
		"1": "args: --debug --net=a,b u",
		"2": "args: --debug --net=a,b --hostname=h u",
		"3": "args: --debug --net=a,b --hostname=h --disable-capabilities-restriction u",
		"4": "args: --debug --net=a,b --hostname=h --disable-capabilities-restriction --dns-conf-mode=resolv=none,hosts=default u",
		"6": "args: --debug --net=a,b --hostname=h --disable-capabilities-restriction --dns-conf-mode=resolv=none,hosts=default --ipc=parent u",
		"9": "args: --debug --net=a,b --hostname=h --disable-capabilities-restriction --dns-conf-mode=resolv=none,hosts=default --ipc=parent u",
	} {
		out := call(t, "run", dir, version)
		for _, line := range []string{want, "cwd: " + dir, "KEEP=1", "RKT_SELINUX_CONTEXT=", "lock: " + dir} {
			if !strings.Contains(out, line+"\n") {
				t.Errorf("version %q: no line %q in\n%s", version, line, out)
			}
		}
		if strings.Contains(out, "RKT_LOCK_FD=77") {
			t.Errorf("version %q: the caller's RKT_LOCK_FD is passed on", version)
		}
		if warned := strings.Contains(out, "warn:") && strings.Contains(out, "--ipc"); warned != (version != "6" && version != "9") {
			t.Errorf("version %q: warned of --ipc: %t\n%s", version, warned, out)
		}
	}
	if out := call(t, "run", dir, "x"); !strings.Contains(out, `interface version "x"`) {
		t.Errorf("a bad version: %s", out)
	}
	if out := call(t, "mutable", dir, "4"); !strings.Contains(out, "cannot run mutable pods") {
		t.Errorf("a mutable pod: %s", out)
	}
}

func TestEnter(t *testing.T) {
	dir := podDir(t)
	out := call(t, "enter", dir, "6")
	for _, line := range []string{"args: --pid=42 --appname=a -- ls -l", "cwd: " + dir, "TERM=x"} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
}

// TestAttach: a crossing entrypoint gets a clean environment.
func TestAttach(t *testing.T) {
	dir := podDir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/usr/bin:/bin": "/usr/bin:/bin", "": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} {
		cmd := exec.Command(self, dir, "6", path)
		cmd.Env = append(os.Environ(), "HANDOFF_TEST=attach", "KEEP=1", "TERM=x")
		cmd.Dir = "/"
		b, _ := cmd.CombinedOutput()
		out := string(b)
		for _, line := range []string{"args: --action=custom-attach --app=a --debug=false --tty-in=false --tty-out=false --stdin=true --stdout=false --stderr=false",
			"cwd: " + dir, "RKT_STAGE1_ENTERCMD=" + filepath.Join(dir, "stage1/rootfs/ex/enter"), "RKT_STAGE1_ENTERPID=42", "path: " + want} {
			if !strings.Contains(out, line+"\n") {
				t.Errorf("no line %q in\n%s", line, out)
			}
		}
		if strings.Contains(out, "KEEP=") || strings.Contains(out, "TERM=") {
			t.Errorf("the caller's environment is passed on:\n%s", out)
		}
	}
}

func TestGC(t *testing.T) {
	dir := podDir(t)
	m := stage1("6")
	tree := filepath.Join(dir, "stage1/rootfs")
	if err := GC(t.Context(), dir, tree, m, abi.GC{UUID: "u"}); err != nil {
		t.Error(err)
	}
	t.Setenv("STATUS", "3")
	if err := GC(t.Context(), dir, tree, m, abi.GC{UUID: "u"}); err == nil || !strings.Contains(err.Error(), `stage1 entrypoint "gc": exit status 3`) {
		t.Errorf("a gc that fails: %v", err)
	}
	// optional entrypoints
	if err := Stop(t.Context(), dir, tree, m, abi.Stop{UUID: "u"}); !errors.Is(err, ErrNoEntrypoint) || !strings.Contains(err.Error(), "coreos.com/rkt/stage1/stop") {
		t.Errorf("no stop entrypoint: %v", err)
	}
}

// TestEntrypointStaysInside: an annotation cannot name a program of the host.
func TestEntrypointStaysInside(t *testing.T) {
	m := stage1("6")
	for i := range m.Annotations {
		m.Annotations[i].Value = "../../../../bin/sh"
	}
	got, err := entrypoint(m, abi.AnnotationRun, "/pod/stage1/rootfs")
	if err != nil || got != "/pod/stage1/rootfs/bin/sh" {
		t.Errorf("%q, %v", got, err)
	}
}

package entrypoint

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPassedProcess is the process of TestPassSockets: numbers of descriptors
// are a matter of the whole process.
func TestPassedProcess(t *testing.T) {
	if os.Getenv("PASS_SOCKETS") == "" {
		t.Skip("run by TestPassSockets")
	}
	reserved := ReserveDescriptors()
	open := func(what string) int {
		fd, err := unix.Open(what, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	// a socket of the caller's at 3, the pod's lock at 4, two new sockets after them
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Dup3(open("/etc/passwd"), 3, 0))
	must(unix.Dup3(open("/"), 4, unix.O_CLOEXEC))
	reserved = slices.DeleteFunc(reserved, func(fd int) bool { return fd == 3 || fd == 4 })
	env, lock, err := passSockets(Env{Log: quiet(), Reserved: reserved}, []string{"A=b", "LISTEN_FDS=1", "LISTEN_PID=1"}, []int{open("/etc/group"), open("/proc/version")}, 4)
	must(err)
	for fd, want := range map[int]string{3: "/etc/passwd", 4: "/etc/group", 5: "/proc/version", lock: "/"} {
		if got, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); got != want {
			t.Errorf("descriptor %d is %q, want %q", fd, got, want)
		}
	}
	want := []string{"A=b", "LISTEN_FDS=3", "LISTEN_FDNAMES=unknown:rkt-log:rkt-log", fmt.Sprintf("LISTEN_PID=%d", os.Getpid())}
	if !slices.Equal(env, want) {
		t.Errorf("the environment is %q, want %q", env, want)
	}
	// what is not reserved is not replaced
	env, _, err = passSockets(Env{Log: quiet()}, nil, []int{open("/etc/group")}, lock)
	if got, _ := os.Readlink("/proc/self/fd/3"); err != nil || got != "/etc/passwd" || !slices.Contains(env, "LISTEN_FDS=0") {
		t.Errorf("without reserved descriptors: %v, %q, %q", err, got, env)
	}
}

func TestPassSockets(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestPassedProcess$", "-test.v")
	cmd.Env = append(os.Environ(), "PASS_SOCKETS=1")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
		t.Errorf("%v\n%s", err, out)
	}
}

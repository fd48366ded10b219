//go:build boot

package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/tests/host"
)

// TestFilterEqualsNspawn compares what the pod's filter made ahead of time
// answers with what systemd-nspawn's own filters answer, for every system call
// number of every entry point: taken out of the kernel from a running pod and
// from a running container of the same host's nspawn.
func TestFilterEqualsNspawn(t *testing.T) {
	h := open(t).Host
	const unit = "rkt-test-plain-nspawn"
	h.Sh(t, `d=/var/tmp/rkt-test-plain; mkdir -p $d/usr $d/etc $d/proc $d/sys $d/dev $d/run $d/tmp $d/var; cd $d
for l in bin lib lib64 sbin; do ln -sfn usr/$l $l; done; echo ID=plain >etc/os-release
systemd-run --quiet --unit=`+unit+` -p Delegate=yes -p Type=notify -p NotifyAccess=all systemd-nspawn --quiet --register=no --keep-unit --settings=no -D $d --bind-ro=/usr /usr/bin/sleep 424242`)
	t.Cleanup(func() {
		h.Sh(t, "systemctl stop "+unit+"; systemctl reset-failed "+unit+" 2>/dev/null || true; rm -rf /var/tmp/rkt-test-plain")
	})
	plain := outerPID(t, h, strings.TrimSpace(h.Eventually(t, soon, "pgrep", "-x", "-f", "/usr/bin/sleep 424242")))

	h.Sh(t, `mkdir -p /etc/rkt/pods; cat >/etc/rkt/pods/filter.json <<'X'
{"apps":[{"name":"app","image":"/var/tmp/img/busybox.aci","exec":["/bin/sleep","434343"]}],"rkt":{"net":"none"}}
X
systemctl daemon-reload; systemctl start rkt@filter`)
	t.Cleanup(func() {
		h.Sh(t, "systemctl stop rkt@filter; rm /etc/rkt/pods/filter.json; systemctl daemon-reload; rkt gc --grace-period=0")
	})
	pod := outerPID(t, h, strings.TrimSpace(h.Run(t, "machinectl", "show", "-p", "Leader", "--value", "filter")))
	hostInit := outerPID(t, h, "1")

	own := len(filters(t, hostInit)) // the test host's own, on both
	theirs, ours := filters(t, plain)[own:], filters(t, pod)[own:]
	if len(theirs) == 0 || len(ours) != 1 {
		t.Fatalf("nspawn has %d filters, the pod %d; want some and 1", len(theirs), len(ours))
	}
	// systemd 252 does not know calls newer than itself and answers ENOSYS; the
	// pod answers as the newer systemd does.
	newer := map[string]bool{}
	if h.Suite() == "bookworm" {
		for _, n := range []string{"cachestat", "getxattrat", "setxattrat", "listxattrat", "removexattrat", "landlock_add_rule",
			"landlock_create_ruleset", "landlock_restrict_self", "listmount", "statmount", "lsm_get_self_attr", "lsm_list_modules",
			"lsm_set_self_attr", "map_shadow_stack", "mseal", "uretprobe", "fchmodat2", "futex_wake", "futex_wait", "futex_requeue",
			"quotactl_fd", "memfd_secret", "process_mrelease", "futex_waitv", "set_mempolicy_home_node"} {
			newer[n] = true
		}
	}
	for _, a := range []struct {
		name string
		arch uint32
		bit  uint32
	}{{"x86-64", filtergen.ArchX86_64, 0}, {"i386", filtergen.ArchI386, 0}, {"x32", filtergen.ArchX86_64, filtergen.X32Bit}} {
		differ := 0
		for nr := uint32(0); nr < 1024; nr++ {
			want, got := answer(t, theirs, a.arch, nr|a.bit), answer(t, ours, a.arch, nr|a.bit)
			if want == got {
				continue
			}
			name := filtergen.Name(a.arch, nr|a.bit)
			if newer[name] && want != filter.Allow {
				continue
			}
			if got != filter.Allow && want != filter.Allow {
				t.Logf("%s: %d (%s): nspawn answers %#x, the pod %#x; both deny", a.name, nr, name, want, got)
				continue
			}
			differ++
			t.Errorf("%s: %d (%s): nspawn answers %#x, the pod %#x", a.name, nr, name, want, got)
		}
		t.Logf("%s: %d differences", a.name, differ)
	}
	// sockets of the audit subsystem, which knows no namespaces
	for _, args := range [][6]uint64{{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
		{unix.AF_INET, unix.SOCK_STREAM, unix.NETLINK_AUDIT}} {
		want, got := combine(t, theirs, filtergen.ArchX86_64, unix.SYS_SOCKET, args), combine(t, ours, filtergen.ArchX86_64, unix.SYS_SOCKET, args)
		if want != got {
			t.Errorf("socket%v: nspawn answers %#x, the pod %#x", args[:3], want, got)
		}
	}
}

// TestFilterBites tries denied and allowed calls in a running app, one without
// private users, which can make no devices.
func TestFilterBites(t *testing.T) {
	h := open(t).Host
	h.Sh(t, `mkdir -p /etc/rkt/pods; cat >/etc/rkt/pods/bites.json <<'X'
{"apps":[{"name":"app","image":"/var/tmp/img/busybox.aci","exec":["/bin/sleep","1000"]}],"rkt":{"net":"none","privateUsers":false}}
X
systemctl daemon-reload; systemctl start rkt@bites`)
	t.Cleanup(func() {
		h.Sh(t, "systemctl stop rkt@bites; rm /etc/rkt/pods/bites.json; systemctl daemon-reload; rkt gc --grace-period=0")
	})
	for _, c := range []struct {
		cmd  []string
		fail bool
	}{
		{[]string{"/bin/mount", "-t", "tmpfs", "none", "/tmp"}, true},
		{[]string{"/bin/umount", "/proc"}, true},
		{[]string{"/bin/unshare", "-m", "/bin/true"}, true},
		{[]string{"/bin/hostname", "other"}, true},
		{[]string{"/bin/chroot", "/", "/bin/true"}, false},
		{[]string{"/bin/mknod", "/tmp/null", "c", "1", "3"}, false},
		{[]string{"/bin/chown", "1:1", "/tmp/null"}, false},
	} {
		_, stderr, code := h.Try(append([]string{"rkt", "enter", "bites"}, c.cmd...)...)
		if (code != 0) != c.fail {
			t.Errorf("%q in the app: exit %d, %s; want failure %t", c.cmd, code, stderr, c.fail)
		}
	}
}

func answer(t *testing.T, progs []filter.Program, arch, nr uint32) uint32 {
	return combine(t, progs, arch, nr, [6]uint64{})
}

// combine is the strictest answer, as the kernel takes it: the lowest action.
func combine(t *testing.T, progs []filter.Program, arch, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	best := filter.Allow
	for _, p := range progs {
		r, err := p.Run(arch, nr, args)
		if err != nil {
			t.Fatal(err)
		}
		if int32(r&0xffff0000) < int32(best&0xffff0000) {
			best = r
		}
	}
	return best
}

// outerPID finds a process of the test host by its PID there.
func outerPID(t *testing.T, h *host.Host, pid string) int {
	t.Helper()
	ns := strings.TrimSpace(h.Run(t, "readlink", "/proc/"+pid+"/ns/mnt"))
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		b, err := os.ReadFile(p + "/status")
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) >= 3 && f[0] == "NSpid:" && f[2] == pid {
				if l, err := os.Readlink(p + "/ns/mnt"); err == nil && l == ns {
					n, err := strconv.Atoi(f[1])
					if err != nil {
						t.Fatal(err)
					}
					return n
				}
			}
		}
	}
	t.Fatalf("no process here is %s in the test host", pid)
	return 0
}

// filters reads a process's filters out of the kernel, the oldest first.
func filters(t *testing.T, pid int) []filter.Program {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		t.Skipf("ptrace of process %d: %v", pid, err)
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	if err := unix.PtraceInterrupt(pid); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	var out []filter.Program
	for i := uintptr(0); ; i++ {
		n, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), i, 0, 0, 0)
		if e == unix.ENOENT {
			return out
		}
		if e == unix.EACCES {
			t.Skip("this process has a system call filter itself, so the kernel does not show it others'")
		}
		if e != 0 {
			t.Fatal(fmt.Errorf("reading filter %d of process %d: %w", i, pid, e))
		}
		p := make(filter.Program, n)
		if _, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), i, uintptr(unsafe.Pointer(&p[0])), 0, 0); e != 0 {
			t.Fatal(e)
		}
		out = append(out, p)
	}
}

//go:build boot

package boot

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
	"github.com/rkt-systemd/rkt/stage1/filtergen"
	"github.com/rkt-systemd/rkt/tests/host"
)

// TestSeccompEqualsSystemd compares what an app's isolator allows and denies
// with what systemd's SystemCallFilter= does for the same set, by every number
// of the three entry points: systemd's filters out of the kernel, ours as they
// are compiled when a pod starts.
func TestSeccompEqualsSystemd(t *testing.T) {
	h := open(t).Host
	own := len(filters(t, outerPID(t, h, "1")))
	run := []string{"read", "write", "open", "openat", "close", "stat", "fstat", "newfstatat", "statx", "lseek", "mmap", "mmap2", "munmap", "mprotect",
		"ioctl", "access", "faccessat2", "pread64", "nanosleep", "clock_nanosleep", "fcntl", "uname"}
	for i, c := range []struct {
		name string
		filtergen.Isolator
	}{
		{"names, errno", filtergen.Isolator{Retain: true, Set: append([]string{"connect", "semop", "mount"}, run...), Errno: "EACCES"}},
		{"names, kill", filtergen.Isolator{Retain: true, Set: append([]string{"shmat", "sendto"}, run...)}},
		{"group and names, kill", filtergen.Isolator{Retain: true, Set: []string{"@systemd/system-service", "mount", "umount2"}}},
		{"groups, errno", filtergen.Isolator{Retain: true, Set: []string{"@systemd/basic-io", "@systemd/file-system", "@systemd/io-event", "@systemd/process",
			"@systemd/network-io", "@systemd/ipc", "@systemd/default-whitelist"}, Errno: "EPERM"}},
		{"names denied, errno", filtergen.Isolator{Set: []string{"mkdir", "mkdirat", "connect", "semget", "msgctl", "chown32"}, Errno: "EXDEV"}},
		{"names denied, kill", filtergen.Isolator{Set: []string{"mount", "umount", "umount2", "socket"}}},
		{"groups denied, errno", filtergen.Isolator{Set: []string{"@systemd/clock", "@systemd/mount", "@systemd/obsolete", "@systemd/raw-io", "@systemd/privileged"}, Errno: "ENOSYS"}},
		{"network denied, kill", filtergen.Isolator{Set: []string{"@systemd/network-io"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var set []string
			for _, n := range c.Set {
				set = append(set, strings.NewReplacer("@systemd/default-whitelist", "@default", "@systemd/", "@").Replace(n))
			}
			value := strings.Join(set, " ")
			if !c.Retain {
				value = "~" + value
			}
			unit, marker := fmt.Sprintf("rkt-test-seccomp-%d", i), strconv.Itoa(515100+i)
			args := []string{"systemd-run", "--quiet", "--unit=" + unit, "-p", "SystemCallFilter=" + value}
			if c.Errno != "" {
				args = append(args, "-p", "SystemCallErrorNumber="+c.Errno)
			}
			h.Run(t, append(args, "/bin/sleep", marker)...)
			t.Cleanup(func() {
				h.Sh(t, "systemctl stop "+unit+" 2>/dev/null || true; systemctl reset-failed "+unit+" 2>/dev/null || true")
			})
			pid := strings.TrimSpace(h.Eventually(t, soon, "pgrep", "-x", "-f", "/bin/sleep "+marker))
			theirs := filters(t, outerPID(t, h, pid))[own:]
			if len(theirs) == 0 {
				t.Fatal("systemd installed no filter")
			}
			kind, policy, warnings, err := c.Resolve()
			if err != nil || kind != filtergen.Own || len(warnings) > 0 {
				t.Fatalf("Resolve = %v, %q, %v", kind, warnings, err)
			}
			prog, err := filtergen.Compile(policy)
			if err != nil {
				t.Fatal(err)
			}
			ours := []filter.Program{prog}
			compareFilters(t, h, c.Retain, theirs, ours)
		})
	}
}

func compareFilters(t *testing.T, h *host.Host, retain bool, theirs, ours []filter.Program) {
	t.Helper()
	compared := 0
	for _, a := range []struct {
		name string
		arch uint32
		bit  uint32
	}{{"x86-64", filtergen.ArchX86_64, 0}, {"i386", filtergen.ArchI386, 0}, {"x32", filtergen.ArchX86_64, filtergen.X32Bit}} {
		for nr := uint32(0); nr < 1024; nr++ {
			want, got := answer(t, theirs, a.arch, nr|a.bit), answer(t, ours, a.arch, nr|a.bit)
			compared++
			if want == got {
				continue
			}
			name := filtergen.Name(a.arch, nr|a.bit)
			switch {
			case retain && name == "" && want != filter.Allow && got == filter.ENOSYS:
				continue // a number nobody knows yet
			case retain && want == filter.ENOSYS && got != filter.Allow:
				continue // both deny: systemd 257 answers so to calls that only the 32-bit entries or old kernels have
			case retain && newerThanSystemd(h)[name] && want != filter.Allow:
				continue // a call newer than that systemd
			}
			t.Errorf("%s: %d (%s): systemd answers %#x, rkt %#x", a.name, nr, name, want, got)
		}
	}
	// What the 32-bit entry's carriers carry.
	for _, carrier := range []uint32{102, 117} {
		for call := uint64(1); call <= 24; call++ {
			args := [6]uint64{call}
			want, got := combine(t, theirs, filtergen.ArchI386, carrier, args), combine(t, ours, filtergen.ArchI386, carrier, args)
			compared++
			if retain && want == filter.ENOSYS && got != filter.Allow {
				continue // as above: both deny
			}
			if want != got {
				t.Errorf("i386: %d carrying %d: systemd answers %#x, rkt %#x", carrier, call, want, got)
			}
		}
	}
	t.Logf("%d answers compared", compared)
}

// newerThanSystemd are calls that the suite's systemd or its libseccomp cannot
// name: they answer as any other number.
func newerThanSystemd(h *host.Host) map[string]bool {
	newer := map[string]bool{}
	if h.Suite() == "bookworm" {
		for _, n := range strings.Fields(`cachestat getxattrat setxattrat listxattrat removexattrat listmount statmount lsm_get_self_attr
			lsm_list_modules lsm_set_self_attr map_shadow_stack mseal uretprobe fchmodat2 futex_wake futex_wait futex_requeue file_getattr
			file_setattr open_tree_attr landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp`) {
			newer[n] = true
		}
	}
	return newer
}

// TestSeccomp: the filters bite in apps, and only where they should. check
// list: runtime 31
func TestSeccomp(t *testing.T) {
	f := open(t)
	before := f.snapshot()
	const probe = `mkdir /tmp/x 2>/tmp/err; echo "mkdir $? $(sed "s/.*: //" /tmp/err)"; grep Seccomp_filters /proc/self/status`
	image := f.image("seccomp", "busybox", "--name", "example.com/seccomp", "--manifest",
		`{"app": {"exec": ["/bin/sh", "-c", "mkdir /tmp/x 2>&1 | sed 's/.*: //'; grep Seccomp_filters /proc/self/status"], "user": "0", "group": "0", "isolators": [
			{"name": "os/linux/seccomp-remove-set", "value": {"set": ["mkdir", "mkdirat"], "errno": "EXDEV"}}]}}`)
	for _, c := range []struct {
		name  string
		want  string
		flags []string // of the pod
		app   []string
		image string
	}{
		{"image's", "Invalid cross-device link\nSeccomp_filters:\t2\n", nil, nil, image},
		{"command line over image", "Seccomp_filters:\t2\n", nil, []string{"--seccomp=mode=remove,rmdir"}, image},
		{"retain all over image", "Seccomp_filters:\t1\n", nil, []string{"--seccomp", "mode=retain,@appc.io/all"}, image},
		{"remove empty is the default", "Seccomp_filters:\t2\n", nil, []string{"--seccomp", "mode=remove,@appc.io/empty"}, image},
		{"insecure seccomp", "Seccomp_filters:\t0\n", []string{"--insecure-options=seccomp"}, nil, image},
		{"insecure all-run", "Seccomp_filters:\t0\n", []string{"--insecure-options=all-run"}, nil, image},
		{"insecure all", "Seccomp_filters:\t0\n", []string{"--insecure-options=all"}, nil, image},
		{"insecure paths and capabilities", "Invalid cross-device link\nSeccomp_filters:\t2\n", []string{"--insecure-options=paths,capabilities"}, nil, image},
		{"errno", "mkdir 1 Permission denied\nSeccomp_filters:\t2\n", nil, []string{"--seccomp", "mode=remove,errno=EACCES,mkdir,mkdirat"}, ""},
		{"kill", "mkdir 159 Bad system call\nSeccomp_filters:\t2\n", nil, []string{"--seccomp", "mode=remove,mkdir,mkdirat"}, ""},
		{"default list and more", "mkdir 0\nSeccomp_filters:\t2\n", nil, []string{"--seccomp", "mode=retain,@rkt/default-whitelist,settimeofday"}, ""},
		{"Docker's deny list", "mkdir 0\nSeccomp_filters:\t2\n", nil, []string{"--seccomp", "mode=remove,errno=EPERM,@docker/default-blacklist"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append(append([]string{"--net=none"}, c.flags...), bb(probe, c.app...)...)
			if c.image != "" {
				args = append(append(append([]string{"--net=none"}, c.flags...), c.image, "--name=app"), c.app...)
			}
			out, all, code := f.runPod(args...)
			// the test host may have filters of its own, which count
			if code != 0 || relative(t, f, out) != c.want {
				t.Errorf("status %d, %q, want %q:\n%s", code, out, c.want, all)
			}
		})
	}
	t.Run("killed app", func(t *testing.T) {
		_, all, code := f.runPod(append([]string{"--net=none"}, bb("echo hi", "--seccomp=mode=retain,read")...)...)
		equal(t, "status (SIGSYS)", code, 31)
		contains(t, "output", all, "SYS")
	})
	t.Run("told", func(t *testing.T) {
		_, all, code := f.runPod(append([]string{"--net=none"}, bb("true", "--seccomp=mode=remove,errno=EPERM,nosuchcall,@no/such")...)...)
		equal(t, "status", code, 0)
		contains(t, "warnings", all, `"nosuchcall" is not known`, `"@no/such" is not known`)
	})
	for _, bad := range []string{"mode=keep,read", "read", "mode=retain", "mode=retain,colour=red,read", "mode=retain,mode=remove,read", "mode=remove,errno=perm,read", "mode=remove,errno=ENONE,read"} {
		f.refused(t, nil, append([]string{"run", "--net=none"}, bb("true", "--seccomp", bad)...)...)
	}
	t.Run("retained beyond the pod", func(t *testing.T) {
		// mlock is not in the pod's own filter: retaining it widens that; so does the capability it needs.
		for _, flag := range []string{"--seccomp=mode=retain,errno=EPERM,@rkt/default-whitelist,mlockall", "--caps-retain=CAP_IPC_LOCK"} {
			uuid := f.background(append([]string{"--net=none"}, bb(forever(0), flag)...)...)
			leader := outerPID(t, f.Host, strings.TrimSpace(f.Run(t, "machinectl", "show", "-p", "Leader", "--value", "rkt-"+uuid)))
			if got := answer(t, filters(t, leader), filtergen.ArchX86_64, unix.SYS_MLOCKALL); got != filter.Allow {
				t.Errorf("%s: the pod's filter answers %#x to mlockall", flag, got)
			}
			f.rkt("stop", uuid)
			f.rkt("status", uuid, "--wait=60s")
		}
	})
	t.Run("compiled once", func(t *testing.T) {
		before := f.sh("ls -i /var/lib/rkt/filters; stat -c '%a %u' /var/lib/rkt/filters")
		contains(t, "the cache", before, "700 0\n")
		f.runPod(append([]string{"--net=none"}, bb("true", "--seccomp=mode=remove,mkdir,mkdirat")...)...)
		equal(t, "the cache", f.sh("ls -i /var/lib/rkt/filters; stat -c '%a %u' /var/lib/rkt/filters"), before)
		// a damaged file is noticed
		f.sh("for x in /var/lib/rkt/filters/*; do echo 12345678 | dd of=$x bs=1 seek=40 conv=notrunc status=none; done")
		out, all, _ := f.runPod(append([]string{"--net=none"}, bb(probe, "--seccomp=mode=remove,mkdir,mkdirat")...)...)
		contains(t, "output", out, "mkdir 159 Bad system call")
		contains(t, "warning", all, "is damaged; it is made again")
	})
	f.unchanged(before)
}

// relative subtracts the test host's own filters from the count an app printed.
func relative(t *testing.T, f *fixture, out string) string {
	t.Helper()
	head, count, ok := strings.Cut(out, "Seccomp_filters:\t")
	if !ok {
		return out
	}
	n, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(f.sh("grep Seccomp_filters /proc/self/status"), "\t")
	o, err := strconv.Atoi(strings.TrimSpace(own))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%sSeccomp_filters:\t%d\n", head, n-o)
}

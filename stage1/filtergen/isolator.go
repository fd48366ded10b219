package filtergen

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// Isolator is a system call isolator of the App Container specification.
type Isolator struct {
	Retain bool // a list of what is allowed, else of what is not
	Set    []string
	Errno  string // of calls that are not allowed; "" kills
}

// Kinds of outcome of an isolator.
type Kind int

const (
	// Default: the filter of apps without an isolator.
	Default Kind = iota
	// None: no filter of the app's own.
	None
	// Own: the returned policy.
	Own
)

// Resolve turns an isolator into a policy. Warnings name what of the set has
// no effect.
//
// As with systemd's SystemCallFilter=, a list of allowed calls always has
// @default with it: without execve no app starts, and C libraries use others
// of it behind the program's back. Calls newer than this program's tables
// answer ENOSYS under such a list, whatever the isolator's errno: programs
// probe for them and must live to take the older way.
func (i Isolator) Resolve() (kind Kind, p Policy, warnings []string, err error) {
	act := filter.KillProcess
	if i.Errno != "" {
		n, ok := errno(i.Errno)
		if !ok {
			return 0, p, nil, fmt.Errorf("%q is the name of no error", i.Errno)
		}
		act = uint32(unix.SECCOMP_RET_ERRNO) | n
	}
	all := slices.Contains(i.Set, "@appc.io/all")
	switch {
	case i.Retain && all:
		return None, p, nil, nil
	case !i.Retain && slices.Contains(i.Set, "@appc.io/empty"):
		return Default, p, nil, nil
	case all:
		return 0, p, nil, fmt.Errorf("a set that removes @appc.io/all leaves no call to start the app with")
	}
	names := map[string]bool{}
	for _, n := range i.Set {
		list, ok := group(n)
		switch {
		case !strings.HasPrefix(n, "@") && Known(n):
			names[n] = true
		case !strings.HasPrefix(n, "@"):
			warnings = append(warnings, fmt.Sprintf("system call %q is not known and has no effect", n))
		case !ok:
			warnings = append(warnings, fmt.Sprintf("system call group %q is not known and has no effect", n))
		}
		for _, n := range list {
			names[n] = true
		}
	}
	if i.Retain {
		for _, n := range systemd("@default") {
			names[n] = true
		}
	}
	list := make([]string, 0, len(names))
	for n := range names {
		list = append(list, n)
	}
	slices.Sort(list)
	if i.Retain {
		return Own, Policy{Allow: list, Default: act, Carried: true}, warnings, nil
	}
	return Own, Policy{Deny: list, DenyWith: act, Default: filter.Allow, Unknown: filter.Allow, Carried: true}, warnings, nil
}

// group expands a group's name to the calls that exist here.
func group(name string) ([]string, bool) {
	switch name {
	case "@appc.io/empty":
		return nil, true
	case "@docker/default-whitelist", "@rkt/default-whitelist":
		return App().Allow, true
	case "@docker/default-blacklist", "@rkt/default-blacklist":
		return defaultDenied(), true
	case "@systemd/default-whitelist":
		return systemd("@default"), true
	}
	if n, ok := strings.CutPrefix(name, "@systemd/"); ok {
		if _, ok := systemdSets()["@"+n]; ok {
			return systemd("@" + n), true
		}
	}
	return nil, false
}

// systemd expands a group of systemd; calls of other architectures are left out.
func systemd(name string) []string {
	sets := systemdSets()
	var out []string
	var add func(string)
	add = func(set string) {
		for _, n := range sets[set] {
			if strings.HasPrefix(n, "@") {
				add(n)
			} else if Known(n) {
				out = append(out, n)
			}
		}
	}
	add(name)
	slices.Sort(out)
	return slices.Compact(out)
}

// defaultDenied is the list of calls that rkt and Docker denied when the names
// of the lists were made, and the newer calls that do the same.
func defaultDenied() []string {
	return []string{
		"_sysctl", "acct", "add_key", "adjtimex", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module",
		"finit_module", "get_kernel_syms", "get_mempolicy", "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load",
		"keyctl", "lookup_dcookie", "mbind", "mount", "move_pages", "name_to_handle_at", "nfsservctl", "open_by_handle_at",
		"perf_event_open", "pivot_root", "process_vm_readv", "process_vm_writev", "ptrace", "query_module", "quotactl", "reboot",
		"request_key", "set_mempolicy", "setns", "settimeofday", "stime", "swapoff", "swapon", "sysfs", "umount", "umount2",
		"unshare", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
		// newer
		"clock_adjtime64", "clock_settime64", "fsconfig", "fsmount", "fsopen", "fspick", "io_uring_enter", "io_uring_register",
		"io_uring_setup", "migrate_pages", "mount_setattr", "move_mount", "open_tree", "pidfd_getfd", "process_madvise",
		"quotactl_fd", "set_mempolicy_home_node",
	}
}

// errno finds an error's number by its name.
func errno(name string) (uint32, bool) {
	switch name { // second names of the same numbers
	case "EWOULDBLOCK":
		return uint32(unix.EAGAIN), true
	case "EDEADLOCK":
		return uint32(unix.EDEADLK), true
	case "ENOTSUP":
		return uint32(unix.EOPNOTSUPP), true
	}
	for n := uint32(1); n <= 133; n++ {
		if unix.ErrnoName(unix.Errno(n)) == name {
			return n, true
		}
	}
	return 0, false
}

// generation is part of every Key: it changes when Compile makes another
// program of the same policy.
const generation = 1

// Key names the program that Compile makes of the policy.
func (p Policy) Key() (string, error) {
	b, err := json.Marshal(struct {
		Generation             int
		X86_64, I386, X32, Max int
		Policy
	}{generation, len(arch.X86_64.SyscallNumbers), len(arch.I386.SyscallNumbers), len(arch.X32.SyscallNumbers), len(arch.X86_64.SyscallNames), p})
	if err != nil {
		return "", fmt.Errorf("naming a filter: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

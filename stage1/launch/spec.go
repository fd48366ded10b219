// Package launch starts the processes of an app: it builds the app's view of
// the file system in a mount namespace of its own, drops users, capabilities
// and system calls, and executes. stage1 writes a Spec per app before the pod
// starts; rkt-stage2 reads it inside the pod for the app itself, for its event
// handlers, for enter and for shells, so that all of them are confined alike.
package launch

import (
	"encoding/json"
	"fmt"
	"os"
)

// Spec is everything the launcher needs to know of an app, resolved: users are
// numbers, paths are paths in the app's root.
type Spec struct {
	Name string `json:"name"`
	// Root is the app's root file system as PID 1 of the pod sees it.
	Root     string   `json:"root"`
	Exec     []string `json:"exec"`
	PreStart []string `json:"preStart,omitempty"`
	PostStop []string `json:"postStop,omitempty"`
	Dir      string   `json:"dir"`
	Env      []string `json:"env"`
	UID      uint32   `json:"uid"`
	GID      uint32   `json:"gid"`
	Groups   []uint32 `json:"groups,omitempty"`
	// Caps is the capability bounding set, a bit per capability number.
	Caps            uint64 `json:"caps"`
	NoNewPrivileges bool   `json:"noNewPrivileges,omitempty"`
	// Filter is the path of a compiled system call filter in the pod's root;
	// empty means none but the pod's.
	Filter string `json:"filter,omitempty"`
	// PodFilter is the pod's, for processes that come from the host.
	PodFilter string `json:"podFilter,omitempty"`
	// SELinux is the context the app's processes get, AppArmor the profile; ""
	// leaves them what the pod has.
	SELinux  string `json:"selinux,omitempty"`
	AppArmor string `json:"apparmor,omitempty"`
	// IOMax are lines for io.max of the app's cgroup: the pod's systemd would want
	// the disks' nodes, which no pod has.
	IOMax        []string `json:"ioMax,omitempty"`
	ReadOnlyRoot bool     `json:"readOnlyRoot,omitempty"`
	// MaskPaths hides and write-protects kernel interfaces (maskedPaths).
	MaskPaths bool `json:"maskPaths,omitempty"`
	// OwnSys leaves /sys alone: a volume is mounted on or below it.
	OwnSys bool `json:"ownSys,omitempty"`
	// DevVolumes are the targets of volumes below /dev.
	DevVolumes []string `json:"devVolumes,omitempty"`
	// LogUnit is the host's unit under which journald files the app's lines; see
	// OpenJournal.
	LogUnit string `json:"logUnit,omitempty"`
	// LogPassed says that the stream to the journal was opened by the host's root,
	// and systemd passes it on: the pod's own root could not name the unit.
	LogPassed bool `json:"logPassed,omitempty"`
	// GuestJournal says that the pod has a journald of its own.
	GuestJournal bool `json:"guestJournal,omitempty"`
	// JournalFrom is the directory of the host's journald's sockets, for fly.
	JournalFrom string `json:"journalFrom,omitempty"`
	// Out is a FIFO of the pod's root that stands at /dev/stdout and /dev/stderr,
	// "" for links to the process's own descriptors. Only the app itself and its
	// handlers get it: others have a terminal or pipes there.
	Out string `json:"out,omitempty"`
	// Stdin, Stdout and Stderr are modes (package stdio) of the main process, "" for
	// the default. Console says where stdio.Interactive comes from.
	Stdin   string `json:"stdin,omitempty"`
	Stdout  string `json:"stdout,omitempty"`
	Stderr  string `json:"stderr,omitempty"`
	Console string `json:"console,omitempty"`
	// Reload are commands that have the app reload, in order.
	Reload [][]string `json:"reload,omitempty"`
	// Restarts says that the app may be started again after it has ended.
	Restarts bool `json:"restarts,omitempty"`
	// Mutable says that the pod goes on when the app has ended, however it did.
	Mutable bool `json:"mutable,omitempty"`
	// Watchdog says that the app sends keep-alives to systemd.
	Watchdog bool `json:"watchdog,omitempty"`
	// Sockets says that systemd passes sockets to the app.
	Sockets bool `json:"sockets,omitempty"`
	// LogFile is the file for streams in mode stdio.File, relative to LogFileDir.
	LogFile string `json:"logFile,omitempty"`
	// Fly says that the app runs on the host, in nothing but a root of its own;
	// Journal that the host's journal is to be reached from there.
	Fly     bool `json:"fly,omitempty"`
	Journal bool `json:"journal,omitempty"`
	// Notify says that the app itself tells systemd when it is ready.
	Notify bool `json:"notify,omitempty"`
	// Credentials are files of CredentialsFrom, a mount of the pod's root that is
	// shown at CredentialsAt.
	Credentials     []Credential `json:"credentials,omitempty"`
	CredentialsFrom string       `json:"credentialsFrom,omitempty"`
	CredentialsAt   string       `json:"credentialsAt,omitempty"`
	// CoreFilter says that the app's unit chooses what is in its core dumps.
	CoreFilter bool `json:"coreFilter,omitempty"`
	// Health is how the prober looks at the app; nil for none.
	Health *Health `json:"health,omitempty"`
	// Binds are single files of the pod shown in the app.
	Binds []Bind `json:"binds,omitempty"`
}

// Bind shows Source, a file of the pod's root, at Target in the app.
type Bind struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// IfAbsent leaves an existing target of the image alone, unless it is an empty file.
	IfAbsent bool `json:"ifAbsent,omitempty"`
	// IfContent shows nothing when the source is empty.
	IfContent bool `json:"ifContent,omitempty"`
}

// Dir is where the records lie, in the pod's root.
const Dir = "/rkt/apps"

// ReadSpec reads the record of an app inside the pod.
func ReadSpec(app string) (*Spec, error) {
	b, err := os.ReadFile(Dir + "/" + app + ".json")
	if err != nil {
		return nil, fmt.Errorf("reading the record of app %q: %w", app, err)
	}
	s := &Spec{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("reading the record of app %q: %w", app, err)
	}
	return s, nil
}

// Capabilities by number (capability.h), in the spelling of manifests.
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// AllCaps is every capability this program knows.
const AllCaps = uint64(1)<<len(capNames) - 1

// CapByName returns the bit of a capability.
func CapByName(name string) (uint64, bool) {
	for i, n := range capNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// CapNames lists the capabilities in a set.
func CapNames(set uint64) []string {
	var out []string
	for i, n := range capNames {
		if set&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// DefaultCaps is the set of an app without a capability isolator.
func DefaultCaps() uint64 {
	var set uint64
	for _, n := range []string{"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_KILL",
		"CAP_MKNOD", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETFCAP", "CAP_SYS_CHROOT"} {
		b, _ := CapByName(n)
		set |= b
	}
	return set
}

// Package podfs names everything inside rkt's data directory and inside a pod
// directory. stage0 and stage1 both read and write there; neither knows the
// other, so what they must agree on is here and nowhere else.
package podfs

import (
	"path/filepath"
	"strings"
)

// Directories below the data directory's pods/ folder: one per phase of a
// pod's life, in the order pods move through them.
const (
	Embryo        = "embryo"
	Prepare       = "prepare"
	Prepared      = "prepared"
	Run           = "run"
	ExitedGarbage = "exited-garbage"
	Garbage       = "garbage"
)

// Files in a pod directory.
const (
	PodManifest     = "pod"
	PodCreated      = "pod-created"
	PodLock         = "pod.lck"
	OverlayPrepared = "overlay-prepared"
	PrivateUsers    = "private-users-prepared"
	// PrivateUsersCopied marks copies whose files belong to the pod's range
	// themselves: they are not mapped by a mount.
	PrivateUsersCopied = "private-users-copied"
	Stage1TreeID       = "stage1TreeStoreID"
	Pid                = "pid"
	Ppid               = "ppid"
	Pgid               = "pgid"
	Subcgroup          = "subcgroup"
	Netns              = "netns"
	NetDir             = "net"
	NetInfo            = "net-info.json"
	// NetHosts, in NetDir, is the hosts file of the pod's apps where it names other pods.
	NetHosts      = "hosts"
	Flavor        = "flavor"
	RuntimeConfig = "runtime-config"
	SharedVolumes = "sharedVolumes"
	MachineName   = "machine"
	DeclaredName  = "declared-name"
	UnitName      = "unit"
	// StartOptions is the "rkt" section of a pod file that would start the pod in the
	// same way; a declared pod has none.
	StartOptions   = "start-options"
	Stage1         = "stage1"
	Stage1Manifest = "stage1/manifest"
	Stage1Rootfs   = "stage1/rootfs"
	Overlay        = "overlay"
	AppsInfo       = "appsinfo"
	// GuestJournal has the files of the pod's own journal.
	GuestJournal    = "journal"
	NspawnLock      = "nspawn-lock"
	ReleasedMarker  = "released"
	TreeStoreIDFile = "treeStoreID"
	ManifestFile    = "manifest"
	RootfsDir       = "rootfs"
)

// Paths inside the stage1 root file system (relative to it).
const (
	Stage2Dir    = "opt/stage2"
	StatusDir    = "rkt/status"
	HealthDir    = "rkt/health"
	EnvDir       = "rkt/env"
	AppRecordDir = "rkt/apps"
	// CredentialDir has a mount with the credentials of each app that has some.
	CredentialDir    = "rkt/credentials"
	SupervisorStatus = "rkt/supervisor-status"
	UnitDir          = "rkt/units"
	ResolvConf       = "etc/rkt-resolv.conf"
	// NetworkState is locked while the pod's networks are being joined, and
	// then holds the outcome.
	NetworkState = "rkt/network"
	Hosts        = "etc/rkt-hosts"
	// PeerHosts is where the pod sees its NetHosts, read-only.
	PeerHosts = "rkt/hosts"
)

// DefaultMachine is the machine name of a pod that was given none.
func DefaultMachine(uuid string) string { return "rkt-" + uuid }

// Scope is the scope unit that machined makes for a machine that is registered
// from outside a unit.
func Scope(machine string) string {
	return "machine-" + strings.ReplaceAll(machine, "-", `\x2d`) + ".scope"
}

// AppInfo is the directory of an app's image manifest and tree id, relative to
// the pod directory.
func AppInfo(app string) string { return filepath.Join(AppsInfo, app) }

// AppRootfs is an app's root file system, relative to the pod directory.
func AppRootfs(app string) string {
	return filepath.Join(Stage1Rootfs, Stage2Dir, app, RootfsDir)
}

// Upper is the overlay upper directory for a tree; app is "" for stage1.
func Upper(tree, app string) string { return filepath.Join(Overlay, tree, "upper", app) }

// Work is the overlay work directory for a tree; app is "" for stage1.
func Work(tree, app string) string { return filepath.Join(Overlay, tree, "work", app) }

// Network is an entry of the file NetInfo: a network the pod joined.
type Network struct {
	NetName    string `json:"netName"`
	NetConf    string `json:"netConf"`
	PluginPath string `json:"pluginPath"`
	IfName     string `json:"ifName"`
	IP         string `json:"ip"` // IPv4
	Args       string `json:"args"`
	Mask       string `json:"mask"`
	IP6        string `json:"ip6,omitempty"`
	// Forwards is set for the network to which the pod's ports are forwarded.
	Forwards bool `json:"forwards,omitempty"`
}

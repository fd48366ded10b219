package network

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/internal/failpoint"
	"github.com/rkt-systemd/rkt/internal/sys"
)

// newNamespace moves the calling thread into a new network namespace with its
// loopback interface up, and binds the namespace to path in the mount
// namespace of the host: the pod's own mounts end with the pod, but the
// plugins need the namespace to clean up after it.
func newNamespace(uuid, path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	self := fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	var st unix.Stat_t
	if err := unix.Stat(self, &st); err != nil {
		return err
	}
	if err := noteInode(uuid, st.Ino); err != nil {
		return err
	}
	failpoint.Hit("network/netns-noted")
	return sys.BindNamespace(self, path)
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, req); err != nil {
		return err
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}

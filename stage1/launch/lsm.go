package launch

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// label asks the kernel to change the label of this thread's next program. The
// plan has found that the kernel has the security module.
func label(s *Spec) error {
	const attr = "/proc/thread-self/attr/"
	if s.SELinux != "" {
		if err := writeProc(s.SELinux, attr+"exec"); err != nil {
			return fmt.Errorf("setting the SELinux context %q: %w", s.SELinux, err)
		}
	}
	if s.AppArmor != "" {
		// the second name is that of kernels before 5.8
		if err := writeProc("exec "+s.AppArmor, attr+"apparmor/exec", attr+"exec"); err != nil {
			return fmt.Errorf("setting the AppArmor profile %q: %w", s.AppArmor, err)
		}
	}
	return nil
}

// writeProc writes to the first of the files that exists.
func writeProc(text string, names ...string) error {
	var fd int
	var err error
	for _, n := range names {
		if fd, err = unix.Open(n, unix.O_WRONLY|unix.O_CLOEXEC, 0); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}

// LimitIO writes the limits on disks to this process's control group. systemd
// takes disks by path, and no pod has nodes of them; it leaves alone what it
// did not set.
func LimitIO(s *Spec) error {
	if len(s.IOMax) == 0 {
		return nil
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		cg, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for _, l := range s.IOMax {
			if err := writeProc(l, "/sys/fs/cgroup"+cg+"/io.max"); err != nil {
				return fmt.Errorf("limiting the use of disks (%s): %w", l, err)
			}
		}
		return nil
	}
	return errors.New("limiting the use of disks: this process is in no unified control group")
}

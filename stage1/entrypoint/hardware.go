package entrypoint

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/appc/spec/schema"
	"github.com/appc/spec/schema/types"
	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/plan"
)

// isolation looks at what the kernel offers for isolators, only as far as the
// pod has any that depend on it.
func isolation(in plan.Input, f *plan.Facts) error {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return err
	}
	f.Controllers = strings.Fields(string(b))
	for _, i := range isolatorsOf(in) {
		switch i.Name.String() {
		case types.ResourceBlockBandwidthName, types.ResourceBlockIOPSName:
			f.Disks = disks("/sys/block")
		case types.LinuxSELinuxContextName:
			f.SELinux = exists("/sys/fs/selinux/enforce")
		case "os/linux/apparmor-profile":
			f.AppArmor, f.AppArmorProfiles = apparmor("/sys/module/apparmor/parameters/enabled", "/sys/kernel/security/apparmor/profiles")
		}
	}
	f.Devices = devices(in.Pod)
	return nil
}

// setParameters sets kernel parameters of the network. /proc/sys/net shows the
// network namespace of who opens it: this thread's, which is the pod's by now.
func setParameters(params []plan.Parameter) error {
	if len(params) == 0 {
		return nil
	}
	root, err := unix.Open("/proc/sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /proc/sys: %w", err)
	}
	defer unix.Close(root)
	for _, p := range params {
		fd, err := unix.Openat2(root, p.Path, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err == nil {
			_, err = unix.Write(fd, []byte(p.Value+"\n"))
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("setting the kernel parameter %q to %q: %w", strings.ReplaceAll(p.Path, "/", "."), p.Value, err)
		}
	}
	return nil
}

func isolatorsOf(in plan.Input) types.Isolators {
	out := slices.Clone(types.Isolators(in.Pod.Isolators))
	for i := range in.Pod.Apps {
		app := in.Pod.Apps[i].App
		if m := in.Images[in.Pod.Apps[i].Name.String()]; app == nil && m != nil {
			app = m.App
		}
		if app != nil {
			out = append(out, app.Isolators...)
		}
	}
	return out
}

// disks are the numbers of the block devices that stand for hardware: what is
// made of them (device mapper, RAID, loops) ends there.
func disks(dir string) []string {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range names {
		if !exists(filepath.Join(dir, n.Name(), "device")) {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, n.Name(), "dev")); err == nil {
			out = append(out, strings.TrimSpace(string(b)))
		}
	}
	slices.Sort(out)
	return out
}

// apparmor says whether AppArmor is on and which profiles are loaded.
func apparmor(enabled, profiles string) (bool, []string) {
	b, err := os.ReadFile(enabled)
	if err != nil || strings.TrimSpace(string(b)) != "Y" {
		return false, nil
	}
	f, err := os.Open(profiles)
	if err != nil {
		return true, nil
	}
	defer f.Close()
	var out []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// NAME (enforce); names may have spaces
		if i := strings.LastIndex(sc.Text(), " ("); i > 0 {
			out = append(out, sc.Text()[:i])
		}
	}
	return true, out
}

// devices are the host volumes that are device nodes.
func devices(pod *schema.PodManifest) map[string]plan.Device {
	out := map[string]plan.Device{}
	look := func(v *types.Volume) {
		var st unix.Stat_t
		if v == nil || v.Kind != "host" || unix.Stat(v.Source, &st) != nil {
			return
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR, unix.S_IFBLK:
			out[v.Source] = plan.Device{Block: st.Mode&unix.S_IFMT == unix.S_IFBLK, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
		}
	}
	for i := range pod.Volumes {
		look(&pod.Volumes[i])
	}
	for i := range pod.Apps {
		for _, m := range pod.Apps[i].Mounts {
			look(m.AppVolume)
		}
	}
	return out
}

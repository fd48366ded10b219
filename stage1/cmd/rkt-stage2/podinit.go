package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/filter"
)

// Files of the pod's root by which stage1 tells PID 1 what to set up before
// anything else runs in the pod. Each may be missing.
const (
	devicesFile = "/rkt/devices"
	sysctlFile  = "/rkt/sysctl"
)

// preparePod carries out the pod's device rules and kernel parameters.
func preparePod() error {
	rules, ok, err := filter.ReadDevices(devicesFile)
	if err == nil && ok {
		// the root of the pod's own control group namespace
		err = filter.ConfineDevices("/sys/fs/cgroup", rules)
	}
	if err != nil {
		return err
	}
	b, err := os.ReadFile(sysctlFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return setParameters(string(b))
}

// setParameters writes kernel parameters: lines of PATH=VALUE below /proc/sys.
// systemd-nspawn has made that read-only, hence another mount of proc, which
// no other process sees.
func setParameters(text string) error {
	root, err := ownProc()
	if err != nil {
		return fmt.Errorf("mounting proc to set kernel parameters (in a pod with users of its own the kernel may refuse that): %w", err)
	}
	defer unix.Close(root)
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			continue
		}
		fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err == nil {
			_, err = unix.Write(fd, []byte(value+"\n"))
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("setting the kernel parameter %q to %q: %w", strings.ReplaceAll(name, "/", "."), value, err)
		}
	}
	return nil
}

// ownProc is sys of a new, detached proc file system.
func ownProc() (int, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(m)
	return unix.Openat(m, "sys", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

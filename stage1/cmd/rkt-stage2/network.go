package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/rkt-systemd/rkt/stage1/launch"
)

// networkState is podfs.NetworkState, which this program does not import.
const networkState = "/rkt/network"

// awaitNetwork waits until the host's side has let go of the pod's networks. It
// holds a lock as long as it works on them: it cannot end without our knowing.
func awaitNetwork() error {
	f, err := os.Open(networkState)
	if err != nil {
		return fmt.Errorf("waiting for the pod's networks: %w", err)
	}
	defer f.Close()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for the pod's networks: %w", err)
		}
	}
	b := make([]byte, 16)
	n, _ := f.Read(b)
	switch string(b[:n]) {
	case "joined\n":
		return nil
	case "failed\n":
		os.Exit(254) // rkt has said why
	}
	// Not to the journal: it may not find out any more whose line this is.
	if console, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		os.Stderr = console
	}
	return &launch.Error{Status: 254, Err: errors.New("the pod's networks were not joined: the program that was to do it has ended early")}
}

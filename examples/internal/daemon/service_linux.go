package daemon

import (
	"fmt"
	"slices"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// reloading carries the time, by which systemd knows the answer that belongs to it.
func reloading() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // can't fail
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, t.Nano()/1000)
}

// kept are the capabilities that a running program needs: for devices, routes and rules, and for
// sockets of interfaces; CAP_BPF for the tables of the kernel's data plane.
var kept = []cap.Value{cap.NET_ADMIN, cap.NET_RAW, cap.BPF}

// DropCapabilities gives up what a program that has started needs no more, for all its
// threads and for good. A process that runs as root stays the owner of its files.
func DropCapabilities() error {
	has := cap.GetProc()
	want := cap.NewSet()
	for _, c := range kept {
		for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
			on, err := has.GetFlag(flag, c)
			if err != nil || !on {
				continue // not ours, or unknown to this kernel
			}
			if err := want.SetFlag(flag, true, c); err != nil {
				return fmt.Errorf("dropping capabilities: %w", err)
			}
		}
	}
	// What is gone from the bounding set can't come back by an exec.
	for c := cap.Value(0); c < cap.MaxBits(); c++ {
		if on, err := has.GetFlag(cap.Effective, cap.SETPCAP); err != nil || !on {
			break
		}
		if slices.Contains(kept, c) {
			continue
		}
		if err := cap.DropBound(c); err != nil {
			return fmt.Errorf("dropping %v: %w", c, err)
		}
	}
	if err := want.SetProc(); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

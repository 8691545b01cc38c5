package encap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openLinks returns a socket that tells of every change of an interface.
func openLinks() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch interfaces: %w", os.NewSyscallError("socket", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch interfaces: %w", os.NewSyscallError("bind", err))
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// watchLinks calls changed after every change of an interface, until the Underlay
// is closed. What it was, changed has to find out itself.
func (u *udpUnderlay) watchLinks(changed func()) error {
	var b [1 << 12]byte // the rest of a longer message is not needed
	for {
		switch _, err := u.links.Read(b[:]); {
		case err == nil, errors.Is(err, unix.ENOBUFS): // or messages were lost
			changed()
		default:
			return err
		}
	}
}

package tun

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const clonePath = "/dev/net/tun"

// openTUN makes the TUN device, or attaches to one that is there and nobody has
// open, and returns its descriptor. Of a device for several queues it is one of
// them.
func openTUN(name string, several bool) (int, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			return -1, fmt.Errorf("tun: %s: %w (%w): load the module tun, or pass the device to the container", clonePath, err, errors.ErrUnsupported)
		}
		return -1, fmt.Errorf("tun: %s: %w", clonePath, err)
	}
	// With the virtio header, packets cross the descriptor unsegmented and
	// without checksums.
	const flags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if several {
		err = attach(fd, name, flags|unix.IFF_MULTI_QUEUE)
	} else {
		err = attach(fd, name, flags)
	}
	if errors.Is(err, unix.EINVAL) && !several {
		// A device that was made for several queues takes only those.
		if attach(fd, name, flags|unix.IFF_MULTI_QUEUE) == nil {
			return fd, nil
		}
	}
	if err == nil {
		return fd, nil
	}
	_ = unix.Close(fd)
	switch {
	case errors.Is(err, unix.EBUSY):
		return -1, fmt.Errorf("tun: %s is %w by another process", name, ErrInUse)
	case errors.Is(err, unix.EINVAL):
		return -1, fmt.Errorf("tun: the name %s is %w by a device that is not TUN, or not for as many queues, or not valid", name, ErrInUse)
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("tun: make %s: %w: it takes root, or CAP_NET_ADMIN", name, err)
	}
	return -1, fmt.Errorf("tun: make %s: %w", name, err)
}

// notInUse returns ErrInUse if a process has a queue of a device for several: the
// kernel would let us have a further one.
func notInUse(l netlink.Link) error {
	if t, ok := l.(*netlink.Tuntap); ok && t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 && t.Queues+t.DisabledQueues > 0 {
		return fmt.Errorf("tun: %s is %w by another process", t.Name, ErrInUse)
	}
	return nil
}

func attach(fd int, name string, flags uint16) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(flags)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// takeFile returns a descriptor of the TUN device that f is, and closes f.
func takeFile(f *os.File) (int, error) {
	defer func() { _ = f.Close() }()
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("tun: %w", err)
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		ifr, err := unix.NewIfreq("")
		if err == nil {
			err = unix.IoctlIfreq(int(old), unix.TUNGETIFF, ifr)
		}
		if err != nil {
			dupErr = fmt.Errorf("not a TUN device: %w", err)
			return
		}
		if flags := ifr.Uint16(); flags&unix.IFF_TUN == 0 || flags&unix.IFF_NO_PI == 0 {
			dupErr = fmt.Errorf("%w: TUN device without IFF_TUN or IFF_NO_PI", ErrConfig)
			return
		}
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		if dupErr == nil {
			dupErr = unix.SetNonblock(fd, true)
		}
	})
	if err = errors.Join(err, dupErr); err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, fmt.Errorf("tun: adopt a descriptor: %w", err)
	}
	return fd, nil
}

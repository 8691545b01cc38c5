package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// probes try the features, each in an empty host.
var probes = map[Feature]func(*Host) error{
	NetworkNamespaces: func(*Host) error { return nil },
	UserNamespaces:    func(*Host) error { return nil },
	WritableSysctl:    func(*Host) error { return nil }, // making the host was the proof
	Veth:              func(h *Host) error { return addVeth(h, "v0", h, "v1", 1500) },
	TUN:               probeTUN,
	IPv6: func(h *Host) error {
		return h.Do(func() error {
			c, err := net.ListenPacket("udp6", "[::1]:0")
			if err != nil {
				return err
			}
			return c.Close()
		})
	},
	PolicyRouting: func(h *Host) error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			r := netlink.NewRule()
			r.Family, r.Table, r.Priority = family, 7, 7
			if err := h.nl.RuleAdd(r); err != nil {
				return fmt.Errorf("add a rule: %w", err)
			}
		}
		return nil
	},
	PacketSockets: func(h *Host) error {
		f, err := packetSocket(h, 0)
		if err != nil {
			return err
		}
		return f.Close()
	},
	NAT: func(h *Host) error {
		return h.Do(func() error { return masquerade("lo", NATConfig{}) })
	},
	ConntrackFlush: func(h *Host) error { return h.Do(flushConntrack) },
}

var probeHints = map[Feature]string{
	Veth:          "is the kernel built with CONFIG_VETH?",
	IPv6:          "kernel without IPv6, or booted with ipv6.disable=1",
	PolicyRouting: "is the kernel built with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES?",
}

var (
	probeMu      sync.Mutex
	probeResults = map[Feature]error{}
)

// Probe reports, as a *MissingFeatureError, the first of features that the system does
// not have; with none given, the first that the demo needs. It must be called
// after Enter or Main. What it finds it remembers.
func Probe(features ...Feature) error {
	if errEnter != nil {
		return errEnter
	}
	if !inside {
		return errors.New("netlab: not in namespaces of its own: call Enter or Main first")
	}
	if len(features) == 0 {
		features = []Feature{Veth, IPv6, PolicyRouting, TUN, PacketSockets}
	}
	probeMu.Lock()
	defer probeMu.Unlock()
	for _, f := range features {
		err, known := probeResults[f]
		if !known {
			err = probe(f)
			probeResults[f] = err
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func probe(f Feature) error {
	try, ok := probes[f]
	if !ok {
		return fmt.Errorf("netlab: unknown feature %q", f)
	}
	h := &Host{lab: &Lab{}, name: "probe", ns: -1}
	defer h.close()
	err := h.open()
	if err == nil {
		err = h.setUp(false)
	}
	if err == nil {
		err = try(h)
	}
	var missing *MissingFeatureError
	if err == nil || errors.As(err, &missing) {
		return err
	}
	return &MissingFeatureError{Feature: f, Err: err, Hint: probeHints[f]}
}

func probeTUN(h *Host) error {
	const path = "/dev/net/tun"
	return h.Do(func() error {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			m := &MissingFeatureError{Feature: TUN, Err: fmt.Errorf("%s: %w", path, err)}
			switch {
			case errors.Is(err, os.ErrNotExist):
				m.Hint = "load the module tun, or pass the device to the container"
			case errors.Is(err, os.ErrPermission):
				m.Hint = "udev normally makes it readable and writable for everyone: chmod 666 " + path
			}
			return m
		}
		defer func() { _ = unix.Close(fd) }()
		ifr, err := unix.NewIfreq("probe0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return fmt.Errorf("%s: TUNSETIFF: %w", path, err)
		}
		return nil
	})
}

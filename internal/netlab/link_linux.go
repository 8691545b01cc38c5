package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End describes one end of a link.
type End struct {
	// Name of the interface; empty means the first free of eth0, eth1, ...
	Name string
	// Addrs are addresses with prefix lengths, as in "192.0.2.1/24".
	Addrs []string
}

// At is an End with these addresses.
func At(addrs ...string) End { return End{Addrs: addrs} }

// LinkConfig describes a link. The zero value is a plain veth pair without
// addresses.
type LinkConfig struct {
	A, B End
	// MTU of both ends in octets; 0 means 1500.
	MTU int
	// Delay is how long each frame takes, either way. Frames never overtake each
	// other. A link with Delay, Drop or Relay carries frames through this
	// process, at up to a hundred thousand frames a second.
	Delay time.Duration
	// Drop is asked for each frame (Ethernet header and all) in the order of its
	// arrival, and loses it by returning true. fromA says that end A sent it.
	// There is never more than one call at a time.
	Drop func(fromA bool, frame []byte) bool
	// Relay makes the link pass through this process even without Delay and
	// Drop, so that SetDelay and SetDrop can be used later.
	Relay bool
	// NoOffload makes senders compute checksums and segment packets themselves,
	// as without it a veth carries unfinished ones: captures show a link as a
	// real wire would have it. Links through this process always do.
	NoOffload bool
}

// Link is a wire between two hosts.
type Link struct {
	A, B  *Interface
	lab   *Lab
	relay *relay // nil if the link is a plain veth pair
}

// Interface is one end of a link.
type Interface struct {
	Host  *Host
	Name  string
	Index int
}

// Link connects a and b. When it returns, both ends are up and their addresses
// usable.
func (l *Lab) Link(a, b *Host, cfg LinkConfig) *Link {
	if l.tb != nil {
		l.tb.Helper()
	}
	link := &Link{
		A:   &Interface{Host: a, Name: cfg.A.Name},
		B:   &Interface{Host: b, Name: cfg.B.Name},
		lab: l,
	}
	l.build(fmt.Sprintf("link %s - %s", a, b), func() error { return link.make(cfg) })
	return link
}

func (k *Link) make(cfg LinkConfig) error {
	ends := []*Interface{k.A, k.B}
	for i, e := range ends {
		if e.Host.nl == nil {
			return e.Host.dead()
		}
		if e.Name == "" {
			var err error
			if e.Name, err = freeName(e.Host, k.A, i); err != nil {
				return err
			}
		}
	}
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	relayed := cfg.Relay || cfg.Delay > 0 || cfg.Drop != nil
	if relayed {
		if err := k.makeRelay(cfg); err != nil {
			return err
		}
	} else if err := addVeth(k.A.Host, k.A.Name, k.B.Host, k.B.Name, cfg.MTU); err != nil {
		return err
	}
	for _, e := range ends {
		if err := e.find(); err != nil {
			return err
		}
		if cfg.NoOffload || relayed {
			if err := e.Host.Do(func() error { return offloadOff(e.Name) }); err != nil {
				return fmt.Errorf("%s %s: offload off: %w", e.Host, e.Name, err)
			}
		}
	}
	for _, e := range ends {
		if err := e.setFlags(true); err != nil {
			return err
		}
	}
	for i, addrs := range [][]string{cfg.A.Addrs, cfg.B.Addrs} {
		for _, a := range addrs {
			if err := ends[i].addAddr(a); err != nil {
				return err
			}
		}
	}
	for _, e := range ends {
		if err := e.awaitUp(); err != nil {
			return err
		}
		if err := e.awaitAddrs(); err != nil {
			return err
		}
	}
	return nil
}

// freeName returns the first free ethN of h; the other end of a link from a host
// to itself is i = 1.
func freeName(h *Host, a *Interface, i int) (string, error) {
	links, err := h.nl.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) && h.lab.ctx.Err() == nil {
		links, err = h.nl.LinkList() // it changed meanwhile
	}
	if err != nil {
		return "", err
	}
	used := map[string]bool{}
	for _, l := range links {
		used[l.Attrs().Name] = true
	}
	if i == 1 && a.Host == h {
		used[a.Name] = true
	}
	for n := 0; ; n++ {
		if name := fmt.Sprintf("eth%d", n); !used[name] {
			return name, nil
		}
	}
}

// addVeth makes a veth pair, down.
func addVeth(a *Host, aName string, b *Host, bName string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = aName, mtu
	err := a.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(b.ns), PeerMTU: uint32(mtu)})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return &MissingFeatureError{Feature: Veth, Err: err, Hint: "is the module veth there?"}
	}
	return err
}

func (e *Interface) find() error {
	l, err := e.Host.nl.LinkByName(e.Name)
	if err != nil {
		return fmt.Errorf("%s %s: %w", e.Host, e.Name, err)
	}
	e.Index = l.Attrs().Index
	return nil
}

// link names the interface to the netlink library.
func (e *Interface) link() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: e.Name, Index: e.Index}}
}

func (e *Interface) setFlags(up bool) error {
	if up {
		return e.Host.nl.LinkSetUp(e.link())
	}
	return e.Host.nl.LinkSetDown(e.link())
}

func (e *Interface) addAddr(s string) error {
	a, err := netlink.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("address %q: %w", s, err)
	}
	if a.IP.To4() == nil {
		// Without duplicate address detection the address can be used at once.
		a.Flags |= unix.IFA_F_NODAD
	}
	return e.Host.nl.AddrAdd(e.link(), a)
}

// awaitAddrs waits until the interface's IPv6 addresses are in use, with the
// link-local one, which routers ask neighbours from. The kernel brings addresses
// up some time after they were added, their local routes last, and who asks for
// them before that asks again only after a second.
func (e *Interface) awaitAddrs() error {
	ctx, cancel := context.WithTimeout(e.Host.lab.ctx, awaitLimit)
	defer cancel()
	return e.Host.Await(ctx, e.Name+"'s addresses", func(nlh *netlink.Handle) (bool, error) {
		addrs, err := nlh.AddrList(e.link(), netlink.FAMILY_V6)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if len(addrs) == 0 {
			// Without IPv6, or with its link-local address still to come.
			off, err := e.ipv6Off()
			return off, err
		}
		routes, err := nlh.RouteListFiltered(netlink.FAMILY_V6,
			&netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: e.Index}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		linkLocal := false
		for _, a := range addrs {
			linkLocal = linkLocal || a.IP.IsLinkLocalUnicast()
			if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.IP.Equal(a.IP) }) {
				return false, nil
			}
		}
		return linkLocal, nil
	})
}

// ipv6Off reports whether the interface has no IPv6.
func (e *Interface) ipv6Off() (bool, error) {
	var v []byte
	err := e.Host.Do(func() (err error) {
		v, err = os.ReadFile("/proc/sys/net/ipv6/conf/" + e.Name + "/disable_ipv6")
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		return true, nil // with an MTU below 1280, the kernel takes IPv6 away
	}
	return bytes.HasPrefix(v, []byte("1")), err
}

// awaitUp waits until the interface has a carrier and the kernel has noticed.
func (e *Interface) awaitUp() error {
	ctx, cancel := context.WithTimeout(e.Host.lab.ctx, awaitLimit)
	defer cancel()
	return e.Host.Await(ctx, e.Name+" up", func(nlh *netlink.Handle) (bool, error) {
		l, err := nlh.LinkByIndex(e.Index)
		if err != nil {
			return false, err
		}
		return l.Attrs().OperState == netlink.OperUp, nil
	})
}

// Up sets the interface up and waits until it can carry packets, which needs the
// other end up as well.
func (e *Interface) Up() {
	e.build("up", func() error {
		if err := e.setFlags(true); err != nil {
			return err
		}
		if err := e.awaitUp(); err != nil {
			return err
		}
		return e.awaitAddrs()
	})
}

// Down sets the interface down. The kernel forgets its routes and IPv6 addresses,
// and the other end loses its carrier.
func (e *Interface) Down() { e.build("down", func() error { return e.setFlags(false) }) }

// AddAddr adds an address with prefix length, usable at once.
func (e *Interface) AddAddr(addr string) {
	e.build("add address", func() error {
		if err := e.addAddr(addr); err != nil {
			return err
		}
		return e.awaitAddrs()
	})
}

// DelAddr removes an address with prefix length.
func (e *Interface) DelAddr(addr string) {
	e.build("remove address", func() error {
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		return e.Host.nl.AddrDel(e.link(), a)
	})
}

// SetMTU changes the MTU of this end.
func (e *Interface) SetMTU(mtu int) {
	e.build("mtu", func() error { return e.Host.nl.LinkSetMTU(e.link(), mtu) })
}

// HardwareAddr returns the interface's Ethernet address.
func (e *Interface) HardwareAddr() net.HardwareAddr {
	var mac net.HardwareAddr
	e.build("hardware address", func() error {
		l, err := e.Host.nl.LinkByIndex(e.Index)
		if err != nil {
			return err
		}
		mac = l.Attrs().HardwareAddr
		return nil
	})
	return mac
}

func (e *Interface) build(what string, f func() error) {
	if e.Host.lab.tb != nil {
		e.Host.lab.tb.Helper()
	}
	e.Host.lab.build(fmt.Sprintf("%s %s: %s", e.Host, e.Name, what), f)
}

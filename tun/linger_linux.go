package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ourAlias marks a device that lingers as ours ("ip link" shows it). It goes with the
// device.
const ourAlias = "xtrkit"

func isOurs(l netlink.Link) bool { return l != nil && l.Attrs().Alias == ourAlias }

// openLinger makes the device outlive the process, or not any more. It has its mark
// first: one that nobody knew to be ours would stay for ever.
func (i *Interface) openLinger() error {
	if isOurs(i.found) {
		i.heir = i.cfg.Linger > 0
		i.found = nil // it is as if it were new
	} else if i.found != nil || i.cfg.Linger == 0 {
		return nil
	}
	if i.cfg.Linger > 0 {
		if err := i.nl.links.LinkSetAlias(i.link(), ourAlias); err != nil {
			return err
		}
	}
	return i.persist(i.cfg.Linger > 0)
}

// endLinger has Close remove everything.
func (i *Interface) endLinger() error {
	if i.cfg.Linger == 0 {
		return nil
	}
	i.cfg.Linger = 0
	return i.persist(false)
}

func (i *Interface) persist(on bool) error {
	raw, err := i.dev.File().SyscallConn()
	if err != nil {
		return err
	}
	var errPersist error
	err = raw.Control(func(fd uintptr) { errPersist = persist(int(fd), on) })
	return errors.Join(err, errPersist)
}

// persist says whether a device goes with its last descriptor.
func persist(fd int, on bool) error {
	v := 0
	if on {
		v = 1
	}
	return os.NewSyscallError("TUNSETPERSIST", unix.IoctlSetInt(fd, unix.TUNSETPERSIST, v))
}

// cleanUp removes what a dead process has left, but for what is taken over.
func (i *Interface) cleanUp() error {
	if !i.heir {
		if err := i.nl.clean(i.cfg, i.index, true, nil); err != nil {
			return err
		}
		// A host that forwards, though it need not, is no reason not to start.
		if err := cleanForwarding(i.cfg, i.name); err != nil {
			i.cfg.Logger.Warn("forwarding stays as an earlier process left it", "device", i.name, "err", err)
		}
		return nil
	}
	if err := i.nl.clean(i.cfg, i.index, true, &i.plan); err != nil {
		return err
	}
	addrs, err := i.nl.addrs(i.index)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.protocol == Protocol {
			i.addrs = append(i.addrs, a.addr)
		}
	}
	for _, v6 := range []bool{false, true} {
		rules, err := i.nl.rules(v6)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.protocol == Protocol && r.from.IsSingleIP() && r.rule == bypass(i.cfg, r.from.Addr()) {
				i.locals = append(i.locals, r.from.Addr()) // until SetLocals
			}
		}
	}
	i.cfg.Logger.Info("took over the device of an earlier process", "device", i.name, "locators", i.locals)
	return nil
}

// hasRule tells whether a rule is of the plan, or of some locator.
func (p *plan) hasRule(c Config, r rule) bool {
	return slices.Contains(p.rules, r) || r.from.IsSingleIP() && r == bypass(c, r.from.Addr())
}

// hasRoute tells whether a route is of the plan.
func (p *plan) hasRoute(r foundRoute, index int) bool {
	return (r.throw || r.oif == index) && slices.Contains(p.routes, r.route)
}

// Renew lets what lingers linger for as long again (Config.Linger).
func (i *Interface) Renew() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return fmt.Errorf("tun: renew: %w", os.ErrClosed)
	}
	if err := i.renew(); err != nil {
		return fmt.Errorf("tun: renew %s: %w", i.name, err)
	}
	return nil
}

func (i *Interface) renew() error {
	if i.cfg.Linger == 0 {
		return nil
	}
	for _, a := range i.plan.addrs {
		if err := i.nl.renewAddr(i.index, a, i.cfg.Linger); err != nil {
			return err
		}
	}
	return nil
}

// renewAddr says how long an address of ours lives.
func (n *rtnl) renewAddr(index int, a netip.Addr, life time.Duration) error {
	seconds := u32(uint32(life / time.Second))
	b := slices.Concat(seconds, seconds, u32(0), u32(0)) // struct ifa_cacheinfo
	attrs := append(addrMessage(index, a), addrFlags(), nl.NewRtAttr(ifaProto, []byte{Protocol}), nl.NewRtAttr(unix.IFA_CACHEINFO, b))
	if _, err := n.call(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, 0, attrs...); err != nil {
		return fmt.Errorf("address %v: %w", a, err)
	}
	return nil
}

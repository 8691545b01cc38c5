package tun

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Protocol marks what this package adds, in the protocol field of rules, routes
// and addresses (low octet of LISP's data port). "ip rule" and "ip route" show it
// as "proto 245".
const Protocol = 4341 & 0xff

// Defaults of Config.
const (
	DefaultName         = "lmn0"
	DefaultTable        = 4341
	DefaultRulePriority = 4340
	DefaultMarkTable    = 43410000
	// DefaultMTU leaves room for the outer IPv6, UDP and LISP headers (40, 8 and
	// 8 octets) in 1500.
	DefaultMTU = 1500 - 40 - 8 - 8
)

// Config describes the device and what leads to it. The zero value of each field
// is its default.
type Config struct {
	// Name of the interface: 1 to 15 octets, default DefaultName. A TUN device
	// of that name which exists already and nobody has open is adopted: used, and
	// on Close left as it was found.
	Name string
	// File is an open TUN device to adopt instead, made and configured by someone
	// else (TUNSETIFF with IFF_TUN and IFF_NO_PI). Create takes it over, also if
	// it fails. Name is ignored then.
	File *os.File
	// MTU in octets, default DefaultMTU. At least 576, and with an IPv6 EID at
	// least 1280.
	MTU int
	// EIDs are the EID-Prefixes that are ours. A full-length one, as a mobile
	// node has, or one with host bits, as in 192.0.2.1/24, also gives the device
	// that address. The first address of a family is the source of what programs
	// send without choosing one; without an address in a family, only what has an
	// EID source is tunnelled in it.
	EIDs []netip.Prefix
	// Destinations, if there are any, are the only prefixes for which packets
	// without a chosen source are tunnelled. Each takes one rule, which the kernel
	// checks one after the other.
	Destinations []netip.Prefix
	// Router makes the host a router for the hosts behind an EID-Prefix: it
	// forwards packets, and those between parts of the EID-Prefix stay out of the
	// tunnel. Each family with an EID or, with Proxy, a destination, is switched
	// on by its sysctl, and off again by Close if it was off. The interface and
	// the addresses on the side of these hosts are not part of it.
	Router bool
	// Proxy also tunnels what the host forwards to Destinations for others, from
	// whatever source, as a Proxy-ITR does (RFC 6832 §5). It implies Router, and
	// needs Destinations.
	Proxy bool
	// Queues is how many queues the device has, 1 by default, 256 at most: see
	// Interface.Queues.
	Queues int
	// Table is the number of our routing table, default DefaultTable. It must be
	// empty, but for what a crash left.
	Table uint32
	// MarkMask, if it is not 0, makes firewall marks count: see
	// Interface.SetMarks. It says which bits of a mark are ours.
	MarkMask uint32
	// MarkTable is the first of 256 numbers of routing tables for marks, default
	// DefaultMarkTable. Tables that have routes already are passed over.
	MarkTable uint32
	// RulePriority is the first of seven priorities for our rules, default
	// DefaultRulePriority. There must be no other rules in that range; it must be
	// less than the main table's rule, usually 32766.
	RulePriority uint32
	// Linger, if it is not 0, lets the device outlive the process with all that leads
	// to it: Close leaves everything, and so does a process that is killed. The next
	// Create of a device of that name with Linger takes over what fits its Config, so
	// that packets meet no gap, and removes the rest; without Linger it removes
	// everything first. Addresses live for so long only since the last
	// Interface.Renew, in seconds: then the kernel removes them, so that a host whose
	// EID they were goes on without LISP. What packets with firewall marks are led
	// to does not linger.
	Linger time.Duration
	// Logger, or nil for silence.
	Logger *slog.Logger
}

// markTables is how many tables there are for marks.
const markTables = 256

// withDefaults checks c and fills in what is not set.
func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if len(c.Name) > 15 {
		return c, fmt.Errorf("tun: %w: interface name %q is longer than 15 octets", ErrConfig, c.Name)
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Table == 0 {
		c.Table = DefaultTable
	}
	if c.Table >= 253 && c.Table <= 255 {
		return c, fmt.Errorf("tun: %w: table %d is the system's", ErrConfig, c.Table)
	}
	if c.MarkTable == 0 {
		c.MarkTable = DefaultMarkTable
	}
	if c.MarkTable < 256 || c.MarkTable > 1<<32-markTables || c.Table-c.MarkTable < markTables {
		return c, fmt.Errorf("tun: %w: tables %d to %d for marks hold table %d or the system's", ErrConfig, c.MarkTable, uint64(c.MarkTable)+markTables-1, c.Table)
	}
	if c.RulePriority == 0 {
		c.RulePriority = DefaultRulePriority
	}
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.Queues < 1 || c.Queues > 256 || c.Queues > 1 && c.File != nil {
		return c, fmt.Errorf("tun: %w: %d queues", ErrConfig, c.Queues)
	}
	if c.Proxy && len(c.Destinations) == 0 {
		return c, fmt.Errorf("tun: %w: a proxy needs destinations", ErrConfig)
	}
	if c.Linger < 0 || c.Linger > 0 && c.Linger < time.Second || c.Linger > 0 && c.File != nil {
		return c, fmt.Errorf("tun: %w: a device that lingers for %v", ErrConfig, c.Linger)
	}
	c.Router = c.Router || c.Proxy
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if c.EIDs, err = checkPrefixes("EID", c.EIDs); err != nil {
		return c, err
	}
	if c.Destinations, err = checkPrefixes("destination", c.Destinations); err != nil {
		return c, err
	}
	smallest := 576
	if slices.ContainsFunc(c.EIDs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		smallest = 1280 // the kernel takes IPv6 away from a device below that
	}
	if c.MTU < smallest || c.MTU > 65535 {
		return c, fmt.Errorf("tun: %w: MTU %d is not between %d and 65535", ErrConfig, c.MTU, smallest)
	}
	return c, nil
}

// checkPrefixes returns ps as plain IPv4 and IPv6 prefixes.
func checkPrefixes(what string, ps []netip.Prefix) ([]netip.Prefix, error) {
	seen := map[netip.Prefix]bool{}
	var out []netip.Prefix
	for _, p := range ps {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		a := p.Addr()
		if !p.IsValid() || a.Is4In6() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() && p.IsSingleIP() {
			return nil, fmt.Errorf("tun: %w: %s %v is not a unicast prefix", ErrConfig, what, p)
		}
		if what == "EID" && p.Bits() == 0 {
			return nil, fmt.Errorf("tun: %w: EID prefix %v holds every address", ErrConfig, p)
		}
		if seen[p.Masked()] {
			return nil, fmt.Errorf("tun: %w: %s %v is there twice", ErrConfig, what, p)
		}
		seen[p.Masked()] = true
		out = append(out, p)
	}
	return out, nil
}

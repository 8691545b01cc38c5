// Package tun makes the TUN device of a LISP xTR, lmn0, and sets the host up so
// that packets from and to its EIDs pass it: addresses, a routing table of its
// own, and policy rules, for IPv4 and IPv6. It knows nothing of LISP's messages:
// whoever reads packets from the device and writes packets to it is up to the
// caller, usually package encap.
//
// # What it sets up
//
// [Create] makes the device (or adopts one), gives it the EID addresses, and adds
// to a table of its own (number 4341) a default route through it. Rules decide
// which packets see that table. With the default priorities they are, here for
// the EID 192.0.2.1:
//
//	4340: from RLOC goto 4346                                  (one per locator, SetLocals)
//	4341: from 192.0.2.1 lookup 4341
//	4343: from 0.0.0.0 iif lo lookup main suppress_prefixlength 0
//	4344: from 0.0.0.0 iif lo lookup 4341
//	4346: nop
//
// In words: what comes from a locator is none of our business. What comes from the
// EID goes to the tunnel. What a program on this host sends without having chosen
// a source address goes where the main table has a route more specific than a
// default route, such as the local network, and else to the tunnel, with the EID
// as its source. "from 0.0.0.0" matches that, an address not chosen yet, and "iif
// lo" that it comes from this host. All else, such as an answer from another
// address of the host, or what the host forwards for others, passes our rules
// and finds the user's own. IPv6 has no match for an address not chosen yet;
// there rule 4343 applies to all that the host sends, and 4344 is "from EID" with
// the flag FIB_RULE_FIND_SADDR: it applies if the EID is the source address that
// the kernel would choose.
//
// With Config.Destinations only packets to these prefixes (and from the EID) are
// tunnelled: 4343 is left out and 4344 has a "to".
//
// Multicast, link-local and broadcast destinations never use the table: it has
// throw routes for them. (The kernel routes a multicast or broadcast packet with
// a chosen source but without a chosen interface by that source alone; a
// program that binds to the EID and sends multicast reaches the device, and the
// data plane drops that.)
//
// # Changes
//
// [Interface.SetEIDs] makes all of this as if the device had been made with other EIDs,
// [Interface.SetLocals] is for locators that come and go; what stays is not touched.
//
// # Firewall marks
//
// Reading a TUN device does not tell the firewall mark of a packet. With
// Config.MarkMask, [Interface.SetMarks] gives each mark that counts a device and a
// table of its own, and one more to all other marks:
//
//	4341: from 192.0.2.1 fwmark 0/0xff lookup 4341
//	4341: from 192.0.2.1 fwmark 0x3/0xff lookup 43410001        (default dev lmn0-1)
//	4342: from 192.0.2.1 lookup 43410000                        (default dev lmn0-0)
//	4344: from 0.0.0.0 fwmark 0/0xff iif lo lookup 4341
//	4344: from 0.0.0.0 fwmark 0x3/0xff iif lo lookup 43410001
//	4345: from 0.0.0.0 iif lo lookup 43410000
//
// What a locator sends is none of it, whatever mark it has: rule 4340 comes first.
// These devices have the IPv6 EIDs of the first one as addresses too, since the
// kernel looks there for the preferred source of their routes.
//
// # For other hosts
//
// With Config.Router the host forwards for hosts behind an EID-Prefix, whose
// packets rule 4341 leads to the device; throw routes keep what one part of an
// EID-Prefix sends another out of it. With Config.Proxy rule 4344 is for all
// packets to the destinations, whoever sent them.
//
// Only these two write to /proc/sys: they switch forwarding on where it is off,
// and let interfaces that take router advertisements go on doing so (accept_ra
// 2). Close restores what was found. It is also noted in /run/xtrkit, so that after
// kill -9 the next Create or [Cleanup] of the device restores it.
//
// # Reverse path filtering
//
// Strict reverse path filtering (rp_filter 1) is
// fine for tunnelled packets: what arrives through the tunnel for an EID is
// answered through it. But it drops what comes in by an uplink for an IPv4 EID,
// as answers from outside LISP do, because the EID's way out is the tunnel:
// [Interface.SetLocals] warns of uplinks where that is so, and loose filtering
// (2, what most distributions have) lets it pass.
//
// # What it leaves alone
//
// Rules and routes of the user are neither changed nor removed. Those of the
// package carry a protocol number of their own, [Protocol], and its addresses
// too. [Interface.Close] removes them; after a crash or kill -9 the device is gone
// with the process, and what remains is removed by the next Create, or by
// [Cleanup].
//
// With Config.Linger all of it outlives the process, so that a data plane in the kernel
// can go on, and the next Create takes it over. So that a host whose process does not
// come back is not cut off, the addresses have a lifetime then, which [Interface.Renew]
// renews: with them go the routes and the choice of the EID as a source.
//
// # Limits
//
// Linux only; elsewhere Create returns an error that wraps errors.ErrUnsupported.
// NAT between EIDs and other addresses (RFC 6832 §7) is not part of it.
package tun

// Package ebpf is the data plane of package encap inside the Linux kernel: small
// programs for tc that encapsulate and decapsulate ordinary packets, fed from the
// map-cache. Packets don't enter user space, and large TCP sends stay in one piece.
//
// # Two paths
//
// A [Dataplane] puts itself in front of an [encap.Forwarder] and is a data plane of
// package control like it. The Forwarder stays the judge of everything that is not
// ordinary: a program that meets such a packet leaves it alone, so that it goes on
// to the device's queue or to the socket of port 4341, which the Forwarder reads.
// Each packet is handled once, by one of the two. Among what takes this slow path:
// packets without a mapping, with a negative one, and such that do not fit the
// path; all of a closed network; LISP-GPE to locators that want a UDP checksum;
// arriving fragments, packets with header flags, for instance 0xffffff or an
// unknown one, and several packets behind one outer header. [Stats] counts them
// by [SlowReason].
//
// Both choose the same locator and the same source port for a flow, so that a
// packet may take either path without harm.
//
// # Attachment
//
// Encapsulation is on the way out of the overlay's device, and on the way in from
// LAN interfaces; decapsulation on the way in from each uplink. There, too, an RTR
// (encap.Overlay.Relay) sends on what is for others, without any device. Where the kernel
// has TCX (Linux 6.6) the programs go when the process ends, however it ends.
// Elsewhere they are filters of a clsact qdisc with a fixed priority and handle,
// which outlive a killed process, work on with what the map-cache last said, and
// are replaced by the next start or removed by [Cleanup].
//
// With Config.Persist the programs go on when the process ends, until nobody has called
// Usage for Config.Linger, and the next New takes their place without a gap, whatever
// its version: see [Dataplane.Carried]. That takes Linux 5.14.
//
// [Probe] tells whether the kernel lets us, and why not. It takes root: in a user
// namespace the kernel refuses BPF. CI runs on Linux 6.18, with
// TCX and with clsact. In emulators the tests have run, in parts, on 6.12, 6.1 and 5.15
// (these two with clsact only); 5.10 is refused.
//
// On other systems [New] and [Probe] return [ErrUnsupported].
//
// # Concurrency
//
// Apply, SetLocals, SetSignals and Usage have one caller, the Runner's loop. All
// other methods may be called by anyone at any time.
package ebpf

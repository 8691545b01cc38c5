// Package encap is the data plane of a LISP tunnel router in user space: it
// encapsulates what a device such as a TUN interface hands over, by the
// map-cache, and decapsulates what arrives at UDP port 4341.
//
// # What it does
//
//   - The header rules of RFC 9300 §5.3: all four combinations of inner and outer
//     family, TTL and DSCP both ways, ECN by RFC 6040, outer DF, source ports by
//     flow hash, Instance IDs.
//
//   - Three formats, by the locator: LISP, LISP-GPE (RFC 9305) and VXLAN-GPE, with
//     a UDP checksum by format and peer ([UDPConfig]). The kernel's VXLAN-GPE
//     device is a peer, and what it leaves to a network card on the same host,
//     segmentation and checksums, is done here.
//
//   - Both MTU rules of RFC 9300 §7: an inner IPv4 packet without DF is cut before
//     it is encapsulated, the source of any other is told the size that fits; the
//     path MTU of a locator is learned from the kernel and from ICMP errors about
//     outer packets ([NewICMP]). The device's MTU follows the uplinks.
//
//   - Checks before anything is tunnelled or delivered; a counter per reason for
//     what is dropped, and ICMP errors, rate-limited, to sources of packets that
//     can't be forwarded. Outer sources are checked by the map-cache if that is
//     wanted ([SourceCheck]).
//
//   - Proxy-ITR and Proxy-ETR ([Overlay]), and several queues of a device.
//
//   - By which uplink a packet leaves, a function of the user's may say (Config.Policy);
//     the firewall mark of packets is known by the device they come from
//     ([Forwarder.ReadMarked]).
//
//   - A hold table: the first packets to an EID wait for its mapping and leave in
//     order when it comes.
//
//   - Native forwarding of what is not for an EID: unmodified, by a raw socket
//     bound to the uplink.
//
//   - Linux sockets in batches, with segmentation and receive offload where the
//     kernel has them ([NewUDP], [NewNative]). From a [VirtioDevice] to the socket
//     and back, large TCP and UDP sends stay in one piece, and their payload is
//     not copied in between.
//
//   - Packets and octets by remote locator (Stats, Usage), and by map-cache entry if
//     that is wanted (Config.Meter).
//
//   - Map-Versions, Locator-Status-Bits and nonces, for closed networks only ([Closed]).
//
// # What it does not
//
// Encrypted payloads (RFC 8061) and shim headers are dropped. Ethernet frames are
// sent and received for whoever bridges them (Forwarder.SendFrame,
// Overlay.Ethernet). There is no multicast, and no LISP-NAT (RFC 6832 §7): what it
// would translate is up to the host's firewall.
//
// # Shape
//
// A [Forwarder] ties together devices ([Overlay]), the published map-cache
// (Config.View), an [Underlay] and a [NativeSender]; all are interfaces or
// functions, so it runs in memory as well as on a host. It is what package
// control calls a data plane: Apply, SetLocals, Usage, PendingMisses,
// Discoveries and Send.
//
// # Concurrency
//
// All methods of a Forwarder are safe for concurrent use. Run has one goroutine
// per queue of a device, per receiving socket and per ICMP receiver, one that follows
// the MTUs of links, and one that drops what was held for too long. Packets take one
// mapcache.View per batch, no lock while nothing is held, and allocate nothing in
// steady state.
package encap

// Package xtrkit is the root of a library of parts for LISP tunnel routers.
//
// LISP is the Locator/ID Separation Protocol (RFC 9300, RFC 9301): hosts keep
// their address (the EID) while their packets are tunnelled over UDP port 4341
// between locators (RLOCs), and a mapping system on UDP port 4342 says which
// EID is behind which RLOC.
//
// The root package holds no code. Import what you need:
//
//   - lisp: the wire format. Decode, encode, sign and verify control messages
//     and the data header. Standard library only.
//   - lisp/lisplayers: gopacket layers for it.
//   - mapcache: EID-to-RLOC cache with longest-prefix match and locator choice,
//     lock-free for readers.
//   - encap: the user-space data plane.
//   - encap/ebpf: the data plane in the Linux kernel, in front of encap.
//   - control: the xTR control plane without I/O (Engine), and the Runner that
//     drives it and other cores over sockets.
//   - control/mapserver: Map-Server and Map-Resolver without I/O.
//   - natt: NAT traversal without I/O: xTR, Map-Server's part, RTR.
//   - multihome: which interfaces can carry traffic, when that changes, and
//     which one a packet leaves by.
//   - tun: the lmn0 device with its addresses, routes and rules (Linux).
//
// examples/lispmn puts them together to a mobile node, xTR or PxTR, examples/lispms
// to a Map-Server or RTR. docs/ARCHITECTURE.md follows a packet and a message
// through all of it.
package xtrkit

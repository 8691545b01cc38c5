// Package mapserver is the core of a LISP Map-Server and Map-Resolver
// (RFC 9301 §8.2 to §8.4) without any I/O: datagrams and the time go in,
// datagrams, events and changes come out.
//
// A Server verifies Map-Registers over the octets as received, keeps the
// registrations of its configured sites, acknowledges with signed Map-Notifies,
// and answers encapsulated Map-Requests: by a negative Map-Reply that names the
// whole hole in the EID space, by a proxy Map-Reply, or by forwarding the
// request unaltered to a registered ETR.
//
// # Parallel workers, one writer
//
// The work is split. A [Worker] verifies and answers; it only reads what the
// server has published and any number of them may run at once, each in a
// goroutine of its own. What changes state comes out of a Worker as an
// [Update], which the one goroutine that owns the Server feeds to
// [Server.Apply]: changed registrations, and stamps (nonce and expiry) of
// unchanged ones, which may be collected into batches. [Server.Handle] is both
// steps in one for a caller that needs no parallelism.
//
// # Replication and restart
//
// Every accepted change is a [Delta]. Deltas may arrive anywhere in any order
// and any number of times: the newest wins, see [Server.Merge]. A snapshot is a
// stream of Deltas too ([Server.Save], [Server.Load]).
//
// # Not here
//
// LISP-SEC (RFC 9303), DDT (RFC 8111), the NAT traversal draft and Publish/Subscribe:
// a Map-Request that carries LISP-SEC data is forwarded without it. EIDs other
// than IPv4 and IPv6 prefixes, with or without an instance ID, are refused.
// Unsolicited Map-Notifies are not sent.
package mapserver

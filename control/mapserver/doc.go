// Package mapserver is the core of a LISP Map-Server and Map-Resolver
// (RFC 9301 §8.2 to §8.4) without any I/O: datagrams and the time go in,
// datagrams, events and changes come out.
//
// A Server verifies Map-Registers over the octets as received, keeps the
// registrations of its configured sites, acknowledges with signed Map-Notifies,
// and answers encapsulated Map-Requests: by a negative Map-Reply that names the
// whole hole in the EID space, by a proxy Map-Reply, or by forwarding the
// request unaltered to a registered ETR, chosen by priority and weight among
// the locators of a family that can be reached.
//
// With [Config.Resolver] it is a Map-Resolver for EIDs that other Map-Servers
// know, with or without sites of its own, and forwards requests unaltered to one
// of them that answers health checks.
//
// # When a mapping moves
//
// A Map-Register that changes a mapping makes an unsolicited Map-Notify
// (RFC 9301 §5.7) for every other xTR that has the EID-Prefix registered, and for
// every locator that is displaced by it. One message to a receiver is under way
// at a time, is repeated until a verified Map-Notify-Ack comes, six times at
// most, and says what is the case when it is sent. What is kept for this is
// bounded by [Config.MaxNotifies].
//
// # Floods
//
// What doesn't verify makes no state and is not answered. Nobody knows who a
// Map-Request is from, so an answer is at most eight times as long as the
// request (or is the one record that was asked for), and token buckets bound
// what is sent for each source and in all; addresses that lately registered
// have a bucket of their own, so that a flood from made-up sources leaves them
// served. [Server.Stats] counts everything that is dropped, by [Reason];
// [Server.History] keeps the last changes and refusals for people to look at.
//
// # Parallel workers, one writer
//
// The work is split. A [Worker] verifies and answers; it only reads what the
// server has published and any number of them may run at once, each in a
// goroutine of its own. What changes state comes out of a Worker as an
// [Update], which the one goroutine that owns the Server feeds to
// [Server.Apply]: changed registrations, and stamps (nonce and expiry) of
// unchanged ones, which may be collected into batches; and Map-Notify-Acks.
// [Server.Handle] is both steps in one for a caller that needs no parallelism.
//
// For batches of datagrams there are [Worker.Step] and [Worker.Flush], which are
// what control.Runner calls on the goroutines that receive.
//
// # Replication and restart
//
// Every accepted change is a [Delta]. Deltas may arrive anywhere in any order
// and any number of times: the newest wins, see [Server.Merge]. A snapshot is a
// stream of Deltas too ([Server.Save], [Server.Load]).
//
// # LISP-SEC
//
// A protected Map-Request (RFC 9303) is answered or forwarded under the same
// protection, see [LISPSEC]; one whose One-Time Key does not unwrap is dropped.
// A Map-Resolver wraps the key anew for its Map-Servers.
//
// # Publish/Subscribe
//
// Experimental and off by default, see [Experimental]: xTRs subscribe to mappings
// and are told of changes by signed and numbered Map-Notifies.
//
// # NAT traversal
//
// Nodes ask by Info-Requests where they come from and which RTRs there are, and
// their Map-Registers come by one of these; see [NAT]. Map-Notifies for them,
// unsolicited ones too, go back by the RTR, authenticated by the key shared with
// it. Map-Requests for them are always answered here, with the RTR's locator.
//
// # Not here
//
// DDT (RFC 8111). EIDs other than IPv4 and IPv6
// prefixes, with or without an instance ID, are refused.
package mapserver

// Package natt is NAT traversal for LISP (draft-ermagan-lisp-nat-traversal-19)
// without any I/O, for its three roles:
//
//   - XTR finds out whether one of our own locators is behind a NAT, registers by
//     a Re-encapsulating Tunnel Router (RTR) if it is, and keeps the NAT's binding
//     with that RTR open. It yields a Binding, in words and in numbers.
//   - Server is the Map-Server's part.
//   - RTR relays registrations, and yields what its data plane has to know.
//
// All are shaped like every core of this module (see package control): Handle,
// Advance, Deadline, Next, and NextEvent for what is to be told. Time is an
// argument, and randomness is injected.
//
// # The way of a registration
//
//	xTR 10.0.0.2          NAT            RTR                Map-Server
//	    4342 ── Info-Request ────────────────────────────────> 4342
//	    4342 <── Info-Reply: global address and port, RTRs ─── 4342
//	    4341 ── ECM(R, Map-Register) ──> 4342
//	                                     4342 ── ECM(N, Map-Register) ──> 4342
//	                                     4342 <── ECM(R, Map-Notify) ──── 4342
//	    4341 <── Data-Map-Notify ─────── 4342
//
// Everything that an RTR sends to the xTR has source port 4342, data too: the
// binding of the NAT that matters is the one between 4341 of the xTR and 4342 of
// the RTR, and only the RTR knows its port. Another one carries data to port 4341
// of the RTR.
//
// # Variants
//
// Draft19 is the default. Old and LispersNet exist for peers that speak those: see
// Variant.
//
// # Who can be believed
//
// Info-Request and Info-Reply, Map-Register and Map-Notify are signed with the key
// of site and Map-Server. Nothing changes in an XTR but by a message that carries
// an outstanding 64-bit nonce and verifies. An XTR holds no key: a Registrar does.
//
// An RTR believes where a node comes from when the Map-Server has confirmed the
// Map-Register with that nonce, by the key shared with it if there is one. Until
// then, and for other EID-Prefixes and xTR-IDs, a Map-Register changes nothing.
//
// # Concurrency
//
// Every core is for one goroutine at a time and starts none. Server.Answer, which
// is how a Map-Server embeds a Server, may be called by any number.
package natt

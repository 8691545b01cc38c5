// Package control is the control plane of a LISP tunnel router (RFC 9300, RFC
// 9301): Engine, the protocol of an xTR without any I/O, and Runner, which drives
// an Engine and other such cores from the control sockets.
//
// # Where to look
//
//	config.go             what can be configured, and the timer rules that cannot
//	engine.go             Engine: Handle finds the receiver of a message
//	database.go           our own EID-Prefixes and locators, SetLocals
//	reconfigure.go        another configuration, without a restart
//	registration.go       our EID-Prefixes spread over Map-Registers, SetDatabase
//	register.go           Map-Registers: periods, retransmission, withdrawal
//	nonce.go              Map-Register nonces that outlive a restart
//	handle_mapnotify.go   a Map-Notify was received
//	displaced.go          what it says of our own EID-Prefixes: merged, or moved
//	resolve.go            Map-Requests: rates, retransmission, refresh
//	resolver.go           which Map-Resolver is asked
//	handle_mapreply.go    a Map-Reply was received
//	handle_maprequest.go  a Map-Request or SMR was received
//	smr.go                SMRs are sent: to whom, when, how often
//	proxy.go              the Proxy-ITR role, Proxy-ETRs, gleaning
//	reply.go              Map-Replies
//	lispsec*.go           LISP-SEC of ITR and ETR
//	pubsub.go             subscriptions, and what is published to us
//	probe.go              RLOC-probes and their answers
//	uplink.go             which of our own locators the answers speak against
//	paths.go              what a data plane is told of pairs of locators
//	closed.go             what only closed networks use: signals to the data plane
//	mapversion.go         Map-Version Numbers, of us and of others
//	lsb.go                Locator-Status-Bits
//	echononce.go          Echo-Nonce
//	nat.go                locators behind NATs: natt.XTR, default to the RTRs
//	nat_register.go       what is registered by an RTR
//	nat_stranded.go       what is withdrawn where no RTR serves us
//	nat_probe.go          RLOC-probes that an RTR sends as data
//	relay*.go             an RTR: its nodes as entries of the map-cache
//	datamessage.go        messages that came to the data port
//	changes.go, import.go the map-cache: changes, expiry, refresh, a warm start
//	timer.go, limit.go    the heap of deadlines, rates by sender
//	event.go, stats.go    what is told about all that
//	runner*.go, routes.go Runner, and which core gets which message
//	worker.go             what is done on the goroutines that receive
//	dataplane.go          what a data plane and a core have to be
//	conn.go, listen.go    the sockets
//
// # Registration
//
// There is one Registration for each Map-Server and each Map-Register that the
// EID-Prefixes need, since a message is limited to 576 octets (IPv4) or 1280
// (IPv6):
//
//	         SetLocals                 Map-Notify
//	idle ───────────────> waiting ───────────────────> registered
//	 ^  no locator up      │  ^                          │    ^
//	 └─────────────────────┘  │ three transmissions      │    │ Map-Notify
//	                          │ unanswered               │    │
//	                          v                          v    │
//	                      unanswered <──────────── (next period)
//	any, Withdraw ─> withdrawing, Map-Notify ─> withdrawn
//
// A Map-Register is sent every 20 s during the first five minutes after a start
// or a change of locators, then every 60 s, and asks for a Map-Notify each time.
// While that does not come the same message is sent again after 1 s and 2 s
// more; after that, with the wait doubling on up to 60 s, it is a new message
// with a new nonce, and so on: a Map-Server that was down is registered with at
// most a minute after it is back. Only a Map-Notify from the address of the
// Map-Server, with the nonce of the outstanding Map-Register and authentication
// data that verifies over the octets received, is an answer.
//
// Changes of locators are registered at once, but when there are more than three of
// them once a second, together. What goes unanswered from one of our locators
// is sent from the next one after that.
//
// SetDatabase registers what is new and withdraws what is gone, and leaves alone
// the Map-Registers whose content stays. A Map-Notify that answers nothing is
// acknowledged; if it says that another xTR has taken one of our EID-Prefixes over,
// or has joined its locators to ours, peers are told to ask again.
//
// # Solicitation
//
//	      SetLocals, SetDatabase           all Map-Notifies, or 300 ms
//	quiet ──────────────────────> waiting ────────────────────> telling ──> quiet
//	                               ^   │ further change
//	                               └───┘ (for one second at most)
//	each locator told:
//	      SMR             3 s, no SMR-invoked Map-Request
//	new ───────> told ────────────────────────────────────> told again ── 3 s ──> gone
//	              └── SMR-invoked Map-Request from it ── 3 s ──> gone
//
// Told are the locators that data was exchanged with during the last minute, by
// what AddUsage reports, and the configured Proxy-ITRs. An SMR goes straight to the
// locator and names one EID-Prefix of ours that changed; several follow each other
// at three seconds, which is the pace to one locator in any case. On receipt an SMR
// is never believed: the mapping is used on, and asked for through the mapping
// system, as are a few more entries with the same locators.
//
// # Resolution
//
//	  Resolve        ┌──── wait 1, 2, 4, 8, 8 ... s, next Map-Resolver
//	───────────> asking <───────┐
//	   Map-Reply │  │ ten retransmissions in vain
//	             v  v
//	       resting  silent ── 30 s ──> gone, or asked again
//	        (1 s)
//
// What rests or is silent is not asked for, whoever wants it: that keeps to one
// Map-Request per second for an EID-Prefix. A Map-Reply counts if its nonce is
// outstanding and a record covers the EID asked for. Records more specific than
// that one are taken too; all others are not. Entries in use are asked for again
// before their TTL ends, each at a random time, and forwarding goes on meanwhile.
// Misses, refreshes and SMRs have their own room, so that a flood of one stops none
// of the others; under a flood of misses the oldest unanswered one gives way.
//
// # RLOC-probing
//
//	      Interval           Timeout, next EID-Prefix
//	known ─────────> probing ────────┐
//	  ^                 │ ^──────────┘
//	  │ answer          │ Tries unanswered
//	  └─────────────────┴──> down ── Interval ──> probing
//
// Each pair of one of our locators that traffic leaves from and one of theirs is
// probed, however many EID-Prefixes are behind it. When all pairs with a locator
// are down, it is probed from our other locators too, and unreachable if that
// does not help; any later answer brings it back. Mappings that are left without
// a reachable locator are asked for again. With ProbeConfig.Fast the interval is
// shorter while packets go to a locator or come from it.
//
// A data plane that is a PairPlane is told of each pair that is down, and avoids
// it. One of our own locators that no peer answers any more is silent if two
// different locators do not answer it that answer another of ours, or one and a
// Map-Server, which is then asked by a Map-Register: it counts as down, for others
// and for the data plane, until a probe from it is answered. With
// ProbeConfig.PreferRTT pairs are also told apart by their round-trip time, in
// classes that each reach half as far again as the one below; a pair leaves its
// class when it is a fifth beyond it, and not again within 30 s.
//
// # LISP-SEC
//
// With Config.LISPSEC Map-Requests for resolution carry a One-Time Key wrapped
// for the Map-Resolver, and only a Map-Reply that verifies by it is believed,
// once, and as far as the Map-Server vouches for its EID-Prefixes (RFC 9303). As
// an ETR an Engine answers protected Map-Requests in any case. RLOC-probes are
// not protected: nothing of their answers gets into the map-cache.
//
// # Publish/Subscribe
//
// Experimental and off by default: see Experimental.
//
// # NAT traversal
//
// With Config.NAT each of our locators that is up has a machine (natt.XTR), which
// finds out whether it is behind a NAT. Those that are not are used as ever. For
// the others the RTR is announced that the machine has chosen; the Map-Registers go
// by it, signed here. While none of ours can be reached directly everything leaves
// by the RTRs: they stand as 0.0.0.0/0 and ::/0 in the map-cache, and nothing is
// asked for or probed. Bindings says how things stand.
//
// # What is not here
//
// Locators that are LCAFs are skipped, and DDT (RFC 8111) is not spoken.
// Map-Versioning, Locator-Status-Bits and Echo-Nonce are for closed networks (RFC
// 9300 §4.1): see Closed.
//
// # Concurrency
//
// Engine is for one goroutine at a time, and starts none. Runner is safe for
// concurrent use, and its Do is the way to an Engine that it drives. Log
// messages use the keys eid, rloc, locator, nonce, peer, map_server,
// map_resolver, ttl, rtt, tries, reason and err.
package control

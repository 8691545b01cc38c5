// Package mapcache is the EID-to-RLOC Map-Cache of an ITR (RFC 9300 §6, §9): it
// answers, for every packet, "to which locator, now?". It can be used alone, by
// any Go program that needs that answer.
//
// # What it does
//
//   - Longest-prefix match per Instance ID over IPv4 and IPv6 EID-Prefixes, and
//     exact match of MACs, for overlays of Ethernet frames.
//   - Record lifetimes: a TTL of 0 removes, static mappings stay, an entry in
//     use is reported for refresh before it expires, an idle one just expires
//     (RFC 9301 §5.4). The integrity rule of RFC 9301 §5.5 holds: no
//     less-specific entry outlives a more-specific one, so expiry or eviction
//     never redirects traffic.
//   - Negative mappings with each ACT value.
//   - Locator choice: Priority, then Weight, consistent per flow (RFC 9300 §9,
//     §12). A locator that goes down moves its own flows only.
//   - Reachability per locator, shared by all mappings that use it, changed in
//     O(1) and seen by the next packet.
//   - What was measured per locator: round-trip time, packets and octets out and in.
//   - Entries marked by a Solicit-Map-Request, reported for refresh once.
//   - A bound on the number of entries, with eviction that spares what is in use.
//   - A numbered list of changes for data planes that mirror the cache.
//   - Packets and octets by entry, counted by those who forward without disturbing each
//     other ([Meter]).
//   - Export and import, so that a restart starts warm.
//
// The same structure serves as the local database of an ETR: a second [Cache]
// with static mappings of our own EID-Prefixes.
//
// # What it does not
//
// It sends no message and reads no clock. Time is an argument, and resolving,
// refreshing and probing are the business of whoever calls it (package control).
//
// # Concurrency
//
// A [Cache] has one writer: all its methods except [Cache.View] are called by one
// goroutine at a time. Any number of goroutines forward packets by a [View],
// which takes no lock and allocates nothing. A View shows the mappings as of one
// [Cache.Publish] and never changes; only the reachability of locators is live.
//
//	c := mapcache.New(mapcache.Config{})
//	...
//	err = c.Insert(now, mapcache.Mapping{Key: key, RLOCs: rlocs, TTL: 10 * time.Minute})
//	c.Publish()
//	...
//	view := c.View() // once per batch of packets
//	d := view.Forward(0, dst, mapcache.FlowHash(seed, packet))
//
// # Layout
//
// The trie (github.com/gaissmai/bart) holds 16 octets per prefix: the id of an entry,
// that of a locator set, and the choice of the set itself if its flows go one or two
// ways, so that no other memory is touched. Locator sets are interned: mappings with
// equal locators share one, which carries precomputed choice buckets. Whether a
// locator is usable is one bit by locator id, whether an entry was used one bit
// by entry id. A [Meter] keeps its counters by entry id. What only the writer needs is kept apart and not touched per
// packet.
package mapcache

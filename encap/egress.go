package encap

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// egress takes inner packets on their way out. One goroutine at a time.
type egress struct {
	f *Forwarder

	// Of the batch: what was published and which locators we had at its start.
	view   *mapcache.View
	locals *localTable
	clear  holdKey // a destination that nothing is held for; what is held comes from here
	last   lastFlow
	burst  burst

	destinations *mapcache.DestinationCache // or nil
	meter        *mapcache.Meter            // or nil
	tallies      []mapcache.Tally           // scratch

	out   [][]Outgoing // encapsulated packets that wait for flush, by local locator
	parts fragments
	cut   []Outgoing // fragments of one packet
	alone Outgoing   // a packet that may have to be cut
	icmp  [1][]byte

	super  superPacket // the one at hand
	arena  []byte      // headers of segments that wait for flush
	pieces [][]byte    // segments of super-packets that can't go as they are
	joined []byte      // a packet of two parts as one

	mark    Mark         // of all packets, by the device they come from
	subject PolicyPacket // argument of Config.Policy
	strayed bool         // the packet leaves otherwise than the policy wished
}

func newEgress(f *Forwarder) *egress {
	e := &egress{f: f}
	e.icmp[0] = make([]byte, 0, Headroom+icmpMaxLen)
	return e
}

// begin starts a batch.
func (e *egress) begin() {
	e.view = e.f.cfg.View()
	e.locals = e.f.locals.Load()
	e.clear = holdKey{}
	e.last.packet = nil
	e.arena = e.arena[:0]
	for len(e.out) < len(e.locals.locals) {
		e.out = append(e.out, make([]Outgoing, 0, 128))
	}
}

// admit parses the packet and says whether it may enter the overlay.
func (e *egress) admit(o *overlay, b []byte, p *inner) DropReason {
	if why := parseInner(b, p); why != DropNone {
		return why
	}
	switch {
	case !p.routable():
		return DropScope
	case o.answers && e.locals.owns(p.src) && !e.locals.owns(p.dst):
		return DropNone // an ICMP error that was made here
	case !o.isOurs(p.src) && (!o.proxyITR || e.locals.owns(p.src)):
		// Also what a locator sends: the outer packets of a tunnel that
		// strayed into the device would otherwise be tunnelled again, forever.
		if e.locals.owns(p.src) {
			return DropLoop
		}
		return DropSource
	case e.locals.owns(p.dst):
		return DropLoop
	case p.proto == protoUDP && lispHeaders(b[:p.length], p) >= 2:
		return DropNesting
	}
	return DropNone
}

// miss holds the packet until there is a mapping. It returns true with a
// decision if one was published meanwhile.
func (e *egress) miss(o *overlay, b []byte, p *inner, hash uint32, d *mapcache.Decision) (decided bool) {
	f := e.f
	now := time.Now()
	key := holdKey{o, p.dst}
	f.hold.mu.Lock()
	// A mapping may have been published since the batch began. Apply releases
	// what is held under the same lock, after publishing: either it finds this
	// packet or the packet finds the mapping.
	*d = f.cfg.View().Forward(o.iid, p.dst, hash)
	if d.Verdict != mapcache.Miss {
		f.releaseLocked(key)
		f.hold.mu.Unlock()
		return true
	}
	wasEmpty := f.hold.oldest == nil
	first := f.hold.add(now, key, e.mark, b)
	f.hold.mu.Unlock()
	f.c.held.Add(1)
	if wasEmpty {
		f.wakeHouse()
	}
	if first {
		f.discover(mapcache.Discovery{Kind: mapcache.DiscoveryMiss, Key: key.mapKey()})
	}
	return false
}

// letGo sends what is still held for the destination of a packet that has a mapping,
// before that packet.
func (e *egress) letGo(o *overlay, dst netip.Addr) {
	if key := (holdKey{o, dst}); key != e.clear {
		e.f.release(key)
		e.clear = key
	}
}

// decided does what the map-cache says about the packet.
func (e *egress) decided(o *overlay, buf []byte, p *inner, hash uint32, d *mapcache.Decision) {
	b := buf[Headroom : Headroom+p.length]
	switch d.Verdict {
	case mapcache.Encapsulate:
		e.encapsulate(o, buf, p, hash, d)
	case mapcache.Native:
		e.native(o, b, p)
	case mapcache.SendRequest:
		e.f.drop(DropRequest)
		e.f.discover(mapcache.Discovery{Kind: mapcache.DiscoveryRequest, Key: holdKey{o, p.dst}.mapKey()})
	case mapcache.NoLocator:
		e.refuse(o, b, p, DropNoLocator)
	default:
		kind := icmpUnreachable
		if d.Action == lisp.ActionDropPolicyDenied || d.Action == lisp.ActionDropAuthFailure {
			kind = icmpProhibited
		}
		e.f.drop(DropAction)
		e.answer(o, b, p, kind, 0)
	}
}

// refuse drops the packet and tells its source.
func (e *egress) refuse(o *overlay, b []byte, p *inner, why DropReason) {
	e.f.drop(why)
	e.answer(o, b, p, icmpUnreachable, 0)
}

// encapsulate puts the packet into the batch of the local locator it leaves by.
func (e *egress) encapsulate(o *overlay, buf []byte, p *inner, hash uint32, d *mapcache.Decision) {
	b := buf[Headroom : Headroom+p.length]
	w, why := e.way(o, p, hash, d)
	if why != DropNone {
		e.refuse(o, b, p, why)
		return
	}
	if p.length > w.room {
		e.flushLocal(w.local) // what came before leaves before
		e.put(&e.alone, &w, o, p, hash, d)
		e.alone.fill(buf, p)
		e.tooBig(p, w.local, &e.alone, w.room)
		return
	}
	out := e.next(w.local)
	e.put(out, &w, o, p, hash, d)
	out.fill(buf, p)
	if followable(b, p) && !e.strayed {
		e.last.packet, e.last.out, e.last.local, e.last.room = b, out, w.local, w.room
	}
}

// follow encapsulates a packet as the last one, of whose flow it is.
func (e *egress) follow(buf []byte, p *inner) {
	out := e.next(e.last.local)
	*out = *e.last.out
	out.fill(buf, p)
}

// next returns the next place in the batch of a locator of ours. What was there
// before is still there.
func (e *egress) next(local int) *Outgoing {
	q := e.out[local]
	if len(q) == cap(q) {
		q = append(q, Outgoing{})
	} else {
		q = q[:len(q)+1]
	}
	e.out[local] = q
	return &q[len(q)-1]
}

// way is how a packet with a locator leaves.
type way struct {
	counter *locatorCounter // of the remote locator
	local   int             // the locator of ours
	room    int             // the largest inner packet that may
}

// way chooses how all packets of a flow leave, which may change d.
func (e *egress) way(o *overlay, p *inner, hash uint32, d *mapcache.Decision) (w way, why DropReason) {
	steered := -1
	if e.f.cfg.Policy != nil {
		if steered, why = e.steer(o, p, hash, d); why != DropNone {
			return w, why
		}
	}
	if d.Locator.Addr == p.dst || e.locals.owns(d.Locator.Addr) {
		return w, DropLoop
	}
	w.counter = e.f.remotes.forID(d.LocatorID, &d.Locator)
	ok := true
	switch {
	case steered >= 0:
		w.local = steered
	case w.counter.pairs.Load() == nil:
		w.local, ok = e.locals.choose(&d.Locator, hash)
	default:
		w.local, ok = e.reroute(o, p, hash, d, &w.counter)
	}
	if !ok {
		return w, DropNoSource
	}
	remote := d.Locator.Addr
	w.room = e.f.paths.limit(remote, e.locals.mtus[w.local]) - Overhead(remote)
	return w, DropNone
}

// put sets what all packets of a flow have in common. Field by field: a copy by way
// of a temporary stalls on its own stores.
func (e *egress) put(out *Outgoing, w *way, o *overlay, p *inner, hash uint32, d *mapcache.Decision) {
	out.Remote = netip.AddrPortFrom(d.Locator.Addr, d.Locator.Port)
	out.Format = d.Locator.Format
	out.Hash = hash
	out.MayFragment = false
	out.NAT = d.Locator.NAT
	out.Err = nil
	out.counter = w.counter
	out.overlay = o
	if e.meter != nil {
		out.entry = d.EntryID
	}
	out.header = o.header(d.Locator.Format, p)
	if e.f.closedNet != nil {
		e.f.closedNet.mark(out, p, d.EntryID)
	}
}

// route is way and put.
func (e *egress) route(o *overlay, p *inner, hash uint32, d *mapcache.Decision) (out Outgoing, local, room int, why DropReason) {
	w, why := e.way(o, p, hash, d)
	if why == DropNone {
		e.put(&out, &w, o, p, hash, d)
	}
	return out, w.local, w.room, why
}

// fill sets what depends on the packet itself, and writes the data header in
// front of it.
func (o *Outgoing) fill(buf []byte, p *inner) {
	const at = Headroom - dataHeaderLen
	lisp.PutDataHeader(buf[at:], o.header)
	o.Bytes, o.Payload = buf[at:Headroom+p.length], nil
	o.TTL = p.ttl
	o.TOS = p.tos // with its ECN field: the normal mode of RFC 6040 §4.1
	o.inner = p.length
}

// tooBig deals with a packet that is larger than room, the most that the path
// to a locator leaves for an inner packet (S of RFC 9300 §7.1): it is cut, or
// its source is told.
func (e *egress) tooBig(p *inner, local int, out *Outgoing, room int) {
	b := out.Bytes[dataHeaderLen:]
	e.cut = e.cut[:0]
	switch {
	case p.v6 && room < minIPv6MTU && p.length <= minIPv6MTU:
		// A source is never asked for less than 1280 octets (RFC 8200 §5), so
		// the network has to fragment the outer packet.
		e.f.c.outerFragmented.Add(1)
		e.cut = append(e.cut, *out)
		e.cut[0].MayFragment = true
	case e.parts.split(b, p, room):
		e.f.c.fragmented.Add(1)
		for i, size := range e.parts.sizes {
			slot := e.parts.slots[i]
			lisp.PutDataHeader(slot[Headroom-dataHeaderLen:], out.header)
			part := *out
			part.Bytes = slot[Headroom-dataHeaderLen : Headroom+size]
			part.inner = size
			e.cut = append(e.cut, part)
		}
	default:
		e.f.drop(DropTooBig)
		e.answer(out.overlay, b, p, icmpTooBig, room)
		return
	}
	ok := e.locals.paths[local].Send(e.cut)
	e.account(e.cut)
	if ok {
		return
	}
	for i := range e.cut {
		if err := e.cut[i].Err; errors.Is(err, ErrTooBig) {
			e.f.drop(DropTooBig)
		} else if err != nil {
			e.f.drop(DropSend)
		}
	}
}

// flush sends the batch.
func (e *egress) flush() {
	e.lookup()
	for i := range e.locals.locals {
		e.flushLocal(i)
	}
}

func (e *egress) flushLocal(i int) {
	out := e.out[i]
	if len(out) == 0 {
		return
	}
	ok := e.locals.paths[i].Send(out)
	e.account(out)
	if !ok {
		for j := range out {
			if out[j].Err != nil {
				e.failed(i, &out[j])
			}
		}
	}
	e.out[i] = out[:0]
	e.last.packet = nil // it was in there
}

// account counts what was sent.
func (e *egress) account(out []Outgoing) {
	packets, octets := 0, 0
	e.tallies = e.tallies[:0]
	for i := 0; i < len(out); {
		c, n, o := out[i].counter, 0, 0
		for i < len(out) && out[i].counter == c {
			t := mapcache.Tally{EntryID: out[i].entry}
			for ; i < len(out) && out[i].counter == c && out[i].entry == t.EntryID; i++ {
				if out[i].Err == nil {
					t.Packets++
					t.Octets += uint64(out[i].inner)
				}
			}
			if e.meter != nil {
				e.tallies = append(e.tallies, t)
			}
			n += int(t.Packets)
			o += int(t.Octets)
		}
		c.out.add(n, o)
		packets += n
		octets += o
	}
	if e.meter != nil {
		e.meter.Add(e.tallies)
	}
	e.f.c.encapsulated.add(packets, octets) // last: who has seen it finds all other counters
}

// failed deals with a packet that the network did not take.
func (e *egress) failed(local int, out *Outgoing) {
	if e.joined == nil {
		e.joined = newSlots(1)[0]
	}
	out.join(e.joined)
	b := out.Bytes[dataHeaderLen:]
	var p inner
	if parseInner(b, &p) != DropNone {
		e.f.drop(DropSend)
		return
	}
	remote := out.Remote.Addr()
	switch {
	case errors.Is(out.Err, ErrTooBig):
		room := e.f.paths.limit(remote, e.locals.mtus[local]) - Overhead(remote)
		if room >= p.length { // nothing was learned by an earlier packet of the batch
			mtu := e.locals.paths[local].PathMTU(remote)
			room = mtu - Overhead(remote)
			if mtu <= 0 || room >= p.length {
				e.f.drop(DropTooBig)
				return
			}
			e.f.paths.learn(time.Now(), remote, mtu)
			e.f.wakeHouse()
		}
		out.Err = nil
		e.tooBig(&p, local, out, room)
	case errors.Is(out.Err, syscall.ENETUNREACH), errors.Is(out.Err, syscall.EHOSTUNREACH):
		e.refuse(out.overlay, b, &p, DropSend)
	default:
		e.f.drop(DropSend)
	}
}

// native forwards the packet as it is.
func (e *egress) native(o *overlay, b []byte, p *inner) {
	if e.f.cfg.Native == nil {
		e.refuse(o, b, p, DropNative)
		return
	}
	mtu, err := e.forwardNative(o, b, p)
	switch {
	case errors.Is(err, errPolicy):
		e.refuse(o, b, p, DropPolicy)
	case err == nil:
		e.f.c.native.add(1, len(b))
	case !errors.Is(err, ErrTooBig):
		e.refuse(o, b, p, DropNative)
	case e.parts.split(b, p, mtu):
		e.f.c.fragmented.Add(1)
		for i, size := range e.parts.sizes {
			part := e.parts.slots[i][Headroom : Headroom+size]
			if _, err := e.forwardNative(o, part, p); err != nil {
				e.f.drop(DropNative)
				continue
			}
			e.f.c.native.add(1, size)
		}
	default:
		e.f.drop(DropTooBig)
		e.answer(o, b, p, icmpTooBig, mtu)
	}
}

// answer tells the source of the packet, through the device, why it was not
// forwarded. mtu is only used with icmpTooBig.
//
// The error comes from the address that the packet went to, like those of the
// kernel's own tunnels: the node may have no other address that its own stack
// would take an error from.
func (e *egress) answer(o *overlay, b []byte, p *inner, kind icmpKind, mtu int) {
	e.answerFrom(p.dst, o, b, p, kind, mtu)
}

// answerFrom is answer as a router does it: from is an address of its own.
func (e *egress) answerFrom(from netip.Addr, o *overlay, b []byte, p *inner, kind icmpKind, mtu int) {
	if e.f.icmpLimit == nil || !mayAnswer(b, p) {
		return
	}
	if !e.f.icmpLimit.Allow() {
		e.f.c.icmpLimited.Add(1)
		return
	}
	e.icmp[0] = appendICMP(e.icmp[0][:Headroom], b, p, from, kind, mtu)
	if err := o.writers[0].write(e.icmp[:]); err != nil {
		e.f.drop(DropDevice)
		return
	}
	e.f.c.icmpSent.Add(1)
}

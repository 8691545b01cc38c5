package encap

import (
	"io"
	"math"
	"slices"
	"sync"

	"github.com/xtrkit/xtrkit/mapcache"
)

// An RTR takes what arrives for the EIDs of others and sends it on: out of the
// buffer that it was received in, with a new data header in the place of the old
// one, and segments that arrived as one leave as one. What is for an unknown EID
// waits for its mapping like any other packet.

// relayQueue is how many packets a relayDevice holds.
const relayQueue = 64

// relayMTU is the MTU of a relayDevice: any packet.
const relayMTU = 65535

// relayDevice is the device of an Overlay that only relays. Nothing is delivered
// to it but ICMP errors, about packets that were not relayed: it hands them back,
// so that they are tunnelled to the source of the packet.
type relayDevice struct {
	packets chan []byte
	closed  chan struct{}
	close   func()
}

func newRelayDevice() *relayDevice {
	d := &relayDevice{packets: make(chan []byte, relayQueue), closed: make(chan struct{})}
	d.close = sync.OnceFunc(func() { close(d.closed) })
	return d
}

func (*relayDevice) Name() string   { return "relay" }
func (*relayDevice) MTU() int       { return relayMTU }
func (*relayDevice) BatchSize() int { return 1 }

func (d *relayDevice) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case b := <-d.packets:
		sizes[0] = copy(bufs[0][offset:], b)
		return 1, nil
	case <-d.closed:
		return 0, io.EOF
	}
}

// Write drops what there is no room for.
func (d *relayDevice) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		select {
		case d.packets <- append([]byte(nil), b[offset:]...):
		default:
		}
	}
	return len(bufs), nil
}

func (d *relayDevice) Close() error {
	d.close()
	return nil
}

// relays is what an ingress relays with.
type relays struct {
	egress *egress
	begun  bool     // of the batch at hand
	copies [][]byte // of packets in buffers without room in front
	used   int
}

// relay sends on one packet, and counts that it has arrived.
func (g *ingress) relay(in *Incoming, o *overlay, b []byte, p *inner, tos, ttl uint8) DropReason {
	why := g.sendOn(in, o, b, p, tos, ttl)
	if why == DropNone {
		g.arrived(1, p.length)
	}
	return why
}

// relayTransport sends on a packet of which a tunnel of the kernel has left a part of
// the work to the receiver (see transport): that is done first.
func (g *ingress) relayTransport(in *Incoming, o *overlay, b []byte, p *inner, tos, ttl uint8) DropReason {
	var t transport
	if p.ordinary(b) || !t.find(b, p) {
		return g.relay(in, o, b, p, tos, ttl)
	}
	unfinished := t.unfinished(b)
	header, size := t.at+udpHeaderLen, g.segment
	if t.proto == protoTCP {
		header = t.at + int(b[t.at+12]>>4)*4
	}
	// Without a word of the kernel only the length of a super-packet tells.
	if smallest, largest := g.locals.rooms(); t.proto == protoTCP && p.length > largest {
		if !unfinished && fold(sum(t.pseudo, b[t.at:])) != 0xffff {
			return DropChecksum
		}
		if size == 0 || size > smallest-header {
			size = smallest - header
		}
		if header < t.at+20 || header >= p.length || size <= 0 {
			return DropSuperPacket
		}
		return g.relaySegments(in, o, b, p, &t, header, size, tos, ttl)
	}
	switch {
	case !unfinished:
	case t.proto == protoUDP && size > 0 && p.length > header+size:
		return g.relaySegments(in, o, b, p, &t, header, size, tos, ttl)
	default:
		t.finish(b)
		g.f.c.finished.Add(1)
	}
	return g.relay(in, o, b, p, tos, ttl)
}

// relaySegments sends on the packet b, whose payload starts at header, in segments
// of size octets of payload.
func (g *ingress) relaySegments(in *Incoming, o *overlay, b []byte, p *inner, t *transport, header, size int, tos, ttl uint8) DropReason {
	g.f.c.segmented.Add(1)
	part := *in
	part.buffer = nil // each gets one of its own
	buf := g.nextSlot(o)[Headroom:]
	for i, at := 0, header; at < len(b); i++ {
		if g.relays.used == maxPieces {
			g.relays.flush()
		}
		end := min(at+size, len(b))
		n := copy(buf, b[:header])
		n += copy(buf[n:], b[at:end])
		t.segment(buf[:header], buf[header:n], p, i, at-header, end == len(b))
		q := *p
		q.length = n
		if why := g.relay(&part, o, buf[:n], &q, tos, ttl); why != DropNone {
			return why // and so would it be for the others
		}
		at = end
	}
	return DropNone
}

// rooms are the smallest and the largest inner packet that fit the links of all our
// locators, and of any.
func (t *localTable) rooms() (smallest, largest int) {
	smallest = math.MaxUint16
	for i, mtu := range t.mtus {
		if t.paths[i] != nil {
			room := mtu - Overhead(t.locals[i].Addr)
			smallest, largest = min(smallest, room), max(largest, room)
		}
	}
	return smallest, largest
}

// sendOn sends on the packet b of an overlay, whose traffic class and TTL are to
// become tos and ttl (draft-ermagan-lisp-nat-traversal-19 §5.3.1). Its source or
// its destination must be registered here: an RTR is no relay for everybody.
func (g *ingress) sendOn(in *Incoming, o *overlay, b []byte, p *inner, tos, ttl uint8) DropReason {
	r := &g.relays
	if r.egress == nil {
		r.egress = newEgress(g.f)
		r.egress.meter = g.f.meters.take(mapcache.Outbound)
	}
	e := r.egress
	if !r.begun {
		e.begin()
		r.begun = true
	}
	if ttl <= 1 { // it ends here, as at any router
		e.expired(in, o, b, p)
		return DropTTL
	}
	setTOSTTL(b, p, tos, ttl-1)
	buf := r.room(in, b)
	b = buf[Headroom : Headroom+p.length]
	if e.last.matches(o, b) && p.length <= e.last.room {
		e.follow(buf, p)
		return DropNone
	}
	e.last.packet = nil
	switch {
	case e.locals.owns(p.dst) || e.locals.owns(p.src):
		return DropLoop
	case p.proto == protoUDP && lispHeaders(b, p) >= 2:
		return DropNesting
	}
	hash := mapcache.FlowHash(g.f.cfg.FlowSeed, b)
	d := e.view.Forward(o.iid, p.dst, hash)
	toNAT := d.Verdict == mapcache.Encapsulate && d.Locator.NAT
	switch {
	case !toNAT && !e.view.BehindNAT(o.iid, p.src) && !e.view.BehindNAT(o.iid, p.dst):
		return DropNotRelayed
	case d.Verdict == mapcache.Encapsulate && !toNAT && d.Locator.Addr == in.Remote.Addr():
		return DropLoop // back to where it comes from
	case d.Verdict == mapcache.Miss:
		if !e.miss(o, b, p, hash, &d) {
			return DropNone
		}
	case g.f.hold.busy.Load() != 0:
		e.letGo(o, p.dst)
	}
	e.decided(o, buf, p, hash, &d)
	return DropNone
}

// expired tells the source of a packet that its TTL has ended here, from the address
// that it came to, so that traceroute shows the RTR. Without an address of the
// packet's family nothing can be said. Nor is it said to everybody: one of the
// packet's ends must be registered here.
func (e *egress) expired(in *Incoming, o *overlay, b []byte, p *inner) {
	from := in.Local
	if !from.IsValid() || from.Is6() != p.v6 {
		i := slices.IndexFunc(e.locals.locals, func(l mapcache.Local) bool { return l.Up && l.Addr.Is6() == p.v6 })
		if i < 0 {
			return
		}
		from = e.locals.locals[i].Addr
	}
	if o.answers && (e.view.BehindNAT(o.iid, p.src) || e.view.BehindNAT(o.iid, p.dst)) {
		e.answerFrom(from, o, b, p, icmpTimeExceeded, 0)
	}
}

// room returns the buffer that holds the packet b at Headroom: the one it was
// received in, if that has the room, else a copy.
func (r *relays) room(in *Incoming, b []byte) []byte {
	if in.buffer != nil {
		// b is a part of it, and has the same end.
		return in.buffer[cap(in.buffer)-cap(b)-Headroom:]
	}
	if r.used == len(r.copies) {
		r.copies = append(r.copies, newSlots(1)[0])
	}
	slot := r.copies[r.used]
	r.used++
	copy(slot[Headroom:], b)
	return slot
}

// flush sends what was relayed of the batch.
func (r *relays) flush() {
	if r.begun {
		r.egress.flush()
		r.begun, r.used = false, 0
	}
}

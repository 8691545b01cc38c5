package encap

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/mapcache"
)

// burstLen is how many packets are looked up together: enough to wait for memory
// once for all of them, few enough to stay in the processor's first cache.
const burstLen = 32

// burst is packets between their reading and the decision about them.
type burst struct {
	o       *overlay
	n       int // packets
	packets [burstLen]burstPacket

	m         int // lookups: fewer than packets, if some are of one flow
	dst       [burstLen]netip.Addr
	hash      [burstLen]uint32
	decisions [burstLen]mapcache.Decision
}

// burstPacket is one packet of a burst.
type burstPacket struct {
	buf     []byte // with Headroom in front
	p       inner
	lookup  int
	follows bool // is of the flow of the packet before
}

func (q *burstPacket) bytes() []byte { return q.buf[Headroom : Headroom+q.p.length] }

// packet forwards the packet of n octets that starts at buf[Headroom]. The
// buffer must not change until flush.
func (e *egress) packet(o *overlay, buf []byte, n int) {
	t := &e.burst
	if t.n == burstLen || t.o != o {
		e.lookup()
		t.o = o
	}
	b, q := buf[Headroom:Headroom+n], &t.packets[t.n]
	q.buf, q.follows = buf, false
	if t.n > 0 {
		last := &t.packets[t.n-1]
		before := last.bytes()
		q.follows = followable(before, &last.p) && sameFlow(before, b)
	}
	if q.follows {
		if why := parseInner(b, &q.p); why != DropNone {
			e.f.drop(why)
			return
		}
	} else {
		if why := e.admit(o, b, &q.p); why != DropNone {
			e.f.drop(why)
			return
		}
		t.dst[t.m], t.hash[t.m] = q.p.dst, mapcache.FlowHash(e.f.cfg.FlowSeed, b[:q.p.length])
		t.m++
	}
	q.lookup = t.m - 1
	t.n++
}

// lookup looks the packets of the burst up, and does what is decided about each.
func (e *egress) lookup() {
	t := &e.burst
	if t.n == 0 {
		return
	}
	dst, hash, decisions := t.dst[:t.m], t.hash[:t.m], t.decisions[:t.m]
	if e.destinations != nil {
		e.destinations.ForwardBatch(e.view, t.o.iid, dst, hash, decisions)
	} else {
		e.view.ForwardBatch(t.o.iid, dst, hash, decisions)
	}
	for i := range t.n {
		q := &t.packets[i]
		if q.follows && e.last.packet != nil && q.p.length <= e.last.room {
			e.follow(q.buf, &q.p)
			continue
		}
		e.last.packet = nil
		e.one(t.o, q, t.hash[q.lookup], t.decisions[q.lookup])
	}
	t.n, t.m = 0, 0
}

// one does what the map-cache said about a packet when the batch began, or what
// it says now if that was a miss.
func (e *egress) one(o *overlay, q *burstPacket, hash uint32, d mapcache.Decision) {
	p := &q.p
	if d.Verdict == mapcache.Miss {
		if !e.miss(o, q.bytes(), p, hash, &d) {
			return
		}
	} else if e.f.hold.busy.Load() != 0 {
		e.letGo(o, p.dst)
	}
	e.decided(o, q.buf, p, hash, &d)
}

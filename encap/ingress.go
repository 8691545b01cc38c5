package encap

import (
	"net/netip"

	"github.com/xtrkit/xtrkit/internal/virtio"
	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// ingress takes encapsulated packets from one receiver and delivers what is in
// them. One goroutine at a time.
type ingress struct {
	f      *Forwarder
	r      Receiver
	index  int // of r
	locals *localTable
	view   *mapcache.View // only if arriving packets are checked by it

	batch []Incoming
	slots [][]byte
	ready [][]byte // the packets of the batch that wait for deliver, in slots
	to    *overlay // where they go
	limit int      // how many to takes at once

	segment int // of the super-packet at hand, what the kernel says of its segments; else 0

	merge       merger // for a VirtioDevice
	virtioHead  [virtio.HeaderLen]byte
	virtioParts [2][]byte

	relays relays

	fitting fitting // the last one of the batch
	senders senders

	octets     int
	source     netip.Addr      // whose counter counter is
	counter    *locatorCounter // of the locator that sent
	changes    uint32          // of locatorCounters, when it was looked up
	fromSource Counter         // of it, not yet added
}

func newIngress(f *Forwarder, r Receiver) *ingress {
	n := 1
	for _, o := range f.overlays {
		n = max(n, o.device.BatchSize())
	}
	return &ingress{
		f: f, r: r,
		batch: make([]Incoming, max(1, r.BatchSize())),
		slots: newSlots(n),
		ready: make([][]byte, 0, n),

		senders: senders{meter: f.meters.take(mapcache.Inbound)},
	}
}

func (g *ingress) run() error {
	for {
		n, err := g.r.Receive(g.batch)
		if err != nil {
			return err
		}
		g.receive(g.batch[:n])
	}
}

// receive takes one batch from the network.
func (g *ingress) receive(batch []Incoming) {
	g.locals = g.f.locals.Load()
	if g.f.closedNet != nil || g.f.cfg.SourceCheck != SourceUnchecked || g.senders.meter != nil {
		g.view = g.f.cfg.View()
		g.fitting = fitting{}
	}
	for i := range batch {
		g.datagrams(&batch[i])
	}
	g.settle()
	g.senders.flush()
	g.deliver()
	g.relays.flush()
}

// datagrams takes the datagrams that arrived as one.
func (g *ingress) datagrams(in *Incoming) {
	rest := in.Bytes
	known := !in.Local.IsValid() || g.locals.owns(in.Local)
	if a, n := in.Remote.Addr(), g.f.remotes.changes.Load(); a != g.source || n != g.changes || g.counter == nil {
		g.settle()
		g.source, g.counter, g.changes = a, g.f.remotes.forSource(a), n
	}
	for first := true; first || len(rest) > 0; first = false {
		n := len(rest)
		if in.Segment > 0 {
			n = min(n, in.Segment)
		}
		why := DropNotLocator
		if known {
			why = g.datagram(in, rest[:n])
		}
		// The inner length decides how far a packet reaches: behind one data
		// header there can be one packet of several segments' length.
		if known && (why == DropTruncated || n < dataHeaderLen) && n < len(rest) {
			if length := reach(rest, n); length > 0 {
				g.segment, n = in.Segment, length
				why = g.datagram(in, rest[:n])
				g.segment = 0
			}
		}
		if why != DropNone {
			g.f.drop(why)
		}
		rest = rest[n:]
	}
}

// reach returns the length of the first datagram of b if its inner packet says
// that it is longer than the first segment, of n octets, and not longer than all
// that arrived; else 0.
func reach(b []byte, n int) int {
	var p inner
	if len(b) < dataHeaderLen || parseInner(b[dataHeaderLen:], &p) != DropNone || dataHeaderLen+p.length <= n {
		return 0
	}
	return dataHeaderLen + p.length
}

// datagram takes one datagram: the data header, and the inner packet that
// becomes part of the batch if it is for us.
func (g *ingress) datagram(in *Incoming, b []byte) DropReason {
	if g.f.cfg.BareControl && g.f.bareControl(in, b) {
		return DropNone
	}
	h, err := lisp.ParseDataHeader(b)
	if err != nil {
		return DropHeader
	}
	next, why := payload(h, in.Format)
	if why != DropNone {
		return why
	}
	iid, tagged := h.InstanceID()
	switch {
	case !tagged:
		iid = 0 // these bits are Locator-Status-Bits, then
	case iid == lisp.InstanceIDControl && in.Format != mapcache.FormatVXLANGPE:
		if g.f.cfg.Control == nil {
			return DropControl
		}
		g.f.cfg.Control(lisp.Datagram{
			Local: netip.AddrPortFrom(in.Local, dataPort), Remote: in.Remote, IfIndex: in.IfIndex, Bytes: b,
		})
		return DropNone
	}
	if next == 0 && g.f.closedNet == nil {
		if _, _, ok := h.MapVersions(); ok {
			// Our mappings have no version (RFC 9302 §6.1).
			return DropMapVersion
		}
	}
	o := g.f.overlay(iid)
	if o == nil {
		return DropInstance
	}

	b = b[dataHeaderLen:]
	if next == lisp.NextEthernet {
		switch {
		case o.ethernet == nil:
			return DropProtocol
		case len(b) < ethernetHeaderLen:
			return DropTruncated
		}
		g.f.c.decapsulated.add(1, len(b))
		g.fromSource.Packets++
		g.fromSource.Octets += uint64(len(b))
		o.ethernet(in.Remote, b)
		return DropNone
	}
	var p inner
	if why := parseInner(b, &p); why != DropNone {
		return why
	}
	switch {
	case next == lisp.NextIPv4 && p.v6, next == lisp.NextIPv6 && !p.v6:
		return DropProtocol
	case !p.v6 && !headerOK(b, p.headerLen):
		return DropChecksum
	case !p.routable():
		return DropScope
	case !o.relay && !o.isOurs(p.dst) && !o.proxyETR.contains(p.src):
		return DropNotOurEID
	}
	if g.f.cfg.SourceCheck != SourceUnchecked {
		if why := g.checkSource(o, &p, in.Remote.Addr()); why != DropNone {
			return why
		}
	}
	tos, ttl := p.tos, p.ttl
	if in.HasTOS {
		var odd, ok bool
		tos, odd, ok = decapTOS(p.tos, in.TOS)
		if odd {
			g.f.c.ecnOdd.Add(1)
		}
		if !ok {
			return DropECN
		}
	}
	if next == 0 && g.f.closedNet != nil {
		if why := g.f.closedNet.check(g, h, o, &p); why != DropNone {
			return why
		}
	}
	if g.senders.meter != nil {
		g.senders.is(g.view, o, p.src)
	}
	if in.TTL != 0 {
		ttl = decapTTL(p.ttl, in.TTL)
	}
	b = b[:p.length]
	if o.relay && !o.isOurs(p.dst) && !o.proxyETR.contains(p.src) {
		return g.relayTransport(in, o, b, &p, tos, ttl)
	}
	if o.virtio {
		if tos != p.tos || ttl != p.ttl {
			setTOSTTL(b, &p, tos, ttl)
		}
		return g.deliverVirtio(o, b, &p)
	}
	if !p.ordinary(b) {
		var t transport
		if t.find(b, &p) {
			return g.deliverTransport(o, b, &p, &t, tos, ttl)
		}
	}
	g.deliverLater(o, b, &p, tos, ttl)
	return DropNone
}

// deliverLater adds a packet to what deliver delivers, and returns its copy.
func (g *ingress) deliverLater(o *overlay, b []byte, p *inner, tos, ttl uint8) []byte {
	slot := g.nextSlot(o)[Headroom:]
	copy(slot, b)
	if tos != p.tos || ttl != p.ttl {
		setTOSTTL(slot, p, tos, ttl)
	}
	g.keep(len(b))
	return slot[:len(b)]
}

// nextSlot returns the buffer for the next packet to an overlay.
func (g *ingress) nextSlot(o *overlay) []byte {
	if g.to != o || len(g.ready) == g.limit {
		g.deliver()
		g.to, g.limit = o, min(len(g.slots), max(1, o.device.BatchSize()))
	}
	return g.slots[len(g.ready)]
}

// keep takes the packet of n octets in the next slot for deliver.
func (g *ingress) keep(n int) {
	// The spare capacity behind the packet is for the device to merge into.
	g.ready = append(g.ready, g.slots[len(g.ready)][:Headroom+n])
	g.octets += n
	g.arrived(1, n)
}

// arrived counts what was delivered, or soon will be, for who sent it.
func (g *ingress) arrived(packets, octets int) {
	g.fromSource.Packets += uint64(packets)
	g.fromSource.Octets += uint64(octets)
	g.senders.add(packets, octets)
}

// writer returns the queue of an overlay's device that g writes to.
func (g *ingress) writer(o *overlay) *deviceWriter { return &o.writers[g.index%len(o.writers)] }

// deliver hands the packets that are ready to the device.
func (g *ingress) deliver() {
	g.flushMerger()
	if len(g.ready) == 0 {
		return
	}
	g.f.c.decapsulated.add(len(g.ready), g.octets)
	if err := g.writer(g.to).write(g.ready); err != nil {
		// The device does not say which of them; one error, one drop.
		g.f.drop(DropDevice)
	}
	g.ready, g.octets = g.ready[:0], 0
}

// settle adds what is not yet counted for the current source.
func (g *ingress) settle() {
	if g.fromSource.Packets != 0 {
		g.counter.in.add(int(g.fromSource.Packets), int(g.fromSource.Octets))
		g.fromSource = Counter{}
	}
}

package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/encap"
	"github.com/xtrkit/xtrkit/examples/internal/dataplane"
	"github.com/xtrkit/xtrkit/examples/internal/statusd"
	"github.com/xtrkit/xtrkit/mapcache"
)

// protoUDP is what a packet is that nobody says more of.
const protoUDP = 17

// trace says what becomes of packets of a flow, and why.
func (n *Node) trace(ctx context.Context, f statusd.Flow) (statusd.Trace, error) {
	if !f.Src.IsValid() {
		for _, p := range n.EIDs() {
			if p.Addr().Is4() == f.Dst.Is4() {
				f.Src = p.Addr()
				break
			}
		}
	}
	if !f.Src.IsValid() || !f.Dst.IsValid() || f.Src.Is4() != f.Dst.Is4() {
		return statusd.Trace{}, fmt.Errorf("the node has no EID of the family of %v: say where the packets come from", f.Dst)
	}
	if f.Protocol == 0 {
		f.Protocol = protoUDP
	}
	t := statusd.Trace{Flow: f}
	step := func(format string, args ...any) { t.Why = append(t.Why, fmt.Sprintf(format, args...)) }
	if slices.Contains(n.EIDs(), netip.PrefixFrom(f.Dst, f.Dst.BitLen())) {
		t.Does = "deliver here"
		step("%v is our own EID: the host takes it, and no device is in its way", f.Dst)
		return t, nil
	}
	got, err := n.forwarder.Trace(n.cfg.Conf.IID, packetOf(f), encap.Mark{Value: f.Mark})
	if err != nil {
		return t, err
	}
	if err := n.runner.Do(ctx, func(time.Time) {
		if e, ok := n.engine.Cache().LookupEntry(n.cfg.Conf.IID, f.Dst); ok {
			found := dataplane.Entry(e, n.engine.Cache())
			t.Entry = &found
		}
	}); err != nil {
		return t, err
	}
	switch {
	case t.Entry != nil && len(t.Entry.RLOCs) == 0:
		step("the longest match in the map-cache is %v, by %s: %s", t.Entry.Prefix, t.Entry.Origin, t.Entry.Action)
	case t.Entry != nil:
		plural := "s"
		if len(t.Entry.RLOCs) == 1 {
			plural = ""
		}
		step("the longest match in the map-cache is %v, by %s, with %d locator%s", t.Entry.Prefix, t.Entry.Origin, len(t.Entry.RLOCs), plural)
	default:
		step("nothing in the map-cache matches %v", f.Dst)
	}
	switch {
	case got.Drop != encap.DropNone:
		t.Does = "drop"
		step("dropped: %v", got.Drop)
	case got.Verdict == mapcache.Encapsulate:
		t.Does = "encapsulate"
		n.traceWay(&t, &got, step)
	case got.Verdict == mapcache.Native:
		t.Does = "forward natively"
		step("it is forwarded unencapsulated, from %v, by the uplink of the host's route", f.Src)
	case got.Verdict == mapcache.Miss:
		t.Does = "wait for a mapping"
		step("the packet waits, and the Map-Resolver is asked: lispconf lookup %v does the same", f.Dst)
	default:
		t.Does = got.Verdict.String()
	}
	return t, nil
}

// traceWay tells of a packet that is encapsulated.
func (n *Node) traceWay(t *statusd.Trace, got *encap.Trace, step func(string, ...any)) {
	t.Locator, t.Port, t.Local, t.SourcePort, t.MTU = got.Locator.Addr, got.Locator.Port, got.Local.Addr, got.SourcePort, got.MTU
	n.mu.Lock()
	for _, i := range n.seen {
		if i.Index == got.Local.IfIndex {
			t.Interface = i.Name
		}
	}
	n.mu.Unlock()
	if t.Entry != nil {
		up, best := 0, 256
		for _, r := range t.Entry.RLOCs {
			if r.State == "up" && r.Priority < 255 {
				best = min(best, int(r.Priority))
			}
		}
		for _, r := range t.Entry.RLOCs {
			if r.State == "up" && int(r.Priority) == best {
				up++
			}
		}
		if up > 1 {
			step("of %d locators that are up with the best priority, %d, the hash of the flow (%08x) takes %v by their weights", up, best, got.Hash, t.Locator)
		} else {
			step("%v is the locator that is up with the best priority, %d", t.Locator, best)
		}
	}
	step("of our locators, %v (interface %s, priority %d, weight %d) sends there", t.Local, t.Interface, got.Local.Priority, got.Local.Weight)
	if t.SourcePort != 0 {
		step("the hash of the flow chooses the source port %d", t.SourcePort)
	}
}

// packetOf makes a packet of a flow, as far as anybody looks at it.
func packetOf(f statusd.Flow) []byte {
	const transport = 8
	var b []byte
	if f.Dst.Is4() {
		b = make([]byte, 20+transport)
		b[0], b[8], b[9] = 0x45, 64, f.Protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		put(b[12:], f.Src)
		put(b[16:], f.Dst)
		binary.BigEndian.PutUint16(b[10:], checksum(b[:20]))
	} else {
		b = make([]byte, 40+transport)
		b[0], b[6], b[7] = 0x60, f.Protocol, 64
		binary.BigEndian.PutUint16(b[4:], transport)
		put(b[8:], f.Src)
		put(b[24:], f.Dst)
	}
	binary.BigEndian.PutUint16(b[len(b)-transport:], f.SrcPort)
	binary.BigEndian.PutUint16(b[len(b)-transport+2:], f.DstPort)
	return b
}

func put(b []byte, a netip.Addr) { copy(b, a.AsSlice()) }

// checksum is that of an IPv4 header (RFC 791).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

package control

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// handleDataProbe answers an RLOC-probe that an RTR of lispers.net sends as a data
// packet of instance 0xFFFFFF: the binding for data is the only way in. It is answered
// the same way, with the addresses inside exchanged; not so the RTR would take us
// for unreachable. It reports whether the message was one.
func (e *Engine) handleDataProbe(now time.Time, d lisp.Datagram) bool {
	if e.cfg.NAT.Variant != natt.LispersNet {
		return false
	}
	h, err := lisp.ParseDataHeader(d.Bytes)
	if err != nil {
		return false
	}
	if iid, ok := h.InstanceID(); !ok || iid != lisp.InstanceIDControl {
		return false
	}
	packet := bytes.Clone(d.Bytes[lisp.DataHeaderLen:])
	exchangePort(packet, 0, lisp.DataPort, lisp.ControlPort)
	in, err := (&lisp.EncapsulatedControl{Packet: packet}).Inner()
	if err != nil || lisp.TypeOf(in.Payload) != lisp.TypeMapRequest {
		return false
	}
	m := &e.mapRequest
	if err := m.DecodeFromBytes(in.Payload); err != nil {
		e.drop(now, DropMalformed, d.Remote, err.Error)
		return true
	}
	from := d.Remote.Addr().Unmap()
	i := slices.IndexFunc(e.nat.bound(), func(b natAnnounced) bool { return b.rtr == from })
	switch {
	case !m.Probe:
		e.drop(now, DropEncapsulated, d.Remote, nil)
		return true
	case i < 0:
		e.drop(now, DropUnknownSender, d.Remote, nil)
		return true
	case !e.probeLimits.allow(now, from):
		e.drop(now, DropMapReplyRate, d.Remote, nil)
		return true
	}
	e.stats.MapRequestsReceived++
	found, _ := e.findRecords(m)
	r := lisp.MapReply{Probe: true, Nonce: m.Nonce, Records: e.replyRecords(found)}
	b, err := r.AppendBinary(nil)
	if err != nil {
		e.log.Error("message not encoded", "peer", d.Remote, "err", err)
		return true
	}
	packet, err = lisp.AppendInner(nil, lisp.Inner{Source: in.Destination, Destination: in.Source, Payload: b})
	if err != nil {
		e.log.Error("message not encoded", "peer", d.Remote, "err", err)
		return true
	}
	exchangePort(packet, 2, lisp.ControlPort, lisp.DataPort)
	var header [lisp.DataHeaderLen]byte
	lisp.PutDataHeader(header[:], lisp.DataHeader{}.WithInstanceID(lisp.InstanceIDControl))
	if e.out.len() >= maxQueue {
		e.stats.Dropped[DropQueueFull]++
		return true
	}
	local := e.nat.bound()[i].Local
	e.out.push(lisp.Datagram{
		Local: netip.AddrPortFrom(local.Addr, lisp.DataPort), Remote: d.Remote, IfIndex: local.IfIndex, Bytes: append(header[:], packet...),
	}, maxQueue)
	e.stats.MapRepliesSent++
	e.stats.ProbeRepliesSent++
	return true
}

// exchangePort changes a port of a UDP packet, at an offset in its UDP header, if it
// is a certain one. With lispers.net the data port stands inside, which package lisp
// takes for an error anywhere else.
func exchangePort(packet []byte, at int, from, to uint16) {
	header := 40
	if len(packet) > 0 && packet[0]>>4 == 4 {
		header = int(packet[0]&15) * 4
	}
	if len(packet) < header+8 || binary.BigEndian.Uint16(packet[header+at:]) != from {
		return
	}
	udp := packet[header:]
	binary.BigEndian.PutUint16(udp[at:], to)
	if sum := binary.BigEndian.Uint16(udp[6:]); sum != 0 { // RFC 1624
		n := uint32(^sum) + uint32(^from) + uint32(to)
		n = n&0xffff + n>>16
		n = n&0xffff + n>>16
		if sum = ^uint16(n); sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(udp[6:], sum)
	}
}

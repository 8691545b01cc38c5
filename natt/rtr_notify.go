package natt

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// handleNotify takes a Map-Notify in an Encapsulated Control Message: the answer
// to a Map-Register that was relayed, or unsolicited news for a node.
func (r *RTR) handleNotify(now time.Time, d lisp.Datagram, in lisp.Inner) {
	server, ok := r.mapServer(d.Remote.Addr())
	m := &r.notify
	if !ok {
		r.drop(now, RTRMapServerUnknown, d.Remote, lisp.XTRID{}, d.Remote.String())
		return
	}
	if err := m.DecodeFromBytes(in.Payload); err != nil {
		r.drop(now, RTRMalformed, d.Remote, lisp.XTRID{}, err.Error())
		return
	}
	if len(server.Key.Secret) > 0 {
		if len(r.ecm.Security) == 0 {
			r.drop(now, RTRNotSecured, d.Remote, m.XTRID, "")
			return
		}
		if err := r.ecm.VerifyRTR(server.Key); err != nil {
			r.drop(now, RTRAuthentication, d.Remote, m.XTRID, err.Error())
			return
		}
	} else if r.cfg.RequireKey {
		r.drop(now, RTRNotSecured, d.Remote, m.XTRID, "")
		return
	}
	r.notified(now, d, server, in, r.ecm.Packet)
}

// notified goes on with a Map-Notify that is authenticated as far as the
// configuration asks for. packet is the IP packet that it is in, nil without.
func (r *RTR) notified(now time.Time, d lisp.Datagram, server *RTRMapServer, in lisp.Inner, packet []byte) {
	m := &r.notify
	a, found := r.match(server, m)
	switch {
	case !found && len(server.Key.Secret) > 0:
		r.unsolicited(now, d, server, in)
		return
	case !found:
		r.drop(now, RTRNonce, d.Remote, m.XTRID, m.Nonce.String())
		return
	case a == nil:
		r.drop(now, RTRAmbiguous, d.Remote, m.XTRID, m.Nonce.String())
		return
	}
	r.stats.Notifies++
	r.forgetAttempts(a.key)
	r.ownLocator(a.own)
	r.verify(now, a, m)
	r.dataMapNotify(server, a.own, a.from, a.ifIndex, a.local, in, packet)
}

// match finds the Map-Register that a Map-Notify answers. When several sources
// have sent one with its nonce, all but one are forged, and which one the
// Map-Server has accepted can't be told: the one that comes from where the node
// is known to be, or none.
func (r *RTR) match(server *RTRMapServer, m *lisp.MapNotify) (a *attempt, found bool) {
	xtr, _, ok := m.Identity()
	if !ok {
		return nil, false
	}
	list := r.pending[pendingKey{server: server.Addr, nonce: m.Nonce, xtr: xtr}]
	if len(list) <= 1 {
		if len(list) == 1 {
			a = list[0]
		}
		return a, a != nil
	}
	for _, o := range list {
		if r.verifiedAs(o, m.Records) {
			return o, true
		}
	}
	return nil, true
}

func (r *RTR) forgetAttempts(k pendingKey) {
	for _, a := range slices.Clone(r.pending[k]) {
		r.settle(a)
	}
}

// ownLocator remembers an address that nodes register through.
func (r *RTR) ownLocator(a netip.Addr) {
	const most = 64
	if !r.isOwn(a) && len(r.rlocs) < most {
		r.rlocs = append(r.rlocs, a)
	}
}

// unsolicited takes an authenticated Map-Notify that answers nothing. A mapping
// that has a locator of ours goes to the node that it is for; one that has none
// says that the node is elsewhere now, of which the mapping system is asked.
func (r *RTR) unsolicited(now time.Time, d lisp.Datagram, server *RTRMapServer, in lisp.Inner) {
	m := &r.notify
	if !r.unasked.allow(now) {
		r.drop(now, RTRRate, d.Remote, m.XTRID, "")
		return
	}
	xtr, _, _ := m.Identity()
	var to *relayEntry
	served := false
	for i := range m.Records {
		rec := &m.Records[i]
		k, ok := recordEID(rec)
		st := r.eids[k]
		if !ok || st == nil || len(st.claims) == 0 {
			continue
		}
		served = true
		if !r.hasOwnLocator(rec) {
			st.resolve = true
			r.touch(k)
			continue
		}
		if c := r.claim(k, xtr); xtr != (lisp.XTRID{}) && c != nil && to == nil {
			to = c.best()
		}
	}
	switch {
	case !served:
		r.drop(now, RTRNotServed, d.Remote, xtr, "")
	case to == nil:
		r.drop(now, RTRElsewhere, d.Remote, xtr, "")
	default:
		r.stats.Unsolicited++
		r.dataMapNotify(server, to.RTR, to.Global, to.IfIndex, to.Local, in, nil)
	}
}

// hasOwnLocator reports whether a mapping comes to this RTR.
func (r *RTR) hasOwnLocator(rec *lisp.EIDRecord) bool {
	return slices.ContainsFunc(rec.Locators, func(l lisp.RLOCRecord) bool {
		ip, ok := l.RLOC.IP()
		return ok && r.isOwn(ip)
	})
}

// best is the relay that a message to the node goes by.
func (c *relayClaim) best() *relayEntry {
	if len(c.relays) == 0 {
		return nil
	}
	return slices.MinFunc(c.relays, func(a, b *relayEntry) int { return int(a.Priority) - int(b.Priority) })
}

// dataMapNotify sends a Map-Notify to a node as a data packet: from port 4342 to
// the translated address and port (draft §4.5). A packet that is for the node as
// it is stays as it is.
func (r *RTR) dataMapNotify(server *RTRMapServer, own netip.Addr, to netip.AddrPort, ifIndex int, local netip.Addr, in lisp.Inner, packet []byte) {
	if r.send(own, to, ifIndex, func(b []byte) ([]byte, error) {
		var header [lisp.DataHeaderLen]byte
		lisp.PutDataHeader(header[:], lisp.DataHeader{}.WithInstanceID(lisp.InstanceIDControl))
		b = append(b, header[:]...)
		if packet != nil && in.Destination.Addr().Unmap() == local && in.Destination.Port() == lisp.ControlPort {
			return append(b, packet...), nil
		}
		from := in.Source
		if from.Addr().Is4() != local.Is4() {
			from = netip.AddrPortFrom(sameFamily(server.Addr, local), lisp.ControlPort)
		}
		return lisp.AppendInner(b, lisp.Inner{
			Source: from, Destination: netip.AddrPortFrom(local, lisp.ControlPort), TTL: in.TTL, Payload: in.Payload,
		})
	}) {
		r.stats.DataMapNotifies++
	}
}

// sameFamily is a, or the unspecified address of the family of b if a is of another
// one or unknown: an inner packet has one family.
func sameFamily(a, b netip.Addr) netip.Addr {
	switch {
	case a.IsValid() && a.Is4() == b.Is4():
		return a
	case b.Is4():
		return netip.IPv4Unspecified()
	default:
		return netip.IPv6Unspecified()
	}
}

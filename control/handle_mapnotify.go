package control

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// handleMapNotify takes a Map-Notify (RFC 9301 §5.7): the acknowledgement of a
// Map-Register, or unsolicited news of a change. Nothing of it is used before
// its authentication data is verified over the octets received, with the key
// shared with the Map-Server that it comes from.
func (e *Engine) handleMapNotify(now time.Time, d lisp.Datagram) bool {
	if !e.isMapServer(d.Remote.Addr()) {
		e.drop(now, DropUnknownSender, d.Remote, nil)
		return false
	}
	m := &e.mapNotify
	if err := m.DecodeFromBytes(d.Bytes); err != nil {
		e.drop(now, DropMalformed, d.Remote, err.Error)
		return true
	}
	from := d.Remote.Addr().Unmap()
	for _, r := range e.registrations {
		if r.message == nil || r.nonce != m.Nonce || r.server.Addr.Addr() != from {
			continue
		}
		if err := lisp.Verify(d.Bytes, r.server.Key); err != nil {
			e.notifyRefused(now, d, r, err)
			return true
		}
		e.stats.MapNotifiesReceived++
		e.registered(now, r, e.missing(r, m.Records))
		e.noteRegistered(now, r.server, m.Records, false)
		e.heardServer(now, r.server)
		return true
	}
	server, err := e.verifyNotify(d.Bytes, from)
	if err != nil {
		e.drop(now, DropAuthentication, d.Remote, err.Error)
		return true
	}
	e.stats.MapNotifiesReceived++
	if e.handlePublication(now, d, m, server) {
		return true
	}
	if e.ownNonce(m.Nonce) {
		return true // a late duplicate, or replayed: we have moved on
	}
	e.acknowledge(now, d, server)
	if !server.seenBefore(m.Nonce) {
		e.noteRegistered(now, server, m.Records, true)
	}
	return true
}

func (e *Engine) isMapServer(a netip.Addr) bool {
	a = a.Unmap()
	for _, s := range e.servers {
		if s.Addr.Addr() == a {
			return true
		}
	}
	return false
}

// notifyRefused notes a Map-Notify that answers r but does not verify. It may be
// forged, so the state of r stays; only the error is shown.
func (e *Engine) notifyRefused(now time.Time, d lisp.Datagram, r *registration, err error) {
	e.drop(now, DropAuthentication, d.Remote, err.Error)
	const why = "the Map-Notify does not verify with our key"
	if errors.Is(err, lisp.ErrAuth) && r.lastError != why {
		e.emit(RegisterFailed{Stamp{now}, r.server.Addr, slices.Clone(r.keys), why})
	}
	r.fail(now, why)
}

// verifyNotify tries the keys shared with the Map-Servers at that address.
func (e *Engine) verifyNotify(b []byte, from netip.Addr) (*mapServer, error) {
	err := lisp.ErrAuth
	for _, s := range e.servers {
		if s.Addr.Addr() != from {
			continue
		}
		if err = lisp.Verify(b, s.Key); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// missing returns which of r's EID-Prefixes the records leave out.
func (e *Engine) missing(r *registration, records []lisp.EIDRecord) []mapcache.Key {
	there := make(map[mapcache.Key]bool, len(records))
	for i := range records {
		if k, ok := recordKey(&records[i]); ok {
			there[k] = true
		}
	}
	var out []mapcache.Key
	for _, k := range r.keys {
		if !there[k] {
			out = append(out, k)
		}
	}
	return out
}

// acknowledge answers an unsolicited Map-Notify with a Map-Notify-Ack that
// repeats it (RFC 9301 §5.7), once for each that comes.
func (e *Engine) acknowledge(now time.Time, d lisp.Datagram, s *mapServer) {
	m := &e.mapNotify
	ev := UnsolicitedNotify{Stamp: Stamp{now}, MapServer: s.Addr}
	for i := range m.Records {
		if k, ok := recordKey(&m.Records[i]); ok {
			ev.EIDs = append(ev.EIDs, k)
		}
	}
	e.emit(ev)
	local, ok := e.replyLocal(d.Local.Addr(), d.Remote.Addr())
	if !ok {
		e.drop(now, DropNoLocal, d.Remote, nil)
		return
	}
	if !e.knownLimit.AllowN(now, 1) {
		e.drop(now, DropMapReplyRate, d.Remote, nil)
		return
	}
	ack := lisp.MapNotifyAck(*m)
	if e.send(local, d.Remote, func(b []byte) ([]byte, error) { return ack.AppendSigned(b, s.Key) }) {
		e.stats.MapNotifyAcksSent++
	}
}

// recordKey is the EID-Prefix of a received record, masked.
func recordKey(r *lisp.EIDRecord) (mapcache.Key, bool) {
	iid, p, ok := r.Prefix()
	if !ok {
		return mapcache.Key{}, false
	}
	k, err := cleanKey(mapcache.Key{IID: iid, Prefix: p})
	return k, err == nil
}

package natt

import (
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// handleOldNotify takes a bare Map-Notify of a Map-Server that speaks Old. Where a
// key is shared it has an authentication record for the RTR behind it, which
// isn't passed on. It leaves Map-Notifies for others in the same process alone:
// those with neither that record nor the nonce of a Map-Register under way.
func (r *RTR) handleOldNotify(now time.Time, d lisp.Datagram) bool {
	server, ok := r.mapServer(d.Remote.Addr())
	if !ok || server.Variant != Old {
		return false
	}
	m := &r.notify
	if err := m.DecodeFromBytes(d.Bytes); err != nil {
		return false
	}
	record, has := m.RTRAuthentication()
	if _, found := r.match(server, m); !found && !has {
		return false
	}
	payload := d.Bytes
	switch {
	case len(server.Key.Secret) == 0 && r.cfg.RequireKey, len(server.Key.Secret) > 0 && !has:
		r.drop(now, RTRNotSecured, d.Remote, m.XTRID, "")
		return true
	case len(server.Key.Secret) > 0:
		if err := lisp.VerifyRTRAuthentication(d.Bytes, server.Key); err != nil {
			r.drop(now, RTRAuthentication, d.Remote, m.XTRID, err.Error())
			return true
		}
	}
	if has {
		payload = emptyRTRRecord(d.Bytes, record)
	}
	r.notified(now, d, server, lisp.Inner{
		Source:      netip.AddrPortFrom(server.Addr, lisp.ControlPort),
		Destination: netip.AddrPortFrom(d.Local.Addr(), lisp.ControlPort),
		Payload:     payload,
	}, nil)
	return true
}

// emptyRTRRecord returns a Map-Notify whose authentication record for the RTR has
// no key and no data.
func emptyRTRRecord(msg []byte, record lisp.Authentication) []byte {
	const fixed = 4 // Key ID, Algorithm ID, length
	end := len(msg) - len(record.Data) - fixed
	out := append([]byte(nil), msg[:end+fixed]...)
	clear(out[end:])
	return out
}

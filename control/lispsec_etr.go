package control

import (
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/mapcache"
)

// replySecurity is what an ETR protects a Map-Reply with (RFC 9303 §6.8).
type replySecurity struct {
	eidAD []byte // as it came; valid while the Map-Request is
	otk   lisp.OTK
	hmac  lisp.HMACID
}

// maxEIDAD bounds what a Map-Server can make us repeat in a Map-Reply.
const maxEIDAD = 512

// unwrapRequest takes the MS-OTK out of the Encapsulated Control Message in e.ecm
// that a Map-Request with nonce n came in. It is nil if the message is to be
// discarded; claimed is false when it may be for a Map-Server in this process.
func (e *Engine) unwrapRequest(now time.Time, d lisp.Datagram, n lisp.Nonce) (sec *replySecurity, claimed bool) {
	var s lisp.ECMSecurity
	if err := s.DecodeFromBytes(e.ecm.Security); err != nil || e.cfg.LISPSEC.NoETR {
		e.drop(now, DropSecured, d.Remote, n.String)
		return nil, true
	}
	if !s.EIDAD.Signed {
		// From an ITR: no Map-Server has seen it.
		e.drop(now, DropSecured, d.Remote, n.String)
		return nil, false
	}
	eidAD, err := e.ecm.EIDADBytes()
	if err != nil || len(eidAD) > maxEIDAD {
		e.drop(now, DropSecured, d.Remote, n.String)
		return nil, true
	}
	if s.Wrap == lisp.WrapNull && !e.cfg.LISPSEC.protectedPath(d.Remote.Addr()) {
		e.drop(now, DropUnprotectedPath, d.Remote, n.String)
		return nil, true
	}
	otk, err := e.unwrapOTK(&s, n)
	if err != nil {
		e.drop(now, DropAuthentication, d.Remote, err.Error)
		return nil, true
	}
	sec = &replySecurity{eidAD: eidAD, otk: otk, hmac: s.RequestedHMAC}
	if sec.hmac != lisp.HMACSHA1 {
		sec.hmac = lisp.HMACSHA256 // without preference, or one that we do not know
	}
	return sec, true
}

// unwrapOTK tries the keys shared with Map-Servers. A Map-Server may send from
// another address than the one that it is registered with.
func (e *Engine) unwrapOTK(s *lisp.ECMSecurity, n lisp.Nonce) (lisp.OTK, error) {
	if s.Wrap == lisp.WrapNull {
		return lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, n, nil)
	}
	err := lisp.ErrAuth
	for i := range e.cfg.MapServers {
		k := &e.cfg.MapServers[i].Key
		if k.ID != s.KeyID {
			continue
		}
		var otk lisp.OTK
		if otk, err = lisp.UnwrapOTK(s.Wrap, s.WrappedOTK, n, k.Secret); err == nil {
			return otk, nil
		}
	}
	return lisp.OTK{}, err
}

// overhead is what the authentication data adds to a Map-Reply.
func (s *replySecurity) overhead() int { return 4 + len(s.eidAD) + 4 + 16 }

// oneReply fits the answer for eid into a single Map-Reply, since a One-Time Key
// is good for one only. If the overlapping EID-Prefixes are too many for that,
// the answer is for the part around eid that has no more specific ones.
func (e *Engine) oneReply(records []lisp.EIDRecord, eid mapcache.Key, room int) []lisp.EIDRecord {
	if n := splitRecords(len(records), room, func(i int) int { return recordLen(&records[i]) }); n == len(records) {
		return records
	}
	addr := eid.Prefix.Addr()
	ent, ok := e.database.LookupEntry(eid.IID, addr)
	if !ok {
		return records[:1]
	}
	pos := e.dbPos[ent.Key]
	bits := ent.Prefix.Bits()
	for _, m := range e.db[pos+1:] {
		if m.IID != ent.IID || !ent.Prefix.Contains(m.Prefix.Addr()) {
			break
		}
		bits = max(bits, commonBits(addr, m.Prefix.Addr())+1)
	}
	rec := e.db[pos].record
	rec.MaskLen, rec.EID = uint8(bits), lisp.EIDAddress(eid.IID, netip.PrefixFrom(addr, bits).Masked().Addr())
	return []lisp.EIDRecord{rec}
}

// commonBits counts the leading bits that two addresses of one family share.
func commonBits(a, b netip.Addr) int {
	n := 0
	for n < a.BitLen() && netip.PrefixFrom(a, n+1).Contains(b) {
		n++
	}
	return n
}

package natt

import (
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// pendingKey is by what a Map-Notify is matched with the Map-Register that it
// answers.
type pendingKey struct {
	server netip.Addr
	nonce  lisp.Nonce
	xtr    lisp.XTRID
}

// attempt is a relayed Map-Register that no Map-Notify has come for. What it says
// changes nothing yet.
type attempt struct {
	key     pendingKey
	from    netip.AddrPort // the translated address and port
	own     netip.Addr     // where it came to
	ifIndex int
	local   netip.Addr // the node's own idea of its address
	eids    []eidKey
	useTTL  bool // T bit
	merge   bool // a bit
	expires time.Time
	settled bool
}

// handleRegister relays the Map-Register of a node to its Map-Server.
func (r *RTR) handleRegister(now time.Time, d lisp.Datagram, in lisp.Inner) {
	r.stats.Registers++
	m := &r.register
	if err := m.DecodeFromBytes(in.Payload); err != nil {
		r.drop(now, RTRMalformed, d.Remote, lisp.XTRID{}, err.Error())
		return
	}
	if !m.XTRIDPresent || m.XTRID == (lisp.XTRID{}) {
		// It is what tells the nodes apart.
		r.drop(now, RTRNoXTRID, d.Remote, lisp.XTRID{}, "")
		return
	}
	local := in.Source.Addr().Unmap()
	server, ok := r.mapServer(in.Destination.Addr())
	switch {
	case !ok || in.Destination.Port() != lisp.ControlPort:
		r.drop(now, RTRMapServerUnknown, d.Remote, m.XTRID, in.Destination.String())
		return
	case len(m.Records) == 0:
		r.drop(now, RTRMalformed, d.Remote, m.XTRID, "no records")
		return
	case !usable(local) || !usable(d.Remote.Addr()) || d.Remote.Port() == 0 || !d.Local.Addr().IsValid():
		r.drop(now, RTRMalformed, d.Remote, m.XTRID, "address")
		return
	}
	known := r.verifiedFrom(m.XTRID, m.Records, d.Remote)
	a := &attempt{
		key:  pendingKey{server: server.Addr, nonce: m.Nonce, xtr: m.XTRID},
		from: d.Remote, own: d.Local.Addr(), ifIndex: d.IfIndex, local: local,
		useTTL: m.UseTTL, merge: m.Merge, expires: now.Add(pendingTime),
	}
	switch {
	case !known && r.confirmed(m):
		r.drop(now, RTRReplay, d.Remote, m.XTRID, m.Nonce.String())
		return
	case !r.mayRelay(now, known, d.Remote.Addr()):
		r.drop(now, RTRRate, d.Remote, m.XTRID, "")
		return
	case !m.WantMapNotify:
		// Without a Map-Notify it stays unverified, so there is nothing to remember.
		r.stats.Unconfirmable++
	case !r.remember(now, a, m.Records):
		r.drop(now, RTRAmbiguous, d.Remote, m.XTRID, m.Nonce.String())
		return
	}
	r.relay(server, d, in)
}

// mayRelay takes a token. Nodes that have something verified are not hurt by a
// flood of others.
func (r *RTR) mayRelay(now time.Time, known bool, from netip.Addr) bool {
	if known {
		return r.known.allow(now)
	}
	return r.sources.allow(now, from) && r.unknown.allow(now)
}

// relay sends the Map-Register on as it came, in the form that the Map-Server
// understands.
func (r *RTR) relay(server *RTRMapServer, d lisp.Datagram, in lisp.Inner) {
	from, ifIndex := d.Local.Addr(), d.IfIndex
	if from.Is4() != server.Addr.Is4() {
		from, ifIndex = netip.Addr{}, 0
		if i := slices.IndexFunc(r.rlocs, func(a netip.Addr) bool { return a.Is4() == server.Addr.Is4() }); i >= 0 {
			from = r.rlocs[i]
		}
	}
	to := netip.AddrPortFrom(server.Addr, lisp.ControlPort)
	packet := r.ecm.Packet
	if r.send(from, to, ifIndex, func(b []byte) ([]byte, error) {
		if server.Variant == Old {
			return append(b, in.Payload...), nil
		}
		return (&lisp.EncapsulatedControl{Relayed: true, Packet: packet}).AppendBinary(b)
	}) {
		r.stats.Relayed++
	}
}

// remember keeps an attempt until its Map-Notify comes. A repetition from the
// same source is one with it; from other sources there are only so many.
func (r *RTR) remember(now time.Time, a *attempt, records []lisp.EIDRecord) bool {
	list := r.pending[a.key]
	for _, o := range list {
		if o.from == a.from && o.own == a.own && o.local == a.local {
			// One of them may be forged, so that only what both ask for counts. Its
			// time goes on from the first.
			o.useTTL, o.merge = o.useTTL && a.useTTL, o.merge && a.merge
			return true
		}
	}
	if len(list) >= maxAttempts {
		return false
	}
	a.eids = make([]eidKey, 0, len(records))
	for i := range records {
		if k, ok := recordEID(&records[i]); ok {
			a.eids = append(a.eids, k)
		}
	}
	for r.waiting > 0 && (r.waiting >= r.cfg.MaxPending || r.wanted+len(a.eids) > pendingEIDs*r.cfg.MaxPending) {
		r.forgetOldest(now, RTRPendingFull)
	}
	r.pending[a.key] = append(r.pending[a.key], a) // of which the oldest may have gone
	r.attempts = append(r.attempts, a)
	r.waiting++
	r.wanted += len(a.eids)
	return true
}

// settlePending gives up what waited for too long.
func (r *RTR) settlePending(now time.Time) {
	for a := r.oldest(); a != nil && !a.expires.After(now); a = r.oldest() {
		r.forgetOldest(now, RTRUnanswered)
	}
}

// oldest is the oldest attempt that is not settled. Those settled before it are
// dropped.
func (r *RTR) oldest() *attempt {
	for len(r.attempts) > 0 && r.attempts[0].settled {
		r.attempts[0] = nil
		r.attempts = r.attempts[1:]
	}
	if len(r.attempts) == 0 {
		return nil
	}
	return r.attempts[0]
}

// forgetOldest gives up the oldest attempt that is not settled.
func (r *RTR) forgetOldest(now time.Time, why RTRReason) {
	if a := r.oldest(); a != nil {
		r.settle(a)
		r.drop(now, why, a.from, a.key.xtr, a.key.server.String())
	}
}

// settle takes an attempt out of what Map-Notifies are matched with.
func (r *RTR) settle(a *attempt) {
	a.settled = true
	r.waiting--
	r.wanted -= len(a.eids)
	if len(r.attempts) > 2*r.waiting+squeezeAt {
		r.attempts = slices.DeleteFunc(r.attempts, func(o *attempt) bool { return o.settled })
	}
	list := slices.DeleteFunc(r.pending[a.key], func(o *attempt) bool { return o == a })
	if len(list) == 0 {
		delete(r.pending, a.key)
		return
	}
	r.pending[a.key] = list
}

func (r *RTR) pendingDeadline() time.Time {
	if a := r.oldest(); a != nil {
		return a.expires
	}
	return time.Time{}
}

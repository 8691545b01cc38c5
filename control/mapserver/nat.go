package mapserver

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
	"github.com/xtrkit/xtrkit/natt"
)

// NAT configures NAT traversal (draft-ermagan-lisp-nat-traversal-19 §5.2).
// Info-Requests that a site's key authenticates are always answered.
type NAT struct {
	// RTRs are told to nodes behind a NAT, in order, and are those that may relay
	// Map-Registers. Without any everybody may, and none are told.
	RTRs []RTR

	// TTL is for how long a node may keep the list of RTRs, default one hour.
	TTL time.Duration

	// LispersNet also answers the Info-Requests of lispers.net, which are not
	// authenticated, and tells of mappings with RTRs of priority 254 what
	// lispers.net tells: the RTRs get the node's own locators, others the RTRs, and
	// who asks by the N bit all. What a node behind a NAT asks, shown by its
	// Info-Requests, is asked in the server's name, and the answer passed on.
	LispersNet bool
}

// RTR is a Re-encapsulating Tunnel Router that relays for nodes behind NATs.
type RTR struct {
	Addr netip.Addr
	// Key is shared with the RTR and authenticates Map-Notifies to it. Without a
	// Secret there is none: then all that the RTR has to go by is their nonce.
	Key lisp.Key
}

// nat is NAT traversal as Workers read it.
type nat struct {
	info   *natt.Server
	rtrs   map[netip.Addr]lisp.Key
	askers *natAskers // nil without LispersNet
}

// compileNAT checks the configuration of NAT traversal.
func (d *draft) compileNAT(s *Server, cfg *NAT) error {
	d.nat.rtrs = make(map[netip.Addr]lisp.Key, len(cfg.RTRs))
	addrs := make([]netip.Addr, 0, len(cfg.RTRs))
	for _, r := range cfg.RTRs {
		a := r.Addr.Unmap()
		if _, twice := d.nat.rtrs[a]; twice || !s.worker.sendable(a, lisp.Datagram{Remote: netip.AddrPortFrom(a, 0)}) {
			return fmt.Errorf("%w: RTR %v", ErrConfig, r.Addr)
		}
		if _, err := (natt.Path{RTR: a, Local: a}).Append(nil, a, nil, r.Key); err != nil {
			return fmt.Errorf("%w: RTR %v: %w", ErrConfig, r.Addr, err)
		}
		d.nat.rtrs[a] = r.Key
		addrs = append(addrs, a)
	}
	for name, terms := range d.terms {
		for _, a := range terms.info.RTRs {
			if _, ok := d.nat.rtrs[a.Unmap()]; !ok {
				return fmt.Errorf("%w: site %q: RTR %v is not in NAT.RTRs", ErrConfig, name, a)
			}
		}
	}
	if cfg.LispersNet {
		if d.nat.askers = s.set().nat.askers; d.nat.askers == nil {
			d.nat.askers = &natAskers{seed: s.limits.seed}
		}
	}
	var err error
	if d.nat.info, err = natt.NewServer(natt.ServerConfig{
		Site: s.siteInfo, RTRs: addrs, TTL: cfg.TTL, LispersNet: cfg.LispersNet,
	}); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

// siteInfo finds whose EID-Prefix it is, for Info-Requests.
func (s *Server) siteInfo(iid uint32, eid netip.Prefix) (natt.SiteInfo, bool) {
	inst := s.set().instances[iid]
	if inst == nil {
		return natt.SiteInfo{}, false
	}
	_, sp, ok := inst.table().LookupPrefixLPM(eid)
	if !ok || sp.site == nil {
		return natt.SiteInfo{}, false
	}
	return sp.site.terms().info, true
}

// handleInfo answers an Info-Request to the control port. It reports whether the
// message was one.
func (w *Worker) handleInfo(d lisp.Datagram) bool {
	if d.Bytes[0]&0x08 != 0 || d.Local.Port() == lisp.DataPort {
		return false // an Info-Reply, or for an RTR of lispers.net
	}
	w.stats.infoRequests.Add(1)
	// Before any work: one that was seen on its way can be repeated from
	// elsewhere.
	if !w.s.limits.allow(w.ticks, d.Remote.Addr(), d.Remote.Addr()) {
		w.drop(ReasonRate, lisp.TypeInfo, d)
		return true
	}
	if !d.Local.Addr().IsValid() {
		d.Local = w.localFor(d.Remote.Addr(), d)
	}
	start := len(w.buf)
	b, a := w.set.nat.info.Answer(w.buf, d)
	if a.Reason != natt.ServerAnswered {
		w.refuseInfo(d, a)
		return true
	}
	w.buf = b
	w.stats.infoReplies.Add(1)
	if a.Host != "" {
		w.noteInfoSource(d.Remote)
	}
	w.send(netip.AddrPortFrom(d.Local.Addr(), lisp.ControlPort), d.Remote, d.IfIndex, start)
	w.event(func() Event {
		return InfoAnswered{Time: w.now, Site: a.Site, IID: a.IID, EID: a.EID, Host: a.Host, Global: d.Remote, RTRs: a.RTRs}
	})
	return true
}

// refuseInfo counts and tells why an Info-Request is not answered.
func (w *Worker) refuseInfo(d lisp.Datagram, a natt.InfoAnswer) {
	r := ReasonMalformed
	switch a.Reason {
	case natt.ServerEID:
		r = ReasonNotConfigured
	case natt.ServerKey:
		r = ReasonKey
	case natt.ServerAuthentication:
		r = ReasonAuth
	case natt.ServerVariant:
		r = ReasonVariant
	default:
	}
	w.stats.dropped[r].Add(1)
	refused := func() Refused {
		return Refused{Time: w.now, Info: true, Reason: r, Site: a.Site, IID: a.IID, EID: a.EID, From: d.Remote, Err: a.Err}
	}
	w.event(func() Event { return refused() })
	w.s.refused(w.ticks, refused)
	w.s.log.Debug("info-request refused", "peer", d.Remote, "reason", r.String(), "err", a.Err)
}

// handleRelayed takes a Map-Register that an RTR has relayed in an ECM.
func (w *Worker) handleRelayed(d lisp.Datagram, in lisp.Inner) {
	local := in.Source.Addr().Unmap()
	rtr := d.Remote.Addr()
	d.Bytes = in.Payload
	w.path = natt.Path{Variant: natt.Draft19, RTR: rtr, Local: local}
	if !w.admitRTR(rtr) {
		w.register = lisp.MapRegister{}
		w.refuse(ReasonRTR, nil, d, nil)
		return
	}
	w.handleRegister(d)
}

// admitRTR reports whether somebody may relay Map-Registers.
func (w *Worker) admitRTR(a netip.Addr) bool {
	_, ok := w.set.nat.rtrs[a]
	return ok || len(w.set.nat.rtrs) == 0
}

// relayedOld looks at the Map-Register in w.register for how early drafts relay
// one: it has the R bit and comes from an RTR as it is. It reports whether the
// message may go on.
func (w *Worker) relayedOld(d lisp.Datagram) bool {
	m := &w.register
	if m.RTR && m.XTRIDPresent && !w.path.IsValid() && len(w.set.nat.rtrs) > 0 {
		if !w.admitRTR(d.Remote.Addr()) {
			w.refuse(ReasonRTR, nil, d, nil)
			return false
		}
		w.path = natt.Path{Variant: natt.Old, RTR: d.Remote.Addr()}
	}
	if w.path.IsValid() && (!m.XTRIDPresent || m.XTRID == (lisp.XTRID{})) {
		// All nodes of an RTR would be one.
		w.refuse(ReasonNoXTRID, nil, d, nil)
		return false
	}
	return true
}

// wrap turns the Map-Notify that is in w.buf from start on, for a relayed
// Map-Register, into what the RTR takes.
func (w *Worker) wrap(d lisp.Datagram, start int) bool {
	w.scratch = append(w.scratch[:0], w.buf[start:]...)
	b, err := w.path.Append(w.buf[:start], d.Local.Addr(), w.scratch, w.set.nat.rtrs[w.path.RTR])
	if err != nil {
		// The node's own idea of its address may be anything.
		w.drop(ReasonMalformed, lisp.TypeMapNotify, d)
		w.buf = w.buf[:start]
		return false
	}
	w.buf = b
	return true
}

// notePath remembers by which RTR an xTR was heard of last. That it comes directly is
// no reason to forget it: it may have EID-Prefixes registered that still go by the RTR.
func (s *Server) notePath(x *xtrState, p natt.Path) {
	if !p.IsValid() || x.forgotten {
		return
	}
	if s.paths == nil {
		s.paths = make(map[*xtrState]natt.Path)
	}
	s.paths[x] = p
}

// pathTo is how a Map-Notify gets to addr, for the xTR of c; not known when it was
// loaded, and the xTR has not been heard of since.
func (s *Server) pathTo(c *claim, addr netip.Addr) (p natt.Path, ok bool) {
	if c.flags&flagRelayed == 0 {
		return natt.Path{}, true
	}
	p, ok = s.paths[c.xtr]
	if _, rtr := s.set().nat.rtrs[addr]; rtr && ok {
		p.RTR = addr
	} else if ok && p.RTR != addr {
		p = natt.Path{} // another interface of it, which is behind no NAT
	}
	return p, ok
}

// announced are the locators of a claim that others are told. Those that a node
// behind a NAT registers as not reachable are its own idea of its addresses: they
// are for its RTR (draft §5.1.1), and somebody else's anywhere else.
func (c *claim) announced(ls []lisp.RLOCRecord) []lisp.RLOCRecord {
	private := func(l lisp.RLOCRecord) bool { return !l.Reachable }
	if c.flags&flagRelayed == 0 || !slices.ContainsFunc(ls, private) {
		return ls
	}
	return slices.DeleteFunc(slices.Clone(ls), private)
}

// unsolicitedMessage is a Map-Notify as its receiver gets it.
func (s *Server) unsolicitedMessage(p *notifyPeer, m *lisp.MapNotify, key lisp.Key) ([]byte, error) {
	shared := s.set().nat.rtrs[p.path.RTR]
	m.RTRAuth = p.path.IsValid() && p.path.Variant == natt.Old && len(shared.Secret) > 0
	b, err := m.AppendSigned(nil, key)
	if err != nil || !p.path.IsValid() {
		return b, err
	}
	return p.path.Append(nil, s.notifyLocal(p).Addr(), b, shared)
}

package mapserver

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// Health checks of Map-Servers. One that leaves a check unanswered is doubtful;
// after healthMisses in a row it is down.
const (
	DefaultHealthInterval = 10 * time.Second
	healthTimeout         = 3 * time.Second
	healthMisses          = 3
)

// ResolverEntry says which Map-Servers know the EIDs in Prefix: the server is a
// Map-Resolver for them and forwards Map-Requests unaltered (RFC 9301 §8.4).
//
// The Map-Servers are tried in order. What they answer goes to the ITR and not
// by way of the Map-Resolver, which therefore checks them itself: see
// Config.HealthInterval.
type ResolverEntry struct {
	IID        uint32 // instance ID, 0..0xffffff
	Prefix     netip.Prefix
	MapServers []netip.AddrPort // in order of preference
}

// Health is what is known of a Map-Server.
type Health uint8

// Values of Health.
const (
	HealthUp       Health = iota // answered the last check, or is not checked
	HealthDoubtful               // left one or two checks unanswered
	HealthDown                   // left three or more unanswered
)

func (h Health) String() string {
	switch h {
	case HealthUp:
		return "up"
	case HealthDoubtful:
		return "doubtful"
	case HealthDown:
		return "down"
	}
	return fmt.Sprintf("health %d", uint8(h))
}

// MapServerStatus is a Map-Server of the resolver's table.
type MapServerStatus struct {
	Addr   netip.AddrPort
	Health Health
}

// upstream is a Map-Server of the resolver's table. The writer checks it, and
// Workers read its health.
type upstream struct {
	addr   netip.AddrPort
	health atomic.Uint32

	// The writer's.
	iid     uint32 // where to ask
	eid     netip.Addr
	checked bool   // there is an alternative to it somewhere
	nonce   uint64 // of the check under way; 0: none is
	misses  int
	at      int64 // ticks of the next step
}

// healthCheck is a check under way, as Workers see it. It is immutable.
type healthCheck struct {
	to    *upstream
	nonce uint64
}

// compileResolver adds the resolver's table to those of the instances.
func (d *draft) compileResolver(cfg *Config) error {
	known := make(map[netip.AddrPort]*upstream)
	for _, e := range cfg.Resolver {
		if !e.Prefix.IsValid() || e.Prefix.Addr().Is4In6() || e.IID > 0xffffff {
			return fmt.Errorf("%w: resolver: EID-Prefix [%d]%v", ErrConfig, e.IID, e.Prefix)
		}
		if len(e.MapServers) == 0 {
			return fmt.Errorf("%w: resolver: no Map-Server for [%d]%v", ErrConfig, e.IID, e.Prefix)
		}
		sp := &sitePrefix{}
		for _, a := range e.MapServers {
			a = unmap(a)
			if !a.Addr().IsValid() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Port() == 0 || slices.Contains(cfg.Locals, a.Addr()) {
				return fmt.Errorf("%w: resolver: Map-Server %v of [%d]%v", ErrConfig, a, e.IID, e.Prefix)
			}
			u := known[a]
			if u == nil {
				u = &upstream{addr: a, iid: e.IID, eid: netip.IPv4Unspecified()}
				if e.Prefix.Addr().Is6() {
					u.eid = netip.IPv6Unspecified()
				}
				known[a] = u
				d.upstreams = append(d.upstreams, u)
			}
			u.checked = u.checked || len(e.MapServers) > 1
			sp.servers = append(sp.servers, u)
		}
		t := d.table(e.IID)
		p := e.Prefix.Masked()
		if _, ok := t.Get(p); ok {
			return fmt.Errorf("%w: EID-Prefix [%d]%v is configured twice", ErrConfig, e.IID, p)
		}
		t.Insert(p, sp)
	}
	return nil
}

// MapServers lists the Map-Servers of the resolver's table in the order of the
// configuration. Safe for concurrent use.
func (s *Server) MapServers() []MapServerStatus {
	all := make([]MapServerStatus, 0, len(s.set().upstreams))
	for _, u := range s.set().upstreams {
		all = append(all, MapServerStatus{Addr: u.addr, Health: Health(u.health.Load())})
	}
	return all
}

// chooseServer picks the first Map-Server that is up. When a better one is
// doubtful, or all are down, the nonce chooses among the equally good: an ITR
// that repeats its request, with a new nonce, comes to another one.
func (w *Worker) chooseServer(d lisp.Datagram, nonce uint64, us []*upstream) (*upstream, bool) {
	w.upstreams = w.upstreams[:0]
	up := false
	for _, u := range us {
		// What comes from a Map-Server doesn't go back to it.
		if u.addr == d.Remote || u.addr.Addr() == d.Local.Addr() || !w.sendable(u.addr.Addr(), d) {
			continue
		}
		switch h := Health(u.health.Load()); {
		case h == HealthDown:
			continue
		case h == HealthUp && len(w.upstreams) == 0:
			return u, true
		case h == HealthUp:
			up = true
		}
		w.upstreams = append(w.upstreams, u)
		if up {
			break
		}
	}
	if len(w.upstreams) == 0 {
		for _, u := range us {
			if u.addr != d.Remote && u.addr.Addr() != d.Local.Addr() && w.sendable(u.addr.Addr(), d) {
				w.upstreams = append(w.upstreams, u)
			}
		}
	}
	if len(w.upstreams) == 0 {
		return nil, false
	}
	return w.upstreams[mix(nonce)%uint64(len(w.upstreams))], true
}

// sameServers finds the Map-Servers that all records of a request belong to.
// mixed says that some belong to others: such a request can't be forwarded,
// for its receiver would answer negatively for what isn't his.
func (w *Worker) sameServers(m *lisp.MapRequest) (us []*upstream, mixed bool) {
	if len(w.set.upstreams) == 0 {
		return nil, false
	}
	for i := range m.Records {
		var found []*upstream
		if iid, p, ok := m.Records[i].Prefix(); ok && !p.Addr().Is4In6() {
			found = w.lookup(iid, p.Masked()).servers
		}
		if i == 0 {
			us = found
		}
		mixed = mixed || !slices.Equal(us, found)
	}
	return us, mixed
}

// resolveElsewhere forwards a request to one of the Map-Servers.
func (w *Worker) resolveElsewhere(d lisp.Datagram, m *lisp.MapRequest, us []*upstream) {
	u, ok := w.chooseServer(d, uint64(m.Nonce), us)
	if !ok {
		w.drop(ReasonNoRLOC, lisp.TypeMapRequest, d)
		return
	}
	security, ok := w.passOn(d, m.Nonce, u.addr)
	if !ok || !w.forwardTo(d, security, u.addr) {
		return
	}
	w.event(func() Event {
		iid, asked, _ := m.Records[0].Prefix()
		return Forwarded{Time: w.now, IID: iid, Asked: asked, From: d.Remote, To: u.addr}
	})
}

// checkHealth takes the next step of every health check whose time has come.
func (s *Server) checkHealth(now time.Time, ticks int64) {
	if ticks < s.healthAt {
		return
	}
	s.healthAt = math.MaxInt64
	for _, u := range s.set().upstreams {
		if !u.checked {
			continue
		}
		if u.at <= ticks {
			s.checkUpstream(now, ticks, u)
		}
		s.healthAt = min(s.healthAt, u.at)
	}
}

func (s *Server) checkUpstream(now time.Time, ticks int64, u *upstream) {
	if u.nonce != 0 {
		s.checks.Delete(u.nonce)
		u.nonce = 0
		if u.misses++; u.misses < healthMisses {
			s.setHealth(now, u, HealthDoubtful)
		} else {
			s.setHealth(now, u, HealthDown)
			if u.misses > healthMisses {
				u.misses = healthMisses
				u.at = ticks + int64(s.cfg.HealthInterval)
				return
			}
		}
	}
	u.at = ticks + int64(healthTimeout)
	var nonce [8]byte
	if _, err := io.ReadFull(s.cfg.Rand, nonce[:]); err != nil {
		return
	}
	local, ok := s.localOf(u.addr.Addr())
	if !ok {
		u.at = math.MaxInt64 // there is no address that it could answer to
		return
	}
	u.nonce = max(binary.BigEndian.Uint64(nonce[:]), 1)
	b, err := healthRequest(u, local)
	if err != nil {
		s.log.Error("cannot make a map-request", "err", err)
		return
	}
	s.checks.Store(u.nonce, &healthCheck{to: u, nonce: u.nonce})
	s.enqueue(lisp.Datagram{Local: netip.AddrPortFrom(local, lisp.ControlPort), Remote: u.addr, Bytes: b})
}

func (s *Server) localOf(to netip.Addr) (netip.Addr, bool) {
	for _, l := range s.locals {
		if l.Is4() == to.Is4() {
			return l, true
		}
	}
	return netip.Addr{}, false
}

// healthRequest asks for the unspecified address, which is nobody's EID: the
// Map-Server answers by itself, negatively.
func healthRequest(u *upstream, local netip.Addr) ([]byte, error) {
	m := lisp.MapRequest{
		Nonce: lisp.Nonce(u.nonce), ITRRLOCs: []lisp.Address{lisp.AddressFrom(local)},
		Records: []lisp.RequestRecord{{MaskLen: uint8(u.eid.BitLen()), EID: lisp.EIDAddress(u.iid, u.eid)}},
	}
	payload, err := m.MarshalBinary()
	if err != nil {
		return nil, err
	}
	to := u.addr.Addr()
	packet, err := lisp.AppendInner(nil, lisp.Inner{
		Source: netip.AddrPortFrom(local, lisp.ControlPort), Destination: netip.AddrPortFrom(to, lisp.ControlPort), Payload: payload,
	})
	if err != nil {
		return nil, err
	}
	return (&lisp.EncapsulatedControl{Packet: packet}).MarshalBinary()
}

// handleMapReply takes the answer to a health check. Any other Map-Reply is
// unexpected: nobody here asked (RFC 9301 §8.3).
func (w *Worker) handleMapReply(d lisp.Datagram) bool {
	const end = 12 // of the nonce
	if len(d.Bytes) >= end {
		if c, ok := w.s.checks.Load(binary.BigEndian.Uint64(d.Bytes[end-8:])); ok {
			w.result.Update = &Update{Urgent: true, from: d.Remote, healthy: c.(*healthCheck)}
			return true
		}
	}
	if w.passReply(d) {
		return true
	}
	w.drop(ReasonUnexpected, lisp.TypeMapReply, d)
	return false
}

// answered ends a health check.
func (s *Server) answered(now time.Time, ticks int64, c *healthCheck) {
	u := c.to
	if u.nonce != c.nonce {
		return // it came twice, or too late
	}
	s.checks.Delete(u.nonce)
	u.nonce, u.misses = 0, 0
	u.at = ticks + int64(s.cfg.HealthInterval)
	s.healthAt = min(s.healthAt, u.at)
	s.setHealth(now, u, HealthUp)
}

func (s *Server) setHealth(now time.Time, u *upstream, h Health) {
	old := Health(u.health.Swap(uint32(h)))
	if old == h || h == HealthDoubtful || old == HealthDoubtful && h == HealthUp {
		return
	}
	s.log.Info("map-server", "map_server", u.addr, "health", h.String())
	s.addEvent(MapServerHealth{Time: now, Addr: u.addr, Health: h})
}

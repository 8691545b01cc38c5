package mapserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// ErrDelta is wrapped by the errors about a Delta: it is malformed, does not
// fit the configured sites, or there is no room for it.
var ErrDelta = errors.New("mapserver: delta not usable")

// Delta is one accepted change: what one xTR has registered for one EID-Prefix.
// Deltas may be merged in any order and repeatedly. The pair (Content,
// ContentOrigin) orders the content of the registration, the pair (Seq, Origin)
// its stamps, and of each the greatest wins.
type Delta struct {
	// Seq is a hybrid clock: nanoseconds since 1970, or one more than the largest
	// value seen. Origin is the ID of the server that accepted the change.
	Seq, Origin uint64

	Site string
	IID  uint32
	EID  netip.Prefix

	// XTRID and SiteID say who registered; without an XTRID it is From.
	XTRID  lisp.XTRID
	SiteID lisp.SiteID

	// Content of the registration. In a refresh, which has no Record, only the
	// order is given.
	Content, ContentOrigin uint64
	From                   netip.Addr // source of the Map-Register
	KeyID                  uint8
	Algorithm              lisp.Algorithm
	ProxyReply             bool
	SecurityCapable        bool
	UseTTL                 bool
	Merge                  bool
	MobileNode             bool
	Relayed                bool   // by an RTR, which is From
	Record                 []byte // the EID-Record in wire format, as it came; Record TTL 0 withdraws

	// Stamps.
	Nonce    lisp.Nonce
	NonceRun uint8     // how many nonces in a row were each a little more than the last, at most 10
	Seen     time.Time // when the Map-Register was accepted
	Expiry   time.Time
}

// EIDRecord decodes Record.
func (d *Delta) EIDRecord() (lisp.EIDRecord, error) {
	var decoder recordDecoder
	r, err := decoder.decode(string(d.Record))
	if err != nil {
		return lisp.EIDRecord{}, fmt.Errorf("%w: record: %w", ErrDelta, err)
	}
	return *r, nil
}

// String prints what was registered by whom.
func (d Delta) String() string {
	who := d.From.String()
	if d.XTRID != (lisp.XTRID{}) {
		who = "xTR-ID " + d.XTRID.String()
	}
	what := "refresh"
	if len(d.Record) > 0 {
		what = fmt.Sprintf("%d octets", len(d.Record))
	}
	return fmt.Sprintf("delta %d of %s by %s: %s", d.Seq, eidString(d.IID, d.EID), who, what)
}

// delta describes a claim.
func (s *Server) delta(c *claim, content bool) Delta {
	d := Delta{
		Seq: c.stamp.seq, Origin: c.stamp.origin, Site: c.site.name, IID: c.key.inst.iid, EID: c.key.prefix,
		XTRID: c.holder().xtr, SiteID: c.holder().site, From: c.from, KeyID: c.keyID, Algorithm: c.algorithm,
		Content: c.content.seq, ContentOrigin: c.content.origin,
		Nonce: lisp.Nonce(c.nonce.Load()), Seen: s.fromTicks(c.seen.Load()), Expiry: s.fromTicks(c.expires.Load()),
	}
	if x := c.xtr; x != nil {
		d.KeyID, d.Algorithm, d.NonceRun = x.keyID, x.algorithm, x.run
	}
	if content {
		d.ProxyReply, d.SecurityCapable = c.flags&flagProxy != 0, c.flags&flagSecurity != 0
		d.UseTTL, d.Merge, d.MobileNode = c.flags&flagUseTTL != 0, c.merge(), c.flags&flagMobile != 0
		d.Relayed = c.flags&flagRelayed != 0
		d.Record = []byte(c.record)
	}
	return d
}

// record journals a change made here.
func (s *Server) record(c *claim, content bool) {
	switch {
	case s.cfg.Journal <= 0:
	case len(s.journal) >= s.cfg.Journal:
		s.journalLost = true
	default:
		s.journal = append(s.journal, s.delta(c, content))
	}
}

// Changes returns the changes accepted here since the last call, in order. It
// needs Config.Journal. When that was too small some are missing and complete
// is false: a Snapshot makes up for them.
func (s *Server) Changes() (changes []Delta, complete bool) {
	changes, complete = s.journal, !s.journalLost
	s.journal, s.journalLost = nil, false
	return changes, complete
}

// Snapshot yields the whole state, as of the calls to Next of the iterator, in
// the order of instance and EID-Prefix. The Server must not be used meanwhile.
func (s *Server) Snapshot() iter.Seq[Delta] {
	return func(yield func(Delta) bool) {
		for _, iid := range slices.Sorted(maps.Keys(s.set().instances)) {
			inst := s.set().instances[iid]
			for r := range inst.all() {
				for _, c := range r.claims() {
					if !yield(s.delta(c, true)) {
						return
					}
				}
			}
		}
	}
}

// all yields the registrations, live or not, in the order of their EID-Prefixes.
func (inst *instance) all() iter.Seq[*registration] {
	return func(yield func(*registration) bool) {
		next, stop := iter.Pull2(inst.dead.All())
		defer stop()
		p, dead, more := next()
		for q, live := range inst.regs.All() {
			for ; more && p.Compare(q) < 0; p, dead, more = next() {
				if !yield(dead) {
					return
				}
			}
			if !yield(live) {
				return
			}
		}
		for ; more; _, dead, more = next() {
			if !yield(dead) {
				return
			}
		}
	}
}

// Merge brings in a change accepted elsewhere or earlier. The newest wins:
// Deltas may come in any order and more than once. It reports whether d changed
// anything. What has expired is kept for five minutes, so a Delta that is
// later than that may bring back a registration until its own expiry.
//
// Merged changes are not repeated by Changes. The error wraps ErrDelta.
func (s *Server) Merge(now time.Time, d Delta) (bool, error) {
	ticks := s.toTicks(now)
	st := s.set().sites[d.Site]
	if st == nil {
		return false, fmt.Errorf("%w: no site %q", ErrDelta, d.Site)
	}
	if !d.EID.IsValid() || d.EID != d.EID.Masked() {
		return false, fmt.Errorf("%w: EID-Prefix %v", ErrDelta, d.EID)
	}
	inst := s.set().instances[d.IID]
	if sp, ok := inst.siteOf(d.EID); !ok || sp.site != st {
		return false, fmt.Errorf("%w: %s is not of site %q", ErrDelta, eidString(d.IID, d.EID), d.Site)
	}
	ch := claimChange{
		key: regKey{inst, d.EID}, site: st, from: netip.AddrPortFrom(d.From, 0), keyID: d.KeyID, algorithm: d.Algorithm,
		record: d.Record, content: order{d.Content, d.ContentOrigin}, stamp: order{d.Seq, d.Origin},
		nonce: uint64(d.Nonce), expires: s.toTicks(d.Expiry), seen: s.toTicks(d.Seen),
	}
	if len(d.Record) > 0 {
		r, err := d.EIDRecord()
		if err != nil {
			return false, err
		}
		if iid, p, ok := r.Prefix(); !ok || iid != d.IID || p.Masked() != d.EID {
			return false, fmt.Errorf("%w: record is for %s", ErrDelta, r.EID)
		}
	}
	for _, f := range [...]struct {
		set bool
		bit uint8
	}{
		{d.ProxyReply, flagProxy},
		{d.SecurityCapable, flagSecurity},
		{d.UseTTL, flagUseTTL},
		{d.Merge, flagMerge},
		{d.MobileNode, flagMobile},
		{d.Relayed, flagRelayed},
	} {
		if f.set {
			ch.flags |= f.bit
		}
	}
	xk := xtrKey{site: st, keyID: d.KeyID}
	if d.XTRID != (lisp.XTRID{}) {
		ch.holder = holder{xtr: d.XTRID, site: d.SiteID}
		xk.xtr, xk.siteID = d.XTRID, d.SiteID
	} else {
		ch.holder = holder{addr: d.From}
	}
	r := s.get(ch.key)
	if (r == nil || r.find(ch.holder) == nil) && s.full(s.claimCount) {
		return false, fmt.Errorf("%w: registration limit", ErrDelta)
	}
	x := s.findXTR(xk)
	if x == nil {
		if s.full(s.xtrs.len()) {
			return false, fmt.Errorf("%w: xTR limit", ErrDelta)
		}
		x = newXTR(xk)
		s.keepXTR(x)
	}
	if ch.stamp.compare(x.stamp) > 0 {
		x.stamp = ch.stamp
		x.known, x.run, x.algorithm = true, min(d.NonceRun, countingRun), d.Algorithm
		x.unordered = x.unordered || uint64(d.Nonce) < x.nonce.Load()
		x.seen = max(x.seen, ch.seen)
		x.nonce.Store(uint64(d.Nonce))
	}
	s.clock = max(s.clock, d.Seq, d.Content)
	ch.xtr = x
	changed := s.mergeClaim(now, ticks, &ch, false)
	if x.claims == 0 && !x.enforced(x.algorithm) {
		s.forgetXTR(x)
	}
	return changed, nil
}

// Flags of the binary form.
const (
	deltaProxy = 1 << iota
	deltaSecurity
	deltaUseTTL
	deltaMerge
	deltaMobile
	deltaRelayed
)

// AppendBinary appends the form that Save writes, without its frame.
func (d *Delta) AppendBinary(b []byte) ([]byte, error) {
	if !d.EID.IsValid() || len(d.Site) > 0xffff {
		return b, fmt.Errorf("%w: cannot encode %s", ErrDelta, d)
	}
	for _, v := range [...]uint64{d.Seq, d.Origin, d.Content, d.ContentOrigin, uint64(d.Nonce), uint64(d.SiteID)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	for _, t := range [...]time.Time{d.Seen, d.Expiry} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixNano()))
	}
	b = append(b, d.XTRID[:]...)
	b = binary.BigEndian.AppendUint32(b, d.IID)
	var flags byte
	for i, f := range [...]bool{d.ProxyReply, d.SecurityCapable, d.UseTTL, d.Merge, d.MobileNode, d.Relayed} {
		if f {
			flags |= 1 << i
		}
	}
	b = append(b, flags, d.KeyID, byte(d.Algorithm), d.NonceRun, byte(d.EID.Bits()))
	for _, part := range [...][]byte{d.EID.Addr().AsSlice(), d.From.AsSlice(), []byte(d.Site), d.Record} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b, nil
}

// MarshalBinary returns what AppendBinary appends.
func (d *Delta) MarshalBinary() ([]byte, error) { return d.AppendBinary(nil) }

// UnmarshalBinary decodes what AppendBinary made. It copies.
func (d *Delta) UnmarshalBinary(b []byte) error {
	const fixed = 8*8 + 16 + 4 + 5
	if len(b) < fixed {
		return fmt.Errorf("%w: truncated", ErrDelta)
	}
	u64 := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	n := Delta{
		Seq: u64(0), Origin: u64(1), Content: u64(2), ContentOrigin: u64(3), Nonce: lisp.Nonce(u64(4)), SiteID: lisp.SiteID(u64(5)),
		Seen: time.Unix(0, int64(u64(6))), Expiry: time.Unix(0, int64(u64(7))),
		XTRID: lisp.XTRID(b[64:80]), IID: binary.BigEndian.Uint32(b[80:]),
	}
	flags := b[84]
	n.ProxyReply, n.SecurityCapable = flags&deltaProxy != 0, flags&deltaSecurity != 0
	n.UseTTL, n.Merge, n.MobileNode = flags&deltaUseTTL != 0, flags&deltaMerge != 0, flags&deltaMobile != 0
	n.Relayed = flags&deltaRelayed != 0
	n.KeyID, n.Algorithm, n.NonceRun = b[85], lisp.Algorithm(b[86]), b[87]
	bits := int(b[88])
	b = b[fixed:]
	var parts [4][]byte
	for i := range parts {
		l, k := binary.Uvarint(b)
		if k <= 0 || l > uint64(len(b)-k) {
			return fmt.Errorf("%w: truncated", ErrDelta)
		}
		parts[i], b = b[k:k+int(l)], b[k+int(l):]
	}
	eid, ok := netip.AddrFromSlice(parts[0])
	if !ok || bits > eid.BitLen() || len(b) > 0 {
		return fmt.Errorf("%w: EID-Prefix or length", ErrDelta)
	}
	n.EID = netip.PrefixFrom(eid, bits)
	if len(parts[1]) > 0 {
		if n.From, ok = netip.AddrFromSlice(parts[1]); !ok {
			return fmt.Errorf("%w: source address", ErrDelta)
		}
	}
	n.Site = string(parts[2])
	n.Record = append([]byte(nil), parts[3]...)
	*d = n
	return nil
}

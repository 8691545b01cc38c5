package mapserver

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"

	"github.com/xtrkit/xtrkit/lisp"
)

// Nearly all Map-Registers repeat what is registered, every minute each. Those
// are recognised by their octets, verified and acknowledged here without being
// taken apart and without allocation. Whatever is unusual about one leaves it to
// handleRegister, which comes to the same for the plain ones.

const (
	authOffset   = 16         // of the Authentication Data in a Map-Register
	identityLen  = 16 + 8     // xTR-ID and Site-ID
	eidOffset    = 10         // of the EID-Prefix-AFI in an EID-Record
	maxAuthCache = 1 << 10    // keys that a Worker keeps the state of
	recentSlots  = 1 << 8     // refreshes under way to the writer that a Worker remembers
	flagI        = 0x02000000 // of a Map-Register; the following too
	flagM        = 0x00000100
	flagsUnusual = 0x01fff000 // what this path leaves to the other
)

// pendingRefresh is the last nonce of an xTR that a Worker passed as new.
type pendingRefresh struct {
	xtr   *xtrState
	nonce uint64
}

// updatePool recycles the Updates of refreshes: the writer puts them back.
type updatePool struct{ pool sync.Pool }

func (p *updatePool) get() *Update {
	if u, ok := p.pool.Get().(*Update); ok {
		return u
	}
	return &Update{recycled: true}
}

func (p *updatePool) put(u *Update) {
	clear(u.refresh)
	*u = Update{recycled: true, refresh: u.refresh[:0]}
	p.pool.Put(u)
}

// handleRefresh does all for a Map-Register that only refreshes, and tells
// whether it was one.
func (w *Worker) handleRefresh(d lisp.Datagram) bool {
	b := d.Bytes
	if len(b) < authOffset {
		return false
	}
	word := binary.BigEndian.Uint32(b)
	records, end := b[authOffset:], len(b)
	authLen := int(binary.BigEndian.Uint16(b[authOffset-2:]))
	if word&flagsUnusual != 0 || authLen < 8 || authLen > len(records) {
		return false
	}
	who := holder{addr: d.Remote.Addr()}
	if word&flagI != 0 {
		end -= identityLen
		if end < authOffset+authLen {
			return false
		}
		who = holder{xtr: lisp.XTRID(b[end : end+16]), site: lisp.SiteID(binary.BigEndian.Uint64(b[end+16:]))}
		if who.xtr == (lisp.XTRID{}) {
			return false
		}
	}
	u := w.s.updates.get()
	u.from, u.holder, u.set = d.Remote, who, w.set
	u.nonce = binary.BigEndian.Uint64(b[4:])
	u.algorithm, u.xtr.keyID = lisp.Algorithm(b[13]), b[12]
	u.flags = registerFlags(word)
	if u.path = w.path; u.path.IsValid() {
		u.flags |= flagRelayed
	}
	u.fingerprint = binary.BigEndian.Uint64(b[authOffset:]) ^ u.nonce
	if !w.sameRecords(u, b[authOffset+authLen:end], int(word&0xff)) || !w.verified(u, b) {
		w.s.updates.put(u)
		return false
	}
	w.stats.registers.Add(1)
	w.result.Update = u
	if word&flagM != 0 {
		w.acknowledge(u, d)
	}
	return true
}

// registerFlags are the flags of a claim from the first word of a Map-Register.
func registerFlags(word uint32) (flags uint8) {
	for _, f := range [...]struct {
		wire uint32
		flag uint8
	}{{0x08000000, flagProxy}, {0x04000000, flagSecurity}, {0x00000800, flagUseTTL}, {0x00000400, flagMerge}, {0x00000200, flagMobile}} {
		if word&f.wire != 0 {
			flags |= f.flag
		}
	}
	return flags
}

// sameRecords finds the claims that u refreshes, as Worker.unchanged does, by
// the records' octets: an encoded record says itself where it ends.
func (w *Worker) sameRecords(u *Update, b []byte, n int) bool {
	if n == 0 {
		return false
	}
	var site *site
	for range n {
		inst, p, ok := w.recordPrefix(b)
		if !ok {
			return false
		}
		r, ok := inst.regs.Get(p)
		if !ok {
			return false
		}
		c := r.find(u.holder)
		if c == nil || len(c.record) == 0 || len(b) < len(c.record) || string(b[:len(c.record)]) != c.record || !c.sameTerms(u) || u.nonce <= c.xtr.nonce.Load() {
			return false
		}
		if site == nil {
			site = c.site
			u.xtr = c.xtr.key()
			u.assoc = c.xtr
		}
		if c.site != site || c.xtr != u.assoc || !w.isCurrent(r, c) {
			return false
		}
		u.refresh = append(u.refresh, c)
		b = b[len(c.record):]
	}
	return len(b) == 0
}

func (w *Worker) isCurrent(r *registration, c *claim) bool {
	if len(r.claims()) == 1 {
		return c.live(w.ticks)
	}
	w.claims = r.current(w.ticks, w.claims[:0])
	return slices.Contains(w.claims, c)
}

// recordPrefix is the EID-Prefix at the start of an encoded record.
func (w *Worker) recordPrefix(b []byte) (*instance, netip.Prefix, bool) {
	const ipv4Len, ipv6Len = 2 + 4, 2 + 16
	if len(b) < eidOffset+ipv4Len {
		return nil, netip.Prefix{}, false
	}
	length := int(b[5])
	b = b[eidOffset:]
	iid := uint32(0)
	if lisp.AFI(binary.BigEndian.Uint16(b)) == lisp.AFILCAF {
		// AFI, two reserved octets, type, IID mask-len, length, instance ID, address
		if len(b) < 12+ipv4Len || b[2]|b[3] != 0 || lisp.LCAFType(b[4]) != lisp.LCAFInstanceID {
			return nil, netip.Prefix{}, false
		}
		iid = binary.BigEndian.Uint32(b[8:])
		b = b[12:]
	}
	var a netip.Addr
	switch lisp.AFI(binary.BigEndian.Uint16(b)) {
	case lisp.AFIIPv4:
		a = netip.AddrFrom4([4]byte(b[2:ipv4Len]))
	case lisp.AFIIPv6:
		if len(b) < ipv6Len {
			return nil, netip.Prefix{}, false
		}
		a = netip.AddrFrom16([16]byte(b[2:ipv6Len]))
	default:
	}
	inst := w.set.instances[iid]
	if inst == nil || !a.IsValid() || length > a.BitLen() {
		return nil, netip.Prefix{}, false
	}
	return inst, netip.PrefixFrom(a, length).Masked(), true
}

// verified checks the digest over the whole message, and that the nonce is not
// that of a refresh that the writer has yet to hear of.
func (w *Worker) verified(u *Update, msg []byte) bool {
	slot := &w.pending[mix(u.nonce)%recentSlots]
	a := w.authenticator(u)
	if a == nil || a.Verify(msg) != nil {
		return false
	}
	if slot.xtr == u.assoc && slot.nonce == u.nonce {
		return false
	}
	*slot = pendingRefresh{u.assoc, u.nonce}
	return true
}

// authenticator is the key of u as the Worker keeps it.
func (w *Worker) authenticator(u *Update) *lisp.Authenticator {
	keys := u.refresh[0].site.terms().keys // Reconfigure may replace them meanwhile
	for i := range keys {
		k := &keys[i]
		if k.ID != u.xtr.keyID || k.Algorithm != u.algorithm {
			continue
		}
		a := w.auth[k]
		if a == nil {
			if len(w.auth) >= maxAuthCache {
				clear(w.auth)
			}
			strict := *k
			strict.StrictTrailer = true // the whole message is all that is tried here
			a = lisp.NewAuthenticator(strict)
			w.auth[k] = a
		}
		return a
	}
	return nil
}

// acknowledge sends the Map-Notify: the octets of the Map-Register but for the
// first word and the digest (RFC 9301 §5.7).
func (w *Worker) acknowledge(u *Update, d lisp.Datagram) {
	start := len(w.buf)
	w.buf = append(w.buf, d.Bytes...)
	msg := w.buf[start:]
	word := uint32(lisp.TypeMapNotify)<<28 | uint32(msg[3])
	if u.holder.xtr != (lisp.XTRID{}) {
		word |= 0x08000000 // I
	}
	binary.BigEndian.PutUint32(msg, word)
	a := w.authenticator(u)
	if a == nil {
		w.buf = w.buf[:start]
		return // the key has just gone from the configuration
	}
	if err := a.Sign(msg); err != nil {
		w.s.log.Error("cannot sign map-notify", "err", err)
		w.buf = w.buf[:start]
		return
	}
	local, remote := notifyPath(d)
	if w.path.IsValid() {
		if !w.wrap(d, start) {
			return
		}
		remote = w.path.Destination()
	}
	w.stats.notifies.Add(1)
	w.send(local, remote, d.IfIndex, start)
}

// association is the xTR that u is of; nil when it is not known.
func (s *Server) association(u *Update) *xtrState {
	if u.assoc != nil && !u.assoc.forgotten {
		return u.assoc
	}
	return s.findXTR(u.xtr)
}

package natt

import (
	"net/netip"
	"time"

	"github.com/xtrkit/xtrkit/lisp"
)

// What lispers.net does at an RTR: xTRs send Info-Requests with their host name to
// the data port every 15 s, and the RTR notes where they come from. Mappings name
// the host beside its global address.

const (
	nameTimeout  = 30 * time.Second // twice the interval of the Info-Requests
	nameAddrs    = 8                // global addresses of one host
	nameSourceOf = "host-name"
)

// NameChange is a host of lispers.net that sends from another address or port.
type NameChange struct {
	Name          string
	Before, Since netip.AddrPort // Before is zero for a new one, Since for one that is gone
}

// nameKey is a host as mappings name it.
type nameKey struct {
	name string
	addr netip.Addr
}

type nameEntry struct {
	key     nameKey
	at      netip.AddrPort
	rtr     netip.Addr
	expires time.Time
}

// nameTable is the hosts, in the order of their last Info-Request: all wait
// equally long.
type nameTable struct {
	byKey   map[nameKey]*nameEntry
	order   []*nameEntry // oldest first; superseded ones have left byKey
	perName map[string]int
	changes []NameChange
}

func (t *nameTable) len() int { return len(t.byKey) }

func (t *nameTable) deadline() time.Time {
	t.compact()
	if len(t.order) == 0 {
		return time.Time{}
	}
	return t.order[0].expires
}

// compact drops what a later Info-Request has superseded from the front.
func (t *nameTable) compact() {
	for len(t.order) > 0 && t.byKey[t.order[0].key] != t.order[0] {
		t.order[0] = nil
		t.order = t.order[1:]
	}
}

func (t *nameTable) expire(r *RTR, now time.Time) {
	for t.compact(); len(t.order) > 0 && !t.order[0].expires.After(now); t.compact() {
		t.remove(r, t.order[0])
	}
}

func (t *nameTable) remove(r *RTR, e *nameEntry) {
	delete(t.byKey, e.key)
	if t.perName[e.key.name]--; t.perName[e.key.name] == 0 {
		delete(t.perName, e.key.name)
	}
	t.note(r, NameChange{e.key.name, e.at, netip.AddrPort{}})
}

// note keeps a change. One that nobody takes is lost with the oldest ones.
func (t *nameTable) note(r *RTR, c NameChange) {
	if len(t.changes) >= maxRTREvents {
		t.changes = t.changes[1:]
		r.stats.EventsLost++
	}
	t.changes = append(t.changes, c)
}

// handleName takes what came to the data port: a LISP header with the instance ID
// of control messages, and an Info-Request right behind it.
func (r *RTR) handleName(now time.Time, d lisp.Datagram) bool {
	b := d.Bytes
	if h, err := lisp.ParseDataHeader(b); err == nil && lisp.TypeOf(b) != lisp.TypeInfo {
		if iid, ok := h.InstanceID(); !ok || iid != lisp.InstanceIDControl {
			return false
		}
		b = b[lisp.DataHeaderLen:]
	}
	if lisp.TypeOf(b) != lisp.TypeInfo {
		return false
	}
	var m lisp.InfoRequest
	if m.DecodeFromBytes(b) != nil {
		return false
	}
	name, ok := hostName(m.Host)
	if !ok || !usable(d.Remote.Addr()) || d.Remote.Port() == 0 {
		r.drop(now, RTRMalformed, d.Remote, lisp.XTRID{}, nameSourceOf)
		return true
	}
	if !r.sources.allow(now, d.Remote.Addr()) || !r.unknown.allow(now) {
		r.drop(now, RTRRate, d.Remote, lisp.XTRID{}, nameSourceOf)
		return true
	}
	r.stats.InfoRequests++
	t := &r.names
	if t.byKey == nil {
		t.byKey, t.perName = make(map[nameKey]*nameEntry), make(map[string]int)
	}
	k := nameKey{name, d.Remote.Addr()}
	old := t.byKey[k]
	if old == nil && (len(t.byKey) >= r.cfg.MaxRelays || t.perName[name] >= nameAddrs) {
		r.drop(now, RTRTableFull, d.Remote, lisp.XTRID{}, nameSourceOf)
		return true
	}
	e := &nameEntry{key: k, at: d.Remote, rtr: d.Local.Addr(), expires: now.Add(nameTimeout)}
	before := netip.AddrPort{}
	if old == nil {
		t.perName[name]++
	} else {
		before = old.at
	}
	t.byKey[k] = e
	t.order = append(t.order, e)
	if before != e.at {
		t.note(r, NameChange{name, before, e.at})
		// Anybody can have this said, as often as the rate limits allow.
		r.log.Debug("lispers.net host", "name", name, "peer", e.at)
	}
	if len(t.order) > 2*len(t.byKey)+sourceSlots {
		t.squeeze()
	}
	return true
}

// squeeze drops everything superseded.
func (t *nameTable) squeeze() {
	kept := make([]*nameEntry, 0, len(t.byKey))
	for _, e := range t.order {
		if t.byKey[e.key] == e {
			kept = append(kept, e)
		}
	}
	t.order = kept
}

// hostName is the name in an Info-Request of lispers.net: AFI 17, NUL at the end.
func hostName(a lisp.Address) (string, bool) {
	if a.AFI() != lisp.AFIDistinguishedName {
		return "", false
	}
	b, err := a.MarshalBinary()
	if err != nil || len(b) <= 3 || len(b) > 3+maxHostName {
		return "", false
	}
	return string(b[2 : len(b)-1]), true
}

// Host is where packets for a host of lispers.net with a global address go: to the
// port that its Info-Requests come from.
func (r *RTR) Host(name string, global netip.Addr) (netip.AddrPort, bool) {
	e := r.names.byKey[nameKey{name, global.Unmap()}]
	if e == nil {
		return netip.AddrPort{}, false
	}
	return e.at, true
}

// NextName returns the next change of a host of lispers.net.
func (r *RTR) NextName() (NameChange, bool) {
	t := &r.names
	if len(t.changes) == 0 {
		return NameChange{}, false
	}
	c := t.changes[0]
	t.changes = t.changes[1:]
	if len(t.changes) == 0 {
		t.changes = nil
	}
	return c, true
}

package encap

import (
	"net/netip"
	"sync"

	"github.com/xtrkit/xtrkit/mapcache"
)

// meters has the Meters that nobody uses, for the next who forwards.
type meters struct {
	make func(mapcache.Direction) *mapcache.Meter // nil: packets are not counted by entry
	mu   sync.Mutex
	free [2][]*mapcache.Meter
}

// take returns a Meter for one who forwards; nil if nothing is to be counted.
func (ms *meters) take(d mapcache.Direction) *mapcache.Meter {
	if ms.make == nil {
		return nil
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if n := len(ms.free[d]); n > 0 {
		m := ms.free[d][n-1]
		ms.free[d] = ms.free[d][:n-1]
		return m
	}
	return ms.make(d)
}

// give takes back what take returned.
func (ms *meters) give(d mapcache.Direction, m *mapcache.Meter) {
	if m == nil {
		return
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.free[d] = append(ms.free[d], m)
}

// maxTallies is how many entries an ingress counts for at once.
const maxTallies = 256

// senders counts, for the map-cache entry of its inner source, what an ingress
// delivers.
type senders struct {
	meter *mapcache.Meter  // or nil
	list  []mapcache.Tally // of the batch; the last one is of the source at hand
	o     *overlay
	eid   netip.Addr // the source at hand
}

// is says whom the packets are from that are delivered next.
func (s *senders) is(v *mapcache.View, o *overlay, eid netip.Addr) {
	if s.o == o && s.eid == eid {
		return
	}
	if len(s.list) == maxTallies {
		s.flush()
	}
	id, _ := v.LookupID(o.iid, eid)
	s.o, s.eid = o, eid
	s.list = append(s.list, mapcache.Tally{EntryID: id})
}

// add counts what was delivered.
func (s *senders) add(packets, octets int) {
	if s.meter != nil {
		t := &s.list[len(s.list)-1]
		t.Packets += uint64(packets)
		t.Octets += uint64(octets)
	}
}

// flush counts the batch.
func (s *senders) flush() {
	if s.meter != nil {
		s.meter.Add(s.list)
		s.list, s.o = s.list[:0], nil
	}
}

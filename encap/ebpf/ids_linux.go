package ebpf

import "time"

// idRest is how long the id of something that is gone is not used again: by then
// no packet can be under way that has read it.
const idRest = 100 * time.Millisecond

// ids gives out numbers from 1 up to below max.
type ids struct {
	next, max uint32
	resting   []restingID // the oldest first
}

type restingID struct {
	id uint32
	at time.Time
}

func newIDs(max int) ids { return ids{next: 1, max: uint32(max)} }

// take returns a free id, or false if there is none.
func (s *ids) take(now time.Time) (uint32, bool) {
	if len(s.resting) > 0 && now.Sub(s.resting[0].at) >= idRest {
		id := s.resting[0].id
		s.resting = s.resting[1:]
		return id, true
	}
	if s.next >= s.max {
		return 0, false
	}
	s.next++
	return s.next - 1, true
}

func (s *ids) put(now time.Time, id uint32) { s.resting = append(s.resting, restingID{id, now}) }

// used is how many are given out.
func (s *ids) used() int { return int(s.next) - 1 - len(s.resting) }

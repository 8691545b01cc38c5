package control

import (
	"net/netip"
	"time"
)

// mapResolver is a Map-Resolver and what is known of its health.
type mapResolver struct {
	addr    netip.AddrPort
	fails   int           // Map-Requests in a row without a Map-Reply
	retryAt time.Time     // when a failing one is tried first again
	rtt     time.Duration // smoothed, of answered Map-Requests
	asked   uint64
	answers uint64
}

const (
	resolverFails = 2                // this many and another Map-Resolver is asked first
	resolverRetry = 30 * time.Second // until it gets another chance
)

// Resolver is a snapshot of a Map-Resolver's health.
type Resolver struct {
	Addr    netip.AddrPort
	Healthy bool          // answered lately, or was not asked
	RTT     time.Duration // from Map-Request to Map-Reply, smoothed; 0: unknown
	Asked   uint64        // Map-Requests sent by it
	Answers uint64        // of those, answered
}

// Resolvers returns the Map-Resolvers in the order of the configuration.
func (e *Engine) Resolvers() []Resolver {
	rs := make([]Resolver, len(e.resolvers))
	for i, r := range e.resolvers {
		rs[i] = Resolver{Addr: r.addr, Healthy: r.fails < resolverFails, RTT: r.rtt, Asked: r.asked, Answers: r.answers}
	}
	return rs
}

// pickResolver chooses the Map-Resolver for the next Map-Request of p: the
// first healthy one, but not the one that just failed to answer p if there is
// another. It is -1 if none can be reached from our locators.
func (e *Engine) pickResolver(now time.Time, p *pending) int {
	start := 0
	if p.sends > 0 {
		start = p.resolver + 1
	}
	fallback := -1
	for i := range e.resolvers {
		n := (start + i) % len(e.resolvers)
		r := e.resolvers[n]
		if _, ok := e.localFor(r.addr.Addr()); !ok {
			continue
		}
		if r.fails < resolverFails {
			r.asked++
			return n
		}
		if !now.Before(r.retryAt) {
			r.retryAt = now.Add(resolverRetry) // this request is the test
			r.asked++
			return n
		}
		if fallback < 0 {
			fallback = n
		}
	}
	if fallback >= 0 {
		e.resolvers[fallback].asked++
	}
	return fallback
}

func (r *mapResolver) unanswered(now time.Time) {
	r.fails++
	if r.fails == resolverFails {
		r.retryAt = now.Add(resolverRetry)
	}
}

func (r *mapResolver) answered(rtt time.Duration) {
	r.answers++
	r.fails = 0
	r.rtt = smooth(r.rtt, rtt)
}

// smooth is the usual moving average of round-trip times.
func smooth(old, sample time.Duration) time.Duration {
	if old == 0 {
		return sample
	}
	return old + (sample-old)/8
}

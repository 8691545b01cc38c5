package mapserver

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestWorkersInParallel: many workers register and resolve at once while one
// writer applies, and the outcome is that of doing it in turn.
func TestWorkersInParallel(t *testing.T) {
	const workers, eids, rounds = 4, 64, 6
	b := newBench(t, func(c *Config) {
		c.RatePerSource, c.RateTotal = -1, -1
		c.Sites[0].ProxyReply = true
	})
	type message struct {
		from netip.AddrPort
		msg  []byte
	}
	var messages [workers][]message
	for round := range rounds {
		for i := range eids {
			eid := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i)}), 24)
			w := i % workers
			ttl := uint32(10 + round/2) // changes now and then
			messages[w] = append(messages[w],
				message{etr1, register(t, key1, record(eid.String(), ttl, "192.0.2.11"))},
				message{itr, request(t, itr, netip.AddrFrom4([4]byte{10, 1, byte(i * 7 % eids), 9}).String())})
			// More xTRs of one EID-Prefix than are kept: claims come and go.
			x := lisp.XTRID{0: byte(i), 1: byte(round), 2: 1}
			for range 2 {
				messages[w] = append(messages[w], message{etr2, register(t, key1, record("10.200.0.0/16", 10, "192.0.2.12"),
					withXTR(x), withMerge, withoutNotify)})
			}
		}
	}
	updates := make(chan *Update, 16)
	var wg sync.WaitGroup
	var mu sync.Mutex
	notifies, replies := 0, 0
	for _, ms := range messages {
		w := b.s.NewWorker()
		wg.Go(func() {
			for _, m := range ms {
				r := w.Handle(b.now, lisp.Datagram{Local: msAddr, Remote: m.from, Bytes: m.msg})
				assert.True(t, r.Claimed)
				mu.Lock()
				for _, d := range r.Out {
					if lisp.TypeOf(d.Bytes) == lisp.TypeMapNotify {
						notifies++
					} else {
						replies++
					}
				}
				mu.Unlock()
				if r.Update != nil {
					updates <- r.Update
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Registrations and Stats may be called by anyone meanwhile.
		for range 50 {
			b.s.Registrations(b.now)
			b.s.Stats()
		}
	}()
	go func() { wg.Wait(); close(updates) }()
	var batch []*Update
	for u := range updates {
		if batch = append(batch, u); u.Urgent || len(batch) > 8 {
			b.s.Apply(b.now, batch...)
			batch = nil
		}
	}
	b.s.Apply(b.now, batch...)
	<-done
	for range b.drain() {
		notifies++
	}
	// Nonces are fresh throughout, so each Map-Register gets its Map-Notify once,
	// whichever side sends it.
	assert.Equal(t, eids*rounds, notifies)
	assert.Equal(t, eids*rounds, replies)
	regs := b.s.Registrations(b.now)
	require.Len(t, regs, eids+1)
	assert.Len(t, regs[eids].XTRs, maxClaimsPerEID)
	assert.EqualValues(t, 3*eids*rounds, b.s.Stats().Registers)
}

// TestRefreshNeedsNoWriterToAnswer: the Map-Notify of an unchanged registration
// comes from the worker, and the writer gets a stamp.
func TestRefreshNeedsNoWriterToAnswer(t *testing.T) {
	b := newBench(t)
	w := b.s.NewWorker()
	handle := func(opts ...registerOption) Result {
		return w.Handle(b.now, lisp.Datagram{
			Local: msAddr, Remote: etr1,
			Bytes: register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), opts...),
		})
	}
	r := handle()
	assert.Empty(t, r.Out, "not acknowledged before it is applied")
	require.NotNil(t, r.Update)
	assert.True(t, r.Update.Urgent)
	b.s.Apply(b.now, r.Update)
	assert.Len(t, b.drain(), 1)

	r = handle()
	require.Len(t, r.Out, 1)
	require.NoError(t, lisp.Verify(r.Out[0].Bytes, key1))
	assert.False(t, r.Update.Urgent)
	stamp := r.Update
	r = handle(withProxy)
	assert.True(t, r.Update.Urgent, "other terms")
	b.s.Apply(b.now, r.Update)
	b.drain()
	b.s.Apply(b.now, stamp) // late, and for a registration that has changed
	assert.Empty(t, b.drain())
	assert.True(t, b.s.Registrations(b.now)[0].Proxy)
}

func TestWorkerAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBench(t, func(c *Config) { c.EventBuffer, c.RatePerSource, c.RateTotal = -1, -1, -1 })
	require.Len(t, b.put(etr1, register(t, key1, record("10.1.0.0/16", 10, "192.0.2.11"), withProxy)), 1)
	w := b.s.NewWorker()
	for name, tc := range map[string]struct {
		msg []byte
		max float64
	}{
		"proxy reply": {request(t, itr, "10.1.2.3"), 0},
		"negative":    {request(t, itr, "198.51.100.1"), 0},
	} {
		d := lisp.Datagram{Local: msAddr, Remote: itr, Bytes: tc.msg}
		require.Len(t, w.Handle(b.now, d).Out, 1)
		assert.LessOrEqual(t, testing.AllocsPerRun(100, func() { w.Handle(b.now, d) }), tc.max, name)
	}
}

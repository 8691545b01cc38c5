package mapserver

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/xtrkit/xtrkit/lisp"
)

// TestAcksInParallel: Workers verify Map-Notify-Acks and Map-Registers while the
// writer moves mappings to and fro; in the end everybody has been told.
func TestAcksInParallel(t *testing.T) {
	const workers, eids, rounds = 3, 16, 12
	b := newBench(t, func(c *Config) { c.RatePerSource, c.RateTotal = -1, -1 })
	// Each Worker has a goroutine, as with sockets of their own.
	in := make(chan lisp.Datagram, 1<<12)
	updates := make(chan *Update, 1<<12)
	var inFlight sync.WaitGroup
	var done sync.WaitGroup
	for range workers {
		w := b.s.NewWorker()
		done.Go(func() {
			for d := range in {
				if u := w.Handle(b.now, d).Update; u != nil {
					inFlight.Add(1)
					updates <- u
				}
				inFlight.Done()
			}
		})
	}
	put := func(from netip.AddrPort, msg []byte) {
		inFlight.Add(1)
		in <- lisp.Datagram{Local: msAddr, Remote: from, Bytes: msg}
	}
	unsolicited := 0
	settle := func() {
		idle := make(chan struct{})
		go func() { inFlight.Wait(); close(idle) }()
		for {
			select {
			case u := <-updates:
				b.s.Apply(b.now, u)
				for _, d := range b.drain() {
					m := parse[*lisp.MapNotify](t, d.Bytes)
					if m.Nonce < 1<<32 { // one that answers
						continue
					}
					unsolicited++
					put(d.Remote, ackOf(t, m, key1))
				}
				inFlight.Done()
			case <-idle:
				return
			}
		}
	}
	for round := range rounds {
		from, x := etr1, xtr1
		if round%2 == 1 {
			from, x = etr2, xtr2
		}
		for i := range eids {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24)
			put(from, register(t, key1, record(p.String(), 10, from.Addr().String()), withXTR(x), withoutNotify))
		}
		settle()
	}
	close(in)
	done.Wait()
	b.notNotifying()
	st := b.s.Stats()
	assert.EqualValues(t, eids*(rounds-1), st.Moves)
	assert.EqualValues(t, unsolicited, st.NotifyAcks)
	assert.GreaterOrEqual(t, unsolicited, rounds-1)
	b.advance(time.Minute)
	assert.Empty(t, b.drain())
}
